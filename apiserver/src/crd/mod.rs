//! CustomResourceDefinitions at run time: which names they get, which kinds they add, and how they end.
//!
//! One task follows the definitions. Each pass looks at all of them: it grants names, serves the kinds of those that
//! are established, writes what has changed into their status, and empties those that are being deleted. A pass
//! remembers nothing but what is served; whatever is lost costs one more pass. What a definition means is in
//! `api::crd`; how its objects get from one version to another by a webhook is in [`conversion`].

mod conversion;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::{Kind, Object, Status, crd, kinds, time};
use futures::{StreamExt, stream};
use serde_json::Value;
use store::Revision;
use tokio::sync::watch::Receiver;

use crate::{
    registry::{Custom, Registry, key, now},
    request::{DeleteOptions, User},
    write::{self, Write},
};

pub(crate) use conversion::{converted, shown, to_stored};

/// How long to wait after a pass that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How many objects of a definition that goes are deleted at once.
const DELETIONS_AT_ONCE: usize = 16;

fn definitions() -> &'static Kind {
    kinds::built_in("apiextensions.k8s.io", "customresourcedefinitions")
}

/// Serves custom resources for as long as the registry lives.
pub(crate) fn start(registry: &Arc<Registry>) {
    let (definitions, stop) = (Definitions::new(registry.clone()), registry.stop().clone());
    registry.tasks().spawn(async move {
        stop.run_until_cancelled(definitions.run()).await;
    });
}

struct Definitions {
    registry: Arc<Registry>,
    /// What is served: where objects are stored, to the definition in force.
    served: BTreeMap<&'static str, &'static crd::Definition>,
    /// The definitions that are being emptied, by uid.
    emptying: Arc<Mutex<HashSet<String>>>,
}

impl Definitions {
    fn new(registry: Arc<Registry>) -> Definitions {
        Definitions { registry, served: BTreeMap::new(), emptying: Arc::default() }
    }

    async fn run(mut self) {
        loop {
            match self.follow().await {
                Ok(never) => match never {},
                Err(status) => {
                    tracing::warn!(%status, "cannot follow the definitions of custom resources, trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible, Status> {
        let mut changes = self.registry.changes(definitions()).await?;
        loop {
            changes.mark_unchanged();
            self.pass().await?;
            let woken = changes.changed().await;
            woken.map_err(|_| Status::internal("the cache of definitions has ended"))?;
        }
    }

    /// Looks at everything once.
    async fn pass(&mut self) -> Result<(), Status> {
        let mut all = self.registry.list(definitions(), None).await?;
        // Who was there first has the names.
        all.sort_by_cached_key(|crd| {
            (crd.text(&["metadata", "creationTimestamp"]).to_string(), crd.name().to_string())
        });
        let mut changed = Vec::new();
        for index in 0..all.len() {
            let granted = crd::conditions(&all[index], &all);
            let before = all[index].clone();
            granted.write(&mut all[index], &time::format(now()));
            if all[index] != before {
                changed.push((before.name().to_string(), granted));
            }
        }
        self.serve(&all).await;
        for (name, granted) in changed {
            let written = self.registry.update_subresource(definitions(), "status", "", &name, |mut crd| {
                granted.write(&mut crd, &time::format(now()));
                Ok(crd)
            });
            gone_is_fine(written.await.map(drop))?;
        }
        for crd in all.iter().filter(|crd| is_terminating(crd) && has_finalizer(crd)) {
            self.begin_to_empty(crd);
        }
        Ok(())
    }

    /// Empties a definition in a task of its own: what cannot be deleted, or takes long, keeps no other waiting.
    fn begin_to_empty(&self, crd: &Object) {
        let uid = crd.uid().to_string();
        let Some(turn) = Turn::take(&self.emptying, &uid) else { return };
        let emptying = Emptying { registry: self.registry.clone(), name: crd.name().to_string(), uid };
        let stop = self.registry.stop().clone();
        self.registry.tasks().spawn(async move {
            let _turn = turn;
            stop.run_until_cancelled(emptying.run()).await;
        });
    }

    /// Puts the kinds of established definitions into the table.
    async fn serve(&mut self, all: &[Object]) {
        let mut custom = Custom::default();
        let mut served = BTreeMap::new();
        for crd in all.iter().filter(|crd| is_established(crd)) {
            let definition = match crd::Definition::of(crd) {
                Ok(definition) => definition,
                Err(why) => {
                    tracing::error!(definition = crd.name(), why, "a definition cannot be served");
                    continue;
                }
            };
            let rows = definition.kinds().iter();
            custom.rows.extend(rows.filter(|row| row.custom.is_some_and(|version| version.is_served)));
            if let Some(stored) = definition.stored() {
                served.insert(stored.storage, definition);
                if is_terminating(crd) {
                    custom.terminating.insert(stored.storage);
                }
            }
        }
        custom.rows.sort_by_key(|row| (row.group, row.plural));
        self.registry.kinds().replace(custom);
        let is_same = |storage: &&str| match (self.served.get(storage), served.get(storage)) {
            (Some(before), Some(now)) => std::ptr::eq(*before, *now),
            _ => false,
        };
        let outdated: HashSet<&'static str> =
            self.served.keys().copied().filter(|storage| !is_same(storage)).collect();
        self.served = served;
        for storage in outdated {
            self.registry.forget(storage).await;
        }
    }
}

/// The right to empty a definition, which one task has at a time. It ends with the task, however that ends.
struct Turn {
    taken: Arc<Mutex<HashSet<String>>>,
    uid: String,
}

impl Turn {
    fn take(taken: &Arc<Mutex<HashSet<String>>>, uid: &str) -> Option<Turn> {
        let is_free = taken.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_string());
        is_free.then(|| Turn { taken: taken.clone(), uid: uid.to_string() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.uid);
    }
}

/// A definition that goes as soon as it has no objects any more.
struct Emptying {
    registry: Arc<Registry>,
    name: String,
    uid: String,
}

impl Emptying {
    async fn run(&self) {
        loop {
            match self.attempt().await {
                Ok(None) => return,
                // Objects with finalizers go later; then there is something to do again.
                Ok(Some(mut changes)) => {
                    if changes.changed().await.is_err() {
                        tracing::debug!(definition = self.name, "looking again, the objects are read anew");
                    }
                }
                Err(status) => {
                    tracing::warn!(%status, definition = self.name, "cannot empty a definition yet, trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Deletes what there is; tells what to wait for when that was not all.
    async fn attempt(&self) -> Result<Option<Receiver<Revision>>, Status> {
        let found = self.registry.find(definitions(), "", &self.name).await?;
        match found.filter(|crd| crd.uid() == self.uid && has_finalizer(crd)) {
            Some(crd) => self.empty(&crd).await,
            None => Ok(None),
        }
    }

    /// Deletes the objects of a definition; when none is left, lets the definition go.
    async fn empty(&self, crd: &Object) -> Result<Option<Receiver<Revision>>, Status> {
        let stored = crd::Definition::of(crd).ok().and_then(crd::Definition::stored);
        if let Some(kind) = stored.filter(|_| is_established(crd)) {
            self.registry.kinds().creations_done().await;
            let cache = self.registry.fresh_cache(kind).await?;
            let mut progress = cache.progress();
            progress.mark_unchanged();
            let (entries, _) = cache.list(&key::kind_prefix(kind));
            let user = User::new("system:apiserver", &["system:masters"]);
            let deletions = stream::iter(entries).map(|entry| {
                let user = &user;
                async move {
                    let (namespace, name) = (entry.namespace(), entry.name());
                    let write = Write::internal(&self.registry, user, kind, namespace, name);
                    gone_is_fine(write::delete(&write, &DeleteOptions::default()).await.map(drop))
                }
            });
            let mut deletions = deletions.buffer_unordered(DELETIONS_AT_ONCE);
            while let Some(deleted) = deletions.next().await {
                deleted?;
            }
            let cache = self.registry.fresh_cache(kind).await?;
            if !cache.list(&key::kind_prefix(kind)).0.is_empty() {
                return Ok(Some(progress));
            }
        }
        let released = self.registry.update(definitions(), "", crd.name(), |mut crd| {
            let kept = crd.list(&["metadata", "finalizers"]).iter().filter(|name| **name != crd::CLEANUP);
            let kept: Vec<Value> = kept.cloned().collect();
            crd.set(&["metadata", "finalizers"], kept);
            Ok(crd)
        });
        gone_is_fine(released.await.map(drop))?;
        Ok(None)
    }
}

fn has_finalizer(crd: &Object) -> bool {
    crd.finalizers().any(|finalizer| finalizer == crd::CLEANUP)
}

fn is_established(crd: &Object) -> bool {
    crd.list(&["status", "conditions"])
        .iter()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

fn is_terminating(crd: &Object) -> bool {
    crd.deletion_timestamp().is_some()
}

/// Somebody else was faster: gone is gone.
fn gone_is_fine(result: Result<(), Status>) -> Result<(), Status> {
    match result {
        Err(status) if status.code == 404 => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_with_a_panic_too() {
        let taken = Arc::default();
        let turn = Turn::take(&taken, "1").unwrap();
        assert!(Turn::take(&taken, "1").is_none());
        let panicked = std::thread::spawn(move || {
            let _turn = turn;
            panic!("while it is emptied");
        });
        assert!(panicked.join().is_err());
        assert!(Turn::take(&taken, "1").is_some());
    }
}

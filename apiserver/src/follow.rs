//! A view over one kind's objects, kept in step with the watch cache change by change.
//!
//! Authorization and admission ask questions about other objects on every request (who is bound to
//! what, which pods are on that node, what does that namespace already use); a [`Follow`] answers
//! from a structure made for the question, and reads only what has changed since it was last asked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use api::{Kind, Object, Status};
use store::Revision;
use tokio::sync::OnceCell;

use crate::registry::{Registry, cache::Cache};

/// How many changes are taken over in one go.
const STRIDE: usize = 1024;

/// What is remembered about the objects of a kind.
pub(crate) trait View: Default + Send {
    /// An object is there; it is not there yet in the view.
    fn add(&mut self, object: &Arc<Object>);

    /// An object that was added before is there no more, or no more in this form.
    fn remove(&mut self, object: &Object);
}

/// A view that follows the cache of a kind.
pub(crate) struct Follow<V> {
    kind: &'static Kind,
    cache: OnceCell<Arc<Cache>>,
    state: Mutex<Option<State<V>>>,
}

struct State<V> {
    view: V,
    revision: Revision,
}

impl<V: View> Follow<V> {
    /// A view over the objects of `kind`, empty until it is first asked.
    pub(crate) fn new(kind: &'static Kind) -> Follow<V> {
        Follow { kind, cache: OnceCell::new(), state: Mutex::new(None) }
    }

    /// Asks the view, which has seen every write that this server has acknowledged.
    pub(crate) async fn ask<R>(
        &self,
        registry: &Registry,
        question: impl FnOnce(&mut V) -> R,
    ) -> Result<R, Status> {
        let cache = self.cache.get_or_try_init(|| registry.cache(self.kind)).await?;
        cache.reach_own_writes().await?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.catch_up(cache, state.take())?;
        Ok(question(&mut state.insert(view).view))
    }

    fn catch_up(&self, cache: &Cache, state: Option<State<V>>) -> Result<State<V>, Status> {
        let Some(mut state) = state else { return self.start(cache) };
        while state.revision < cache.revision() {
            let Ok((changes, reached)) = cache.changes_after(state.revision, STRIDE) else {
                return self.start(cache);
            };
            for change in changes {
                if let Some(previous) = &change.previous {
                    state.view.remove(&previous.decode_as(self.kind)?);
                }
                if !change.is_deletion {
                    state.view.add(&Arc::new(change.entry.decode_as(self.kind)?));
                }
            }
            state.revision = reached;
        }
        Ok(state)
    }

    fn start(&self, cache: &Cache) -> Result<State<V>, Status> {
        let (entries, revision) = cache.list("");
        let mut view = V::default();
        for entry in entries {
            view.add(&Arc::new(entry.decode_as(self.kind)?));
        }
        Ok(State { view, revision })
    }
}

/// All objects of a kind, by namespace and name.
#[derive(Default)]
pub(crate) struct Objects {
    namespaces: BTreeMap<String, BTreeMap<String, Arc<Object>>>,
    version: u64,
}

impl Objects {
    /// One object; the namespace of cluster-scoped ones is empty.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.namespaces.get(namespace)?.get(name).cloned()
    }

    /// The objects in one namespace.
    pub(crate) fn of_namespace(&self, namespace: &str) -> Vec<Arc<Object>> {
        self.namespaces.get(namespace).map(|objects| objects.values().cloned().collect()).unwrap_or_default()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Object>> {
        self.namespaces.values().flat_map(BTreeMap::values).cloned().collect()
    }

    /// A number that is another one after every change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }
}

impl View for Objects {
    fn add(&mut self, object: &Arc<Object>) {
        let objects = self.namespaces.entry(object.namespace().to_string()).or_default();
        objects.insert(object.name().to_string(), object.clone());
        self.version += 1;
    }

    fn remove(&mut self, object: &Object) {
        self.version += 1;
        if let Some(objects) = self.namespaces.get_mut(object.namespace()) {
            objects.remove(object.name());
            if objects.is_empty() {
                self.namespaces.remove(object.namespace());
            }
        }
    }
}

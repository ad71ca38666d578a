//! Every kind's objects: the one way from the rest of the server to the store.
//!
//! Reads come from a watch cache for each kind ([`cache::Cache`]), which holds the encoded bytes that
//! clients are sent; they are never older than the last write that this server acknowledged. Writes go
//! to the store with compare-and-swap. What a write may contain is decided before, in [`crate::write`];
//! the methods here that take whole [`Object`]s are for the server's own needs and apply every rule of
//! the kind but neither authorization nor admission.

pub(crate) mod cache;
pub(crate) mod convert;
pub(crate) mod encode;
pub(crate) mod entry;
mod feed;
pub(crate) mod frame;
pub(crate) mod key;
mod kinds;
pub(crate) mod ring;
pub(crate) mod selection;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use api::{Kind, Object, Status};
use bytes::Bytes;
use jiff::Timestamp;
use store::{KeyValue, ReadError, Revision, Store, WriteError};
use tokio::sync::{OnceCell, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    crd,
    fairness::Crowd,
    remote::Remotes,
    request::{DeleteOptions, User},
    write::{self, Write},
};
use cache::Cache;
use convert::stored_kind;
use entry::Entry;
pub(crate) use kinds::Custom;
pub use kinds::Kinds;
pub(crate) use kinds::being_deleted;

/// Upstream's words for a lost race.
pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// The name under which the server itself owns fields.
const APISERVER: &str = "kube-apiserver";

/// How long events are kept.
const EVENT_LIFETIME: Duration = Duration::from_secs(3600);

/// All objects of all kinds.
pub struct Registry {
    store: Arc<dyn Store>,
    /// Whether others write to the store, too.
    is_shared: bool,
    kinds: Kinds,
    caches: RwLock<HashMap<&'static str, Arc<OnceCell<Arc<Cache>>>>>,
    remotes: Remotes,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Registry {
    /// The objects in `store`. `is_shared` says whether other servers write to it, too; reads then ask
    /// the store how far it is. Tasks that fill caches end with `stop`.
    pub fn new(store: Arc<dyn Store>, is_shared: bool, stop: CancellationToken) -> Arc<Registry> {
        Arc::new(Registry {
            store,
            is_shared,
            kinds: Kinds::default(),
            caches: RwLock::default(),
            remotes: Remotes::default(),
            tasks: TaskTracker::new(),
            stop,
        })
    }

    /// The kinds that are served.
    pub fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// Whether others write to the store, too.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// The way to the users' webhooks.
    pub(crate) fn remotes(&self) -> &Remotes {
        &self.remotes
    }

    /// Where tasks run that live as long as the server.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Ends with the server.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Forgets what is kept in memory of a kind whose definition has changed: its watches end, and what is read
    /// from now on is as the new definition has it.
    pub(crate) async fn forget(&self, storage: &str) {
        let forgotten = self.caches.write().unwrap_or_else(PoisonError::into_inner).remove(storage);
        let Some(cache) = forgotten.and_then(|cell| cell.get().cloned()) else { return };
        // Watchers are told of what this server has written before.
        if let Err(status) = cache.reach_own_writes().await {
            tracing::debug!(%status, storage, "a cache is forgotten before it has seen everything");
        }
        cache.close();
    }

    /// Waits until nothing runs any more, after `stop`.
    pub async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// One object.
    pub async fn get(&self, kind: &'static Kind, namespace: &str, name: &str) -> Result<Object, Status> {
        self.entry(kind, namespace, name).await?.decode_as(kind)
    }

    /// One object, or nothing where there is none.
    pub async fn find(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, Status> {
        match self.get(kind, namespace, name).await {
            Ok(object) => Ok(Some(object)),
            Err(status) if status.code == 404 => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// All objects of a kind, or those in one namespace.
    pub async fn list(&self, kind: &'static Kind, namespace: Option<&str>) -> Result<Vec<Object>, Status> {
        let cache = self.fresh_cache(kind).await?;
        let (entries, _) = cache.list(&key::prefix(kind, namespace.unwrap_or_default()));
        entries.iter().map(|entry| entry.decode_as(kind)).collect()
    }

    /// How far the cache of a kind is; changes with every change of an object. What was computed from a
    /// list is to be computed again when this moves.
    pub async fn changes(&self, kind: &'static Kind) -> Result<watch::Receiver<Revision>, Status> {
        Ok(self.cache(kind).await?.progress())
    }

    /// Creates an object by the rules of its kind.
    pub async fn create(&self, kind: &'static Kind, object: Object) -> Result<Object, Status> {
        let user = User::new("system:apiserver", &["system:masters"]);
        let namespace = object.namespace().to_string();
        let write = Write::internal(self, &user, kind, &namespace, "").managed_by(APISERVER);
        write::create(&write, object).await?.entry.decode_as(kind)
    }

    /// Changes an object by the rules of its kind: `change` is given the newest state, again whenever
    /// somebody else was faster. Returning it unchanged writes nothing.
    pub async fn update(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        change: impl FnMut(Object) -> Result<Object, Status> + Send,
    ) -> Result<Object, Status> {
        let user = User::new("system:apiserver", &["system:masters"]);
        let write = Write::internal(self, &user, kind, namespace, name).managed_by(APISERVER);
        write::update(&write, change).await?.entry.decode_as(kind)
    }

    /// The same for a subresource: `status` changes the status alone.
    pub async fn update_subresource(
        &self,
        kind: &'static Kind,
        subresource: &str,
        namespace: &str,
        name: &str,
        change: impl FnMut(Object) -> Result<Object, Status> + Send,
    ) -> Result<Object, Status> {
        let user = User::new("system:apiserver", &["system:masters"]);
        let write = Write::internal(self, &user, kind, namespace, name).managed_by(APISERVER);
        let write = Write { subresource, ..write };
        write::update(&write, change).await?.entry.decode_as(kind)
    }

    /// Deletes an object, or begins to.
    pub async fn delete(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        let user = User::new("system:apiserver", &["system:masters"]);
        let write = Write::internal(self, &user, kind, namespace, name);
        write::delete(&write, options).await.map(drop)
    }

    /// One object as it is kept, at least as new as any acknowledged write.
    pub(crate) async fn entry(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Entry>, Status> {
        let key = key::key(kind, namespace, name)?;
        let cache = self.fresh_cache(kind).await?;
        cache.get(&key).ok_or_else(|| Status::not_found(kind.group, kind.plural, name))
    }

    /// One object straight from the store, after a lost race.
    pub(crate) async fn stored_entry(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Entry>, Status> {
        let key = key::key(kind, namespace, name)?;
        let found = self.store.get(&key, None).await.map_err(read_failed)?;
        let found = found.ok_or_else(|| Status::not_found(kind.group, kind.plural, name))?;
        Entry::new(stored_kind(kind), &found).map(Arc::new)
    }

    /// A page of a kind's objects as they were at a revision, from the store.
    pub(crate) async fn range_at(
        &self,
        kind: &'static Kind,
        prefix: &str,
        after: Option<&str>,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<(Vec<Arc<Entry>>, store::RangeResult), Status> {
        let mut range = self.store.range(prefix, after, at, limit).await.map_err(read_failed)?;
        let items = std::mem::take(&mut range.items);
        let kind = stored_kind(kind);
        let entries = items.iter().map(|item| Entry::new(kind, item).map(Arc::new));
        Ok((entries.collect::<Result<_, _>>()?, range))
    }

    /// Stores a new object and returns it as it is kept.
    pub(crate) async fn insert(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        object: &Object,
    ) -> Result<Arc<Entry>, Status> {
        let key = key::key(kind, namespace, name)?;
        let value = self.encoded(kind, object).await?;
        // Whoever deletes the definition waits for those who create while they may.
        let creation = self.kinds.creation(kind).await?;
        let lifetime = (kind.storage == "events").then_some(EVENT_LIFETIME);
        let created = if kind.custom.is_some() {
            // The leave lasts as long as the write, also when nobody waits for the answer any more.
            let (store, key, value) = (self.store.clone(), key.clone(), value.clone());
            let write = async move {
                let _creation = creation;
                store.create(&key, value, lifetime).await
            };
            tokio::spawn(write).await.map_err(Status::internal)?
        } else {
            self.store.create(&key, value.clone(), lifetime).await
        };
        let revision = created.map_err(|error| write_failed(error, kind, name))?;
        self.wrote(kind, revision).await?;
        let created = KeyValue { key: key.into(), value, create_revision: revision, mod_revision: revision };
        Entry::unindexed(kind, &created).map(Arc::new)
    }

    /// Replaces `old`; `None` when somebody else was faster.
    pub(crate) async fn replace(
        &self,
        kind: &'static Kind,
        old: &Entry,
        object: &Object,
    ) -> Result<Option<Arc<Entry>>, Status> {
        let value = self.encoded(kind, object).await?;
        let revision = match self.store.update(old.key(), value.clone(), old.revision(), None).await {
            Ok(revision) => revision,
            Err(WriteError::Conflict { .. }) => return Ok(None),
            Err(error) => return Err(write_failed(error, kind, old.name())),
        };
        self.wrote(kind, revision).await?;
        let create_revision = old.create_revision();
        let written = KeyValue { key: old.key().clone(), value, create_revision, mod_revision: revision };
        Entry::unindexed(kind, &written).map(Arc::new).map(Some)
    }

    /// Removes `old` and returns it at the revision of its deletion; `None` when somebody else was faster.
    pub(crate) async fn remove(
        &self,
        kind: &'static Kind,
        old: &Entry,
    ) -> Result<Option<Arc<Entry>>, Status> {
        let revision = match self.store.delete(old.key(), Some(old.revision())).await {
            Ok((_, revision)) => revision,
            Err(WriteError::Conflict { .. }) => return Ok(None),
            Err(error) => return Err(write_failed(error, kind, old.name())),
        };
        self.wrote(kind, revision).await?;
        Ok(Some(Arc::new(old.deleted(revision))))
    }

    /// Whether writing an object again as it is would change how it is stored.
    pub(crate) async fn is_outdated(&self, entry: &Entry) -> Result<bool, Status> {
        self.store.is_outdated(entry.key()).await.map_err(read_failed)
    }

    /// Whether the store answers.
    pub(crate) async fn check_store(&self) -> Result<(), Status> {
        self.store.revision().await.map(drop).map_err(read_failed)
    }

    /// The cache of a kind, filled at first use.
    pub(crate) async fn cache(&self, kind: &'static Kind) -> Result<Arc<Cache>, Status> {
        loop {
            let cell = self.cell(kind);
            if let Some(cache) = cell.get() {
                return Ok(cache.clone());
            }
            // The row of a request may be older than the definition that is in force by now.
            let stored = self.kinds.in_force(stored_kind(kind));
            let start = || feed::start(self.store.clone(), stored, &self.tasks, self.stop.child_token());
            let cache = cell.get_or_try_init(start).await.map_err(read_failed)?;
            if Arc::ptr_eq(&cell, &self.cell(kind)) {
                return Ok(cache.clone());
            }
            // Forgotten while it was being filled: it may hold objects as an earlier definition had them.
            cache.close();
        }
    }

    fn cell(&self, kind: &'static Kind) -> Arc<OnceCell<Arc<Cache>>> {
        let known = self.caches.read().unwrap_or_else(PoisonError::into_inner).get(kind.storage).cloned();
        known.unwrap_or_else(|| {
            let mut caches = self.caches.write().unwrap_or_else(PoisonError::into_inner);
            caches.entry(kind.storage).or_default().clone()
        })
    }

    /// How many objects of a resource there are and how many watch them, as far as that is known already.
    pub(crate) fn crowd(&self, group: &str, version: &str, plural: &str) -> Crowd {
        let Some(kind) = self.kinds.find(group, version, plural) else { return Crowd::default() };
        let known = self.caches.read().unwrap_or_else(PoisonError::into_inner).get(kind.storage).cloned();
        known.and_then(|cell| cell.get().map(|cache| cache.crowd())).unwrap_or_default()
    }

    /// The cache of a kind once it has seen everything that was acknowledged before this call.
    pub(crate) async fn fresh_cache(&self, kind: &'static Kind) -> Result<Arc<Cache>, Status> {
        let cache = self.cache(kind).await?;
        if self.is_shared {
            let prefix = key::kind_prefix(stored_kind(kind));
            match self.store.request_progress(&prefix).await.map_err(read_failed)? {
                Some(revision) => cache.reach(revision).await?,
                // An engine that cannot tell how far a watch is: our own writes are all we can promise.
                None => cache.reach_own_writes().await?,
            }
        } else {
            cache.reach_own_writes().await?;
        }
        Ok(cache)
    }

    /// The value to store for an object of `kind`.
    async fn encoded(&self, kind: &'static Kind, object: &Object) -> Result<Bytes, Status> {
        match crd::to_stored(self, kind, object).await? {
            Some(converted) => encode::value(stored_kind(kind), &converted),
            None => encoded(kind, object),
        }
    }

    /// An object of kind `from` as `to` has it, which is another version of the same.
    pub(crate) async fn in_version(
        &self,
        from: &'static Kind,
        object: &Object,
        to: &'static Kind,
    ) -> Result<Object, Status> {
        if std::ptr::eq(from, to) || from.api_version() == to.api_version() {
            return Ok(object.clone());
        }
        match crd::converted(self, to, object).await? {
            Some(converted) => Ok(converted),
            None => Ok(convert::from_stored(to, convert::to_stored(from, object.clone()))),
        }
    }

    /// Objects as `kind` has them, where it takes a webhook to know; others as they are.
    pub(crate) async fn shown(
        &self,
        kind: &'static Kind,
        entries: Vec<Arc<Entry>>,
    ) -> Result<Vec<Arc<Entry>>, Status> {
        crd::shown(self, kind, entries).await
    }

    /// The same for one object.
    pub(crate) async fn shown_one(
        &self,
        kind: &'static Kind,
        entry: Arc<Entry>,
    ) -> Result<Arc<Entry>, Status> {
        let shown = self.shown(kind, vec![entry]).await?;
        shown.into_iter().next().ok_or_else(|| Status::internal("a conversion lost its object"))
    }

    async fn wrote(&self, kind: &'static Kind, revision: Revision) -> Result<(), Status> {
        self.cache(kind).await?.wrote(revision);
        Ok(())
    }
}

/// The value to store for an object of `kind`.
fn encoded(kind: &'static Kind, object: &Object) -> Result<Bytes, Status> {
    // What a webhook has to convert has been converted, or is shown and not stored.
    let needs_webhook = kind.custom.is_some_and(|version| version.needs_webhook());
    match convert::is_stored_as_it_is(kind) || needs_webhook {
        true => encode::value(kind, object),
        false => encode::value(stored_kind(kind), &convert::to_stored(kind, object.clone())),
    }
}

/// An object as it would be kept, for a reply to a write that was not carried out; 0: never stored.
pub(crate) fn unstored(
    kind: &'static Kind,
    namespace: &str,
    name: &str,
    object: &Object,
    revision: Revision,
) -> Result<Arc<Entry>, Status> {
    let stored = KeyValue {
        key: key::key(kind, namespace, name)?.into(),
        value: encoded(kind, object)?,
        create_revision: Revision(0),
        mod_revision: revision,
    };
    Entry::unindexed(kind, &stored).map(Arc::new)
}

/// Now, in whole seconds, as metadata has it.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

pub(crate) fn read_failed(error: ReadError) -> Status {
    match error {
        ReadError::Compacted { .. } => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        ReadError::Future { requested, current } => too_large_version(requested, current.unwrap_or_default()),
        ReadError::Unavailable { .. } => {
            tracing::error!(error = &error as &dyn std::error::Error, "store read failed");
            Status::internal(error)
        }
    }
}

/// 504: the client has seen a revision that this server has not.
pub(crate) fn too_large_version(requested: Revision, current: Revision) -> Status {
    let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
    let mut status = Status::new(504, "Timeout", message);
    status.details = Some(serde_json::json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }));
    status
}

fn write_failed(error: WriteError, kind: &Kind, name: &str) -> Status {
    match error {
        WriteError::AlreadyExists { .. } => Status::already_exists(kind.group, kind.plural, name),
        WriteError::NotFound { .. } => Status::not_found(kind.group, kind.plural, name),
        WriteError::Conflict { .. } => Status::conflict(kind.group, kind.plural, name, MODIFIED),
        WriteError::Unavailable { .. } => {
            tracing::error!(error = &error as &dyn std::error::Error, "store write failed");
            Status::internal(error)
        }
    }
}

//! The objects of one kind as the API server last told us, shared by everything in the process.
//!
//! An [`informer`](crate::informer) keeps a cache up to date. Readers get `Arc`s: nothing is copied. Whoever
//! wants to know of changes subscribes with [`Cache::on_change`] (called in order, nothing lost) or waits on
//! [`Cache::changed`] (told that something moved, not what). Lookups by owner and by node are indexes that
//! are built when first asked for.

use std::{
    any::type_name,
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::ResourceExt;
use tokio::sync::{mpsc, watch};

use crate::{ApiObject, ObjectKey};

/// What happened to one object.
#[derive(Debug)]
pub enum Change<K> {
    /// It is new, or it was there when the subscription began.
    Added(Arc<K>),
    /// It was replaced.
    Updated {
        /// What it was.
        old: Arc<K>,
        /// What it is.
        new: Arc<K>,
    },
    /// It is gone; this is its last state.
    Deleted(Arc<K>),
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Change::Added(object) => Change::Added(object.clone()),
            Change::Updated { old, new } => Change::Updated { old: old.clone(), new: new.clone() },
            Change::Deleted(object) => Change::Deleted(object.clone()),
        }
    }
}

impl<K> Change<K> {
    /// The object in its newest known state.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Change::Added(object) | Change::Deleted(object) => object,
            Change::Updated { new, .. } => new,
        }
    }

    /// What it was before, unless it is new.
    pub fn before(&self) -> Option<&Arc<K>> {
        match self {
            Change::Added(_) => None,
            Change::Updated { old, .. } | Change::Deleted(old) => Some(old),
        }
    }

    /// What it is now, unless it is gone.
    pub fn after(&self) -> Option<&Arc<K>> {
        match self {
            Change::Added(new) | Change::Updated { new, .. } => Some(new),
            Change::Deleted(_) => None,
        }
    }

    /// `added`, `updated` or `deleted`.
    pub fn verb(&self) -> &'static str {
        match self {
            Change::Added(_) => "added",
            Change::Updated { .. } => "updated",
            Change::Deleted(_) => "deleted",
        }
    }
}

impl<K: ApiObject> Change<K> {
    /// Which object it is.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::of(&**self.object())
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// All objects of kind `K` that the informer selected.
pub struct Cache<K> {
    contents: RwLock<Contents<K>>,
    /// Held while a change is told, so that every handler sees all changes, in order.
    handlers: Mutex<Vec<Handler<K>>>,
    /// The newest resourceVersion seen; 0 until the first list is complete.
    revision: watch::Sender<u64>,
}

struct Contents<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    indexes: HashMap<&'static str, Index<K>>,
}

struct Index<K> {
    values: fn(&K) -> Vec<String>,
    keys: HashMap<String, BTreeSet<ObjectKey>>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        let contents = Contents { objects: BTreeMap::new(), indexes: HashMap::new() };
        Cache { contents: RwLock::new(contents), handlers: Mutex::default(), revision: watch::Sender::new(0) }
    }
}

impl<K: ApiObject> Cache<K> {
    /// One object by namespace (empty for cluster-scoped kinds) and name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get_key(&ObjectKey::new(namespace, name))
    }

    /// One object by key.
    pub fn get_key(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.read().objects.get(key).cloned()
    }

    /// All objects, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read().objects.values().cloned().collect()
    }

    /// The objects of one namespace, ordered by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.in_namespace_where(namespace, |_| true)
    }

    /// The objects of one namespace that `wanted` accepts, ordered by name.
    pub fn in_namespace_where(&self, namespace: &str, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let start = ObjectKey::new(namespace, "");
        let contents = self.read();
        let from_start = contents.objects.range((Bound::Included(&start), Bound::Unbounded));
        from_start
            .take_while(|(key, _)| key.namespace == start.namespace)
            .filter(|(_, object)| wanted(object))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The objects of one namespace that carry all of the given labels.
    pub fn labelled(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<Arc<K>> {
        self.in_namespace_where(namespace, |object| {
            labels.iter().all(|(key, value)| object.labels().get(key) == Some(value))
        })
    }

    /// The objects that name the given uid among their owners.
    pub fn owned_by(&self, owner_uid: &str) -> Vec<Arc<K>> {
        self.by_index("owner", owner_uids, owner_uid)
    }

    /// The objects for which `values` yields `value`. The index is built on the first call; every caller of
    /// the same `name` must pass the same function.
    pub fn by_index(&self, name: &'static str, values: fn(&K) -> Vec<String>, value: &str) -> Vec<Arc<K>> {
        if let Some(found) = self.read().lookup(name, value) {
            return found;
        }
        let mut contents = self.write();
        contents.build_index(name, values);
        contents.lookup(name, value).unwrap_or_default()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        *self.revision.borrow() > 0
    }

    /// Waits until the first list is complete.
    pub async fn wait_synced(&self) {
        self.wait_revision(1).await;
    }

    /// Waits until the cache has seen everything up to a resourceVersion.
    pub async fn wait_revision(&self, revision: u64) {
        // The sender is a field of self, so the channel cannot be closed while we wait.
        self.revision.subscribe().wait_for(|seen| *seen >= revision).await.ok();
    }

    /// The newest resourceVersion seen; 0 until the first list is complete.
    pub fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// A channel that moves whenever something changed; it carries the newest resourceVersion.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Calls `handler` for every object that is there and then for every change, in order, on the informer's
    /// task: it must be quick, must not block and must not subscribe to this cache. It may read the cache,
    /// which then is at least as new as the change.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut handlers = lock(&self.handlers);
        for object in self.list() {
            handler(&Change::Added(object));
        }
        handlers.push(Box::new(handler));
    }

    /// The same changes as a channel. It is unbounded, as the informer must not wait for one slow reader; it
    /// holds `Arc`s only, so a reader that lags costs what the objects themselves cost.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Change<K>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        // A dropped receiver is no failure: the subscriber has left.
        self.on_change(move |change| sender.send(change.clone()).unwrap_or_default());
        receiver
    }

    /// Takes over a complete list: what is not in it is gone.
    pub fn replace(&self, objects: Vec<K>, revision: u64) {
        let mut fresh: BTreeMap<ObjectKey, K> =
            objects.into_iter().map(|object| (ObjectKey::of(&object), object)).collect();
        let gone: Vec<ObjectKey> =
            self.read().objects.keys().filter(|key| !fresh.contains_key(key)).cloned().collect();
        for key in gone {
            self.remove(&key, None);
        }
        while let Some((key, object)) = fresh.pop_first() {
            self.insert(key, object);
        }
        self.advance(revision.max(1));
    }

    /// Takes over one new or changed object.
    pub fn apply(&self, object: K) {
        let revision = revision_of(&object);
        self.insert(ObjectKey::of(&object), object);
        self.advance(revision);
    }

    /// Takes over that an object is gone; `last` is its last state.
    pub fn delete(&self, last: K) {
        let revision = revision_of(&last);
        self.remove(&ObjectKey::of(&last), Some(Arc::new(last)));
        self.advance(revision);
    }

    /// Notes that everything up to `revision` has been seen.
    pub fn advance(&self, revision: u64) {
        self.revision.send_if_modified(|seen| {
            let newer = revision > *seen;
            *seen = revision.max(*seen);
            newer
        });
    }

    fn insert(&self, key: ObjectKey, mut object: K) {
        // Field ownership is a third of an object's size and only the server needs it.
        object.meta_mut().managed_fields = None;
        let handlers = lock(&self.handlers);
        let new = Arc::new(object);
        let old = self.write().put(key, new.clone());
        let change = match old {
            Some(old) if old.meta().resource_version == new.meta().resource_version => return,
            Some(old) => Change::Updated { old, new },
            None => Change::Added(new),
        };
        handlers.iter().for_each(|handler| handler(&change));
    }

    fn remove(&self, key: &ObjectKey, last: Option<Arc<K>>) {
        let handlers = lock(&self.handlers);
        let Some(old) = self.write().take(key) else { return };
        let change = Change::Deleted(last.unwrap_or(old));
        handlers.iter().for_each(|handler| handler(&change));
    }

    fn read(&self) -> RwLockReadGuard<'_, Contents<K>> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Contents<K>> {
        self.contents.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache<Pod> {
    /// The pods bound to a node.
    pub fn on_node(&self, node: &str) -> Vec<Arc<Pod>> {
        self.by_index("node", |pod| pod.spec.iter().filter_map(|spec| spec.node_name.clone()).collect(), node)
    }
}

impl<K: ApiObject> Contents<K> {
    fn put(&mut self, key: ObjectKey, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.objects.insert(key.clone(), object.clone());
        for index in self.indexes.values_mut() {
            let before = old.as_deref().map(index.values).unwrap_or_default();
            let after = (index.values)(&object);
            if before != after {
                before.iter().for_each(|value| index.forget(value, &key));
                after.into_iter().for_each(|value| index.note(value, &key));
            }
        }
        old
    }

    fn take(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for index in self.indexes.values_mut() {
            (index.values)(&old).iter().for_each(|value| index.forget(value, key));
        }
        Some(old)
    }

    fn build_index(&mut self, name: &'static str, values: fn(&K) -> Vec<String>) {
        if self.indexes.contains_key(name) {
            return;
        }
        let mut index = Index { values, keys: HashMap::new() };
        for (key, object) in &self.objects {
            values(object).into_iter().for_each(|value| index.note(value, key));
        }
        self.indexes.insert(name, index);
    }

    /// `None` when there is no such index yet.
    fn lookup(&self, name: &str, value: &str) -> Option<Vec<Arc<K>>> {
        let keys = self.indexes.get(name)?.keys.get(value);
        Some(keys.into_iter().flatten().filter_map(|key| self.objects.get(key).cloned()).collect())
    }
}

impl<K> Index<K> {
    fn note(&mut self, value: String, key: &ObjectKey) {
        self.keys.entry(value).or_default().insert(key.clone());
    }

    fn forget(&mut self, value: &str, key: &ObjectKey) {
        if let Some(keys) = self.keys.get_mut(value) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(value);
            }
        }
    }
}

impl<K> std::fmt::Debug for Cache<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cache<{}>", type_name::<K>())
    }
}

/// The owner that controls an object, if it has one.
pub fn controller_of<K: ApiObject>(object: &K) -> Option<&OwnerReference> {
    object.owner_references().iter().find(|owner| owner.controller == Some(true))
}

/// An object's resourceVersion as a number; 0 when it has none that is one.
pub fn revision_of<K: ApiObject>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn owner_uids<K: ApiObject>(object: &K) -> Vec<String> {
    object.owner_references().iter().map(|owner| owner.uid.clone()).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, PodSpec};
    use kube::api::ObjectMeta;

    use super::*;

    fn config_map(namespace: &str, name: &str, revision: u64) -> ConfigMap {
        let metadata = ObjectMeta {
            namespace: Some(namespace.into()),
            name: Some(name.into()),
            resource_version: Some(revision.to_string()),
            ..ObjectMeta::default()
        };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    fn told(receiver: &mut mpsc::UnboundedReceiver<Change<ConfigMap>>) -> Vec<String> {
        std::iter::from_fn(|| receiver.try_recv().ok())
            .map(|change| format!("{} {}", change.verb(), change.key()))
            .collect()
    }

    #[test]
    fn a_subscriber_hears_of_what_is_there_and_of_every_change_once() {
        let cache = Cache::default();
        cache.replace(vec![config_map("a", "one", 1)], 1);
        let mut changes = cache.subscribe();
        cache.apply(config_map("a", "two", 2));
        cache.apply(config_map("a", "two", 3));
        cache.apply(config_map("a", "two", 3));
        cache.delete(config_map("a", "one", 4));
        assert_eq!(told(&mut changes), ["added a/one", "added a/two", "updated a/two", "deleted a/one"]);
        assert_eq!(cache.revision(), 4);
    }

    #[test]
    fn a_new_list_tells_only_the_difference() {
        let cache = Cache::default();
        cache.replace(vec![config_map("a", "kept", 1), config_map("a", "gone", 2)], 5);
        let mut changes = cache.subscribe();
        told(&mut changes);
        cache.replace(vec![config_map("a", "kept", 1), config_map("b", "new", 7)], 8);
        assert_eq!(told(&mut changes), ["deleted a/gone", "added b/new"]);
    }

    #[test]
    fn a_namespace_is_listed_without_its_neighbours() {
        let cache = Cache::default();
        cache.replace(vec![config_map("a", "x", 1), config_map("aa", "y", 2), config_map("b", "z", 3)], 3);
        let names: Vec<_> = cache.in_namespace("a").iter().map(|object| object.name_any()).collect();
        assert_eq!(names, ["x"]);
    }

    #[test]
    fn the_node_index_follows_binding_and_deletion() {
        let cache = Cache::<Pod>::default();
        let mut pod = Pod::default();
        pod.metadata.name = Some("p".into());
        pod.metadata.resource_version = Some("1".into());
        cache.replace(vec![pod.clone()], 1);
        assert!(cache.on_node("n").is_empty());
        pod.spec = Some(PodSpec { node_name: Some("n".into()), ..PodSpec::default() });
        pod.metadata.resource_version = Some("2".into());
        cache.apply(pod.clone());
        assert_eq!(cache.on_node("n").len(), 1);
        cache.delete(pod);
        assert!(cache.on_node("n").is_empty());
    }
}

//! ConfigMaps and Secrets that pods of this node refer to.
//!
//! Each one is watched by name from when the first pod asks for it, as a node may read no others, and
//! forgotten when no pod holds it any more. Whoever holds a [`Watched`] is woken when it changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use client::{Cache, Selection, informer};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The two kinds that hold data for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// A ConfigMap or Secret of the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Which kind.
    pub kind: SourceKind,
    /// Its name.
    pub name: String,
}

impl Reference {
    /// A ConfigMap.
    pub fn config_map(name: &str) -> Reference {
        Reference { kind: SourceKind::ConfigMap, name: name.to_string() }
    }

    /// A Secret.
    pub fn secret(name: &str) -> Reference {
        Reference { kind: SourceKind::Secret, name: name.to_string() }
    }
}

/// What a ConfigMap or Secret holds, by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Data {
    entries: BTreeMap<String, Vec<u8>>,
    kind: String,
}

impl Data {
    /// One value.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.entries.get(key).map(Vec::as_slice)
    }

    /// All keys and values, ordered by key.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    /// A Secret's `type`.
    pub fn secret_type(&self) -> &str {
        &self.kind
    }
}

impl From<&ConfigMap> for Data {
    fn from(map: &ConfigMap) -> Data {
        let texts = map.data.iter().flatten().map(|(key, text)| (key.clone(), text.clone().into_bytes()));
        let binary = map.binary_data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone()));
        Data { entries: texts.chain(binary).collect(), kind: String::new() }
    }
}

impl From<&Secret> for Data {
    fn from(secret: &Secret) -> Data {
        let entries = secret.data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone()));
        Data { entries: entries.collect(), kind: secret.type_.clone().unwrap_or_default() }
    }
}

/// What was found of the sources that something is made from; `None` stands for one that does not exist.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fetched {
    found: BTreeMap<Reference, Option<Arc<Data>>>,
}

impl Fetched {
    /// Notes what was found.
    pub fn insert(&mut self, reference: Reference, data: Option<Arc<Data>>) {
        self.found.insert(reference, data);
    }

    /// The data of a source, if it exists.
    pub fn get(&self, reference: &Reference) -> Option<&Data> {
        self.found.get(reference)?.as_deref()
    }
}

/// All sources that pods of this node use.
pub struct Sources {
    client: Client,
    watched: Mutex<HashMap<(String, Reference), Weak<Watched>>>,
}

/// One source, watched for as long as this is held.
pub struct Watched {
    cache: WatchedCache,
    _stop: DropGuard,
}

enum WatchedCache {
    ConfigMap(Arc<Cache<ConfigMap>>),
    Secret(Arc<Cache<Secret>>),
}

impl Sources {
    /// No sources yet; they will be watched through `client`.
    pub fn new(client: Client) -> Sources {
        Sources { client, watched: Mutex::default() }
    }

    /// Starts to watch a source, or joins those who do.
    pub fn watch(&self, namespace: &str, reference: &Reference) -> Arc<Watched> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|_, held| held.strong_count() > 0);
        let key = (namespace.to_string(), reference.clone());
        if let Some(held) = watched.get(&key).and_then(Weak::upgrade) {
            return held;
        }
        let started = Arc::new(self.start(namespace, reference));
        watched.insert(key, Arc::downgrade(&started));
        started
    }

    fn start(&self, namespace: &str, reference: &Reference) -> Watched {
        let selection = Selection {
            namespace: Some(namespace.to_string()),
            fields: Some(format!("metadata.name={}", reference.name)),
            labels: None,
        };
        let stop = CancellationToken::new();
        let client = self.client.clone();
        let cache = match reference.kind {
            SourceKind::ConfigMap => {
                WatchedCache::ConfigMap(informer::start(client, selection, stop.clone()))
            }
            SourceKind::Secret => WatchedCache::Secret(informer::start(client, selection, stop.clone())),
        };
        Watched { cache, _stop: stop.drop_guard() }
    }

    /// What a source holds now. One that the watch does not show is asked for once more: it may have been made
    /// a moment ago, just before the pod that needs it.
    pub async fn get(
        &self,
        namespace: &str,
        reference: &Reference,
        watched: &Watched,
    ) -> Result<Option<Arc<Data>>, kube::Error> {
        watched.wait_synced().await;
        if let Some(data) = watched.data(namespace, &reference.name) {
            return Ok(Some(Arc::new(data)));
        }
        self.ask(namespace, reference).await
    }

    async fn ask(&self, namespace: &str, reference: &Reference) -> Result<Option<Arc<Data>>, kube::Error> {
        let client = self.client.clone();
        Ok(match reference.kind {
            SourceKind::ConfigMap => {
                let found = Api::<ConfigMap>::namespaced(client, namespace).get_opt(&reference.name).await?;
                found.map(|map| Arc::new(Data::from(&map)))
            }
            SourceKind::Secret => {
                let found = Api::<Secret>::namespaced(client, namespace).get_opt(&reference.name).await?;
                found.map(|secret| Arc::new(Data::from(&secret)))
            }
        })
    }

    /// Everything that `references` name, as it is now, without watching it.
    pub async fn read(&self, namespace: &str, references: &[Reference]) -> Result<Fetched, kube::Error> {
        let mut fetched = Fetched::default();
        for reference in references {
            let key = (namespace.to_string(), reference.clone());
            let held =
                self.watched.lock().unwrap_or_else(PoisonError::into_inner).get(&key).and_then(Weak::upgrade);
            let data = match held {
                Some(watched) => self.get(namespace, reference, &watched).await?,
                None => self.ask(namespace, reference).await?,
            };
            fetched.insert(reference.clone(), data);
        }
        Ok(fetched)
    }

    /// Everything that `references` name.
    pub async fn fetch(
        &self,
        namespace: &str,
        references: &[(Reference, Arc<Watched>)],
    ) -> Result<Fetched, kube::Error> {
        let mut fetched = Fetched::default();
        for (reference, watched) in references {
            fetched.insert(reference.clone(), self.get(namespace, reference, watched).await?);
        }
        Ok(fetched)
    }
}

impl Watched {
    /// A channel that moves when the source changes.
    pub fn changed(&self) -> watch::Receiver<u64> {
        match &self.cache {
            WatchedCache::ConfigMap(cache) => cache.changed(),
            WatchedCache::Secret(cache) => cache.changed(),
        }
    }

    async fn wait_synced(&self) {
        match &self.cache {
            WatchedCache::ConfigMap(cache) => cache.wait_synced().await,
            WatchedCache::Secret(cache) => cache.wait_synced().await,
        }
    }

    fn data(&self, namespace: &str, name: &str) -> Option<Data> {
        match &self.cache {
            WatchedCache::ConfigMap(cache) => cache.get(namespace, name).map(|map| Data::from(&*map)),
            WatchedCache::Secret(cache) => cache.get(namespace, name).map(|secret| Data::from(&*secret)),
        }
    }
}

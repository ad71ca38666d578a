//! Encryption at rest: a store in front of the store that encrypts what it is given and decrypts what it gives.
//!
//! [`config`] says which resources are encrypted and how (`--encryption-provider-config`), [`cipher`] does it. The
//! first provider writes, all of them read, so that keys can be changed: put the new key first, write every object
//! again, take the old key out; [`reload`] follows the file for that. Ciphertexts are bound to the key path that they are stored under. Everything behind this
//! store, files and etcd, holds ciphertext; everything before it, caches and watches, never sees any.

mod cipher;
pub mod config;
pub mod reload;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use store::{KeyValue, RangeResult, ReadError, Revision, Store, Watch, WatchEvent, WriteError};

use cipher::CipherError;
use config::Providers;

/// A store whose values are encrypted as a configuration says.
pub struct Encrypted {
    inner: Arc<dyn Store>,
    providers: Current,
}

/// The providers that are in force.
#[derive(Clone)]
struct Current(Arc<RwLock<Arc<Providers>>>);

impl Current {
    fn get(&self) -> Arc<Providers> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Encrypted {
    /// Encrypts what goes into `inner`.
    pub fn new(inner: Arc<dyn Store>, providers: Providers) -> Encrypted {
        Encrypted { inner, providers: Current(Arc::new(RwLock::new(Arc::new(providers)))) }
    }

    /// Goes on with other keys: whatever is read or written from now on, also by watches that run.
    pub fn take_over(&self, providers: Providers) {
        *self.providers.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(providers);
    }

    fn sealed(&self, key: &str, value: Bytes) -> Result<Bytes, WriteError> {
        self.providers.get().of(key).map_or(Ok(value.clone()), |provider| {
            provider
                .seal(key, &value)
                .map_err(|error| WriteError::Unavailable { key: key.to_string(), source: Box::new(error) })
        })
    }
}

#[async_trait]
impl Store for Encrypted {
    async fn revision(&self) -> Result<Revision, ReadError> {
        self.inner.revision().await
    }

    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<KeyValue>, ReadError> {
        let found = self.inner.get(key, at).await?;
        found.map(|found| opened(&self.providers.get(), found)).transpose()
    }

    async fn range(
        &self,
        prefix: &str,
        after: Option<&str>,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<RangeResult, ReadError> {
        let mut range = self.inner.range(prefix, after, at, limit).await?;
        let items = std::mem::take(&mut range.items).into_iter();
        let providers = self.providers.get();
        range.items = items.map(|item| opened(&providers, item)).collect::<Result<_, _>>()?;
        Ok(range)
    }

    async fn create(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Revision, WriteError> {
        self.inner.create(key, self.sealed(key, value)?, ttl).await
    }

    async fn update(
        &self,
        key: &str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Revision, WriteError> {
        self.inner.update(key, self.sealed(key, value)?, expected, ttl).await
    }

    async fn delete(
        &self,
        key: &str,
        expected: Option<Revision>,
    ) -> Result<(KeyValue, Revision), WriteError> {
        let (deleted, revision) = self.inner.delete(key, expected).await?;
        let opened = opened(&self.providers.get(), deleted)
            .map_err(|error| WriteError::Unavailable { key: key.to_string(), source: Box::new(error) })?;
        Ok((opened, revision))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, ReadError> {
        let inner = self.inner.watch(prefix, after).await?;
        Ok(Box::new(Opening { inner, providers: self.providers.clone() }))
    }

    async fn request_progress(&self, prefix: &str) -> Result<Option<Revision>, ReadError> {
        self.inner.request_progress(prefix).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), ReadError> {
        self.inner.compact(revision).await
    }

    async fn is_outdated(&self, key: &str) -> Result<bool, ReadError> {
        let providers = self.providers.get();
        let Some(provider) = providers.of(key) else { return Ok(false) };
        let found = self.inner.get(key, None).await?;
        Ok(found.is_some_and(|found| !provider.is_current(&found.value)))
    }
}

/// A watch that decrypts.
struct Opening {
    inner: Box<dyn Watch>,
    providers: Current,
}

#[async_trait]
impl Watch for Opening {
    async fn next(&mut self) -> Result<(Vec<WatchEvent>, Revision), ReadError> {
        let (events, revision) = self.inner.next().await?;
        let providers = self.providers.get();
        let open = |stored| opened(&providers, stored);
        let events = events.into_iter().map(|event| {
            Ok(match event {
                WatchEvent::Put { current, previous } => {
                    WatchEvent::Put { current: open(current)?, previous: previous.map(open).transpose()? }
                }
                WatchEvent::Delete { previous, revision } => {
                    WatchEvent::Delete { previous: open(previous)?, revision }
                }
            })
        });
        Ok((events.collect::<Result<_, ReadError>>()?, revision))
    }
}

fn opened(providers: &Providers, stored: KeyValue) -> Result<KeyValue, ReadError> {
    let Some(provider) = providers.of(&stored.key) else { return Ok(stored) };
    match provider.open(&stored.key, &stored.value) {
        Ok(value) => Ok(KeyValue { value, ..stored }),
        Err(error) => Err(unreadable(&stored.key, error)),
    }
}

fn unreadable(key: &str, error: CipherError) -> ReadError {
    tracing::error!(key, %error, "a stored object cannot be decrypted");
    ReadError::Unavailable {
        what: format!("unable to transform key {key:?}: {error}"),
        source: Box::new(error),
    }
}

#[cfg(test)]
mod tests {
    use store::embedded::Embedded;

    use super::*;

    const KEY: &str = "/registry/secrets/default/s";

    fn providers(blocks: &str) -> Providers {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers: {blocks}"
        );
        Providers::parse(&text).unwrap()
    }

    fn old_key() -> &'static str {
        "{aesgcm: {keys: [{name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}}"
    }

    fn new_key() -> &'static str {
        "{aesgcm: {keys: [{name: key2, secret: ZmVkY2JhOTg3NjU0MzIxMA==}]}}"
    }

    #[tokio::test]
    async fn the_store_behind_holds_ciphertext_and_watches_do_not() {
        let inner: Arc<dyn Store> = Arc::new(Embedded::in_memory().unwrap());
        let store = Encrypted::new(inner.clone(), providers(&format!("[{}]", old_key())));
        let mut watch = store.watch("/registry/secrets/", Revision(0)).await.unwrap();
        store.create(KEY, Bytes::from_static(b"hidden"), None).await.unwrap();
        store.create("/registry/pods/default/p", Bytes::from_static(b"plain"), None).await.unwrap();
        let raw = inner.get(KEY, None).await.unwrap().unwrap().value;
        assert!(raw.starts_with(b"k8s:enc:aesgcm:v1:key1:"));
        assert!(!raw.windows(6).any(|window| window == b"hidden"));
        assert_eq!(inner.get("/registry/pods/default/p", None).await.unwrap().unwrap().value, "plain");
        assert_eq!(store.get(KEY, None).await.unwrap().unwrap().value, "hidden");
        assert_eq!(store.range("/registry/", None, None, 0).await.unwrap().items[1].value, "hidden");
        let (events, _) = watch.next().await.unwrap();
        assert!(matches!(&events[..], [WatchEvent::Put { current, .. }] if current.value == "hidden"));
        let (deleted, _) = store.delete(KEY, None).await.unwrap();
        assert_eq!(deleted.value, "hidden");
    }

    #[tokio::test]
    async fn keys_can_be_changed_without_losing_anything() {
        let inner: Arc<dyn Store> = Arc::new(Embedded::in_memory().unwrap());
        let open = |blocks: String| Encrypted::new(inner.clone(), providers(&blocks));
        let plain = open("[{identity: {}}]".into());
        let at = plain.create(KEY, Bytes::from_static(b"hidden"), None).await.unwrap();
        assert!(!plain.is_outdated(KEY).await.unwrap());

        let first = open(format!("[{}, {{identity: {{}}}}]", old_key()));
        assert_eq!(first.get(KEY, None).await.unwrap().unwrap().value, "hidden");
        assert!(first.is_outdated(KEY).await.unwrap());
        first.update(KEY, Bytes::from_static(b"hidden"), at, None).await.unwrap();
        assert!(!first.is_outdated(KEY).await.unwrap());

        let both = open(format!("[{}, {}]", new_key(), old_key()));
        assert_eq!(both.get(KEY, None).await.unwrap().unwrap().value, "hidden");
        assert!(both.is_outdated(KEY).await.unwrap());
        let without = open(format!("[{}]", new_key()));
        let told = |found: Result<_, ReadError>| found.map(|_: Option<KeyValue>| ()).unwrap_err().to_string();
        let gone = told(without.get(KEY, None).await);
        let unable = "unable to transform key \"/registry/secrets/default/s\"";
        assert!(gone.ends_with(&format!("{unable}: no matching prefix found")), "{gone}");
        let bare = told(plain.get(KEY, None).await);
        let why = "identity transformer tried to read encrypted data";
        assert!(
            bare.ends_with(&format!("{unable}: {why}")),
            "ciphertext must not pass for an object: {bare}"
        );
        // On the way back to plain text.
        let back = open(format!("[{{identity: {{}}}}, {}]", old_key()));
        assert_eq!(back.get(KEY, None).await.unwrap().unwrap().value, "hidden");
        assert!(back.is_outdated(KEY).await.unwrap());
    }

    #[tokio::test]
    async fn a_value_is_good_under_its_own_key_alone() {
        let inner: Arc<dyn Store> = Arc::new(Embedded::in_memory().unwrap());
        let store = Encrypted::new(inner.clone(), providers(&format!("[{}]", old_key())));
        store.create(KEY, Bytes::from_static(b"hidden"), None).await.unwrap();
        let raw = inner.get(KEY, None).await.unwrap().unwrap().value;
        inner.create("/registry/secrets/other/s", raw, None).await.unwrap();
        assert!(store.get("/registry/secrets/other/s", None).await.is_err());
    }
}

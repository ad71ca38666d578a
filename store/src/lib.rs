//! A versioned key-value store with etcd's semantics: one trait, two engines.
//!
//! Every write gets the next [`Revision`], one number for the whole store that never repeats, also
//! across restarts. A key remembers the revision that created it and the one that last changed it;
//! writes can be made conditional on the latter. History is readable and watchable until compacted.
//! The store has never heard of pods: keys are strings, values are bytes.
//!
//! [`embedded`] keeps everything in this process and is durable before it acknowledges; [`etcd`]
//! speaks to any etcd v3 cluster. Both pass the same contract tests.

pub mod embedded;
pub mod etcd;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

/// A point in the store's history; the API's `resourceVersion`. Zero means "before any write".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One key as it stood at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The whole key, for example `/registry/pods/default/nginx`.
    pub key: Arc<str>,
    /// The bytes as they were written; shared, never copied.
    pub value: Bytes,
    /// When the key was created, or created again after a deletion.
    pub create_revision: Revision,
    /// When the key was last written; what a conditional write compares.
    pub mod_revision: Revision,
}

/// What a range read found.
#[derive(Clone, Debug)]
pub struct RangeResult {
    /// In key order.
    pub items: Vec<KeyValue>,
    /// The revision that the whole answer stands for.
    pub revision: Revision,
    /// Whether keys were left out because of the limit.
    pub more: bool,
    /// How many keys the range holds from where it was asked to start, those left out included.
    pub count: u64,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The key was created or written; `previous` is what it held before, if it was there.
    Put {
        /// The new state.
        current: KeyValue,
        /// The state that it replaced.
        previous: Option<KeyValue>,
    },
    /// The key was deleted at `revision` (by a client, or because its time to live ran out).
    Delete {
        /// What was deleted.
        previous: KeyValue,
        /// The revision of the deletion.
        revision: Revision,
    },
}

impl WatchEvent {
    /// The revision of the change itself.
    pub fn revision(&self) -> Revision {
        match self {
            WatchEvent::Put { current, .. } => current.mod_revision,
            WatchEvent::Delete { revision, .. } => *revision,
        }
    }
}

/// Why a read did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The revision asked for has been compacted away.
    #[error("revision {requested} has been compacted")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest that is still there, where the engine tells.
        oldest: Option<Revision>,
    },
    /// The revision asked for has not happened yet.
    #[error("revision {requested} is in the future")]
    Future {
        /// What was asked for.
        requested: Revision,
        /// Where the store stands, where the engine tells.
        current: Option<Revision>,
    },
    /// The engine failed; the store may be unreachable.
    #[error("failed to read {what}")]
    Unavailable {
        /// What was being read.
        what: String,
        /// The engine's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a write did not happen. After [`WriteError::Unavailable`] it may or may not have.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Create-if-absent found the key present.
    #[error("{key} already exists")]
    AlreadyExists {
        /// The key.
        key: String,
    },
    /// A conditional write or delete found no such key.
    #[error("{key} does not exist")]
    NotFound {
        /// The key.
        key: String,
    },
    /// A conditional write found the key at another revision.
    #[error("{key} is at revision {actual}, the write expected {expected}")]
    Conflict {
        /// The key.
        key: String,
        /// What the writer had read.
        expected: Revision,
        /// What is there.
        actual: Revision,
    },
    /// The engine failed to make the write durable.
    #[error("failed to write {key}")]
    Unavailable {
        /// The key.
        key: String,
        /// The engine's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A running watch. Events arrive in revision order, none missing, none twice. Dropping it ends it.
#[async_trait]
pub trait Watch: Send {
    /// The next changes, all those of a revision together, or `Err` when the watch cannot go on
    /// (compacted while behind, store gone): the caller must list again.
    ///
    /// An empty list is progress: nothing in the range changed up to the returned revision.
    async fn next(&mut self) -> Result<(Vec<WatchEvent>, Revision), ReadError>;
}

/// The store. All writes are durable when the future resolves.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Where the store stands; a linearizable read.
    async fn revision(&self) -> Result<Revision, ReadError>;

    /// One key, now or at an earlier revision.
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<KeyValue>, ReadError>;

    /// The keys that start with `prefix`, strictly after `after` where given, at most `limit` (0: all).
    async fn range(
        &self,
        prefix: &str,
        after: Option<&str>,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<RangeResult, ReadError>;

    /// Writes a key that must not be there. With `ttl` it is deleted when that time has passed.
    async fn create(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Revision, WriteError>;

    /// Replaces a key that must be at `expected`. An absent `ttl` keeps the one it has.
    async fn update(
        &self,
        key: &str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Revision, WriteError>;

    /// Deletes a key, only at `expected` where given. Returns what was deleted and the revision of the deletion.
    async fn delete(&self, key: &str, expected: Option<Revision>)
    -> Result<(KeyValue, Revision), WriteError>;

    /// Watches the keys that start with `prefix` for every change after `after`.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, ReadError>;

    /// Makes the watches of exactly this `prefix` report progress up to at least the returned
    /// revision, which is not older than any write acknowledged before the call. `None` where the
    /// engine cannot do that: then only a read of the store tells whether a watch is up to date.
    async fn request_progress(&self, prefix: &str) -> Result<Option<Revision>, ReadError>;

    /// Whether the value of a key would be written in another form today, as by a wrapper that encrypts and has got a new
    /// key: then writing the same value again is not idle.
    async fn is_outdated(&self, _key: &str) -> Result<bool, ReadError> {
        Ok(false)
    }

    /// Forgets history before `revision`, which itself can still be read and watched from; the newest
    /// state of every key stays.
    async fn compact(&self, revision: Revision) -> Result<(), ReadError>;
}

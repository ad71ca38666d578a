//! What one turn of a controller did: noted while it runs, read by the runner when it is over.
//!
//! The notes travel with the task, so that a controller's code need not pass them around. Outside of a turn
//! noting something does nothing.

use std::{cell::RefCell, sync::Arc};

use tokio::sync::watch;

use crate::{ApiObject, Cache, ObjectKey};

tokio::task_local! {
    static NOTES: RefCell<Notes>;
}

/// What a turn leaves behind.
#[derive(Default)]
pub(crate) struct Notes {
    /// What the turn is about, where its key does not say it.
    pub(crate) object: Option<String>,
    pub(crate) desired: String,
    pub(crate) observed: String,
    pub(crate) actions: Vec<String>,
    /// Own writes that the caches had not seen when they were made.
    pub(crate) unseen: Vec<Unseen>,
}

/// Names the object of this turn, where its key means nothing to people.
pub fn about(object: impl Into<String>) {
    let object = object.into();
    note(|notes| notes.object = Some(object));
}

/// Says in one line each what the object asks for and what there is, for the flight recorder.
pub fn describe(desired: impl Into<String>, observed: impl Into<String>) {
    let (desired, observed) = (desired.into(), observed.into());
    note(|notes| {
        notes.desired = desired;
        notes.observed = observed;
    });
}

/// Says what was done, for the flight recorder. Writes through [`Writer`](crate::Writer) say so themselves.
pub fn acted(action: impl Into<String>) {
    let action = action.into();
    note(|notes| notes.actions.push(action));
}

/// Says what the last write meant, in place of how it was made.
pub fn meant(action: impl Into<String>) {
    let action = action.into();
    note(|notes| {
        notes.actions.pop();
        notes.actions.push(action);
    });
}

pub(crate) fn expect(unseen: Unseen) {
    note(|notes| notes.unseen.push(unseen));
}

/// Runs a turn and returns its notes beside its result.
pub(crate) async fn noting<F: Future>(turn: F) -> (F::Output, Notes) {
    NOTES
        .scope(RefCell::default(), async {
            let output = turn.await;
            (output, NOTES.with(|notes| notes.take()))
        })
        .await
}

fn note(change: impl FnOnce(&mut Notes)) {
    // Outside of a turn there is nobody to read the notes.
    NOTES.try_with(|notes| change(&mut notes.borrow_mut())).unwrap_or_default();
}

/// An own write that a cache has yet to see.
pub(crate) struct Unseen {
    cache: Arc<dyn Sight>,
    write: Write,
}

pub(crate) enum Write {
    /// The object has this resourceVersion now.
    Stored(u64),
    /// The object with this uid is gone or about to go.
    Deleted { key: ObjectKey, uid: Option<String> },
}

impl Unseen {
    pub(crate) fn new<K: ApiObject>(cache: Arc<Cache<K>>, write: Write) -> Unseen {
        Unseen { cache, write }
    }

    /// Waits until the cache has seen the write.
    pub(crate) async fn wait(self) {
        let mut moved = self.cache.moved();
        while !self.cache.has_seen(&self.write) {
            if moved.changed().await.is_err() {
                return;
            }
        }
    }
}

trait Sight: Send + Sync {
    fn has_seen(&self, write: &Write) -> bool;
    fn moved(&self) -> watch::Receiver<u64>;
}

impl<K: ApiObject> Sight for Cache<K> {
    fn has_seen(&self, write: &Write) -> bool {
        match write {
            Write::Stored(revision) => self.revision() >= *revision,
            Write::Deleted { key, uid } => self.get_key(key).is_none_or(|object| {
                let meta = object.meta();
                meta.deletion_timestamp.is_some() || uid.is_some() && meta.uid != *uid
            }),
        }
    }

    fn moved(&self) -> watch::Receiver<u64> {
        self.changed()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    #[tokio::test]
    async fn a_turn_keeps_its_own_notes() {
        acted("nobody listens");
        let ((), notes) = noting(async {
            describe("3 replicas", "1 ready");
            acted("create Pod default/a");
        })
        .await;
        assert_eq!((notes.desired.as_str(), notes.observed.as_str()), ("3 replicas", "1 ready"));
        assert_eq!(notes.actions, ["create Pod default/a"]);
    }

    #[tokio::test]
    async fn what_a_write_meant_takes_the_place_of_the_write() {
        let ((), notes) = noting(async {
            acted("create ReplicaSet default/a");
            acted("patch ReplicaSet default/b");
            meant("scale ReplicaSet default/b from 3 to 2");
        })
        .await;
        assert_eq!(notes.actions, ["create ReplicaSet default/a", "scale ReplicaSet default/b from 3 to 2"]);
    }

    #[tokio::test]
    async fn a_write_is_awaited_until_the_cache_has_it() {
        let cache = Arc::new(Cache::<ConfigMap>::default());
        cache.replace(Vec::new(), 3);
        let waiting = tokio::spawn(Unseen::new(cache.clone(), Write::Stored(5)).wait());
        cache.advance(4);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        cache.advance(5);
        waiting.await.unwrap();
    }
}

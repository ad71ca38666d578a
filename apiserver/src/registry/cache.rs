//! The watch cache of one kind: its objects as they are now, and the changes that led here.
//!
//! [`super::feed`] is the only writer. Readers take the lock for as long as it takes to clone
//! references, never across a wait.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use api::Status;
use store::Revision;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::fairness::Crowd;

use super::{
    entry::Entry,
    ring::{Change, Ring},
    too_large_version,
};

/// How long a read waits for the cache to catch up.
const PATIENCE: Duration = Duration::from_secs(3);

/// One kind's objects.
pub(crate) struct Cache {
    state: RwLock<State>,
    progress: watch::Sender<Revision>,
    /// The newest revision that this server itself has written.
    written: AtomicU64,
    /// Ends what fills it and what watches it.
    closed: CancellationToken,
}

struct State {
    items: BTreeMap<Arc<str>, Arc<Entry>>,
    ring: Ring,
    revision: Revision,
}

/// What the store says happened to one key.
pub(crate) enum Update {
    Put(Arc<Entry>),
    Delete(Arc<str>, Revision),
}

/// A piece of what is there, for somebody who has been told the rest up to its first key.
pub(crate) struct Page {
    /// What has happened since the last piece; where there is more of it than fits, there are no entries.
    pub(crate) changes: Vec<Arc<Change>>,
    /// The objects that follow, in key order.
    pub(crate) entries: Vec<Arc<Entry>>,
    /// What both stand for.
    pub(crate) revision: Revision,
    /// Whether nothing follows.
    pub(crate) is_last: bool,
}

/// A watcher has fallen behind what is remembered.
#[derive(Debug)]
pub(crate) struct TooOld {
    pub(crate) oldest: Revision,
}

impl Cache {
    /// A cache that holds `entries`, all there are at `revision`.
    pub(crate) fn new(entries: Vec<Arc<Entry>>, revision: Revision, closed: CancellationToken) -> Cache {
        Cache {
            state: RwLock::new(State::of(entries, revision)),
            progress: watch::Sender::new(revision),
            written: AtomicU64::new(0),
            closed,
        }
    }

    /// Nothing comes any more: watches of this cache end.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Tells when watches have to end.
    pub(crate) fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// One object.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.read().items.get(key).cloned()
    }

    /// All objects whose keys start with `prefix`, in key order, and the revision they stand for.
    pub(crate) fn list(&self, prefix: &str) -> (Vec<Arc<Entry>>, Revision) {
        let state = self.read();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let found = state.items.range::<str, _>(from).take_while(|(key, _)| key.starts_with(prefix));
        (found.map(|(_, entry)| entry.clone()).collect(), state.revision)
    }

    /// The first at most `limit` objects whose keys start with `prefix`.
    pub(crate) fn first_page(&self, prefix: &str, limit: usize) -> Page {
        self.read().page(prefix, None, limit)
    }

    /// The next at most `limit` objects whose keys start with `prefix` and follow `after`, together with the changes
    /// since `position`: both are read in one moment, so that nothing falls between them.
    pub(crate) fn next_page(
        &self,
        prefix: &str,
        after: &str,
        position: Revision,
        limit: usize,
    ) -> Result<Page, TooOld> {
        let state = self.read();
        let changes = state.ring.after(position, limit).ok_or(TooOld { oldest: state.ring.start() })?;
        if changes.len() >= limit {
            let revision = changes.last().map_or(position, |last| last.entry.revision());
            return Ok(Page { changes, entries: Vec::new(), revision, is_last: false });
        }
        Ok(Page { changes, ..state.page(prefix, Some(after), limit) })
    }

    /// The next changes after `position`, and the position to go on from.
    pub(crate) fn changes_after(
        &self,
        position: Revision,
        limit: usize,
    ) -> Result<(Vec<Arc<Change>>, Revision), TooOld> {
        let state = self.read();
        let changes = state.ring.after(position, limit).ok_or(TooOld { oldest: state.ring.start() })?;
        let reached = match changes.last() {
            Some(last) if changes.len() >= limit => last.entry.revision(),
            _ => state.revision.max(position),
        };
        Ok((changes, reached))
    }

    /// The revision that the cache stands for.
    pub(crate) fn revision(&self) -> Revision {
        self.read().revision
    }

    /// How many objects there are, and how many watch them.
    pub(crate) fn crowd(&self) -> Crowd {
        Crowd { objects: self.read().items.len(), watchers: self.progress.receiver_count() }
    }

    /// Tells of every advance.
    pub(crate) fn progress(&self) -> watch::Receiver<Revision> {
        self.progress.subscribe()
    }

    /// Notes that this server has written `revision` to this kind.
    pub(crate) fn wrote(&self, revision: Revision) {
        self.written.fetch_max(revision.0, Ordering::AcqRel);
    }

    /// Waits until every write that this server acknowledged is here.
    pub(crate) async fn reach_own_writes(&self) -> Result<(), Status> {
        // Again, should more have been written meanwhile.
        while !self.has_own_writes() {
            self.reach(Revision(self.written.load(Ordering::Acquire))).await?;
        }
        Ok(())
    }

    fn has_own_writes(&self) -> bool {
        self.progress.borrow().0 >= self.written.load(Ordering::Acquire)
    }

    /// Waits until the cache stands for `revision` or later; 504 when that takes too long.
    pub(crate) async fn reach(&self, revision: Revision) -> Result<(), Status> {
        if *self.progress.borrow() >= revision {
            return Ok(());
        }
        let mut progress = self.progress.subscribe();
        let reached = tokio::time::timeout(PATIENCE, progress.wait_for(|reached| *reached >= revision)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            _ => Err(too_large_version(revision, self.revision())),
        }
    }

    /// Takes over what the store tells: all changes up to `revision`.
    pub(crate) fn apply(&self, updates: Vec<Update>, revision: Revision) {
        let now = Instant::now();
        let mut state = self.write();
        for update in updates {
            state.apply(update, now);
        }
        state.revision = state.revision.max(revision);
        let reached = state.revision;
        drop(state);
        self.progress.send_replace(reached);
    }

    /// Forgets changes that nobody should need any more; says when to come again.
    pub(crate) fn forget(&self, now: Instant) -> Option<Instant> {
        self.write().ring.forget(now)
    }

    /// Starts again from `entries`; watchers that have not seen everything up to now must list again.
    pub(crate) fn reset(&self, entries: Vec<Arc<Entry>>, revision: Revision) {
        *self.write() = State::of(entries, revision);
        self.progress.send_replace(revision);
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn of(entries: Vec<Arc<Entry>>, revision: Revision) -> State {
        let items = entries.into_iter().map(|entry| (entry.key().clone(), entry)).collect();
        State { items, ring: Ring::new(revision), revision }
    }

    fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Page {
        let from = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let keys = self.items.range::<str, _>((from, Bound::Unbounded));
        let mut found = keys.take_while(|(key, _)| key.starts_with(prefix)).map(|(_, entry)| entry.clone());
        let entries: Vec<_> = found.by_ref().take(limit).collect();
        let is_last = found.next().is_none();
        Page { changes: Vec::new(), entries, revision: self.revision, is_last }
    }

    fn apply(&mut self, update: Update, at: Instant) {
        let change = match update {
            Update::Put(entry) => {
                let previous = self.items.insert(entry.key().clone(), entry.clone());
                Change { entry, previous, is_deletion: false, at }
            }
            Update::Delete(key, revision) => {
                let Some(previous) = self.items.remove(&key) else { return };
                let entry = Arc::new(previous.deleted(revision));
                Change { entry, previous: Some(previous), is_deletion: true, at }
            }
        };
        self.ring.push(Arc::new(change));
    }
}

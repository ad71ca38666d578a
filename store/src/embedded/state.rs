//! The store's contents in memory: every key with its versions, and the history of changes.
//!
//! Pure data. A key keeps its versions until compaction forgets them; the history has one event a
//! revision, without gaps, from the compaction on. Values are shared with whoever wrote or reads them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;

use crate::{KeyValue, RangeResult, ReadError, Revision, WatchEvent};

/// When a key with a time to live expires, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deadline(pub u64);

/// A key between two changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub created: Revision,
    pub modified: Revision,
    pub deadline: Option<Deadline>,
    /// What it holds; nothing while it is deleted.
    pub value: Option<Bytes>,
}

impl Version {
    /// The version as readers see it, if there is something to see.
    fn key_value(&self, key: &Arc<str>) -> Option<KeyValue> {
        self.value.as_ref().map(|value| KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: self.created,
            mod_revision: self.modified,
        })
    }
}

/// All that is remembered of one key.
struct Chain {
    newest: Version,
    /// What came before, oldest first; mostly empty.
    older: Vec<Version>,
}

impl Chain {
    fn at(&self, revision: Revision) -> Option<&Version> {
        if self.newest.modified <= revision {
            return Some(&self.newest);
        }
        self.older.iter().rev().find(|version| version.modified <= revision)
    }
}

/// One change on its way into the state: a new version of a key.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub key: Arc<str>,
    pub version: Version,
}

/// See the module.
pub(super) struct State {
    keys: BTreeMap<Arc<str>, Chain>,
    history: VecDeque<Arc<WatchEvent>>,
    deadlines: BTreeSet<(Deadline, Arc<str>)>,
    revision: Revision,
    compacted: Revision,
    live_bytes: u64,
    history_bytes: u64,
}

/// Where an empty store stands. Not zero, as in etcd: to a Kubernetes client zero means "any".
const FIRST_REVISION: Revision = Revision(1);

/// About what an event costs beside its key and values.
const EVENT_OVERHEAD: u64 = 256;

impl State {
    pub fn new() -> State {
        State {
            keys: BTreeMap::new(),
            history: VecDeque::new(),
            deadlines: BTreeSet::new(),
            revision: FIRST_REVISION,
            compacted: Revision(0),
            live_bytes: 0,
            history_bytes: 0,
        }
    }

    /// Where the store stands.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The oldest revision that can still be read.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// How much the newest versions of all keys take.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// How much the history takes, superseded values included.
    pub fn history_bytes(&self) -> u64 {
        self.history_bytes
    }

    /// The revision that would be left as the oldest if `bytes` of history were forgotten.
    pub fn revision_after(&self, bytes: u64) -> Revision {
        let mut forgotten = 0;
        let enough = self.history.iter().find(|event| {
            forgotten += weight(event);
            forgotten >= bytes
        });
        enough.map_or(self.revision, |event| event.revision())
    }

    /// The revision to read at: `asked`, or now; an error when it is out of reach.
    pub fn readable(&self, asked: Option<Revision>) -> Result<Revision, ReadError> {
        match asked {
            None | Some(Revision(0)) => Ok(self.revision),
            Some(requested) if requested > self.revision => {
                Err(ReadError::Future { requested, current: Some(self.revision) })
            }
            Some(requested) if requested < self.compacted => {
                Err(ReadError::Compacted { requested, oldest: Some(self.compacted) })
            }
            Some(requested) => Ok(requested),
        }
    }

    /// One key as it stood at `revision`.
    pub fn get(&self, key: &str, revision: Revision) -> Option<KeyValue> {
        let (key, chain) = self.keys.get_key_value(key)?;
        chain.at(revision)?.key_value(key)
    }

    /// The newest version of a key; `value` is empty if it was deleted and history remembers.
    pub fn newest(&self, key: &str) -> Option<(&Arc<str>, &Version)> {
        self.keys.get_key_value(key).map(|(key, chain)| (key, &chain.newest))
    }

    /// Adds to `found` what is under `prefix` after `after`, up to `limit` items in all, and counts
    /// the rest. Stops after `budget` keys: the answer is then the key to go on after.
    pub fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        budget: usize,
        found: &mut RangeResult,
    ) -> Option<Arc<str>> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let keys = self.keys.range::<str, _>((start, Bound::Unbounded));
        let mut scanned = 0;
        for (key, chain) in keys.take_while(|(key, _)| key.starts_with(prefix)) {
            if let Some(item) = chain.at(found.revision).and_then(|version| version.key_value(key)) {
                found.count += 1;
                if limit == 0 || found.items.len() < limit {
                    found.items.push(item);
                } else {
                    found.more = true;
                }
            }
            scanned += 1;
            if scanned == budget {
                return Some(key.clone());
            }
        }
        None
    }

    /// The events after `after`, at most `budget` of them, and the revision that they reach to.
    pub fn events_after(
        &self,
        after: Revision,
        budget: usize,
    ) -> Result<(impl Iterator<Item = &Arc<WatchEvent>>, Revision), ReadError> {
        if after < self.compacted {
            return Err(ReadError::Compacted { requested: after, oldest: Some(self.compacted) });
        }
        let first = self.history.front().map_or(self.revision.0 + 1, |event| event.revision().0);
        let start = ((after.0 + 1).saturating_sub(first) as usize).min(self.history.len());
        let end = (start + budget).min(self.history.len());
        let reached =
            if end == self.history.len() { self.revision } else { Revision(first + end as u64 - 1) };
        Ok((self.history.range(start..end), reached.max(after)))
    }

    /// The keys whose time is up, at most `limit` of them.
    pub fn expired(&self, now: Deadline, limit: usize) -> Vec<Arc<str>> {
        let due = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now);
        due.take(limit).map(|(_, key)| key.clone()).collect()
    }

    /// When the next key expires.
    pub fn next_deadline(&self) -> Option<Deadline> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes in the next change; its revision follows the store's.
    pub fn apply(&mut self, change: Change) -> Arc<WatchEvent> {
        let Change { key, version } = change;
        debug_assert_eq!(version.modified.0, self.revision.0 + 1);
        self.revision = version.modified;
        self.live_bytes += size(&key, &version);
        if let Some(deadline) = version.deadline {
            self.deadlines.insert((deadline, key.clone()));
        }
        let current = version.key_value(&key);
        let revision = version.modified;
        let previous = match self.keys.get_mut(&key) {
            None => {
                self.keys.insert(key, Chain { newest: version, older: Vec::new() });
                None
            }
            Some(chain) => {
                let superseded = std::mem::replace(&mut chain.newest, version);
                self.live_bytes -= size(&key, &superseded);
                if let Some(deadline) = superseded.deadline
                    && chain.newest.deadline != Some(deadline)
                {
                    self.deadlines.remove(&(deadline, key.clone()));
                }
                let previous = superseded.key_value(&key);
                chain.older.push(superseded);
                previous
            }
        };
        let event = match (current, previous) {
            (Some(current), previous) => WatchEvent::Put { current, previous },
            (None, Some(previous)) => WatchEvent::Delete { previous, revision },
            (None, None) => unreachable!("only a key that is there is deleted"),
        };
        let event = Arc::new(event);
        self.history_bytes += weight(&event);
        self.history.push_back(event.clone());
        event
    }

    /// Puts back a key from a snapshot, without history; in any order, before any change.
    pub fn restore(&mut self, key: Arc<str>, version: Version) {
        self.live_bytes += size(&key, &version);
        if let Some(deadline) = version.deadline {
            self.deadlines.insert((deadline, key.clone()));
        }
        self.keys.insert(key, Chain { newest: version, older: Vec::new() });
    }

    /// The store stands at `revision` with no history: what follows the restoring of a snapshot.
    pub fn restored(&mut self, revision: Revision) {
        self.revision = revision;
        self.compacted = revision;
    }

    /// Starts to forget what was before `revision`: it cannot be read any more from now on.
    pub fn begin_compaction(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision.min(self.revision));
    }

    /// Forgets up to `budget` events that compaction has passed; whether there are more.
    pub fn compact(&mut self, budget: usize) -> bool {
        for _ in 0..budget {
            let passed = self.history.front().is_some_and(|event| event.revision() <= self.compacted);
            let Some(event) = passed.then(|| self.history.pop_front()).flatten() else { return false };
            self.history_bytes -= weight(&event);
            self.forget_versions(event_key(&event));
        }
        true
    }

    fn forget_versions(&mut self, key: &str) {
        let compacted = self.compacted;
        let Some(chain) = self.keys.get_mut(key) else { return };
        if chain.newest.modified <= compacted {
            if chain.newest.value.is_none() {
                self.live_bytes -= size(key, &chain.newest);
                self.keys.remove(key);
            } else {
                chain.older = Vec::new();
            }
            return;
        }
        // The newest version that compaction has passed is what a read at `compacted` finds.
        let passed = chain.older.iter().rposition(|version| version.modified <= compacted);
        if let Some(passed) = passed {
            let first_kept = passed + usize::from(chain.older[passed].value.is_none());
            chain.older.drain(..first_kept);
        }
    }

    /// Every key that was there at `revision`, for a snapshot.
    pub fn at(&self, revision: Revision) -> Vec<Change> {
        let versions = self.keys.iter().filter_map(|(key, chain)| Some((key, chain.at(revision)?)));
        versions
            .filter(|(_, version)| version.value.is_some())
            .map(|(key, version)| Change { key: key.clone(), version: version.clone() })
            .collect()
    }
}

pub(super) fn event_key(event: &WatchEvent) -> &str {
    match event {
        WatchEvent::Put { current, .. } => &current.key,
        WatchEvent::Delete { previous, .. } => &previous.key,
    }
}

/// What an event keeps in memory that would be gone without it.
fn weight(event: &WatchEvent) -> u64 {
    let superseded = match event {
        WatchEvent::Put { previous, .. } => previous.as_ref().map_or(0, |previous| previous.value.len()),
        WatchEvent::Delete { previous, .. } => previous.value.len(),
    };
    EVENT_OVERHEAD + superseded as u64
}

fn size(key: &str, version: &Version) -> u64 {
    (key.len() + version.value.as_ref().map_or(0, Bytes::len)) as u64
}

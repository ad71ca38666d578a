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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::embedded::transaction::{Transaction, Write};

    #[derive(Clone, Debug)]
    enum Step {
        Create(u8),
        Update(u8),
        Delete(u8),
        Compact(u8),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..6u8).prop_map(Step::Create),
            (0..6u8).prop_map(Step::Update),
            (0..6u8).prop_map(Step::Delete),
            (0..60u8).prop_map(Step::Compact),
        ]
    }

    /// What is there at each revision, kept the simple way.
    type Model = HashMap<Revision, BTreeMap<String, KeyValue>>;

    fn contents(state: &State, revision: Revision) -> BTreeMap<String, KeyValue> {
        let mut found = RangeResult { items: Vec::new(), revision, more: false, count: 0 };
        let mut after = None;
        loop {
            // A budget as small as can be: every key is a step of its own.
            after = state.scan("/", after.as_deref(), 0, 1, &mut found);
            if after.is_none() {
                assert_eq!(found.count as usize, found.items.len());
                return found.items.into_iter().map(|item| (item.key.to_string(), item)).collect();
            }
        }
    }

    fn write(state: &mut State, write: Write) {
        let mut transaction = Transaction::new(state);
        if transaction.decide(write).is_ok() {
            for change in transaction.into_changes() {
                state.apply(change);
            }
        }
    }

    fn replay(contents: &mut BTreeMap<String, KeyValue>, event: &WatchEvent) {
        let key = event_key(event).to_owned();
        match event {
            WatchEvent::Put { current, previous } => {
                assert_eq!(contents.insert(key, current.clone()).as_ref(), previous.as_ref());
            }
            WatchEvent::Delete { previous, .. } => assert_eq!(contents.remove(&key).as_ref(), Some(previous)),
        }
    }

    proptest! {
        /// Every revision that is not compacted shows what was there, and the events after it lead
        /// from there to the present.
        #[test]
        fn the_past_and_the_events_agree(steps in prop::collection::vec(any_step(), 0..80)) {
            let mut state = State::new();
            let mut model = Model::from([(state.revision(), BTreeMap::new())]);
            for (number, step) in steps.into_iter().enumerate() {
                let key = |key: u8| -> Arc<str> { format!("/{key}").into() };
                let value = Bytes::from(number.to_string());
                match step {
                    Step::Create(number) => write(&mut state, Write::Create { key: key(number), value, deadline: None }),
                    Step::Update(number) => {
                        let expected = state.newest(&key(number)).map_or(Revision(0), |(_, found)| found.modified);
                        write(&mut state, Write::Update { key: key(number), value, expected, deadline: None });
                    }
                    Step::Delete(number) => write(&mut state, Write::Delete { key: key(number), expected: None }),
                    Step::Compact(revision) => {
                        state.begin_compaction(Revision(revision.into()));
                        while state.compact(1) {}
                    }
                }
                let now = contents(&state, state.revision());
                model.insert(state.revision(), now);
            }
            let present = contents(&state, state.revision());
            for (revision, expected) in model {
                if revision < state.compacted() {
                    prop_assert!(state.readable(Some(revision)).is_err());
                    prop_assert!(state.events_after(revision, 10).is_err());
                    continue;
                }
                let mut found = contents(&state, revision);
                prop_assert_eq!(&found, &expected);
                let mut reached = revision;
                while reached < state.revision() {
                    let (events, next) = state.events_after(reached, 3).unwrap();
                    events.for_each(|event| replay(&mut found, event));
                    reached = next;
                }
                prop_assert_eq!(&found, &present);
            }
            prop_assert_eq!(state.live_bytes() > 0, !state.keys.is_empty());
        }

        /// What is forgotten takes no memory.
        #[test]
        fn compaction_leaves_only_what_is_there(keys in prop::collection::vec(0..6u8, 1..60)) {
            let mut state = State::new();
            for key in keys {
                let key: Arc<str> = format!("/{key}").into();
                let exists = state.newest(&key).is_some_and(|(_, found)| found.value.is_some());
                let value = Bytes::from_static(b"value");
                write(&mut state, match exists {
                    true => Write::Delete { key, expected: None },
                    false => Write::Create { key, value, deadline: None },
                });
            }
            state.begin_compaction(state.revision());
            while state.compact(7) {}
            let present = contents(&state, state.revision());
            prop_assert_eq!(state.history_bytes(), 0);
            prop_assert_eq!(state.keys.len(), present.len());
            prop_assert!(state.keys.values().all(|chain| chain.older.is_empty()));
            let size: usize = present.iter().map(|(key, item)| key.len() + item.value.len()).sum();
            prop_assert_eq!(state.live_bytes(), size as u64);
        }
    }
}

//! The last changes of a kind's objects, in order: what watchers read.
//!
//! Watchers have no buffers of their own. Each remembers the revision it has sent, and reads on from
//! there; one that has fallen behind the ring must list again. So a slow watcher costs nothing.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use store::Revision;
use tokio::time::Instant;

use super::entry::Entry;

/// Bounds of what is kept: a burst of changes must fit, and an idle cluster should not remember it all.
const MAX_BYTES: usize = 32 << 20;
const MAX_CHANGES: usize = 50_000;
/// How long changes are kept: a client that was away for longer lists again.
pub(crate) const MEMORY: Duration = Duration::from_secs(120);

/// One change of one object.
#[derive(Debug)]
pub(crate) struct Change {
    /// The object after the change; after a deletion, its last state at the deletion's revision.
    pub(crate) entry: Arc<Entry>,
    /// The object before; `None` when it was created.
    pub(crate) previous: Option<Arc<Entry>>,
    /// Whether it was deleted.
    pub(crate) is_deletion: bool,
    /// When this server learned of it.
    pub(crate) at: Instant,
}

/// The changes after some revision, none missing.
#[derive(Debug)]
pub(crate) struct Ring {
    start: Revision,
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    max_bytes: usize,
}

impl Ring {
    /// Nothing yet, after `start`.
    pub(crate) fn new(start: Revision) -> Ring {
        Ring { start, changes: VecDeque::new(), bytes: 0, max_bytes: MAX_BYTES }
    }

    /// The oldest revision after which every change is here.
    pub(crate) fn start(&self) -> Revision {
        self.start
    }

    /// Adds the next change and forgets the oldest where there are too many.
    pub(crate) fn push(&mut self, change: Arc<Change>) {
        self.bytes += change.entry.size();
        self.changes.push_back(change);
        while self.bytes > self.max_bytes || self.changes.len() > MAX_CHANGES {
            self.forget_oldest();
        }
    }

    /// Forgets what is older than [`MEMORY`]; says when there will be something to forget again.
    pub(crate) fn forget(&mut self, now: Instant) -> Option<Instant> {
        while let Some(oldest) = self.changes.front() {
            let due = oldest.at + MEMORY;
            if due > now {
                return Some(due);
            }
            self.forget_oldest();
        }
        self.changes.shrink_to_fit();
        None
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.changes.pop_front() {
            self.bytes -= oldest.entry.size();
            self.start = oldest.entry.revision();
        }
    }

    /// The next at most `limit` changes after `revision`, together with the revision up to which they
    /// are complete when that is not the end; `None` when some are forgotten.
    pub(crate) fn after(&self, revision: Revision, limit: usize) -> Option<Vec<Arc<Change>>> {
        if revision < self.start {
            return None;
        }
        let first = self.changes.partition_point(|change| change.entry.revision() <= revision);
        let mut last = self.changes.len().min(first + limit);
        // Changes of one revision are handed out together: a position is a revision.
        while last < self.changes.len()
            && last > first
            && self.changes[last].entry.revision() == self.changes[last - 1].entry.revision()
        {
            last += 1;
        }
        Some(self.changes.range(first..last).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::kinds;
    use store::KeyValue;

    fn change(revision: u64, at: Instant) -> Arc<Change> {
        let stored = KeyValue {
            key: format!("/registry/configmaps/default/c{revision}").into(),
            value: r#"{"metadata":{"name":"c"}}"#.into(),
            create_revision: Revision(revision),
            mod_revision: Revision(revision),
        };
        let entry = Entry::new(kinds::find("", "v1", "configmaps").unwrap(), &stored).unwrap();
        Arc::new(Change { entry: Arc::new(entry), previous: None, is_deletion: false, at })
    }

    fn revisions(changes: Vec<Arc<Change>>) -> Vec<u64> {
        changes.iter().map(|change| change.entry.revision().0).collect()
    }

    #[test]
    fn a_position_that_is_remembered_reads_on() {
        let mut ring = Ring::new(Revision(10));
        for revision in [11, 13, 13, 17] {
            ring.push(change(revision, Instant::now()));
        }
        assert_eq!(revisions(ring.after(Revision(10), 10).unwrap()), [11, 13, 13, 17]);
        assert_eq!(revisions(ring.after(Revision(12), 1).unwrap()), [13, 13]);
        assert_eq!(revisions(ring.after(Revision(17), 10).unwrap()), [0; 0]);
        assert!(ring.after(Revision(9), 10).is_none());
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_is_too_much() {
        let mut ring = Ring::new(Revision(0));
        ring.max_bytes = change(1, Instant::now()).entry.size() * 2;
        for revision in 1..=5 {
            ring.push(change(revision, Instant::now()));
        }
        assert!(ring.after(Revision(2), 10).is_none());
        assert_eq!(revisions(ring.after(ring.start(), 10).unwrap()), [4, 5]);
    }

    #[test]
    fn the_oldest_is_forgotten_after_a_while() {
        let begin = Instant::now();
        let mut ring = Ring::new(Revision(0));
        ring.push(change(1, begin));
        ring.push(change(2, begin + MEMORY / 2));
        assert_eq!(ring.forget(begin), Some(begin + MEMORY));
        assert_eq!(ring.forget(begin + MEMORY), Some(begin + MEMORY / 2 + MEMORY));
        assert_eq!(ring.start(), Revision(1));
        assert_eq!(ring.forget(begin + MEMORY * 2), None);
        assert_eq!(revisions(ring.after(Revision(2), 10).unwrap()), [0; 0]);
    }
}

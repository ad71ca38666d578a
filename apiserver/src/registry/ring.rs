//! The last changes of a kind's objects, in order: what watchers read.
//!
//! Watchers have no buffers of their own. Each remembers the revision it has sent, and reads on from
//! there; one that has fallen behind the ring must list again. So a slow watcher costs nothing.

use std::{collections::VecDeque, sync::Arc};

use store::Revision;

use super::entry::Entry;

/// Bounds of what is kept: a burst of changes must fit, and an idle cluster should not remember it all.
const MAX_BYTES: usize = 32 << 20;
const MAX_CHANGES: usize = 50_000;

/// One change of one object.
#[derive(Debug)]
pub(crate) struct Change {
    /// The object after the change; after a deletion, its last state at the deletion's revision.
    pub(crate) entry: Arc<Entry>,
    /// The object before; `None` when it was created.
    pub(crate) previous: Option<Arc<Entry>>,
    /// Whether it was deleted.
    pub(crate) is_deletion: bool,
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
            let Some(oldest) = self.changes.pop_front() else { return };
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

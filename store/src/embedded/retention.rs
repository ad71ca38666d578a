//! Decides how much history to keep.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::Revision;

/// How much history the store keeps for watchers and for reads of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Changes older than this are forgotten.
    pub time: Duration,
    /// Older changes are forgotten earlier when history takes more memory than this.
    pub bytes: u64,
}

impl Default for Retention {
    /// Five minutes, as upstream's API server tells etcd, but no more than 32 MiB: a lab machine is small, and a watcher that is
    /// further behind lists again.
    fn default() -> Retention {
        Retention { time: Duration::from_secs(300), bytes: 32 << 20 }
    }
}

/// Remembers when the store stood where.
#[derive(Debug)]
pub(super) struct Marks {
    retention: Retention,
    marks: VecDeque<(Instant, Revision)>,
    /// How far apart marks are, and so how exactly the time is kept.
    step: Duration,
}

impl Marks {
    pub fn new(retention: Retention) -> Marks {
        Marks { retention, marks: VecDeque::new(), step: retention.time / 10 }
    }

    /// Notes that the store has come to `revision`.
    pub fn note(&mut self, now: Instant, revision: Revision) {
        match self.marks.back_mut() {
            Some((since, newest)) if now.duration_since(*since) < self.step => *newest = revision,
            _ => self.marks.push_back((now, revision)),
        }
    }

    /// Up to which revision history is now old enough to be forgotten, if any is.
    pub fn take_due(&mut self, now: Instant) -> Option<Revision> {
        let mut due = None;
        while self.next_due().is_some_and(|at| at <= now) {
            due = self.marks.pop_front().map(|(_, revision)| revision);
        }
        due
    }

    /// When that will be the case next.
    pub fn next_due(&self) -> Option<Instant> {
        // A mark grows for a step before it is left alone.
        self.marks.front().map(|(since, _)| *since + self.step + self.retention.time)
    }

    /// How much must go if history takes `bytes`: so much that this is not asked again at once.
    pub fn surplus(&self, bytes: u64) -> Option<u64> {
        (bytes > self.retention.bytes).then(|| bytes - self.retention.bytes / 4 * 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_forgotten_after_its_time_and_not_before() {
        let retention = Retention { time: Duration::from_secs(300), bytes: 1000 };
        let mut marks = Marks::new(retention);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        for second in 0..100 {
            marks.note(after(second), Revision(second));
        }
        assert_eq!(marks.take_due(after(329)), None);
        assert_eq!(marks.next_due(), Some(after(330)));
        assert_eq!(marks.take_due(after(330)), Some(Revision(29)));
        assert_eq!(marks.take_due(after(1000)), Some(Revision(99)));
        assert_eq!(marks.next_due(), None);
    }

    #[test]
    fn too_much_history_leaves_three_quarters() {
        let marks = Marks::new(Retention { time: Duration::from_secs(1), bytes: 1000 });
        assert_eq!(marks.surplus(1000), None);
        assert_eq!(marks.surplus(1001), Some(251));
    }
}

//! The flight recorder: every turn of every controller, kept for whoever wants to see reconciliation at work.
//!
//! The last turns stay in a ring in memory; new ones are told to subscribers as they happen. A subscriber that
//! lags loses the oldest ones and is told how many, so a slow reader never slows a controller.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::broadcast;

/// How many turns are kept.
const KEPT: usize = 1024;

/// One turn of a controller.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Turn {
    /// Counts up from 1 in each process.
    pub number: u64,
    /// When the turn began.
    pub at: Timestamp,
    /// Which controller.
    pub controller: &'static str,
    /// Which object, as `namespace/name`.
    pub object: String,
    /// What woke it, such as `Pod default/web-1 updated`.
    pub woken_by: String,
    /// What the object asks for, in one line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub desired: String,
    /// What there is, in one line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub observed: String,
    /// What was done; empty when nothing was left to do.
    pub actions: Vec<String>,
    /// How long it took, in microseconds.
    pub duration_micros: u64,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The recorder. Clones record to the same ring.
#[derive(Clone)]
pub struct FlightRecorder {
    inner: Arc<Inner>,
}

struct Inner {
    ring: Mutex<Ring>,
    live: broadcast::Sender<Arc<Turn>>,
}

#[derive(Default)]
struct Ring {
    turns: VecDeque<Arc<Turn>>,
    recorded: u64,
}

impl Default for FlightRecorder {
    fn default() -> Self {
        FlightRecorder::new()
    }
}

impl FlightRecorder {
    /// An empty recorder.
    pub fn new() -> FlightRecorder {
        FlightRecorder {
            inner: Arc::new(Inner { ring: Mutex::default(), live: broadcast::Sender::new(256) }),
        }
    }

    /// Keeps a turn and tells the subscribers; its number is given here.
    pub fn record(&self, mut turn: Turn) {
        let mut ring = self.ring();
        ring.recorded += 1;
        turn.number = ring.recorded;
        let turn = Arc::new(turn);
        if ring.turns.len() == KEPT {
            ring.turns.pop_front();
        }
        ring.turns.push_back(turn.clone());
        // Told under the lock, so that `follow` neither misses a turn nor sees one twice.
        // That nobody listens is the usual case.
        self.inner.live.send(turn).unwrap_or_default();
    }

    /// The turns that are kept, oldest first.
    pub fn recent(&self) -> Vec<Arc<Turn>> {
        self.ring().turns.iter().cloned().collect()
    }

    /// Turns from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Turn>> {
        self.inner.live.subscribe()
    }

    /// The turns that are kept, and those from now on, without a gap and without a repetition.
    pub fn follow(&self) -> (Vec<Arc<Turn>>, broadcast::Receiver<Arc<Turn>>) {
        let ring = self.ring();
        (ring.turns.iter().cloned().collect(), self.inner.live.subscribe())
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(object: &str) -> Turn {
        Turn {
            number: 0,
            at: Timestamp::UNIX_EPOCH,
            controller: "replicaset",
            object: object.into(),
            woken_by: "timer".into(),
            desired: String::new(),
            observed: String::new(),
            actions: Vec::new(),
            duration_micros: 7,
            error: None,
        }
    }

    #[test]
    fn the_ring_keeps_the_newest() {
        let recorder = FlightRecorder::new();
        (0..KEPT + 3).for_each(|index| recorder.record(turn(&index.to_string())));
        let recent = recorder.recent();
        assert_eq!(recent.len(), KEPT);
        assert_eq!((recent[0].number, recent[0].object.as_str()), (4, "3"));
    }

    #[test]
    fn following_goes_on_where_the_ring_ends() {
        let recorder = FlightRecorder::new();
        recorder.record(turn("a"));
        let (kept, mut live) = recorder.follow();
        recorder.record(turn("b"));
        assert_eq!(kept.len(), 1);
        assert_eq!(live.try_recv().unwrap().number, 2);
    }
}

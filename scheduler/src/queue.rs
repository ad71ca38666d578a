//! Which pod is next: those of higher priority first, then the older; what fitted nowhere waits until
//! something changes, and then a little longer each time.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use jiff::Timestamp;

use crate::model::{PodInfo, PodUid};

/// Upstream's `podInitialBackoffSeconds` and `podMaxBackoffSeconds`.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// Pods that wait for a node. Time is an argument, so that tests own the clock.
#[derive(Default)]
pub struct Queue {
    pods: HashMap<PodUid, Waiting>,
    active: BTreeSet<Rank>,
}

type Rank = (Reverse<i32>, Timestamp, PodUid);

struct Waiting {
    pod: PodInfo,
    attempts: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// May be tried now.
    Active,
    /// Being tried, or being bound.
    InFlight,
    /// Something has changed since it fitted nowhere: tried again from then on.
    BackingOff { until: Timestamp },
    /// Fitted nowhere, and nothing has changed since; `until` is when it may be tried at the earliest.
    Unschedulable { until: Timestamp },
}

impl Queue {
    /// Takes in a pod, or what it has become. One that waits for a change is tried again if it has changed itself.
    pub fn put(&mut self, pod: PodInfo) {
        let rank = rank(&pod);
        match self.pods.get_mut(&pod.uid) {
            None => {
                self.active.insert(rank);
                self.pods.insert(pod.uid.clone(), Waiting { pod, attempts: 0, state: State::Active });
            }
            Some(waiting) => {
                let was = waiting.pod.pod.spec == pod.pod.spec && waiting.pod.labels == pod.labels;
                self.active.remove(&self::rank(&waiting.pod));
                waiting.pod = pod;
                if !was && !matches!(waiting.state, State::InFlight) {
                    waiting.state = State::Active;
                }
                if waiting.state == State::Active {
                    self.active.insert(rank);
                }
            }
        }
    }

    /// Forgets a pod: it is gone or has its node.
    pub fn remove(&mut self, uid: &str) {
        if let Some(waiting) = self.pods.remove(uid) {
            self.active.remove(&rank(&waiting.pod));
        }
    }

    /// The next pod to try, if any.
    pub fn pop(&mut self) -> Option<PodInfo> {
        let (.., uid) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&uid)?;
        waiting.state = State::InFlight;
        waiting.attempts += 1;
        Some(waiting.pod.clone())
    }

    /// Puts back a pod that fitted nowhere.
    pub fn unschedulable(&mut self, uid: &str, now: Timestamp) {
        if let Some(waiting) = self.pods.get_mut(uid) {
            waiting.state = State::Unschedulable { until: now + backoff(waiting.attempts) };
        }
    }

    /// Puts back a pod whose binding failed: tried again after its back-off, changes or no changes.
    pub fn failed(&mut self, uid: &str, now: Timestamp) {
        if let Some(waiting) = self.pods.get_mut(uid) {
            waiting.state = State::BackingOff { until: now + backoff(waiting.attempts) };
        }
    }

    /// Something has changed that may help the pods that fitted nowhere.
    pub fn something_changed(&mut self) {
        for waiting in self.pods.values_mut() {
            if let State::Unschedulable { until } = waiting.state {
                waiting.state = State::BackingOff { until };
            }
        }
    }

    /// Lets those back in whose back-off is over. Returns when the next one's will be.
    pub fn wake(&mut self, now: Timestamp) -> Option<Timestamp> {
        let mut next = None;
        for waiting in self.pods.values_mut() {
            let State::BackingOff { until } = waiting.state else { continue };
            if until <= now {
                waiting.state = State::Active;
                self.active.insert(rank(&waiting.pod));
            } else {
                next = Some(next.map_or(until, |next: Timestamp| next.min(until)));
            }
        }
        next
    }

    /// How many may be tried now, and how many wait for something.
    pub fn depth(&self) -> (usize, usize) {
        (self.active.len(), self.pods.len() - self.active.len())
    }
}

fn rank(pod: &PodInfo) -> Rank {
    (Reverse(pod.priority), pod.created(), pod.uid.clone())
}

fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(10);
    (FIRST_BACKOFF * 2_u32.pow(doublings)).min(LONGEST_BACKOFF)
}

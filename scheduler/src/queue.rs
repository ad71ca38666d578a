//! Which pod is next: those of higher priority first, then the older; what fitted nowhere waits until
//! something changes, and then a little longer each time.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, HashSet},
    mem,
    sync::Arc,
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
    /// The pods of each state by themselves, so that nobody has to look through all.
    active: BTreeSet<Rank>,
    backing_off: BTreeSet<(Timestamp, PodUid)>,
    unschedulable: HashSet<PodUid>,
}

type Rank = (Reverse<i32>, Timestamp, PodUid);

struct Waiting {
    pod: Arc<PodInfo>,
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
    pub fn put(&mut self, pod: Arc<PodInfo>) {
        let (attempts, state) = match self.take(&pod.uid) {
            None => (0, State::Active),
            Some(known) => {
                let is_same = known.pod.pod.spec == pod.pod.spec && known.pod.labels == pod.labels;
                let stays = is_same || known.state == State::InFlight;
                (known.attempts, if stays { known.state } else { State::Active })
            }
        };
        self.add(Waiting { pod, attempts, state });
    }

    /// Forgets a pod: it is gone or has its node.
    pub fn remove(&mut self, uid: &str) {
        self.take(uid);
    }

    /// The next pod to try, if any.
    pub fn pop(&mut self) -> Option<Arc<PodInfo>> {
        let (.., uid) = self.active.first()?.clone();
        let mut next = self.take(&uid)?;
        next.state = State::InFlight;
        next.attempts += 1;
        let pod = next.pod.clone();
        self.add(next);
        Some(pod)
    }

    /// Puts back a pod that fitted nowhere.
    pub fn unschedulable(&mut self, uid: &str, now: Timestamp) {
        self.change(uid, |waiting| State::Unschedulable { until: now + backoff(waiting.attempts) });
    }

    /// Puts back a pod whose binding failed: tried again after its back-off, changes or no changes.
    pub fn failed(&mut self, uid: &str, now: Timestamp) {
        self.change(uid, |waiting| State::BackingOff { until: now + backoff(waiting.attempts) });
    }

    /// Something has changed that may help the pods that fitted nowhere.
    pub fn something_changed(&mut self) {
        for uid in mem::take(&mut self.unschedulable) {
            self.change(&uid, |waiting| match waiting.state {
                State::Unschedulable { until } => State::BackingOff { until },
                state => state,
            });
        }
    }

    /// Lets those back in whose back-off is over. Returns when the next one's will be.
    pub fn wake(&mut self, now: Timestamp) -> Option<Timestamp> {
        while let Some((until, uid)) = self.backing_off.first().cloned() {
            if until > now {
                return Some(until);
            }
            self.change(&uid, |_| State::Active);
        }
        None
    }

    /// How many may be tried now, and how many wait for something.
    pub fn depth(&self) -> (usize, usize) {
        (self.active.len(), self.pods.len() - self.active.len())
    }

    fn change(&mut self, uid: &str, state: impl FnOnce(&Waiting) -> State) {
        if let Some(mut waiting) = self.take(uid) {
            waiting.state = state(&waiting);
            self.add(waiting);
        }
    }

    fn add(&mut self, waiting: Waiting) {
        let uid = waiting.pod.uid.clone();
        match waiting.state {
            State::Active => drop(self.active.insert(rank(&waiting.pod))),
            State::InFlight => {}
            State::BackingOff { until } => drop(self.backing_off.insert((until, uid.clone()))),
            State::Unschedulable { .. } => drop(self.unschedulable.insert(uid.clone())),
        }
        self.pods.insert(uid, waiting);
    }

    fn take(&mut self, uid: &str) -> Option<Waiting> {
        let waiting = self.pods.remove(uid)?;
        match waiting.state {
            State::Active => drop(self.active.remove(&rank(&waiting.pod))),
            State::InFlight => {}
            State::BackingOff { until } => drop(self.backing_off.remove(&(until, waiting.pod.uid.clone()))),
            State::Unschedulable { .. } => drop(self.unschedulable.remove(uid)),
        }
        Some(waiting)
    }
}

fn rank(pod: &PodInfo) -> Rank {
    (Reverse(pod.priority), pod.created(), pod.uid.clone())
}

fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(10);
    (FIRST_BACKOFF * 2_u32.pow(doublings)).min(LONGEST_BACKOFF)
}

//! Which pod is next: those of higher priority first, then the older; what fitted nowhere waits until
//! something changes, and then a little longer each time.
//!
//! Upstream asks of each change which pods it may help, and so does this queue: a pod that has come to a node helps
//! those that want to be near it or spread like it, everything else may help all.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use crate::model::{PodInfo, PodUid};

/// Upstream's `podInitialBackoffSeconds` and `podMaxBackoffSeconds`.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// After so long a pod is tried again though nothing has changed: upstream's `podMaxInUnschedulablePodsDuration`.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);

/// Pods that wait for a node. Time is an argument, so that tests own the clock.
#[derive(Default)]
pub struct Queue {
    pods: HashMap<PodUid, Waiting>,
    /// The pods of each state by themselves, so that nobody has to look through all.
    active: BTreeSet<Rank>,
    backing_off: BTreeSet<(Timestamp, PodUid)>,
    unschedulable: BTreeSet<(Timestamp, PodUid)>,
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
    /// Fitted nowhere, and nothing has changed since.
    Unschedulable { since: Timestamp },
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
        self.change(uid, |_| State::Unschedulable { since: now });
    }

    /// Puts back a pod whose binding failed: tried again after its back-off, changes or no changes. Returns whether
    /// it was still here.
    pub fn failed(&mut self, uid: &str, now: Timestamp) -> bool {
        self.change(uid, |waiting| State::BackingOff { until: now + backoff(waiting.attempts) })
    }

    /// Something has changed that may help any pod that fitted nowhere.
    pub fn something_changed(&mut self) {
        self.retry(|_| true);
    }

    /// A pod has come to a node, which may help those that look at their neighbours.
    pub fn neighbour_came(&mut self, neighbour: &PodInfo) {
        self.retry(|pod| pod.is_helped_by(neighbour));
    }

    /// Lets those back in whose back-off is over or who have waited long enough for a change. Returns when that will
    /// be so of the next one.
    pub fn wake(&mut self, now: Timestamp) -> Option<Timestamp> {
        while let Some((until, uid)) = self.backing_off.first().cloned()
            && until <= now
        {
            self.change(&uid, |_| State::Active);
        }
        while let Some((since, uid)) = self.unschedulable.first().cloned()
            && since + LONGEST_WAIT <= now
        {
            self.change(&uid, |_| State::Active);
        }
        let backed_off = self.backing_off.first().map(|(until, _)| *until);
        let waited = self.unschedulable.first().map(|(since, _)| *since + LONGEST_WAIT);
        backed_off.into_iter().chain(waited).min()
    }

    /// How many may be tried now, how many back off, and how many wait for a change. Those that are being bound are
    /// in none of these.
    pub fn depth(&self) -> (usize, usize, usize) {
        (self.active.len(), self.backing_off.len(), self.unschedulable.len())
    }

    /// Lets pods that fitted nowhere be tried again, each after its back-off.
    fn retry(&mut self, is_helped: impl Fn(&PodInfo) -> bool) {
        let waits_for_it = |uid: &PodUid| self.pods.get(uid).is_some_and(|waiting| is_helped(&waiting.pod));
        let helped = self.unschedulable.iter().map(|(_, uid)| uid).filter(|uid| waits_for_it(uid));
        for uid in helped.cloned().collect::<Vec<_>>() {
            self.change(&uid, |waiting| match waiting.state {
                State::Unschedulable { since } => {
                    State::BackingOff { until: since + backoff(waiting.attempts) }
                }
                state => state,
            });
        }
    }

    /// Returns whether the pod is here.
    fn change(&mut self, uid: &str, state: impl FnOnce(&Waiting) -> State) -> bool {
        let Some(mut waiting) = self.take(uid) else { return false };
        waiting.state = state(&waiting);
        self.add(waiting);
        true
    }

    fn add(&mut self, waiting: Waiting) {
        let uid = waiting.pod.uid.clone();
        match waiting.state {
            State::Active => drop(self.active.insert(rank(&waiting.pod))),
            State::InFlight => {}
            State::BackingOff { until } => drop(self.backing_off.insert((until, uid.clone()))),
            State::Unschedulable { since } => drop(self.unschedulable.insert((since, uid.clone()))),
        }
        self.pods.insert(uid, waiting);
    }

    fn take(&mut self, uid: &str) -> Option<Waiting> {
        let waiting = self.pods.remove(uid)?;
        match waiting.state {
            State::Active => drop(self.active.remove(&rank(&waiting.pod))),
            State::InFlight => {}
            State::BackingOff { until } => drop(self.backing_off.remove(&(until, waiting.pod.uid.clone()))),
            State::Unschedulable { since } => {
                self.unschedulable.remove(&(since, waiting.pod.uid.clone()));
            }
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

//! Which objects want a turn, and when.
//!
//! A key is in the queue at most once however often it is woken. While it has its turn, further wake-ups are
//! kept for afterwards, so that no two turns of one key run at once. Failed turns come back after 5 ms, then
//! twice as long each time, up to 1000 s, as upstream's rate limiter has it. There is no timer while nothing is due.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{ObjectKey, metrics::QueueMetrics};

const FIRST_BACK_OFF: Duration = Duration::from_millis(5);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(1000);
/// Deadlines in objects may be any number of seconds. A turn too early finds nothing to do and asks again.
const LONGEST_DELAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What woke a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wake {
    /// An object changed: its kind, its key and what happened.
    Change {
        /// Kind of the object.
        kind: Cow<'static, str>,
        /// The object.
        object: ObjectKey,
        /// `added`, `updated` or `deleted`.
        verb: &'static str,
    },
    /// The controller had asked for it.
    Timer,
    /// The last turn failed.
    Retry,
    /// Something else, in words.
    Other(&'static str),
}

impl fmt::Display for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wake::Change { kind, object, verb } => write!(f, "{kind} {object} {verb}"),
            Wake::Timer => f.write_str("timer"),
            Wake::Retry => f.write_str("retry"),
            Wake::Other(words) => f.write_str(words),
        }
    }
}

/// The queue. Clones are the same queue.
#[derive(Clone)]
pub struct Queue {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    moved: Notify,
    metrics: QueueMetrics,
}

#[derive(Default)]
struct State {
    ready: VecDeque<ObjectKey>,
    entries: HashMap<ObjectKey, Entry>,
    due: BTreeSet<(Instant, ObjectKey)>,
}

#[derive(Default)]
struct Entry {
    /// Set while the key waits for a turn: what woke it first, and when.
    waiting: Option<(Wake, Instant)>,
    running: bool,
    failures: u32,
    due: Option<(Instant, Wake)>,
}

impl Queue {
    /// An empty queue, known to the metrics by a name.
    pub fn new(name: &'static str) -> Queue {
        let metrics = QueueMetrics::of(name);
        Queue { inner: Arc::new(Inner { state: Mutex::default(), moved: Notify::new(), metrics }) }
    }

    /// Asks for a turn now.
    pub fn add(&self, key: ObjectKey, wake: Wake) {
        let mut state = self.lock();
        if state.add(key, wake) {
            self.inner.metrics.added(state.ready.len());
            drop(state);
            self.inner.moved.notify_one();
        }
    }

    /// Asks for a turn later; the earliest of several such wishes counts.
    pub fn add_after(&self, key: ObjectKey, delay: Duration, wake: Wake) {
        if delay.is_zero() {
            return self.add(key, wake);
        }
        if self.lock().add_at(key, Instant::now() + delay.min(LONGEST_DELAY), wake) {
            self.inner.moved.notify_one();
        }
    }

    /// The next key whose turn it is, with what woke it. To be called by one task only.
    pub async fn next(&self) -> (ObjectKey, Wake) {
        loop {
            let due = {
                let mut state = self.lock();
                state.take_due(Instant::now());
                if let Some((key, wake, since)) = state.next() {
                    self.inner.metrics.taken(state.ready.len(), since.elapsed());
                    return (key, wake);
                }
                state.due.first().map(|(at, _)| *at)
            };
            let moved = self.inner.moved.notified();
            match due {
                Some(at) => tokio::select! {
                    () = moved => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => moved.await,
            }
        }
    }

    /// Ends a turn that went well.
    pub fn done(&self, key: &ObjectKey) {
        self.finish(key, |entry| {
            entry.failures = 0;
            None
        });
    }

    /// Ends a turn that failed; the key comes back after its back-off. Returns how long that is.
    pub fn failed(&self, key: &ObjectKey) -> Duration {
        self.inner.metrics.retried();
        self.finish(key, |entry| {
            let delay = back_off(entry.failures);
            entry.failures = entry.failures.saturating_add(1);
            Some(delay)
        })
        .unwrap_or_default()
    }

    fn finish(
        &self,
        key: &ObjectKey,
        outcome: impl FnOnce(&mut Entry) -> Option<Duration>,
    ) -> Option<Duration> {
        let mut state = self.lock();
        let entry = state.entries.get_mut(key)?;
        let delay = outcome(entry);
        entry.running = false;
        if entry.waiting.is_some() {
            state.ready.push_back(key.clone());
        }
        if let Some(delay) = delay {
            state.add_at(key.clone(), Instant::now() + delay, Wake::Retry);
        }
        state.forget_if_idle(key);
        drop(state);
        self.inner.moved.notify_one();
        delay
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether there is something new to run.
    fn add(&mut self, key: ObjectKey, wake: Wake) -> bool {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.waiting.is_some() {
            return false;
        }
        entry.waiting = Some((wake, Instant::now()));
        if entry.running {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    /// Whether the earliest time may have changed.
    fn add_at(&mut self, key: ObjectKey, at: Instant, wake: Wake) -> bool {
        let entry = self.entries.entry(key.clone()).or_default();
        match &entry.due {
            Some((earlier, _)) if *earlier <= at => return false,
            Some((later, _)) => {
                self.due.remove(&(*later, key.clone()));
            }
            None => {}
        }
        entry.due = Some((at, wake));
        self.due.insert((at, key));
        true
    }

    fn take_due(&mut self, now: Instant) {
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = self.due.pop_first() else { return };
            let wake = self.entries.get_mut(&key).and_then(|entry| entry.due.take());
            self.add(key, wake.map_or(Wake::Timer, |(_, wake)| wake));
        }
    }

    fn next(&mut self) -> Option<(ObjectKey, Wake, Instant)> {
        let key = self.ready.pop_front()?;
        let entry = self.entries.get_mut(&key)?;
        let (wake, since) = entry.waiting.take()?;
        entry.running = true;
        Some((key, wake, since))
    }

    fn forget_if_idle(&mut self, key: &ObjectKey) {
        let idle = |entry: &Entry| {
            entry.waiting.is_none() && !entry.running && entry.failures == 0 && entry.due.is_none()
        };
        if self.entries.get(key).is_some_and(idle) {
            self.entries.remove(key);
        }
    }
}

fn back_off(failures: u32) -> Duration {
    FIRST_BACK_OFF.saturating_mul(2u32.saturating_pow(failures)).min(LONGEST_BACK_OFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("default", name)
    }

    const WAKE: Wake = Wake::Other("test");

    #[tokio::test]
    async fn a_key_waits_once_however_often_it_is_woken() {
        let queue = Queue::new("test");
        queue.add(key("a"), WAKE);
        queue.add(key("a"), WAKE);
        queue.add(key("b"), WAKE);
        assert_eq!(queue.next().await.0, key("a"));
        assert_eq!(queue.next().await.0, key("b"));
        assert!(queue.lock().ready.is_empty());
    }

    #[tokio::test]
    async fn a_key_woken_during_its_turn_has_another_one_afterwards() {
        let queue = Queue::new("test");
        queue.add(key("a"), WAKE);
        queue.next().await;
        queue.add(key("a"), Wake::Other("again"));
        assert!(queue.lock().ready.is_empty(), "two turns of one key would run at once");
        queue.done(&key("a"));
        assert_eq!(queue.next().await, (key("a"), Wake::Other("again")));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_and_success_forgets_them() {
        let queue = Queue::new("test");
        queue.add(key("a"), WAKE);
        for expected in [5, 10, 20] {
            queue.next().await;
            assert_eq!(queue.failed(&key("a")), Duration::from_millis(expected));
        }
        assert_eq!(queue.next().await.1, Wake::Retry);
        queue.done(&key("a"));
        assert!(queue.lock().entries.is_empty());
        assert_eq!(back_off(40), LONGEST_BACK_OFF);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_of_several_timers_counts() {
        let queue = Queue::new("test");
        let start = Instant::now();
        queue.add_after(key("a"), Duration::from_secs(60), Wake::Timer);
        queue.add_after(key("a"), Duration::from_secs(10), Wake::Timer);
        queue.add_after(key("a"), Duration::from_secs(30), Wake::Timer);
        queue.next().await;
        assert_eq!(start.elapsed().as_secs(), 10);
        queue.done(&key("a"));
        assert!(queue.lock().due.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_for_the_end_of_days_looks_again_tomorrow() {
        let queue = Queue::new("test");
        queue.add_after(key("a"), Duration::MAX, Wake::Timer);
        assert_eq!(queue.next().await, (key("a"), Wake::Timer));
    }
}

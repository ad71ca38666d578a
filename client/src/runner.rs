//! The reconcile shell: what all controllers share.
//!
//! A controller says what one turn for one object does ([`Reconcile`]); the [`Runner`] decides when turns
//! happen. One turn a key at a time, several keys at once, failures with back-off, and no new turn of a key
//! before the caches have seen what the last one wrote, so that no turn acts twice on the same observation.

use std::{borrow::Cow, future::Future, sync::Arc, time::Duration};

use futures::future::{BoxFuture, join_all};
use jiff::Timestamp;
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    ApiObject, Cache, Change, ClientError, ObjectKey,
    cache::controller_of,
    flight::{FlightRecorder, Turn},
    metrics::QueueMetrics,
    queue::{Queue, Wake},
    turn::{self, Notes},
};

/// A cache catches up within milliseconds. When it has not after this long the watch is broken, and a turn on
/// old data (whose writes carry preconditions) is better than none.
const LONGEST_CATCH_UP: Duration = Duration::from_secs(30);

/// When a key wants its next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When something changes.
    OnChange,
    /// After this long, or when something changes.
    After(Duration),
}

/// One controller: what a turn for one object does.
pub trait Reconcile: Send + Sync + 'static {
    /// Brings one object closer to what it asks for. Remembers nothing: a lost event or a restart costs one
    /// more turn and no more.
    fn reconcile(&self, key: &ObjectKey) -> impl Future<Output = Result<Next, ClientError>> + Send;
}

/// Gives a controller its turns.
pub struct Runner<R> {
    name: &'static str,
    controller: Arc<R>,
    queue: Queue,
    concurrency: usize,
    synced: Vec<BoxFuture<'static, ()>>,
}

impl<R: Reconcile> Runner<R> {
    /// A runner for a controller, known to logs, metrics and the flight recorder by `name`.
    pub fn new(name: &'static str, controller: R) -> Runner<R> {
        Runner::with_queue(name, controller, Queue::new(name))
    }

    /// The same with a queue that others know already.
    pub fn with_queue(name: &'static str, controller: R, queue: Queue) -> Runner<R> {
        Runner { name, controller: Arc::new(controller), queue, concurrency: 4, synced: Vec::new() }
    }

    /// How many objects may have their turns at once.
    pub fn concurrency(mut self, turns: usize) -> Runner<R> {
        self.concurrency = turns;
        self
    }

    /// The queue, for wakers that are not caches.
    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Wakes every object of a kind when it changes.
    pub fn watch<K: ApiObject>(self, cache: &Arc<Cache<K>>) -> Runner<R> {
        self.watch_map(cache, |change| vec![change.key()])
    }

    /// Wakes the controllers of kind `owner_kind` that a changed object has or had.
    pub fn watch_owned<K: ApiObject>(self, cache: &Arc<Cache<K>>, owner_kind: &'static str) -> Runner<R> {
        self.watch_map(cache, move |change| {
            let states = [change.before(), change.after()];
            let owners = states.into_iter().flatten().filter_map(|object| controller_of(&**object));
            let namespace = change.key().namespace;
            let mut keys: Vec<ObjectKey> = owners
                .filter(|owner| owner.kind == owner_kind)
                .map(|owner| ObjectKey { namespace: namespace.clone(), name: owner.name.as_str().into() })
                .collect();
            keys.dedup();
            keys
        })
    }

    /// Wakes whatever keys a change concerns, as `map` says. The map runs on the informer's task.
    pub fn watch_map<K: ApiObject>(
        self,
        cache: &Arc<Cache<K>>,
        map: impl Fn(&Change<K>) -> Vec<ObjectKey> + Send + Sync + 'static,
    ) -> Runner<R> {
        let queue = self.queue.clone();
        let kind: Cow<'static, str> = K::kind(&()).into_owned().into();
        cache.on_change(move |change| {
            for key in map(change) {
                queue
                    .add(key, Wake::Change { kind: kind.clone(), object: change.key(), verb: change.verb() });
            }
        });
        self.wait_for(cache)
    }

    /// Starts no turn before this cache is complete, though its changes wake nobody.
    pub fn wait_for<K: ApiObject>(self, cache: &Arc<Cache<K>>) -> Runner<R> {
        let cache = cache.clone();
        self.wait_until(async move { cache.wait_synced().await })
    }

    /// Starts no turn before this is done.
    pub fn wait_until(mut self, ready: impl Future<Output = ()> + Send + 'static) -> Runner<R> {
        self.synced.push(Box::pin(ready));
        self
    }

    /// Gives turns until `stop`; those that run then are finished first.
    pub async fn run(self, flight: FlightRecorder, stop: CancellationToken) {
        let Runner { name, controller, queue, concurrency, synced } = self;
        if stop.run_until_cancelled(join_all(synced)).await.is_none() {
            return;
        }
        let slots = Arc::new(Semaphore::new(concurrency));
        let metrics = QueueMetrics::of(name);
        let mut turns = JoinSet::new();
        loop {
            let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
            let next = tokio::select! {
                next = queue.next() => Some(next),
                () = stop.cancelled() => None,
            };
            let Some((key, wake)) = next else { break };
            while turns.try_join_next().is_some() {}
            let (controller, queue, flight, metrics) =
                (controller.clone(), queue.clone(), flight.clone(), metrics.clone());
            let span = tracing::debug_span!("reconcile", controller = name, %key);
            let turn = async move {
                let (at, began) = (Timestamp::now(), Instant::now());
                let (result, notes) = turn::noting(controller.reconcile(&key)).await;
                drop(slot);
                let took = began.elapsed();
                metrics.worked(took, result.is_err());
                if let Err(error) = &result
                    && !crate::is_conflict(error)
                {
                    tracing::warn!(controller = name, %key, error = crate::writer::message(error), "turn failed, will retry");
                }
                let unseen = file(&flight, name, &key, wake, at, took, result.as_ref().err(), notes);
                let seen = join_all(unseen.into_iter().map(turn::Unseen::wait));
                if tokio::time::timeout(LONGEST_CATCH_UP, seen).await.is_err() {
                    tracing::warn!(controller = name, %key, "the cache has not seen the last write, going on without");
                }
                settle(&queue, &key, result);
            };
            turns.spawn(turn.instrument(span));
        }
        while turns.join_next().await.is_some() {}
    }
}

fn settle(queue: &Queue, key: &ObjectKey, result: Result<Next, ClientError>) {
    match result {
        Ok(next) => {
            if let Next::After(delay) = next {
                queue.add_after(key.clone(), delay.max(Duration::from_millis(1)), Wake::Timer);
            }
            queue.done(key);
        }
        Err(_) => {
            queue.failed(key);
        }
    }
}

/// Files the turn with the flight recorder; returns what is yet to be seen.
fn file(
    flight: &FlightRecorder,
    controller: &'static str,
    key: &ObjectKey,
    wake: Wake,
    at: Timestamp,
    took: Duration,
    error: Option<&ClientError>,
    notes: Notes,
) -> Vec<turn::Unseen> {
    let Notes { object, desired, observed, actions, unseen } = notes;
    flight.record(Turn {
        number: 0,
        at,
        controller,
        object: object.unwrap_or_else(|| key.to_string()),
        woken_by: wake.to_string(),
        desired,
        observed,
        actions,
        duration_micros: took.as_micros() as u64,
        error: error.map(|error| match crate::is_conflict(error) {
            true => "somebody else wrote first, will look again".into(),
            false => crate::writer::message(error),
        }),
    });
    unseen
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    /// Fails the first `failures` turns and notes all of them.
    #[derive(Default)]
    struct Stubborn {
        failures: Mutex<u32>,
        turns: Arc<Mutex<Vec<String>>>,
        stop: CancellationToken,
    }

    impl Reconcile for Stubborn {
        async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
            self.turns.lock().unwrap().push(key.to_string());
            let mut failures = self.failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err(ClientError::TlsRequired);
            }
            turn::describe("one", "none");
            self.stop.cancel();
            Ok(Next::OnChange)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_turn_is_repeated_and_recorded() {
        let cache = Arc::new(Cache::<ConfigMap>::default());
        let mut object = ConfigMap::default();
        object.metadata.name = Some("a".into());
        cache.replace(vec![object], 1);
        let controller = Stubborn { failures: Mutex::new(2), ..Stubborn::default() };
        let (turns, stop, flight) =
            (controller.turns.clone(), controller.stop.clone(), FlightRecorder::new());
        Runner::new("stubborn", controller).watch(&cache).run(flight.clone(), stop).await;
        assert_eq!(*turns.lock().unwrap(), ["a", "a", "a"]);
        let woken: Vec<String> = flight.recent().iter().map(|turn| turn.woken_by.clone()).collect();
        assert_eq!(woken, ["ConfigMap a added", "retry", "retry"]);
        assert!(flight.recent()[0].error.is_some());
        assert_eq!(flight.recent()[2].desired, "one");
    }
}

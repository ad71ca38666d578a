//! What the reconcile shell counts, under upstream's names.
//!
//! Kept as plain atomics and written in Prometheus' text format by [`render`]: this room knows no other, so a
//! daemon that serves `/metrics` appends the text to its own.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

static QUEUES: Mutex<BTreeMap<&'static str, Arc<QueueMetrics>>> = Mutex::new(BTreeMap::new());

/// The counters of one work queue.
#[derive(Default)]
pub struct QueueMetrics {
    depth: AtomicU64,
    adds: AtomicU64,
    retries: AtomicU64,
    turns: AtomicU64,
    errors: AtomicU64,
    queued_micros: AtomicU64,
    work_micros: AtomicU64,
}

impl QueueMetrics {
    /// The counters of the queue with this name.
    pub fn of(name: &'static str) -> Arc<QueueMetrics> {
        QUEUES.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().clone()
    }

    pub(crate) fn added(&self, depth: usize) {
        self.adds.fetch_add(1, Relaxed);
        self.depth.store(depth as u64, Relaxed);
    }

    pub(crate) fn taken(&self, depth: usize, waited: Duration) {
        self.depth.store(depth as u64, Relaxed);
        self.queued_micros.fetch_add(waited.as_micros() as u64, Relaxed);
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(crate) fn worked(&self, took: Duration, failed: bool) {
        self.turns.fetch_add(1, Relaxed);
        self.errors.fetch_add(u64::from(failed), Relaxed);
        self.work_micros.fetch_add(took.as_micros() as u64, Relaxed);
    }
}

/// One metric family: name, type, help, and how a queue's sample lines read.
type Family = (&'static str, &'static str, &'static str, fn(&QueueMetrics) -> Vec<(&'static str, f64)>);

const FAMILIES: &[Family] = &[
    ("workqueue_depth", "gauge", "Current depth of workqueue", |queue| vec![("", count(&queue.depth))]),
    ("workqueue_adds_total", "counter", "Total number of adds handled by workqueue", |queue| {
        vec![("", count(&queue.adds))]
    }),
    ("workqueue_retries_total", "counter", "Total number of retries handled by workqueue", |queue| {
        vec![("", count(&queue.retries))]
    }),
    (
        "workqueue_queue_duration_seconds",
        "summary",
        "How long in seconds an item stays in workqueue before being requested",
        |queue| vec![("_sum", seconds(&queue.queued_micros)), ("_count", count(&queue.turns))],
    ),
    (
        "workqueue_work_duration_seconds",
        "summary",
        "How long in seconds processing an item from workqueue takes.",
        |queue| vec![("_sum", seconds(&queue.work_micros)), ("_count", count(&queue.turns))],
    ),
    (
        "coracle_reconcile_errors_total",
        "counter",
        "Total number of reconciliation turns that failed",
        |queue| vec![("", count(&queue.errors))],
    ),
];

/// All queues of the process in Prometheus' text format.
pub fn render() -> String {
    let queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = String::new();
    for (family, kind, help, samples) in FAMILIES {
        // Writing to a String cannot fail.
        writeln!(text, "# HELP {family} {help}\n# TYPE {family} {kind}").unwrap_or_default();
        for (name, queue) in queues.iter() {
            for (suffix, value) in samples(queue) {
                writeln!(text, "{family}{suffix}{{name=\"{name}\"}} {value}").unwrap_or_default();
            }
        }
    }
    text
}

fn count(counter: &AtomicU64) -> f64 {
    counter.load(Relaxed) as f64
}

fn seconds(micros: &AtomicU64) -> f64 {
    Duration::from_micros(micros.load(Relaxed)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_reported_under_upstream_names() {
        let queue = QueueMetrics::of("replicaset");
        queue.added(2);
        queue.worked(Duration::from_millis(1500), true);
        let text = render();
        assert!(text.contains("workqueue_depth{name=\"replicaset\"} 2\n"), "{text}");
        assert!(text.contains("workqueue_work_duration_seconds_sum{name=\"replicaset\"} 1.5\n"), "{text}");
    }
}

//! What the reconcile shell counts, under upstream's names, one series a work queue.

use std::{sync::LazyLock, time::Duration};

use daemon::metrics::prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, exponential_buckets,
    register_histogram_vec, register_int_counter_vec, register_int_gauge_vec,
};

static DEPTH: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    register_int_gauge_vec!("workqueue_depth", "Current depth of workqueue", &["name"])
        .expect("the metric is declared once")
});

static ADDS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("workqueue_adds_total", "Total number of adds handled by workqueue", "name"));

static RETRIES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("workqueue_retries_total", "Total number of retries handled by workqueue", "name")
});

static QUEUE_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    histogram(
        "workqueue_queue_duration_seconds",
        "How long in seconds an item stays in workqueue before being requested",
    )
});

static WORK_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    histogram(
        "workqueue_work_duration_seconds",
        "How long in seconds processing an item from workqueue takes.",
    )
});

static ERRORS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "controller_runtime_reconcile_errors_total",
        "Total number of reconciliation errors per controller",
        "controller",
    )
});

fn counter(name: &str, help: &str, label: &str) -> IntCounterVec {
    register_int_counter_vec!(name, help, &[label]).expect("the metric is declared once")
}

fn histogram(name: &str, help: &str) -> HistogramVec {
    // Upstream's buckets: from ten nanoseconds to ten seconds.
    let buckets = exponential_buckets(1e-8, 10.0, 10).expect("ten growing buckets");
    register_histogram_vec!(name, help, &["name"], buckets).expect("the metric is declared once")
}

/// The series of one work queue.
#[derive(Clone)]
pub(crate) struct QueueMetrics {
    depth: IntGauge,
    adds: IntCounter,
    retries: IntCounter,
    errors: IntCounter,
    queue_seconds: Histogram,
    work_seconds: Histogram,
}

impl QueueMetrics {
    /// The series of the queue with this name.
    pub(crate) fn of(name: &str) -> QueueMetrics {
        let name = &[name];
        QueueMetrics {
            depth: DEPTH.with_label_values(name),
            adds: ADDS.with_label_values(name),
            retries: RETRIES.with_label_values(name),
            errors: ERRORS.with_label_values(name),
            queue_seconds: QUEUE_SECONDS.with_label_values(name),
            work_seconds: WORK_SECONDS.with_label_values(name),
        }
    }

    pub(crate) fn added(&self, depth: usize) {
        self.adds.inc();
        self.waiting(depth);
    }

    pub(crate) fn taken(&self, depth: usize, waited: Duration) {
        self.waiting(depth);
        self.queue_seconds.observe(waited.as_secs_f64());
    }

    pub(crate) fn retried(&self) {
        self.retries.inc();
    }

    pub(crate) fn worked(&self, took: Duration, failed: bool) {
        self.work_seconds.observe(took.as_secs_f64());
        self.errors.inc_by(u64::from(failed));
    }

    fn waiting(&self, depth: usize) {
        self.depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_reported_under_upstream_names() {
        let queue = QueueMetrics::of("metrics-test");
        queue.added(2);
        queue.worked(Duration::from_millis(1500), true);
        let text = daemon::metrics::render();
        for line in [
            "workqueue_depth{name=\"metrics-test\"} 2\n",
            "workqueue_adds_total{name=\"metrics-test\"} 1\n",
            "workqueue_work_duration_seconds_sum{name=\"metrics-test\"} 1.5\n",
            "controller_runtime_reconcile_errors_total{controller=\"metrics-test\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}

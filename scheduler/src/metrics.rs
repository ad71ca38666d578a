//! What the scheduler measures, under upstream's names.

use std::sync::LazyLock;

use daemon::metrics::prometheus::{
    Histogram, IntCounterVec, IntGaugeVec, register_histogram, register_int_counter_vec,
    register_int_gauge_vec,
};

/// Decisions by result: `scheduled`, `unschedulable` or `error`.
pub(crate) static ATTEMPTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "scheduler_schedule_attempts_total",
        "Number of attempts to schedule pods, by the result.",
        &["result"]
    )
    .expect("the metric is declared once")
});

/// Seconds that one decision took.
pub(crate) static DECISION_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    register_histogram!(
        "scheduler_scheduling_algorithm_duration_seconds",
        "Scheduling algorithm latency in seconds.",
        vec![0.00001, 0.0001, 0.001, 0.01, 0.1, 1.0]
    )
    .expect("the metric is declared once")
});

/// Pods that wait, by queue: `active`, `backoff` or `unschedulable`.
pub(crate) static PENDING: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    register_int_gauge_vec!("scheduler_pending_pods", "Number of pending pods, by the queue.", &["queue"])
        .expect("the metric is declared once")
});

//! What is counted about webhooks, under upstream's names.

use std::{sync::LazyLock, time::Duration};

use daemon::metrics::prometheus::{
    HistogramVec, IntCounterVec, histogram_opts, opts, register_histogram_vec, register_int_counter_vec,
};

static DURATIONS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let buckets = vec![0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
    let help = "How long webhooks took to answer.";
    let opts = histogram_opts!("apiserver_admission_webhook_admission_duration_seconds", help, buckets);
    register_histogram_vec!(opts, &["name", "type", "operation", "rejected"]).expect("registered once")
});

static REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let opts = opts!("apiserver_admission_webhook_request_total", "Calls of webhooks.");
    register_int_counter_vec!(opts, &["name", "type", "operation", "code", "rejected"])
        .expect("registered once")
});

static REJECTIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let opts = opts!("apiserver_admission_webhook_rejection_count", "Requests that webhooks refused.");
    register_int_counter_vec!(opts, &["name", "type", "operation", "error_type", "rejection_code"])
        .expect("registered once")
});

static FAILED_OPEN: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Requests that went on although an optional webhook could not be asked.";
    let opts = opts!("apiserver_admission_webhook_fail_open_count", help);
    register_int_counter_vec!(opts, &["name", "type"]).expect("registered once")
});

/// One call of a webhook.
pub(super) struct Call<'a> {
    pub(super) webhook: &'a str,
    /// `admit` or `validating`.
    pub(super) sort: &'static str,
    pub(super) operation: &'static str,
}

/// What came of it.
pub(super) enum Outcome {
    Allowed,
    /// It said no, with this code.
    Denied(u16),
    /// It could not be asked; whether that stands in the way.
    Failed {
        is_optional: bool,
    },
    /// The server did not want to ask.
    NotAsked,
}

/// Counts a call.
pub(super) fn called(call: &Call<'_>, outcome: &Outcome, duration: Duration) {
    let Call { webhook, sort, operation } = call;
    let (code, error, rejected) = match outcome {
        Outcome::Allowed => (200, "", "false"),
        Outcome::Denied(code) => (*code, "no_error", "true"),
        Outcome::Failed { is_optional: true } => (503, "", "false"),
        Outcome::Failed { is_optional: false } => (503, "calling_webhook_error", "true"),
        Outcome::NotAsked => (0, "apiserver_internal_error", "true"),
    };
    let code: &str = &code.to_string();
    DURATIONS.with_label_values(&[webhook, sort, operation, rejected]).observe(duration.as_secs_f64());
    REQUESTS.with_label_values(&[webhook, sort, operation, code, rejected]).inc();
    if !error.is_empty() {
        REJECTIONS.with_label_values(&[webhook, sort, operation, error, code]).inc();
    }
    if matches!(outcome, Outcome::Failed { is_optional: true }) {
        FAILED_OPEN.with_label_values(&[webhook, sort]).inc();
    }
}

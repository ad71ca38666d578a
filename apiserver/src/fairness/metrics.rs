//! What fairness counts, under upstream's names.

use std::sync::LazyLock;

use daemon::metrics::prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, histogram_opts, opts,
    register_histogram_vec, register_int_counter_vec, register_int_gauge_vec,
};

const FLOW: [&str; 2] = ["priority_level", "flow_schema"];

macro_rules! gauge {
    ($static:ident, $labels:expr, $name:literal, $help:literal) => {
        static $static: LazyLock<IntGaugeVec> = LazyLock::new(|| {
            register_int_gauge_vec!(opts!(concat!("apiserver_flowcontrol_", $name), $help), $labels)
                .expect("registered once")
        });
    };
}

static DISPATCHED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let opts = opts!("apiserver_flowcontrol_dispatched_requests_total", "Requests that were served.");
    register_int_counter_vec!(opts, &FLOW).expect("registered once")
});

static REJECTED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let opts =
        opts!("apiserver_flowcontrol_rejected_requests_total", "Requests that were sent away, and why.");
    register_int_counter_vec!(opts, &["priority_level", "flow_schema", "reason"]).expect("registered once")
});

static WAITS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let buckets = vec![0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
    let name = "apiserver_flowcontrol_request_wait_duration_seconds";
    let opts = histogram_opts!(name, "How long requests waited in their queue.", buckets);
    register_histogram_vec!(opts, &["priority_level", "flow_schema", "execute"]).expect("registered once")
});

gauge!(WAITING, &FLOW, "current_inqueue_requests", "Requests that wait.");
gauge!(EXECUTING, &FLOW, "current_executing_requests", "Requests that are being served.");
gauge!(SEATS, &FLOW, "current_executing_seats", "Seats in use.");
gauge!(NOMINAL, &["priority_level"], "nominal_limit_seats", "Seats of the level's own.");
gauge!(LOWER, &["priority_level"], "lower_limit_seats", "Seats that are never lent.");
gauge!(UPPER, &["priority_level"], "upper_limit_seats", "Seats with all that may be borrowed.");
gauge!(CURRENT, &["priority_level"], "current_limit_seats", "Seats that may be in use now.");

/// What is counted of one schema; found once, so that counting costs nothing.
pub(super) struct Flow {
    pub(super) dispatched: IntCounter,
    pub(super) waiting: IntGauge,
    pub(super) executing: IntGauge,
    pub(super) seats: IntGauge,
    pub(super) waits: Histogram,
    pub(super) vain_waits: Histogram,
    level: String,
    schema: String,
}

impl Flow {
    pub(super) fn of(level: &str, schema: &str) -> Flow {
        let labels = [level, schema];
        Flow {
            dispatched: DISPATCHED.with_label_values(&labels),
            waiting: WAITING.with_label_values(&labels),
            executing: EXECUTING.with_label_values(&labels),
            seats: SEATS.with_label_values(&labels),
            waits: WAITS.with_label_values(&[level, schema, "true"]),
            vain_waits: WAITS.with_label_values(&[level, schema, "false"]),
            level: level.to_string(),
            schema: schema.to_string(),
        }
    }

    pub(super) fn rejected(&self, reason: &str) {
        REJECTED.with_label_values(&[self.level.as_str(), self.schema.as_str(), reason]).inc();
    }
}

/// Tells the limits of a level.
pub(super) fn limits(level: &str, bounds: super::share::Bounds, current: u32) {
    for (gauge, value) in
        [(&NOMINAL, bounds.nominal), (&LOWER, bounds.lower), (&UPPER, bounds.upper), (&CURRENT, current)]
    {
        gauge.with_label_values(&[level]).set(i64::from(value));
    }
}

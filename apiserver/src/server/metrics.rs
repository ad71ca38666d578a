//! What the server counts, under upstream's names.

use std::{sync::LazyLock, time::Duration};

use daemon::metrics::prometheus::{
    HistogramVec, IntCounterVec, IntGaugeVec, histogram_opts, opts, register_histogram_vec,
    register_int_counter_vec, register_int_gauge_vec,
};
use http::StatusCode;

use crate::request::RequestInfo;

static REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let labels = &["verb", "group", "version", "resource", "subresource", "code"];
    let opts =
        opts!("apiserver_request_total", "Requests, by what they asked for and how they were answered.");
    register_int_counter_vec!(opts, labels).expect("registered once")
});

static DURATIONS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let buckets = vec![
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    ];
    let help = "How long requests took until the answer began; watches and connections are left out.";
    let opts = histogram_opts!("apiserver_request_duration_seconds", help, buckets);
    register_histogram_vec!(opts, &["verb", "group", "version", "resource", "subresource"])
        .expect("registered once")
});

static IN_FLIGHT: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = opts!("apiserver_current_inflight_requests", "Requests that are being answered.");
    register_int_gauge_vec!(opts, &["request_kind"]).expect("registered once")
});

/// Counts a request for as long as it is being answered.
pub(super) struct InFlight(&'static str);

impl InFlight {
    pub(super) fn begin(info: &RequestInfo) -> InFlight {
        let kind =
            if matches!(info.verb, "get" | "list" | "watch" | "head") { "readOnly" } else { "mutating" };
        IN_FLIGHT.with_label_values(&[kind]).inc();
        InFlight(kind)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        IN_FLIGHT.with_label_values(&[self.0]).dec();
    }
}

/// Counts an answered request.
pub(super) fn record(info: &RequestInfo, code: StatusCode, duration: Duration) {
    // What does not exist must not make new series.
    let is_known = info.is_resource && code != StatusCode::NOT_FOUND;
    let of = |text: &'static str| text;
    let (group, version, resource, subresource) = match is_known {
        true => {
            (info.group.as_str(), info.version.as_str(), info.resource.as_str(), info.subresource.as_str())
        }
        false => (of(""), of(""), of(""), of("")),
    };
    let verb = upstream_verb(info.verb);
    REQUESTS.with_label_values(&[verb, group, version, resource, subresource, code.as_str()]).inc();
    if !info.is_long_running() {
        let labels = [verb, group, version, resource, subresource];
        DURATIONS.with_label_values(&labels).observe(duration.as_secs_f64());
    }
}

fn upstream_verb(verb: &str) -> &'static str {
    match verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "head" => "HEAD",
        _ => "other",
    }
}

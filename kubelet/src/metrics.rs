//! What the kubelet counts, under upstream's names.

use std::sync::LazyLock;

use std::time::Duration;

use daemon::metrics::prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder, register_int_gauge,
};

use crate::pod::view::PodView;
use crate::probe::{Answer, Probing};

/// Pods that have a worker.
pub static ACTIVE_PODS: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("kubelet_active_pods", "The number of pods the kubelet considers active.")
        .expect("the name is registered once")
});

/// What `/metrics/probes` tells: a series a probe, gone with its pod.
static PROBES: LazyLock<Probes> = LazyLock::new(Probes::new);

struct Probes {
    registry: Registry,
    total: IntCounterVec,
    seconds: HistogramVec,
}

impl Probes {
    fn new() -> Probes {
        let registry = Registry::new();
        let total = Opts::new(
            "prober_probe_total",
            "Cumulative number of a liveness, readiness or startup probe for a container by result.",
        );
        let labels = ["probe_type", "result", "container", "pod", "namespace", "pod_uid"];
        let total = IntCounterVec::new(total, &labels).expect("the labels are well formed");
        let seconds =
            HistogramOpts::new("prober_probe_duration_seconds", "Duration in seconds for a probe response.");
        let seconds = HistogramVec::new(seconds, &["probe_type", "container", "pod", "namespace"])
            .expect("the labels are well formed");
        for collector in [
            Box::new(total.clone()) as Box<dyn daemon::metrics::prometheus::core::Collector>,
            Box::new(seconds.clone()),
        ] {
            registry.register(collector).expect("the names are registered once");
        }
        Probes { registry, total, seconds }
    }
}

/// Counts one answer.
pub fn count_probe(probing: &Probing, answer: &Answer, took: Duration) {
    let (pod, container, kind) = (&probing.pod, probing.container.name.as_str(), probing.kind.as_str());
    let result = match answer {
        Answer::Success | Answer::Warning(_) => "successful",
        Answer::Failure(_) => "failed",
        Answer::Unknown(_) => "unknown",
    };
    let (name, namespace, uid) = (pod.name(), pod.namespace(), pod.uid());
    PROBES.total.with_label_values(&[kind, result, container, name, namespace, uid]).inc();
    PROBES.seconds.with_label_values(&[kind, container, name, namespace]).observe(took.as_secs_f64());
}

/// Forgets the probes of a container that is no longer asked.
pub fn forget_probe(kind: &str, container: &str, pod: &k8s_openapi::api::core::v1::Pod) {
    let (name, namespace, uid) = (pod.name(), pod.namespace(), pod.uid());
    for result in ["successful", "failed", "unknown"] {
        // A result that never came has no series.
        PROBES.total.remove_label_values(&[kind, result, container, name, namespace, uid]).ok();
    }
    PROBES.seconds.remove_label_values(&[kind, container, name, namespace]).ok();
}

/// The text of `/metrics/probes`.
pub fn render_probes() -> String {
    let mut text = String::new();
    if let Err(error) = TextEncoder::new().encode_utf8(&PROBES.registry.gather(), &mut text) {
        tracing::error!(%error, "cannot print the metrics of probes");
    }
    text
}

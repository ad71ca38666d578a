//! What the kubelet counts, under upstream's names.

use std::sync::LazyLock;

use daemon::metrics::prometheus::{IntGauge, register_int_gauge};

/// Pods that have a worker.
pub static ACTIVE_PODS: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("kubelet_active_pods", "The number of pods the kubelet considers active.")
        .expect("the name is registered once")
});

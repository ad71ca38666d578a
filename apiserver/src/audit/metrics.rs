//! What the audit log counts, under upstream's names.

use std::sync::LazyLock;

use daemon::metrics::prometheus::{IntCounter, register_int_counter};

/// Events that were made.
pub(super) static EVENTS: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("apiserver_audit_event_total", "Audit events that were made.")
        .expect("registered once")
});

/// Events that did not reach the log.
pub(super) static LOST: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("apiserver_audit_error_total", "Audit events that could not be written.")
        .expect("registered once")
});

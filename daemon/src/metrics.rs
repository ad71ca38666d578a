//! Metrics of this process, in the Prometheus text format.
//!
//! Each room declares its own in a `metrics.rs` with the macros of the `prometheus` crate
//! (`register_int_counter_vec!` and so on), under upstream's names where they exist; all of them meet in the
//! process's one registry, which [`render`] prints.

pub use prometheus;

/// The content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Everything measured so far.
pub fn render() -> String {
    let mut text = String::new();
    let encoder = prometheus::TextEncoder::new();
    if let Err(error) = encoder.encode_utf8(&prometheus::gather(), &mut text) {
        tracing::error!(%error, "cannot print the metrics");
    }
    text
}

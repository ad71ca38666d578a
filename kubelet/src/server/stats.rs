//! `/stats/summary`: what pods use, as the runtime counts it.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use cri::v1::{ContainerStats, CpuUsage, ListContainerStatsRequest, MemoryUsage};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Api, Refusal};
use crate::container::labels;

pub(super) async fn summary(State(api): State<Api>) -> Result<Response, Refusal> {
    let stats = api.context.runtime.list_container_stats(ListContainerStatsRequest::default()).await;
    let stats = stats.map_err(|error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.message))?.stats;
    let node = &api.context.config.node_name;
    Ok(super::json(&json!({ "node": { "nodeName": node }, "pods": pods(stats) })))
}

/// The containers' figures, gathered by pod.
fn pods(stats: Vec<ContainerStats>) -> Vec<Value> {
    let mut by_pod: BTreeMap<[String; 3], Vec<Value>> = BTreeMap::new();
    for container in stats {
        let Some(attributes) = container.attributes else { continue };
        let label = |name: &str| attributes.labels.get(name).cloned().unwrap_or_default();
        let pod = [label(labels::POD_NAMESPACE), label(labels::POD_NAME), label(labels::POD_UID)];
        let figures = json!({
            "name": label(labels::CONTAINER_NAME),
            "cpu": container.cpu.as_ref().map(cpu),
            "memory": container.memory.as_ref().map(memory),
        });
        by_pod.entry(pod).or_default().push(figures);
    }
    by_pod
        .into_iter()
        .map(|([namespace, name, uid], containers)| {
            json!({ "podRef": { "name": name, "namespace": namespace, "uid": uid }, "containers": containers })
        })
        .collect()
}

fn cpu(usage: &CpuUsage) -> Value {
    json!({
        "time": time(usage.timestamp),
        "usageNanoCores": usage.usage_nano_cores.map(|value| value.value),
        "usageCoreNanoSeconds": usage.usage_core_nano_seconds.map(|value| value.value),
    })
}

fn memory(usage: &MemoryUsage) -> Value {
    json!({
        "time": time(usage.timestamp),
        "workingSetBytes": usage.working_set_bytes.map(|value| value.value),
        "usageBytes": usage.usage_bytes.map(|value| value.value),
        "rssBytes": usage.rss_bytes.map(|value| value.value),
    })
}

fn time(nanoseconds: i64) -> String {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default().to_string()
}

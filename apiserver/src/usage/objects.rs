//! NodeMetrics and PodMetrics, written as metrics-server writes them. Pure.

use api::Object;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    GROUP, Pair,
    rate::{self, Rate},
};

/// What a node uses.
pub(super) fn of_node(node: &Object, (older, newer): &Pair) -> Option<Object> {
    let rate = rate::between(Some(&older.node), &newer.node)?;
    let mut metrics = metrics("NodeMetrics", node, &rate);
    metrics.insert("usage".into(), usage(&rate));
    Some(Object(metrics))
}

/// What the containers of a pod use.
pub(super) fn of_pod(pod: &Object, (older, newer): &Pair) -> Option<Object> {
    let (mut containers, mut last) = (Vec::new(), None);
    for container in pod.list(&["status", "containerStatuses"]) {
        let name = container["name"].as_str().unwrap_or_default();
        let key = [pod.namespace(), pod.name(), name].map(String::from);
        let Some(point) = newer.containers.get(&key) else { continue };
        let Some(rate) = rate::between(older.containers.get(&key), point) else { continue };
        containers.push(json!({"name": name, "usage": usage(&rate)}));
        last = Some(rate);
    }
    let mut metrics = metrics("PodMetrics", pod, &last?);
    metrics.insert("containers".into(), containers.into());
    Some(Object(metrics))
}

fn metrics(kind: &str, of: &Object, rate: &Rate) -> Map<String, Value> {
    let time = Timestamp::from_millisecond((rate.time * 1000.0) as i64).unwrap_or_default();
    let mut metadata = json!({"name": of.name(), "creationTimestamp": api::time::format(time)});
    if !of.namespace().is_empty() {
        metadata["namespace"] = of.namespace().into();
    }
    if let Some(labels) = of.labels() {
        metadata["labels"] = labels.clone().into();
    }
    let value = json!({
        "kind": kind,
        "apiVersion": format!("{GROUP}/v1beta1"),
        "metadata": metadata,
        "timestamp": api::time::format(time),
        "window": duration(rate.window),
    });
    Object::from_value(value).expect("a map").0
}

fn usage(rate: &Rate) -> Value {
    json!({"cpu": format!("{}n", rate.nanocores), "memory": format!("{}Ki", rate.memory_bytes / 1024)})
}

/// A duration as Go prints it: `1m10.5s`.
fn duration(seconds: f64) -> String {
    let milliseconds = (seconds * 1000.0).round() as u64;
    let (minutes, rest) = (milliseconds / 60_000, milliseconds % 60_000);
    let rest = rest as f64 / 1000.0;
    if minutes > 0 { format!("{minutes}m{rest}s") } else { format!("{rest}s") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::sample::Sample, *};

    fn samples() -> Pair {
        let page = |cpu: &str, time: &str| {
            let labels = r#"{container="c",namespace="shop",pod="web"}"#;
            let lines = [
                format!("container_cpu_usage_seconds_total{labels} {cpu} {time}"),
                format!("container_memory_working_set_bytes{labels} 2097152 {time}"),
                format!("node_cpu_usage_seconds_total {cpu} {time}"),
                "node_memory_working_set_bytes 1048576".to_string(),
            ];
            Arc::new(Sample::parse(&lines.join("\n"), Timestamp::UNIX_EPOCH))
        };
        (page("1", "1700000000000"), page("1.25", "1700000010000"))
    }

    #[test]
    fn a_pod_is_shown_with_its_containers() {
        let pod = Object::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
            "status": {"containerStatuses": [{"name": "c"}, {"name": "gone"}]},
        }))
        .unwrap();
        let expected = json!({
            "kind": "PodMetrics",
            "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {
                "name": "web",
                "namespace": "shop",
                "labels": {"app": "web"},
                "creationTimestamp": "2023-11-14T22:13:30Z",
            },
            "timestamp": "2023-11-14T22:13:30Z",
            "window": "10s",
            "containers": [{"name": "c", "usage": {"cpu": "25000000n", "memory": "2048Ki"}}],
        });
        assert_eq!(of_pod(&pod, &samples()).unwrap().into_value(), expected);
    }

    #[test]
    fn a_node_is_shown_as_a_whole() {
        let node = Object::from_value(json!({"metadata": {"name": "n"}})).unwrap();
        let metrics = of_node(&node, &samples()).unwrap();
        assert_eq!(metrics.at(&["usage"]), Some(&json!({"cpu": "25000000n", "memory": "1024Ki"})));
        assert_eq!([1.0, 10.0625, 75.5].map(duration), ["1s", "10.063s", "1m15.5s"]);
    }
}

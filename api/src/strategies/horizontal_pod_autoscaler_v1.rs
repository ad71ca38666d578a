//! HorizontalPodAutoscalers of `autoscaling/v1`, which are stored as v2.
//!
//! v1 knows one metric, the use of CPU. Whatever else v2 has travels in annotations, in the form that
//! upstream gives it there, so that a v1 client which reads and writes an object loses nothing.

use serde_json::{Map, Value, json};

use super::{fill::Fill, horizontal_pod_autoscaler as v2};
use crate::{FieldError, Object};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const MEASURED: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// What v1 aims at when nothing is said.
const USUAL_USE: i64 = 80;

/// Rules of HorizontalPodAutoscalers of v1: those of v2 on the same object.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn set_defaults(&self, object: &mut Object) {
        let has_others = object.annotation(METRICS).is_some();
        let spec = object.map_mut(&["spec"]);
        spec.fill("minReplicas", 1);
        if !has_others {
            spec.fill("targetCPUUtilizationPercentage", USUAL_USE);
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], json!({"currentReplicas": 0, "desiredReplicas": 0}));
        for hidden in [MEASURED, CONDITIONS] {
            take_annotation(object, hidden);
        }
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut object = object.clone();
        to_v2(&mut object);
        v2::Strategy.validate(&object, old)
    }

    fn validate_status(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        v2::Strategy.validate_status(object, old)
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// The object as v2 has it; its `apiVersion` stays.
pub fn to_v2(object: &mut Object) {
    let mut metrics = annotated_list(object, METRICS, |metric| metric_to_v2(metric, "target"));
    if let Some(share) = object.remove(&["spec", "targetCPUUtilizationPercentage"]) {
        let target = json!({"type": "Utilization", "averageUtilization": share});
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    if !metrics.is_empty() {
        object.set(&["spec", "metrics"], metrics);
    }
    if let Some(behavior) = annotated(object, BEHAVIOR) {
        object.set(&["spec", "behavior"], behavior);
    }
    let mut measured = annotated_list(object, MEASURED, |metric| metric_to_v2(metric, "current"));
    if let Some(share) = object.remove(&["status", "currentCPUUtilizationPercentage"]) {
        let current = json!({"averageUtilization": share});
        measured.push(json!({"type": "Resource", "resource": {"name": "cpu", "current": current}}));
    }
    if object.at(&["status"]).is_some() {
        let measured = if measured.is_empty() { Value::Null } else { measured.into() };
        object.set(&["status", "currentMetrics"], measured);
    }
    if let Some(conditions) = annotated(object, CONDITIONS) {
        object.set(&["status", "conditions"], conditions);
    }
}

/// The object as v1 has it; its `apiVersion` stays.
pub fn to_v1(object: &mut Object) {
    let mut others = Vec::new();
    for metric in taken_list(object, &["spec", "metrics"]) {
        match metric.pointer("/resource/target/averageUtilization") {
            Some(share) if is_cpu(&metric) => {
                let share = share.clone();
                object.set(&["spec", "targetCPUUtilizationPercentage"], share);
            }
            _ => others.push(metric_to_v1(metric, "target")),
        }
    }
    annotate(object, METRICS, others);
    let mut measured = Vec::new();
    for metric in taken_list(object, &["status", "currentMetrics"]) {
        let share = metric.pointer("/resource/current/averageUtilization").cloned();
        if let Some(share) = share.filter(|_| is_cpu(&metric)) {
            object.set(&["status", "currentCPUUtilizationPercentage"], share);
        }
        // All of them: only here stands the use as an amount.
        measured.push(metric_to_v1(metric, "current"));
    }
    annotate(object, MEASURED, measured);
    let conditions = taken_list(object, &["status", "conditions"]);
    annotate(object, CONDITIONS, conditions);
    if let Some(behavior) = object.remove(&["spec", "behavior"]) {
        object.set(&["metadata", "annotations", BEHAVIOR], behavior.to_string());
    }
    if object.at(&["status"]).is_some() {
        object.set_if_absent(&["status", "currentReplicas"], 0);
        object.set_if_absent(&["status", "desiredReplicas"], 0);
    }
}

fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

/// Where the parts of each source of metrics are: v1's name, v2's path. `aim` is `target` in a spec and
/// `current` in a status.
fn parts(source: &str, aim: &'static str) -> Vec<(String, [&'static str; 2])> {
    let mut parts = Vec::new();
    let mut part = |name: &str, path: [&'static str; 2]| parts.push((name.to_string(), path));
    if matches!(source, "pods" | "object" | "external") {
        part("metricName", ["metric", "name"]);
        part(if source == "external" { "metricSelector" } else { "selector" }, ["metric", "selector"]);
    }
    if matches!(source, "object" | "external") {
        part(&format!("{aim}Value"), [aim, "value"]);
    }
    match source {
        "object" => part("averageValue", [aim, "averageValue"]),
        _ => part(&format!("{aim}AverageValue"), [aim, "averageValue"]),
    }
    if matches!(source, "resource" | "containerResource") {
        part(&format!("{aim}AverageUtilization"), [aim, "averageUtilization"]);
    }
    parts
}

fn metric_to_v2(metric: Value, aim: &'static str) -> Value {
    renamed(metric, |source, given| {
        // `target` is the object that is measured in v1, and the aim in v2.
        if let Some(described) = given.0.remove("target") {
            given.set(&["describedObject"], described);
        }
        for (name, path) in parts(source, aim) {
            if let Some(value) = given.0.remove(&name) {
                given.set(&path, value);
            }
        }
        if aim == "target" {
            let kinds =
                [("averageUtilization", "Utilization"), ("averageValue", "AverageValue"), ("value", "Value")];
            let kind = kinds.iter().find(|(field, _)| given.at(&[aim, field]).is_some());
            given.set(&[aim, "type"], kind.map_or("", |(_, kind)| *kind));
        }
    })
}

fn metric_to_v1(metric: Value, aim: &'static str) -> Value {
    renamed(metric, |source, given| {
        for (name, path) in parts(source, aim) {
            if let Some(value) = given.remove(&path) {
                given.set(&[&name], value);
            }
        }
        given.0.remove(aim);
        given.0.remove("metric");
        if let Some(described) = given.0.remove("describedObject") {
            given.set(&["target"], described);
        }
    })
}

/// The metric with its source changed.
fn renamed(mut metric: Value, change: impl FnOnce(&str, &mut Object)) -> Value {
    let source = match metric["type"].as_str() {
        Some("ContainerResource") => "containerResource",
        Some("External") => "external",
        Some("Object") => "object",
        Some("Pods") => "pods",
        _ => "resource",
    };
    if let Some(Value::Object(given)) = metric.get_mut(source) {
        let mut object = Object(std::mem::take(given));
        change(source, &mut object);
        *given = object.0;
    }
    metric
}

fn taken_list(object: &mut Object, path: &[&str]) -> Vec<Value> {
    match object.remove(path) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn annotate(object: &mut Object, key: &str, items: Vec<Value>) {
    if !items.is_empty() {
        object.set(&["metadata", "annotations", key], Value::from(items).to_string());
    }
}

/// The value of an annotation, taken off; nothing when it is no JSON.
fn annotated(object: &mut Object, key: &str) -> Option<Value> {
    serde_json::from_str(&take_annotation(object, key)?).ok()
}

fn annotated_list(object: &mut Object, key: &str, change: impl Fn(Value) -> Value) -> Vec<Value> {
    match annotated(object, key) {
        Some(Value::Array(items)) => items.into_iter().map(change).collect(),
        _ => Vec::new(),
    }
}

fn take_annotation(object: &mut Object, key: &str) -> Option<String> {
    let taken = object.remove(&["metadata", "annotations", key])?;
    if object.at(&["metadata", "annotations"]).and_then(Value::as_object).is_some_and(Map::is_empty) {
        object.remove(&["metadata", "annotations"]);
    }
    taken.as_str().map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy as _;

    #[test]
    fn the_use_of_cpu_is_a_field_of_its_own() {
        let mut object = Object::from_value(json!({"metadata": {"name": "h"}, "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 3,
        }}))
        .unwrap();
        Strategy.set_defaults(&mut object);
        assert_eq!(Strategy.validate(&object, None), []);
        let before = object.clone();
        to_v2(&mut object);
        assert_eq!(
            object.at(&["spec", "metrics"]),
            Some(&json!([{"type": "Resource", "resource":
                {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]))
        );
        to_v1(&mut object);
        assert_eq!(object, before);
    }

    #[test]
    fn nothing_is_lost_on_the_way_through_v1() {
        let mut object = Object::from_value(json!({
            "metadata": {"name": "h"},
            "spec": {"minReplicas": 1, "maxReplicas": 3, "behavior": {"scaleUp": {"selectPolicy": "Max"}}, "metrics": [
                {"type": "Pods", "pods": {"metric": {"name": "rate", "selector": {"matchLabels": {"a": "b"}}},
                    "target": {"type": "AverageValue", "averageValue": "10"}}},
                {"type": "Object", "object": {"describedObject": {"kind": "Ingress", "name": "i"},
                    "metric": {"name": "hits"}, "target": {"type": "Value", "value": "2k"}}},
                {"type": "External", "external": {"metric": {"name": "queue"},
                    "target": {"type": "AverageValue", "averageValue": "30"}}},
                {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c",
                    "target": {"type": "Utilization", "averageUtilization": 60}}},
                {"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 50}}},
            ]},
            "status": {"currentReplicas": 1, "desiredReplicas": 2,
                "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Pods", "pods": {"metric": {"name": "rate"},
                    "current": {"averageValue": "7"}}}]},
        }))
        .unwrap();
        let before = object.clone();
        to_v1(&mut object);
        assert_eq!(object.number(&["spec", "targetCPUUtilizationPercentage"]), Some(50));
        let metrics: Value = serde_json::from_str(object.annotation(METRICS).unwrap()).unwrap();
        assert_eq!(
            metrics[1],
            json!({"type": "Object", "object": {"target": {"kind": "Ingress", "name": "i"},
                "metricName": "hits", "targetValue": "2k"}})
        );
        assert!(object.at(&["spec", "metrics"]).is_none());
        to_v2(&mut object);
        assert_eq!(object, before);
    }
}

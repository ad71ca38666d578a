//! HorizontalPodAutoscalers.

use serde_json::{Map, Value, json};

use super::check::{Faults, Field};
use super::fill::Fill;
use super::{label_selector, resources};
use crate::{FieldError, Object, name};

/// Rules of HorizontalPodAutoscalers.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn set_defaults(&self, object: &mut Object) {
        let spec = object.map_mut(&["spec"]);
        spec.fill("minReplicas", 1);
        if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            let cpu = json!([{
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
            }]);
            spec.insert("metrics".into(), cpu);
        }
        if let Some(behavior) = spec.map_at("behavior") {
            let double = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
            let four = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
            set_rules(behavior, "scaleUp", json!([four, double]));
            set_rules(behavior, "scaleDown", json!([double]));
            // How long to wait before scaling down is the controller's own default.
            behavior.map_made("scaleUp").fill("stabilizationWindowSeconds", 0);
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], json!({"currentMetrics": null, "desiredReplicas": 0}));
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        let (least, most) = (spec.get("minReplicas"), spec.get("maxReplicas"));
        if least.number().is_some_and(|number| number < 1) {
            faults.invalid(&least, "must be greater than or equal to 1");
        }
        if most.number().unwrap_or_default() < 1 {
            faults.invalid(&most, "must be greater than 0");
        } else if least.number() > most.number() {
            faults.invalid(&most, "must be greater than or equal to `minReplicas`");
        }
        let target = spec.get("scaleTargetRef");
        for name in ["kind", "name"] {
            faults.must_keep(&target.get(name), name::path_segment);
        }
        for metric in spec.get("metrics").items() {
            validate_metric(&metric, &mut faults);
        }
        for direction in ["scaleUp", "scaleDown"] {
            let rules = spec.get("behavior").get(direction);
            if rules.is_set() {
                validate_scaling(&rules, &mut faults);
            }
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

fn set_rules(behavior: &mut Map<String, Value>, direction: &str, policies: Value) {
    let rules = behavior.map_made(direction);
    rules.fill("selectPolicy", "Max");
    rules.fill("policies", policies);
}

fn validate_metric(metric: &Field, faults: &mut Faults) {
    let kind = metric.get("type");
    let source = match kind.text() {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "External" => "external",
        "ContainerResource" => "containerResource",
        "" => return faults.required(&kind, "must specify a metric source type"),
        _ => {
            let kinds = ["ContainerResource", "External", "Object", "Pods", "Resource"];
            return faults.not_supported(&kind, &kinds);
        }
    };
    let given = metric.get(source);
    if !given.is_set() {
        let text = "must populate information for the given metric source";
        faults.required(&given, text);
        return;
    }
    validate_source(&given, kind.text(), faults);
    let target = given.get("target");
    faults.must_be_one_of(&target.get("type"), &["AverageValue", "Utilization", "Value"]);
    if target.get("averageUtilization").number().is_some_and(|share| share < 1) {
        faults.invalid(&target.get("averageUtilization"), "must be greater than 0");
    }
}

/// What a source must say: what is measured, and one target of a sort that fits it.
fn validate_source(source: &Field, kind: &str, faults: &mut Faults) {
    if kind == "Object" {
        for name in ["kind", "name"] {
            faults.must_keep(&source.get("describedObject").get(name), name::path_segment);
        }
    }
    let target = source.get("target");
    let [share, average, value] =
        ["averageUtilization", "averageValue", "value"].map(|name| target.get(name));
    match kind {
        "Resource" | "ContainerResource" => {
            if source.get("name").text().is_empty() {
                faults.required(&source.get("name"), "must specify a resource name");
            }
            if kind == "ContainerResource" && source.get("container").text().is_empty() {
                faults.required(&source.get("container"), "must specify a container");
            }
            match (share.is_set(), average.is_set()) {
                (false, false) => {
                    faults.required(&share, "must set either a target raw value or a target utilization");
                }
                (true, true) => {
                    faults
                        .forbidden(&average, "may not set both a target raw value and a target utilization");
                }
                _ => {}
            }
        }
        "Pods" => {
            validate_metric_name(source, faults);
            if !average.is_set() {
                faults.required(&average, "must specify a positive target averageValue");
            }
        }
        _ => {
            validate_metric_name(source, faults);
            match (value.is_set(), average.is_set(), kind) {
                (false, false, "External") => {
                    let text = "must set either a target value for metric or a per-pod target";
                    faults.required(&average, text);
                }
                (false, false, _) => {
                    faults.required(&average, "must set either a target value or averageValue");
                }
                (true, true, "External") => {
                    let text = "may not set both a target value for metric and a per-pod target";
                    faults.forbidden(&value, text);
                }
                _ => {}
            }
        }
    }
    for amount in [&average, &value] {
        if amount.is_set() && !resources::is_positive(amount.value) {
            faults.invalid(amount, "must be positive");
        }
    }
}

fn validate_metric_name(source: &Field, faults: &mut Faults) {
    let metric = source.get("metric");
    let name = metric.get("name");
    if name.text().is_empty() {
        faults.required(&name, "must specify a metric name");
    } else {
        faults.keeps(&name, name::path_segment);
    }
    label_selector::validate(&metric.get("selector"), faults);
}

/// How fast replicas may come and go.
fn validate_scaling(rules: &Field, faults: &mut Faults) {
    const LONGEST_WINDOW: i64 = 3600;
    const LONGEST_PERIOD: i64 = 1800;
    let window = rules.get("stabilizationWindowSeconds");
    match window.number() {
        Some(seconds) if seconds < 0 => faults.invalid(&window, "must be greater than or equal to zero"),
        Some(seconds) if seconds > LONGEST_WINDOW => {
            faults.invalid(&window, format!("must be less than or equal to {LONGEST_WINDOW}"));
        }
        _ => {}
    }
    faults.one_of(&rules.get("selectPolicy"), &["Disabled", "Max", "Min"]);
    let policies = rules.get("policies");
    if policies.is_empty() {
        faults.required(&policies, "must specify at least one Policy");
    }
    for policy in policies.items() {
        if !matches!(policy.get("type").text(), "Percent" | "Pods") {
            faults.not_supported(&policy.get("type"), &["Percent", "Pods"]);
        }
        for name in ["value", "periodSeconds"] {
            if policy.get(name).number().unwrap_or_default() <= 0 {
                faults.invalid(&policy.get(name), "must be greater than zero");
            }
        }
        if policy.get("periodSeconds").number().is_some_and(|seconds| seconds > LONGEST_PERIOD) {
            let text = format!("must be less than or equal to {LONGEST_PERIOD}");
            faults.invalid(&policy.get("periodSeconds"), text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy as _;

    fn told(metrics: Value, behavior: Value) -> Vec<String> {
        let mut object = Object::from_value(json!({"spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "maxReplicas": 3, "metrics": metrics, "behavior": behavior,
        }}))
        .unwrap();
        Strategy.set_defaults(&mut object);
        Strategy.validate(&object, None).iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn a_metric_has_one_target_that_fits_it() {
        let fine = json!([
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
            {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "30"}}},
        ]);
        assert_eq!(told(fine, json!({"scaleUp": {"stabilizationWindowSeconds": 5}})), [""; 0]);
        let wrong = json!([
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}},
            {"type": "Pods", "pods": {"metric": {"name": ""}, "target": {"type": "AverageValue", "averageValue": "0"}}},
        ]);
        assert_eq!(
            told(
                wrong,
                json!({"scaleDown": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 1801}]}})
            ),
            [
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
                "spec.metrics[1].pods.metric.name: Required value: must specify a metric name",
                "spec.metrics[1].pods.target.averageValue: Invalid value: \"0\": must be positive",
                "spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            ]
        );
    }
}

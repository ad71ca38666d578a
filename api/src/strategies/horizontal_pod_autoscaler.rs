//! HorizontalPodAutoscalers.

use serde_json::{Map, Value, json};

use super::check::{Faults, Field};
use super::fill::Fill;
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
    let target = given.get("target");
    faults.must_be_one_of(&target.get("type"), &["AverageValue", "Utilization", "Value"]);
    if target.get("averageUtilization").number().is_some_and(|share| share < 1) {
        faults.invalid(&target.get("averageUtilization"), "must be greater than 0");
    }
}

//! HorizontalPodAutoscalers.

use serde_json::{Map, Value, json};

use super::check::{Faults, Field};
use super::fill::Fill;
use super::{label_selector, resources, status};
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

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        let before = old.map_or(Field::NOTHING, |old| Field::at(old, &["spec"]));
        validate_numbers(&spec, &before, &mut faults);
        validate_target(&spec.get("scaleTargetRef"), &before.get("scaleTargetRef"), &mut faults);
        let has_bad_version = |metric: Field| {
            api_version_fault(&metric.get("object").get("describedObject").get("apiVersion"), true).is_some()
        };
        let tolerates_versions = before.get("metrics").items().any(has_bad_version);
        let metrics = spec.get("metrics");
        for metric in metrics.items() {
            validate_metric(&metric, tolerates_versions, &mut faults);
        }
        // Without pods there is nothing to measure but what lies outside of them.
        let is_outside = |metric: Field| matches!(metric.get("type").text(), "Object" | "External");
        if spec.get("minReplicas").number() == Some(0) && !metrics.items().any(is_outside) {
            let detail =
                "must specify at least one Object or External metric to support scaling to zero replicas";
            faults.forbidden(&metrics, detail);
        }
        for direction in ["scaleUp", "scaleDown"] {
            let rules = spec.get("behavior").get(direction);
            if rules.is_set() {
                validate_scaling(&rules, &mut faults);
            }
        }
        faults.0
    }

    fn validate_status(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        status::counted(object, &["currentReplicas", "desiredReplicas"]).0
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

fn validate_numbers(spec: &Field, before: &Field, faults: &mut Faults) {
    let (least, most) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    // Who could be scaled to nothing before may still be.
    let lowest = i64::from(before.get("minReplicas").number() != Some(0));
    if least.number().is_some_and(|number| number < lowest) {
        faults.invalid(&least, format!("must be greater than or equal to {lowest}"));
    }
    if most.number().unwrap_or_default() < 1 {
        faults.invalid(&most, "must be greater than 0");
    }
    if least.number().is_some_and(|least| most.number().unwrap_or_default() < least) {
        faults.invalid(&most, "must be greater than or equal to `minReplicas`");
    }
}

/// What is scaled. Its version is a matter of those who change it.
fn validate_target(target: &Field, before: &Field, faults: &mut Faults) {
    validate_reference(target, faults);
    let stays = ["apiVersion", "kind"].iter().all(|name| target.get(name).text() == before.get(name).text());
    let may_be_core = target.get("kind").text() == "ReplicationController";
    if !stays && let Some(why) = api_version_fault(&target.get("apiVersion"), may_be_core) {
        faults.invalid(&target.get("apiVersion"), why);
    }
}

fn validate_reference(reference: &Field, faults: &mut Faults) {
    for name in ["kind", "name"] {
        faults.must_keep(&reference.get(name), name::path_segment);
    }
}

/// What is wrong with a group and version.
fn api_version_fault(version: &Field, may_be_core: bool) -> Option<String> {
    match version.text().matches('/').count() {
        _ if version.text() == "/" && may_be_core => None,
        0 if may_be_core => None,
        1 if may_be_core || !version.text().starts_with('/') => None,
        0 | 1 => Some("apiVersion must specify API group".into()),
        _ => Some(format!("unexpected GroupVersion string: {}", version.text())),
    }
}

/// The sorts of metrics, and the field that each fills.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

fn validate_metric(metric: &Field, tolerates_versions: bool, faults: &mut Faults) {
    let kind = metric.get("type");
    if kind.text().is_empty() {
        faults.required(&kind, "must specify a metric source type");
    }
    let meant = SOURCES.iter().find(|(sort, _)| *sort == kind.text());
    if meant.is_none() {
        let kinds = SOURCES.map(|(sort, _)| sort);
        faults.not_supported(&Field { value: &Value::from(kind.text()), ..kind }, &kinds);
    }
    let given: Vec<&(&str, &str)> =
        SOURCES.iter().filter(|(_, source)| metric.get(source).is_set()).collect();
    if let Some((sort, source)) = given.first() {
        validate_source(&metric.get(source), sort, tolerates_versions, faults);
    }
    if let Some((_, source)) = meant
        && !metric.get(source).is_set()
    {
        faults.required(&metric.get(source), "must populate information for the given metric source");
    }
    if given.len() > 1 {
        for other in given.into_iter().filter(|other| Some(*other) != meant) {
            faults.forbidden(&metric.get(other.1), "must populate the given metric source only");
        }
    }
}

/// What a source must say: what is measured, and one target of a sort that fits it.
fn validate_source(source: &Field, kind: &str, tolerates_versions: bool, faults: &mut Faults) {
    let target = source.get("target");
    let [share, average, value] =
        ["averageUtilization", "averageValue", "value"].map(|name| target.get(name));
    let is_of_resource = matches!(kind, "Resource" | "ContainerResource");
    if is_of_resource {
        validate_measured_resource(source, kind, faults);
    } else {
        if kind == "Object" {
            let described = source.get("describedObject");
            validate_reference(&described, faults);
            let version = described.get("apiVersion");
            if let Some(why) = api_version_fault(&version, true).filter(|_| !tolerates_versions) {
                faults.invalid(&version, why);
            }
        }
        validate_metric_name(source, faults);
    }
    validate_amounts(&target, faults);
    match (share.is_set(), average.is_set(), value.is_set()) {
        (false, false, _) if is_of_resource => {
            faults.required(&share, "must set either a target raw value or a target utilization");
        }
        (true, true, _) if is_of_resource => {
            faults.forbidden(&average, "may not set both a target raw value and a target utilization");
        }
        (_, false, _) if kind == "Pods" => {
            faults.required(&average, "must specify a positive target averageValue");
        }
        (_, false, false) if kind == "External" => {
            faults.required(&average, "must set either a target value for metric or a per-pod target");
        }
        (_, false, false) if kind == "Object" => {
            faults.required(&average, "must set either a target value or averageValue");
        }
        (_, true, true) if kind == "External" => {
            faults.forbidden(&value, "may not set both a target value for metric and a per-pod target");
        }
        _ => {}
    }
}

fn validate_measured_resource(source: &Field, kind: &str, faults: &mut Faults) {
    let (name, container) = (source.get("name"), source.get("container"));
    let is_of_container = kind == "ContainerResource";
    if name.text().is_empty() {
        faults.required(&name, "must specify a resource name");
    } else if is_of_container {
        resources::validate_container_resource(name.text(), &name.path, faults);
    }
    if is_of_container && container.text().is_empty() {
        faults.required(&container, "must specify a container");
    } else if is_of_container {
        faults.keeps(&container, name::dns_label);
    }
}

fn validate_amounts(target: &Field, faults: &mut Faults) {
    let kind = target.get("type");
    if kind.text().is_empty() {
        faults.required(&kind, "must specify a metric target type");
    }
    if !matches!(kind.text(), "Utilization" | "Value" | "AverageValue") {
        let found = Value::from(kind.text());
        faults
            .invalid(&Field { value: &found, ..kind }, "must be either Utilization, Value, or AverageValue");
    }
    for amount in [target.get("value"), target.get("averageValue")] {
        if amount.is_set() && !resources::is_positive(amount.value) {
            faults.invalid(&amount, "must be positive");
        }
    }
    let share = target.get("averageUtilization");
    if share.number().is_some_and(|share| share < 1) {
        faults.invalid(&share, "must be greater than 0");
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
    if rules.get("tolerance").is_set() {
        resources::validate_quantity(&rules.get("tolerance"), faults);
    }
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

    /// A metric and what is told of it.
    fn cases() -> Vec<(Value, Vec<&'static str>)> {
        let utilization = json!({"type": "Utilization", "averageUtilization": 60});
        let value = json!({"type": "Value", "value": "30"});
        let average = json!({"type": "AverageValue", "averageValue": "3"});
        let both = json!({"type": "Value", "value": "30", "averageValue": "3"});
        let queue = json!({"name": "queue"});
        vec![
            (json!({"type": "Resource", "resource": {"name": "cpu", "target": utilization}}), vec![]),
            (json!({"type": "External", "external": {"metric": queue, "target": value}}), vec![]),
            (json!({"type": "Pods", "pods": {"metric": queue, "target": average}}), vec![]),
            (
                json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "app", "target": utilization}}),
                vec![],
            ),
            (
                json!({"type": "ContainerResource", "containerResource": {"name": "speed", "container": "App", "target": {}}}),
                vec![
                    "containerResource.name: Invalid value: \"speed\": must be a standard resource type or fully qualified",
                    "containerResource.name: Invalid value: \"speed\": must be a standard resource for containers",
                    "containerResource.container: Invalid value: \"App\": a lowercase RFC 1123 label must consist of",
                    "containerResource.target.type: Required value: must specify a metric target type",
                    "containerResource.target.type: Invalid value: \"\": must be either Utilization, Value, or AverageValue",
                    "containerResource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
                ],
            ),
            (
                json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}),
                vec![
                    "resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
                ],
            ),
            (
                json!({"type": "Pods", "pods": {"metric": {"name": ""}, "target": {"type": "AverageValue", "averageValue": "0"}}}),
                vec![
                    "pods.metric.name: Required value: must specify a metric name",
                    "pods.target.averageValue: Invalid value: \"0\": must be positive",
                ],
            ),
            (
                json!({"type": "External", "external": {"metric": {"name": "q", "selector": {"matchLabels": {"a b": "c"}}}, "target": both}}),
                vec![
                    "external.metric.selector.matchLabels: Invalid value: \"a b\"",
                    "external.target.value: Forbidden: may not set both a target value for metric and a per-pod target",
                ],
            ),
            (
                json!({"type": "Object", "object": {"describedObject": {"kind": "Ingress", "name": "main", "apiVersion": "a/b/c"}, "metric": queue, "target": {"type": "Percent"}}}),
                vec![
                    "object.describedObject.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                    "object.target.type: Invalid value: \"Percent\": must be either Utilization, Value, or AverageValue",
                    "object.target.averageValue: Required value: must set either a target value or averageValue",
                ],
            ),
            (
                json!({"type": "Pods", "resource": {"name": "cpu", "target": utilization}, "external": {"metric": queue, "target": value}}),
                vec![
                    "pods: Required value: must populate information for the given metric source",
                    "external: Forbidden: must populate the given metric source only",
                    "resource: Forbidden: must populate the given metric source only",
                ],
            ),
            (
                json!({"type": "Weather"}),
                vec![
                    "type: Unsupported value: \"Weather\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
                ],
            ),
        ]
    }

    #[test]
    fn a_metric_has_one_source_and_a_target_that_fits_it() {
        for (metric, expected) in cases() {
            let told = told(json!([metric]), json!({}));
            assert_eq!(told.len(), expected.len(), "{metric}: {told:?}");
            for (told, expected) in told.iter().zip(expected) {
                assert!(told.starts_with(&format!("spec.metrics[0].{expected}")), "{metric}: {told}");
            }
        }
    }

    #[test]
    fn rules_of_scaling_have_bounds() {
        let behavior = json!({
            "scaleUp": {"stabilizationWindowSeconds": 3601, "tolerance": "-1", "selectPolicy": "Most"},
            "scaleDown": {"policies": [{"type": "Nodes", "value": 0, "periodSeconds": 1801}]},
        });
        assert_eq!(
            told(json!([]), behavior),
            [
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
                "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Most\": supported values: \"Disabled\", \"Max\", \"Min\"",
                "spec.behavior.scaleUp.tolerance: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.behavior.scaleDown.policies[0].type: Unsupported value: \"Nodes\": supported values: \"Percent\", \"Pods\"",
                "spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            ]
        );
    }

    #[test]
    fn what_is_scaled_says_its_group_and_what_is_stored_may_stay() {
        let scaler = |version: &str, kind: &str, least: i64| {
            Object::from_value(json!({"spec": {
                "scaleTargetRef": {"apiVersion": version, "kind": kind, "name": "web"},
                "minReplicas": least, "maxReplicas": 3,
            }}))
            .unwrap()
        };
        let told = |object: &Object, old: Option<&Object>| -> Vec<String> {
            Strategy.validate(object, old).iter().map(FieldError::to_string).collect()
        };
        let bare = scaler("v1", "Deployment", 1);
        let fault =
            "spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group";
        assert_eq!(told(&bare, None), [fault]);
        assert_eq!(told(&bare, Some(&bare)), [""; 0]);
        assert_eq!(told(&bare, Some(&scaler("v1", "StatefulSet", 1))), [fault]);
        assert_eq!(told(&scaler("v1", "ReplicationController", 1), None), [""; 0]);
        let nothing = scaler("apps/v1", "Deployment", 0);
        let unmeasured = "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas";
        assert_eq!(
            told(&nothing, None),
            ["spec.minReplicas: Invalid value: 0: must be greater than or equal to 1", unmeasured]
        );
        assert_eq!(told(&nothing, Some(&nothing)), [unmeasured]);
        let external = json!({"metric": {"name": "queue"}, "target": {"type": "Value", "value": "30"}});
        let mut measured = nothing.clone();
        measured.set(&["spec", "metrics"], json!([{"type": "External", "external": external}]));
        assert_eq!(told(&measured, Some(&nothing)), [""; 0]);
    }

    #[test]
    fn nothing_less_than_nothing_runs() {
        let status =
            Object::from_value(json!({"status": {"currentReplicas": -1, "desiredReplicas": 1}})).unwrap();
        let faults = Strategy.validate_status(&status, &status);
        assert_eq!(
            faults[0].to_string(),
            "status.currentReplicas: Invalid value: -1: must be greater than or equal to 0"
        );
    }
}

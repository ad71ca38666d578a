//! LimitRanges and ResourceQuotas.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::check::{Faults, Field, same};
use super::fill::Fill;
use super::resources;
use crate::{FieldError, Object, name};

/// Rules of LimitRanges.
pub struct LimitRange;

impl crate::Strategy for LimitRange {
    fn has_random_name(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        let limits = object.map_mut(&["spec"]).maps_at("limits");
        for limit in limits.filter(|limit| limit.text_at("type") == "Container") {
            // The default is the most, and a request is the default or else the least.
            fill_from(limit, "default", "max");
            fill_from(limit, "defaultRequest", "default");
            fill_from(limit, "defaultRequest", "min");
        }
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let mut kinds = HashSet::new();
        for limit in Field::at(object, &["spec", "limits"]).items() {
            validate_type(&limit, &mut kinds, &mut faults);
            for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
                for (resource, amount) in limit.get(list).entries() {
                    match limit.get("type").text() {
                        "Container" | "Pod" => {
                            resources::validate_container_resource(resource, &amount.path, &mut faults);
                        }
                        _ => resources::validate_resource(resource, &amount.path, &mut faults),
                    }
                }
            }
            for (low, high) in [
                ("min", "max"),
                ("min", "default"),
                ("defaultRequest", "default"),
                ("default", "max"),
                ("min", "defaultRequest"),
            ] {
                validate_order(&limit, low, high, &mut faults);
            }
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// Each sort of limit stands once; some know no defaults.
fn validate_type<'a>(limit: &Field<'a>, kinds: &mut HashSet<&'a str>, faults: &mut Faults) {
    let kind = limit.get("type");
    if !faults.must_be_given(&kind) {
        return;
    }
    if !kinds.insert(kind.text()) {
        faults.duplicate(&kind);
    }
    if let Err(message) = name::qualified_name(kind.text()) {
        faults.invalid(&kind, message);
    } else if !matches!(kind.text(), "Container" | "Pod" | "PersistentVolumeClaim")
        && !kind.text().contains('/')
    {
        faults.invalid(&kind, "must be a standard limit type or fully qualified");
    }
    if kind.text() == "Pod" {
        for name in ["default", "defaultRequest"] {
            if !limit.get(name).is_empty() {
                faults.forbidden(&limit.get(name), "may not be specified when `type` is 'Pod'");
            }
        }
    }
    if kind.text() == "PersistentVolumeClaim" {
        let has_storage = |list: &str| limit.get(list).entry("storage").is_set();
        if !has_storage("min") && !has_storage("max") {
            let text = "either minimum or maximum storage value is required, but neither was provided";
            faults.required(&Field { path: format!("{}.limits", limit.path), value: limit.value }, text);
        }
    }
    for (_, ratio) in limit.get("maxLimitRequestRatio").entries() {
        let one = resources::quantity(&Value::from("1"));
        if let (Some(amount), Some(one)) = (resources::quantity(ratio.value), one)
            && amount < one
        {
            faults.invalid(&ratio, format!("ratio {amount} is less than 1"));
        }
    }
}

fn fill_from(limit: &mut Map<String, Value>, to: &str, from: &str) {
    let Some(amounts) = limit.map_at(from).cloned() else { return };
    let target = limit.map_made(to);
    for (resource, amount) in amounts {
        target.fill(&resource, amount);
    }
}

fn validate_order(limit: &Field, low: &str, high: &str, faults: &mut Faults) {
    for (resource, amount) in limit.get(low).entries() {
        let most = limit.get(high).entry(resource);
        let (Some(lower), Some(upper)) = (resources::quantity(amount.value), resources::quantity(most.value))
        else {
            continue;
        };
        if lower > upper {
            let words = |name: &str| {
                if name == "defaultRequest" { "default request".to_string() } else { name.to_string() }
            };
            let text = format!("{} value {lower} is greater than {} value {upper}", words(low), words(high));
            faults.invalid(&amount, text);
        }
    }
}

/// Rules of ResourceQuotas.
pub struct ResourceQuota;

impl crate::Strategy for ResourceQuota {
    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], json!({}));
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        validate_amounts(&spec.get("hard"), &mut faults);
        validate_scopes(&spec, &mut faults);
        if let Some(old) = old {
            let (new, before) = (spec.get("scopes"), Field::at(old, &["spec"]).get("scopes"));
            if !same(new.value, before.value) {
                faults.invalid(&new, "field is immutable");
            }
        }
        faults.0
    }

    fn validate_status(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        let mut faults = Faults::new();
        for amounts in ["hard", "used"] {
            validate_amounts(&Field::at(object, &["status", amounts]), &mut faults);
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

fn validate_amounts(amounts: &Field, faults: &mut Faults) {
    for (resource, amount) in amounts.entries() {
        validate_counted(resource, &amount, faults);
        resources::validate_quantity(&amount, faults);
        resources::validate_whole(resource, &amount, faults);
    }
}

/// What may be counted: objects, computing resources, storage by class, extended resources.
fn validate_counted(resource: &str, amount: &Field, faults: &mut Faults) {
    resources::validate_resource(resource, &amount.path, faults);
    // Storage is counted by what is requested of it.
    if !resource.contains('/') && (resource == "storage" || !resources::is_standard(resource)) {
        let name = Value::from(resource);
        let named = Field { path: amount.path.clone(), value: &name };
        faults.invalid(&named, "must be a standard resource for quota");
    }
}

/// Which pods a quota counts; some scopes exclude each other.
fn validate_scopes(spec: &Field, faults: &mut Faults) {
    let mut given = HashSet::new();
    for scope in spec.get("scopes").items() {
        faults.one_of(&scope, &SCOPES);
        given.insert(scope.text());
    }
    validate_conflicts(&spec.get("scopes"), &given, faults);
    let expressions = spec.get("scopeSelector").get("matchExpressions");
    let mut selected = HashSet::new();
    for expression in expressions.items() {
        let [scope, operator, values] = ["scopeName", "operator", "values"].map(|name| expression.get(name));
        if !SCOPES.contains(&scope.text()) {
            faults.not_supported(&scope, &SCOPES);
        }
        if !matches!(scope.text(), "PriorityClass" | "VolumeAttributesClass") && operator.text() != "Exists" {
            let text = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            faults.invalid(&operator, text);
        }
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                faults.required(
                    &values,
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                );
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                faults.invalid(
                    &values,
                    "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => faults.invalid(&operator, "not a valid selector operator"),
        }
        selected.insert(scope.text());
    }
    validate_conflicts(&expressions, &selected, faults);
}

fn validate_conflicts(list: &Field, given: &HashSet<&str>, faults: &mut Faults) {
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| given.contains(scope)) {
            faults.invalid(list, "conflicting scopes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy as _;

    fn quota(spec: Value) -> Vec<String> {
        let object = Object::from_value(json!({"spec": spec})).unwrap();
        ResourceQuota.validate(&object, None).iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn a_quota_counts_what_there_is() {
        let hard = json!({
            "pods": "4", "requests.cpu": "1", "count/jobs.batch": "2", "requests.example.com/gpu": "1",
            "gold.storageclass.storage.k8s.io/requests.storage": "1Gi", "services.loadbalancers": "1",
        });
        assert_eq!(quota(json!({"hard": hard})), [""; 0]);
        assert_eq!(
            quota(json!({"hard": {"bananas": "1"}})),
            [
                "spec.hard[bananas]: Invalid value: \"bananas\": must be a standard resource type or fully qualified",
                "spec.hard[bananas]: Invalid value: \"bananas\": must be a standard resource for quota",
            ]
        );
    }

    #[test]
    fn scopes_do_not_contradict_each_other() {
        assert_eq!(quota(json!({"scopes": ["BestEffort", "Terminating"]})), [""; 0]);
        let told = quota(json!({"scopes": ["BestEffort", "NotBestEffort"]}));
        assert_eq!(told.len(), 1);
        assert!(told[0].ends_with(": conflicting scopes"), "{told:?}");
        let selector = json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]});
        assert_eq!(quota(json!({"scopeSelector": selector})).len(), 1);
    }

    #[test]
    fn a_limit_of_pods_has_no_defaults() {
        let limits = json!([
            {"type": "Pod", "default": {"cpu": "1"}}, {"type": "Pod", "max": {"cpu": "1"}},
            {"type": "PersistentVolumeClaim"}, {"type": "Container", "maxLimitRequestRatio": {"cpu": "500m"}},
        ]);
        let object = Object::from_value(json!({"spec": {"limits": limits}})).unwrap();
        let told: Vec<String> =
            LimitRange.validate(&object, None).iter().map(FieldError::to_string).collect();
        assert_eq!(
            told,
            [
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
                "spec.limits[1].type: Duplicate value: \"Pod\"",
                "spec.limits[2].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
                "spec.limits[3].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
            ]
        );
    }
}

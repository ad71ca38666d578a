//! MutatingWebhookConfigurations and ValidatingWebhookConfigurations: defaults and rules.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::check::{Faults, Field};
use super::{admission_rules, label_selector, webhook};
use crate::{FieldError, Object, name};

/// Side effects that a dry run is safe from.
const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
const LONGEST_SECONDS: i64 = 30;

/// The strategy of MutatingWebhookConfigurations.
pub struct Mutating;

/// The strategy of ValidatingWebhookConfigurations.
pub struct Validating;

impl crate::Strategy for Mutating {
    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        set_defaults(object, true);
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        validate(object, old, true)
    }
}

impl crate::Strategy for Validating {
    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        set_defaults(object, false);
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        validate(object, old, false)
    }
}

fn set_defaults(object: &mut Object, is_mutating: bool) {
    let Some(Value::Array(hooks)) = object.0.get_mut("webhooks") else { return };
    for hook in hooks.iter_mut().filter_map(Value::as_object_mut) {
        let mut default = |field: &str, value: Value| {
            if hook.get(field).is_none_or(Value::is_null) {
                hook.insert(field.into(), value);
            }
        };
        default("failurePolicy", "Fail".into());
        default("matchPolicy", "Equivalent".into());
        default("namespaceSelector", json!({}));
        default("objectSelector", json!({}));
        default("timeoutSeconds", 10.into());
        if is_mutating {
            default("reinvocationPolicy", "Never".into());
        }
        let service = hook.get_mut("clientConfig").and_then(|client| client.get_mut("service"));
        if let Some(service) = service.and_then(Value::as_object_mut) {
            service.entry("port").or_insert(443.into());
        }
        for rule in hook.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(rule) = rule.as_object_mut() {
                rule.entry("scope").or_insert("*".into());
            }
        }
    }
}

/// What an older object was allowed that a new one is not.
struct Leniency {
    side_effects: bool,
    reviews: bool,
    repeated_names: bool,
}

impl Leniency {
    fn of(old: Option<&Object>) -> Leniency {
        let hooks = || old.into_iter().flat_map(|old| old.list(&["webhooks"]));
        let has_side_effects =
            |hook: &Value| !NO_SIDE_EFFECTS.contains(&hook["sideEffects"].as_str().unwrap_or_default());
        let names: BTreeSet<&str> = hooks().filter_map(|hook| hook["name"].as_str()).collect();
        Leniency {
            side_effects: hooks().any(has_side_effects),
            reviews: hooks().any(|hook| webhook::knows_no_review(&hook["admissionReviewVersions"])),
            repeated_names: names.len() < hooks().count(),
        }
    }
}

fn validate(object: &Object, old: Option<&Object>, is_mutating: bool) -> Vec<FieldError> {
    let mut faults = Faults::new();
    let leniency = Leniency::of(old);
    let mut names = BTreeSet::new();
    for (index, hook) in Field::at(object, &["webhooks"]).items().enumerate() {
        validate_hook(&hook, &leniency, is_mutating, &mut faults);
        let conditions = hook.get("matchConditions");
        let before = old.map(|old| old.list(&["webhooks"]));
        let before = before.and_then(|hooks| hooks.get(index)).map(|hook| &hook["matchConditions"]);
        if before.is_none_or(|before| before != conditions.value) {
            admission_rules::validate_conditions(
                &conditions,
                &admission_rules::compile_condition,
                &mut faults,
            );
        }
        let (versions, needed) = (hook.get("admissionReviewVersions"), "must specify one of v1, v1beta1");
        webhook::validate_reviews(&versions, leniency.reviews, needed, &mut faults);
        let name = hook.get("name");
        if !name.text().is_empty() && !names.insert(name.text()) && !leniency.repeated_names {
            faults.duplicate(&name);
        }
    }
    faults.0
}

fn validate_hook(hook: &Field, leniency: &Leniency, is_mutating: bool, faults: &mut Faults) {
    validate_name(&hook.get("name"), faults);
    for rule in hook.get("rules").items() {
        admission_rules::validate_rule(&rule, faults);
    }
    faults.one_of(&hook.get("failurePolicy"), &["Fail", "Ignore"]);
    faults.one_of(&hook.get("matchPolicy"), &["Equivalent", "Exact"]);
    let allowed = if leniency.side_effects { &SIDE_EFFECTS[..] } else { &NO_SIDE_EFFECTS[..] };
    let side_effects = hook.get("sideEffects");
    match side_effects.is_set() {
        true => faults.one_of(&side_effects, allowed),
        false => faults.required(&side_effects, &format!("must specify one of {}", allowed.join(", "))),
    }
    let timeout = hook.get("timeoutSeconds");
    if timeout.number().is_some_and(|seconds| !(1..=LONGEST_SECONDS).contains(&seconds)) {
        faults.invalid(&timeout, "the timeout value must be between 1 and 30 seconds");
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        label_selector::validate(&hook.get(selector), faults);
    }
    if is_mutating {
        faults.one_of(&hook.get("reinvocationPolicy"), &["IfNeeded", "Never"]);
    }
    webhook::validate_client(&hook.get("clientConfig"), faults);
}

fn validate_name(name: &Field, faults: &mut Faults) {
    const SEGMENTS: usize = 3;
    if !faults.must_be_given(name) {
        return;
    }
    if let Err(why) = name::dns_subdomain(name.text()) {
        return faults.invalid(name, why);
    }
    if name.text().split('.').count() < SEGMENTS {
        faults.invalid(name, "should be a domain with at least three segments separated by dots");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy as _;

    fn configuration(hook: Value) -> Object {
        let mut good = json!({
            "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "s", "namespace": "n"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        });
        for (key, value) in hook.as_object().unwrap() {
            good[key] = value.clone();
        }
        let mut object = Object::from_value(json!({"webhooks": [good]})).unwrap();
        Mutating.set_defaults(&mut object);
        object
    }

    fn faults(hook: Value) -> Vec<String> {
        Mutating.validate(&configuration(hook), None).iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let configuration = configuration(json!({}));
        let hook = &configuration.list(&["webhooks"])[0];
        assert_eq!(hook["clientConfig"]["service"]["port"], 443);
        assert_eq!(hook["rules"][0]["scope"], "*");
        let filled = ["failurePolicy", "matchPolicy", "timeoutSeconds", "reinvocationPolicy"];
        let filled = filled.map(|field| hook[field].clone());
        assert_eq!(filled, [json!("Fail"), json!("Equivalent"), json!(10), json!("Never")]);
        assert_eq!(faults(json!({})), Vec::<String>::new());
    }

    #[test]
    fn hooks_are_held_to_upstreams_rules() {
        let cases = [
            (
                json!({"name": "short"}),
                r#"webhooks[0].name: Invalid value: "short": should be a domain with at least three segments separated by dots"#,
            ),
            (
                json!({"sideEffects": "Some"}),
                r#"webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun""#,
            ),
            (
                json!({"sideEffects": null}),
                "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            ),
            (
                json!({"timeoutSeconds": 31}),
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ),
            (
                json!({"admissionReviewVersions": ["v2"]}),
                r#"webhooks[0].admissionReviewVersions: Invalid value: ["v2"]: must include at least one of v1, v1beta1"#,
            ),
            (
                json!({"admissionReviewVersions": []}),
                "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
            ),
            (
                json!({"reinvocationPolicy": "Always"}),
                r#"webhooks[0].reinvocationPolicy: Unsupported value: "Always": supported values: "IfNeeded", "Never""#,
            ),
            (
                json!({"matchConditions": [{"name": "x", "expression": "1"}]}),
                r#"webhooks[0].matchConditions[0].expression: Invalid value: "1": must evaluate to bool"#,
            ),
        ];
        for (hook, fault) in cases {
            assert_eq!(faults(hook), [fault]);
        }
    }

    #[test]
    fn what_was_good_before_stays_good() {
        let old = configuration(json!({"sideEffects": "Some"}));
        assert!(Mutating.validate(&old, Some(&old)).is_empty());
        assert!(!Mutating.validate(&old, None).is_empty());
    }
}

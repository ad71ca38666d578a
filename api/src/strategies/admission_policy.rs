//! ValidatingAdmissionPolicies, MutatingAdmissionPolicies and their bindings: defaults and rules.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::admission_rules::{self, validate_conditions, validate_expression};
use super::check::{Faults, Field};
use super::label_selector;
use crate::{
    FieldError, Object,
    cel::Type,
    name,
    policy::{MOST_VARIABLES, Names, Scope},
};

/// What a denial may have as its reason.
const REASONS: [&str; 4] = ["Unauthorized", "Forbidden", "Invalid", "RequestEntityTooLarge"];
const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
const MOST_ANNOTATIONS: usize = 20;

/// The strategy of ValidatingAdmissionPolicies.
pub struct Validating;

/// The strategy of MutatingAdmissionPolicies.
pub struct Mutating;

/// The strategy of the bindings of validating policies.
pub struct ValidatingBinding;

/// The strategy of the bindings of mutating policies.
pub struct MutatingBinding;

impl crate::Strategy for Validating {
    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn status_is_apart(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        set_policy_defaults(object);
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        validate_policy(object, old, validate_validations)
    }
}

impl crate::Strategy for Mutating {
    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        set_policy_defaults(object);
        object.set_if_absent(&["spec", "reinvocationPolicy"], "Never");
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        validate_policy(object, old, validate_mutations)
    }
}

impl crate::Strategy for ValidatingBinding {
    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        set_match_defaults(object, "matchResources");
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        validate_binding(&spec, &mut faults);
        validate_actions(&spec.get("validationActions"), &mut faults);
        faults.0
    }
}

impl crate::Strategy for MutatingBinding {
    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        set_match_defaults(object, "matchResources");
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        validate_binding(&Field::at(object, &["spec"]), &mut faults);
        faults.0
    }
}

fn set_policy_defaults(object: &mut Object) {
    object.set_if_absent(&["spec", "failurePolicy"], "Fail");
    set_match_defaults(object, "matchConstraints");
}

fn set_match_defaults(object: &mut Object, field: &str) {
    if !object.at(&["spec", field]).is_some_and(Value::is_object) {
        return;
    }
    object.set_if_absent(&["spec", field, "matchPolicy"], "Equivalent");
    object.set_if_absent(&["spec", field, "namespaceSelector"], json!({}));
    object.set_if_absent(&["spec", field, "objectSelector"], json!({}));
    for rules in ["resourceRules", "excludeResourceRules"] {
        let rules = object.map_mut(&["spec", field]).get_mut(rules).and_then(Value::as_array_mut);
        for rule in rules.into_iter().flatten().filter_map(Value::as_object_mut) {
            rule.entry("scope").or_insert("*".into());
        }
    }
}

/// What the sorts of policies have in common; `validate_rules` knows what they decide by.
fn validate_policy(
    object: &Object,
    old: Option<&Object>,
    validate_rules: fn(&Field, &Scope, &mut Faults),
) -> Vec<FieldError> {
    let mut faults = Faults::new();
    let spec = Field::at(object, &["spec"]);
    faults.one_of(&spec.get("failurePolicy"), &["Fail", "Ignore"]);
    validate_param_kind(&spec.get("paramKind"), &mut faults);
    let constraints = spec.get("matchConstraints");
    if constraints.is_set() {
        validate_match(&constraints, true, &mut faults);
    } else {
        faults.required(&constraints, "");
    }
    // What was stored once stays allowed, whatever compilers there will be.
    if old.is_none_or(|old| old.at(&["spec"]) != object.at(&["spec"])) {
        let names = Names { params: spec.get("paramKind").is_set(), authorizer: true, mutations: false };
        let mut scope = Scope::new(names, Type::Dyn);
        validate_variables(&spec.get("variables"), &mut scope, &mut faults);
        validate_conditions(&spec.get("matchConditions"), &|text| scope.compile(text), &mut faults);
        validate_rules(&spec, &scope, &mut faults);
    }
    faults.0
}

fn validate_param_kind(kind: &Field, faults: &mut Faults) {
    if !kind.is_set() {
        return;
    }
    let version = kind.get("apiVersion");
    if faults.must_be_given(&version) && version.text().matches('/').count() > 1 {
        faults.invalid(&version, format!("unexpected GroupVersion string: {}", version.text()));
    }
    faults.must_be_given(&kind.get("kind"));
}

fn validate_match(resources: &Field, needs_rules: bool, faults: &mut Faults) {
    faults.one_of(&resources.get("matchPolicy"), &["Equivalent", "Exact"]);
    for selector in ["namespaceSelector", "objectSelector"] {
        if resources.get(selector).is_set() {
            label_selector::validate(&resources.get(selector), faults);
        }
    }
    let rules = resources.get("resourceRules");
    if needs_rules && rules.is_empty() {
        faults.required(&rules, "");
    }
    for rule in rules.items().chain(resources.get("excludeResourceRules").items()) {
        admission_rules::validate_rule(&rule, faults);
        let mut names = BTreeSet::new();
        for name in rule.get("resourceNames").items() {
            if name.text().is_empty() || name.text().contains('/') {
                faults.invalid(&name, "invalid resource name");
            }
            if !names.insert(name.text()) {
                faults.duplicate(&name);
            }
        }
    }
}

fn validate_variables(variables: &Field, scope: &mut Scope, faults: &mut Faults) {
    faults.at_most(variables, MOST_VARIABLES);
    let mut names = BTreeSet::new();
    for variable in variables.items().take(MOST_VARIABLES) {
        let (name, expression) = (variable.get("name"), variable.get("expression"));
        if faults.must_be_given(&name) {
            if !is_identifier(name.text()) {
                faults.invalid(&name, "name is not a valid CEL identifier");
            }
            if !names.insert(name.text()) {
                faults.duplicate(&name);
            }
        }
        if !faults.must_be_given(&expression) {
            continue;
        }
        if let Err(why) = scope.add(name.text(), expression.text()) {
            faults.invalid(&expression, format!("compilation failed: {why}"));
        }
    }
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn validate_validations(spec: &Field, scope: &Scope, faults: &mut Faults) {
    let (validations, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        faults.required(&validations, "validations or auditAnnotations must be specified");
        faults.required(&annotations, "validations or auditAnnotations must be specified");
    }
    for validation in validations.items() {
        validate_expression(&validation.get("expression"), &|text| scope.compile(text), "bool", faults);
        faults.one_of(&validation.get("reason"), &REASONS);
        let message = validation.get("message");
        if message.is_set() && message.text().trim().is_empty() {
            faults.invalid(&message, "message must be non-empty if specified");
        } else if message.text().trim().contains('\n') {
            faults.invalid(&message, "message must not contain line breaks");
        } else if message.text().is_empty() && validation.get("expression").text().trim().contains('\n') {
            faults.required(&message, "message must be specified if expression contains line breaks");
        }
        let made = validation.get("messageExpression");
        if made.is_set() {
            validate_expression(&made, &|text| scope.compile(text), "string", faults);
        }
    }
    validate_annotations(&annotations, scope, faults);
}

fn validate_annotations(annotations: &Field, scope: &Scope, faults: &mut Faults) {
    if annotations.len() > MOST_ANNOTATIONS {
        let why = format!("must not have more than {MOST_ANNOTATIONS} auditAnnotations");
        faults.invalid(annotations, why);
    }
    let mut keys = BTreeSet::new();
    for annotation in annotations.items() {
        let key = annotation.get("key");
        if faults.must_be_given(&key) {
            faults.keeps(&key, name::qualified_name);
            if !keys.insert(key.text()) {
                faults.duplicate(&key);
            }
        }
        validate_expression(
            &annotation.get("valueExpression"),
            &|text| scope.compile(text),
            "string or null",
            faults,
        );
    }
}

fn validate_mutations(spec: &Field, scope: &Scope, faults: &mut Faults) {
    faults.must_be_one_of(&spec.get("reinvocationPolicy"), &["IfNeeded", "Never"]);
    let mutations = spec.get("mutations");
    if mutations.is_empty() {
        faults.required(&mutations, "mutations must contain at least one item");
    }
    let names = Names { params: spec.get("paramKind").is_set(), authorizer: true, mutations: true };
    for mutation in mutations.items() {
        let patch_type = mutation.get("patchType");
        faults.must_be_one_of(&patch_type, &["ApplyConfiguration", "JSONPatch"]);
        for (kind, field) in [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")] {
            let given = mutation.get(field);
            match (patch_type.text() == kind, given.is_set()) {
                (true, false) => {
                    faults.required(&given, &format!("must be specified when patchType is {kind}"))
                }
                (false, true) => {
                    faults.invalid(&given, format!("must not be specified when patchType is not {kind}"));
                }
                (true, true) => validate_mutation(&given.get("expression"), scope, names, faults),
                (false, false) => {}
            }
        }
    }
}

fn validate_mutation(expression: &Field, scope: &Scope, names: Names, faults: &mut Faults) {
    if !faults.must_be_given(expression) {
        return;
    }
    if let Err(why) = scope.compile_with(expression.text(), names) {
        faults.invalid(expression, format!("compilation failed: {why}"));
    }
}

fn validate_binding(spec: &Field, faults: &mut Faults) {
    let policy = spec.get("policyName");
    if faults.must_be_given(&policy) {
        faults.keeps(&policy, name::dns_subdomain);
    }
    let resources = spec.get("matchResources");
    if resources.is_set() {
        validate_match(&resources, false, faults);
    }
    let params = spec.get("paramRef");
    if !params.is_set() {
        return;
    }
    let (name, selector) = (params.get("name"), params.get("selector"));
    match (name.text().is_empty(), selector.is_set()) {
        (true, false) => faults.required(&params, "one of name or selector must be specified"),
        (false, true) => {
            faults.forbidden(&name, "name and selector are mutually exclusive");
            faults.forbidden(&selector, "name and selector are mutually exclusive");
        }
        (false, false) => faults.keeps(&name, name::dns_subdomain),
        (true, true) => label_selector::validate(&selector, faults),
    }
    faults.must_be_one_of(&params.get("parameterNotFoundAction"), &["Allow", "Deny"]);
}

fn validate_actions(actions: &Field, faults: &mut Faults) {
    if actions.is_empty() {
        return faults.required(actions, "");
    }
    let mut seen = BTreeSet::new();
    for action in actions.items() {
        faults.one_of(&action, &ACTIONS);
        if !seen.insert(action.text()) {
            faults.duplicate(&action);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        faults.invalid(actions, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy;

    fn policy(more: Value) -> Object {
        let mut policy = json!({"metadata": {"name": "p"}, "spec": {
            "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]},
            "validations": [{"expression": "true"}],
        }});
        policy["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Object::from_value(policy).unwrap()
    }

    fn faults(object: &Object, strategy: &dyn Strategy) -> Vec<String> {
        strategy.validate(object, None).iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn a_policy_gets_upstreams_defaults() {
        let mut object = policy(json!({}));
        Validating.set_defaults(&mut object);
        assert_eq!(object.text(&["spec", "failurePolicy"]), "Fail");
        assert_eq!(object.text(&["spec", "matchConstraints", "matchPolicy"]), "Equivalent");
        assert_eq!(object.at(&["spec", "matchConstraints", "objectSelector"]), Some(&json!({})));
        assert_eq!(object.list(&["spec", "matchConstraints", "resourceRules"])[0]["scope"], "*");
        assert!(faults(&object, &Validating).is_empty());
    }

    #[test]
    fn what_is_wrong_with_a_policy_is_told_at_its_place() {
        let cases = [
            (json!({"validations": []}), "spec.validations: Required value: validations or auditAnnotations"),
            (
                json!({"validations": [{"expression": "1"}]}),
                "spec.validations[0].expression: Invalid value: \"1\": must evaluate to bool",
            ),
            (json!({"validations": [{"expression": "params.x"}]}), "undeclared reference to 'params'"),
            (json!({"validations": [{"expression": "variables.x == 1"}]}), "undefined field 'x'"),
            (
                json!({"validations": [{"expression": "true", "reason": "Why"}]}),
                "spec.validations[0].reason: Unsupported value",
            ),
            (
                json!({"variables": [{"name": "a b", "expression": "1"}]}),
                "spec.variables[0].name: Invalid value: \"a b\": name is not a valid CEL identifier",
            ),
            (json!({"matchConstraints": null}), "spec.matchConstraints: Required value"),
            (json!({"failurePolicy": "Maybe"}), "spec.failurePolicy: Unsupported value: \"Maybe\""),
            (json!({"matchConditions": [{"name": "c", "expression": "'x'"}]}), "must evaluate to bool"),
            (
                json!({"auditAnnotations": [{"key": "k", "valueExpression": "1"}]}),
                "must evaluate to string or null",
            ),
        ];
        for (more, expected) in cases {
            let found = faults(&policy(more.clone()), &Validating);
            assert!(found.iter().any(|fault| fault.contains(expected)), "{more}: {found:?}");
        }
    }

    #[test]
    fn a_mutation_has_the_expression_that_its_type_says() {
        let expression = json!({"expression": "Object{}"});
        let spec = |mutation: Value| policy(json!({"reinvocationPolicy": "Never", "mutations": [mutation]}));
        let good = spec(json!({"patchType": "ApplyConfiguration", "applyConfiguration": expression}));
        assert_eq!(faults(&good, &Mutating), Vec::<String>::new());
        let missing = spec(json!({"patchType": "JSONPatch"}));
        assert!(faults(&missing, &Mutating)[0].starts_with("spec.mutations[0].jsonPatch: Required value"));
        let both = spec(
            json!({"patchType": "ApplyConfiguration", "applyConfiguration": expression, "jsonPatch": expression}),
        );
        assert!(faults(&both, &Mutating)[0].contains("must not be specified"));
    }

    #[test]
    fn a_binding_names_its_policy_its_parameters_and_what_to_do() {
        let binding =
            |spec: Value| Object::from_value(json!({"metadata": {"name": "b"}, "spec": spec})).unwrap();
        let good = json!({"policyName": "p", "validationActions": ["Deny", "Audit"],
            "paramRef": {"name": "x", "parameterNotFoundAction": "Deny"}});
        assert!(faults(&binding(good.clone()), &ValidatingBinding).is_empty());
        let cases = [
            (json!({"validationActions": ["Deny", "Warn"]}), "must not contain both Deny and Warn"),
            (json!({"validationActions": []}), "spec.validationActions: Required value"),
            (
                json!({"validationActions": ["Deny", "Deny"]}),
                "spec.validationActions[1]: Duplicate value: \"Deny\"",
            ),
            (json!({"policyName": ""}), "spec.policyName: Required value"),
            (
                json!({"paramRef": {"parameterNotFoundAction": "Deny"}}),
                "one of name or selector must be specified",
            ),
            (json!({"paramRef": {"name": "x"}}), "spec.paramRef.parameterNotFoundAction: Required value"),
        ];
        for (more, expected) in cases {
            let mut spec = good.clone();
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let found = faults(&binding(spec), &ValidatingBinding);
            assert!(found.iter().any(|fault| fault.contains(expected)), "{more}: {found:?}");
        }
    }
}

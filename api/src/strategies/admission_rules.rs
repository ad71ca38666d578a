//! What webhooks and policies apply to: rules and conditions, as far as their form goes.

use std::{collections::BTreeSet, sync::LazyLock};

use super::check::{Faults, Field};
use crate::{
    cel::{self, Program, Type},
    name,
};

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const MOST_CONDITIONS: usize = 64;

/// What a condition may look at.
static CONDITION_VARIABLES: LazyLock<[(&'static str, Type); 4]> = LazyLock::new(|| {
    [("object", Type::Dyn), ("oldObject", Type::Dyn), ("request", Type::Dyn), ("authorizer", Type::Dyn)]
});

/// A rule with operations.
pub fn validate_rule(rule: &Field, faults: &mut Faults) {
    let operations = rule.get("operations");
    alone(&operations, "operations", faults);
    for operation in operations.items() {
        faults.one_of(&operation, &OPERATIONS);
    }
    alone(&rule.get("apiGroups"), "API groups", faults);
    let versions = rule.get("apiVersions");
    alone(&versions, "API versions", faults);
    for version in versions.items().filter(|version| version.text().is_empty()) {
        faults.required(&version, "");
    }
    validate_resources(&rule.get("resources"), faults);
    faults.one_of(&rule.get("scope"), &SCOPES);
}

/// A list that must not be empty, and in which `*` stands alone.
fn alone(list: &Field, what: &str, faults: &mut Faults) {
    if list.is_empty() {
        return faults.required(list, "");
    }
    if list.len() > 1 && list.items().any(|item| item.text() == "*") {
        faults.invalid(list, format!("if '*' is present, must not specify other {what}"));
    }
}

fn validate_resources(resources: &Field, faults: &mut Faults) {
    if resources.is_empty() {
        return faults.required(resources, "");
    }
    let (mut whole, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    let mut is_last_plain = false;
    for item in resources.items() {
        let text = item.text();
        if text.is_empty() {
            faults.required(&item, "");
            continue;
        }
        let Some((resource, subresource)) = text.split_once('/') else {
            is_last_plain = text != "*";
            continue;
        };
        if whole.contains(resource) {
            faults.invalid(&item, format!("if '{resource}/*' is present, must not specify {text}"));
        }
        if everywhere.contains(subresource) {
            faults.invalid(&item, format!("if '*/{subresource}' is present, must not specify {text}"));
        }
        if subresource == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            everywhere.insert(subresource);
        }
    }
    let has = |wanted: &str| resources.items().any(|item| item.text() == wanted);
    if resources.len() > 1 && has("*/*") {
        faults.invalid(resources, "if '*/*' is present, must not specify other resources");
    }
    if has("*") && is_last_plain {
        faults.invalid(resources, "if '*' is present, must not specify other resources without subresources");
    }
}

/// What makes a program of an expression, or says why it cannot be one.
pub type Compile<'a> = &'a dyn Fn(&str) -> Result<Program, String>;

/// The `matchConditions` of a webhook or a policy.
pub fn validate_conditions(conditions: &Field, compile: Compile<'_>, faults: &mut Faults) {
    faults.at_most(conditions, MOST_CONDITIONS);
    let mut names = BTreeSet::new();
    for condition in conditions.items() {
        let name = condition.get("name");
        if faults.must_be_given(&name) {
            faults.keeps(&name, name::qualified_name);
            if !names.insert(name.text()) {
                faults.duplicate(&name);
            }
        }
        validate_expression(&condition.get("expression"), compile, "bool", faults);
    }
}

/// A condition of a webhook as a program.
pub fn compile_condition(expression: &str) -> Result<Program, String> {
    cel::compile(expression.trim(), &*CONDITION_VARIABLES)
}

/// An expression with a result of a kind.
pub fn validate_expression(expression: &Field, compile: Compile<'_>, wanted: &str, faults: &mut Faults) {
    if expression.text().trim().is_empty() {
        return faults.required(expression, "");
    }
    match compile(expression.text()) {
        Err(why) => faults.invalid(expression, format!("compilation failed: {why}")),
        Ok(program) if !fits(program.result(), wanted) => {
            faults.invalid(expression, format!("must evaluate to {wanted}"));
        }
        Ok(_) => {}
    }
}

fn fits(kind: &Type, wanted: &str) -> bool {
    match kind {
        Type::Dyn => true,
        Type::Bool => wanted == "bool",
        Type::Text(_) => wanted.contains("string"),
        Type::Null => wanted.contains("null"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::FieldError;

    fn faults(rule: Value) -> Vec<String> {
        let mut good =
            json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]});
        for (key, value) in rule.as_object().unwrap() {
            good[key] = value.clone();
        }
        let mut faults = Faults::new();
        validate_rule(&Field { path: "rule".into(), value: &good }, &mut faults);
        faults.0.iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn rules_say_everything_once() {
        assert_eq!(faults(json!({})), Vec::<String>::new());
        let cases = [
            (json!({"operations": []}), "rule.operations: Required value"),
            (
                json!({"operations": ["*", "CREATE"]}),
                r#"rule.operations: Invalid value: ["*","CREATE"]: if '*' is present, must not specify other operations"#,
            ),
            (
                json!({"operations": ["READ"]}),
                r#"rule.operations[0]: Unsupported value: "READ": supported values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE""#,
            ),
            (
                json!({"apiGroups": ["*", "apps"]}),
                r#"rule.apiGroups: Invalid value: ["*","apps"]: if '*' is present, must not specify other API groups"#,
            ),
            (
                json!({"resources": ["*/*", "pods"]}),
                r#"rule.resources: Invalid value: ["*/*","pods"]: if '*/*' is present, must not specify other resources"#,
            ),
            (
                json!({"resources": ["pods/*", "pods/status"]}),
                r#"rule.resources[1]: Invalid value: "pods/status": if 'pods/*' is present, must not specify pods/status"#,
            ),
            (
                json!({"resources": ["*", "pods"]}),
                r#"rule.resources: Invalid value: ["*","pods"]: if '*' is present, must not specify other resources without subresources"#,
            ),
            (
                json!({"scope": "World"}),
                r#"rule.scope: Unsupported value: "World": supported values: "*", "Cluster", "Namespaced""#,
            ),
        ];
        for (rule, fault) in cases {
            assert_eq!(faults(rule), [fault]);
        }
    }
}

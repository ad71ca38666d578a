//! Access reviews: what they ask, and whether they ask it well. Pure.

use api::{FieldError, Object, Status, items};
use serde_json::{Value, json};

use crate::{
    authz::{Question, Rule},
    request::User,
};

const GROUP: &str = "authorization.k8s.io";

/// Refuses reviews that ask nothing, too much, or about another namespace than their own.
pub(super) fn validate(review: &Object, is_self: bool, local: Option<&str>) -> Result<(), Status> {
    let spec = |field: &str| review.at(&["spec", field]).is_some_and(|value| !value.is_null());
    let mut errors = Vec::new();
    match (spec("resourceAttributes"), spec("nonResourceAttributes")) {
        (true, true) => {
            let text = "cannot be specified in combination with resourceAttributes";
            let value = review.at(&["spec", "nonResourceAttributes"]).unwrap_or(&Value::Null);
            errors.push(FieldError::invalid("spec.nonResourceAttributes", value, text));
        }
        (false, false) => {
            let text = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(FieldError::invalid("spec.resourceAttributes", &Value::Null, text));
        }
        _ => {}
    }
    let has_subject =
        !review.text(&["spec", "user"]).is_empty() || !review.list(&["spec", "groups"]).is_empty();
    if !is_self && !has_subject {
        let text = "at least one of user or group must be specified";
        errors.push(FieldError::invalid("spec.user", &json!(""), text));
    }
    for kind in ["fieldSelector", "labelSelector"] {
        errors.extend(selector_fault(review, kind));
    }
    if let Some(fault) = metadata_fault(review, local.is_some()) {
        errors.push(fault);
    }
    if local.is_some_and(|own| review.text(&["spec", "resourceAttributes", "namespace"]) != own)
        && spec("resourceAttributes")
    {
        let value = json!(review.text(&["spec", "resourceAttributes", "namespace"]));
        let text = "must match metadata.namespace";
        errors.push(FieldError::invalid("spec.resourceAttributes.namespace", &value, text));
    }
    if local.is_some() && spec("nonResourceAttributes") {
        let text = "disallowed on this kind of request";
        let value = review.at(&["spec", "nonResourceAttributes"]).unwrap_or(&Value::Null);
        errors.push(FieldError::invalid("spec.nonResourceAttributes", value, text));
    }
    match errors.as_slice() {
        [] => Ok(()),
        errors => Err(Status::invalid(GROUP, review.kind(), "", errors)),
    }
}

/// Nothing is stored, so there is nothing to name; the namespace that is asked about goes without saying.
fn metadata_fault(review: &Object, is_local: bool) -> Option<FieldError> {
    let metadata = review.at(&["metadata"]).and_then(Value::as_object)?;
    let is_set = |(key, value): (&String, &Value)| match key.as_str() {
        "creationTimestamp" | "managedFields" => false,
        "namespace" if is_local => false,
        _ => !value.is_null() && value != "",
    };
    let text = if is_local { "must be empty except for namespace" } else { "must be empty" };
    metadata
        .iter()
        .any(is_set)
        .then(|| FieldError::invalid("metadata", &Value::Object(metadata.clone()), text))
}

/// A selector says something, and says it one way.
fn selector_fault(review: &Object, kind: &str) -> Option<FieldError> {
    let selector = review.at(&["spec", "resourceAttributes", kind]).filter(|selector| !selector.is_null())?;
    let field = format!("spec.resourceAttributes.{kind}");
    let has_raw = selector["rawSelector"].as_str().is_some_and(|text| !text.is_empty());
    let has_requirements = selector["requirements"].as_array().is_some_and(|list| !list.is_empty());
    let fault = match (has_raw, has_requirements) {
        (true, true) => "must not specify requirements and rawSelector",
        (false, false) => "requirements or rawSelector must be specified",
        _ => return None,
    };
    Some(FieldError::invalid(format!("{field}.rawSelector"), &selector["rawSelector"], fault))
}

/// The user that a review is about.
pub(super) fn subject(review: &Object) -> User {
    let texts = |value: &Value| -> Vec<String> {
        items(value).iter().filter_map(Value::as_str).map(str::to_string).collect()
    };
    let extra = review.at(&["spec", "extra"]).and_then(Value::as_object);
    User {
        name: review.text(&["spec", "user"]).to_string(),
        uid: review.text(&["spec", "uid"]).to_string(),
        groups: review.at(&["spec", "groups"]).map(texts).unwrap_or_default(),
        extra: extra.into_iter().flatten().map(|(key, values)| (key.clone(), texts(values))).collect(),
    }
}

/// The field selector that a review asks about, as text; requirements that a selector cannot say are left out, which
/// asks about more.
pub(super) fn fields(review: &Object) -> String {
    let selector = review.at(&["spec", "resourceAttributes", "fieldSelector"]).unwrap_or(&Value::Null);
    if let Some(raw) = selector["rawSelector"].as_str() {
        return raw.to_string();
    }
    let requirements = items(&selector["requirements"]);
    let text = |requirement: &Value| {
        let key = requirement["key"].as_str()?;
        let [value] = requirement["values"].as_array()?.as_slice() else { return None };
        let operator = match requirement["operator"].as_str()? {
            "In" => "=",
            "NotIn" => "!=",
            _ => return None,
        };
        Some(format!("{key}{operator}{}", value.as_str()?))
    };
    requirements.iter().filter_map(text).collect::<Vec<_>>().join(",")
}

/// What a review asks.
pub(super) fn question<'a>(review: &'a Object, fields: &'a str) -> Question<'a> {
    let is_resource = review.at(&["spec", "resourceAttributes"]).is_some_and(|value| !value.is_null());
    let attributes = if is_resource { "resourceAttributes" } else { "nonResourceAttributes" };
    let text = |field: &str| review.text(&["spec", attributes, field]);
    Question {
        is_resource,
        verb: text("verb"),
        group: text("group"),
        resource: text("resource"),
        subresource: text("subresource"),
        namespace: text("namespace"),
        name: text("name"),
        path: text("path"),
        fields,
    }
}

/// The status of a SelfSubjectRulesReview.
pub(super) fn rules_status(rules: &[&Rule], is_node: bool) -> Value {
    let (mut resources, mut paths): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for rule in rules {
        let json = rule.to_json();
        let list = if rule.urls.is_empty() { &mut resources } else { &mut paths };
        if !list.contains(&json) {
            list.push(json);
        }
    }
    let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": is_node});
    if is_node {
        status["evaluationError"] = "node authorizer does not support user rule resolution".into();
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(spec: Value) -> Object {
        Object::from_value(json!({"kind": "SubjectAccessReview", "spec": spec})).unwrap()
    }

    #[test]
    fn a_review_asks_about_one_thing_and_somebody() {
        let resource = json!({"verb": "get", "resource": "pods", "namespace": "a"});
        let path = json!({"verb": "get", "path": "/metrics"});
        assert_eq!(
            validate(&review(json!({"user": "ann", "resourceAttributes": resource})), false, None),
            Ok(())
        );
        assert_eq!(validate(&review(json!({"resourceAttributes": resource})), true, None), Ok(()));
        assert!(validate(&review(json!({"resourceAttributes": resource})), false, None).is_err());
        assert!(validate(&review(json!({"user": "ann"})), false, None).is_err());
        let both = json!({"user": "ann", "resourceAttributes": resource, "nonResourceAttributes": path});
        assert!(validate(&review(both), false, None).is_err());
        let local = json!({"user": "ann", "resourceAttributes": resource});
        assert!(validate(&review(local.clone()), false, Some("b")).is_err());
        assert_eq!(validate(&review(local.clone()), false, Some("a")), Ok(()));
        let mut named = review(local);
        named.set(&["metadata", "name"], "x");
        assert!(validate(&named, false, None).unwrap_err().message.contains("metadata: Invalid value"));
        let nothing = validate(&review(json!({})), true, None).unwrap_err().message;
        assert_eq!(
            nothing,
            "SubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.resourceAttributes: Invalid value: null: exactly one \
             of nonResourceAttributes or resourceAttributes must be specified"
        );
    }

    #[test]
    fn selectors_are_part_of_the_question() {
        let requirement = json!({"key": "spec.nodeName", "operator": "In", "values": ["n1"]});
        let of = |selector: Value| {
            review(
                json!({"user": "ann", "resourceAttributes": {"verb": "list", "resource": "pods", "fieldSelector": selector}}),
            )
        };
        assert_eq!(fields(&of(json!({"requirements": [requirement]}))), "spec.nodeName=n1");
        assert_eq!(fields(&of(json!({"rawSelector": "a=b"}))), "a=b");
        assert_eq!(validate(&of(json!({"rawSelector": "a=b"})), false, None), Ok(()));
        let both = of(json!({"rawSelector": "a=b", "requirements": [requirement]}));
        assert_eq!(validate(&both, false, None).unwrap_err().code, 422);
    }

    #[test]
    fn the_question_is_read_as_it_stands() {
        let asked =
            review(json!({"user": "ann", "nonResourceAttributes": {"verb": "get", "path": "/metrics"}}));
        let question = question(&asked, "");
        assert!(!question.is_resource);
        assert_eq!((question.verb, question.path), ("get", "/metrics"));
    }
}

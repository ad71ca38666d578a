//! Label selectors, in the text form of `kubectl -l` and in the structured form of specs.

use std::fmt;

use serde_json::{Map, Value};

use super::parse;
use crate::{FieldError, Object, name};

/// A conjunction of requirements on labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSelector {
    /// `None`: matches nothing, as an absent selector in a spec does.
    requirements: Option<Vec<Requirement>>,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How the label's value relates to `values`.
    pub operator: Operator,
    /// Sorted, without duplicates.
    pub values: Vec<String>,
}

/// How a label relates to the values of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `in`, `=`, `==`.
    In,
    /// `notin`, `!=`: also met by objects without the label.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// The label is a number greater than the value.
    GreaterThan,
    /// The label is a number less than the value.
    LessThan,
}

impl LabelSelector {
    /// Matches every object.
    pub fn everything() -> LabelSelector {
        LabelSelector { requirements: Some(Vec::new()) }
    }

    /// Matches no object.
    pub fn nothing() -> LabelSelector {
        LabelSelector { requirements: None }
    }

    /// The text form: `app=web,tier!=cache,zone in (a,b),!canary`. The error is upstream's message.
    pub fn parse(text: &str) -> Result<LabelSelector, String> {
        Ok(LabelSelector { requirements: Some(parse::requirements(text)?) })
    }

    /// The structured form, `{matchLabels, matchExpressions}`. Null matches nothing, `{}` everything.
    pub fn from_json(selector: &Value) -> Result<LabelSelector, String> {
        if selector.is_null() {
            return Ok(LabelSelector::nothing());
        }
        let mut requirements = Vec::new();
        if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
            for (key, value) in labels {
                let values = vec![value.as_str().unwrap_or_default().to_string()];
                requirements.push(Requirement::new(key, Operator::In, values)?);
            }
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            requirements.push(Requirement::from_json(expression)?);
        }
        // Printed in this order.
        requirements.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(LabelSelector { requirements: Some(requirements) })
    }

    /// The oldest structured form, a map of labels that must all be there (Services, replication
    /// controllers, node selectors). Matches everything when empty; values are not checked.
    pub fn from_map(labels: &Map<String, Value>) -> LabelSelector {
        let requirement = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.as_str().unwrap_or_default().to_string()],
        };
        LabelSelector { requirements: Some(labels.iter().map(requirement).collect()) }
    }

    /// Whether labels with these values are meant; `label` gives a label's value.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let Some(requirements) = &self.requirements else { return false };
        requirements.iter().all(|requirement| requirement.is_met_by(label(&requirement.key)))
    }

    /// Whether a map of labels is meant.
    pub fn matches_labels(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.matches(|key| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str))
    }

    /// Whether an object is meant.
    pub fn matches_object(&self, object: &Object) -> bool {
        self.matches_labels(object.labels())
    }

    /// Whether every object is meant.
    pub fn is_everything(&self) -> bool {
        self.requirements.as_ref().is_some_and(Vec::is_empty)
    }

    /// The requirements; none also for a selector that matches nothing.
    pub fn requirements(&self) -> &[Requirement] {
        self.requirements.as_deref().unwrap_or_default()
    }

    /// Faults of a structured selector at `path`, as upstream's `ValidateLabelSelector` finds them.
    pub fn validate(selector: &Value, path: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
            errors.extend(crate::meta::validate_labels(labels, &format!("{path}.matchLabels")));
        }
        let expressions = selector.get("matchExpressions").and_then(Value::as_array);
        for (index, expression) in expressions.into_iter().flatten().enumerate() {
            errors.extend(validate_expression(expression, &format!("{path}.matchExpressions[{index}]")));
        }
        errors
    }
}

impl Requirement {
    /// A requirement whose parts have been checked; the error is upstream's message.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Requirement, String> {
        check_key(key)?;
        let listed = || go_list(&values);
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return Err(
                    "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
                        .into(),
                );
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return Err(format!(
                    "values: Invalid value: {}: values set must be empty for exists and does not exist",
                    listed()
                ));
            }
            Operator::GreaterThan | Operator::LessThan => {
                let [value] = values.as_slice() else {
                    return Err(format!(
                        "values: Invalid value: {}: for 'Gt', 'Lt' operators, exactly one value is required",
                        listed()
                    ));
                };
                if value.parse::<i64>().is_err() {
                    return Err(format!(
                        "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                    ));
                }
            }
            _ => {}
        }
        for (index, value) in values.iter().enumerate() {
            name::label_value(value)
                .map_err(|message| format!("values[{index}][{key}]: Invalid value: {value:?}: {message}"))?;
        }
        values.sort();
        values.dedup();
        Ok(Requirement { key: key.to_string(), operator, values })
    }

    fn from_json(expression: &Value) -> Result<Requirement, String> {
        let text = |field| expression.get(field).and_then(Value::as_str).unwrap_or_default();
        let operator = match text("operator") {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            unknown => return Err(format!("{unknown:?} is not a valid label selector operator")),
        };
        let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
        let values = values.filter_map(Value::as_str).map(String::from).collect();
        Requirement::new(text("key"), operator, values)
    }

    fn is_met_by(&self, label: Option<&str>) -> bool {
        let is_listed = |value: &str| self.values.iter().any(|listed| listed == value);
        let compared = |label: &str| {
            let limit = self.values.first()?.parse::<i64>().ok()?;
            Some(label.parse::<i64>().ok()?.cmp(&limit))
        };
        match self.operator {
            Operator::In => label.is_some_and(is_listed),
            Operator::NotIn => !label.is_some_and(is_listed),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => label.and_then(compared).is_some_and(|order| order.is_gt()),
            Operator::LessThan => label.and_then(compared).is_some_and(|order| order.is_lt()),
        }
    }
}

/// The text form, as `kubectl get -o wide` prints selectors: `app=web,zone in (a,b),!canary`.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements().iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Requirement { key, operator, values } = self;
        let list = values.join(",");
        match (operator, values.len()) {
            (Operator::In, 1) => write!(f, "{key}={list}"),
            (Operator::NotIn, 1) => write!(f, "{key}!={list}"),
            (Operator::In, _) => write!(f, "{key} in ({list})"),
            (Operator::NotIn, _) => write!(f, "{key} notin ({list})"),
            (Operator::Exists, _) => f.write_str(key),
            (Operator::DoesNotExist, _) => write!(f, "!{key}"),
            (Operator::GreaterThan, _) => write!(f, "{key}>{list}"),
            (Operator::LessThan, _) => write!(f, "{key}<{list}"),
        }
    }
}

/// A label's key must be a qualified name.
pub(super) fn check_key(key: &str) -> Result<(), String> {
    name::qualified_name(key).map_err(|message| format!("key: Invalid value: {key:?}: {message}"))
}

fn validate_expression(expression: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let text = |field| expression.get(field).and_then(Value::as_str).unwrap_or_default();
    let empty = Vec::new();
    let values = expression.get("values").and_then(Value::as_array).unwrap_or(&empty);
    match text("operator") {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(format!("{path}.values"), detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(format!("{path}.values"), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        unknown => {
            let operator = Value::from(unknown);
            let detail = "not a valid selector operator";
            errors.push(FieldError::invalid(format!("{path}.operator"), &operator, detail));
        }
    }
    errors.extend(crate::meta::validate_label_name(text("key"), &format!("{path}.key")));
    for (index, value) in values.iter().enumerate() {
        if let Err(message) = name::label_value(value.as_str().unwrap_or_default()) {
            errors.push(FieldError::invalid(format!("{path}.values[{index}]"), value, message));
        }
    }
    errors
}

fn go_list(values: &[String]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[{}]", quoted.join(","))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn meant(selector: &str, labels: &[(&str, &str)]) -> bool {
        let selector = LabelSelector::parse(selector).unwrap();
        selector.matches(|key| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value))
    }

    #[test]
    fn selectors_mean_what_they_say() {
        let labels = [("app", "web"), ("tier", "2"), ("empty", "")];
        for selector in [
            "",
            "app",
            "!gone",
            "! gone",
            "app=web",
            "app==web",
            "app!=db",
            "gone!=db",
            "app in (web,db)",
            "app in ( web )",
            "app notin (db)",
            "gone notin (db)",
            "tier>1",
            "tier<3",
            "empty=",
            "empty in (,)",
            "app=web,tier=2",
            "app , tier",
        ] {
            assert!(meant(selector, &labels), "{selector}");
        }
        for selector in [
            "gone",
            "!app",
            "app=db",
            "app!=web",
            "app in (db)",
            "app notin (web)",
            "tier>2",
            "app>1",
            "gone=",
        ] {
            assert!(!meant(selector, &labels), "{selector}");
        }
    }

    #[test]
    fn the_structured_form_means_the_same() {
        let selector = LabelSelector::from_json(&json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "zone", "operator": "In", "values": ["b", "a"]}, {"key": "x", "operator": "DoesNotExist"}],
        }));
        assert_eq!(selector.unwrap().to_string(), "app=web,!x,zone in (a,b)");
        assert!(LabelSelector::from_json(&json!({})).unwrap().is_everything());
        assert_eq!(LabelSelector::from_json(&Value::Null), Ok(LabelSelector::nothing()));
        let wrong = json!({"matchExpressions": [{"key": "a", "operator": "Like"}]});
        assert_eq!(
            LabelSelector::from_json(&wrong).unwrap_err(),
            "\"Like\" is not a valid label selector operator"
        );
    }

    #[test]
    fn faults_of_the_structured_form_have_paths() {
        let selector = json!({
            "matchLabels": {"a": "-"},
            "matchExpressions": [{"key": "", "operator": "In"}, {"key": "b", "operator": "Exists", "values": ["x"]}],
        });
        let errors = LabelSelector::validate(&selector, "spec.selector");
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.selector.matchLabels",
                "spec.selector.matchExpressions[0].values",
                "spec.selector.matchExpressions[0].key",
                "spec.selector.matchExpressions[1].values"
            ]
        );
    }

    proptest! {
        #[test]
        fn the_printed_form_means_the_same(text in "(a|!b|c=x|d!=y|e in \\(x,y\\)|f notin \\(z\\)|g>1)(,(h|i=j)){0,3}") {
            let selector = LabelSelector::parse(&text).unwrap();
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
        }

        #[test]
        fn no_text_panics(text in "[a-z=!<>(), \\PC]{0,30}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
            }
        }
    }
}

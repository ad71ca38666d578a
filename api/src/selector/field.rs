//! Field selectors: `status.phase=Running,spec.nodeName!=node-1`.

use std::fmt;

use serde_json::Value;

use crate::{Kind, Object};

/// A conjunction of terms on fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

/// One field that must have, or must not have, a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// Path of field names with dots.
    pub field: String,
    /// Whether the field must have the value (`=`, `==`) or must not (`!=`).
    pub is_equal: bool,
    /// The value as text.
    pub value: String,
}

impl FieldSelector {
    /// The text form; `\` escapes a comma, an equals sign or itself in a value. The error is upstream's.
    pub fn parse(text: &str) -> Result<FieldSelector, String> {
        let mut terms = Vec::new();
        for part in split_terms(text).into_iter().filter(|part| !part.is_empty()) {
            let (field, is_equal, value) = split_term(part)
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
            terms.push(FieldTerm { field: field.to_string(), is_equal, value: unescaped(value)? });
        }
        Ok(FieldSelector { terms })
    }

    /// The terms.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// Whether every object is meant.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that a field must have, where the selector asks for one: `metadata.name=x` is a get.
    pub fn required_value(&self, field: &str) -> Option<&str> {
        let term = self.terms.iter().find(|term| term.is_equal && term.field == field)?;
        Some(&term.value)
    }

    /// Refuses fields that objects of this kind cannot be selected by; the error is upstream's message.
    pub fn check(&self, kind: &Kind) -> Result<(), String> {
        let is_generic = |field: &str| matches!(field, "metadata.name" | "metadata.namespace");
        let is_known = |field: &str| is_generic(field) || kind.selectable.contains(&field);
        match self.terms.iter().find(|term| !is_known(&term.field)) {
            None => Ok(()),
            Some(term) if kind.selectable.is_empty() && kind.custom.is_none() => Err(format!(
                "{:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                term.field
            )),
            Some(term) => Err(format!("field label not supported: {}", term.field)),
        }
    }

    /// Whether an object is meant. A field that is not there has its type's zero value.
    pub fn matches(&self, object: &Object) -> bool {
        self.terms.iter().all(|term| term.has_value(object) == term.is_equal)
    }
}

impl FieldTerm {
    fn has_value(&self, object: &Object) -> bool {
        match field(object, &self.field) {
            Some(Value::String(text)) => *text == self.value,
            Some(Value::Bool(is_set)) => self.value == if *is_set { "true" } else { "false" },
            Some(Value::Number(number)) => self.value == number.to_string(),
            _ => matches!(self.value.as_str(), "" | "false" | "0"),
        }
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, FieldTerm { field, is_equal, value }) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if *is_equal { "=" } else { "!=" };
            write!(f, "{comma}{field}{operator}{}", escaped(value))?;
        }
        Ok(())
    }
}

/// The value at a dotted path. Events are selected by `source`, which means the component.
fn field<'a>(object: &'a Object, path: &str) -> Option<&'a Value> {
    if path == "source" {
        let component = object.at(&["source", "component"]).filter(|value| **value != "");
        return component.or_else(|| object.at(&["reportingComponent"]));
    }
    let mut names = path.split('.');
    let first = object.0.get(names.next()?)?;
    names.try_fold(first, |value, name| value.get(name))
}

fn split_terms(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut is_escaped) = (Vec::new(), 0, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            ',' => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let start = term.char_indices().map(|(index, _)| index);
    start.into_iter().find_map(|index| {
        let (field, rest) = term.split_at(index);
        [("!=", false), ("==", true), ("=", true)]
            .into_iter()
            .find_map(|(operator, is_equal)| Some((field, is_equal, rest.strip_prefix(operator)?)))
    })
}

fn unescaped(value: &str) -> Result<String, String> {
    let mut text = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => text.push(escaped),
                Some(other) => {
                    return Err(format!("invalid field selector: invalid escape sequence: \\{other}"));
                }
                None => return Err("invalid field selector: invalid escape sequence: \\".into()),
            },
            ',' | '=' => {
                return Err(format!(
                    "invalid field selector: unescaped character in value: {}",
                    u32::from(c)
                ));
            }
            _ => text.push(c),
        }
    }
    Ok(text)
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn meant(selector: &str) -> bool {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"nodeName": "node-1", "hostNetwork": true},
            "status": {"phase": "Running", "replicas": 3},
        });
        FieldSelector::parse(selector).unwrap().matches(&Object::from_value(pod).unwrap())
    }

    #[test]
    fn fields_are_compared_as_text() {
        for selector in [
            "",
            "metadata.name=web",
            "metadata.name==web,status.phase!=Failed",
            "spec.nodeName=node-1",
            "spec.hostNetwork=true",
            "status.replicas=3",
            "spec.unschedulable=false",
            "status.podIP=",
            "spec.nodeName!=",
        ] {
            assert!(meant(selector), "{selector}");
        }
        for selector in
            ["metadata.name=db", "status.phase!=Running", "spec.unschedulable=true", "spec.nodeName="]
        {
            assert!(!meant(selector), "{selector}");
        }
    }

    #[test]
    fn values_may_be_escaped() {
        let selector = FieldSelector::parse("a=b\\,c\\=d\\\\,e!=f").unwrap();
        assert_eq!(selector.required_value("a"), Some("b,c=d\\"));
        assert_eq!(selector.to_string(), "a=b\\,c\\=d\\\\,e!=f");
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(
            FieldSelector::parse("a=b,c").unwrap_err(),
            "invalid selector: 'a=b,c'; can't understand 'c'"
        );
        assert!(FieldSelector::parse("a=b=c").is_err());
        assert!(FieldSelector::parse("a=\\x").is_err());
    }
}

//! How strategies look at objects: a value that knows its path, and the faults found so far.

use serde_json::{Map, Value};

use crate::{FieldError, FieldErrorKind, Object};

static NULL: Value = Value::Null;

/// A value and where it stands. What is absent is null; what is null counts as absent.
#[derive(Clone)]
pub struct Field<'a> {
    /// The path in upstream's notation, such as `spec.ports[0].name`.
    pub path: String,
    /// The value.
    pub value: &'a Value,
}

impl<'a> Field<'a> {
    /// What is not there.
    pub const NOTHING: Field<'static> = Field { path: String::new(), value: &NULL };

    /// The value at a path from the object's root.
    pub fn at(object: &'a Object, path: &[&str]) -> Field<'a> {
        Field { path: path.join("."), value: object.at(path).unwrap_or(&NULL) }
    }

    /// A field of this map.
    pub fn get(&self, key: &str) -> Field<'a> {
        let path = match self.path.as_str() {
            "" => key.to_string(),
            path => joined(&[path, ".", key]),
        };
        Field { path, value: self.value.get(key).unwrap_or(&NULL) }
    }

    /// One entry of a map whose keys are the user's, such as labels: `path[key]`.
    pub fn entry(&self, key: &str) -> Field<'a> {
        Field { path: joined(&[&self.path, "[", key, "]"]), value: self.value.get(key).unwrap_or(&NULL) }
    }

    /// The items of this list.
    pub fn items(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let path = self.path.clone();
        let items = self.value.as_array().map_or(&[][..], Vec::as_slice);
        items.iter().enumerate().map(move |(index, value)| Field { path: format!("{path}[{index}]"), value })
    }

    /// The keys and values of this map.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, Field<'a>)> + use<'a> {
        let path = self.path.clone();
        self.value
            .as_object()
            .into_iter()
            .flatten()
            .map(move |(key, value)| (key.as_str(), Field { path: joined(&[&path, "[", key, "]"]), value }))
    }

    /// How many items or entries there are.
    pub fn len(&self) -> usize {
        match self.value {
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        }
    }

    /// Whether it has no items and no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is anything but null.
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// The text; empty when absent.
    pub fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The whole number.
    pub fn number(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// Whether it is `true`.
    pub fn is_true(&self) -> bool {
        self.value.as_bool() == Some(true)
    }

    /// The map, when it is one.
    pub fn map(&self) -> Option<&'a Map<String, Value>> {
        self.value.as_object()
    }
}

/// One text of several. Paths are made for every field that is looked at, and seldom shown; `format!` takes several
/// times as long.
fn joined(parts: &[&str]) -> String {
    let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| text.push_str(part));
    text
}

/// The faults found so far.
#[derive(Default)]
pub struct Faults(pub Vec<FieldError>);

impl Faults {
    /// None yet.
    pub fn new() -> Faults {
        Faults::default()
    }

    /// A value that must be given.
    pub fn required(&mut self, field: &Field, detail: &str) {
        self.0.push(FieldError::required(&field.path, detail));
    }

    /// A value that breaks a rule.
    pub fn invalid(&mut self, field: &Field, detail: impl Into<String>) {
        self.0.push(FieldError::invalid(&field.path, field.value, detail));
    }

    /// A field that may not be set or changed here.
    pub fn forbidden(&mut self, field: &Field, detail: impl Into<String>) {
        self.0.push(FieldError::forbidden(&field.path, detail));
    }

    /// A value outside the allowed set.
    pub fn not_supported(&mut self, field: &Field, allowed: &[&str]) {
        let mut sorted = allowed.to_vec();
        sorted.sort_unstable();
        self.0.push(FieldError::not_supported(&field.path, field.value, &sorted));
    }

    /// A value that stands twice.
    pub fn duplicate(&mut self, field: &Field) {
        self.0.push(FieldError::duplicate(&field.path, field.value));
    }

    /// A value that names something which is not there.
    pub fn not_found(&mut self, field: &Field) {
        let value = field.value.to_string();
        self.0.push(FieldError::new(FieldErrorKind::NotFound, &field.path, value, ""));
    }

    /// A list may have so many items.
    pub fn at_most(&mut self, list: &Field, most: usize) {
        if list.len() > most {
            let (count, detail) = (list.len().to_string(), format!("must have at most {most} items"));
            self.0.push(FieldError::new(FieldErrorKind::TooMany, &list.path, count, detail));
        }
    }

    /// A text that is given must keep to a rule.
    pub fn keeps(&mut self, field: &Field, rule: fn(&str) -> Result<(), String>) {
        if !field.text().is_empty()
            && let Err(message) = rule(field.text())
        {
            self.invalid(field, message);
        }
    }

    /// A text must keep to a rule, an empty one too.
    pub fn fits(&mut self, field: &Field, rule: fn(&str) -> Result<(), String>) {
        if let Err(message) = rule(field.text()) {
            self.invalid(field, message);
        }
    }

    /// A text may be left out; an empty one must keep to a rule, too.
    pub fn fits_when_given(&mut self, field: &Field, rule: fn(&str) -> Result<(), String>) {
        if field.is_set() {
            self.fits(field, rule);
        }
    }

    /// A text must be given and keep to a rule.
    pub fn must_keep(&mut self, field: &Field, rule: fn(&str) -> Result<(), String>) {
        if self.must_be_given(field) {
            self.keeps(field, rule);
        }
    }

    /// A text, list or map that must not be empty; returns whether it is given.
    pub fn must_be_given(&mut self, field: &Field) -> bool {
        let is_given = match field.value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(_) | Value::Object(_) => !field.is_empty(),
            _ => true,
        };
        if !is_given {
            self.required(field, "");
        }
        is_given
    }

    /// A text that is given must be one of these.
    pub fn one_of(&mut self, field: &Field, allowed: &[&str]) {
        if field.is_set() && !allowed.contains(&field.text()) {
            self.not_supported(field, allowed);
        }
    }

    /// A text must be given and be one of these.
    pub fn must_be_one_of(&mut self, field: &Field, allowed: &[&str]) {
        if self.must_be_given(field) {
            self.one_of(field, allowed);
        }
    }

    /// A number that is given must not be negative.
    pub fn not_negative(&mut self, field: &Field) {
        if field.number().is_some_and(|number| number < 0) {
            self.invalid(field, "must be greater than or equal to 0");
        }
    }

    /// A number that is given must lie between two others.
    pub fn between(&mut self, field: &Field, low: i64, high: i64) {
        if field.number().is_some_and(|number| number < low || number > high) {
            self.invalid(field, format!("must be between {low} and {high}, inclusive"));
        }
    }

    /// Those that were not there before: what was accepted once may stay. Asks what was there only if it matters.
    pub fn new_since(mut self, before: impl FnOnce() -> Faults) -> Faults {
        if !self.0.is_empty() {
            let before = before();
            self.0.retain(|fault| !before.0.contains(fault));
        }
        self
    }

    /// What may not change. An absent value and an empty one are the same.
    pub fn immutable(&mut self, new: &Field, old: &Field) {
        if !same(new.value, old.value) {
            self.invalid(new, "field is immutable");
        }
    }
}

/// Whether two values say the same; null, empty lists and empty maps are nothing.
pub fn same(one: &Value, other: &Value) -> bool {
    let is_nothing = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    one == other || (is_nothing(one) && is_nothing(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_new_at_another_place_or_with_another_value() {
        let fault = |path: &str, value: &str| FieldError::invalid(path, &value.into(), "is wrong");
        let now = Faults(vec![fault("a", "1"), fault("b", "1"), fault("a", "2")]);
        let new = now.new_since(|| Faults(vec![fault("a", "1")]));
        assert_eq!(new.0, [fault("b", "1"), fault("a", "2")]);
        assert_eq!(Faults::new().new_since(|| unreachable!("nobody needs to know")).0, []);
    }
}

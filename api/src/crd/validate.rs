//! Whether a custom resource fits its schema, in the words of upstream's validator.
//!
//! What has not changed since the stored object is not held against an update (ratcheting): a node that is
//! equal to its old self is skipped with all below it.

mod structure;

use std::{cmp::Ordering, collections::HashSet};

use serde_json::{Map, Number, Value};

pub(super) use structure::Counterparts;
pub use structure::validate_structure;

use super::{Additional, Items, Props, formats};
use crate::{FieldError, FieldErrorKind};

/// Every fault of `value`; `old` is what it replaces.
pub fn validate(value: &Value, old: Option<&Value>, props: &Props) -> Vec<FieldError> {
    let mut faults = Vec::new();
    Node { value, old, props, path: "", is_resource: true }.check(&mut faults);
    faults
}

/// Every fault of a default, be it of the whole object.
pub(super) fn validate_default(value: &Value, props: &Props, is_root: bool) -> Vec<FieldError> {
    let mut faults = Vec::new();
    let is_resource = is_root || props.is_embedded;
    Node { value, old: None, props, path: "", is_resource }.check(&mut faults);
    if is_root {
        structure::check_embedded(value, "", &mut faults);
    }
    structure::check(value, None, props, "", is_root, &mut faults);
    faults
}

/// `parent.name`.
pub(super) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_string() } else { format!("{parent}.{name}") }
}

/// A value, what it should look like, and where it stands.
#[derive(Clone, Copy)]
struct Node<'a> {
    value: &'a Value,
    old: Option<&'a Value>,
    props: &'a Props,
    path: &'a str,
    is_resource: bool,
}

impl Node<'_> {
    fn check(&self, faults: &mut Vec<FieldError>) {
        if self.old == Some(self.value) {
            return;
        }
        if self.check_type(faults) {
            match self.value {
                Value::String(text) => self.check_text(text, faults),
                Value::Number(number) => self.check_number(number, faults),
                Value::Array(items) => self.check_list(items, faults),
                Value::Object(map) => self.check_map(map, faults),
                Value::Null | Value::Bool(_) => {}
            }
            self.check_choices(faults);
        }
        self.check_branches(faults);
    }

    fn invalid(&self, value: &Value, rest: &str) -> FieldError {
        FieldError::invalid(self.path, value, format!("{} in body {rest}", self.path))
    }

    /// The type; whether it makes sense to look further.
    fn check_type(&self, faults: &mut Vec<FieldError>) -> bool {
        let found = type_name(self.value);
        let props = self.props;
        let fits = match (found, props.kind.as_str()) {
            ("null", _) if props.nullable => return false,
            // A branch of a junctor need not say what the value is.
            ("null", "") => return false,
            ("integer" | "string", _) if props.is_int_or_string => true,
            (_, "") => !props.is_int_or_string,
            ("integer", "number") => true,
            (found, wanted) => found == wanted,
        };
        if !fits {
            let wanted = if props.is_int_or_string { "integer,string" } else { &props.kind };
            let at = self.path;
            let detail = match at {
                "" => format!("must be of type {wanted}: {found:?}"),
                at => format!("{at} in body must be of type {wanted}: {found:?}"),
            };
            faults.push(FieldError::new(FieldErrorKind::TypeInvalid, at, format!("{found:?}"), detail));
        }
        fits
    }

    fn check_text(&self, text: &str, faults: &mut Vec<FieldError>) {
        let props = self.props;
        let length = || text.chars().count() as i64;
        if let Some(limit) = props.max_length.filter(|limit| length() > *limit) {
            let detail = format!("may not be more than {limit} bytes");
            faults.push(FieldError::new(FieldErrorKind::TooLong, self.path, String::new(), detail));
        }
        if let Some(limit) = props.min_length.filter(|limit| length() < *limit) {
            faults.push(self.invalid(self.value, &format!("should be at least {limit} chars long")));
        }
        if let Some(pattern) = &props.pattern
            && pattern.regex.as_ref().is_ok_and(|regex| !regex.is_match(text))
        {
            faults.push(self.invalid(self.value, &format!("should match '{}'", pattern.text)));
        }
        if formats::check(&props.format, text) == Some(false) {
            let detail = format!("{} in body must be of type {}: {text:?}", self.path, props.format);
            let value = format!("{text:?}");
            faults.push(FieldError::new(FieldErrorKind::TypeInvalid, self.path, value, detail));
        }
    }

    fn check_number(&self, number: &Number, faults: &mut Vec<FieldError>) {
        let props = self.props;
        let mut refuse = |what: String| faults.push(self.invalid(self.value, &what));
        if let Some(limit) = &props.maximum {
            match compare(number, limit) {
                Ordering::Greater if !props.exclusive_maximum => {
                    refuse(format!("should be less than or equal to {}", go_number(limit)));
                }
                Ordering::Greater | Ordering::Equal if props.exclusive_maximum => {
                    refuse(format!("should be less than {}", go_number(limit)));
                }
                _ => {}
            }
        }
        if let Some(limit) = &props.minimum {
            match compare(number, limit) {
                Ordering::Less if !props.exclusive_minimum => {
                    refuse(format!("should be greater than or equal to {}", go_number(limit)));
                }
                Ordering::Less | Ordering::Equal if props.exclusive_minimum => {
                    refuse(format!("should be greater than {}", go_number(limit)));
                }
                _ => {}
            }
        }
        if let Some(factor) = props.multiple_of.as_ref().filter(|factor| !is_multiple(number, factor)) {
            refuse(format!("should be a multiple of {}", go_number(factor)));
        }
        let whole = number.as_i64();
        let fits_format = match props.format.as_str() {
            "int32" => whole.is_none_or(|whole| i32::try_from(whole).is_ok()),
            _ => true,
        };
        if !fits_format {
            refuse(format!("must be of type {}: \"int64\"", props.format));
        }
    }

    fn check_list(&self, items: &[Value], faults: &mut Vec<FieldError>) {
        let (props, length) = (self.props, items.len() as i64);
        if let Some(limit) = props.min_items.filter(|limit| length < *limit) {
            faults.push(self.invalid(&length.into(), &format!("should have at least {limit} items")));
        }
        if let Some(limit) = props.max_items.filter(|limit| length > *limit) {
            faults.push(too_many(self.path, length, limit));
        }
        let has_twin = || {
            let mut seen = HashSet::with_capacity(items.len());
            !items.iter().all(|item| seen.insert(item))
        };
        if props.unique_items && has_twin() {
            faults.push(self.invalid(self.value, "shouldn't contain duplicates"));
        }
        let before = Counterparts::of(self.old, props);
        for (index, value) in items.iter().enumerate() {
            let item = match &props.items {
                Some(Items::Each(item)) => item,
                Some(Items::Tuple(places)) => match places.get(index) {
                    Some(place) => place,
                    None => continue,
                },
                None => continue,
            };
            let path = format!("{}[{index}]", self.path);
            let old = before.get(value);
            Node { value, old, props: item, path: &path, is_resource: false }.check(faults);
        }
    }

    fn check_map(&self, map: &Map<String, Value>, faults: &mut Vec<FieldError>) {
        let props = self.props;
        let length = map.len() as i64;
        if let Some(limit) = props.min_properties.filter(|limit| length < *limit) {
            faults.push(self.invalid(&length.into(), &format!("should have at least {limit} properties")));
        }
        if let Some(limit) = props.max_properties.filter(|limit| length > *limit) {
            faults.push(too_many(self.path, length, limit));
        }
        for name in props.required.iter().filter(|name| !map.contains_key(*name)) {
            faults.push(FieldError::required(join(self.path, name), ""));
        }
        for (name, value) in map {
            let is_object_field = self.is_resource && matches!(name.as_str(), "apiVersion" | "kind");
            let Some(field) = props.field(name).filter(|_| !is_object_field) else {
                let is_refused = matches!(props.additional_properties, Some(Additional::Allowed(false)))
                    && !is_object_field;
                if is_refused && !(self.is_resource && name == "metadata") {
                    let path = join(self.path, name);
                    let detail = format!("{path} in body is a forbidden property");
                    faults.push(FieldError::invalid(&path, value, detail));
                }
                continue;
            };
            let path = join(self.path, name);
            let old = self.old.and_then(|old| old.get(name));
            Node { value, old, props: field, path: &path, is_resource: field.is_embedded }.check(faults);
        }
    }

    fn check_choices(&self, faults: &mut Vec<FieldError>) {
        let Some(choices) = &self.props.choices else { return };
        if !choices.iter().any(|choice| is_same(choice, self.value)) {
            let texts: Vec<String> = choices
                .iter()
                .map(|choice| choice.as_str().map_or(choice.to_string(), str::to_string))
                .collect();
            let allowed: Vec<&str> = texts.iter().map(String::as_str).collect();
            faults.push(FieldError::not_supported(self.path, self.value, &allowed));
        }
    }

    fn faults_of(&self, props: &Props) -> Vec<FieldError> {
        let mut faults = Vec::new();
        Node { props, ..*self }.check(&mut faults);
        faults
    }

    fn check_branches(&self, faults: &mut Vec<FieldError>) {
        let props = self.props;
        let mut refuse = |what: &str| {
            let detail = format!("{:?} must {what}", self.path);
            faults.push(FieldError::new(FieldErrorKind::Invalid, self.path, "\"\"".into(), detail));
        };
        let mut causes = Vec::new();
        if !props.any_of.is_empty() {
            let results: Vec<Vec<FieldError>> =
                props.any_of.iter().map(|branch| self.faults_of(branch)).collect();
            if results.iter().all(|faults| !faults.is_empty()) {
                refuse("validate at least one schema (anyOf)");
                causes.extend(results.into_iter().min_by_key(Vec::len).unwrap_or_default());
            }
        }
        if !props.one_of.is_empty() {
            let results: Vec<Vec<FieldError>> =
                props.one_of.iter().map(|branch| self.faults_of(branch)).collect();
            let fitting = results.iter().filter(|faults| faults.is_empty()).count();
            match fitting {
                1 => {}
                0 => {
                    refuse("validate one and only one schema (oneOf). Found none valid");
                    causes.extend(results.into_iter().min_by_key(Vec::len).unwrap_or_default());
                }
                many => {
                    refuse(&format!(
                        "validate one and only one schema (oneOf). Found {many} valid alternatives"
                    ));
                }
            }
        }
        if !props.all_of.is_empty() {
            let results: Vec<Vec<FieldError>> =
                props.all_of.iter().map(|branch| self.faults_of(branch)).collect();
            let fitting = results.iter().filter(|faults| faults.is_empty()).count();
            if fitting < results.len() {
                let none = if fitting == 0 { ". None validated" } else { "" };
                refuse(&format!("validate all the schemas (allOf){none}"));
                causes.extend(results.into_iter().flatten());
            }
        }
        if let Some(branch) = &props.not
            && self.faults_of(branch).is_empty()
        {
            refuse("not validate the schema (not)");
        }
        faults.extend(causes);
    }
}

fn too_many(path: &str, actual: i64, limit: i64) -> FieldError {
    let detail = format!("must have at most {limit} items");
    FieldError::new(FieldErrorKind::TooMany, path, actual.to_string(), detail)
}

/// The JSON type, a number without fraction being an integer.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() && number.as_f64().is_none_or(|n| n.fract() != 0.0) => {
            "number"
        }
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn compare(one: &Number, other: &Number) -> Ordering {
    match (one.as_i64(), other.as_i64()) {
        (Some(one), Some(other)) => one.cmp(&other),
        _ => one.as_f64().partial_cmp(&other.as_f64()).unwrap_or(Ordering::Equal),
    }
}

fn is_multiple(number: &Number, factor: &Number) -> bool {
    match (number.as_i64(), factor.as_i64()) {
        (Some(number), Some(factor)) if factor != 0 => number % factor == 0,
        _ => match (number.as_f64(), factor.as_f64()) {
            (Some(number), Some(factor)) if factor > 0.0 => {
                let quotient = number / factor;
                (quotient - quotient.round()).abs() < 1e-9
            }
            _ => true,
        },
    }
}

fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => compare(one, other) == Ordering::Equal,
        _ => one == other,
    }
}

/// A number as Go prints it: without a fraction that is zero.
fn go_number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if float.fract() == 0.0 && float.abs() < 1e21 => format!("{float:.0}"),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(schema: Value, value: Value) -> Vec<String> {
        let props = Props::read(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": schema}}}}),
        );
        let props = props.unwrap();
        let value = json!({"spec": {"x": value}});
        let mut faults = validate(&value, None, &props);
        faults.extend(validate_structure(&value, None, &props));
        faults.iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn every_rule_has_upstreams_words() {
        let cases = [
            (
                json!({"type": "integer"}),
                json!("a"),
                "spec.x: Invalid value: \"string\": spec.x in body must be of type integer: \"string\"",
            ),
            (
                json!({"type": "string"}),
                Value::Null,
                "spec.x: Invalid value: \"null\": spec.x in body must be of type string: \"null\"",
            ),
            (
                json!({"type": "integer", "minimum": 1}),
                json!(0),
                "spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1",
            ),
            (
                json!({"type": "number", "maximum": 1.5, "exclusiveMaximum": true}),
                json!(1.5),
                "spec.x: Invalid value: 1.5: spec.x in body should be less than 1.5",
            ),
            (
                json!({"type": "integer", "multipleOf": 5}),
                json!(7),
                "spec.x: Invalid value: 7: spec.x in body should be a multiple of 5",
            ),
            (
                json!({"type": "string", "pattern": "^a+$"}),
                json!("b"),
                "spec.x: Invalid value: \"b\": spec.x in body should match '^a+$'",
            ),
            (
                json!({"type": "string", "maxLength": 2}),
                json!("abc"),
                "spec.x: Too long: may not be more than 2 bytes",
            ),
            (
                json!({"type": "string", "minLength": 2}),
                json!("a"),
                "spec.x: Invalid value: \"a\": spec.x in body should be at least 2 chars long",
            ),
            (
                json!({"type": "string", "enum": ["a", "b"]}),
                json!("c"),
                "spec.x: Unsupported value: \"c\": supported values: \"a\", \"b\"",
            ),
            (
                json!({"type": "string", "format": "date-time"}),
                json!("now"),
                "spec.x: Invalid value: \"now\": spec.x in body must be of type date-time: \"now\"",
            ),
            (
                json!({"type": "array", "maxItems": 1, "items": {"type": "integer"}}),
                json!([1, 2]),
                "spec.x: Too many: 2: must have at most 1 items",
            ),
            (
                json!({"type": "array", "minItems": 1, "items": {"type": "integer"}}),
                json!([]),
                "spec.x: Invalid value: 0: spec.x in body should have at least 1 items",
            ),
            (
                json!({"type": "array", "items": {"type": "integer"}}),
                json!([1, "b"]),
                "spec.x[1]: Invalid value: \"string\": spec.x[1] in body must be of type integer: \"string\"",
            ),
            (json!({"type": "object", "required": ["y"]}), json!({}), "spec.x.y: Required value"),
            (
                json!({"x-kubernetes-int-or-string": true}),
                json!(true),
                "spec.x: Invalid value: \"boolean\": spec.x in body must be of type integer,string: \"boolean\"",
            ),
            (
                json!({"type": "string", "not": {"enum": ["a"]}}),
                json!("a"),
                "spec.x: Invalid value: \"\": \"spec.x\" must not validate the schema (not)",
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
                json!(["a", "b", "a"]),
                "spec.x[2]: Duplicate value: \"a\"",
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                    "items": {"type": "object", "properties": {"n": {"type": "string"}}}}),
                json!([{"n": "a"}, {"n": "a"}]),
                "spec.x[1]: Duplicate value: {\"n\":\"a\"}",
            ),
        ];
        for (schema, value, expected) in cases {
            assert_eq!(faults(schema, value), [expected]);
        }
    }

    #[test]
    fn good_values_pass() {
        assert!(faults(json!({"type": "integer"}), json!(3)).is_empty());
        assert!(faults(json!({"type": "number"}), json!(3)).is_empty());
        assert!(faults(json!({"type": "integer"}), json!(3.0)).is_empty());
        assert!(faults(json!({"type": "string", "nullable": true}), Value::Null).is_empty());
        assert!(faults(json!({"x-kubernetes-int-or-string": true}), json!("50%")).is_empty());
        assert!(
            faults(json!({"type": "string", "anyOf": [{"minLength": 3}, {"pattern": "^a"}]}), json!("a"))
                .is_empty()
        );
        assert!(faults(json!({"x-kubernetes-preserve-unknown-fields": true}), json!({"a": [1]})).is_empty());
    }

    #[test]
    fn long_lists_are_checked_in_no_time() {
        let keyed = |n: usize| json!({"n": n.to_string(), "v": "x"});
        let items: Vec<Value> = (0..100_000).map(keyed).collect();
        let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
            "uniqueItems": true,
            "items": {"type": "object", "properties": {"n": {"type": "string"}, "v": {"type": "string"}}}});
        let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}});
        let numbers: Vec<Value> = (0..100_000).map(Value::from).collect();
        for (schema, items) in [(map, items), (set, numbers)] {
            let props = Props::read(&json!({"type": "object", "properties": {"l": schema}})).unwrap();
            let old = json!({"l": items});
            let mut new = old.clone();
            new["l"].as_array_mut().unwrap().reverse();
            // Item by item against all others this would be ten thousand million comparisons, which takes minutes.
            assert!(validate(&new, Some(&old), &props).is_empty());
            assert!(validate_structure(&new, Some(&old), &props).is_empty());
        }
    }

    #[test]
    fn what_did_not_change_is_not_held_against_an_update() {
        let props = Props::read(&json!({"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 1}, "b": {"type": "string", "maxLength": 1},
            "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                "items": {"type": "object", "properties": {"n": {"type": "string"}, "v": {"type": "string", "maxLength": 1}}}},
        }}))
        .unwrap();
        let old = json!({"a": "long", "b": "x", "l": [{"n": "1", "v": "long"}, {"n": "2", "v": "x"}]});
        let new = json!({"a": "long", "b": "y", "l": [{"n": "2", "v": "y"}, {"n": "1", "v": "long"}]});
        assert!(validate(&new, Some(&old), &props).is_empty());
        let worse = json!({"a": "longer", "b": "y", "l": [{"n": "2", "v": "long"}, {"n": "1", "v": "long"}]});
        let paths: Vec<String> =
            validate(&worse, Some(&old), &props).into_iter().map(|fault| fault.field).collect();
        assert_eq!(paths, ["a", "l[0].v"]);
    }
}

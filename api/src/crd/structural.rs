//! Whether a schema is structural: every field has a type, and what merely validates adds no structure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Additional, Items, Props, prune, validate};
use crate::{FieldError, FieldErrorKind};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Every fault of a version's schema, rules in CEL not included. `path` is that of `openAPIV3Schema`.
pub fn validate_definition_schema(props: &Props, path: &str) -> Vec<FieldError> {
    let mut check = Check { faults: Vec::new() };
    match props.kind.as_str() {
        "" => check.required(path, "type", "must not be empty at the root"),
        "object" => {}
        other => {
            check.invalid(path, "type", &other.into(), "must be object at the root");
        }
    }
    if props.nullable {
        check.forbidden(path, "nullable", "nullable cannot be true at the root");
    }
    check.node(props, path, Place::Root);
    check.faults
}

/// Whether a regular expression can be compiled; the error is the detail of the fault.
pub fn validate_pattern(props: &Props) -> Result<(), String> {
    match props.pattern.as_ref().map(|pattern| &pattern.regex) {
        Some(Err(why)) => Err(format!("must be a valid regular expression, but isn't: {why}")),
        _ => Ok(()),
    }
}

/// Where a node stands, as far as the rules differ.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    Field,
    Item,
}

struct Check {
    faults: Vec<FieldError>,
}

fn below(path: &str, field: &str) -> String {
    format!("{path}.{field}")
}

impl Check {
    fn required(&mut self, path: &str, field: &str, detail: &str) {
        self.faults.push(FieldError::required(below(path, field), detail));
    }

    fn forbidden(&mut self, path: &str, field: &str, detail: &str) {
        self.faults.push(FieldError::forbidden(below(path, field), detail));
    }

    fn invalid(&mut self, path: &str, field: &str, value: &Value, detail: &str) {
        self.faults.push(FieldError::invalid(below(path, field), value, detail));
    }

    fn node(&mut self, props: &Props, path: &str, place: Place) {
        self.check_type(props, path, place);
        self.check_extensions(props, path, place);
        self.check_list(props, path);
        self.check_common(props, path);
        self.check_default(props, path);
        for (branches, name) in [(&props.all_of, "allOf"), (&props.any_of, "anyOf"), (&props.one_of, "oneOf")]
        {
            for (index, branch) in branches.iter().enumerate() {
                self.branch(branch, props, &format!("{path}.{name}[{index}]"), props.is_int_or_string);
            }
        }
        if let Some(not) = &props.not {
            self.branch(not, props, &below(path, "not"), false);
        }
        for (name, field) in &props.properties {
            let is_object_field = matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
            let path = format!("{path}.properties[{name}]");
            if (place == Place::Root || props.is_embedded) && is_object_field {
                self.object_field(name, field, &path);
            } else {
                self.node(field, &path, Place::Field);
            }
        }
        if let Some(item) = props.item() {
            self.node(item, &below(path, "items"), Place::Item);
        }
        if let Some(values) = props.values() {
            self.node(values, &below(path, "additionalProperties"), Place::Field);
        }
    }

    fn check_type(&mut self, props: &Props, path: &str, place: Place) {
        let kind = props.kind.as_str();
        if kind == "null" {
            self.forbidden(path, "type", "type cannot be set to null, use nullable as an alternative");
        } else if !kind.is_empty() && !TYPES.contains(&kind) {
            self.faults.push(FieldError::not_supported(below(path, "type"), &kind.into(), &TYPES));
        }
        let needs_none = props.is_int_or_string || props.keeps_unknown();
        match (kind, place) {
            ("", Place::Field) if !needs_none => {
                self.required(path, "type", "must not be empty for specified object fields");
            }
            ("", Place::Item) if !needs_none => {
                self.required(path, "type", "must not be empty for specified array items");
            }
            ("array", _) if props.items.is_none() => self.required(path, "items", "must be specified"),
            _ => {}
        }
    }

    fn check_extensions(&mut self, props: &Props, path: &str, place: Place) {
        if props.preserves_unknown == Some(false) {
            let detail = "must be true or undefined";
            self.invalid(path, "x-kubernetes-preserve-unknown-fields", &false.into(), detail);
        }
        if props.is_embedded {
            if props.kind.is_empty() {
                self.required(path, "type", "must be object if x-kubernetes-embedded-resource is true");
            } else if props.kind != "object" {
                let detail = "must be object if x-kubernetes-embedded-resource is true";
                self.invalid(path, "type", &props.kind.as_str().into(), detail);
            }
            if props.properties.is_empty() && !props.keeps_unknown() {
                let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
                self.required(path, "properties", detail);
            }
            if place == Place::Root {
                self.forbidden(path, "x-kubernetes-embedded-resource", "must not be used at the root");
            }
        }
        let maps = ["atomic", "granular"];
        if let Some(kind) = &props.map_type {
            if props.kind != "object" {
                let detail = "must be object if x-kubernetes-map-type is specified";
                self.invalid(path, "type", &props.kind.as_str().into(), detail);
            }
            if !maps.contains(&kind.as_str()) {
                let path = below(path, "x-kubernetes-map-type");
                self.faults.push(FieldError::not_supported(path, &kind.as_str().into(), &maps));
            }
        }
    }

    fn check_list(&mut self, props: &Props, path: &str) {
        let is_map = props.list_type.as_deref() == Some("map");
        if let Some(kind) = props.list_type.as_deref() {
            if props.kind != "array" {
                let detail = "must be array if x-kubernetes-list-type is specified";
                self.invalid(path, "type", &props.kind.as_str().into(), detail);
            }
            let lists = ["atomic", "map", "set"];
            if !lists.contains(&kind) {
                let path = below(path, "x-kubernetes-list-type");
                self.faults.push(FieldError::not_supported(path, &kind.into(), &lists));
            }
            if matches!(kind, "map" | "set") && props.item().is_some_and(|item| item.nullable) {
                let detail = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
                self.forbidden(path, "items.nullable", &detail);
            }
            if kind == "set" && props.item().is_some_and(is_composite) {
                let detail = "items must not be granular maps or lists if parent array's x-kubernetes-list-type is set";
                self.forbidden(path, "items", detail);
            }
        }
        if !is_map {
            if !props.list_keys.is_empty() {
                let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
                self.required(path, "x-kubernetes-list-type", detail);
            }
            return;
        }
        if props.list_keys.is_empty() {
            let detail = "must not be empty if x-kubernetes-list-type is map";
            self.required(path, "x-kubernetes-list-map-keys", detail);
        }
        let Some(item) = props.item() else { return };
        if item.kind != "object" {
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            self.invalid(path, "items.type", &item.kind.as_str().into(), detail);
        }
        let mut seen = BTreeSet::new();
        for (index, key) in props.list_keys.iter().enumerate() {
            let place = format!("x-kubernetes-list-map-keys[{index}]");
            if !seen.insert(key) {
                self.faults.push(FieldError::duplicate(below(path, &place), &key.as_str().into()));
            }
            match item.properties.get(key) {
                None => {
                    let detail = "entries must all be names of item properties";
                    self.invalid(path, &place, &key.as_str().into(), detail);
                }
                Some(field) if matches!(field.kind.as_str(), "object" | "array") => {
                    let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    let place = format!("items.properties[{key}].type");
                    self.invalid(path, &place, &field.kind.as_str().into(), detail);
                }
                Some(field) => {
                    if field.default.is_none() && !item.required.contains(key) {
                        let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                        self.required(path, &format!("items.properties[{key}].default"), detail);
                    }
                    if field.nullable {
                        let detail =
                            "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                        self.forbidden(path, &format!("items.properties[{key}].nullable"), detail);
                    }
                }
            }
        }
    }

    /// What no schema may say, structural or not.
    fn check_common(&mut self, props: &Props, path: &str) {
        if props.unique_items {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbidden(path, "uniqueItems", detail);
        }
        match &props.additional_properties {
            Some(Additional::Allowed(true)) => {}
            Some(_) if !props.properties.is_empty() => {
                let detail = "additionalProperties and properties are mutual exclusive";
                self.forbidden(path, "additionalProperties", detail);
            }
            _ => {}
        }
        if matches!(props.items, Some(Items::Tuple(_))) {
            self.forbidden(path, "items", "items must be a schema object and not an array");
        }
        for (name, is_set) in [
            ("$ref", props.reference.is_some()),
            ("definitions", props.definitions.is_some()),
            ("dependencies", props.dependencies.is_some()),
            ("patternProperties", props.pattern_properties.is_some()),
            ("additionalItems", props.additional_items.is_some()),
            ("id", !props.id.is_empty()),
        ] {
            if is_set {
                self.forbidden(path, name, &format!("{name} is not supported"));
            }
        }
        if let Err(why) = validate_pattern(props) {
            let text = props.pattern.as_ref().map(|pattern| pattern.text.clone()).unwrap_or_default();
            self.invalid(path, "pattern", &text.into(), &why);
        }
    }

    /// A default must be valid itself, and hold nothing that pruning would take away.
    fn check_default(&mut self, props: &Props, path: &str) {
        let Some(default) = &props.default else { return };
        let path = below(path, "default");
        let unknown = prune::unknown_fields(default, props, "", false);
        if !unknown.is_empty() {
            let detail = "must not have unknown fields";
            self.faults.push(FieldError::invalid(&path, default, detail));
        }
        let mut filled = default.clone();
        prune::set_defaults(&mut filled, props);
        for fault in validate::validate(&filled, None, props) {
            let place = if fault.field.is_empty() { path.clone() } else { format!("{path}.{}", fault.field) };
            self.faults.push(FieldError { field: place, ..fault });
        }
    }

    /// What stands at the root under `apiVersion`, `kind` or `metadata`.
    fn object_field(&mut self, name: &str, field: &Props, path: &str) {
        if name != "metadata" {
            if field.kind != "string" {
                self.invalid(path, "type", &field.kind.as_str().into(), "must be string");
            }
            return;
        }
        if field.kind != "object" {
            self.invalid(path, "type", &field.kind.as_str().into(), "must be object");
        }
        let is_other = |name: &&String| !matches!(name.as_str(), "name" | "generateName");
        if field.properties.keys().any(|name| is_other(&name)) || !field.required.is_empty() {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.faults.push(FieldError::forbidden(path, detail));
        }
    }

    /// A branch of a junctor validates; it may not say what there is.
    fn branch(&mut self, branch: &Props, core: &Props, path: &str, is_int_or_string: bool) {
        if is_int_or_string && matches!(branch.kind.as_str(), "integer" | "string") {
            return;
        }
        let empty = "must be empty to be structural";
        for (name, is_set) in [
            ("type", !branch.kind.is_empty()),
            ("title", !branch.title.is_empty()),
            ("description", !branch.description.is_empty()),
        ] {
            if is_set {
                self.forbidden(path, name, empty);
            }
        }
        if branch.default.is_some() {
            self.forbidden(path, "default", "must be undefined to be structural");
        }
        if branch.nullable {
            self.forbidden(path, "nullable", "must be false to be structural");
        }
        if branch.additional_properties.is_some() {
            self.forbidden(path, "additionalProperties", "must be undefined to be structural");
        }
        for (name, is_set) in [
            ("x-kubernetes-preserve-unknown-fields", branch.preserves_unknown.is_some()),
            ("x-kubernetes-embedded-resource", branch.is_embedded),
            ("x-kubernetes-int-or-string", branch.is_int_or_string),
            ("x-kubernetes-list-map-keys", !branch.list_keys.is_empty()),
            ("x-kubernetes-list-type", branch.list_type.is_some()),
            ("x-kubernetes-map-type", branch.map_type.is_some()),
            ("x-kubernetes-validations", !branch.rules.is_empty()),
        ] {
            if is_set {
                self.forbidden(path, name, "must be undefined to be structural");
            }
        }
        self.check_common(branch, path);
        for (name, field) in &branch.properties {
            let place = format!("{path}.properties[{name}]");
            match core.field(name) {
                Some(core) => self.branch(field, core, &place, core.is_int_or_string),
                None => {
                    let detail = format!("because it is defined in {place}");
                    self.faults.push(FieldError::new(
                        FieldErrorKind::Required,
                        format!("{}.properties[{name}]", core_path(path)),
                        String::new(),
                        detail,
                    ));
                }
            }
        }
        if let (Some(item), Some(core)) = (branch.item(), core.item()) {
            self.branch(item, core, &below(path, "items"), core.is_int_or_string);
        }
        for (branches, name) in
            [(&branch.all_of, "allOf"), (&branch.any_of, "anyOf"), (&branch.one_of, "oneOf")]
        {
            for (index, inner) in branches.iter().enumerate() {
                self.branch(inner, core, &format!("{path}.{name}[{index}]"), core.is_int_or_string);
            }
        }
        if let Some(not) = &branch.not {
            self.branch(not, core, &below(path, "not"), false);
        }
    }
}

/// The path of the schema that a branch belongs to.
fn core_path(path: &str) -> &str {
    let starts = [".allOf[", ".anyOf[", ".oneOf[", ".not"].iter().filter_map(|mark| path.find(mark));
    starts.min().map_or(path, |end| &path[..end])
}

fn is_composite(props: &Props) -> bool {
    match props.kind.as_str() {
        "object" => props.map_type.as_deref() != Some("atomic"),
        "array" => props.list_type.as_deref().is_some_and(|kind| kind != "atomic"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(schema: Value) -> Vec<String> {
        let props = Props::read(&json!({"type": "object", "properties": {"x": schema}})).unwrap();
        validate_definition_schema(&props, "s").iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn schemas_must_be_structural() {
        let cases = [
            (
                json!({}),
                "s.properties[x].type: Required value: must not be empty for specified object fields",
            ),
            (json!({"type": "array"}), "s.properties[x].items: Required value: must be specified"),
            (
                json!({"type": "text"}),
                "s.properties[x].type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
            ),
            (
                json!({"type": "string", "anyOf": [{"type": "string"}]}),
                "s.properties[x].anyOf[0].type: Forbidden: must be empty to be structural",
            ),
            (
                json!({"type": "object", "anyOf": [{"properties": {"y": {}}}]}),
                "s.properties[x].properties[y]: Required value: because it is defined in s.properties[x].anyOf[0].properties[y]",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
                "s.properties[x].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}),
                "s.properties[x].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
            ),
            (
                json!({"type": "integer", "default": "a"}),
                "s.properties[x].default: Invalid value: \"string\": must be of type integer: \"string\"",
            ),
            (
                json!({"type": "object", "default": {"a": 1}}),
                "s.properties[x].default: Invalid value: {\"a\":1}: must not have unknown fields",
            ),
            (
                json!({"type": "object", "x-kubernetes-embedded-resource": true}),
                "s.properties[x].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
            ),
        ];
        for (schema, expected) in cases {
            assert_eq!(faults(schema), [expected]);
        }
        let pattern = faults(json!({"type": "string", "pattern": "("}));
        assert!(pattern[0].contains("must be a valid regular expression, but isn't"), "{pattern:?}");
        assert!(faults(json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]})).is_empty());
        assert!(faults(json!({"x-kubernetes-preserve-unknown-fields": true})).is_empty());
    }

    #[test]
    fn what_upstream_takes_and_what_not() {
        assert!(faults(json!({"type": "object", "additionalProperties": false})).is_empty());
        assert!(faults(json!({"x-kubernetes-int-or-string": true, "type": "string"})).is_empty());
        let mixed =
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": false});
        assert_eq!(faults(mixed).len(), 1);
        let items = json!({"type": "string", "nullable": true});
        assert_eq!(
            faults(json!({"type": "array", "x-kubernetes-list-type": "set", "items": items})).len(),
            1
        );
    }
}

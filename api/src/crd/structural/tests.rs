//! Schemas and what upstream says of them.

use super::*;
use serde_json::json;

fn root(schema: Value) -> Vec<String> {
    let props = Props::read(&schema).unwrap();
    let exempt = Exemptions::default();
    validate_definition_schema(&props, "s", exempt).iter().map(FieldError::to_string).collect()
}

fn faults(schema: Value) -> Vec<String> {
    root(json!({"type": "object", "properties": {"x": schema}}))
}

#[test]
fn schemas_must_be_structural() {
    let cases = [
        (json!({}), "s.properties[x].type: Required value: must not be empty for specified object fields"),
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
    assert!(
        faults(
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]})
        )
        .is_empty()
    );
    assert!(faults(json!({"x-kubernetes-preserve-unknown-fields": true})).is_empty());
}

/// What a real API server says of each schema under `spec`, or of the whole with `root`.
#[test]
fn upstreams_verdicts() {
    let names_only =
        "must not specify anything other than name and generateName, but metadata is implicitly specified";
    let choice = json!([{"type": "integer"}, {"type": "string"}]);
    let text = json!({"type": "string"});
    let object = json!({"type": "object"});
    let set = |items: Value| json!({"type": "array", "x-kubernetes-list-type": "set", "items": items});
    let map = |keys: Value, items: Value| json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys, "items": items});
    let with_metadata = |metadata: Value| json!({"type": "object", "properties": {"metadata": metadata}});
    let rooted: Vec<(Value, Vec<String>)> = vec![
        (json!({"x-kubernetes-preserve-unknown-fields": true}), vec![]),
        (text.clone(), vec!["s.type: Invalid value: \"string\": must be object at the root".into()]),
        (json!({}), vec!["s.type: Required value: must not be empty at the root".into()]),
        (json!({"type": "object", "additionalProperties": true}), vec!["s.additionalProperties: Forbidden: must not be used at the root".into()]),
        (json!({"type": "object", "nullable": true}), vec!["s.nullable: Forbidden: nullable cannot be true at the root".into()]),
        (
            json!({"type": "object", "allOf": [{"properties": {"a": {"items": {"minimum": 1}}}}], "properties": {"a": {"type": "object"}}}),
            vec!["s.properties[a].items: Required value: because it is defined in s.allOf[0].properties[a].items".into()],
        ),
        (
            json!({"type": "object", "allOf": [{"properties": {"metadata": {"required": ["name"]}}}]}),
            vec![
                "s.allOf[0].properties[metadata]: Forbidden: must not be specified in a nested context".into(),
                "s.properties[metadata]: Required value: because it is defined in s.allOf[0].properties[metadata]".into(),
            ],
        ),
        (with_metadata(json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}, "generateName": text}})), vec![]),
        (with_metadata(json!({"type": "object", "properties": {"name": {}}})), vec!["s.properties[metadata].properties[name].type: Required value: must not be empty for specified object fields".into()]),
        (with_metadata(json!({"type": "object", "default": {"name": "a"}})), vec!["s.properties[metadata].default: Forbidden: must not be set in top-level metadata".into()]),
        (with_metadata(json!({"type": "object", "properties": {"name": {"type": "string", "default": "a"}}})), vec!["s.properties[metadata].properties[name].default: Forbidden: must not be set in top-level metadata".into()]),
        (
            json!({"type": "object", "properties": {"kind": {}}}),
            vec![
                "s.properties[kind].type: Required value: must not be empty for specified object fields".into(),
                "s.properties[kind].type: Invalid value: \"\": must be string".into(),
            ],
        ),
    ];
    for (schema, expected) in rooted {
        assert_eq!(root(schema.clone()), expected, "{schema}");
    }
    for metadata in [
        json!({"type": "object", "properties": {"labels": object}}),
        json!({"type": "object", "required": ["name"], "properties": {"name": text}}),
        json!({"type": "object", "description": "x"}),
        json!({"type": "object", "nullable": true}),
        json!({"type": "object", "maxProperties": 3}),
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        json!({"type": "object", "additionalProperties": text}),
    ] {
        let expected = [format!("s.properties[metadata]: Forbidden: {names_only}")];
        assert_eq!(root(with_metadata(metadata.clone())), expected, "{metadata}");
    }
    let nested: Vec<(Value, &[&str])> = vec![
        (json!({"type": "object", "additionalProperties": false}), &[]),
        (json!({"type": "object", "properties": {"metadata": text}}), &[]),
        (json!({"x-kubernetes-int-or-string": true, "type": "string"}), &[]),
        (json!({"x-kubernetes-int-or-string": true, "anyOf": choice}), &[]),
        (
            json!({"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": choice, "pattern": "a"}, {"pattern": "b"}]}),
            &[],
        ),
        (
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "string"}, {"type": "integer"}]}),
            &[
                ".anyOf[0].type: Forbidden: must be empty to be structural",
                ".anyOf[1].type: Forbidden: must be empty to be structural",
            ],
        ),
        (
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer", "default": 5}, {"type": "string"}]}),
            &[
                ".anyOf[0].type: Forbidden: must be empty to be structural",
                ".anyOf[0].default: Forbidden: must be undefined to be structural",
                ".anyOf[1].type: Forbidden: must be empty to be structural",
            ],
        ),
        (
            json!({"x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true}),
            &[
                ".x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if x-kubernetes-int-or-string is true",
            ],
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true, "additionalProperties": text}),
            &[".additionalProperties: Forbidden: must not be used if x-kubernetes-embedded-resource is set"],
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"kind": {"type": "integer"}, "metadata": {"type": "object", "properties": {"labels": object}}}}),
            &[".properties[kind].type: Invalid value: \"integer\": must be string"],
        ),
        (
            json!({"type": "object", "allOf": [{"items": {"minLength": 1}, "properties": {"x": {"minimum": 1}}}]}),
            &[],
        ),
        (
            json!({"type": "object", "properties": {"a": text}, "additionalProperties": false}),
            &[".additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
        ),
        (
            json!({"type": "object", "allOf": [{"description": "x", "title": "y", "nullable": true, "x-kubernetes-preserve-unknown-fields": true}]}),
            &[
                ".allOf[0].title: Forbidden: must be empty to be structural",
                ".allOf[0].description: Forbidden: must be empty to be structural",
                ".allOf[0].nullable: Forbidden: must be false to be structural",
                ".allOf[0].x-kubernetes-preserve-unknown-fields: Forbidden: must be false to be structural",
            ],
        ),
        (
            json!({"type": "object", "x-kubernetes-list-type": "set"}),
            &[".type: Invalid value: \"object\": must be array if x-kubernetes-list-type is specified"],
        ),
        (
            json!({"type": "array", "items": text, "x-kubernetes-list-type": "x"}),
            &[
                ".x-kubernetes-list-type: Unsupported value: \"x\": supported values: \"atomic\", \"set\", \"map\"",
            ],
        ),
        (set(json!({"type": "object", "x-kubernetes-map-type": "atomic"})), &[]),
        (
            set(object.clone()),
            &[
                ".items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set",
            ],
        ),
        (
            set(json!({"type": "string", "nullable": true})),
            &[".items.nullable: Forbidden: cannot be nullable when x-kubernetes-list-type is set"],
        ),
        (
            map(json!(["a"]), text.clone()),
            &[
                ".items.type: Invalid value: \"string\": must be object if parent array's x-kubernetes-list-type is map",
            ],
        ),
        (
            map(
                json!(["a", "b", "a"]),
                json!({"type": "object", "required": ["a"], "properties": {"a": text}}),
            ),
            &[
                ".x-kubernetes-list-map-keys: Invalid value: [\"a\",\"b\",\"a\"]: entries must all be names of item properties",
                ".x-kubernetes-list-map-keys: Invalid value: [\"a\",\"b\",\"a\"]: must not contain duplicate entries",
            ],
        ),
        (
            map(
                json!(["a"]),
                json!({"type": "object", "properties": {"a": {"type": "string", "nullable": true}}}),
            ),
            &[
                ".items.properties[a].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
                ".items.properties[a].nullable: Forbidden: this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            ],
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true,
                "default": {"kind": "A", "apiVersion": "v1", "metadata": {"labels": {"a": "b c"}}}}),
            &[".default.metadata.labels: Invalid value: \"b c\""],
        ),
    ];
    for (schema, expected) in nested {
        let found = faults(schema.clone());
        assert_eq!(found.len(), expected.len(), "{schema}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(&format!("s.properties[x]{expected}")), "{schema}: {found}");
        }
    }
}

#[test]
fn what_one_schema_broke_is_asked_of_none() {
    let text = json!({"type": "string"});
    let set = |items: Value| json!({"type": "array", "x-kubernetes-list-type": "set", "items": items});
    let flaws = [
        ("sets", set(json!({"type": "object"}))),
        ("keys", set(json!({"type": "string", "nullable": true}))),
        (
            "keys",
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"],
                "items": {"type": "object", "properties": {"a": text}}}),
        ),
        ("defaults", json!({"type": "object", "default": {"a": 1}})),
    ];
    let read = |schema: &Value| {
        Props::read(
            &json!({"type": "object", "properties": {"x": {"type": "object", "properties": {"y": schema}}}}),
        )
        .unwrap()
    };
    let asked = |new: &Value, old: &Value| {
        let exempt = Exemptions::of(&[read(&text), read(old)]);
        validate_definition_schema(&read(new), "s", exempt).len()
    };
    for (rule, flaw) in &flaws {
        assert_eq!(asked(flaw, &text), 1, "{flaw}");
        for (broken, old) in &flaws {
            assert_eq!(asked(flaw, old), usize::from(rule != broken), "{flaw} after {old}");
        }
    }
}

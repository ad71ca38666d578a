//! Brings a custom resource into the form that is kept: unknown fields go, defaults come.

use serde_json::{Map, Value};

use super::Props;

/// What every object has; at the root and in embedded resources it is not the schema's business.
const OBJECT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes what the schema does not know.
pub fn prune(value: &mut Value, props: &Props) {
    prune_value(value, Some(props), true);
}

/// The fields that pruning would remove from a value, as paths below `path`.
pub fn unknown_fields(value: &Value, props: &Props, path: &str, is_resource: bool) -> Vec<String> {
    let mut found = Vec::new();
    collect_unknown(value, Some(props), path, is_resource, &mut found);
    found
}

/// Sets absent fields to their defaults. Null counts as absent where it is no value of its own.
pub fn set_defaults(value: &mut Value, props: &Props) {
    match value {
        Value::Object(map) => {
            for (name, field) in &props.properties {
                let is_absent = map.get(name).is_none_or(|value| value.is_null() && !field.nullable);
                if is_absent && let Some(default) = &field.default {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                let Some(field) = props.field(name) else { continue };
                if value.is_null()
                    && !field.nullable
                    && let Some(default) = &field.default
                {
                    *value = default.clone();
                }
                set_defaults(value, field);
            }
        }
        Value::Array(items) => {
            let Some(item) = props.item() else { return };
            for value in items {
                if value.is_null()
                    && !item.nullable
                    && let Some(default) = &item.default
                {
                    *value = default.clone();
                }
                set_defaults(value, item);
            }
        }
        _ => {}
    }
}

/// Removes nulls from fields for which null is no value of its own and that have no default.
pub fn drop_nulls(value: &mut Value, props: &Props) {
    match value {
        Value::Object(map) => {
            map.retain(|name, value| {
                let field = props.field(name);
                !value.is_null()
                    || field.is_none_or(|field| {
                        field.nullable || field.default.as_ref().is_some_and(|value| !value.is_null())
                    })
            });
            for (name, value) in map.iter_mut() {
                if let Some(field) = props.field(name) {
                    drop_nulls(value, field);
                }
            }
        }
        Value::Array(items) => {
            let Some(item) = props.item() else { return };
            items.iter_mut().for_each(|value| drop_nulls(value, item));
        }
        _ => {}
    }
}

/// The schema of one field of a map; whether it is known at all.
fn field<'a>(props: Option<&'a Props>, name: &str) -> (Option<&'a Props>, bool) {
    let Some(props) = props else { return (None, false) };
    let schema = props.field(name);
    let is_any = matches!(props.additional_properties, Some(super::Additional::Allowed(true)));
    (schema, schema.is_some() || is_any || props.keeps_unknown())
}

fn prune_value(value: &mut Value, props: Option<&Props>, is_resource: bool) {
    let Some(props) = props else { return };
    let is_resource = is_resource || props.is_embedded;
    match value {
        Value::Object(map) => {
            map.retain(|name, _| is_kept(name, props, is_resource));
            for (name, value) in map.iter_mut() {
                // Metadata is pruned by its type, not by this schema.
                if !(is_resource && OBJECT_FIELDS.contains(&name.as_str())) {
                    prune_value(value, props.field(name), false);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|value| prune_value(value, props.item(), false)),
        _ => {}
    }
}

fn is_kept(name: &str, props: &Props, is_resource: bool) -> bool {
    (is_resource && OBJECT_FIELDS.contains(&name)) || field(Some(props), name).1
}

fn collect_unknown(
    value: &Value,
    props: Option<&Props>,
    path: &str,
    is_resource: bool,
    found: &mut Vec<String>,
) {
    let Some(props) = props else { return };
    let is_resource = is_resource || props.is_embedded;
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                if is_resource && OBJECT_FIELDS.contains(&name.as_str()) {
                    continue;
                }
                match field(Some(props), name) {
                    (_, false) => found.push(path),
                    (schema, true) => collect_unknown(value, schema, &path, false, found),
                }
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                collect_unknown(value, props.item(), &format!("{path}[{index}]"), false, found);
            }
        }
        _ => {}
    }
}

/// The parts of a map that are the schema's business.
pub(super) fn without_object_fields(map: &Map<String, Value>) -> Map<String, Value> {
    let own = map.iter().filter(|(name, _)| !OBJECT_FIELDS.contains(&name.as_str()));
    own.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn props() -> Props {
        Props::read(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "replicas": {"type": "integer", "default": 1},
            "note": {"type": "string", "nullable": true},
            "plain": {"type": "string"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"strict": {"type": "object", "properties": {"a": {"type": "string"}}}}},
            "nested": {"type": "object", "x-kubernetes-embedded-resource": true,
                "properties": {"spec": {"type": "object"}}},
            "items": {"type": "array", "items": {"type": "object", "properties": {
                "name": {"type": "string"}, "port": {"type": "integer", "default": 80}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "string", "default": "y"}}}},
        }}}}))
        .unwrap()
    }

    #[test]
    fn unknown_fields_go_unless_they_are_preserved() {
        let mut value = json!({"apiVersion": "g/v", "kind": "K", "metadata": {"name": "a"}, "other": 1, "spec": {
            "replicas": 2, "unknown": 1,
            "free": {"any": {"thing": 1}, "strict": {"a": "b", "c": "d"}},
            "nested": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"gone": 1}, "more": 1},
            "items": [{"name": "n", "bad": 1}],
            "map": {"k": {"x": "1", "z": 1}},
        }});
        let unknown = unknown_fields(&value, &props(), "", true);
        assert_eq!(
            unknown,
            [
                "other",
                "spec.free.strict.c",
                "spec.items[0].bad",
                "spec.map.k.z",
                "spec.nested.more",
                "spec.nested.spec.gone",
                "spec.unknown"
            ]
        );
        prune(&mut value, &props());
        assert_eq!(value["spec"]["free"], json!({"any": {"thing": 1}, "strict": {"a": "b"}}));
        assert_eq!(
            value["spec"]["nested"],
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}})
        );
        assert!(unknown_fields(&value, &props(), "", true).is_empty());
    }

    #[test]
    fn defaults_come_where_something_is_missing() {
        let mut value =
            json!({"spec": {"replicas": null, "note": null, "plain": null, "items": [{}], "map": {"k": {}}}});
        drop_nulls(&mut value, &props());
        set_defaults(&mut value, &props());
        assert_eq!(
            value,
            json!({"spec": {"replicas": 1, "note": null, "items": [{"port": 80}], "map": {"k": {"x": "y"}}}})
        );
        // A default fills a map that is there; it does not make the map.
        let mut empty = json!({});
        set_defaults(&mut empty, &props());
        assert_eq!(empty, json!({}));
    }
}

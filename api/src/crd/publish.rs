//! A custom resource's schema as OpenAPI publishes it.

use serde_json::{Map, Value, json};

use super::Version;

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// The definition of a version's objects. `metadata` makes a reference to ObjectMeta with a description; v2 knows
/// fewer words than v3.
pub fn definition(version: &Version, metadata: impl Fn(&str) -> Value, is_v2: bool) -> Value {
    let mut schema = match version.source {
        Value::Object(schema) => schema.clone(),
        _ => Map::from_iter([("type".to_string(), json!("object"))]),
    };
    if version.props.keeps_unknown() && !schema.contains_key("x-kubernetes-preserve-unknown-fields") {
        schema.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
    }
    let mut schema = Value::Object(schema);
    if is_v2 {
        simplify(&mut schema);
        if version.props.keeps_unknown() {
            // Old clients would refuse what they do not know.
            return json!({"type": "object"});
        }
    }
    embed(&mut schema, &metadata(METADATA), true);
    schema
}

/// Takes out what v2 has no words for.
fn simplify(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for word in ["oneOf", "anyOf", "allOf", "not"] {
        map.remove(word);
    }
    let is_free = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if map.remove("nullable") == Some(Value::Bool(true)) {
        // Null would be refused by a client that goes by the type.
        for word in ["type", "items", "properties"] {
            map.remove(word);
        }
    }
    if is_free {
        map.remove("items");
        map.remove("properties");
        map.remove("type");
    }
    if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        map.remove("type");
    }
    for word in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(word) {
            simplify(inner);
        }
    }
    for field in map.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        simplify(field.1);
    }
}

/// Says what every object has, at the root and in embedded resources.
fn embed(schema: &mut Value, metadata: &Value, is_resource: bool) {
    let Some(map) = schema.as_object_mut() else { return };
    let is_resource = is_resource || map.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
    if is_resource {
        let properties = map.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            properties.insert("apiVersion".into(), json!({"description": API_VERSION, "type": "string"}));
            properties.insert("kind".into(), json!({"description": KIND, "type": "string"}));
            properties.insert("metadata".into(), metadata.clone());
        }
    }
    for word in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(word) {
            embed(inner, metadata, false);
        }
    }
    for (name, field) in map.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        if !(is_resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata")) {
            embed(field, metadata, false);
        }
    }
}

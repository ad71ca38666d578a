//! Bodies of requests, in each of the three forms.

use serde_json::Value;

use super::pod;
use crate::{
    decode::{self, Decoded},
    kind::Verbs,
    kinds, protobuf,
    schema::{self, Schema},
};

/// A body in JSON.
pub fn json(data: &[u8]) {
    body(data, "application/json");
}

/// A body in YAML.
pub fn yaml(data: &[u8]) {
    body(data, "application/yaml");
}

/// A body in protobuf. What was read is the same once it is written again, and no other than its JSON is.
pub fn protobuf(data: &[u8]) {
    let Ok(object) = protobuf::decode(data) else { return };
    let value = object.into_value();
    assert_eq!(through_protobuf(&value), value);
    if let Some(schema) = schema_of(&value) {
        let from_json = decode::check(value, Some(schema)).map(|decoded| decoded.object);
        let from_protobuf = decode::protobuf(data, Some(schema)).map(|decoded| decoded.object);
        assert_eq!(from_protobuf.ok(), from_json.ok());
    }
}

/// What was read is the same in whichever form it is read again; what was brought into the form that is stored has
/// that form.
fn body(data: &[u8], content_type: &str) {
    let Ok(plain) = decode::decode(data, content_type, None) else { return };
    let value = plain.object.into_value();
    let read = again(&value.to_string(), "application/json");
    assert_eq!(read, value);
    let text = serde_yaml::to_string(&value).expect("JSON can be written as YAML");
    // Brackets count also where they are part of text.
    if text.matches(['[', '{']).count() < 200 {
        assert_eq!(again(&text, "application/yaml"), value);
    }

    let known = schema_of(&value);
    let schema = known.unwrap_or_else(pod);
    if let Ok(first) = decode::configuration(value, Some(schema)) {
        assert_settled(decode::configuration, first.object.into_value(), schema);
    }
    let Ok(decoded) = decode::decode(data, content_type, Some(schema)) else { return };
    let value = decoded.object.into_value();
    assert_settled(decode::check, value.clone(), schema);
    if known.is_some() {
        let read = decode::check(through_protobuf(&value), known).expect("what was written can be read");
        assert_eq!(without_zeros(read.object.into_value()), without_zeros(value));
    }
}

fn again(text: &str, content_type: &str) -> Value {
    let Decoded { object, faults } =
        decode::decode(text.as_bytes(), content_type, None).expect("what was written can be read");
    assert!(faults.is_empty(), "{faults}");
    object.into_value()
}

fn assert_settled(
    read: fn(Value, Option<&Schema>) -> Result<Decoded, String>,
    value: Value,
    schema: &'static Schema,
) {
    let Decoded { object, faults } = read(value.clone(), Some(schema)).expect("what was read can be read");
    assert!(faults.is_empty(), "{faults}");
    assert_eq!(object.into_value(), value);
}

/// The type of a built-in object that clients write, if it says that it is one.
fn schema_of(value: &Value) -> Option<&'static Schema> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let kind = kinds::find_kind(group, version, text("kind"))?;
    schema::of(kind).filter(|_| !matches!(kind.verbs, Verbs::Read))
}

fn through_protobuf(value: &Value) -> Value {
    let written = protobuf::document(value.to_string().as_bytes()).expect("what was read can be written");
    match written {
        Some(written) => protobuf::decode(&written).expect("what was written can be read").into_value(),
        None => value.clone(),
    }
}

/// Without the members that protobuf cannot tell from nothing.
fn without_zeros(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(without_zeros).collect(),
        Value::Object(map) => {
            let members = map.into_iter().map(|(key, value)| (key, without_zeros(value)));
            Value::Object(members.filter(|(_, value)| !decode::is_zero(value)).collect())
        }
        scalar => scalar,
    }
}

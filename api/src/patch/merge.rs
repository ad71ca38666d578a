//! JSON merge patch (RFC 7386): maps are merged, null removes, everything else is replaced.

use serde_json::{Map, Value};

use super::without_nulls;
use crate::Status;

/// Applies a merge patch, which must be a map.
pub fn merge_patch(original: &Value, patch: &Value) -> Result<Value, Status> {
    match (original, patch) {
        (Value::Object(original), Value::Object(patch)) => Ok(Value::Object(merged(original.clone(), patch))),
        _ => Err(Status::bad_request("Invalid JSON Patch")),
    }
}

fn merged(mut original: Map<String, Value>, patch: &Map<String, Value>) -> Map<String, Value> {
    for (key, change) in patch {
        let value = match (original.remove(key), change) {
            (_, Value::Null) => continue,
            (Some(Value::Object(before)), Value::Object(change)) => Value::Object(merged(before, change)),
            _ => without_nulls(change.clone()),
        };
        original.insert(key.clone(), value);
    }
    original
}

//! JSON patch (RFC 6902): a list of operations, all of which succeed or none.

use json_patch::{PatchOperation, patch_unsafe};
use serde::Deserialize;
use serde_json::Value;

use super::inapplicable;
use crate::{Status, decode::DEPTH_LIMIT};

const OPERATIONS_LIMIT: usize = 10_000;

/// How many bytes all copies of a patch may make, so that doubling a value again and again ends soon.
const COPY_LIMIT: usize = 3 << 20;

/// Applies a JSON patch. 400 when it is no list of operations, 422 when an operation fails.
pub fn json_patch(original: &Value, patch: &Value) -> Result<Value, Status> {
    let operations = operations(patch)?;
    let mut value = original.clone();
    let mut copied = 0;
    for operation in operations {
        let operation = PatchOperation::deserialize(operation).map_err(|_| inapplicable())?;
        copied += copied_bytes(&value, &operation);
        if copied > COPY_LIMIT {
            return Err(inapplicable());
        }
        if is_absence_test(&value, &operation) {
            continue;
        }
        patch_unsafe(&mut value, std::slice::from_ref(&operation)).map_err(|_| inapplicable())?;
        let may_deepen = !matches!(operation, PatchOperation::Remove(_) | PatchOperation::Test(_));
        if may_deepen && is_deeper_than(&value, DEPTH_LIMIT) {
            return Err(inapplicable());
        }
    }
    Ok(value)
}

fn operations(patch: &Value) -> Result<&[Value], Status> {
    let go_kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let malformed = |value: &Value, into: &str| {
        Status::bad_request(format!("json: cannot unmarshal {} into Go value of type {into}", go_kind(value)))
    };
    let operations = patch.as_array().ok_or_else(|| malformed(patch, "jsonpatch.Patch"))?;
    if let Some(wrong) = operations.iter().find(|operation| !operation.is_object()) {
        return Err(malformed(wrong, "jsonpatch.Operation"));
    }
    if operations.len() > OPERATIONS_LIMIT {
        let message = format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {OPERATIONS_LIMIT}, got {}",
            operations.len()
        );
        return Err(Status::new(413, "RequestEntityTooLarge", message));
    }
    Ok(operations)
}

fn copied_bytes(value: &Value, operation: &PatchOperation) -> usize {
    match operation {
        PatchOperation::Copy(copy) => value.pointer(copy.from.as_str()).map_or(0, size),
        _ => 0,
    }
}

/// To test for null is to test that nothing is there.
fn is_absence_test(value: &Value, operation: &PatchOperation) -> bool {
    match operation {
        PatchOperation::Test(test) => test.value.is_null() && value.pointer(test.path.as_str()).is_none(),
        _ => false,
    }
}

/// About how many bytes a value takes as text.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| size(item) + 1).sum::<usize>(),
        Value::Object(map) => 2 + map.iter().map(|(key, value)| key.len() + size(value) + 4).sum::<usize>(),
        _ => 5,
    }
}

fn is_deeper_than(value: &Value, limit: usize) -> bool {
    match value {
        Value::Array(_) | Value::Object(_) if limit == 0 => true,
        Value::Array(items) => items.iter().any(|item| is_deeper_than(item, limit - 1)),
        Value::Object(map) => map.values().any(|value| is_deeper_than(value, limit - 1)),
        _ => false,
    }
}

//! The three ways to patch an object: JSON patch, merge patch and strategic merge patch.
//!
//! Each takes the object as it is and the patch, and gives the object as it will be, or upstream's answer to
//! a patch that cannot be applied. What comes out is still to be checked by [`crate::decode::check`].

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod difference;
mod json;
mod merge;
mod strategic;

pub use json::json_patch;
pub use merge::merge_patch;
pub use strategic::strategic_merge;

use serde_json::{Value, json};

use crate::Status;

/// 422 without particulars, as upstream answers patches that are well-formed and cannot be applied.
fn inapplicable() -> Status {
    let mut status =
        Status::new(422, "Invalid", "the server rejected our request due to an error in our request");
    status.details = Some(json!({}));
    status
}

/// Removes nulls from maps, however deep.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod tests;

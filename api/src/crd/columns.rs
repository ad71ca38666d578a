//! What `kubectl get` prints of a custom resource.

use jiff::Timestamp;
use serde_json::Value;

use super::Path;
use crate::{Object, table};

/// Where a column finds its cells.
#[derive(Debug)]
pub struct CustomColumn {
    path: Path,
    kind: String,
}

impl CustomColumn {
    /// A column of a definition.
    pub(super) fn new(path: &str, kind: &str) -> Option<CustomColumn> {
        Some(CustomColumn { path: Path::parse(path).ok()?, kind: kind.to_string() })
    }

    /// The cell for an object.
    pub fn cell(&self, object: &Object, now: Timestamp) -> Value {
        let Some((first, rest)) = self.path.fields().and_then(|mut names| {
            let first = (!names.is_empty()).then(|| names.remove(0))?;
            Some((first, names))
        }) else {
            // Anything but a plain path needs the whole object as a value.
            let whole = Value::Object(object.0.clone());
            return self.path.find(&whole).map_or(Value::Null, |value| self.shown(value, now));
        };
        let found = object.0.get(&first);
        let found = rest.iter().try_fold(found, |value, name| Some(value?.get(name)));
        found.flatten().map_or(Value::Null, |value| self.shown(value, now))
    }

    fn shown(&self, value: &Value, now: Timestamp) -> Value {
        match (self.kind.as_str(), value) {
            ("integer", Value::Number(number)) => number
                .as_i64()
                .or_else(|| number.as_f64().map(|float| float as i64))
                .map_or(Value::Null, Value::from),
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
            ("date", Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(_) => table::since(text, now).into(),
                Err(_) => "<invalid>".into(),
            },
            ("string", Value::String(_)) => value.clone(),
            ("string", Value::Null) => Value::Null,
            ("string", other) => other.to_string().into(),
            _ => Value::Null,
        }
    }
}

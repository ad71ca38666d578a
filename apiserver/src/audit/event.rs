//! An audit event, in upstream's form.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::policy::{Level, Stage};

/// One line of the log.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    pub(super) kind: &'static str,
    pub(super) api_version: &'static str,
    pub(super) level: Level,
    #[serde(rename = "auditID")]
    pub(super) audit_id: String,
    pub(super) stage: Stage,
    #[serde(rename = "requestURI")]
    pub(super) request_uri: String,
    pub(super) verb: &'static str,
    pub(super) user: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) impersonated_user: Value,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub(super) source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) user_agent: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) object_ref: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) response_status: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) request_object: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) response_object: Value,
    #[serde(serialize_with = "micro_time")]
    pub(super) request_received_timestamp: Timestamp,
    #[serde(serialize_with = "micro_time")]
    pub(super) stage_timestamp: Timestamp,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

fn micro_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&api::time::format_micro(*time))
}

/// An object, or a list of them, without `managedFields`.
pub(super) fn without_managed_fields(mut body: Value) -> Value {
    let strip = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    strip(&mut body);
    if let Some(items) = body.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(strip);
    }
    body
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn managed_fields_go_from_objects_and_from_lists() {
        let object = json!({"metadata": {"name": "a", "managedFields": [{}]}});
        assert_eq!(without_managed_fields(object.clone()), json!({"metadata": {"name": "a"}}));
        let list = json!({"metadata": {}, "items": [object]});
        assert_eq!(
            without_managed_fields(list),
            json!({"metadata": {}, "items": [{"metadata": {"name": "a"}}]})
        );
    }
}

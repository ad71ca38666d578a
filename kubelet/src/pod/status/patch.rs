//! The smallest patch that turns the status that the API has into the one that it should have.

use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
use serde_json::{Map, Value, json};

/// Lists that a strategic merge would add to where we mean to replace.
const MERGED_LISTS: [&str; 2] = ["podIPs", "hostIPs"];

/// A strategic merge patch for the status subresource, `None` when there is nothing to tell. Conditions of
/// others are never mentioned, so that nobody's write is undone; the uid keeps the patch from another pod
/// of the same name.
pub fn status_patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let mut changes = Map::new();
    let (Value::Object(before), Value::Object(after)) = (to_value(old), to_value(new)) else { return None };
    for (field, value) in &after {
        if field != "conditions" && before.get(field) != Some(value) {
            changes.insert(field.clone(), as_patch(field, value));
        }
    }
    for field in before.keys().filter(|field| !after.contains_key(*field)) {
        changes.insert(field.clone(), Value::Null);
    }
    let conditions = changed_conditions(old, new);
    if !conditions.is_empty() {
        changes.insert("conditions".into(), Value::Array(conditions));
    }
    (!changes.is_empty()).then(|| json!({ "metadata": { "uid": uid }, "status": changes }))
}

fn as_patch(field: &str, value: &Value) -> Value {
    match value {
        Value::Array(items) if MERGED_LISTS.contains(&field) => {
            let replace = std::iter::once(json!({ "$patch": "replace" }));
            Value::Array(replace.chain(items.iter().cloned()).collect())
        }
        other => other.clone(),
    }
}

fn changed_conditions(old: &PodStatus, new: &PodStatus) -> Vec<Value> {
    let before = old.conditions.as_deref().unwrap_or_default();
    let after = new.conditions.as_deref().unwrap_or_default();
    let changed = after.iter().filter(|condition| !before.contains(condition)).map(condition_patch);
    // What is not kept was ours and is over.
    let is_over = |old: &&PodCondition| after.iter().all(|new| new.type_ != old.type_);
    let over = before.iter().filter(is_over).map(|old| json!({ "type": old.type_, "$patch": "delete" }));
    changed.chain(over).collect()
}

/// A reason or message that no longer holds has to be removed by name.
fn condition_patch(condition: &PodCondition) -> Value {
    let mut patch = to_value(condition);
    if let Value::Object(fields) = &mut patch {
        for field in ["reason", "message"] {
            fields.entry(field).or_insert(Value::Null);
        }
    }
    patch
}

fn to_value(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("API types are plain JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(phase: &str, ready: &str) -> PodStatus {
        let condition =
            PodCondition { type_: "Ready".into(), status: ready.into(), ..PodCondition::default() };
        PodStatus { phase: Some(phase.into()), conditions: Some(vec![condition]), ..PodStatus::default() }
    }

    #[test]
    fn nothing_new_is_no_patch() {
        assert_eq!(status_patch("u", &status("Running", "True"), &status("Running", "True")), None);
    }

    #[test]
    fn only_what_changed_is_sent() {
        let mut new = status("Running", "True");
        new.pod_ips = Some(vec![k8s_openapi::api::core::v1::PodIP { ip: "10.0.0.1".into() }]);
        let patch = status_patch("u", &status("Running", "False"), &new).unwrap();
        let expected = json!({
            "metadata": { "uid": "u" },
            "status": {
                "conditions": [{ "type": "Ready", "status": "True", "reason": null, "message": null }],
                "podIPs": [{ "$patch": "replace" }, { "ip": "10.0.0.1" }],
            },
        });
        assert_eq!(patch, expected);
    }

    #[test]
    fn what_is_gone_is_removed_by_name() {
        let mut old = status("Running", "True");
        old.reason = Some("Evicted".into());
        let patch = status_patch("u", &old, &status("Running", "True")).unwrap();
        assert_eq!(patch["status"], json!({ "reason": null }));
    }

    #[test]
    fn a_condition_that_is_over_is_deleted_by_its_type() {
        let patch = status_patch(
            "u",
            &status("Running", "True"),
            &PodStatus { conditions: Some(Vec::new()), ..status("Running", "True") },
        );
        let conditions = &patch.unwrap()["status"]["conditions"];
        assert_eq!(conditions, &json!([{ "type": "Ready", "$patch": "delete" }]));
    }
}

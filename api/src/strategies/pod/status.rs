//! What a kubelet reports about a pod.

use std::{collections::HashMap, net::IpAddr};

use serde_json::Value;

use crate::strategies::check::{Faults, Field};
use crate::{FieldError, Object, name};

/// Puts back what reports leave out or may not touch: the class, the owners, which generation was seen.
pub fn complete(object: &mut Object, old: &Object) {
    match old.at(&["metadata", "ownerReferences"]) {
        Some(owners) => object.set(&["metadata", "ownerReferences"], owners.clone()),
        None => drop(object.remove(&["metadata", "ownerReferences"])),
    }
    for field in ["qosClass", "observedGeneration"] {
        if let Some(value) = old.at(&["status", field]) {
            object.set_if_absent(&["status", field], value.clone());
        }
    }
    let mut seen: HashMap<&str, Vec<&Value>> = HashMap::new();
    for condition in old.list(&["status", "conditions"]).iter().rev() {
        let kind = condition["type"].as_str().unwrap_or_default();
        seen.entry(kind).or_default().push(&condition["observedGeneration"]);
    }
    let conditions = object.0.get_mut("status").and_then(|status| status.get_mut("conditions"));
    for condition in conditions.and_then(Value::as_array_mut).into_iter().flatten() {
        let before = seen.get_mut(condition["type"].as_str().unwrap_or_default()).and_then(Vec::pop);
        if let Some(generation) = before.filter(|generation| generation.is_number())
            && condition.get("observedGeneration").is_none()
        {
            condition["observedGeneration"] = generation.clone();
        }
    }
}

/// The faults of a report.
pub fn validate(object: &Object, old: &Object) -> Vec<FieldError> {
    let mut faults = Faults::new();
    let status = Field::at(object, &["status"]);
    for condition in status.get("conditions").items() {
        let kind = condition.get("type");
        if !matches!(kind.text(), "PodScheduled" | "Ready" | "Initialized") {
            // Upstream's path.
            let path = kind.path.replacen("status", "metadata", 1).replacen(".type", ".Type", 1);
            faults.fits(&Field { path, ..kind }, name::qualified_name);
        }
    }
    let class = ["status", "qosClass"];
    if !old.text(&class).is_empty() {
        faults.immutable(&Field::at(object, &class), &Field::at(old, &class));
    }
    let policy = old.text(&["spec", "restartPolicy"]);
    for list in ["containerStatuses", "initContainerStatuses"] {
        validate_ends(&status.get(list), old, policy, &mut faults);
    }
    validate_addresses(&status.get("podIPs"), &mut faults);
    faults.0
}

/// What has ended and is not started again stays ended. A sidecar is started again whatever its pod's policy.
fn validate_ends(statuses: &Field, old: &Object, policy: &str, faults: &mut Faults) {
    if policy == "Always" {
        return;
    }
    let list = statuses.path.rsplit('.').next().unwrap_or_default();
    let is_sidecar = |name: &Value| {
        let containers = old.list(&["spec", "initContainers"]).iter();
        list == "initContainerStatuses"
            && containers.into_iter().any(|it| it["name"] == *name && it["restartPolicy"] == "Always")
    };
    for (index, before) in old.list(&["status", list]).iter().enumerate() {
        let Some(end) = before["state"].get("terminated").filter(|end| !end.is_null()) else { continue };
        let has_failed = end["exitCode"].as_i64().unwrap_or_default() != 0;
        if is_sidecar(&before["name"]) || has_failed && policy == "OnFailure" {
            continue;
        }
        let now = statuses.items().find(|status| status.value["name"] == before["name"]);
        if now.is_some_and(|status| !status.get("state").get("terminated").is_set()) {
            let path = format!("{}[{index}].state", statuses.path);
            faults.0.push(FieldError::forbidden(path, "may not be transitioned to non-terminated state"));
        }
    }
}

/// One address of each family at most.
fn validate_addresses(addresses: &Field, faults: &mut Faults) {
    let mut families = Vec::new();
    for address in addresses.items() {
        let text = address.get("ip").text();
        match text.parse::<IpAddr>() {
            Ok(ip) => families.push(ip.is_ipv4()),
            Err(_) => {
                let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                faults.0.push(FieldError::invalid(&address.path, &text.into(), detail));
            }
        }
    }
    if addresses.len() > 1 && !matches!(families.as_slice(), [one, other] if one != other) {
        faults.invalid(addresses, "may specify no more than one IP for each IP family");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: Value) -> Object {
        Object::from_value(json!({
            "metadata": {"name": "a"}, "spec": {"restartPolicy": "OnFailure"}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_report_loses_neither_class_nor_what_was_seen() {
        let old = pod(json!({
            "qosClass": "Burstable", "observedGeneration": 2,
            "conditions": [{"type": "Ready", "observedGeneration": 2}, {"type": "Own"}],
        }));
        let mut new = pod(json!({"conditions": [{"type": "Own"}, {"type": "Ready"}]}));
        new.set(&["metadata", "ownerReferences"], json!([{"name": "thief"}]));
        complete(&mut new, &old);
        assert_eq!(
            new.at(&["status"]),
            Some(&json!({
                "qosClass": "Burstable", "observedGeneration": 2,
                "conditions": [{"type": "Own"}, {"type": "Ready", "observedGeneration": 2}],
            }))
        );
        assert_eq!(new.at(&["metadata", "ownerReferences"]), None);
    }

    #[test]
    fn a_report_says_only_what_can_be() {
        let ended = |code: i64| json!({"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": code}}}]});
        let running = json!({"containerStatuses": [{"name": "c", "state": {"running": {}}}]});
        let told = |new: Value, old: Value| -> Vec<String> {
            validate(&pod(new), &pod(old)).iter().map(FieldError::to_string).collect()
        };
        assert_eq!(
            told(running.clone(), ended(0)),
            ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"]
        );
        assert_eq!(told(running, ended(1)), [""; 0]);
        let addresses =
            |list: &[&str]| json!({"podIPs": list.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>()});
        assert_eq!(told(addresses(&["10.0.0.1", "fd00::1"]), json!({})), [""; 0]);
        assert!(told(addresses(&["10.0.0.1", "10.0.0.2"]), json!({}))[0].ends_with("for each IP family"));
        assert!(told(addresses(&["x"]), json!({}))[0].starts_with("status.podIPs[0]: Invalid value: \"x\""));
        assert!(
            told(json!({"conditions": [{"type": "a b"}]}), json!({}))[0]
                .starts_with("metadata.conditions[0].Type: Invalid value: \"a b\"")
        );
    }
}

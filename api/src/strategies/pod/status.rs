//! What a kubelet reports about a pod.

use std::{collections::HashMap, net::IpAddr};

use serde_json::Value;

use crate::strategies::check::{Faults, Field};
use crate::strategies::ports;
use crate::{FieldError, Object, name};

/// Puts back what reports leave out or may not touch: the class, the owners, which generation was seen.
pub fn complete(object: &mut Object, old: &Object) {
    object.take_over(&["metadata", "ownerReferences"], old);
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
    let [old_spec, old_status] = ["spec", "status"].map(|part| Field::at(old, &[part]));
    for (containers, list) in
        [("containers", "containerStatuses"), ("initContainers", "initContainerStatuses")]
    {
        let may_return = |name: &str, exit_code: i64| may_return(&old_spec, containers, name, exit_code);
        validate_ends(&status.get(list), &old_status.get(list), may_return, &mut faults);
    }
    validate_addresses(&status.get("podIPs"), &old_status.get("podIPs"), &mut faults);
    faults.0
}

/// What has ended and is not started again stays ended.
fn validate_ends(now: &Field, old: &Field, may_return: impl Fn(&str, i64) -> bool, faults: &mut Faults) {
    for before in old.items() {
        let (name, end) = (before.get("name").text(), before.get("state").get("terminated"));
        if !end.is_set() || may_return(name, end.get("exitCode").number().unwrap_or_default()) {
            continue;
        }
        let status = now.items().find(|status| status.get("name").text() == name);
        if status.is_some_and(|status| !status.get("state").get("terminated").is_set()) {
            faults.forbidden(&before.get("state"), "may not be transitioned to non-terminated state");
        }
    }
}

/// Whether a container that ended so may be started again: by one of its rules, its own policy or else its pod's.
/// In doubt it may; a refusal would keep the kubelet from telling what is.
fn may_return(spec: &Field, list: &str, name: &str, exit_code: i64) -> bool {
    let restarts = |policy: &str| match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    };
    let of_pod = spec.get("restartPolicy").text();
    let container = spec.get(list).items().find(|container| container.get("name").text() == name);
    let container = container.unwrap_or(Field::NOTHING);
    let policy = match container.get("restartPolicy").text() {
        // A new sandbox has its init containers run again, whatever they say themselves and however they ended. Only
        // a pod that is never started again has no second one.
        _ if list == "initContainers" && of_pod != "Never" => "Always",
        "" => of_pod,
        own => own,
    };
    let mut rules = container.get("restartPolicyRules").items();
    restarts(policy)
        || rules.any(|rule| rule.get("action").text() == "Restart" && covers(&rule, exit_code))
        || may_all_return(spec)
}

/// Whether a rule is about this exit code.
fn covers(rule: &Field, exit_code: i64) -> bool {
    let codes = rule.get("exitCodes");
    let is_listed = codes.get("values").items().any(|code| code.number() == Some(exit_code));
    match codes.get("operator").text() {
        "In" => is_listed,
        "NotIn" => !is_listed,
        _ => false,
    }
}

/// Whether the end of some container may have all of them started again.
fn may_all_return(spec: &Field) -> bool {
    let containers = ["containers", "initContainers"].into_iter().flat_map(|list| spec.get(list).items());
    containers
        .flat_map(|container| container.get("restartPolicyRules").items())
        .any(|rule| rule.get("action").text() == "RestartAllContainers")
}

/// One address of each family at most. What is no address may stay if it stands there already.
fn validate_addresses(addresses: &Field, old: &Field, faults: &mut Faults) {
    let mut families = Vec::new();
    for address in addresses.items() {
        let text = address.get("ip").text();
        let family = text.parse::<IpAddr>().ok().map(|ip| ip.is_ipv4());
        if family.is_none() && old.items().any(|before| before.get("ip").text() == text) {
            continue;
        }
        families.push(family);
        if let Err(message) = name::ip_address(text) {
            faults.0.push(FieldError::invalid(&address.path, &text.into(), message));
        }
    }
    if !ports::differ_in_family(&families) {
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

    #[test]
    fn a_container_returns_by_its_rules_its_own_policy_or_its_pods() {
        let refused = |list: &str, policy: &str, container: Value, code: i64| -> Vec<String> {
            let statuses = match list {
                "containers" => "containerStatuses",
                _ => "initContainerStatuses",
            };
            let object = |state: Value| {
                let mut named = json!({"name": "c"});
                named.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
                let mut object = pod(json!({statuses: [{"name": "c", "state": state}]}));
                object.set(&["spec"], json!({"restartPolicy": policy, list: [{"name": "other"}, named]}));
                object
            };
            let (old, new) =
                (object(json!({"terminated": {"exitCode": code}})), object(json!({"running": {}})));
            validate(&new, &old).iter().map(FieldError::to_string).collect()
        };
        let own = |policy: &str| json!({"restartPolicy": policy});
        let ruled = |action: &str, operator: &str| {
            let codes = json!({"operator": operator, "values": [42]});
            json!({"restartPolicy": "Never", "restartPolicyRules": [{"action": action, "exitCodes": codes}]})
        };
        for (list, policy, container, code) in [
            ("containers", "Always", json!({}), 0),
            ("containers", "OnFailure", json!({}), 1),
            ("containers", "Never", own("Always"), 0),
            ("containers", "Never", own("OnFailure"), 1),
            ("containers", "Never", ruled("Restart", "In"), 42),
            ("containers", "Never", ruled("Restart", "NotIn"), 1),
            ("containers", "Never", ruled("RestartAllContainers", "In"), 0),
            ("initContainers", "Never", own("Always"), 0),
            ("initContainers", "Always", own("Never"), 0),
            ("initContainers", "OnFailure", own("Never"), 0),
        ] {
            assert_eq!(
                refused(list, policy, container.clone(), code),
                [""; 0],
                "{list} {policy} {container} {code}"
            );
        }
        for (list, policy, container, code) in [
            ("containers", "Never", json!({}), 1),
            ("containers", "OnFailure", json!({}), 0),
            ("containers", "Always", own("Never"), 1),
            ("containers", "Always", own("OnFailure"), 0),
            ("containers", "Always", ruled("Restart", "In"), 1),
            ("containers", "Always", ruled("Restart", "NotIn"), 42),
            ("initContainers", "Never", own("Never"), 1),
        ] {
            let place = list.replace("ontainers", "ontainerStatuses");
            let text = "Forbidden: may not be transitioned to non-terminated state";
            assert_eq!(
                refused(list, policy, container.clone(), code),
                [format!("status.{place}[0].state: {text}")],
                "{list} {policy} {container} {code}"
            );
        }
    }

    #[test]
    fn an_address_that_was_stored_may_stay() {
        let addresses = |list: &[&str]| {
            pod(json!({"podIPs": list.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>()}))
        };
        let old = addresses(&["10.0.0.01"]);
        assert_eq!(validate(&old, &old), []);
        assert_eq!(validate(&addresses(&["fd00::1", "10.0.0.01"]), &old), []);
        let faults = validate(&addresses(&["10.0.0.01", "10.0.0.02"]), &old);
        let places: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(places, ["status.podIPs[1]"]);
    }
}

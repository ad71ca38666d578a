//! What the API is told about the node. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use super::machine::{Machine, architecture};
use crate::config::Config;
use crate::container::qos::parse;
use crate::eviction::plan::Pressure;

/// A status that has not changed is sent again after this time, as a sign of life.
pub const REPORT_PERIOD: Duration = Duration::from_secs(300);

/// What decides about the node's conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// What the machine is short of.
    pub pressure: Pressure,
    /// Why pods cannot run here; `None` when they can.
    pub fault: Option<String>,
}

/// The Node as it registers itself.
pub fn new_node(config: &Config, machine: &Machine, health: &Health, now: Timestamp) -> Node {
    let labels = node_labels(config);
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec::default()),
        status: Some(node_status(config, machine, health, None, now)),
    }
}

/// The labels that a kubelet gives its Node.
pub fn node_labels(config: &Config) -> BTreeMap<String, String> {
    let own = [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ];
    let own = own.into_iter().map(|(key, value)| (key.to_string(), value.to_string()));
    config.node_labels.iter().cloned().chain(own).collect()
}

/// The kubelet's part of the Node's status. Conditions that stay keep the time of their last change.
pub fn node_status(
    config: &Config,
    machine: &Machine,
    health: &Health,
    before: Option<&NodeStatus>,
    now: Timestamp,
) -> NodeStatus {
    let address = |kind: &str, address: String| NodeAddress { type_: kind.to_string(), address };
    let given = given_resources(machine, before);
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", config.node_ip.to_string()),
            address("Hostname", config.node_name.clone()),
        ]),
        allocatable: Some(given.clone().into_iter().chain(machine.allocatable()).collect()),
        capacity: Some(given.into_iter().chain(machine.capacity()).collect()),
        conditions: Some(conditions(health, before, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(config.listen.port()) }),
        }),
        node_info: Some(machine.info.clone()),
        features: Some(NodeFeatures {
            supplemental_groups_policy: Some(machine.features.supplemental_groups_policy),
        }),
        runtime_handlers: Some(vec![NodeRuntimeHandler {
            name: Some(String::new()),
            features: Some(NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(machine.features.recursive_read_only),
                user_namespaces: Some(machine.features.user_namespaces),
            }),
        }]),
        ..NodeStatus::default()
    }
}

/// What somebody else says that the node has, such as `example.com/dongle`: it stays, and pods may use all of it.
fn given_resources(machine: &Machine, before: Option<&NodeStatus>) -> BTreeMap<String, Quantity> {
    let own = machine.capacity();
    let mut capacity = before.and_then(|status| status.capacity.clone()).unwrap_or_default();
    capacity.retain(|name, _| !own.contains_key(name));
    capacity
}

/// The patch that brings the API from `before` to `status`. Maps are merged: what pods may use no longer is said.
pub fn status_patch(before: Option<&NodeStatus>, status: &NodeStatus) -> Value {
    let mut patch = json!({ "status": status });
    let allocatable = |status: &NodeStatus| status.allocatable.clone().unwrap_or_default();
    let left = allocatable(status);
    for name in
        before.map(allocatable).unwrap_or_default().into_keys().filter(|name| !left.contains_key(name))
    {
        patch["status"]["allocatable"][name] = Value::Null;
    }
    // What others say stays as it is now, which may be another than when it was read.
    let known = amounts(before.and_then(|status| status.capacity.as_ref()));
    if let Some(capacity) = patch["status"]["capacity"].as_object_mut() {
        let stated = amounts(status.capacity.as_ref());
        capacity.retain(|name, _| known.get(name.as_str()) != stated.get(name.as_str()));
    }
    patch
}

/// Amounts as numbers: the API may write the same amount in another way.
fn amounts(of: Option<&BTreeMap<String, Quantity>>) -> BTreeMap<&str, Option<api::quantity::Quantity>> {
    of.into_iter().flatten().map(|(name, amount)| (name.as_str(), parse(amount))).collect()
}

fn conditions(health: &Health, before: Option<&NodeStatus>, now: Timestamp) -> Vec<NodeCondition> {
    let pressure =
        |kind, is_short, (bad, bad_words): (&str, &str), (good, good_words): (&str, &str)| match is_short {
            true => (kind, true, bad.to_string(), bad_words.to_string()),
            false => (kind, false, good.to_string(), good_words.to_string()),
        };
    let verdicts = [
        pressure(
            "MemoryPressure",
            health.pressure.memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            health.pressure.disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            health.pressure.pid,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        match &health.fault {
            None => {
                ("Ready", true, "KubeletReady".to_string(), "kubelet is posting ready status".to_string())
            }
            Some(fault) => ("Ready", false, "KubeletNotReady".to_string(), fault.clone()),
        },
    ];
    let known = before.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    verdicts
        .into_iter()
        .map(|(kind, is_true, reason, message)| {
            let status = if is_true { "True" } else { "False" };
            let old = known.iter().find(|condition| condition.type_ == kind);
            let since =
                old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
            NodeCondition {
                type_: kind.to_string(),
                status: status.to_string(),
                reason: Some(reason),
                message: Some(message),
                last_heartbeat_time: Some(Time(now)),
                last_transition_time: since.or(Some(Time(now))),
            }
        })
        .collect()
}

/// Whether the API has to be told: something has changed, or it has heard nothing for a while.
pub fn must_report(before: Option<&NodeStatus>, status: &NodeStatus, now: Timestamp) -> bool {
    let Some(before) = before else { return true };
    let said = |status: &NodeStatus| -> Vec<(String, String, Option<String>)> {
        let conditions = status.conditions.iter().flatten();
        conditions
            .filter(|condition| KINDS.contains(&condition.type_.as_str()))
            .map(|condition| (condition.type_.clone(), condition.status.clone(), condition.message.clone()))
            .collect()
    };
    let heard = before.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let heard_at = heard.and_then(|ready| ready.last_heartbeat_time.as_ref()).map(|time| time.0);
    heard_at.is_none_or(|at| at + REPORT_PERIOD <= now)
        || said(before) != said(status)
        || before.addresses != status.addresses
        || amounts(before.capacity.as_ref()) != amounts(status.capacity.as_ref())
        || amounts(before.allocatable.as_ref()) != amounts(status.allocatable.as_ref())
        || before.node_info != status.node_info
        || before.images != status.images
}

const KINDS: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];

/// The reasons of the events that tell how conditions have changed.
pub fn condition_events(before: Option<&NodeStatus>, status: &NodeStatus) -> Vec<&'static str> {
    let value = |status: &NodeStatus, kind: &str| {
        let conditions = status.conditions.as_deref().unwrap_or_default();
        conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.status.clone())
    };
    let words = |kind: &str, is_true: bool| match (kind, is_true) {
        ("MemoryPressure", true) => "NodeHasInsufficientMemory",
        ("MemoryPressure", false) => "NodeHasSufficientMemory",
        ("DiskPressure", true) => "NodeHasDiskPressure",
        ("DiskPressure", false) => "NodeHasNoDiskPressure",
        ("PIDPressure", true) => "NodeHasInsufficientPID",
        ("PIDPressure", false) => "NodeHasSufficientPID",
        (_, true) => "NodeReady",
        (_, false) => "NodeNotReady",
    };
    KINDS
        .into_iter()
        .filter_map(|kind| {
            let old = before.and_then(|before| value(before, kind));
            let new = value(status, kind)?;
            // A node that has never been ready is not news.
            let is_news =
                if kind == "Ready" && old.is_none() { new == "True" } else { old.as_ref() != Some(&new) };
            is_news.then(|| words(kind, new == "True"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let mut config = Config::new("n", [192, 0, 2, 1].into());
        config.root = "/".into();
        Machine::inspect(&config, &crate::context::RuntimeName::default()).unwrap()
    }

    fn status(fault: Option<&str>, before: Option<&NodeStatus>, second: i64) -> NodeStatus {
        let health = Health { pressure: Pressure::default(), fault: fault.map(str::to_string) };
        let config = Config::new("n", [192, 0, 2, 1].into());
        node_status(&config, &machine(), &health, before, at(second))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_ready_node_says_so_in_upstreams_words() {
        let status = status(None, None, 0);
        let conditions = status.conditions.unwrap();
        let texts: Vec<_> = conditions
            .iter()
            .map(|c| format!("{}={} {}", c.type_, c.status, c.reason.as_ref().unwrap()))
            .collect();
        let expected = [
            "MemoryPressure=False KubeletHasSufficientMemory",
            "DiskPressure=False KubeletHasNoDiskPressure",
            "PIDPressure=False KubeletHasSufficientPID",
            "Ready=True KubeletReady",
        ];
        assert_eq!(texts, expected);
        assert_eq!(status.addresses.unwrap()[0].address, "192.0.2.1");
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_change() {
        let first = status(Some("no network"), None, 10);
        let second = status(None, Some(&first), 20);
        let time = |status: &NodeStatus, index: usize| {
            status.conditions.as_ref().unwrap()[index].last_transition_time.as_ref().unwrap().0
        };
        assert_eq!((time(&second, 0), time(&second, 3)), (at(10), at(20)));
    }

    #[test]
    fn only_news_and_signs_of_life_are_reported() {
        let first = status(None, None, 0);
        assert!(!must_report(Some(&first), &status(None, Some(&first), 200), at(200)));
        assert!(must_report(Some(&first), &status(None, Some(&first), 300), at(300)));
        assert!(must_report(Some(&first), &status(Some("down"), Some(&first), 1), at(1)));
        assert_eq!(condition_events(Some(&first), &status(Some("down"), Some(&first), 1)), ["NodeNotReady"]);
        assert_eq!(condition_events(Some(&first), &first), Vec::<&str>::new());
    }

    #[test]
    fn what_others_say_that_the_node_has_can_be_used_until_they_take_it_away() {
        let mut before = status(None, None, 0);
        before.capacity.get_or_insert_default().insert("example.com/dongle".into(), Quantity("1k".into()));
        let with = status(None, Some(&before), 1);
        let dongles = |amounts: &Option<BTreeMap<String, Quantity>>| {
            amounts.as_ref().and_then(|amounts| amounts.get("example.com/dongle").cloned())
        };
        assert_eq!(dongles(&with.capacity), Some(Quantity("1k".into())));
        assert_eq!(dongles(&with.allocatable), dongles(&with.capacity));
        assert!(must_report(Some(&before), &with, at(1)));
        // Somebody may have taken it away since it was read.
        let said = status_patch(Some(&before), &with);
        assert_eq!(said["status"]["capacity"].get("example.com/dongle"), None);
        let without = NodeStatus { capacity: status(None, None, 0).capacity, ..with.clone() };
        let after = status(None, Some(&without), 2);
        assert_eq!(dongles(&after.allocatable), None);
        let patch = status_patch(Some(&without), &after);
        assert_eq!(patch["status"]["allocatable"].get("example.com/dongle"), Some(&Value::Null));
    }

    #[test]
    fn the_same_amount_written_in_another_way_is_no_news() {
        let first = status(None, None, 0);
        let mut told = first.clone();
        told.capacity.get_or_insert_default().insert("cpu".into(), Quantity("4000m".into()));
        let mut now = first;
        now.capacity.get_or_insert_default().insert("cpu".into(), Quantity("4".into()));
        assert!(!must_report(Some(&told), &now, at(1)));
    }
}

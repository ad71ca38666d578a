//! Decides what a node's silence and its conditions mean: its conditions, its taints, its pods.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Conditions that turn into a taint when they are true.
const PRESSURES: &[(&str, &str)] = &[
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// Conditions that only the kubelet can know.
const REPORTED: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The conditions to write because the node is silent: those that are not Unknown yet.
pub fn silent_conditions(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let unknown = |kind: &&str| {
        let old = condition(node, kind);
        if old.is_some_and(|old| old.status == "Unknown") {
            return None;
        }
        let (reason, message) = match old {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        Some(NodeCondition {
            type_: (*kind).into(),
            status: "Unknown".into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: match old {
                Some(old) => old.last_heartbeat_time.clone(),
                None => node.metadata.creation_timestamp.clone(),
            },
            last_transition_time: Some(Time(now)),
        })
    };
    REPORTED.iter().filter_map(unknown).collect()
}

/// The taints that a node must have; `None` when it has them. Those of others are kept. `may_evict` says whether
/// pods may be driven off: not when every node is down, as then it is we who cannot see.
pub fn taints(node: &Node, may_evict: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let present = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let ready = condition(node, "Ready").map(|ready| ready.status.as_str());
    let trouble = match ready {
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        Some(_) | None => Some(NOT_READY),
    };
    let is_true = |kind: &str| condition(node, kind).is_some_and(|condition| condition.status == "True");
    let mut wanted: Vec<(&str, &str)> = trouble.map(|key| (key, "NoSchedule")).into_iter().collect();
    // A node that has reported nothing yet is about to: nothing runs there that could be driven off.
    wanted.extend(trouble.filter(|_| may_evict && ready.is_some()).map(|key| (key, "NoExecute")));
    wanted.extend(PRESSURES.iter().filter(|(kind, _)| is_true(kind)).map(|(_, key)| (*key, "NoSchedule")));
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default();
    wanted.extend(cordoned.then_some((UNSCHEDULABLE, "NoSchedule")));

    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<Taint> =
        present.iter().filter(|taint| !is_ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            taints.push(Taint {
                key: key.into(),
                effect: effect.into(),
                value: None,
                time_added: Some(Time(now)),
            });
        }
    }
    (taints != present).then_some(taints)
}

/// Whether a node's Ready condition is true.
pub fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Whether a node has been silent for too long.
pub fn is_unknown(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready.status == "Unknown")
}

/// When a node last said in its status that it is alive.
pub fn heartbeat(node: &Node) -> Option<Timestamp> {
    condition(node, "Ready")?.last_heartbeat_time.as_ref().map(|time| time.0)
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn is_ours(taint: &Taint) -> bool {
    let by_condition = PRESSURES.iter().any(|(_, key)| *key == taint.key) || taint.key == UNSCHEDULABLE;
    let by_trouble = taint.key == NOT_READY || taint.key == UNREACHABLE;
    by_condition && taint.effect == "NoSchedule"
        || by_trouble && matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeSpec, NodeStatus};

    use super::*;

    fn node(ready: Option<&str>, taints: &[(&str, &str)]) -> Node {
        let conditions = ready.map(|status| {
            vec![NodeCondition { type_: "Ready".into(), status: status.into(), ..NodeCondition::default() }]
        });
        let taint = |(key, effect): &(&str, &str)| Taint {
            key: (*key).into(),
            effect: (*effect).into(),
            ..Taint::default()
        };
        Node {
            spec: Some(NodeSpec { taints: Some(taints.iter().map(taint).collect()), ..NodeSpec::default() }),
            status: Some(NodeStatus { conditions, ..NodeStatus::default() }),
            ..Node::default()
        }
    }

    fn planned(node: &Node, may_evict: bool) -> Option<Vec<(String, String)>> {
        let taints = taints(node, may_evict, Timestamp::UNIX_EPOCH)?;
        Some(taints.into_iter().map(|taint| (taint.key, taint.effect)).collect())
    }

    fn pair(key: &str, effect: &str) -> (String, String) {
        (key.into(), effect.into())
    }

    #[test]
    fn a_ready_node_loses_our_taints_and_keeps_those_of_others() {
        let node = node(
            Some("True"),
            &[(NOT_READY, "NoSchedule"), (UNREACHABLE, "NoExecute"), ("dedicated", "NoExecute")],
        );
        assert_eq!(planned(&node, true), Some(vec![pair("dedicated", "NoExecute")]));
        let clean = self::node(Some("True"), &[("dedicated", "NoExecute")]);
        assert_eq!(planned(&clean, true), None);
    }

    #[test]
    fn a_silent_node_is_unreachable_and_sheds_pods_unless_all_are_down() {
        let node = node(Some("Unknown"), &[(NOT_READY, "NoSchedule")]);
        let both = vec![pair(UNREACHABLE, "NoSchedule"), pair(UNREACHABLE, "NoExecute")];
        assert_eq!(planned(&node, true), Some(both));
        assert_eq!(planned(&node, false), Some(vec![pair(UNREACHABLE, "NoSchedule")]));
    }

    #[test]
    fn a_new_node_takes_no_pods_until_it_is_ready() {
        assert_eq!(planned(&node(None, &[]), true), Some(vec![pair(NOT_READY, "NoSchedule")]));
    }

    #[test]
    fn cordoning_is_a_taint() {
        let mut node = node(Some("True"), &[]);
        node.spec.as_mut().unwrap().unschedulable = Some(true);
        assert_eq!(planned(&node, true), Some(vec![pair(UNSCHEDULABLE, "NoSchedule")]));
    }

    #[test]
    fn silence_makes_what_the_kubelet_reports_unknown_once() {
        let mut node = node(Some("True"), &[]);
        let unknown = silent_conditions(&node, Timestamp::UNIX_EPOCH);
        let reasons: Vec<_> = unknown.iter().map(|condition| condition.reason.clone().unwrap()).collect();
        assert_eq!(reasons[..2], ["NodeStatusUnknown", "NodeStatusNeverUpdated"]);
        node.status.as_mut().unwrap().conditions = Some(unknown);
        assert!(silent_conditions(&node, Timestamp::UNIX_EPOCH).is_empty());
    }
}

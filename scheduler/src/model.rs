//! Pods and nodes as decisions need them: read once, when they change, not each time they are looked at.

use std::{collections::BTreeMap, sync::Arc};

use api::selector::LabelSelector;
use client::cache::controller_of;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, NodeSelector, Pod, PodAffinityTerm, PreferredSchedulingTerm, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1 as meta,
};

use crate::resources::Resources;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// What identifies a pod: two pods of one name at different times are different.
pub type PodUid = Arc<str>;

/// A pod, read.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// The pod as the API has it.
    pub pod: Arc<Pod>,
    /// Its uid.
    pub uid: PodUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// The uid of the controller that made it.
    pub owner: Option<String>,
    /// Higher goes first, and may push lower ones out.
    pub priority: i32,
    /// What it asks for.
    pub requests: Resources,
    /// The same with upstream's defaults for comparing nodes.
    pub nonzero: Resources,
    /// Ports of the node that it takes.
    pub host_ports: Vec<HostPort>,
    /// `spec.nodeSelector`.
    pub node_selector: Labels,
    /// Required node affinity.
    pub node_affinity: Option<NodeSelector>,
    /// Preferred node affinity.
    pub preferred_nodes: Vec<PreferredSchedulingTerm>,
    /// Taints that it stands.
    pub tolerations: Vec<Toleration>,
    /// Pods that must be near.
    pub affinity: Vec<Neighbour>,
    /// Pods that must not be near.
    pub anti_affinity: Vec<Neighbour>,
    /// Pods that had better be near (positive) or far (negative).
    pub preferred_neighbours: Vec<(i64, Neighbour)>,
    /// How evenly it and its like have to lie.
    pub spread: Vec<Spread>,
}

/// A port of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Address of the node, `0.0.0.0` for all.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Number.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let any = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == any || other.ip == any)
    }
}

/// A set of pods and how far "near" reaches.
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// Which pods.
    pub selector: LabelSelector,
    /// In which namespaces; `None` for all.
    pub namespaces: Option<Vec<String>>,
    /// The node label whose equal value means "near".
    pub topology_key: String,
}

impl Neighbour {
    /// Whether a pod belongs to the set.
    pub fn includes(&self, namespace: &str, labels: &Labels) -> bool {
        self.namespaces.as_ref().is_none_or(|list| list.iter().any(|each| each == namespace))
            && self.selector.matches(|key| labels.get(key).map(String::as_str))
    }
}

/// One topology spread constraint.
#[derive(Clone, Debug)]
pub struct Spread {
    /// The node label whose values are to be filled evenly.
    pub topology_key: String,
    /// The largest difference allowed.
    pub max_skew: i64,
    /// Whether a node that would break it is ruled out, or only worse.
    pub is_required: bool,
    /// Which pods are counted.
    pub selector: LabelSelector,
    /// With fewer domains than this the global minimum counts as 0.
    pub min_domains: i64,
}

impl PodInfo {
    /// Reads a pod.
    pub fn new(pod: Arc<Pod>) -> PodInfo {
        let meta = &pod.metadata;
        let spec = pod.spec.as_ref();
        let affinity = spec.and_then(|spec| spec.affinity.as_ref());
        let node = affinity.and_then(|affinity| affinity.node_affinity.as_ref());
        let near = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
        let far = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        let namespace = meta.namespace.clone().unwrap_or_default();
        let labels = meta.labels.clone().unwrap_or_default();
        let read = |term: &PodAffinityTerm| neighbour(term, &namespace, &labels);
        let near_preferred = near
            .and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_ref())
            .into_iter()
            .flatten()
            .map(|term| (i64::from(term.weight), read(&term.pod_affinity_term)));
        let far_preferred = far
            .and_then(|far| far.preferred_during_scheduling_ignored_during_execution.as_ref())
            .into_iter()
            .flatten()
            .map(|term| (-i64::from(term.weight), read(&term.pod_affinity_term)));
        PodInfo {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            owner: controller_of(&*pod).map(|owner| owner.uid.clone()),
            name: meta.name.clone().unwrap_or_default(),
            priority: spec.and_then(|spec| spec.priority).unwrap_or_default(),
            requests: Resources::of_pod(&pod),
            nonzero: Resources::of_pod_nonzero(&pod),
            host_ports: host_ports(&pod),
            node_selector: spec.and_then(|spec| spec.node_selector.clone()).unwrap_or_default(),
            node_affinity: node
                .and_then(|node| node.required_during_scheduling_ignored_during_execution.clone()),
            preferred_nodes: node
                .and_then(|node| node.preferred_during_scheduling_ignored_during_execution.clone())
                .unwrap_or_default(),
            tolerations: spec.and_then(|spec| spec.tolerations.clone()).unwrap_or_default(),
            affinity: near
                .and_then(|near| near.required_during_scheduling_ignored_during_execution.as_ref())
                .into_iter()
                .flatten()
                .map(read)
                .collect(),
            anti_affinity: far
                .and_then(|far| far.required_during_scheduling_ignored_during_execution.as_ref())
                .into_iter()
                .flatten()
                .map(read)
                .collect(),
            preferred_neighbours: near_preferred.chain(far_preferred).collect(),
            spread: spread(&pod, &labels),
            namespace,
            labels,
            pod,
        }
    }

    /// When the pod was made; older ones of equal priority go first.
    pub fn created(&self) -> Timestamp {
        self.pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
    }

    /// Whether a pod that has come to a node may be what this one waits for: one to be near to, or one of those that
    /// have to lie evenly.
    pub fn is_helped_by(&self, neighbour: &PodInfo) -> bool {
        let PodInfo { namespace, labels, .. } = neighbour;
        let is_counted = |spread: &Spread| {
            spread.is_required && spread.selector.matches(|key| labels.get(key).map(String::as_str))
        };
        self.affinity.iter().any(|near| near.includes(namespace, labels))
            || self.namespace == *namespace && self.spread.iter().any(is_counted)
    }
}

/// A node, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeInfo {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// What pods may use.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub max_pods: i64,
    /// Taints.
    pub taints: Vec<Taint>,
    /// `kubectl cordon`.
    pub is_unschedulable: bool,
}

impl NodeInfo {
    /// Reads a node.
    pub fn new(node: &Node) -> NodeInfo {
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        // A quantity like any other: the server writes 1000 pods as "1k".
        let pods = allocatable.and_then(|list| api::quantity::Quantity::parse(&list.get("pods")?.0).ok());
        let spec = node.spec.as_ref();
        NodeInfo {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            allocatable: Resources::from_list(allocatable),
            max_pods: pods.map_or(0, |pods| pods.value()),
            taints: spec.and_then(|spec| spec.taints.clone()).unwrap_or_default(),
            is_unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or_default(),
        }
    }
}

/// Whether a toleration stands a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let has_value =
        || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match toleration.operator.as_deref().unwrap_or("Equal") {
            "Exists" => true,
            "Equal" | "" => !key.is_empty() && has_value(),
            _ => false,
        }
}

/// Whether a requirement holds for a label's or field's value, `None` where there is none.
pub fn holds(operator: &str, value: Option<&str>, wanted: Option<&[String]>) -> bool {
    let wanted = wanted.unwrap_or_default();
    let is_among = || value.is_some_and(|value| wanted.iter().any(|each| each == value));
    let numbers = || Some((value?.parse::<i64>().ok()?, wanted.first()?.parse::<i64>().ok()?));
    match operator {
        "In" => is_among(),
        "NotIn" => !is_among(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(HostPort {
                ip: port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: port.host_port.filter(|port| *port > 0)?,
            })
        })
        .collect()
}

fn selector(selector: Option<&meta::LabelSelector>) -> LabelSelector {
    let read = selector.and_then(|selector| serde_json::to_value(selector).ok());
    // A selector that the API server has let pass can be read; a missing one picks nothing.
    read.and_then(|value| LabelSelector::from_json(&value).ok()).unwrap_or_else(LabelSelector::nothing)
}

/// The selector joined by `matchLabelKeys`: these labels as the pod itself has them (KEP-3243).
fn selector_with(
    base: Option<&meta::LabelSelector>,
    keys: Option<&[String]>,
    labels: &Labels,
) -> LabelSelector {
    let mut joined = base.cloned();
    for key in keys.unwrap_or_default() {
        if let (Some(value), Some(joined)) = (labels.get(key), &mut joined) {
            joined.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
        }
    }
    selector(joined.as_ref())
}

fn neighbour(term: &PodAffinityTerm, own_namespace: &str, labels: &Labels) -> Neighbour {
    let listed = term.namespaces.clone().unwrap_or_default();
    let namespaces = match &term.namespace_selector {
        // Namespaces are not watched here: a selector that asks for labels is answered by the listed names
        // alone, the empty one by all.
        Some(selector) if selector.match_labels.is_none() && selector.match_expressions.is_none() => None,
        Some(_) => Some(listed),
        None if listed.is_empty() => Some(vec![own_namespace.to_string()]),
        None => Some(listed),
    };
    Neighbour {
        selector: selector_with(term.label_selector.as_ref(), term.match_label_keys.as_deref(), labels),
        namespaces,
        topology_key: term.topology_key.clone(),
    }
}

fn spread(pod: &Pod, labels: &Labels) -> Vec<Spread> {
    let constraints = pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_ref());
    let read = |constraint: &k8s_openapi::api::core::v1::TopologySpreadConstraint| Spread {
        topology_key: constraint.topology_key.clone(),
        max_skew: i64::from(constraint.max_skew),
        is_required: constraint.when_unsatisfiable == "DoNotSchedule",
        selector: selector_with(
            constraint.label_selector.as_ref(),
            constraint.match_label_keys.as_deref(),
            labels,
        ),
        min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
    };
    constraints.into_iter().flatten().map(read).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn taint(key: &str, effect: &str) -> Taint {
        Taint { key: key.into(), effect: effect.into(), ..Taint::default() }
    }

    #[test]
    fn tolerations_match_as_upstream() {
        let toleration = |value| serde_json::from_value::<Toleration>(value).unwrap();
        let bad = taint("node.kubernetes.io/not-ready", "NoExecute");
        assert!(tolerates(&toleration(json!({"operator": "Exists"})), &bad));
        assert!(tolerates(&toleration(json!({"key": bad.key, "operator": "Exists"})), &bad));
        assert!(!tolerates(
            &toleration(json!({"key": bad.key, "operator": "Exists", "effect": "NoSchedule"})),
            &bad
        ));
        assert!(!tolerates(&toleration(json!({"key": bad.key, "value": "x"})), &bad));
    }

    #[test]
    fn node_requirements_compare_sets_and_numbers() {
        let list = |values: &[&str]| values.iter().map(|each| each.to_string()).collect::<Vec<_>>();
        assert!(holds("In", Some("a"), Some(&list(&["a", "b"]))));
        assert!(holds("NotIn", None, Some(&list(&["a"]))));
        assert!(holds("Gt", Some("10"), Some(&list(&["9"]))));
        assert!(!holds("Gt", Some("x"), Some(&list(&["9"]))));
        assert!(holds("DoesNotExist", None, None));
    }
}

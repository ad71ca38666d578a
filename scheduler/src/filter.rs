//! What rules a node out: upstream's filter plug-ins, in upstream's order.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Taint;

use crate::{
    model::{Neighbour, PodInfo, Spread, tolerates},
    node_set::NodeSet,
    snapshot::{NodeState, Snapshot},
};

/// Why a node cannot take a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unfit {
    /// Upstream's words, such as `Insufficient cpu`.
    pub reason: Cow<'static, str>,
    /// Whether pushing other pods out could help.
    pub can_be_preempted: bool,
}

impl Unfit {
    fn final_(reason: &'static str) -> Unfit {
        Unfit { reason: reason.into(), can_be_preempted: false }
    }

    fn for_now(reason: &'static str) -> Unfit {
        Unfit { reason: reason.into(), can_be_preempted: true }
    }
}

/// What has to be known of the whole cluster to judge one node, counted once for each pod to be placed.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The nodes that the pod's selector and required node affinity pick.
    picked: NodeSet,
    /// For each required affinity of the pod: how many matching pods each topology value holds.
    near: Vec<BTreeMap<String, i64>>,
    /// The same for its anti-affinities.
    far: Vec<BTreeMap<String, i64>>,
    /// Topology (key, value) pairs from which pods already placed keep this one away.
    kept_away: Vec<(String, String)>,
    /// For each required spread constraint: how many matching pods each eligible topology value holds.
    spread: Vec<BTreeMap<String, i64>>,
}

type Filter = fn(&PodInfo, &NodeState, &Surroundings) -> Vec<Unfit>;

/// The filters in the order in which they run; the first that objects is the reason.
const FILTERS: [Filter; 8] = [
    node_unschedulable,
    node_name,
    taint_toleration,
    node_affinity,
    node_ports,
    node_resources_fit,
    pod_topology_spread,
    inter_pod_affinity,
];

/// Every reason why a node cannot take a pod, all from the first filter that objects; empty when it can.
pub fn unfit(pod: &PodInfo, node: &NodeState, around: &Surroundings) -> Vec<Unfit> {
    FILTERS
        .iter()
        .map(|filter| filter(pod, node, around))
        .find(|reasons| !reasons.is_empty())
        .unwrap_or_default()
}

impl Surroundings {
    /// Counts what the filters will ask for about `pod`.
    pub fn of(pod: &PodInfo, snapshot: &Snapshot) -> Surroundings {
        let required = pod.spread.iter().filter(|spread| spread.is_required);
        let picked = snapshot.index().picked_by(pod);
        Surroundings {
            near: pod.affinity.iter().map(|neighbour| count(neighbour, snapshot)).collect(),
            far: pod.anti_affinity.iter().map(|neighbour| count(neighbour, snapshot)).collect(),
            kept_away: kept_away(pod, snapshot),
            spread: required.map(|spread| count_spread(spread, pod, snapshot, &picked)).collect(),
            picked,
        }
    }

    /// The nodes that the pod's selector and required node affinity pick.
    pub fn picked(&self) -> &NodeSet {
        &self.picked
    }
}

fn node_unschedulable(pod: &PodInfo, node: &NodeState, _: &Surroundings) -> Vec<Unfit> {
    if !node.info.is_unschedulable {
        return Vec::new();
    }
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    let stands_it = pod.tolerations.iter().any(|toleration| tolerates(toleration, &cordon));
    only_if(!stands_it, || Unfit::final_("node(s) were unschedulable"))
}

fn node_name(pod: &PodInfo, node: &NodeState, _: &Surroundings) -> Vec<Unfit> {
    let wanted = pod.pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    only_if(!wanted.is_empty() && wanted != node.info.name, || {
        Unfit::final_("node(s) didn't match the requested node name")
    })
}

fn taint_toleration(pod: &PodInfo, node: &NodeState, _: &Surroundings) -> Vec<Unfit> {
    let is_hard = |taint: &&Taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute";
    let is_untolerated = |taint: &Taint| !pod.tolerations.iter().any(|each| tolerates(each, taint));
    only_if(node.info.taints.iter().filter(is_hard).any(is_untolerated), || {
        Unfit::final_("node(s) had untolerated taint(s)")
    })
}

fn node_affinity(_: &PodInfo, node: &NodeState, around: &Surroundings) -> Vec<Unfit> {
    only_if(!around.picked.contains(node.number), || {
        Unfit::final_("node(s) didn't match Pod's node affinity/selector")
    })
}

fn node_ports(pod: &PodInfo, node: &NodeState, _: &Surroundings) -> Vec<Unfit> {
    let is_taken = || {
        let taken = node.pods.values().flat_map(|each| &each.host_ports);
        taken.into_iter().any(|theirs| pod.host_ports.iter().any(|ours| ours.conflicts(theirs)))
    };
    only_if(!pod.host_ports.is_empty() && is_taken(), || {
        Unfit::for_now("node(s) didn't have free ports for the requested pod ports")
    })
}

fn node_resources_fit(pod: &PodInfo, node: &NodeState, _: &Surroundings) -> Vec<Unfit> {
    let (all, used, wanted) = (&node.info.allocatable, &node.requested, &pod.requests);
    let mut reasons = Vec::new();
    let mut check = |name: &str, all: i64, used: i64, wanted: i64| {
        if wanted > 0 && wanted > all - used {
            let reason = format!("Insufficient {name}").into();
            reasons.push(Unfit { reason, can_be_preempted: wanted <= all });
        }
    };
    check("cpu", all.milli_cpu, used.milli_cpu, wanted.milli_cpu);
    check("memory", all.memory, used.memory, wanted.memory);
    check("ephemeral-storage", all.ephemeral_storage, used.ephemeral_storage, wanted.ephemeral_storage);
    for (name, wanted) in &wanted.extended {
        let of = |resources: &BTreeMap<String, i64>| resources.get(name).copied().unwrap_or_default();
        check(name, of(&all.extended), of(&used.extended), *wanted);
    }
    if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) >= node.info.max_pods {
        reasons.insert(0, Unfit::for_now("Too many pods"));
    }
    reasons
}

fn pod_topology_spread(pod: &PodInfo, node: &NodeState, around: &Surroundings) -> Vec<Unfit> {
    let required = pod.spread.iter().filter(|spread| spread.is_required);
    for (spread, counts) in required.zip(&around.spread) {
        let Some(value) = node.info.labels.get(&spread.topology_key) else {
            return vec![Unfit::final_(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            )];
        };
        let domains = i64::try_from(counts.len()).unwrap_or(i64::MAX);
        let least =
            if domains < spread.min_domains { 0 } else { counts.values().min().copied().unwrap_or_default() };
        let itself = i64::from(spread.selector.matches(|key| pod.labels.get(key).map(String::as_str)));
        let there = counts.get(value).copied().unwrap_or_default();
        if there + itself - least > spread.max_skew {
            return vec![Unfit::for_now("node(s) didn't match pod topology spread constraints")];
        }
    }
    Vec::new()
}

fn inter_pod_affinity(pod: &PodInfo, node: &NodeState, around: &Surroundings) -> Vec<Unfit> {
    let holds = |neighbour: &Neighbour, counts: &BTreeMap<String, i64>| {
        let value = node.info.labels.get(&neighbour.topology_key);
        value.is_some_and(|value| counts.get(value).is_some_and(|count| *count > 0))
    };
    let has_key = |neighbour: &Neighbour| node.info.labels.contains_key(&neighbour.topology_key);
    let all_near = pod.affinity.iter().zip(&around.near).all(|(neighbour, counts)| holds(neighbour, counts));
    // The first pod of a group that wants to be together may go anywhere.
    let is_first = || {
        around.near.iter().all(BTreeMap::is_empty)
            && pod.affinity.iter().all(|each| each.includes(&pod.namespace, &pod.labels) && has_key(each))
    };
    if !all_near && !is_first() {
        return vec![Unfit::final_("node(s) didn't match pod affinity rules")];
    }
    if pod.anti_affinity.iter().zip(&around.far).any(|(neighbour, counts)| holds(neighbour, counts)) {
        return vec![Unfit::for_now("node(s) didn't match pod anti-affinity rules")];
    }
    let is_kept_away = around.kept_away.iter().any(|(key, value)| node.info.labels.get(key) == Some(value));
    only_if(is_kept_away, || Unfit::for_now("node(s) didn't satisfy existing pods anti-affinity rules"))
}

fn only_if(objects: bool, reason: impl FnOnce() -> Unfit) -> Vec<Unfit> {
    if objects { vec![reason()] } else { Vec::new() }
}

fn count(neighbour: &Neighbour, snapshot: &Snapshot) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for node in snapshot.nodes() {
        let Some(value) = node.info.labels.get(&neighbour.topology_key) else { continue };
        let here = node.pods.values().filter(|pod| neighbour.includes(&pod.namespace, &pod.labels)).count();
        if here > 0 {
            *counts.entry(value.clone()).or_default() += i64::try_from(here).unwrap_or(i64::MAX);
        }
    }
    counts
}

fn kept_away(pod: &PodInfo, snapshot: &Snapshot) -> Vec<(String, String)> {
    if !snapshot.has_pods_keeping_others_away() {
        return Vec::new();
    }
    let mut pairs = Vec::new();
    for node in snapshot.nodes() {
        for neighbour in node.pods.values().flat_map(|each| &each.anti_affinity) {
            if let (true, Some(value)) = (
                neighbour.includes(&pod.namespace, &pod.labels),
                node.info.labels.get(&neighbour.topology_key),
            ) {
                pairs.push((neighbour.topology_key.clone(), value.clone()));
            }
        }
    }
    pairs.sort();
    pairs.dedup();
    pairs
}

/// Matching pods of the pod's own namespace by topology value, over the nodes that the pod could go to by
/// its node affinity.
fn count_spread(
    spread: &Spread,
    pod: &PodInfo,
    snapshot: &Snapshot,
    picked: &NodeSet,
) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for node in snapshot.round(picked, 0) {
        let Some(value) = node.info.labels.get(&spread.topology_key) else { continue };
        let is_counted = |each: &&Arc<PodInfo>| {
            each.namespace == pod.namespace
                && each.pod.metadata.deletion_timestamp.is_none()
                && spread.selector.matches(|key| each.labels.get(key).map(String::as_str))
        };
        let here = node.pods.values().filter(is_counted).count();
        *counts.entry(value.clone()).or_default() += i64::try_from(here).unwrap_or(i64::MAX);
    }
    counts
}

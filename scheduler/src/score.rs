//! Which of the nodes that fit is best: upstream's score plug-ins, each 0 to 100, weighted and added.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PreferredSchedulingTerm;

use crate::{
    label_index::LabelIndex,
    model::{PodInfo, tolerates},
    node_set::NodeSet,
    snapshot::{NodeState, Snapshot},
};

const MAX: i64 = 100;

/// The score of each candidate, in the order given; higher is better.
pub fn scores(pod: &PodInfo, candidates: &[&NodeState], snapshot: &Snapshot) -> Vec<i64> {
    let mut totals = vec![0; candidates.len()];
    let mut add = |weight: i64, scores: Vec<i64>| {
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += weight * score;
        }
    };
    add(1, candidates.iter().map(|node| least_allocated(pod, node)).collect());
    add(1, candidates.iter().map(|node| balanced_allocation(pod, node)).collect());
    add(3, fewer_is_better(candidates.iter().map(|node| untolerated_soft_taints(pod, node)).collect()));
    if !pod.preferred_nodes.is_empty() {
        let wishes = preferred_nodes(pod, snapshot.index());
        add(2, more_is_better(candidates.iter().map(|node| preferred_node(&wishes, node)).collect()));
    }
    add(2, fewer_is_better(candidates.iter().map(|node| like_pods(pod, node)).collect()));
    if !pod.preferred_neighbours.is_empty() {
        let wishes = candidates.iter().map(|node| preferred_neighbours(pod, node, snapshot)).collect();
        add(2, more_is_better(wishes));
    }
    totals
}

/// NodeResourcesFit, strategy LeastAllocated: the emptier the better, processor and memory alike.
fn least_allocated(pod: &PodInfo, node: &NodeState) -> i64 {
    let share = |all: i64, used: i64| if all <= 0 || used > all { 0 } else { (all - used) * MAX / all };
    let cpu = share(node.info.allocatable.milli_cpu, node.nonzero.milli_cpu + pod.nonzero.milli_cpu);
    let memory = share(node.info.allocatable.memory, node.nonzero.memory + pod.nonzero.memory);
    (cpu + memory) / 2
}

/// NodeResourcesBalancedAllocation: processor and memory should be used to the same degree.
fn balanced_allocation(pod: &PodInfo, node: &NodeState) -> i64 {
    let share = |all: i64, used: i64| if all <= 0 { 1.0 } else { (used as f64 / all as f64).min(1.0) };
    let cpu = share(node.info.allocatable.milli_cpu, node.requested.milli_cpu + pod.requests.milli_cpu);
    let memory = share(node.info.allocatable.memory, node.requested.memory + pod.requests.memory);
    ((1.0 - (cpu - memory).abs() / 2.0) * MAX as f64) as i64
}

/// TaintToleration: taints of effect PreferNoSchedule that the pod does not stand.
fn untolerated_soft_taints(pod: &PodInfo, node: &NodeState) -> i64 {
    let soft = node.info.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    let count = soft.filter(|taint| !pod.tolerations.iter().any(|each| tolerates(each, taint))).count();
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The preferred terms: the weight of each, and the nodes that it picks.
fn preferred_nodes(pod: &PodInfo, index: &LabelIndex) -> Vec<(i64, NodeSet)> {
    let wish =
        |term: &PreferredSchedulingTerm| (i64::from(term.weight), index.picked_by_term(&term.preference));
    pod.preferred_nodes.iter().map(wish).collect()
}

/// NodeAffinity: the weights of the preferred terms that pick the node.
fn preferred_node(wishes: &[(i64, NodeSet)], node: &NodeState) -> i64 {
    wishes.iter().filter(|(_, picked)| picked.contains(node.number)).map(|(weight, _)| weight).sum()
}

/// Spreading: pods of the same owner, or those that the pod's own soft constraints count.
fn like_pods(pod: &PodInfo, node: &NodeState) -> i64 {
    let mut soft = pod.spread.iter().filter(|spread| !spread.is_required).peekable();
    if soft.peek().is_none() {
        return pod.owner.as_ref().and_then(|owner| node.by_owner.get(owner)).copied().unwrap_or_default();
    }
    let is_like = |each: &&Arc<PodInfo>| {
        let label = |key: &str| each.labels.get(key).map(String::as_str);
        each.namespace == pod.namespace && soft.clone().any(|spread| spread.selector.matches(label))
    };
    i64::try_from(node.pods.values().filter(is_like).count()).unwrap_or(i64::MAX)
}

/// InterPodAffinity: the weights of wished-for neighbours in the node's topology, the unwished subtracted.
fn preferred_neighbours(pod: &PodInfo, node: &NodeState, snapshot: &Snapshot) -> i64 {
    let mut sum = 0;
    for (weight, neighbour) in &pod.preferred_neighbours {
        let Some(value) = node.info.labels.get(&neighbour.topology_key) else { continue };
        let near =
            snapshot.nodes().filter(|other| other.info.labels.get(&neighbour.topology_key) == Some(value));
        let pods = near.flat_map(|other| other.pods.values());
        let count = pods.filter(|each| neighbour.includes(&each.namespace, &each.labels)).count();
        sum += weight * i64::try_from(count).unwrap_or(i64::MAX);
    }
    sum
}

fn more_is_better(counts: Vec<i64>) -> Vec<i64> {
    let (least, most) =
        (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
    let range = most - least;
    counts.into_iter().map(|count| if range == 0 { 0 } else { (count - least) * MAX / range }).collect()
}

fn fewer_is_better(counts: Vec<i64>) -> Vec<i64> {
    let most = counts.iter().max().copied().unwrap_or(0);
    counts.into_iter().map(|count| if most == 0 { MAX } else { (most - count) * MAX / most }).collect()
}

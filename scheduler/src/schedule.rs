//! The decision: which node a pod goes to, or why to none.

use std::{collections::BTreeMap, fmt};

use crate::{
    filter::{Surroundings, Unfit, unfit},
    model::PodInfo,
    score,
    snapshot::{NodeState, Snapshot},
};

/// Why no node can take a pod; its text is the `FailedScheduling` event's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unschedulable {
    /// Each node's objections.
    pub per_node: Vec<(String, Vec<Unfit>)>,
}

impl Unschedulable {
    /// The nodes where pushing other pods out could help.
    pub fn worth_preempting(&self) -> impl Iterator<Item = &str> {
        let could_help =
            |(_, reasons): &&(String, Vec<Unfit>)| reasons.iter().all(|each| each.can_be_preempted);
        self.per_node.iter().filter(could_help).map(|(name, _)| name.as_str())
    }
}

impl fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.per_node.is_empty() {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in self.per_node.iter().flat_map(|(_, reasons)| reasons) {
            *counts.entry(&*reason.reason).or_default() += 1;
        }
        let mut texts: Vec<String> =
            counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        texts.sort();
        write!(f, "0/{} nodes are available: {}.", self.per_node.len(), texts.join(", "))
    }
}

/// Where the last decision left off, so that the next one goes on from there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// The node to look at first: in a large cluster not all are looked at for each pod.
    start: usize,
    /// Which of equally good nodes to take, so that load does not gather on the first name.
    tie: usize,
}

/// How many nodes that can take a pod are enough to choose from: upstream's `percentageOfNodesToScore` when it
/// is left to itself. Half of a small cluster, a twentieth of a large one, never fewer than a hundred.
fn enough(nodes: usize) -> usize {
    const AT_LEAST: usize = 100;
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(AT_LEAST)
}

/// The best node for a pod, among enough of those that can take it.
///
/// # Errors
/// When no node can take the pod, with each node's reasons.
pub fn schedule(pod: &PodInfo, snapshot: &Snapshot, cursor: &mut Cursor) -> Result<String, Unschedulable> {
    let around = Surroundings::of(pod, snapshot);
    let enough = enough(snapshot.index().all().len());
    let mut candidates: Vec<&NodeState> = Vec::new();
    // Nodes that the pod's own selector does not pick are not even looked at.
    for node in snapshot.round(around.picked(), cursor.start) {
        if unfit(pod, node, &around).is_empty() {
            candidates.push(node);
            if candidates.len() == enough {
                break;
            }
        }
    }
    cursor.tie = cursor.tie.wrapping_add(1);
    if let Some(last) = candidates.last() {
        cursor.start = last.number + 1;
    }
    match candidates.as_slice() {
        [] => Err(refused(pod, snapshot, &around)),
        [only] => Ok(only.info.name.clone()),
        several => {
            let scores = score::scores(pod, several, snapshot);
            let best = scores.iter().max().copied().unwrap_or_default();
            let winners: Vec<&NodeState> = several
                .iter()
                .zip(&scores)
                .filter(|(_, score)| **score == best)
                .map(|(node, _)| *node)
                .collect();
            Ok(winners[cursor.tie % winners.len()].info.name.clone())
        }
    }
}

/// What each node says against a pod.
fn refused(pod: &PodInfo, snapshot: &Snapshot, around: &Surroundings) -> Unschedulable {
    let objections = |node: &NodeState| (node.info.name.clone(), unfit(pod, node, around));
    Unschedulable { per_node: snapshot.nodes().map(objections).collect() }
}

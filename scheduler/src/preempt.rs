//! Making room: which pods of lower priority have to go for one of higher priority.

use std::{cmp::Reverse, sync::Arc};

use crate::{
    filter::{Surroundings, unfit},
    model::PodInfo,
    schedule::Unschedulable,
    snapshot::Snapshot,
};

/// Room that can be made.
#[derive(Clone, Debug)]
pub struct Preemption {
    /// The node.
    pub node: String,
    /// The pods that have to go, as few and as unimportant as possible.
    pub victims: Vec<Arc<PodInfo>>,
}

/// The best room that can be made for a pod that `refused` says fits nowhere, or the sentence that says why
/// there is none.
///
/// As upstream: on each node all pods of lower priority are thought away; where the pod then fits, as many of
/// them as possible are thought back, most important first; the node whose most important victim is least
/// important wins, then the one with fewest victims.
pub fn preempt(pod: &PodInfo, snapshot: &Snapshot, refused: &Unschedulable) -> Result<Preemption, String> {
    let never = pod.pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never");
    let nodes = refused.per_node.len();
    if never {
        return Err(words(nodes, &[(nodes, "Preemption is not helpful for scheduling")]));
    }
    let hopeful: Vec<&str> = refused.worth_preempting().collect();
    // Copied only where there is somebody to think away, and once: those are back before the next node's turn.
    let mut trial = None;
    let mut found: Vec<Preemption> = Vec::new();
    for node in &hopeful {
        let lower = lower_on(node, pod, snapshot);
        if !lower.is_empty() {
            found.extend(victims_on(node, lower, pod, trial.get_or_insert_with(|| snapshot.clone())));
        }
    }
    found.sort_by_key(|room| {
        let highest = room.victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
        (highest, room.victims.len(), room.node.clone())
    });
    found.into_iter().next().ok_or_else(|| {
        words(
            nodes,
            &[
                (hopeful.len(), "No preemption victims found for incoming pod"),
                (nodes - hopeful.len(), "Preemption is not helpful for scheduling"),
            ],
        )
    })
}

/// The pods on a node that are of lower priority.
fn lower_on(node: &str, pod: &PodInfo, snapshot: &Snapshot) -> Vec<Arc<PodInfo>> {
    let pods = snapshot.node(node).into_iter().flat_map(|node| node.pods.values());
    pods.filter(|each| each.priority < pod.priority).cloned().collect()
}

/// Which of the `lower` pods would have to leave a node; `trial` is the same afterwards as before.
fn victims_on(
    node: &str,
    mut lower: Vec<Arc<PodInfo>>,
    pod: &PodInfo,
    trial: &mut Snapshot,
) -> Option<Preemption> {
    for each in &lower {
        trial.remove_pod(&each.uid);
    }
    let fits = |trial: &Snapshot| {
        let around = Surroundings::of(pod, trial);
        trial.node(node).is_some_and(|state| unfit(pod, state, &around).is_empty())
    };
    let helps = fits(trial);
    lower.sort_by_key(|each| (Reverse(each.priority), each.created()));
    let mut victims = Vec::new();
    for each in lower {
        trial.place(each.clone(), node);
        if helps && !fits(trial) {
            trial.remove_pod(&each.uid);
            victims.push(each);
        }
    }
    for victim in &victims {
        trial.place(victim.clone(), node);
    }
    helps.then(|| Preemption { node: node.to_string(), victims })
}

fn words(nodes: usize, counts: &[(usize, &str)]) -> String {
    let mut texts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, text)| format!("{count} {text}"))
        .collect();
    texts.sort();
    format!("preemption: 0/{nodes} nodes are available: {}.", texts.join(", "))
}

//! The nodes and what runs on them, kept up to date by small changes.

use std::collections::{BTreeMap, HashMap};

use crate::{
    model::{NodeInfo, PodInfo, PodUid},
    resources::Resources,
};

/// One node with its pods.
#[derive(Clone, Debug, Default)]
pub struct NodeState {
    /// The node; its defaults while only its pods are known.
    pub info: NodeInfo,
    /// Whether the node object itself has been seen.
    pub is_known: bool,
    /// Everything that runs there or is on its way.
    pub pods: BTreeMap<PodUid, PodInfo>,
    /// The sum of the pods' requests.
    pub requested: Resources,
    /// The same with upstream's defaults for comparing nodes.
    pub nonzero: Resources,
}

impl NodeState {
    fn insert(&mut self, pod: PodInfo) {
        self.remove(&pod.uid);
        self.requested.add(&pod.requests);
        self.nonzero.add(&pod.nonzero);
        self.pods.insert(pod.uid.clone(), pod);
    }

    /// Takes a pod away; used to try what a node would be without it.
    pub fn remove(&mut self, uid: &str) -> Option<PodInfo> {
        let pod = self.pods.remove(uid)?;
        self.requested.subtract(&pod.requests);
        self.nonzero.subtract(&pod.nonzero);
        Some(pod)
    }
}

/// All nodes by name, and where each pod is.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeState>,
    places: HashMap<PodUid, String>,
    /// Pods placed there that keep others away; while there are none nobody has to look for them.
    keeping_away: usize,
}

impl Snapshot {
    /// The nodes that pods can be put on, in the order of names.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeState> {
        self.nodes.values().filter(|node| node.is_known)
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&NodeState> {
        self.nodes.get(name).filter(|node| node.is_known)
    }

    /// Whether any placed pod has required anti-affinity.
    pub fn has_pods_keeping_others_away(&self) -> bool {
        self.keeping_away > 0
    }

    /// Takes over a node as it is now. Returns whether anything that matters for placing has changed.
    pub fn set_node(&mut self, info: NodeInfo) -> bool {
        let state = self.nodes.entry(info.name.clone()).or_default();
        let same = state.is_known
            && state.info.labels == info.labels
            && state.info.allocatable == info.allocatable
            && state.info.max_pods == info.max_pods
            && state.info.taints == info.taints
            && state.info.is_unschedulable == info.is_unschedulable;
        state.info = info;
        state.is_known = true;
        !same
    }

    /// Forgets a node; its pods stay known until they are gone themselves.
    pub fn remove_node(&mut self, name: &str) {
        let is_empty = self.nodes.get_mut(name).is_some_and(|node| {
            node.is_known = false;
            node.pods.is_empty()
        });
        if is_empty {
            self.nodes.remove(name);
        }
    }

    /// Puts a pod on a node, in place of what was known of it before.
    pub fn place(&mut self, pod: PodInfo, node: &str) {
        self.remove_pod(&pod.uid);
        self.places.insert(pod.uid.clone(), node.to_string());
        self.keeping_away += usize::from(!pod.anti_affinity.is_empty());
        self.nodes.entry(node.to_string()).or_default().insert(pod);
    }

    /// Takes a pod away. Returns whether it was there.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(name) = self.places.remove(uid) else { return false };
        let Some(node) = self.nodes.get_mut(&name) else { return false };
        let removed = node.remove(uid);
        if removed.as_ref().is_some_and(|pod| !pod.anti_affinity.is_empty()) {
            self.keeping_away -= 1;
        }
        if !node.is_known && node.pods.is_empty() {
            self.nodes.remove(&name);
        }
        removed.is_some()
    }

    /// Where a pod is, or is on its way to.
    pub fn place_of(&self, uid: &str) -> Option<&str> {
        self.places.get(uid).map(String::as_str)
    }
}

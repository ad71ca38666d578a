//! The nodes and what runs on them, kept up to date by small changes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    label_index::LabelIndex,
    model::{NodeInfo, PodInfo, PodUid},
    node_set::NodeSet,
    resources::Resources,
};

/// One node with its pods.
#[derive(Clone, Debug, Default)]
pub struct NodeState {
    /// What it is called in a [`NodeSet`].
    pub number: usize,
    /// The node; its defaults while only its pods are known.
    pub info: NodeInfo,
    /// Whether the node object itself has been seen.
    pub is_known: bool,
    /// Everything that runs there or is on its way.
    pub pods: BTreeMap<PodUid, Arc<PodInfo>>,
    /// The sum of the pods' requests.
    pub requested: Resources,
    /// The same with upstream's defaults for comparing nodes.
    pub nonzero: Resources,
    /// How many of the pods each controller, by its uid, has made.
    pub by_owner: HashMap<String, i64>,
}

impl NodeState {
    fn insert(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.nonzero.add(&pod.nonzero);
        if let Some(owner) = &pod.owner {
            *self.by_owner.entry(owner.clone()).or_default() += 1;
        }
        self.pods.insert(pod.uid.clone(), pod);
    }

    fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(uid)?;
        self.requested.subtract(&pod.requests);
        self.nonzero.subtract(&pod.nonzero);
        if let Some(owner) = &pod.owner
            && let Some(count) = self.by_owner.get_mut(owner)
        {
            *count -= 1;
            if *count == 0 {
                self.by_owner.remove(owner);
            }
        }
        Some(pod)
    }
}

/// What it means to those that wait that a pod has been placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It has come: a neighbour more.
    New,
    /// It was there already and is in nobody's way less.
    Again,
    /// It has moved, has other labels or asks for less.
    Changed,
}

/// All nodes, and where each pod is.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By number, which a node keeps; the numbers of those that are gone are given again.
    nodes: Vec<Option<NodeState>>,
    numbers: HashMap<String, usize>,
    /// The nodes that have been seen themselves.
    index: LabelIndex,
    places: HashMap<PodUid, usize>,
    /// Pods placed there that keep others away; while there are none nobody has to look for them.
    keeping_away: usize,
}

impl Snapshot {
    /// The nodes that pods can be put on, in the order of their numbers.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeState> {
        self.round(self.index.all(), 0)
    }

    /// These nodes, beginning with number `start` and once around.
    pub fn round<'a>(&'a self, nodes: &'a NodeSet, start: usize) -> impl Iterator<Item = &'a NodeState> {
        nodes.iter_from(start).filter_map(|number| self.nodes.get(number)?.as_ref())
    }

    /// The nodes that pods can be put on, by label.
    pub fn index(&self) -> &LabelIndex {
        &self.index
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&NodeState> {
        let node = self.nodes.get(*self.numbers.get(name)?)?.as_ref()?;
        node.is_known.then_some(node)
    }

    /// Whether any placed pod has required anti-affinity.
    pub fn has_pods_keeping_others_away(&self) -> bool {
        self.keeping_away > 0
    }

    /// Takes over a node as it is now. Returns whether anything that matters for placing has changed.
    pub fn set_node(&mut self, info: NodeInfo) -> bool {
        let Snapshot { nodes, numbers, index, .. } = self;
        let state = node_mut(nodes, numbers, &info.name);
        let is_same = state.is_known && state.info == info;
        if !state.is_known || state.info.labels != info.labels {
            if state.is_known {
                index.remove(state.number, &state.info);
            }
            index.insert(state.number, &info);
        }
        state.info = info;
        state.is_known = true;
        !is_same
    }

    /// Forgets a node; its pods stay known until they are gone themselves.
    pub fn remove_node(&mut self, name: &str) {
        let Some(number) = self.numbers.get(name).copied() else { return };
        let Some(node) = &mut self.nodes[number] else { return };
        if node.is_known {
            node.is_known = false;
            self.index.remove(number, &node.info);
        }
        self.forget_if_empty(number);
    }

    /// Puts a pod on a node, in place of what was known of it before.
    pub fn place(&mut self, pod: Arc<PodInfo>, node: &str) -> Placed {
        let before = self.take(&pod.uid);
        let state = node_mut(&mut self.nodes, &mut self.numbers, node);
        let is_no_less = |(number, before): &(usize, Arc<PodInfo>)| {
            *number == state.number && before.labels == pod.labels && pod.requests.covers(&before.requests)
        };
        let placed = match before {
            None => Placed::New,
            Some(before) if is_no_less(&before) => Placed::Again,
            Some(_) => Placed::Changed,
        };
        self.places.insert(pod.uid.clone(), state.number);
        self.keeping_away += usize::from(!pod.anti_affinity.is_empty());
        state.insert(pod);
        placed
    }

    /// Takes a pod away. Returns whether it was there.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        self.take(uid).is_some()
    }

    /// Takes a pod away, and tells the number of its node.
    fn take(&mut self, uid: &str) -> Option<(usize, Arc<PodInfo>)> {
        let number = self.places.remove(uid)?;
        let pod = self.nodes[number].as_mut()?.remove(uid)?;
        self.keeping_away -= usize::from(!pod.anti_affinity.is_empty());
        self.forget_if_empty(number);
        Some((number, pod))
    }

    fn forget_if_empty(&mut self, number: usize) {
        if let Some(node) = &self.nodes[number]
            && !node.is_known
            && node.pods.is_empty()
        {
            self.numbers.remove(&node.info.name);
            self.nodes[number] = None;
        }
    }
}

/// The state of a node, a new one if there is none.
fn node_mut<'a>(
    nodes: &'a mut Vec<Option<NodeState>>,
    numbers: &mut HashMap<String, usize>,
    name: &str,
) -> &'a mut NodeState {
    let number = match numbers.get(name) {
        Some(number) => *number,
        None => {
            let number = nodes.iter().position(Option::is_none).unwrap_or(nodes.len());
            if number == nodes.len() {
                nodes.push(None);
            }
            numbers.insert(name.to_string(), number);
            number
        }
    };
    nodes[number].get_or_insert_with(|| NodeState {
        number,
        info: NodeInfo { name: name.to_string(), ..NodeInfo::default() },
        ..NodeState::default()
    })
}

//! Who owns whom, over all kinds: no more of each object than the collector needs.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::resources::{Metadata, Resource};

/// An object's identity for ever.
pub type Uid = Arc<str>;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// One object.
#[derive(Clone, Debug)]
pub struct Node {
    pub resource: Arc<Resource>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub resource_version: Arc<str>,
    pub owners: Arc<[OwnerReference]>,
    pub state: State,
    /// Which of the collector's finalizers it has, whether or not it is being deleted.
    pub policy: Policy,
}

/// Where an object's deletion stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody deletes it.
    Alive,
    /// It is being deleted, which is no business of ours.
    Dying,
    /// It waits until its dependents are gone (finalizer `foregroundDeletion`).
    AwaitsDependents,
    /// Its dependents are to be left without owner (finalizer `orphan`).
    Orphans,
}

/// What shall become of an object's dependents when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Background,
    Foreground,
    Orphan,
}

/// What to do about one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing.
    Leave,
    /// The last blocking dependent is gone: remove this finalizer.
    RemoveFinalizer(&'static str),
    /// These must lose their reference to this owner, then it loses its finalizer.
    Orphan(Vec<Uid>),
    /// These owners are not known: ask the server whether they exist, see [`Graph::judge`].
    Verify(Vec<OwnerReference>),
    /// Some owners are gone, others keep it: remove the references to these.
    RemoveOwners(Vec<String>),
    /// It is part of a circle in which everyone waits for the next: it must hold up its owners no more.
    Unblock,
    /// Nobody owns it any more.
    Delete(Policy),
}

impl Decision {
    /// Why it is so, for people.
    pub fn describe(&self) -> String {
        match self {
            Decision::Leave => "nothing to do".into(),
            Decision::RemoveFinalizer(finalizer) => format!("nothing holds up {finalizer} any more"),
            Decision::Orphan(dependents) => format!("{} dependents to be orphaned", dependents.len()),
            Decision::Verify(owners) => format!("{} owners not seen yet", owners.len()),
            Decision::RemoveOwners(owners) => format!("{} of its owners gone", owners.len()),
            Decision::Unblock => "its owner waits for it, and it for its owner".into(),
            Decision::Delete(_) => "no owner that keeps it".into(),
        }
    }
}

/// All objects of all kinds.
#[derive(Default)]
pub struct Graph {
    nodes: HashMap<Uid, Node>,
    /// By owner; also of owners that are not there (yet, or any more).
    dependents: HashMap<Uid, HashSet<Uid>>,
    /// Owners that we saw deleted while something still refers to them; nobody need ask the server about these.
    gone: HashSet<Uid>,
}

impl Node {
    /// A node from an object's metadata.
    pub fn new(resource: Arc<Resource>, metadata: Metadata) -> Node {
        let has = |finalizer: &str| metadata.finalizers.iter().any(|name| name == finalizer);
        let policy = match () {
            () if has(ORPHAN) => Policy::Orphan,
            () if has(FOREGROUND) => Policy::Foreground,
            () => Policy::Background,
        };
        let state = match (metadata.deletion_timestamp.is_some(), policy) {
            (false, _) => State::Alive,
            (true, Policy::Background) => State::Dying,
            (true, Policy::Foreground) => State::AwaitsDependents,
            (true, Policy::Orphan) => State::Orphans,
        };
        Node {
            resource,
            namespace: metadata.namespace.into(),
            name: metadata.name.into(),
            resource_version: metadata.resource_version.into(),
            owners: metadata.owner_references.into(),
            state,
            policy,
        }
    }

    /// `Kind namespace/name`.
    pub fn describe(&self) -> String {
        match &*self.namespace {
            "" => format!("{} {}", self.resource.kind, self.name),
            namespace => format!("{} {namespace}/{}", self.resource.kind, self.name),
        }
    }

    fn is_owned_by(&self, uid: &str) -> bool {
        self.owners.iter().any(|owner| owner.uid == uid)
    }

    fn blocks(&self, uid: &str) -> bool {
        self.owners.iter().any(|owner| owner.uid == uid && is_blocked(owner))
    }
}

/// Whether this owner may not go before whoever refers to it.
pub fn is_blocked(owner: &OwnerReference) -> bool {
    owner.block_owner_deletion == Some(true)
}

impl Graph {
    /// One object.
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Everything of one kind; for a list that replaces it.
    pub fn of_resource(&self, resource: &Resource) -> Vec<Uid> {
        self.nodes
            .iter()
            .filter(|(_, node)| *node.resource == *resource)
            .map(|(uid, _)| uid.clone())
            .collect()
    }

    /// Takes over a new state; returns whom it concerns.
    pub fn insert(&mut self, uid: Uid, node: Node) -> Vec<Uid> {
        let mut concerned = Vec::new();
        self.gone.remove(&uid);
        let old = self.nodes.insert(uid.clone(), node.clone());
        let before: &[OwnerReference] = old.as_ref().map_or(&[], |old| &old.owners);
        for owner in before.iter().filter(|owner| !node.is_owned_by(&owner.uid)) {
            self.forget_dependent(&owner.uid, &uid);
        }
        for owner in node.owners.iter() {
            self.dependents.entry(owner.uid.as_str().into()).or_default().insert(uid.clone());
        }
        if *before != *node.owners {
            // An owner that waits may wait no longer, or for one more.
            let owners = before.iter().chain(node.owners.iter());
            concerned.extend(owners.filter_map(|owner| self.waiting(&owner.uid)));
            let is_doubtful = |owner: &OwnerReference| {
                self.nodes.get(owner.uid.as_str()).is_none_or(|owner| owner.state != State::Alive)
            };
            if node.owners.iter().any(is_doubtful) {
                concerned.push(uid.clone());
            }
        }
        if old.is_none_or(|old| old.state != node.state)
            && matches!(node.state, State::AwaitsDependents | State::Orphans)
        {
            concerned.push(uid.clone());
            concerned.extend(self.dependents_of(&uid));
        }
        concerned
    }

    /// Takes over that an object is not there any more; returns whom it concerns.
    pub fn remove(&mut self, uid: &str) -> Vec<Uid> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        for owner in node.owners.iter() {
            self.forget_dependent(&owner.uid, uid);
        }
        let owners = node.owners.iter().filter_map(|owner| self.waiting(&owner.uid));
        self.dependents_of(uid).into_iter().chain(owners).collect()
    }

    /// The same where we were told that it was deleted, which is certain. That a list lacks it may have other
    /// causes, such as a version that is no longer served.
    pub fn delete(&mut self, uid: &str) -> Vec<Uid> {
        let concerned = self.remove(uid);
        if self.dependents.contains_key(uid) {
            self.gone.insert(uid.into());
        }
        concerned
    }

    /// What to do about an object, as far as the graph knows.
    pub fn decide(&self, uid: &str) -> Decision {
        let Some(node) = self.nodes.get(uid) else { return Decision::Leave };
        match node.state {
            State::Dying => Decision::Leave,
            State::Orphans => Decision::Orphan(self.dependents_of(uid)),
            State::AwaitsDependents => {
                let is_blocking =
                    |dependent: &Uid| self.nodes.get(dependent).is_some_and(|node| node.blocks(uid));
                match self.dependents_of(uid).iter().any(is_blocking) {
                    true => Decision::Leave,
                    false => Decision::RemoveFinalizer(FOREGROUND),
                }
            }
            State::Alive => {
                let unknown = |owner: &&OwnerReference| {
                    !self.nodes.contains_key(owner.uid.as_str()) && !self.gone.contains(owner.uid.as_str())
                };
                let unknown: Vec<OwnerReference> = node.owners.iter().filter(unknown).cloned().collect();
                if unknown.is_empty() { self.judge(uid, &HashSet::new()) } else { Decision::Verify(unknown) }
            }
        }
    }

    /// What to do about a living object when the server has said which of its owners are `absent`.
    pub fn judge(&self, uid: &str, absent: &HashSet<String>) -> Decision {
        let Some(node) = self.nodes.get(uid) else { return Decision::Leave };
        let waits = |owner: &&OwnerReference| self.waiting(&owner.uid).is_some();
        let is_absent =
            |owner: &&OwnerReference| absent.contains(&owner.uid) || self.gone.contains(owner.uid.as_str());
        let useless: Vec<String> = node
            .owners
            .iter()
            .filter(|owner| waits(owner) || is_absent(owner))
            .map(|owner| owner.uid.clone())
            .collect();
        let is_solid = node.owners.len() > useless.len();
        match (useless.is_empty(), is_solid) {
            (true, _) => Decision::Leave,
            (false, true) => Decision::RemoveOwners(useless),
            // An owner waits: whoever depends on this one must be gone before it, too.
            (false, false)
                if node.owners.iter().any(|owner| waits(&owner)) && !self.dependents_of(uid).is_empty() =>
            {
                let waits = |dependent: &Uid| self.waiting(dependent).is_some();
                let is_circle = self.dependents_of(uid).iter().any(waits);
                match is_circle && node.owners.iter().any(is_blocked) {
                    true => Decision::Unblock,
                    false => Decision::Delete(Policy::Foreground),
                }
            }
            (false, false) => Decision::Delete(node.policy),
        }
    }

    /// An object's uid, if it awaits its dependents.
    fn waiting(&self, owner: &str) -> Option<Uid> {
        let (uid, node) = self.nodes.get_key_value(owner)?;
        (node.state == State::AwaitsDependents).then(|| uid.clone())
    }

    fn dependents_of(&self, uid: &str) -> Vec<Uid> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    fn forget_dependent(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
                self.gone.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str) -> OwnerReference {
        OwnerReference { uid: uid.into(), block_owner_deletion: Some(true), ..OwnerReference::default() }
    }

    fn node(owners: &[&str], finalizer: Option<&str>, deleting: bool) -> Node {
        let resource = Resource {
            group: String::new(),
            version: "v1".into(),
            kind: "Thing".into(),
            plural: "things".into(),
            namespaced: true,
            verbs: Vec::new(),
        };
        let metadata = Metadata {
            owner_references: owners.iter().map(|uid| owner(uid)).collect(),
            finalizers: finalizer.into_iter().map(Into::into).collect(),
            deletion_timestamp: deleting.then(|| "now".into()),
            ..Metadata::default()
        };
        Node::new(Arc::new(resource), metadata)
    }

    fn graph(nodes: &[(&str, Node)]) -> Graph {
        let mut graph = Graph::default();
        nodes.iter().for_each(|(uid, node)| drop(graph.insert((*uid).into(), node.clone())));
        graph
    }

    #[test]
    fn an_owner_that_was_seen_deleted_is_not_asked_for() {
        let mut graph = graph(&[
            ("owner", node(&[], None, false)),
            ("a", node(&["owner"], None, false)),
            ("b", node(&["owner", "other"], None, false)),
            ("other", node(&[], None, false)),
        ]);
        let mut concerned = graph.delete("owner");
        concerned.sort();
        assert_eq!(concerned, ["a".into(), "b".into()] as [Uid; 2]);
        assert_eq!(graph.decide("a"), Decision::Delete(Policy::Background));
        assert_eq!(graph.decide("b"), Decision::RemoveOwners(vec!["owner".into()]));
        graph.remove("a");
        graph.remove("b");
        assert!(graph.gone.is_empty(), "remembered for nobody");
    }

    #[test]
    fn an_object_whose_owner_lives_is_left_alone() {
        let graph = graph(&[("owner", node(&[], None, false)), ("child", node(&["owner"], None, false))]);
        assert_eq!(graph.decide("child"), Decision::Leave);
        assert_eq!(graph.decide("owner"), Decision::Leave);
    }

    #[test]
    fn when_the_owner_goes_its_dependents_are_looked_at_and_deleted() {
        let mut graph = graph(&[("owner", node(&[], None, false)), ("child", node(&["owner"], None, false))]);
        assert_eq!(graph.remove("owner"), ["child".into()]);
        assert_eq!(graph.decide("child"), Decision::Verify(vec![owner("owner")]));
        let absent = HashSet::from(["owner".to_string()]);
        assert_eq!(graph.judge("child", &absent), Decision::Delete(Policy::Background));
        assert_eq!(
            graph.judge("child", &HashSet::new()),
            Decision::Leave,
            "the server knows the owner after all"
        );
    }

    #[test]
    fn an_object_with_another_owner_only_loses_the_reference() {
        let graph =
            graph(&[("kept", node(&[], None, false)), ("child", node(&["gone", "kept"], None, false))]);
        let absent = HashSet::from(["gone".to_string()]);
        assert_eq!(graph.judge("child", &absent), Decision::RemoveOwners(vec!["gone".into()]));
    }

    #[test]
    fn foreground_deletion_goes_from_the_leaves_to_the_root() {
        let mut graph = graph(&[
            ("root", node(&[], None, false)),
            ("middle", node(&["root"], None, false)),
            ("leaf", node(&["middle"], None, false)),
        ]);
        let woken = graph.insert("root".into(), node(&[], Some("foregroundDeletion"), true));
        assert_eq!(HashSet::from_iter(woken), HashSet::from(["root".into(), "middle".into()]));
        assert_eq!(graph.decide("root"), Decision::Leave, "the middle blocks");
        assert_eq!(graph.decide("middle"), Decision::Delete(Policy::Foreground));
        graph.insert("middle".into(), node(&["root"], Some("foregroundDeletion"), true));
        assert_eq!(graph.decide("leaf"), Decision::Delete(Policy::Background));
        assert_eq!(graph.remove("leaf"), ["middle".into()]);
        assert_eq!(graph.decide("middle"), Decision::RemoveFinalizer("foregroundDeletion"));
        assert_eq!(graph.remove("middle"), ["root".into()]);
        assert_eq!(graph.decide("root"), Decision::RemoveFinalizer("foregroundDeletion"));
    }

    #[test]
    fn a_circle_is_opened_where_it_closes() {
        let foreground = Some("foregroundDeletion");
        let mut graph = graph(&[
            ("a", node(&["c"], foreground, true)),
            ("b", node(&["a"], foreground, true)),
            ("c", node(&["b"], None, false)),
        ]);
        assert_eq!(graph.decide("c"), Decision::Unblock, "a waits for b, b for c, and c would wait for a");
        let mut unblocked = node(&["b"], None, false);
        unblocked.owners = [OwnerReference { block_owner_deletion: Some(false), ..owner("b") }].into();
        let woken = graph.insert("c".into(), unblocked.clone());
        assert!(woken.contains(&"c".into()), "{woken:?}");
        assert_eq!(graph.decide("c"), Decision::Delete(Policy::Foreground));
        graph.insert("c".into(), Node { state: State::AwaitsDependents, ..unblocked });
        assert_eq!(graph.decide("b"), Decision::RemoveFinalizer("foregroundDeletion"));
        assert!(graph.delete("b").contains(&"a".into()));
        assert_eq!(graph.decide("a"), Decision::RemoveFinalizer("foregroundDeletion"));
        assert_eq!(graph.delete("a"), ["c".into()]);
        assert_eq!(graph.decide("c"), Decision::RemoveFinalizer("foregroundDeletion"));
    }

    #[test]
    fn orphaning_frees_the_dependents() {
        let mut graph = graph(&[("owner", node(&[], None, false)), ("child", node(&["owner"], None, false))]);
        graph.insert("owner".into(), node(&[], Some("orphan"), true));
        assert_eq!(graph.decide("owner"), Decision::Orphan(vec!["child".into()]));
        assert_eq!(graph.decide("child"), Decision::Leave, "its owner is still there");
    }

    #[test]
    fn a_dependent_that_is_seen_before_its_owner_is_looked_at() {
        let mut graph = Graph::default();
        assert_eq!(graph.insert("child".into(), node(&["owner"], None, false)), ["child".into()]);
        assert!(graph.insert("owner".into(), node(&[], None, false)).is_empty());
        assert_eq!(graph.decide("child"), Decision::Leave);
    }
}

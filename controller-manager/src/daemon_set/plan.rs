//! Decides on which nodes a DaemonSet's pods are missing, which ones are too many, and which give way to an update.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, DaemonSetStatus},
    core::v1::{
        Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
        Taint, Toleration,
    },
};
use kube::ResourceExt;

use crate::{
    fraction::{self, Round},
    node_affinity,
    pods::{PodExt, seconds, unless_zero},
    revisions::HASH_LABEL,
    tolerations::first_untolerated,
};

/// What a pass does.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    /// Pods that go.
    pub delete: Vec<Arc<Pod>>,
    /// Pods that go because they have ended, which should be slow when it happens again and again.
    pub replace: Vec<Arc<Pod>>,
}

/// What a DaemonSet is to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// Its pod belongs there.
    Runs,
    /// A pod that is there may stay, but none is started.
    MayStay,
    /// No pod of it may be there.
    Refused,
}

/// A DaemonSet with all that a decision about it takes.
pub struct Observed<'a> {
    pub set: &'a DaemonSet,
    /// The hash of the present template's revision.
    pub hash: &'a str,
    pub nodes: &'a [Arc<Node>],
    pub pods: &'a [Arc<Pod>],
    pub now: Timestamp,
}

impl Observed<'_> {
    /// What one pass does.
    pub fn plan(&self) -> Plan {
        if self.set.metadata.deletion_timestamp.is_some() {
            return Plan::default();
        }
        let mut plan = self.place();
        // Placing comes first: an update of what is not in place yet would count it as unavailable.
        if plan == Plan::default() && self.is_rolling() {
            plan = match self.max_surge() {
                0 => self.replace_old(),
                surge => self.surge(surge),
            };
        }
        plan
    }

    /// A pod on every node where one belongs, none where not.
    fn place(&self) -> Plan {
        let mut plan = Plan::default();
        let mut by_node = self.pods_by_node();
        for node in self.nodes {
            let pods = by_node.remove(node.name_any().as_str()).unwrap_or_default();
            match self.fit(node) {
                Fit::Runs if pods.is_empty() => plan.create.push(node.name_any()),
                Fit::Runs | Fit::MayStay => self.thin_out(&pods, &mut plan),
                Fit::Refused => plan.delete.extend(pods.into_iter().filter(|pod| !pod.is_terminating())),
            }
        }
        // Pods for nodes that are gone, and that no kubelet will ever see.
        let lost =
            by_node.into_values().flatten().filter(|pod| pod.node().is_empty() && !pod.is_terminating());
        plan.delete.extend(lost);
        plan
    }

    /// Of several pods on one node the oldest stays; during a surge the oldest of each revision.
    fn thin_out(&self, pods: &[Arc<Pod>], plan: &mut Plan) {
        let (ended, running): (Vec<_>, Vec<_>) =
            pods.iter().filter(|pod| !pod.is_terminating()).cloned().partition(|pod| pod.is_finished());
        plan.replace.extend(ended);
        let (mut new, mut old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| self.is_updated(pod));
        for pods in [&mut new, &mut old] {
            pods.sort_by_key(|pod| {
                (pod.node().is_empty(), !pod.is_ready(), pod.created_at(), pod.metadata.name.clone())
            });
        }
        let surging = self.is_rolling() && self.max_surge() > 0;
        let kept_old = match new.first() {
            None => 1,
            Some(new) if surging && !self.is_available(new) => 1,
            Some(_) => 0,
        };
        plan.delete.extend(new.into_iter().skip(1));
        plan.delete.extend(old.into_iter().skip(kept_old));
    }

    /// Deletes old pods, no more at a time than may be unavailable; those first that are of no use anyway.
    fn replace_old(&self) -> Plan {
        let mut unavailable = 0;
        let (mut useless, mut candidates) = (Vec::new(), Vec::new());
        for (_, pods) in self.settled_nodes() {
            match pods.as_slice() {
                [pod] if pod.is_terminating() => unavailable += 1,
                [pod] if self.is_updated(pod) => unavailable += i32::from(!self.is_available(pod)),
                [pod] if !self.is_available(pod) => {
                    unavailable += 1;
                    useless.push(pod.clone());
                }
                [pod] => candidates.push(pod.clone()),
                // None yet, or one comes as another goes.
                _ => unavailable += 1,
            }
        }
        let room = usize::try_from(self.max_unavailable() - unavailable).unwrap_or_default();
        useless.extend(candidates.into_iter().take(room));
        Plan { delete: useless, ..Plan::default() }
    }

    /// Starts new pods beside the old ones, no more at a time than may be too many.
    fn surge(&self, most: i32) -> Plan {
        let mut surging = 0;
        let (mut urgent, mut candidates, mut delete) = (Vec::new(), Vec::new(), Vec::new());
        for (node, pods) in self.settled_nodes() {
            let new = pods.iter().find(|pod| self.is_updated(pod));
            let old = pods.iter().find(|pod| !self.is_updated(pod));
            match (old, new) {
                (Some(old), Some(new)) if self.is_available(new) => {
                    delete.extend((!old.is_terminating()).then(|| old.clone()));
                }
                (Some(_), Some(_)) => surging += 1,
                (Some(old), None) if !self.is_available(old) => urgent.push(node),
                (Some(_), None) => candidates.push(node),
                (None, _) => {}
            }
        }
        let room = usize::try_from(most - surging).unwrap_or_default();
        urgent.extend(candidates.into_iter().take(room));
        Plan { create: urgent, delete, ..Plan::default() }
    }

    /// The nodes where a pod belongs, with what is there.
    fn settled_nodes(&self) -> Vec<(String, Vec<Arc<Pod>>)> {
        let mut by_node = self.pods_by_node();
        let wanted = self.nodes.iter().filter(|node| self.fit(node) == Fit::Runs);
        wanted
            .map(|node| (node.name_any(), by_node.remove(node.name_any().as_str()).unwrap_or_default()))
            .collect()
    }

    /// The numbers of the status.
    pub fn status(&self) -> DaemonSetStatus {
        let by_node = self.pods_by_node();
        let mut status = DaemonSetStatus::default();
        let (mut available, mut updated) = (0, 0);
        for node in self.nodes {
            let pods = by_node.get(node.name_any().as_str()).map(Vec::as_slice).unwrap_or_default();
            if self.fit(node) != Fit::Runs {
                status.number_misscheduled += i32::from(!pods.is_empty());
                continue;
            }
            status.desired_number_scheduled += 1;
            status.current_number_scheduled += i32::from(!pods.is_empty());
            // Ready and available counts a node once, whichever of its pods is.
            status.number_ready += i32::from(pods.iter().any(|pod| pod.is_ready()));
            available += i32::from(pods.iter().any(|pod| self.is_available(pod)));
            updated += i32::from(pods.iter().any(|pod| self.is_updated(pod)));
        }
        let old = self.set.status.as_ref();
        DaemonSetStatus {
            number_available: unless_zero(available),
            number_unavailable: unless_zero(status.desired_number_scheduled - available),
            updated_number_scheduled: unless_zero(updated),
            observed_generation: self.set.metadata.generation,
            collision_count: old.and_then(|old| old.collision_count),
            conditions: old.and_then(|old| old.conditions.clone()),
            ..status
        }
    }

    fn fit(&self, node: &Node) -> Fit {
        let Some(spec) = &self.set.spec.template.spec else { return Fit::Refused };
        let pinned_elsewhere =
            spec.node_name.as_ref().is_some_and(|name| !name.is_empty() && *name != node.name_any());
        if pinned_elsewhere || !node_affinity::matches(spec, node) {
            return Fit::Refused;
        }
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let taints_of = |effects: &[&str]| -> Vec<Taint> {
            taints.iter().filter(|taint| effects.contains(&taint.effect.as_str())).cloned().collect()
        };
        let tolerations = tolerations(spec);
        let bears = |effects: &[&str]| first_untolerated(&taints_of(effects), &tolerations).is_none();
        match (bears(&["NoSchedule", "NoExecute"]), bears(&["NoExecute"])) {
            (true, _) => Fit::Runs,
            (false, true) => Fit::MayStay,
            (false, false) => Fit::Refused,
        }
    }

    fn pods_by_node(&self) -> BTreeMap<&str, Vec<Arc<Pod>>> {
        let mut by_node: BTreeMap<&str, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in self.pods {
            by_node.entry(target_node(pod)).or_default().push(pod.clone());
        }
        by_node
    }

    fn is_rolling(&self) -> bool {
        let strategy = self.set.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        strategy != Some("OnDelete")
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        pod.label(HASH_LABEL) == self.hash
    }

    fn is_available(&self, pod: &Pod) -> bool {
        !pod.is_terminating() && pod.is_available(self.min_ready(), self.now)
    }

    fn min_ready(&self) -> Duration {
        seconds(self.set.spec.min_ready_seconds)
    }

    fn max_surge(&self) -> i32 {
        let rolling =
            self.set.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        fraction::resolve(rolling.and_then(|rolling| rolling.max_surge.as_ref()), self.wanted(), Round::Up)
    }

    fn max_unavailable(&self) -> i32 {
        let rolling =
            self.set.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let given = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        given.map_or(1, |given| fraction::resolve(Some(given), self.wanted(), Round::Up))
    }

    fn wanted(&self) -> i32 {
        self.nodes.iter().filter(|node| self.fit(node) == Fit::Runs).count().try_into().unwrap_or(i32::MAX)
    }
}

/// Makes a pod one for this node and no other. The scheduler binds it there, so that it counts its resources.
pub fn pin(spec: &mut PodSpec, node: &str) {
    let requirement = NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.into()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![requirement]), match_expressions: None };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    // Whether the node is among those that the user asked for has been decided already.
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
    spec.tolerations = Some(tolerations(spec));
}

/// A DaemonSet's pods bear what drives others off: they are what makes a node work.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    const BORNE: &[(&str, &str)] = &[
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ];
    const BORNE_ON_HOST_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");
    let mut tolerations = spec.tolerations.clone().unwrap_or_default();
    let on_host = spec.host_network.unwrap_or_default().then_some(&BORNE_ON_HOST_NETWORK);
    for (key, effect) in BORNE.iter().chain(on_host) {
        let toleration = Toleration {
            key: Some((*key).into()),
            operator: Some("Exists".into()),
            effect: Some((*effect).into()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    tolerations
}

/// The node that a pod is bound to, or pinned to before it is bound.
pub fn target_node(pod: &Pod) -> &str {
    if !pod.node().is_empty() {
        return pod.node();
    }
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let required =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let terms = required.map(|required| required.node_selector_terms.as_slice()).unwrap_or_default();
    let mut fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let field = fields.find(|field| field.key == "metadata.name");
    field.and_then(|field| field.values.as_ref()?.first()).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::{
            apps::v1::{DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet},
            core::v1::{NodeSpec, PodCondition, PodStatus, PodTemplateSpec},
        },
        apimachinery::pkg::util::intstr::IntOrString,
    };
    use kube::api::ObjectMeta;
    use proptest::prelude::*;

    use super::*;

    fn set(surge: i32, unavailable: i32) -> DaemonSet {
        let rolling = RollingUpdateDaemonSet {
            max_surge: Some(IntOrString::Int(surge)),
            max_unavailable: Some(IntOrString::Int(unavailable)),
        };
        let strategy =
            DaemonSetUpdateStrategy { type_: Some("RollingUpdate".into()), rolling_update: Some(rolling) };
        let template = PodTemplateSpec { spec: Some(PodSpec::default()), metadata: None };
        DaemonSet {
            spec: DaemonSetSpec { template, update_strategy: Some(strategy), ..DaemonSetSpec::default() },
            ..DaemonSet::default()
        }
    }

    fn node(name: &str, taint: Option<(&str, &str)>) -> Arc<Node> {
        let taint = taint
            .map(|(key, effect)| vec![Taint { key: key.into(), effect: effect.into(), ..Taint::default() }]);
        Arc::new(Node {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            spec: Some(NodeSpec { taints: taint, ..NodeSpec::default() }),
            status: None,
        })
    }

    fn pod(name: &str, node: &str, hash: &str, ready: bool) -> Arc<Pod> {
        let mut spec = PodSpec::default();
        pin(&mut spec, node);
        let condition = PodCondition {
            type_: "Ready".into(),
            status: if ready { "True" } else { "False" }.into(),
            ..PodCondition::default()
        };
        Arc::new(Pod {
            metadata: ObjectMeta {
                name: Some(name.into()),
                labels: Some([(HASH_LABEL.to_string(), hash.to_string())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
            status: Some(PodStatus { conditions: Some(vec![condition]), ..PodStatus::default() }),
        })
    }

    fn observed<'a>(set: &'a DaemonSet, nodes: &'a [Arc<Node>], pods: &'a [Arc<Pod>]) -> Observed<'a> {
        Observed { set, hash: "new", nodes, pods, now: Timestamp::UNIX_EPOCH }
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<String> {
        pods.iter().map(|pod| pod.name_any()).collect()
    }

    #[test]
    fn every_node_that_fits_gets_one_pod() {
        let nodes = [
            node("a", None),
            node("b", None),
            node("tainted", Some(("dedicated", "NoSchedule"))),
            node("cordoned", Some(("node.kubernetes.io/unschedulable", "NoSchedule"))),
        ];
        let pods = [pod("one", "a", "new", true)];
        let set = set(0, 1);
        let plan = observed(&set, &nodes, &pods).plan();
        assert_eq!(plan.create, ["b", "cordoned"]);
        let status = observed(&set, &nodes, &pods).status();
        assert_eq!((status.desired_number_scheduled, status.current_number_scheduled), (3, 1));
    }

    #[test]
    fn pods_leave_nodes_that_drive_them_off_but_not_those_that_only_refuse_new_ones() {
        let nodes = [node("a", Some(("x", "NoSchedule"))), node("b", Some(("x", "NoExecute")))];
        let pods = [pod("stays", "a", "new", true), pod("goes", "b", "new", true)];
        let set = set(0, 1);
        let plan = observed(&set, &nodes, &pods).plan();
        assert_eq!((names(&plan.delete), plan.create), (vec!["goes".into()], vec![]));
        assert_eq!(observed(&set, &nodes, &pods).status().number_misscheduled, 2);
    }

    #[test]
    fn a_second_pod_on_a_node_is_one_too_many() {
        let nodes = [node("a", None)];
        let pods = [pod("unready", "a", "new", false), pod("ready", "a", "new", true)];
        let set = set(0, 1);
        assert_eq!(names(&observed(&set, &nodes, &pods).plan().delete), ["unready"]);
    }

    #[test]
    fn an_update_takes_useless_pods_first_and_no_more_than_it_may() {
        let nodes = ["a", "b", "c"].map(|name| node(name, None));
        let pods = [pod("1", "a", "old", true), pod("2", "b", "old", true), pod("3", "c", "old", true)];
        let set = set(0, 1);
        assert_eq!(names(&observed(&set, &nodes, &pods).plan().delete), ["1"]);
        let pods = [pod("1", "a", "old", true), pod("2", "b", "old", false), pod("3", "c", "old", true)];
        assert_eq!(names(&observed(&set, &nodes, &pods).plan().delete), ["2"]);
        let pods = [pod("1", "a", "new", false), pod("2", "b", "old", true), pod("3", "c", "old", true)];
        assert_eq!(observed(&set, &nodes, &pods).plan(), Plan::default(), "one is unavailable already");
    }

    #[test]
    fn on_delete_waits_for_the_user() {
        let mut set = set(0, 1);
        set.spec.update_strategy.as_mut().unwrap().type_ = Some("OnDelete".into());
        let (nodes, pods) = ([node("a", None)], [pod("1", "a", "old", true)]);
        assert_eq!(observed(&set, &nodes, &pods).plan(), Plan::default());
    }

    #[test]
    fn a_surge_starts_the_new_pod_before_the_old_one_goes() {
        let set = set(1, 0);
        let nodes = [node("a", None), node("b", None)];
        let mut pods = vec![pod("1", "a", "old", true), pod("2", "b", "old", true)];
        assert_eq!(observed(&set, &nodes, &pods).plan().create, ["a"]);
        pods.push(pod("3", "a", "new", false));
        assert_eq!(observed(&set, &nodes, &pods).plan(), Plan::default());
        pods[2] = pod("3", "a", "new", true);
        assert_eq!(names(&observed(&set, &nodes, &pods).plan().delete), ["1"]);
    }

    proptest! {
        /// However it starts, each node ends with one pod of the new revision.
        #[test]
        fn passes_settle(surge in 0i32..3, unavailable in 1i32..3, start in proptest::collection::vec((0usize..4, any::<bool>(), any::<bool>()), 0..10)) {
            let unavailable = if surge > 0 { 0 } else { unavailable };
            let set = set(surge, unavailable);
            let nodes = ["n0", "n1", "n2", "n3"].map(|name| node(name, None));
            let mut pods: Vec<Arc<Pod>> = start.iter().enumerate().map(|(index, (node, new, ready))| {
                pod(&format!("p{index}"), &format!("n{node}"), if *new { "new" } else { "old" }, *ready)
            }).collect();
            let mut made = 100;
            for _ in 0..40 {
                let plan = observed(&set, &nodes, &pods).plan();
                pods.retain(|pod| !plan.delete.contains(pod) && !plan.replace.contains(pod));
                for node in &plan.create {
                    made += 1;
                    pods.push(pod(&format!("p{made}"), node, "new", false));
                }
                // What was created becomes ready.
                pods = pods.iter().map(|old| pod(&old.name_any(), target_node(old), old.label(HASH_LABEL), true)).collect();
            }
            prop_assert_eq!(observed(&set, &nodes, &pods).plan(), Plan::default());
            prop_assert_eq!(pods.len(), 4);
            prop_assert!(pods.iter().all(|pod| pod.label(HASH_LABEL) == "new"));
        }
    }
}

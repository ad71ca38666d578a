//! Decides which pods a replica set lacks and which it has too many of, and what its status is.

use std::{
    cmp::{Ordering, Reverse},
    collections::HashMap,
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSetCondition, ReplicaSetStatus},
        core::v1::{Pod, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::core::Selector;

use crate::pods::{PodExt, seconds, unless_zero};

/// As many pods as one pass creates or deletes at most.
pub const BURST: usize = 500;

/// What a replica set asks for; a ReplicationController asks for the same.
pub struct Wanted<'a> {
    /// How many pods.
    pub replicas: usize,
    /// How long a pod must be ready to count as available.
    pub min_ready_seconds: Option<i32>,
    /// What the pods look like.
    pub template: Option<&'a PodTemplateSpec>,
    /// Which pods are meant.
    pub selector: Option<Selector>,
    /// Whether the set itself is being deleted: then pods are left to the collector.
    pub terminating: bool,
}

/// What to do about the number of pods.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Create so many.
    Create(usize),
    /// Delete these.
    Delete(Vec<Arc<Pod>>),
}

/// What would bring `pods`, all controlled by the set, to the number that it asks for. `related` are the pods of
/// its sibling sets too; of pods that are otherwise equal, those go first that share their node with most of them.
pub fn plan(wanted: &Wanted<'_>, pods: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Option<Action> {
    if wanted.terminating {
        return None;
    }
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|pod| pod.is_active()).collect();
    match active.len().cmp(&wanted.replicas) {
        Ordering::Equal => None,
        Ordering::Less => Some(Action::Create((wanted.replicas - active.len()).min(BURST))),
        Ordering::Greater => {
            let surplus = (active.len() - wanted.replicas).min(BURST);
            Some(Action::Delete(surplus_pods(active, related, surplus, now)))
        }
    }
}

/// The pods to delete first, in upstream's order (`ActivePodsWithRanks`).
fn surplus_pods(
    active: Vec<&Arc<Pod>>,
    related: &[Arc<Pod>],
    surplus: usize,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    let mut neighbours: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pod.is_active()) {
        *neighbours.entry(pod.node()).or_default() += 1;
    }
    let mut ranked = active;
    ranked.sort_by_cached_key(|pod| {
        let phase = match pod.phase() {
            "Running" => 2,
            "Unknown" => 1,
            _ => 0,
        };
        (
            !pod.node().is_empty(),
            phase,
            pod.is_ready(),
            deletion_cost(pod),
            Reverse(neighbours.get(pod.node()).copied().unwrap_or_default()),
            magnitude(pod.ready_since(), now),
            Reverse(most_restarts(pod)),
            magnitude(pod.created_at(), now),
            pod.metadata.uid.clone(),
        )
    });
    ranked.into_iter().take(surplus).cloned().collect()
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    let cost =
        annotations.and_then(|annotations| annotations.get("controller.kubernetes.io/pod-deletion-cost"));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or_default()
}

fn most_restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or_default()
}

/// How long ago, as a power of two: pods of about the same age are taken by chance (their uid), not by the
/// second, so that scaling down spreads over the nodes. Younger sorts first.
fn magnitude(since: Option<Timestamp>, now: Timestamp) -> u32 {
    let age = since.map_or(0, |since| now.duration_since(since).as_nanos().max(0).unsigned_abs());
    u128::BITS - age.leading_zeros()
}

/// The status of a set with these pods. `failure` is why pods could not be created or deleted, with the reason.
pub fn status(
    wanted: &Wanted<'_>,
    old: &ReplicaSetStatus,
    generation: Option<i64>,
    pods: &[Arc<Pod>],
    failure: Option<(&str, String)>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let min_ready = seconds(wanted.min_ready_seconds);
    let empty = PodTemplateSpec::default();
    let template_labels =
        wanted.template.unwrap_or(&empty).metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    let is_fully_labelled =
        |pod: &Pod| template_labels.into_iter().flatten().all(|(key, value)| pod.label(key) == value);
    let count = |wanted: &dyn Fn(&Pod) -> bool| {
        pods.iter().filter(|pod| pod.is_active() && wanted(pod)).count().try_into().unwrap_or(i32::MAX)
    };
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: unless_zero(count(&is_fully_labelled)),
        ready_replicas: unless_zero(count(&PodExt::is_ready)),
        available_replicas: unless_zero(count(&|pod| pod.is_available(min_ready, now))),
        observed_generation: generation,
        conditions: conditions(old, failure, now),
        terminating_replicas: old.terminating_replicas,
    }
}

fn conditions(
    old: &ReplicaSetStatus,
    failure: Option<(&str, String)>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    const KIND: &str = "ReplicaFailure";
    let is_failure = |condition: &ReplicaSetCondition| condition.type_.as_deref() == Some(KIND);
    let mut conditions = old.conditions.clone().unwrap_or_default();
    match failure {
        // The first reason stays until pods can be made again, as upstream has it.
        Some(_) if conditions.iter().any(is_failure) => {}
        Some((reason, message)) => conditions.push(ReplicaSetCondition {
            type_: Some(KIND.into()),
            status: Some("True".into()),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        }),
        None => conditions.retain(|condition| !is_failure(condition)),
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// Whether two statuses differ in anything that is worth a write. Unset counts as zero.
pub fn differs(old: &ReplicaSetStatus, new: &ReplicaSetStatus) -> bool {
    let numbers = |status: &ReplicaSetStatus| {
        [
            Some(status.replicas),
            status.fully_labeled_replicas,
            status.ready_replicas,
            status.available_replicas,
        ]
        .map(Option::unwrap_or_default)
    };
    numbers(old) != numbers(new)
        || old.observed_generation != new.observed_generation
        || old.conditions.as_deref().unwrap_or_default() != new.conditions.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodCondition, PodSpec, PodStatus};
    use kube::{ResourceExt, api::ObjectMeta};
    use proptest::prelude::*;

    use super::*;

    fn wanted(replicas: usize) -> Wanted<'static> {
        Wanted { replicas, min_ready_seconds: None, template: None, selector: None, terminating: false }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    fn pod(name: &str, node: &str, phase: &str, ready_at: Option<i64>) -> Pod {
        let ready = ready_at.map(|second| PodCondition {
            type_: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some(Time(Timestamp::from_second(second).unwrap())),
            ..PodCondition::default()
        });
        Pod {
            metadata: ObjectMeta { name: Some(name.into()), uid: Some(name.into()), ..ObjectMeta::default() },
            spec: Some(PodSpec { node_name: (!node.is_empty()).then(|| node.into()), ..PodSpec::default() }),
            status: Some(PodStatus {
                phase: Some(phase.into()),
                conditions: ready.map(|ready| vec![ready]),
                ..PodStatus::default()
            }),
        }
    }

    fn deleted(wanted: &Wanted<'_>, pods: &[Pod]) -> Vec<String> {
        let pods: Vec<Arc<Pod>> = pods.iter().cloned().map(Arc::new).collect();
        match plan(wanted, &pods, &pods, now()) {
            Some(Action::Delete(pods)) => pods.iter().map(|pod| pod.name_any()).collect(),
            other => panic!("expected deletions, got {other:?}"),
        }
    }

    #[test]
    fn missing_pods_are_created_and_finished_ones_do_not_count() {
        let pods = [pod("a", "n", "Running", Some(1)), pod("b", "n", "Failed", None)].map(Arc::new);
        assert_eq!(plan(&wanted(3), &pods, &pods, now()), Some(Action::Create(2)));
    }

    #[test]
    fn one_pass_creates_no_more_than_a_burst() {
        assert_eq!(plan(&wanted(2000), &[], &[], now()), Some(Action::Create(BURST)));
    }

    #[test]
    fn a_set_that_is_deleted_leaves_its_pods_to_the_collector() {
        let set = Wanted { terminating: true, ..wanted(3) };
        assert_eq!(plan(&set, &[], &[], now()), None);
    }

    #[test]
    fn scaling_down_takes_the_least_useful_pods_first() {
        let pods = [
            pod("ready", "n", "Running", Some(10)),
            pod("unready", "n", "Running", None),
            pod("pending", "n", "Pending", None),
            pod("unassigned", "", "Pending", None),
        ];
        assert_eq!(deleted(&wanted(1), &pods), ["unassigned", "pending", "unready"]);
    }

    #[test]
    fn scaling_down_obeys_the_deletion_cost() {
        let mut cheap = pod("cheap", "n", "Running", Some(10));
        cheap.metadata.annotations =
            Some([("controller.kubernetes.io/pod-deletion-cost".to_string(), "-5".to_string())].into());
        assert_eq!(deleted(&wanted(1), &[pod("dear", "n", "Running", Some(999_999)), cheap]), ["cheap"]);
    }

    #[test]
    fn scaling_down_takes_from_the_fullest_node() {
        let pods = [
            pod("alone", "n1", "Running", Some(999_000)),
            pod("one-of-two", "n2", "Running", Some(10)),
            pod("other-of-two", "n2", "Running", Some(999_000)),
        ];
        assert_eq!(deleted(&wanted(2), &pods), ["other-of-two"], "ready for a shorter time");
    }

    #[test]
    fn the_status_counts_what_is_ready_and_available() {
        let pods = [
            pod("a", "n", "Running", Some(999_000)),
            pod("b", "n", "Running", Some(999_995)),
            pod("c", "n", "Pending", None),
            pod("d", "n", "Succeeded", None),
        ]
        .map(Arc::new);
        let set = Wanted { min_ready_seconds: Some(10), ..wanted(3) };
        let status = status(&set, &ReplicaSetStatus::default(), Some(4), &pods, None, now());
        assert_eq!(
            (status.replicas, status.ready_replicas, status.available_replicas),
            (3, Some(2), Some(1))
        );
        assert_eq!(status.observed_generation, Some(4));
    }

    #[test]
    fn a_failure_becomes_a_condition_and_goes_when_it_is_over() {
        let old = ReplicaSetStatus::default();
        let failing = status(&wanted(1), &old, None, &[], Some(("FailedCreate", "no".into())), now());
        let condition = &failing.conditions.as_ref().unwrap()[0];
        assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
        assert_eq!(status(&wanted(1), &failing, None, &[], None, now()).conditions, None);
    }

    proptest! {
        /// One pass changes the pods, the next finds nothing left to do.
        #[test]
        fn passes_settle(replicas in 0usize..20, phases in proptest::collection::vec(0usize..4, 0..30)) {
            let name = |index: usize| format!("pod-{index}");
            let mut pods: Vec<Arc<Pod>> = phases
                .iter()
                .enumerate()
                .map(|(index, phase)| pod(&name(index), "n", ["Pending", "Running", "Failed", "Unknown"][*phase], None))
                .map(Arc::new)
                .collect();
            match plan(&wanted(replicas), &pods, &pods, now()) {
                Some(Action::Create(count)) => {
                    pods.extend((0..count).map(|index| Arc::new(pod(&name(100 + index), "", "Pending", None))));
                }
                Some(Action::Delete(gone)) => pods.retain(|pod| !gone.contains(pod)),
                None => {}
            }
            prop_assert_eq!(plan(&wanted(replicas), &pods, &pods, now()), None);
        }
    }
}

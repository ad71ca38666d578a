//! Decides which of a StatefulSet's pods is created, deleted or replaced next: in order, one at a time, unless the
//! set says that all may go at once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{StatefulSet, StatefulSetStatus},
    core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume},
};
use kube::{ResourceExt, api::ObjectMeta};

use crate::{
    ownership,
    pods::{PodExt, seconds, unless_zero},
    revisions::HASH_LABEL,
};

const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create the pod with this ordinal, of the present template or of the one before.
    Create { ordinal: i32, updated: bool },
    /// Delete this pod.
    Delete(Arc<Pod>),
}

/// A StatefulSet with all that a decision about it takes.
pub struct Observed<'a> {
    pub set: &'a StatefulSet,
    /// Name of the revision that the pods were of before the update that is under way.
    pub current: &'a str,
    /// Name of the revision of the present template.
    pub update: &'a str,
    pub pods: &'a [Arc<Pod>],
    pub now: Timestamp,
}

impl Observed<'_> {
    /// What one pass does.
    pub fn plan(&self) -> Vec<Action> {
        if self.set.metadata.deletion_timestamp.is_some() {
            return Vec::new();
        }
        let mut actions = Vec::new();
        let (mut replicas, condemned) = self.by_ordinal();
        for ordinal in self.ordinals() {
            let pod = replicas.remove(&ordinal);
            let (action, is_well) = match pod {
                None => (Some(Action::Create { ordinal, updated: self.starts_updated(ordinal) }), false),
                // Deleted first; created anew when it is gone.
                Some(pod) if pod.is_finished() && !pod.is_terminating() => (Some(Action::Delete(pod)), false),
                Some(pod) => (None, self.is_available(&pod)),
            };
            actions.extend(action);
            if self.is_ordered() && !is_well {
                return actions;
            }
        }
        // From the highest ordinal down; an ordered set waits for each to be gone, and while two are unwell for the
        // lower one to recover: of a set that is in trouble nothing is taken away.
        let unwell = |pod: &Pod| !self.is_available(pod);
        let lowest_unwell = condemned.iter().find(|(_, pod)| unwell(pod)).map(|(ordinal, _)| *ordinal);
        for (ordinal, pod) in condemned.into_iter().rev() {
            let waits = unwell(&pod) && lowest_unwell.is_some_and(|lowest| lowest < ordinal);
            if self.is_ordered() && waits {
                return actions;
            }
            if !pod.is_terminating() {
                actions.push(Action::Delete(pod));
            }
            if self.is_ordered() {
                return actions;
            }
        }
        if actions.is_empty() && self.is_rolling() {
            actions.extend(self.next_to_update().map(Action::Delete));
        }
        actions
    }

    /// The highest pod above the partition that is not updated, once all above it are well.
    fn next_to_update(&self) -> Option<Arc<Pod>> {
        let (replicas, _) = self.by_ordinal();
        for ordinal in self.ordinals().rev().take_while(|ordinal| *ordinal >= self.first() + self.partition())
        {
            let pod = replicas.get(&ordinal)?;
            if !self.is_updated(pod) && !pod.is_terminating() {
                return Some(pod.clone());
            }
            if !self.is_available(pod) {
                return None;
            }
        }
        None
    }

    /// The status that the pods amount to.
    pub fn status(&self) -> StatefulSetStatus {
        let count = |wanted: &dyn Fn(&Pod) -> bool| -> i32 {
            self.pods.iter().filter(|pod| wanted(pod)).count().try_into().unwrap_or(i32::MAX)
        };
        let old = self.set.status.as_ref();
        let (ready, available) =
            (count(&|pod| is_running_and_ready(pod)), count(&|pod| self.is_available(pod)));
        let live = |pod: &Pod| !pod.is_terminating();
        let updated = count(&|pod| live(pod) && self.is_updated(pod));
        let is_complete = self.is_rolling() && updated == self.replicas() && ready == self.replicas();
        let current = if is_complete { self.update } else { self.current };
        let of_current = count(&|pod| live(pod) && pod.label(HASH_LABEL) == current);
        StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            replicas: count(&|_| true),
            ready_replicas: unless_zero(ready),
            // Upstream always tells this one.
            available_replicas: Some(available),
            current_replicas: unless_zero(of_current),
            updated_replicas: unless_zero(updated),
            current_revision: Some(current.into()),
            update_revision: Some(self.update.into()),
            collision_count: Some(old.and_then(|old| old.collision_count).unwrap_or_default()),
            conditions: old.and_then(|old| old.conditions.clone()),
        }
    }

    /// The pods by ordinal: those that belong to the set as it is, and those that are too many.
    fn by_ordinal(&self) -> (BTreeMap<i32, Arc<Pod>>, BTreeMap<i32, Arc<Pod>>) {
        let wanted = self.ordinals();
        let numbered = self.pods.iter().filter_map(|pod| Some((ordinal(&pod.name_any())?, pod.clone())));
        numbered.partition(|(ordinal, _)| wanted.contains(ordinal))
    }

    fn ordinals(&self) -> std::ops::Range<i32> {
        self.first()..self.first() + self.replicas()
    }

    fn first(&self) -> i32 {
        self.set.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default()
    }

    fn replicas(&self) -> i32 {
        self.set.spec.replicas.unwrap_or(1)
    }

    fn partition(&self) -> i32 {
        let strategy =
            self.set.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        strategy.and_then(|rolling| rolling.partition).unwrap_or_default()
    }

    fn is_rolling(&self) -> bool {
        let strategy = self.set.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        strategy != Some("OnDelete")
    }

    fn is_ordered(&self) -> bool {
        self.set.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    /// Whether a pod that has to be created is of the present template: not below the partition.
    fn starts_updated(&self, ordinal: i32) -> bool {
        !self.is_rolling() || ordinal >= self.first() + self.partition()
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        pod.label(HASH_LABEL) == self.update
    }

    fn is_available(&self, pod: &Pod) -> bool {
        !pod.is_terminating() && is_running_and_ready(pod) && pod.is_available(self.min_ready(), self.now)
    }

    fn min_ready(&self) -> Duration {
        seconds(self.set.spec.min_ready_seconds)
    }
}

/// The ordinal in a pod's name.
pub fn ordinal(name: &str) -> Option<i32> {
    name.rsplit_once('-')?.1.parse().ok()
}

/// A pod of the set, with its name, host name and volumes.
pub fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let given = template.metadata.clone().unwrap_or_default();
    let name = format!("{}-{ordinal}", set.name_any());
    let mut labels = given.labels.unwrap_or_default();
    let own =
        [(HASH_LABEL, revision.to_string()), (NAME_LABEL, name.clone()), (INDEX_LABEL, ordinal.to_string())];
    labels.extend(own.map(|(key, value)| (key.to_string(), value)));
    let mut spec = template.spec.clone().unwrap_or_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = set.spec.service_name.clone().filter(|name| !name.is_empty());
    let templates = set.spec.volume_claim_templates.as_deref().unwrap_or_default();
    if !templates.is_empty() {
        let mut volumes = spec.volumes.take().unwrap_or_default();
        volumes.retain(|volume| !templates.iter().any(|template| template.name_any() == volume.name));
        volumes.extend(templates.iter().map(|template| Volume {
            name: template.name_any(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(set, template, ordinal),
                read_only: None,
            }),
            ..Volume::default()
        }));
        spec.volumes = Some(volumes);
    }
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: set.namespace(),
        labels: Some(labels),
        annotations: given.annotations,
        finalizers: given.finalizers,
        owner_references: Some(vec![ownership::owner_reference(set)]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: Some(spec), status: None }
}

/// The claims that a pod of the set needs.
pub fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let templates = set.spec.volume_claim_templates.iter().flatten();
    let claim = |template: &PersistentVolumeClaim| {
        let mut labels = template.labels().clone();
        labels.extend(set.spec.selector.match_labels.clone().unwrap_or_default());
        let metadata = ObjectMeta {
            name: Some(claim_name(set, template, ordinal)),
            namespace: set.namespace(),
            labels: Some(labels),
            annotations: template.metadata.annotations.clone(),
            ..ObjectMeta::default()
        };
        PersistentVolumeClaim { metadata, spec: template.spec.clone(), status: None }
    };
    templates.map(claim).collect()
}

fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", template.name_any(), set.name_any())
}

fn is_running_and_ready(pod: &Pod) -> bool {
    pod.phase() == "Running" && pod.is_ready()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::{
            apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSetSpec, StatefulSetUpdateStrategy},
            core::v1::{PodCondition, PodStatus},
        },
        apimachinery::pkg::apis::meta::v1::Time,
    };
    use proptest::prelude::*;

    use super::*;

    fn set(replicas: i32) -> StatefulSet {
        let metadata = ObjectMeta { name: Some("db".into()), ..ObjectMeta::default() };
        StatefulSet {
            metadata,
            spec: StatefulSetSpec { replicas: Some(replicas), ..StatefulSetSpec::default() },
            status: None,
        }
    }

    fn replica(ordinal: i32, revision: &str, ready: bool) -> Arc<Pod> {
        let condition = PodCondition {
            type_: "Ready".into(),
            status: if ready { "True" } else { "False" }.into(),
            ..PodCondition::default()
        };
        let mut pod = pod(&set(0), &PodTemplateSpec::default(), revision, ordinal);
        pod.status = Some(PodStatus {
            phase: Some("Running".into()),
            conditions: Some(vec![condition]),
            ..PodStatus::default()
        });
        Arc::new(pod)
    }

    fn plan(set: &StatefulSet, pods: &[Arc<Pod>]) -> Vec<Action> {
        Observed { set, current: "old", update: "new", pods, now: Timestamp::UNIX_EPOCH }.plan()
    }

    #[test]
    fn pods_come_one_after_the_other() {
        assert_eq!(plan(&set(3), &[]), [Action::Create { ordinal: 0, updated: true }]);
        assert_eq!(plan(&set(3), &[replica(0, "new", false)]), []);
        assert_eq!(plan(&set(3), &[replica(0, "new", true)]), [Action::Create { ordinal: 1, updated: true }]);
    }

    #[test]
    fn a_parallel_set_does_not_wait() {
        let mut set = set(2);
        set.spec.pod_management_policy = Some("Parallel".into());
        assert_eq!(plan(&set, &[]).len(), 2);
    }

    #[test]
    fn the_highest_goes_first() {
        let pods = [0, 1, 2].map(|ordinal| replica(ordinal, "new", true));
        assert_eq!(plan(&set(1), &pods), [Action::Delete(pods[2].clone())]);
    }

    #[test]
    fn an_ordered_set_in_trouble_does_not_shrink() {
        let pods = |ready: [bool; 3]| [0, 1, 2].map(|at| replica(at as i32, "new", ready[at]));
        assert_eq!(plan(&set(0), &pods([false, false, false])), []);
        assert_eq!(plan(&set(1), &pods([true, false, false])), []);
        for ready in [[true, true, false], [false, true, true]] {
            let pods = pods(ready);
            assert_eq!(plan(&set(0), &pods), [Action::Delete(pods[2].clone())], "{ready:?}");
        }
        let mut parallel = set(0);
        parallel.spec.pod_management_policy = Some("Parallel".into());
        assert_eq!(plan(&parallel, &pods([false, false, false])).len(), 3);
    }

    #[test]
    fn an_ordered_set_shrinks_when_its_pods_have_been_ready_for_as_long_as_it_asks() {
        let ready_since_the_epoch = |ordinal| {
            let mut pod = (*replica(ordinal, "new", true)).clone();
            let conditions = pod.status.as_mut().unwrap().conditions.as_mut().unwrap();
            conditions[0].last_transition_time = Some(Time(Timestamp::UNIX_EPOCH));
            Arc::new(pod)
        };
        let pods = [0, 1].map(ready_since_the_epoch);
        for left in [0, 1] {
            let mut set = set(left);
            set.spec.min_ready_seconds = Some(10);
            let after = |seconds: i64| {
                let now = Timestamp::from_second(seconds).unwrap();
                Observed { set: &set, current: "new", update: "new", pods: &pods, now }.plan()
            };
            assert_eq!(after(9), [], "{left}");
            assert_eq!(after(10), [Action::Delete(pods[1].clone())], "{left}");
        }
    }

    #[test]
    fn an_update_goes_from_the_highest_down_to_the_partition() {
        let mut set = set(3);
        let pods = [0, 1, 2].map(|ordinal| replica(ordinal, "old", true));
        assert_eq!(plan(&set, &pods), [Action::Delete(pods[2].clone())]);
        let pods = [replica(0, "old", true), replica(1, "old", true), replica(2, "new", true)];
        assert_eq!(plan(&set, &pods), [Action::Delete(pods[1].clone())]);
        set.spec.update_strategy = Some(StatefulSetUpdateStrategy {
            type_: Some("RollingUpdate".into()),
            rolling_update: Some(RollingUpdateStatefulSetStrategy {
                partition: Some(2),
                ..Default::default()
            }),
        });
        assert_eq!(plan(&set, &pods), []);
        assert_eq!(plan(&set, &pods[1..]), [Action::Create { ordinal: 0, updated: false }]);
    }

    #[test]
    fn a_pod_that_is_going_holds_up_an_ordered_set() {
        let mut dying = (*replica(0, "new", true)).clone();
        dying.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(plan(&set(2), &[Arc::new(dying)]), []);
    }

    #[test]
    fn claims_are_named_after_the_pod() {
        let mut set = set(1);
        let metadata = ObjectMeta { name: Some("data".into()), ..ObjectMeta::default() };
        set.spec.volume_claim_templates =
            Some(vec![PersistentVolumeClaim { metadata, ..Default::default() }]);
        assert_eq!(claims(&set, 4)[0].name_any(), "data-db-4");
        let spec = pod(&set, &PodTemplateSpec::default(), "new", 4).spec.unwrap();
        assert_eq!(
            spec.volumes.unwrap()[0].persistent_volume_claim.as_ref().unwrap().claim_name,
            "data-db-4"
        );
    }

    proptest! {
        /// However it starts, the set ends with just its ordinals, all updated.
        #[test]
        fn passes_settle(replicas in 0i32..6, start in proptest::collection::btree_map(0i32..8, any::<bool>(), 0..8)) {
            let set = set(replicas);
            let mut pods: Vec<_> =
                start.iter().map(|(ordinal, new)| replica(*ordinal, if *new { "new" } else { "old" }, true)).collect();
            for _ in 0..40 {
                for action in plan(&set, &pods) {
                    match action {
                        Action::Create { ordinal, .. } => pods.push(replica(ordinal, "new", true)),
                        Action::Delete(gone) => pods.retain(|pod| *pod != gone),
                    }
                }
            }
            prop_assert_eq!(plan(&set, &pods), []);
            let mut ordinals: Vec<_> = pods.iter().filter_map(|pod| ordinal(&pod.name_any())).collect();
            ordinals.sort();
            prop_assert_eq!(ordinals, (0..replicas).collect::<Vec<_>>());
            prop_assert!(pods.iter().all(|pod| pod.label(HASH_LABEL) == "new"));
        }
    }
}

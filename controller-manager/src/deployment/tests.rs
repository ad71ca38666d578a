//! Rollouts, played against replica sets that do at once what they are told.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{
            Deployment, DeploymentSpec, DeploymentStrategy, ReplicaSet, ReplicaSetStatus,
            RollingUpdateDeployment,
        },
        core::v1::{Container, Pod, PodSpec, PodTemplateSpec},
    },
    apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString},
};
use kube::{ResourceExt, api::ObjectMeta};
use proptest::prelude::*;

use super::{
    plan::{Action, Plan, plan},
    sets::{self, Size},
    status,
};

/// A Deployment and its sets, without an API server.
struct World {
    deployment: Deployment,
    sets: Vec<Arc<ReplicaSet>>,
    second: i64,
}

impl World {
    fn new(replicas: i32) -> World {
        let deployment = Deployment {
            metadata: ObjectMeta {
                name: Some("web".into()),
                namespace: Some("default".into()),
                uid: Some("d".into()),
                generation: Some(1),
                ..ObjectMeta::default()
            },
            spec: DeploymentSpec {
                replicas: Some(replicas),
                progress_deadline_seconds: Some(600),
                revision_history_limit: Some(10),
                template: template("v1"),
                ..DeploymentSpec::default()
            },
            status: None,
        };
        World { deployment, sets: Vec::new(), second: 0 }
    }

    fn rolling(mut self, surge: i32, unavailable: i32) -> World {
        self.deployment.spec.strategy = Some(DeploymentStrategy {
            type_: Some("RollingUpdate".into()),
            rolling_update: Some(RollingUpdateDeployment {
                max_surge: Some(IntOrString::Int(surge)),
                max_unavailable: Some(IntOrString::Int(unavailable)),
            }),
        });
        self
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.second).unwrap()
    }

    fn set_image(&mut self, image: &str) {
        self.deployment.spec.template = template(image);
        self.bump();
    }

    fn bump(&mut self) {
        let generation = self.deployment.metadata.generation.unwrap_or_default();
        self.deployment.metadata.generation = Some(generation + 1);
    }

    fn pass(&mut self) -> Plan {
        self.second += 1;
        let plan = plan(&self.deployment, &self.sets, &[], self.now());
        for action in plan.actions.clone() {
            self.carry_out(action);
        }
        self.deployment.status = Some(plan.status.clone());
        plan
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Create(mut set) => {
                set.metadata.uid = set.metadata.name.clone();
                set.metadata.creation_timestamp = Some(Time(self.now()));
                self.sets.push(Arc::new(*set));
            }
            Action::Update { set, annotations, min_ready_seconds } => self.change(&set, |set| {
                set.annotations_mut().extend(annotations.clone());
                set.spec.min_ready_seconds = min_ready_seconds;
            }),
            Action::Scale { set, to, annotations } => self.change(&set, |set| {
                set.annotations_mut().extend(annotations.clone());
                set.spec.replicas = Some(to);
            }),
            Action::Delete(gone) => self.sets.retain(|set| set.name_any() != gone.name_any()),
            Action::SetRevision(revision) => {
                self.deployment.annotations_mut().insert(sets::REVISION.into(), revision);
            }
        }
    }

    fn change(&mut self, which: &ReplicaSet, change: impl Fn(&mut ReplicaSet)) {
        for set in self.sets.iter_mut().filter(|set| set.name_any() == which.name_any()) {
            change(Arc::make_mut(set));
        }
    }

    /// Lets the replica sets do their work: all pods are there, and at most `ready` more become available in each.
    fn settle_sets(&mut self, ready: i32) {
        for set in &mut self.sets {
            let set = Arc::make_mut(set);
            let replicas = sets::replicas(set);
            let available = (sets::available(set) + ready).min(replicas);
            set.status = Some(ReplicaSetStatus {
                replicas,
                ready_replicas: Some(available),
                available_replicas: Some(available),
                observed_generation: set.metadata.generation,
                ..ReplicaSetStatus::default()
            });
        }
    }

    fn run_to_completion(&mut self) -> usize {
        for passes in 1..200 {
            let plan = self.pass();
            self.settle_sets(i32::MAX / 2);
            let quiet = plan.actions.is_empty() && self.reason("Progressing") == "NewReplicaSetAvailable";
            if quiet && status::is_complete(&self.deployment, &plan.status) {
                return passes;
            }
        }
        panic!("the rollout never completes: {:?}", self.sizes())
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(|set| sets::replicas(set)).collect()
    }

    fn reason(&self, kind: &str) -> String {
        let conditions = self.deployment.status.as_ref().and_then(|status| status.conditions.clone());
        let found =
            conditions.into_iter().flatten().find(|condition| condition.type_.as_deref() == Some(kind));
        found.and_then(|condition| condition.reason).unwrap_or_default()
    }
}

fn template(image: &str) -> PodTemplateSpec {
    let container = Container { name: "c".into(), image: Some(image.into()), ..Container::default() };
    let metadata =
        ObjectMeta { labels: Some([("app".into(), "web".into())].into()), ..ObjectMeta::default() };
    PodTemplateSpec {
        metadata: Some(metadata),
        spec: Some(PodSpec { containers: vec![container], ..PodSpec::default() }),
    }
}

#[test]
fn the_first_pass_creates_the_set_at_full_size() {
    let mut world = World::new(3).rolling(1, 0);
    let plan = world.pass();
    let [Action::Create(set), Action::SetRevision(revision)] = &plan.actions[..] else {
        panic!("unexpected {:?}", plan.actions)
    };
    assert_eq!((set.spec.replicas, revision.as_str()), (Some(3), "1"));
    let hash = &set.labels()[sets::HASH_LABEL];
    assert_eq!(set.name_any(), format!("web-{hash}"));
    assert_eq!(set.spec.selector.match_labels.as_ref().unwrap()[sets::HASH_LABEL], *hash);
    assert_eq!(world.reason("Progressing"), "NewReplicaSetCreated");
    assert_eq!(world.reason("Available"), "MinimumReplicasUnavailable");
    world.run_to_completion();
    assert_eq!(world.reason("Available"), "MinimumReplicasAvailable");
}

#[test]
fn an_update_surges_before_it_shrinks_and_keeps_the_old_set_for_history() {
    let mut world = World::new(3).rolling(1, 0);
    world.run_to_completion();
    world.set_image("v2");
    world.pass();
    assert_eq!(world.sizes(), [3, 1]);
    world.settle_sets(0);
    world.pass();
    assert_eq!(world.sizes(), [3, 1], "the new pod is not available yet");
    world.settle_sets(1);
    world.pass();
    assert_eq!(world.sizes(), [2, 1]);
    world.run_to_completion();
    assert_eq!(world.sizes(), [0, 3]);
}

#[test]
fn a_rollback_reuses_the_old_set_under_a_new_revision() {
    let mut world = World::new(2).rolling(1, 1);
    world.run_to_completion();
    world.set_image("v2");
    world.run_to_completion();
    world.set_image("v1");
    world.run_to_completion();
    assert_eq!(world.sizes(), [2, 0]);
    assert_eq!(world.deployment.annotations()[sets::REVISION], "3");
    assert_eq!(sets::revision(world.sets[0].annotations()), 3);
    assert_eq!(world.sets[0].annotations()["deployment.kubernetes.io/revision-history"], "1");
}

#[test]
fn history_beyond_the_limit_is_deleted_oldest_first() {
    let mut world = World::new(1).rolling(1, 0);
    world.deployment.spec.revision_history_limit = Some(1);
    for image in ["v1", "v2", "v3", "v4"] {
        world.set_image(image);
        world.run_to_completion();
    }
    let revisions: Vec<i64> = world.sets.iter().map(|set| sets::revision(set.annotations())).collect();
    assert_eq!(revisions, [3, 4]);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_keeps_the_proportions() {
    let mut world = World::new(10).rolling(3, 2);
    world.run_to_completion();
    world.set_image("v2");
    world.pass();
    assert_eq!(world.sizes(), [8, 3], "two may be unavailable, three more may be there");
    world.settle_sets(0);
    world.pass();
    assert_eq!(world.sizes(), [8, 5]);
    world.deployment.spec.replicas = Some(15);
    world.pass();
    assert_eq!(world.sizes(), [11, 7], "as in upstream's documentation");
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::new(2).rolling(1, 0);
    world.run_to_completion();
    world.deployment.spec.paused = Some(true);
    world.set_image("v2");
    world.deployment.spec.replicas = Some(5);
    world.pass();
    assert_eq!(world.sizes(), [5]);
    assert_eq!(world.reason("Progressing"), "DeploymentPaused");
    world.deployment.spec.paused = None;
    world.pass();
    assert_eq!(world.sizes().len(), 2);
}

#[test]
fn a_rollout_that_stands_still_exceeds_its_deadline() {
    let mut world = World::new(1).rolling(1, 0);
    world.pass();
    world.settle_sets(0);
    let waiting = world.pass();
    assert!(waiting.next.is_some_and(|left| left.as_secs() > 590));
    world.second += 601;
    world.pass();
    assert_eq!(world.reason("Progressing"), "ProgressDeadlineExceeded");
    world.settle_sets(1);
    world.pass();
    assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable", "late is not never");
}

#[test]
fn recreate_waits_for_the_old_pods_to_be_gone() {
    let mut world = World::new(2);
    world.deployment.spec.strategy =
        Some(DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None });
    world.run_to_completion();
    world.set_image("v2");
    world.pass();
    assert_eq!(world.sizes(), [0]);
    let straggler = [Arc::new(Pod::default())];
    assert_eq!(plan(&world.deployment, &world.sets, &straggler, world.now()).actions, []);
    world.run_to_completion();
    assert_eq!(world.sizes(), [0, 2]);
}

proptest! {
    /// Whatever the numbers, a rollout completes, with never too many pods nor too few that are available.
    #[test]
    fn passes_settle(
        replicas in 0i32..12, surge in 0i32..4, unavailable in 0i32..4, ready in proptest::collection::vec(0i32..3, 1..20)
    ) {
        let mut world = World::new(replicas).rolling(surge, unavailable);
        world.run_to_completion();
        world.set_image("v2");
        let size = Size::of(&world.deployment);
        for ready in ready {
            world.pass();
            let total: i32 = world.sizes().iter().sum();
            prop_assert!(total <= size.most(), "{total} pods of at most {}", size.most());
            world.settle_sets(ready);
            let available: i32 = world.sets.iter().map(|set| sets::available(set)).sum();
            prop_assert!(available >= size.least_available(), "{available} of at least {}", size.least_available());
        }
        world.run_to_completion();
        prop_assert_eq!(world.sizes().last().copied(), Some(replicas));
    }
}

//! Keeps as many pods running as each ReplicaSet, and each ReplicationController, asks for.
//!
//! [`plan`] decides, [`Replicas::reconcile`] carries out. A pass remembers nothing, so a lost event or a restart
//! costs one more pass and no more. Finished pods are left to the pod collector.

mod plan;

use std::{marker::PhantomData, sync::Arc};

use client::{
    ApiObject, Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer,
    cache::controller_of, events::Recorder, message, turn,
};
use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetStatus},
        core::v1::{Pod, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{ResourceExt, core::Selector};
use plan::{Action, Wanted};

use crate::{
    Context, ownership,
    pods::{self, PodExt},
};

/// Starts the controllers of both kinds.
pub fn start(context: &mut Context) {
    start_kind::<ReplicaSet>(context, "replicaset", "replicaset-controller");
    start_kind::<ReplicationController>(context, "replicationcontroller", "replication-controller");
}

fn start_kind<K: Replicating>(context: &mut Context, name: &'static str, component: &'static str) {
    let (sets, pods) = (context.cache::<K>(), context.cache::<Pod>());
    let controller = Replicas::<K> {
        sets: sets.clone(),
        pods: pods.clone(),
        writer: context.writer(component),
        events: context.recorder(component, component),
        kind: PhantomData,
    };
    let adopters = sets.clone();
    let runner = Runner::new(name, controller)
        .concurrency(5)
        .watch(&sets)
        .watch_owned(&pods, K::NAME)
        .watch_map(&pods, move |change| ownership::would_adopt(change, &adopters, K::selector));
    context.run(runner);
}

/// A kind that keeps replicas of a pod.
trait Replicating: ApiObject {
    /// Its name in owner references.
    const NAME: &'static str;
    fn selector(&self) -> Option<Selector>;
    fn wanted(&self) -> Wanted<'_>;
    fn status(&self) -> ReplicaSetStatus;
    fn with_status(&self, status: ReplicaSetStatus) -> Self;
}

struct Replicas<K: Replicating> {
    sets: Arc<Cache<K>>,
    pods: Arc<Cache<Pod>>,
    writer: Writer,
    events: Recorder,
    kind: PhantomData<K>,
}

impl<K: Replicating> Reconcile for Replicas<K> {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(set) = self.sets.get_key(key) else { return Ok(Next::OnChange) };
        let wanted = set.wanted();
        let Some(selector) = &wanted.selector else { return Ok(Next::OnChange) };
        let pods = ownership::claimed(&self.writer, &*set, selector, &self.pods).await?;
        let now = Timestamp::now();
        let active = pods.iter().filter(|pod| pod.is_active()).count();
        let ready = pods.iter().filter(|pod| pod.is_active() && pod.is_ready()).count();
        turn::describe(format!("{} replicas", wanted.replicas), format!("{active} active, {ready} ready"));

        let outcome = match plan::plan(&wanted, &pods, &self.related(&*set, &pods), now) {
            None => Ok(()),
            Some(Action::Create(count)) => {
                self.create_pods(&set, count).await.map_err(|error| ("FailedCreate", error))
            }
            Some(Action::Delete(surplus)) => {
                self.delete_pods(&set, surplus).await.map_err(|error| ("FailedDelete", error))
            }
        };
        let failure = outcome.as_ref().err().map(|(reason, error)| (*reason, message(error)));
        let status = plan::status(&wanted, &set.status(), set.meta().generation, &pods, failure, now);
        if plan::differs(&set.status(), &status) {
            self.writer
                .replace_status(&set.with_status(status))
                .await
                .or_not_found()
                .map(drop)
                .or_conflict()?;
        }
        if let Err((_, error)) = outcome {
            return Err(error);
        }
        let min_ready = pods::seconds(wanted.min_ready_seconds);
        Ok(pods::next_available(&pods, min_ready, now).map_or(Next::OnChange, Next::After))
    }
}

impl<K: Replicating> Replicas<K> {
    /// The pods of all sets with the same controller, as the ReplicaSets of one Deployment have.
    fn related(&self, set: &K, own: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let Some(controller) = controller_of(set) else { return own.to_vec() };
        let siblings = self.sets.owned_by(&controller.uid);
        siblings.iter().flat_map(|sibling| self.pods.owned_by(&sibling.uid().unwrap_or_default())).collect()
    }

    /// Creates pods, one at first, then twice as many at once as before: where creation fails, for a quota say,
    /// it fails a few times and not a few hundred.
    async fn create_pods(&self, set: &K, count: usize) -> Result<(), ClientError> {
        let wanted = set.wanted();
        let Some(template) = wanted.template else { return Ok(()) };
        let namespace = set.namespace().unwrap_or_default();
        let pod = pods::from_template(template, &namespace, ownership::owner_reference(set));
        let mut left = count;
        let mut batch = 1;
        while left > 0 {
            let creations: FuturesUnordered<_> =
                (0..batch.min(left)).map(|_| self.create_pod(set, &pod)).collect();
            left -= creations.len();
            let results: Vec<Result<(), ClientError>> = creations.collect().await;
            results.into_iter().collect::<Result<(), _>>()?;
            batch *= 2;
        }
        Ok(())
    }

    async fn create_pod(&self, set: &K, pod: &Pod) -> Result<(), ClientError> {
        match self.writer.create(pod).await {
            Ok(created) => {
                let text = format!("Created pod: {}", created.name_any());
                self.events.normal(set, "SuccessfulCreate", text);
                Ok(())
            }
            // Nothing can be created in a namespace that goes, and the set goes with it.
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                self.events.warning(set, "FailedCreate", format!("Error creating: {}", message(&error)));
                Err(error)
            }
        }
    }

    async fn delete_pods(&self, set: &K, surplus: Vec<Arc<Pod>>) -> Result<(), ClientError> {
        let deletions = surplus.iter().map(|pod| async move {
            match self.writer.delete(&**pod).await {
                Ok(()) => {
                    self.events.normal(set, "SuccessfulDelete", format!("Deleted pod: {}", pod.name_any()));
                    Ok(())
                }
                Err(error) => {
                    self.events.warning(set, "FailedDelete", format!("Error deleting: {}", message(&error)));
                    Err(error)
                }
            }
        });
        join_all(deletions).await.into_iter().collect()
    }
}

fn is_namespace_terminating(error: &ClientError) -> bool {
    let ClientError::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

impl Replicating for ReplicaSet {
    const NAME: &'static str = "ReplicaSet";

    fn selector(&self) -> Option<Selector> {
        ownership::selector(&self.spec.selector)
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            replicas: replicas(self.spec.replicas),
            min_ready_seconds: self.spec.min_ready_seconds,
            template: self.spec.template.as_ref(),
            selector: self.selector(),
            terminating: self.metadata.deletion_timestamp.is_some(),
        }
    }

    fn status(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        ReplicaSet { status: Some(status), ..self.clone() }
    }
}

impl Replicating for ReplicationController {
    const NAME: &'static str = "ReplicationController";

    fn selector(&self) -> Option<Selector> {
        let match_labels = self.spec.as_ref()?.selector.clone();
        ownership::selector(&LabelSelector { match_labels, match_expressions: None })
    }

    fn wanted(&self) -> Wanted<'_> {
        let spec = self.spec.as_ref();
        Wanted {
            replicas: replicas(spec.and_then(|spec| spec.replicas)),
            min_ready_seconds: spec.and_then(|spec| spec.min_ready_seconds),
            template: spec.and_then(|spec| spec.template.as_ref()),
            selector: self.selector(),
            terminating: self.metadata.deletion_timestamp.is_some(),
        }
    }

    fn status(&self) -> ReplicaSetStatus {
        let status = self.status.clone().unwrap_or_default();
        let condition =
            |condition: ReplicationControllerCondition| k8s_openapi::api::apps::v1::ReplicaSetCondition {
                last_transition_time: condition.last_transition_time,
                message: condition.message,
                reason: condition.reason,
                status: Some(condition.status),
                type_: Some(condition.type_),
            };
        ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            conditions: status.conditions.map(|conditions| conditions.into_iter().map(condition).collect()),
            terminating_replicas: None,
        }
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        let condition =
            |condition: k8s_openapi::api::apps::v1::ReplicaSetCondition| ReplicationControllerCondition {
                last_transition_time: condition.last_transition_time,
                message: condition.message,
                reason: condition.reason,
                status: condition.status.unwrap_or_default(),
                type_: condition.type_.unwrap_or_default(),
            };
        let status = ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            conditions: status.conditions.map(|conditions| conditions.into_iter().map(condition).collect()),
        };
        ReplicationController { status: Some(status), ..self.clone() }
    }
}

fn replicas(replicas: Option<i32>) -> usize {
    replicas.unwrap_or(1).try_into().unwrap_or_default()
}

//! Keeps the status of PodDisruptionBudgets, by which the server grants evictions.

mod plan;

use std::{collections::HashMap, sync::Arc, time::Duration};

use client::{
    Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, cache::controller_of, turn,
};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ReplicaSet, StatefulSet},
    core::v1::{Pod, ReplicationController},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    ResourceExt,
    core::{Selector, SelectorExt},
};

use crate::{Context, pods::PodExt};

/// When a granted eviction is forgotten, see [`plan::status`].
const GRANT_EXPIRES: Duration = Duration::from_secs(121);

/// Starts the controller.
pub fn start(context: &mut Context) {
    let (budgets, pods) = (context.cache::<PodDisruptionBudget>(), context.cache::<Pod>());
    let controller = Disruption {
        budgets: budgets.clone(),
        pods: pods.clone(),
        sets: context.cache(),
        stateful: context.cache(),
        controllers: context.cache(),
        writer: context.writer("disruption-controller"),
    };
    let (sets, stateful) = (controller.sets.clone(), controller.stateful.clone());
    let all = budgets.clone();
    let runner = Runner::new("disruption", controller)
        .concurrency(1)
        .watch(&budgets)
        .watch_map(&pods, move |change| {
            let states: Vec<&Arc<Pod>> = [change.before(), change.after()].into_iter().flatten().collect();
            let covers = |budget: &PodDisruptionBudget| {
                let selector = selector(budget);
                selector.is_some_and(|selector| states.iter().any(|pod| selector.matches(pod.labels())))
            };
            let namespace = change.key().namespace;
            all.in_namespace_where(&namespace, covers).iter().map(|budget| ObjectKey::of(&**budget)).collect()
        })
        .wait_for(&sets)
        .wait_for(&stateful);
    context.run(runner);
}

struct Disruption {
    budgets: Arc<Cache<PodDisruptionBudget>>,
    pods: Arc<Cache<Pod>>,
    sets: Arc<Cache<ReplicaSet>>,
    stateful: Arc<Cache<StatefulSet>>,
    controllers: Arc<Cache<ReplicationController>>,
    writer: Writer,
}

impl Reconcile for Disruption {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(budget) = self.budgets.get_key(key) else { return Ok(Next::OnChange) };
        let selector = selector(&budget);
        let selects = |pod: &Pod| selector.as_ref().is_some_and(|selector| selector.matches(pod.labels()));
        let pods = self.pods.in_namespace_where(&key.namespace, |pod| selects(pod) && !pod.is_finished());
        let status = plan::status(&budget, &pods, self.expected(&pods), Timestamp::now());
        turn::describe(
            format!("{} healthy", status.desired_healthy.unwrap_or_default()),
            format!("{} healthy of {}", status.current_healthy.unwrap_or_default(), pods.len()),
        );
        let next = if status.disrupted_pods.is_some() { Next::After(GRANT_EXPIRES) } else { Next::OnChange };
        if budget.status.as_ref() != Some(&status) {
            let updated = PodDisruptionBudget { status: Some(status), ..(*budget).clone() };
            self.writer.replace_status(&updated).await.or_not_found()?;
        }
        Ok(next)
    }
}

impl Disruption {
    /// How many pods their controllers want there to be; a pod without controller counts as itself.
    fn expected(&self, pods: &[Arc<Pod>]) -> i32 {
        let mut by_controller: HashMap<String, i32> = HashMap::new();
        for pod in pods {
            let namespace = pod.namespace().unwrap_or_default();
            let (key, replicas) = match controller_of(&**pod) {
                Some(owner) => {
                    let wanted = match owner.kind.as_str() {
                        "ReplicaSet" => self.sets.get(&namespace, &owner.name).map(|set| set.spec.replicas),
                        "StatefulSet" => {
                            self.stateful.get(&namespace, &owner.name).map(|set| set.spec.replicas)
                        }
                        "ReplicationController" => {
                            let controller = self.controllers.get(&namespace, &owner.name);
                            controller
                                .map(|controller| controller.spec.as_ref().and_then(|spec| spec.replicas))
                        }
                        _ => None,
                    };
                    match wanted {
                        Some(replicas) => (owner.uid.clone(), replicas.unwrap_or(1)),
                        None => (pod.uid().unwrap_or_default(), 1),
                    }
                }
                None => (pod.uid().unwrap_or_default(), 1),
            };
            by_controller.insert(key, replicas);
        }
        by_controller.values().sum()
    }
}

/// An empty selector selects all pods of the namespace, none selects none.
fn selector(budget: &PodDisruptionBudget) -> Option<Selector> {
    Selector::try_from(budget.spec.as_ref()?.selector.clone()?).ok()
}

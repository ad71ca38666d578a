//! Keeps each StatefulSet's pods, every one with its own name and volumes, in order.

mod plan;

use std::{collections::BTreeSet, sync::Arc};

use client::{
    Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, events::Recorder, message, turn,
};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet},
    core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec},
};
use kube::ResourceExt;
use plan::{Action, Observed};

use crate::{
    Context, ownership,
    pods::{self, PodExt},
    revisions::{self, Collision, HASH_LABEL, History},
};

/// Starts the controller.
pub fn start(context: &mut Context) {
    let (sets, pods) = (context.cache::<StatefulSet>(), context.cache::<Pod>());
    let (claims, revisions) =
        (context.cache::<PersistentVolumeClaim>(), context.cache::<ControllerRevision>());
    let controller = StatefulSets {
        sets: sets.clone(),
        pods: pods.clone(),
        claims: claims.clone(),
        revisions: revisions.clone(),
        writer: context.writer("statefulset-controller"),
        events: context.recorder("statefulset-controller", "statefulset-controller"),
    };
    let adopters = sets.clone();
    let runner = Runner::new("statefulset", controller)
        .concurrency(5)
        .watch(&sets)
        .watch_owned(&pods, "StatefulSet")
        .watch_owned(&revisions, "StatefulSet")
        .watch_map(&pods, move |change| {
            ownership::would_adopt(change, &adopters, |set: &StatefulSet| {
                ownership::selector(&set.spec.selector)
            })
        })
        .wait_for(&claims);
    context.run(runner);
}

struct StatefulSets {
    sets: Arc<Cache<StatefulSet>>,
    pods: Arc<Cache<Pod>>,
    claims: Arc<Cache<PersistentVolumeClaim>>,
    revisions: Arc<Cache<ControllerRevision>>,
    writer: Writer,
    events: Recorder,
}

impl Reconcile for StatefulSets {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(set) = self.sets.get_key(key) else { return Ok(Next::OnChange) };
        let Some(selector) = ownership::selector(&set.spec.selector) else { return Ok(Next::OnChange) };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Next::OnChange);
        }
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let synced =
            revisions::sync(&self.writer, &self.revisions, &*set, &set.spec.template, collisions).await?;
        let history = match synced {
            Ok(history) => history,
            Err(Collision) => return self.count_collision(&set).await,
        };
        let mut pods = ownership::claimed(&self.writer, &*set, &selector, &self.pods).await?;
        // A pod that matches by chance is not one of ours.
        let prefix = format!("{}-", key.name);
        pods.retain(|pod| pod.name_any().starts_with(&prefix) && plan::ordinal(&pod.name_any()).is_some());

        let update = history.current.name_any();
        let current = self.current_revision(&set, &history);
        let now = Timestamp::now();
        let observed = Observed { set: &set, current: &current, update: &update, pods: &pods, now };
        let status = observed.status();
        turn::describe(
            format!("{} replicas", set.spec.replicas.unwrap_or(1)),
            format!("{} pods, {} ready", status.replicas, status.ready_replicas.unwrap_or_default()),
        );
        let outcome = self.carry_out(&set, observed.plan(), &history, &current).await;
        if set.status.as_ref() != Some(&status) {
            let updated = StatefulSet { status: Some(status), ..(*set).clone() };
            self.writer.replace_status(&updated).await.or_not_found().map(drop).or_conflict()?;
        }
        outcome?;
        self.prune(&set, &history, &pods, &current).await?;
        let min_ready = pods::seconds(set.spec.min_ready_seconds);
        Ok(pods::next_available(&pods, min_ready, now).map_or(Next::OnChange, Next::After))
    }
}

impl StatefulSets {
    /// The revision before the update, as long as it is known; a new set has only one.
    fn current_revision(&self, set: &StatefulSet, history: &History) -> String {
        let told = set.status.as_ref().and_then(|status| status.current_revision.clone());
        let is_known = |name: &String| history.earlier.iter().any(|revision| revision.name_any() == *name);
        told.filter(is_known).unwrap_or_else(|| history.current.name_any())
    }

    async fn carry_out(
        &self,
        set: &StatefulSet,
        actions: Vec<Action>,
        history: &History,
        current: &str,
    ) -> Result<(), ClientError> {
        let before = history.earlier.iter().find(|revision| revision.name_any() == current);
        let template_before = before.and_then(|revision| revisions::template_of(revision));
        for action in actions {
            match (action, &template_before) {
                (Action::Delete(pod), _) => self.delete(set, &pod).await?,
                (Action::Create { ordinal, updated: false }, Some(template)) => {
                    self.create(set, template, current, ordinal).await?;
                }
                (Action::Create { ordinal, .. }, _) => {
                    self.create(set, &set.spec.template, &history.current.name_any(), ordinal).await?;
                }
            }
        }
        Ok(())
    }

    async fn create(
        &self,
        set: &StatefulSet,
        template: &PodTemplateSpec,
        revision: &str,
        ordinal: i32,
    ) -> Result<(), ClientError> {
        let pod = plan::pod(set, template, revision, ordinal);
        let (pod_name, set_name) = (pod.name_any(), set.name_any());
        for claim in plan::claims(set, ordinal) {
            let name = claim.name_any();
            if self.claims.get(&claim.namespace().unwrap_or_default(), &name).is_none()
                && self.writer.create(&claim).await.or_already_exists()?.is_some()
            {
                let text = format!("create Claim {name} Pod {pod_name} in StatefulSet {set_name} success");
                self.events.normal(set, "SuccessfulCreate", text);
            }
        }
        match self.writer.create(&pod).await.or_already_exists() {
            Ok(_) => {
                let text = format!("create Pod {pod_name} in StatefulSet {set_name} successful");
                self.events.normal(set, "SuccessfulCreate", text);
                Ok(())
            }
            Err(error) => {
                let text = format!(
                    "create Pod {pod_name} in StatefulSet {set_name} failed error: {}",
                    message(&error)
                );
                self.events.warning(set, "FailedCreate", text);
                Err(error)
            }
        }
    }

    async fn delete(&self, set: &StatefulSet, pod: &Pod) -> Result<(), ClientError> {
        let (pod_name, set_name) = (pod.name_any(), set.name_any());
        match self.writer.delete(pod).await {
            Ok(()) => {
                let text = format!("delete Pod {pod_name} in StatefulSet {set_name} successful");
                self.events.normal(set, "SuccessfulDelete", text);
                Ok(())
            }
            Err(error) => {
                let text = format!(
                    "delete Pod {pod_name} in StatefulSet {set_name} failed error: {}",
                    message(&error)
                );
                self.events.warning(set, "FailedDelete", text);
                Err(error)
            }
        }
    }

    async fn prune(
        &self,
        set: &StatefulSet,
        history: &History,
        pods: &[Arc<Pod>],
        current: &str,
    ) -> Result<(), ClientError> {
        let used: BTreeSet<&str> = pods.iter().map(|pod| pod.label(HASH_LABEL)).chain([current]).collect();
        let unused: Vec<_> = history
            .earlier
            .iter()
            .filter(|revision| !used.contains(&*revision.name_any()))
            .cloned()
            .collect();
        for revision in revisions::surplus(&unused, set.spec.revision_history_limit, |_| false) {
            self.writer.delete(&*revision).await?;
        }
        Ok(())
    }

    async fn count_collision(&self, set: &StatefulSet) -> Result<Next, ClientError> {
        let mut status = set.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
        let updated = StatefulSet { status: Some(status), ..set.clone() };
        self.writer.replace_status(&updated).await.or_not_found().map(drop).or_conflict()?;
        Ok(Next::OnChange)
    }
}

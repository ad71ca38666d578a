//! Rolls each Deployment's pods over to its present template.
//!
//! A Deployment has one ReplicaSet for each template that it ever had, up to its history limit. [`plan`] decides
//! how many replicas each of them has; the replica set controller does the rest. A rollback is nothing special:
//! the template is one that a set is there for already, which gets the newest revision number.

mod plan;
mod sets;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{
    Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, events::Recorder,
    is_already_exists, message, turn,
};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentStatus, ReplicaSet},
    core::v1::Pod,
};
use kube::{Api, ResourceExt};
use plan::Action;
use serde_json::json;

use crate::{Context, ownership};

/// Starts the controller.
pub fn start(context: &mut Context) {
    let deployments = context.cache::<Deployment>();
    let (sets, pods) = (context.cache::<ReplicaSet>(), context.cache::<Pod>());
    let controller = Deployments {
        deployments: deployments.clone(),
        sets: sets.clone(),
        pods: pods.clone(),
        writer: context.writer("deployment-controller"),
        events: context.recorder("deployment-controller", "deployment-controller"),
    };
    let (adopters, recreating, owners) = (deployments.clone(), deployments.clone(), sets.clone());
    let runner = Runner::new("deployment", controller)
        .concurrency(5)
        .watch(&deployments)
        .watch_owned(&sets, "Deployment")
        .watch_map(&sets, move |change| {
            ownership::would_adopt(change, &adopters, |owner: &Deployment| {
                ownership::selector(&owner.spec.selector)
            })
        })
        // Recreate waits for the last old pod to be gone; nobody else cares about pods here.
        .watch_map(&pods, move |change| match change.after() {
            None => recreating_deployment(change.object(), &owners, &recreating),
            Some(_) => Vec::new(),
        });
    context.run(runner);
}

struct Deployments {
    deployments: Arc<Cache<Deployment>>,
    sets: Arc<Cache<ReplicaSet>>,
    pods: Arc<Cache<Pod>>,
    writer: Writer,
    events: Recorder,
}

impl Reconcile for Deployments {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(deployment) = self.deployments.get_key(key) else { return Ok(Next::OnChange) };
        let Some(selector) = ownership::selector(&deployment.spec.selector) else {
            let text = "This deployment is selecting all pods. A non-empty selector is required.";
            self.events.warning(&*deployment, "SelectingAll", text);
            return Ok(Next::OnChange);
        };
        let sets = ownership::claimed(&self.writer, &*deployment, &selector, &self.sets).await?;
        let pods = match sets::is_recreate(&deployment) {
            true => sets.iter().flat_map(|set| self.pods.owned_by(&set.uid().unwrap_or_default())).collect(),
            false => Vec::new(),
        };
        let plan = plan::plan(&deployment, &sets, &pods, Timestamp::now());
        turn::describe(desired(&deployment), observed(&plan.status, sets.len()));

        for action in plan.actions {
            self.carry_out(&deployment, action).await?;
        }
        if status::differs(deployment.status.as_ref(), &plan.status) {
            self.set_status(&deployment, plan.status).await?;
        }
        Ok(plan.next.map_or(Next::OnChange, Next::After))
    }
}

impl Deployments {
    async fn carry_out(&self, deployment: &Deployment, action: Action) -> Result<(), ClientError> {
        match action {
            Action::Create(set) => self.create(deployment, &set).await,
            Action::Update { set, annotations, min_ready_seconds } => {
                let patch = json!({
                    "metadata": {"uid": set.uid(), "annotations": annotations},
                    "spec": {"minReadySeconds": min_ready_seconds},
                });
                self.patch_set(&set, patch).await
            }
            Action::Scale { set, to, annotations } => self.scale(deployment, &set, to, annotations).await,
            Action::Delete(set) => self.writer.delete_in_background(&*set).await,
            Action::SetRevision(revision) => {
                let annotations = json!({sets::REVISION: revision});
                let patch = json!({"metadata": {"uid": deployment.uid(), "annotations": annotations}});
                let key = ObjectKey::of(deployment);
                if self.writer.merge::<Deployment>(&key, patch).await.or_not_found()?.is_some() {
                    turn::meant(format!("mark Deployment {key} as revision {revision}"));
                }
                Ok(())
            }
        }
    }

    async fn create(&self, deployment: &Deployment, set: &ReplicaSet) -> Result<(), ClientError> {
        match self.writer.create(set).await {
            Ok(_) => {
                let replicas = sets::replicas(set);
                if replicas > 0 {
                    let text = format!("Scaled up replica set {} from 0 to {replicas}", set.name_any());
                    self.events.normal(deployment, "ScalingReplicaSet", text);
                }
                Ok(())
            }
            Err(error) if is_already_exists(&error) => self.resolve_collision(deployment, set).await,
            Err(error) => {
                let text =
                    format!("Failed to create new replica set \"{}\": {}", set.name_any(), message(&error));
                self.events.warning(deployment, "ReplicaSetCreateError", text.clone());
                self.report_create_error(deployment, text).await?;
                Err(error)
            }
        }
    }

    /// The name is taken: by our own set, which the cache has yet to see, or by somebody else's, and then the
    /// next attempt hashes with a higher collision count.
    async fn resolve_collision(&self, deployment: &Deployment, set: &ReplicaSet) -> Result<(), ClientError> {
        let namespace = deployment.namespace().unwrap_or_default();
        let sets: Api<ReplicaSet> = Api::namespaced(self.writer.client().clone(), &namespace);
        if sets::is_same(deployment, &sets.get(&set.name_any()).await?) {
            return Ok(());
        }
        let mut status = deployment.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
        self.set_status(deployment, status).await
    }

    async fn report_create_error(&self, deployment: &Deployment, text: String) -> Result<(), ClientError> {
        let mut conditions = status::Conditions::of(deployment, Timestamp::now());
        conditions.set("Progressing", "False", "ReplicaSetCreateError", text);
        let sets = self.sets.owned_by(&deployment.uid().unwrap_or_default());
        let status = status::calculate(deployment, None, &sets, sets::Size::of(deployment), conditions);
        match status::differs(deployment.status.as_ref(), &status) {
            true => self.set_status(deployment, status).await,
            false => Ok(()),
        }
    }

    async fn scale(
        &self,
        deployment: &Deployment,
        set: &ReplicaSet,
        to: i32,
        annotations: std::collections::BTreeMap<String, String>,
    ) -> Result<(), ClientError> {
        let from = sets::replicas(set);
        let patch = json!({
            "metadata": {"uid": set.uid(), "annotations": annotations},
            "spec": {"replicas": to},
        });
        self.patch_set(set, patch).await?;
        if from != to {
            turn::meant(format!("scale ReplicaSet {} from {from} to {to}", ObjectKey::of(set)));
            let direction = if to > from { "up" } else { "down" };
            let text = format!("Scaled {direction} replica set {} from {from} to {to}", set.name_any());
            self.events.normal(deployment, "ScalingReplicaSet", text);
        }
        Ok(())
    }

    async fn patch_set(&self, set: &ReplicaSet, patch: serde_json::Value) -> Result<(), ClientError> {
        self.writer.merge::<ReplicaSet>(&ObjectKey::of(set), patch).await.or_not_found().map(drop)
    }

    async fn set_status(&self, deployment: &Deployment, status: DeploymentStatus) -> Result<(), ClientError> {
        // The revision annotation may just have been written, so not on condition of the resourceVersion: the
        // uid says that it is the same Deployment, and nobody else writes its status.
        let status = status::patch(&status).map_err(ClientError::SerdeError)?;
        let patch = json!({"metadata": {"uid": deployment.uid()}, "status": status});
        let key = ObjectKey::of(deployment);
        let patched = self
            .writer
            .patch_subresource::<Deployment, _>("status", &key, &kube::api::Patch::Merge(patch))
            .await;
        patched.or_not_found().map(drop)
    }
}

fn desired(deployment: &Deployment) -> String {
    let paused = if deployment.spec.paused.unwrap_or_default() { ", paused" } else { "" };
    format!("{} replicas of the present template{paused}", deployment.spec.replicas.unwrap_or(1))
}

fn observed(status: &DeploymentStatus, sets: usize) -> String {
    format!(
        "{} updated, {} in all, {} available, {sets} replica sets",
        status.updated_replicas.unwrap_or_default(),
        status.replicas.unwrap_or_default(),
        status.available_replicas.unwrap_or_default()
    )
}

/// The Deployment of a pod that is gone, if its strategy is Recreate.
fn recreating_deployment(
    pod: &Pod,
    sets: &Cache<ReplicaSet>,
    deployments: &Cache<Deployment>,
) -> Vec<ObjectKey> {
    let namespace = pod.namespace().unwrap_or_default();
    let controller = |owners: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference],
                      kind: &str| {
        owners
            .iter()
            .find(|owner| owner.controller == Some(true) && owner.kind == kind)
            .map(|owner| owner.name.clone())
    };
    let deployment = controller(pod.owner_references(), "ReplicaSet")
        .and_then(|set| sets.get(&namespace, &set))
        .and_then(|set| controller(set.owner_references(), "Deployment"))
        .and_then(|name| deployments.get(&namespace, &name))
        .filter(|deployment| sets::is_recreate(deployment));
    deployment.iter().map(|deployment| ObjectKey::of(&**deployment)).collect()
}

//! Deletes what is owned by nobody any more, and carries out foreground deletion and orphaning.
//!
//! [`graph`] knows who owns whom over all kinds, kept by one [`monitor`] a kind that reads metadata only, and
//! decides. Nothing is deleted on the graph's word alone: that an owner is gone is asked of the server, and each
//! delete is on condition that the object is still as the graph has it.

mod graph;
mod monitor;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use client::{ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, is_conflict, is_not_found, turn};
use futures::future::try_join_all;
use graph::{Decision, Node, Policy, Uid, is_blocked};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Client,
    api::{DeleteParams, GetParams, Patch, PatchParams, Preconditions, PropagationPolicy},
};
use monitor::{Monitor, Shared};
use serde_json::json;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    Context,
    resources::{self, MetadataOnly, Resource},
};

/// Starts the collector.
pub fn start(context: &mut Context) {
    let client = context.client("generic-garbage-collector");
    let (synced, all_synced) = watch::channel(false);
    let known = Arc::new(Mutex::new(Vec::new()));
    let graph = Arc::default();
    let (shared, runner) = {
        let queue = client::Queue::new("garbage_collector");
        let shared = Shared { graph, queue: queue.clone(), custom_kinds: Arc::default() };
        let collector = Collector { client: client.clone(), shared: shared.clone(), known: known.clone() };
        (shared, Runner::with_queue("garbage_collector", collector, queue))
    };
    let runner = runner.concurrency(20).wait_until(async move {
        // The monitors end only with the process.
        let mut all_synced = all_synced;
        all_synced.wait_for(|synced| *synced).await.map(drop).unwrap_or_default();
    });
    context.run(runner);
    context.spawn(monitor_all(client, shared, known, synced, context.stop()));
}

type Known = Arc<Mutex<Vec<Arc<Resource>>>>;

/// Follows every kind that can be collected; looks for new ones when custom kinds change.
async fn monitor_all(
    client: Client,
    shared: Shared,
    known: Known,
    synced: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let mut monitors = JoinSet::new();
    let watching = stop.run_until_cancelled(async {
        let mut followed: Vec<Arc<Resource>> = Vec::new();
        loop {
            let found = discover_patiently(&client).await;
            let mut ready = Vec::new();
            for resource in found.into_iter().filter(is_collectable).map(Arc::new) {
                if followed.contains(&resource) {
                    continue;
                }
                let (one_synced, is_synced) = watch::channel(false);
                ready.push(is_synced);
                followed.push(resource.clone());
                lock(&known).push(resource.clone());
                let monitor =
                    Monitor { client: client.clone(), resource, shared: shared.clone(), synced: one_synced };
                monitors.spawn(monitor.run());
            }
            for mut is_synced in ready {
                is_synced.wait_for(|synced| *synced).await.map(drop).unwrap_or_default();
            }
            synced.send_replace(true);
            custom_kinds_changed(&shared, &followed).await;
        }
    });
    watching.await;
    monitors.shutdown().await;
}

async fn discover_patiently(client: &Client) -> Vec<Resource> {
    let mut pause = Duration::from_millis(50);
    loop {
        match resources::discover(client).await {
            Ok(found) => return found,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot discover kinds, will try again"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(10));
            }
        }
    }
}

/// Events come and go by themselves, and nobody owns them.
fn is_collectable(resource: &Resource) -> bool {
    resource.plural != "events" && ["list", "watch", "delete"].iter().all(|verb| resource.can(verb))
}

/// Returns when a custom kind came or went; never where there are none.
async fn custom_kinds_changed(shared: &Shared, followed: &[Arc<Resource>]) {
    if !followed.iter().any(|resource| resource.plural == monitor::CUSTOM_RESOURCES) {
        return std::future::pending().await;
    }
    shared.custom_kinds.notified().await;
}

struct Collector {
    client: Client,
    shared: Shared,
    known: Known,
}

impl Reconcile for Collector {
    /// The key's name is the object's uid.
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let uid = &*key.name;
        let (node, mut decision) = {
            let graph = self.shared.lock();
            let Some(node) = graph.get(uid).cloned() else { return Ok(Next::OnChange) };
            (node, graph.decide(uid))
        };
        if let Decision::Verify(owners) = &decision {
            let absent = self.absent(&node, owners).await?;
            decision = self.shared.lock().judge(uid, &absent);
        }
        turn::about(node.describe());
        turn::describe("an owner, or none asked for", decision.describe());
        match decision {
            Decision::Leave | Decision::Verify(_) => Ok(()),
            Decision::Delete(policy) => self.delete(uid, &node, policy).await,
            Decision::Unblock => self.unblock_owners(&node, uid).await,
            Decision::RemoveOwners(owners) => self.remove_owners(&node, uid, &owners).await,
            Decision::RemoveFinalizer(finalizer) => self.remove_finalizer(&node, uid, finalizer).await,
            Decision::Orphan(dependents) => {
                self.orphan(uid, dependents).await?;
                self.remove_finalizer(&node, uid, "orphan").await
            }
        }?;
        Ok(Next::OnChange)
    }
}

impl Collector {
    /// Which of these owners the server does not have. Of a kind that nobody knows we assume that it has them.
    async fn absent(&self, node: &Node, owners: &[OwnerReference]) -> Result<HashSet<String>, ClientError> {
        let looks = owners.iter().map(|owner| async move {
            let resource = lock(&self.known).iter().find(|resource| resource.is_kind_of(owner)).cloned();
            let Some(resource) = resource else { return Ok(None) };
            if resource.namespaced && node.namespace.is_empty() {
                // A cluster-scoped object cannot have an owner in a namespace: nobody can say which is meant.
                return Ok(None);
            }
            let found = self.get(&resource, &node.namespace, &owner.name).await?;
            let is_absent = found.is_none_or(|found| found.metadata.uid != owner.uid);
            Ok::<_, ClientError>(is_absent.then(|| owner.uid.clone()))
        });
        Ok(try_join_all(looks).await?.into_iter().flatten().collect())
    }

    async fn delete(&self, uid: &str, node: &Node, policy: Policy) -> Result<(), ClientError> {
        let how = DeleteParams {
            propagation_policy: Some(match policy {
                Policy::Background => PropagationPolicy::Background,
                Policy::Foreground => PropagationPolicy::Foreground,
                Policy::Orphan => PropagationPolicy::Orphan,
            }),
            preconditions: Some(Preconditions {
                uid: Some(uid.into()),
                resource_version: Some(node.resource_version.to_string()),
            }),
            ..DeleteParams::default()
        };
        let request = node
            .resource
            .requests(Some(&node.namespace))
            .delete(&node.name, &how)
            .map_err(ClientError::BuildRequest)?;
        match self.client.request_text(request).await {
            Ok(_) => turn::acted(format!("delete {} ({policy:?} propagation)", node.describe())),
            Err(error) if is_not_found(&error) => {}
            // It has changed: either it is another one by that name, or the graph is a moment behind. Look
            // again when it has caught up; the change itself may be one that wakes nobody.
            Err(error) if is_conflict(&error) && !self.is_current(uid, node) => return self.look_again(uid),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn is_current(&self, uid: &str, node: &Node) -> bool {
        self.shared.lock().get(uid).is_some_and(|now| now.resource_version == node.resource_version)
    }

    fn look_again(&self, uid: &str) -> Result<(), ClientError> {
        self.shared.queue.add(ObjectKey::cluster(uid), client::Wake::Retry);
        Ok(())
    }

    async fn remove_owners(&self, node: &Node, uid: &str, owners: &[String]) -> Result<(), ClientError> {
        let Some(live) = self.get_same(node, uid).await? else { return Ok(()) };
        let left: Vec<_> =
            live.metadata.owner_references.iter().filter(|owner| !owners.contains(&owner.uid)).collect();
        let version = &live.metadata.resource_version;
        self.patch(node, json!({"metadata": {"resourceVersion": version, "ownerReferences": left}})).await
    }

    async fn unblock_owners(&self, node: &Node, uid: &str) -> Result<(), ClientError> {
        let Some(live) = self.get_same(node, uid).await? else { return Ok(()) };
        let free = |owner: &OwnerReference| match is_blocked(owner) {
            true => OwnerReference { block_owner_deletion: Some(false), ..owner.clone() },
            false => owner.clone(),
        };
        let owners: Vec<_> = live.metadata.owner_references.iter().map(free).collect();
        let version = &live.metadata.resource_version;
        self.patch(node, json!({"metadata": {"resourceVersion": version, "ownerReferences": owners}})).await
    }

    async fn remove_finalizer(&self, node: &Node, uid: &str, finalizer: &str) -> Result<(), ClientError> {
        let Some(live) = self.get_same(node, uid).await? else { return Ok(()) };
        let left: Vec<_> = live.metadata.finalizers.iter().filter(|name| *name != finalizer).collect();
        if left.len() == live.metadata.finalizers.len() {
            return Ok(());
        }
        let version = &live.metadata.resource_version;
        self.patch(node, json!({"metadata": {"resourceVersion": version, "finalizers": left}})).await
    }

    async fn orphan(&self, owner: &str, dependents: Vec<Uid>) -> Result<(), ClientError> {
        let owners = [owner.to_string()];
        let freed = dependents.iter().map(|uid| async {
            let node = self.shared.lock().get(uid).cloned();
            match node {
                Some(node) => self.remove_owners(&node, uid, &owners).await,
                None => Ok(()),
            }
        });
        try_join_all(freed).await.map(drop)
    }

    async fn patch(&self, node: &Node, patch: serde_json::Value) -> Result<(), ClientError> {
        let request = node
            .resource
            .requests(Some(&node.namespace))
            .patch(&node.name, &PatchParams::default(), &Patch::Merge(patch))
            .map_err(ClientError::BuildRequest)?;
        let patched = self.client.request_text(request).await.or_not_found()?;
        if patched.is_some() {
            turn::acted(format!("patch metadata of {}", node.describe()));
        }
        Ok(())
    }

    /// The object as the server has it, if it is still the same.
    async fn get_same(&self, node: &Node, uid: &str) -> Result<Option<MetadataOnly>, ClientError> {
        let found = self.get(&node.resource, &node.namespace, &node.name).await?;
        Ok(found.filter(|found| found.metadata.uid == uid))
    }

    async fn get(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<MetadataOnly>, ClientError> {
        let request = resource
            .requests(Some(namespace))
            .get_metadata(name, &GetParams::default())
            .map_err(ClientError::BuildRequest)?;
        self.client.request(request).await.or_not_found()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

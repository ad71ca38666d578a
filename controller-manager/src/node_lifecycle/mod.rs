//! Watches over nodes: one that stays silent becomes Unknown, and what is wrong with a node becomes a taint.
//!
//! A kubelet shows that it lives by renewing its Lease. When that happened is measured by our own clock, as the
//! node's may be off, and noted without a turn; a node has a turn when something about it changes and when its
//! grace period ends.

mod plan;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use client::{
    Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, events::Recorder, turn,
};
use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{ResourceExt, api::Patch};
use serde_json::json;
use tokio::time::Instant;

use crate::{Context, pods::PodExt};

const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Starts the controller.
pub fn start(context: &mut Context, grace: Duration) {
    let (nodes, pods, leases) = (context.cache::<Node>(), context.cache::<Pod>(), context.cache::<Lease>());
    let pulses = Pulses::default();
    let (of_leases, of_nodes) = (pulses.clone(), pulses.clone());
    leases.on_change(move |change| {
        let renewed = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        if let Some(new) = change.after()
            && &*change.key().namespace == LEASE_NAMESPACE
            && change.before().and_then(|old| renewed(old)) != renewed(new)
        {
            of_leases.beat(&new.name_any());
        }
    });
    nodes.on_change(move |change| match change.after() {
        Some(new) if change.before().and_then(|old| plan::heartbeat(old)) != plan::heartbeat(new) => {
            of_nodes.beat(&new.name_any());
        }
        Some(_) => {}
        None => of_nodes.forget(&change.object().name_any()),
    });
    let controller = NodeLifecycle {
        nodes: nodes.clone(),
        pods: pods.clone(),
        writer: context.writer("node-controller"),
        events: context.recorder("node-controller", "node-controller"),
        pulses,
        grace,
    };
    let runner =
        Runner::new("node_lifecycle_controller", controller).watch(&nodes).wait_for(&leases).wait_for(&pods);
    context.run(runner);
}

/// When each node was last heard of.
#[derive(Clone, Default)]
struct Pulses {
    last: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Pulses {
    fn beat(&self, node: &str) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(node.into(), Instant::now());
    }

    fn forget(&self, node: &str) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    }

    /// For how long a node has been silent. One that we have never heard of begins to be silent now.
    fn silence(&self, node: &str) -> Duration {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.entry(node.into()).or_insert_with(Instant::now).elapsed()
    }
}

struct NodeLifecycle {
    nodes: Arc<Cache<Node>>,
    pods: Arc<Cache<Pod>>,
    writer: Writer,
    events: Recorder,
    pulses: Pulses,
    grace: Duration,
}

impl Reconcile for NodeLifecycle {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(mut node) = self.nodes.get_key(key) else { return Ok(Next::OnChange) };
        let silence = self.pulses.silence(&key.name);
        let left = self.grace.saturating_sub(silence);
        turn::describe(
            "a node that is heard of",
            format!("ready: {}, silent for {} s", plan::is_ready(&node), silence.as_secs()),
        );
        let now = Timestamp::now();
        if left.is_zero() {
            node = self.mark_silent(node, now).await?;
        }
        let others_are_well = self.nodes.list().iter().any(|node| plan::is_ready(node));
        if let Some(taints) = plan::taints(&node, others_are_well, now) {
            // On condition of the version: taints are a list in which others write, too.
            let metadata = json!({"uid": node.uid(), "resourceVersion": node.resource_version()});
            let keys: Vec<String> =
                taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect();
            let taints = (!taints.is_empty()).then_some(taints);
            let patch = json!({"metadata": metadata, "spec": {"taints": taints}});
            if self.writer.merge::<Node>(key, patch).await.or_not_found()?.is_some() {
                let keys = if keys.is_empty() { "nothing".into() } else { keys.join(", ") };
                turn::meant(format!("taint Node {key} with {keys}"));
            }
        }
        if plan::is_unknown(&node) {
            self.mark_pods(&key.name, now).await?;
        }
        Ok(if left.is_zero() { Next::OnChange } else { Next::After(left) })
    }
}

impl NodeLifecycle {
    async fn mark_silent(&self, node: Arc<Node>, now: Timestamp) -> Result<Arc<Node>, ClientError> {
        let conditions = plan::silent_conditions(&node, now);
        if conditions.is_empty() {
            return Ok(node);
        }
        let was_ready = plan::is_ready(&node);
        let patch = json!({"metadata": {"uid": node.uid()}, "status": {"conditions": conditions}});
        let key = ObjectKey::of(&*node);
        let patched = self
            .writer
            .patch_subresource::<Node, _>("status", &key, &Patch::Strategic(patch))
            .await
            .or_not_found()?;
        if was_ready {
            let text = format!("Node {} status is now: NodeNotReady", key.name);
            self.events.normal(&*node, "NodeNotReady", text);
        }
        Ok(patched.map_or(node, Arc::new))
    }

    /// Nobody can say that these pods are ready any more.
    async fn mark_pods(&self, node: &str, now: Timestamp) -> Result<(), ClientError> {
        let pods = self.pods.on_node(node);
        let marks = pods.iter().filter(|pod| pod.is_ready()).map(|pod| async move {
            let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": Time(now)});
            let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
            let key = ObjectKey::of(&**pod);
            let patched =
                self.writer.patch_subresource::<Pod, _>("status", &key, &Patch::Strategic(patch)).await;
            if patched.or_not_found()?.is_some() {
                self.events.warning(&**pod, "NodeNotReady", "Node is not ready");
            }
            Ok::<_, ClientError>(())
        });
        try_join_all(marks).await.map(drop)
    }
}

//! Drives pods off nodes with taints that they do not bear, or no longer.

mod plan;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use client::{
    Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, events::Recorder, turn,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{ResourceExt, api::Patch};
use plan::Fate;
use serde_json::json;
use tokio::time::Instant;

use crate::{Context, pods::PodExt};

/// Starts the controller.
pub fn start(context: &mut Context) {
    let (nodes, pods) = (context.cache::<Node>(), context.cache::<Pod>());
    let controller = TaintEviction {
        nodes: nodes.clone(),
        pods: pods.clone(),
        writer: context.writer("node-controller"),
        events: context.recorder("node-controller", "taint-eviction-controller"),
        noticed: Mutex::default(),
    };
    let (there, tainted) = (pods.clone(), nodes.clone());
    let runner = Runner::new("taint-eviction-controller", controller)
        .concurrency(8)
        .watch_map(&nodes, move |change| {
            let taints =
                |node: Option<&Arc<Node>>| node.map(|node| plan::no_execute(node)).unwrap_or_default();
            if taints(change.before()) == taints(change.after()) {
                return Vec::new();
            }
            there.on_node(&change.object().name_any()).iter().map(|pod| ObjectKey::of(&**pod)).collect()
        })
        .watch_map(&pods, move |change| {
            let is_bound = |pod: &&Arc<Pod>| !pod.node().is_empty();
            let Some(pod) = change.after().filter(is_bound) else { return Vec::new() };
            let was_bound = change.before().as_ref().is_some_and(is_bound);
            let node = tainted.get("", pod.node());
            let is_tainted = node.is_some_and(|node| !plan::no_execute(&node).is_empty());
            if is_tainted && !was_bound { vec![change.key()] } else { Vec::new() }
        });
    context.run(runner);
}

struct TaintEviction {
    nodes: Arc<Cache<Node>>,
    pods: Arc<Cache<Pod>>,
    writer: Writer,
    events: Recorder,
    /// Since when we know that a pod (by uid) is on a tainted node. A restart gives it the full time again.
    noticed: Mutex<HashMap<String, Instant>>,
}

impl Reconcile for TaintEviction {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(pod) = self.pods.get_key(key) else { return Ok(Next::OnChange) };
        let uid = pod.uid().unwrap_or_default();
        let taints = self.nodes.get("", pod.node()).map(|node| plan::no_execute(&node)).unwrap_or_default();
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
        let fate = match pod.is_terminating() {
            true => Fate::Stays,
            false => plan::fate(&tolerations, &taints),
        };
        let fated = match fate {
            Fate::Stays => "a pod that stays".to_string(),
            Fate::StaysFor(limit) => format!("a pod that stays for {} s at most", limit.as_secs()),
        };
        turn::describe(fated, format!("{} NoExecute taints on {}", taints.len(), pod.node()));
        let Fate::StaysFor(limit) = fate else {
            if self.forget(&uid) && !pod.is_terminating() {
                self.events.normal(
                    &*pod,
                    "TaintManagerEviction",
                    format!("Cancelling deletion of Pod {key}"),
                );
            }
            return Ok(Next::OnChange);
        };
        let left = limit.saturating_sub(self.notice(&uid).elapsed());
        if !left.is_zero() {
            return Ok(Next::After(left));
        }
        self.evict(&pod, key).await?;
        self.forget(&uid);
        Ok(Next::OnChange)
    }
}

impl TaintEviction {
    async fn evict(&self, pod: &Pod, key: &ObjectKey) -> Result<(), ClientError> {
        self.events.normal(pod, "TaintManagerEviction", format!("Marking for deletion Pod {key}"));
        let condition = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": Time(Timestamp::now()),
        });
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
        self.writer
            .patch_subresource::<Pod, _>("status", key, &Patch::Strategic(patch))
            .await
            .or_not_found()?;
        self.writer.delete(pod).await
    }

    fn notice(&self, uid: &str) -> Instant {
        let mut noticed = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
        *noticed.entry(uid.into()).or_insert_with(Instant::now)
    }

    fn forget(&self, uid: &str) -> bool {
        self.noticed.lock().unwrap_or_else(PoisonError::into_inner).remove(uid).is_some()
    }
}

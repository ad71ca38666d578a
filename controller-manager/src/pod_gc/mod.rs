//! Deletes pods that nobody will miss: of nodes that are gone, never scheduled, long finished.

mod plan;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use client::{Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, turn};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch},
};
use plan::Reason;
use serde_json::json;
use tokio::time::Instant;

use crate::{Context, pods::PodExt};

/// A node that is missing may be about to register again; upstream waits as long.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Starts the controller.
pub fn start(context: &mut Context, threshold: usize) {
    let (pods, nodes) = (context.cache::<Pod>(), context.cache::<Node>());
    let controller = PodCollector {
        pods: pods.clone(),
        nodes: nodes.clone(),
        writer: context.writer("pod-garbage-collector"),
        threshold,
        missing: Mutex::default(),
    };
    // There is one thing to look after, the whole of all pods: one key. It is woken by what can make a difference.
    let everything = || vec![ObjectKey::cluster("pods")];
    let (known, finished) = (nodes.clone(), pods.clone());
    let runner = Runner::new("podgc", controller)
        .concurrency(1)
        .watch_map(&pods, move |change| {
            let Some(pod) = change.after() else { return Vec::new() };
            let orphaned = !pod.node().is_empty() && known.is_synced() && known.get("", pod.node()).is_none();
            let never_scheduled = pod.is_terminating() && pod.node().is_empty();
            let surplus = threshold > 0 && pod.is_finished() && finished.len() > threshold;
            if orphaned || never_scheduled || surplus { everything() } else { Vec::new() }
        })
        .watch_map(&nodes, move |change| if change.after().is_none() { everything() } else { Vec::new() });
    // Whatever was left over from before this process.
    runner.queue().add(ObjectKey::cluster("pods"), client::Wake::Other("start"));
    context.run(runner);
}

struct PodCollector {
    pods: Arc<Cache<Pod>>,
    nodes: Arc<Cache<Node>>,
    writer: Writer,
    threshold: usize,
    /// Since when we miss a node. Forgetting it costs no more than one more quarantine.
    missing: Mutex<HashMap<String, Instant>>,
}

impl Reconcile for PodCollector {
    async fn reconcile(&self, _key: &ObjectKey) -> Result<Next, ClientError> {
        let pods = self.pods.list();
        let existing: BTreeSet<String> = self.nodes.list().iter().map(|node| node.name_any()).collect();
        let (nodes, next) = self.with_quarantined(existing, &pods).await?;
        let gone = plan::plan(&pods, &nodes, self.threshold);
        turn::describe("no pods to collect", format!("{} of {} pods to collect", gone.len(), pods.len()));
        for (pod, reason) in gone {
            if reason == Reason::Orphaned && !pod.is_finished() {
                self.mark_lost(&pod).await?;
            }
            self.writer.delete_with(&*pod, DeleteParams::default().grace_period(0)).await?;
        }
        Ok(next.map_or(Next::OnChange, Next::After))
    }
}

impl PodCollector {
    /// The nodes whose pods stay: those that exist and those that are not missing for long enough; and when to
    /// look again. Before a node counts as gone, the server itself is asked.
    async fn with_quarantined(
        &self,
        mut nodes: BTreeSet<String>,
        pods: &[Arc<Pod>],
    ) -> Result<(BTreeSet<String>, Option<Duration>), ClientError> {
        let absent: BTreeSet<&str> = pods
            .iter()
            .map(|pod| pod.node())
            .filter(|node| !node.is_empty() && !nodes.contains(*node))
            .collect();
        let absent: Vec<(String, Duration)> = {
            let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            missing.retain(|node, _| absent.contains(node.as_str()));
            absent
                .into_iter()
                .map(|node| {
                    (node.to_owned(), missing.entry(node.to_owned()).or_insert_with(Instant::now).elapsed())
                })
                .collect()
        };
        let mut next = None;
        let api: Api<Node> = Api::all(self.writer.client().clone());
        for (node, missing_for) in absent {
            let left = QUARANTINE.saturating_sub(missing_for);
            if !left.is_zero() {
                next = Some(next.map_or(left, |next: Duration| next.min(left)));
                nodes.insert(node);
            } else if api.get_opt(&node).await?.is_some() {
                nodes.insert(node);
            }
        }
        Ok((nodes, next))
    }

    /// Nobody will report this pod's end: say that it failed, so that its owner knows before it is deleted.
    async fn mark_lost(&self, pod: &Pod) -> Result<(), ClientError> {
        let condition = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists",
            "lastTransitionTime": Time(Timestamp::now()),
        });
        let patch =
            json!({"metadata": {"uid": pod.uid()}, "status": {"phase": "Failed", "conditions": [condition]}});
        let key = ObjectKey::of(pod);
        self.writer
            .patch_subresource::<Pod, _>("status", &key, &Patch::Strategic(patch))
            .await
            .or_not_found()
            .map(drop)
    }
}

//! The pods of this node: one worker for each, woken by the API, by the runtime and by its own tasks.
//!
//! [`plan`] decides, [`status`] tells, both plain functions; [`worker`] does. This module starts workers,
//! passes on what concerns them, and finds what a former kubelet has left behind.

pub mod admission;
pub mod backoff;
pub mod hook;
pub mod inspect;
pub mod memory;
pub mod observed;
pub mod plan;
mod relist;
pub mod resize;
pub mod start;
pub mod status;
pub mod stop;
pub mod view;
pub mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Cache, Change};
use cri::v1::{ContainerEventResponse, GetEventsRequest, ListPodSandboxRequest, PodSandbox};
use cri::{Code, Error, EventStream};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::ObjectMeta;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{self, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::container::labels;
use crate::context::Context;
use crate::metrics;
use crate::probe::ProbeKind;
use crate::sandbox;
use memory::Verdict;
use view::PodView;
use worker::Worker;

/// How long to wait before the runtime's events are asked for again.
const EVENTS_RETRY: Duration = Duration::from_secs(1);

/// What a worker's own tasks tell it.
#[derive(Debug)]
pub enum Signal {
    /// A ConfigMap or Secret that a volume shows has changed.
    Sources,
    /// A probe has come to a verdict.
    Probed {
        /// The container's name.
        container: String,
        /// The very container that was asked.
        id: String,
        /// What was asked.
        kind: ProbeKind,
        /// Yes or no.
        succeeded: bool,
    },
}

/// What the API wants of a pod.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The pod as the API last told us.
    pub pod: Arc<Pod>,
    /// Whether the API no longer has it.
    pub is_gone: bool,
    /// What the node has decided about it.
    pub verdict: Option<Verdict>,
}

/// The way to tell pods that the node cannot keep them.
#[derive(Clone)]
pub struct Evictions(mpsc::Sender<(String, Verdict)>);

impl Evictions {
    /// The way, and its end.
    pub fn channel() -> (Evictions, mpsc::Receiver<(String, Verdict)>) {
        let (sender, receiver) = mpsc::channel(1);
        (Evictions(sender), receiver)
    }

    /// Tells the pod with this uid.
    pub async fn send(&self, uid: String, verdict: Verdict) {
        // While the kubelet stops nobody listens, and nobody is evicted.
        self.0.send((uid, verdict)).await.ok();
    }
}

/// The way to a worker.
struct Handle {
    desired: watch::Sender<Desired>,
    runtime_moved: Arc<Notify>,
}

/// All workers of this node.
pub struct Pods {
    context: Arc<Context>,
    workers: HashMap<String, Handle>,
    tasks: JoinSet<()>,
    uids: HashMap<task::Id, String>,
    stop: CancellationToken,
}

impl Pods {
    /// Works for the pods in `cache`, which holds this node's and no others, until `stop`.
    pub async fn run(
        context: Arc<Context>,
        cache: Arc<Cache<Pod>>,
        mut evictions: mpsc::Receiver<(String, Verdict)>,
        stop: CancellationToken,
    ) {
        let (workers, tasks, uids) = (HashMap::new(), JoinSet::new(), HashMap::new());
        let mut pods = Pods { context, workers, tasks, uids, stop: stop.clone() };
        // Listening comes before looking, so that nothing happens unheard.
        let mut events = pods.listen().await;
        tokio::select! {
            () = cache.wait_synced() => {}
            () = stop.cancelled() => return,
        }
        let mut changes = cache.subscribe();
        pods.find_orphans(&cache).await;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(change) = changes.recv() => pods.take_over(change),
                Some((uid, verdict)) = evictions.recv() => pods.judge(&uid, verdict),
                event = events.next() => match event {
                    Some(Ok(event)) => pods.pass_on(&event),
                    Some(Err(_)) | None => events = pods.listen_again().await,
                },
                Some(ended) = pods.tasks.join_next_with_id() => pods.worker_ended(ended),
            }
            metrics::ACTIVE_PODS.set(i64::try_from(pods.workers.len()).unwrap_or(i64::MAX));
        }
        // Workers stop, containers go on.
        while let Some(ended) = pods.tasks.join_next_with_id().await {
            pods.worker_ended(ended);
        }
    }

    async fn listen(&self) -> EventStream {
        match self.context.runtime.get_container_events(GetEventsRequest {}).await {
            Ok(stream) => stream,
            Err(error) if error.code == Code::Unimplemented => relist::events(self.context.runtime.clone()),
            Err(error) => {
                tracing::warn!(%error, "the runtime does not tell what happens, asking it again");
                futures::stream::once(async move { Err::<ContainerEventResponse, Error>(error) }).boxed()
            }
        }
    }

    /// The stream has ended: events may be lost, so everybody looks.
    async fn listen_again(&self) -> EventStream {
        tokio::time::sleep(EVENTS_RETRY).await;
        let events = self.listen().await;
        self.workers.values().for_each(|handle| handle.runtime_moved.notify_one());
        events
    }

    fn take_over(&mut self, change: Change<Pod>) {
        match change {
            Change::Added(pod) => self.desire(pod),
            Change::Updated { old, new } => {
                if old.uid() != new.uid() {
                    self.let_go(old);
                }
                self.desire(new);
            }
            Change::Deleted(pod) => self.let_go(pod),
        }
    }

    fn desire(&mut self, pod: Arc<Pod>) {
        match self.workers.get(pod.uid()) {
            Some(handle) => handle.desired.send_modify(|desired| desired.pod = pod),
            None => self.start(Desired { pod, is_gone: false, verdict: None }),
        }
    }

    fn judge(&self, uid: &str, verdict: Verdict) {
        if let Some(handle) = self.workers.get(uid) {
            handle.desired.send_modify(|desired| desired.verdict = Some(verdict));
        }
    }

    fn let_go(&mut self, pod: Arc<Pod>) {
        if let Some(handle) = self.workers.get(pod.uid()) {
            handle.desired.send_modify(|desired| {
                desired.pod = pod;
                desired.is_gone = true;
            });
        }
    }

    fn start(&mut self, desired: Desired) {
        let uid = desired.pod.uid().to_string();
        let (sender, receiver) = watch::channel(desired);
        let runtime_moved = Arc::new(Notify::new());
        let worker = Worker::new(self.context.clone(), receiver, runtime_moved.clone(), Timestamp::now());
        let task = self.tasks.spawn(worker.run(self.stop.clone()));
        self.uids.insert(task.id(), uid.clone());
        self.workers.insert(uid, Handle { desired: sender, runtime_moved });
    }

    fn pass_on(&self, event: &ContainerEventResponse) {
        let sandbox = event.pod_sandbox_status.as_ref().and_then(|status| status.metadata.as_ref());
        let container =
            event.containers_statuses.iter().find_map(|status| status.labels.get(labels::POD_UID));
        match sandbox.map(|metadata| &metadata.uid).or(container) {
            Some(uid) => {
                if let Some(handle) = self.workers.get(uid) {
                    handle.runtime_moved.notify_one();
                }
            }
            // An event that does not say whom it is about is about everybody.
            None => self.workers.values().for_each(|handle| handle.runtime_moved.notify_one()),
        }
    }

    /// A worker that has died of our own fault is replaced when its pod next changes.
    fn worker_ended(&mut self, ended: Result<(task::Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "the worker of a pod died");
                error.id()
            }
        };
        if let Some(uid) = self.uids.remove(&id) {
            self.workers.remove(&uid);
        }
    }

    /// Pods that were deleted while no kubelet ran: what they have left is removed.
    async fn find_orphans(&mut self, cache: &Cache<Pod>) {
        let known: Vec<String> = cache.list().iter().map(|pod| pod.uid().to_string()).collect();
        let sandboxes = match self.context.runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await {
            Ok(response) => response.items,
            Err(error) => return tracing::warn!(%error, "cannot ask the runtime for orphaned pods"),
        };
        for sandbox in &sandboxes {
            let pod = pod_of(sandbox);
            let is_known = pod.uid().is_empty() || known.iter().any(|uid| uid == pod.uid());
            if !is_known && !self.workers.contains_key(pod.uid()) {
                tracing::info!(
                    pod = pod.name(),
                    namespace = pod.namespace(),
                    "removing a pod that is gone from the API"
                );
                self.start(Desired { pod: Arc::new(pod), is_gone: true, verdict: None });
            }
        }
        let is_unknown =
            |uid: &str| !known.iter().any(|known| known == uid) && !self.workers.contains_key(uid);
        for uid in self.context.volumes.pods_on_disk().iter().filter(|uid| is_unknown(uid)) {
            if let Err(error) = self.context.volumes.remove_pod(uid).await {
                tracing::warn!(uid, %error, "cannot remove the files of a pod that is gone");
            }
        }
        for (uid, logs) in sandbox::log_directories(&self.context.config.log_dir) {
            if is_unknown(&uid)
                && let Err(error) = tokio::fs::remove_dir_all(&logs).await
            {
                tracing::warn!(logs = %logs.display(), %error, "cannot remove the logs of a pod that is gone");
            }
        }
    }
}

/// As much of a pod as its sandbox tells.
fn pod_of(sandbox: &PodSandbox) -> Pod {
    let metadata = sandbox.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            name: Some(metadata.name),
            namespace: Some(metadata.namespace),
            uid: Some(metadata.uid),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec::default()),
        status: None,
    }
}

//! The shell: watches pods and nodes, asks for decisions, binds.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use client::{
    Change, FlightRecorder, Informers, Tolerate, events::Recorder, flight::Turn, is_conflict, is_not_found,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    metrics,
    model::{NodeInfo, PodInfo},
    preempt::{Preemption, preempt},
    queue::Queue,
    schedule::{Cursor, Unschedulable, schedule},
    snapshot::{Placed, Snapshot},
};

/// What the scheduler has to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pods that name this scheduler are placed; the usual one is `default-scheduler`.
    pub scheduler_name: String,
}

impl Default for Config {
    fn default() -> Config {
        Config { scheduler_name: "default-scheduler".into() }
    }
}

/// How many outcomes of bindings may wait for the scheduler.
const BINDINGS: usize = 256;
/// How long pods are placed before others of the process have their turn.
const SLICE: Duration = Duration::from_millis(1);

/// Schedules until `stop`.
pub async fn run(config: Config, client: Client, flight: FlightRecorder, stop: CancellationToken) {
    let informers = Informers::new(client.clone(), stop.clone());
    let (pods, nodes) = (informers.cache::<Pod>(), informers.cache::<Node>());
    let events = Recorder::new(client.clone(), config.scheduler_name.clone(), None);
    let (outcomes, bound) = mpsc::channel(BINDINGS);
    let binder = Binder { client, events, name: config.scheduler_name.clone().into(), outcomes };
    let scheduler = Scheduler {
        config,
        flight,
        binder,
        snapshot: Snapshot::default(),
        queue: Queue::default(),
        cursor: Cursor::default(),
    };
    stop.run_until_cancelled_owned(async move {
        nodes.wait_synced().await;
        pods.wait_synced().await;
        scheduler.work(pods.subscribe(), nodes.subscribe(), bound).await;
    })
    .await;
}

struct Scheduler {
    config: Config,
    flight: FlightRecorder,
    binder: Binder,
    snapshot: Snapshot,
    queue: Queue,
    /// Counts decisions; spreads pods over nodes that are equally good.
    cursor: Cursor,
}

/// What became of a binding.
struct Outcome {
    pod: Arc<PodInfo>,
    is_bound: bool,
}

impl Scheduler {
    async fn work(
        mut self,
        mut pods: mpsc::UnboundedReceiver<Change<Pod>>,
        mut nodes: mpsc::UnboundedReceiver<Change<Node>>,
        mut bound: mpsc::Receiver<Outcome>,
    ) {
        loop {
            // Everything that is known by now comes before the next decision.
            while let Ok(change) = nodes.try_recv() {
                self.node_changed(change);
            }
            while let Ok(change) = pods.try_recv() {
                self.pod_changed(change);
            }
            while let Ok(outcome) = bound.try_recv() {
                self.binding_ended(outcome);
            }
            let next_wake = self.queue.wake(Timestamp::now());
            self.measure();
            if self.place_some() {
                // Long queues must not keep watch events and bindings from being served.
                tokio::task::yield_now().await;
                continue;
            }
            let until_wake = next_wake
                .map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO));
            tokio::select! {
                Some(change) = nodes.recv() => self.node_changed(change),
                Some(change) = pods.recv() => self.pod_changed(change),
                Some(outcome) = bound.recv() => self.binding_ended(outcome),
                () = tokio::time::sleep(until_wake.unwrap_or_default()), if until_wake.is_some() => {}
                else => return,
            }
        }
    }

    fn node_changed(&mut self, change: Change<Node>) {
        let may_help = match change.after() {
            Some(node) => self.snapshot.set_node(NodeInfo::new(node)),
            None => {
                self.snapshot.remove_node(change.object().metadata.name.as_deref().unwrap_or_default());
                // There is one place less to spread pods over.
                true
            }
        };
        if may_help {
            self.queue.something_changed();
        }
    }

    fn pod_changed(&mut self, change: Change<Pod>) {
        let pod = change.object();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let is_over = change.after().is_none() || matches!(phase, "Succeeded" | "Failed");
        if !is_over && !node.is_empty() {
            self.queue.remove(uid);
            self.put_on(&node, Arc::new(PodInfo::new(pod.clone())));
        } else if !is_over && self.is_ours(pod) {
            self.queue.put(Arc::new(PodInfo::new(pod.clone())));
        } else {
            // Over, or not to be placed by us any more: then a binding under way counts for nothing until the watch
            // tells of it.
            self.queue.remove(uid);
            self.take_off(uid);
        }
    }

    /// Counts a pod on its node, and lets those be tried again whom that may help.
    fn put_on(&mut self, node: &str, pod: Arc<PodInfo>) {
        match self.snapshot.place(pod.clone(), node) {
            Placed::New => self.queue.neighbour_came(&pod),
            Placed::Again => {}
            Placed::Changed => self.queue.something_changed(),
        }
    }

    /// Counts a pod on no node any more, and lets others be tried in its place.
    fn take_off(&mut self, uid: &str) {
        if self.snapshot.remove_pod(uid) {
            self.queue.something_changed();
        }
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let spec = pod.spec.as_ref();
        let is_gated =
            spec.and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty());
        let scheduler = spec.and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or("default-scheduler");
        scheduler == self.config.scheduler_name && !is_gated && pod.metadata.deletion_timestamp.is_none()
    }

    /// Places pods for a little while. Returns whether there was one.
    fn place_some(&mut self) -> bool {
        let began = Instant::now();
        let mut placed = false;
        while began.elapsed() < SLICE
            && let Some(pod) = self.queue.pop()
        {
            self.place(pod);
            placed = true;
        }
        placed
    }

    fn place(&mut self, pod: Arc<PodInfo>) {
        let started = Timestamp::now();
        let timer = metrics::DECISION_SECONDS.start_timer();
        let decision = schedule(&pod, &self.snapshot, &mut self.cursor);
        timer.observe_duration();
        let (observed, action) = match decision {
            Ok(node) => {
                metrics::ATTEMPTS.with_label_values(&["scheduled"]).inc();
                self.put_on(&node, pod.clone());
                self.binder.bind(pod.clone(), node.clone());
                (String::from("fits"), format!("bind to {node}"))
            }
            Err(refused) => {
                metrics::ATTEMPTS.with_label_values(&["unschedulable"]).inc();
                self.queue.unschedulable(&pod.uid, started);
                let room = preempt(&pod, &self.snapshot, &refused);
                let action = match &room {
                    Ok(room) => format!("preempt {} pods on {}", room.victims.len(), room.node),
                    Err(_) => String::new(),
                };
                let observed = refused.to_string();
                self.binder.report(pod.clone(), refused, room);
                (observed, action)
            }
        };
        let micros = Timestamp::now().duration_since(started).as_micros();
        self.flight.record(Turn {
            controller: "scheduler",
            object: format!("{}/{}", pod.namespace, pod.name),
            woken_by: "a pod without a node".into(),
            desired: format!("cpu {}m, memory {}", pod.requests.milli_cpu, pod.requests.memory),
            observed,
            actions: Some(action).filter(|action| !action.is_empty()).into_iter().collect(),
            duration_micros: u64::try_from(micros).unwrap_or_default(),
            number: 0, // given by the recorder
            at: started,
            error: None,
        });
    }

    fn binding_ended(&mut self, Outcome { pod, is_bound }: Outcome) {
        if is_bound {
            return;
        }
        metrics::ATTEMPTS.with_label_values(&["error"]).inc();
        // One that waits no more has been placed by the watch: somebody else has bound it, or we have and only the
        // answer was lost.
        if self.queue.failed(&pod.uid, Timestamp::now()) {
            self.take_off(&pod.uid);
        }
    }

    fn measure(&self) {
        let (active, backing_off, unschedulable) = self.queue.depth();
        let counts = [("active", active), ("backoff", backing_off), ("unschedulable", unschedulable)];
        for (queue, count) in counts {
            metrics::PENDING.with_label_values(&[queue]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// Carries decisions out. Every write is a task of its own; the scheduler does not wait for it.
#[derive(Clone)]
struct Binder {
    client: Client,
    events: Recorder,
    name: Arc<str>,
    outcomes: mpsc::Sender<Outcome>,
}

impl Binder {
    fn bind(&self, pod: Arc<PodInfo>, node: String) {
        let binder = self.clone();
        tokio::spawn(async move {
            let is_bound = match binder.write_binding(&pod, &node).await {
                Ok(()) => {
                    let text = format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name);
                    binder.events.normal(&*pod.pod, "Scheduled", text);
                    true
                }
                // Gone, or bound by somebody else: the watch tells us which.
                Err(error) if is_not_found(&error) || is_conflict(&error) => false,
                Err(error) => {
                    tracing::warn!(
                        pod = format!("{}/{}", pod.namespace, pod.name),
                        node,
                        error = &error as &dyn std::error::Error,
                        "cannot bind, will retry"
                    );
                    binder.events.warning(
                        &*pod.pod,
                        "FailedScheduling",
                        format!("binding rejected: {error}"),
                    );
                    false
                }
            };
            if binder.outcomes.send(Outcome { pod, is_bound }).await.is_err() {
                tracing::debug!("the scheduler has ended before a binding did");
            }
        });
    }

    async fn write_binding(&self, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": &*pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let api = self.pods(&pod.namespace);
        let bound = api.create_subresource("binding", &pod.name, &PostParams::default(), &binding).await;
        bound.map(|_: Value| ())
    }

    /// Tells the user why a pod has no node, and makes room for it where that is possible.
    fn report(&self, pod: Arc<PodInfo>, refused: Unschedulable, room: Result<Preemption, String>) {
        let binder = self.clone();
        tokio::spawn(async move {
            let preemption = room.as_ref().err().map(String::as_str).unwrap_or_default();
            let message = match preemption {
                "" => refused.to_string(),
                words => format!("{refused} no new claims to deallocate, {words}"),
            };
            binder.events.warning(&*pod.pod, "FailedScheduling", message.clone());
            let nominated = room.as_ref().ok().map(|room| room.node.as_str());
            if let Err(error) = binder.write_unschedulable(&pod, &message, nominated).await {
                tracing::warn!(pod = pod.name, %error, "cannot report why a pod has no node");
            }
            let Ok(room) = room else { return };
            for victim in room.victims {
                if let Err(error) = binder.push_out(&victim, &pod, &room.node).await {
                    tracing::warn!(pod = victim.name, %error, "cannot preempt a pod");
                }
            }
        });
    }

    async fn write_unschedulable(
        &self,
        pod: &PodInfo,
        message: &str,
        nominated: Option<&str>,
    ) -> Result<(), kube::Error> {
        let conditions = pod.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let present = conditions.into_iter().flatten().find(|condition| condition.type_ == "PodScheduled");
        let is_reported = present.is_some_and(|condition| {
            condition.status == "False"
                && condition.reason.as_deref() == Some("Unschedulable")
                && condition.message.as_deref() == Some(message)
        });
        if is_reported && nominated.is_none() {
            return Ok(());
        }
        let mut status = json!({"conditions": [{
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": null,
            "lastTransitionTime": api::time::format(Timestamp::now()),
        }]});
        if let Some(node) = nominated {
            status["nominatedNodeName"] = node.into();
        }
        self.patch_status(pod, status).await
    }

    async fn push_out(&self, victim: &PodInfo, by: &PodInfo, node: &str) -> Result<(), kube::Error> {
        let message = format!("{}: preempting to accommodate a higher priority pod", self.name);
        let condition = json!({"conditions": [{
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": message,
            "lastTransitionTime": api::time::format(Timestamp::now()),
        }]});
        self.patch_status(victim, condition).await?;
        let same = Preconditions { uid: Some(victim.uid.to_string()), resource_version: None };
        let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
        let deleted = self.pods(&victim.namespace).delete(&victim.name, &params).await;
        if deleted.or_not_found().or_conflict()?.flatten().is_none() {
            return Ok(());
        }
        let text = format!("Preempted by pod {} on node {node}", by.uid);
        self.events.normal(&*victim.pod, "Preempted", text);
        Ok(())
    }

    async fn patch_status(&self, pod: &PodInfo, status: Value) -> Result<(), kube::Error> {
        // With the uid in it, the patch cannot reach a later pod of the same name.
        let patch = json!({"metadata": {"uid": &*pod.uid}, "status": status});
        let api = self.pods(&pod.namespace);
        let patched = api.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        patched.or_not_found().or_conflict().map(drop)
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

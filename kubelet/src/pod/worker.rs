//! The worker of one pod: looks, plans, acts, reports; sleeps until something happens.
//!
//! Everything that takes time runs as a task beside the worker and comes back as a [`Done`], so that the
//! worker can always react: to a deletion while an image is pulled, to a shorter grace period while a
//! container is being stopped. All of the pod's state has this one owner.

mod act;
mod outcome;
mod probes;
mod report;
mod resize;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::cache::revision_of;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::admission;
use super::inspect::Inspector;
use super::memory::{Memory, ProbeResults, Verdict};
use super::observed::Observed;
use super::plan::{Goal, PodAction, Situation, goal, plan_pod};
use super::view::PodView;
use super::{Desired, Signal};
use crate::context::Context;
use crate::probe::ProbeKind;
use crate::sandbox::log_directory;
use crate::volume::PodVolumes;
use outcome::Done;

/// How long to wait when the runtime does not answer.
const RUNTIME_RETRY: Duration = Duration::from_secs(1);
/// A look without a reason, in case an event was lost.
const SAFETY_LOOK: Duration = Duration::from_secs(300);
/// Signals that can wait for the worker.
const WAITING_SIGNALS: usize = 64;

/// The worker of one pod.
pub struct Worker {
    context: Arc<Context>,
    pod: Arc<Pod>,
    is_gone: bool,
    inspector: Inspector,
    observed: Observed,
    memory: Memory,
    volumes: PodVolumes,
    /// The volumes show something that has changed.
    volumes_stale: bool,
    desired: watch::Receiver<Desired>,
    runtime_moved: Arc<Notify>,
    signals: mpsc::Receiver<Signal>,
    own_signals: mpsc::Sender<Signal>,
    tasks: JoinSet<Done>,
    starting: HashMap<String, CancellationToken>,
    stopping: HashMap<String, AbortHandle>,
    probing: HashMap<(String, ProbeKind), AbortHandle>,
    watching: JoinSet<()>,
    report: report::Reporting,
    is_deleting: bool,
    is_forgetting: bool,
    is_forgotten: bool,
    /// What has failed at the end is not to be tried before.
    next_try: Option<Timestamp>,
    /// The runtime has to be asked again.
    must_look: bool,
    /// The node has decided whether it takes the pod.
    is_admitted: bool,
}

impl Worker {
    /// A worker that has not looked yet, for what `desired` says. `runtime_moved` tells it to look again.
    pub fn new(
        context: Arc<Context>,
        mut desired: watch::Receiver<Desired>,
        runtime_moved: Arc<Notify>,
        now: Timestamp,
    ) -> Worker {
        let (own_signals, signals) = mpsc::channel(WAITING_SIGNALS);
        let Desired { pod, is_gone, verdict } = desired.borrow_and_update().clone();
        let logs = context.config.log_dir.join(log_directory(&pod));
        Worker {
            inspector: Inspector::new(pod.uid(), logs),
            context,
            pod,
            is_gone,
            observed: Observed::default(),
            memory: Memory { verdict, ..Memory::new(now) },
            volumes: PodVolumes::default(),
            volumes_stale: false,
            desired,
            runtime_moved,
            signals,
            own_signals,
            tasks: JoinSet::new(),
            starting: HashMap::new(),
            stopping: HashMap::new(),
            probing: HashMap::new(),
            watching: JoinSet::new(),
            report: report::Reporting::default(),
            is_deleting: false,
            is_forgetting: false,
            next_try: None,
            is_forgotten: false,
            must_look: true,
            is_admitted: false,
        }
    }

    /// Works until nothing is left of the pod, or `stop`: then the containers are left running.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut is_first = true;
        loop {
            let mut wake = Timestamp::now() + SAFETY_LOOK;
            if self.must_look && !self.look().await {
                wake = Timestamp::now() + RUNTIME_RETRY;
            }
            if std::mem::take(&mut is_first) {
                self.adopt();
            }
            if !self.must_look && !self.is_admitted {
                self.admit();
            }
            if !self.must_look {
                wake = wake.min(self.turn(Timestamp::now()));
            }
            if self.is_forgotten {
                self.context.taken.lock().remove(self.pod.uid());
                self.end_probes();
                return;
            }
            let wait = Duration::try_from(wake.duration_since(Timestamp::now())).unwrap_or_default();
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = self.desired.changed() => {}
                () = self.runtime_moved.notified() => self.must_look = true,
                Some(signal) = self.signals.recv() => self.hear(signal),
                Some(done) = self.tasks.join_next() => self.take_in(done),
                // The timer must not fire a moment before the time that the plan waits for.
                () = tokio::time::sleep(wait + Duration::from_millis(1)) => self.must_look |= wait >= SAFETY_LOOK,
            }
            self.hear_the_rest();
        }
        self.end_probes();
    }

    /// Whether the runtime has answered.
    async fn look(&mut self) -> bool {
        match self.inspector.look(&*self.context.runtime).await {
            Ok(observed) => {
                self.observed = observed.with_lost(self.pod.status());
                self.must_look = false;
                true
            }
            Err(error) => {
                tracing::warn!(pod = self.pod.name(), namespace = self.pod.namespace(), %error, "cannot ask the runtime about a pod");
                false
            }
        }
    }

    /// What the API says about the probes of containers that run already is believed until they are asked
    /// again: a restart of the kubelet must not take pods out of service.
    fn adopt(&mut self) {
        for status in self.pod.told_statuses() {
            let running = self.observed.latest(&status.name).filter(|container| container.is_running());
            let Some(running) = running else { continue };
            let told = status.container_id.as_deref().and_then(|id| id.rsplit_once("//"));
            if told.is_some_and(|(_, id)| id == running.id) {
                self.memory.container(&status.name).probes = ProbeResults {
                    container_id: running.id.clone(),
                    liveness: None,
                    readiness: Some(status.ready),
                    // What has not come up yet is asked again.
                    startup: status.started.filter(|started| *started),
                };
            }
        }
    }

    /// Decides once whether the node takes the pod. One that has been running was taken before.
    fn admit(&mut self) {
        self.is_admitted = true;
        let is_new = self.pod.status().start_time.is_none() && self.observed.sandbox().is_none();
        if !is_new || self.is_gone || self.pod.is_being_deleted() {
            return;
        }
        let context = &self.context;
        let refusal = {
            let mut taken = context.taken.lock();
            let others = resize::pods_taken(&context.pods, self.pod.uid(), &taken);
            let pressure = *context.pressure.borrow();
            let node = admission::Node { facts: &context.node, pressure, others: &others };
            let refusal = admission::refusal(&self.pod, &node);
            if refusal.is_none() {
                taken.insert(self.pod.uid().to_string());
            }
            refusal
        };
        let Some(verdict) = refusal else { return };
        self.warn(&verdict.reason, &verdict.message);
        let message = format!("Pod was rejected: {}", verdict.message);
        self.memory.verdict = Some(Verdict { message, ..verdict });
    }

    /// One turn: plan, act, report. Returns when the next one is due at the latest.
    fn turn(&mut self, now: Timestamp) -> Timestamp {
        if goal(&self.situation(now)) != Goal::Run {
            self.memory.terminating_since.get_or_insert(now);
        }
        self.allocate(now);
        let mut wake = self.next_try.filter(|at| *at > now).unwrap_or(now + SAFETY_LOOK);
        for action in plan_pod(&self.situation(now)) {
            match action {
                PodAction::WakeAt(time) => wake = wake.min(time),
                action => self.act(action, now),
            }
        }
        if let Some(time) = self.refresh_volumes(now) {
            wake = wake.min(time);
        }
        self.keep_probing();
        if let Some(time) = self.tell_the_api(now) {
            wake = wake.min(time);
        }
        wake
    }

    fn situation(&self, now: Timestamp) -> Situation<'_> {
        Situation {
            pod: &self.pod,
            is_gone: self.is_gone,
            observed: &self.observed,
            memory: &self.memory,
            runtime: &self.context.node.runtime.name,
            now,
        }
    }

    fn pod_ips(&self) -> Vec<String> {
        if self.pod.is_host_network() {
            return vec![self.context.config.node_ip.to_string()];
        }
        self.observed.sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default()
    }

    fn hear(&mut self, signal: Signal) {
        match signal {
            Signal::Sources => self.volumes_stale = true,
            Signal::Probed { container, id, kind, succeeded } => {
                let probes = &mut self.memory.container(&container).probes;
                if probes.container_id != id {
                    *probes = ProbeResults { container_id: id, ..ProbeResults::default() };
                }
                match kind {
                    ProbeKind::Startup => probes.startup = Some(succeeded),
                    ProbeKind::Liveness => probes.liveness = Some(succeeded),
                    ProbeKind::Readiness => probes.readiness = Some(succeeded),
                }
            }
        }
    }

    /// What has come in meanwhile belongs to the same turn.
    fn hear_the_rest(&mut self) {
        let Desired { pod, is_gone, verdict } = self.desired.borrow_and_update().clone();
        self.is_gone |= is_gone;
        if self.memory.verdict.is_none() {
            self.memory.verdict = verdict;
        }
        self.take_newer(pod);
        while let Ok(signal) = self.signals.try_recv() {
            self.hear(signal);
        }
        while let Some(done) = self.tasks.try_join_next() {
            self.take_in(done);
        }
    }

    /// Watch events and answers to our own writes overtake each other.
    fn take_newer(&mut self, pod: Arc<Pod>) {
        if revision_of(&*pod) < revision_of(&*self.pod) {
            return;
        }
        let shown = |pod: &Pod| {
            let mounting = pod.ephemeral_containers().len();
            (pod.metadata.labels.clone(), pod.metadata.annotations.clone(), mounting)
        };
        self.volumes_stale |= shown(&pod) != shown(&self.pod);
        self.pod = pod;
    }
}

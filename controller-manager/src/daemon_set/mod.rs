//! Keeps one pod of each DaemonSet on every node where it belongs.
//!
//! [`plan`] decides, [`DaemonSets::reconcile`] carries out. Pods are pinned to their node by affinity and bound by
//! the scheduler. Templates are kept as ControllerRevisions, whose hash tells old pods from new ones.

mod plan;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use client::{
    Cache, Change, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, events::Recorder,
    message, turn,
};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus},
    core::v1::{Node, Pod},
};
use kube::ResourceExt;
use plan::{Observed, Plan};
use tokio::time::Instant;

use crate::{
    Context, ownership,
    pods::{self, PodExt},
    revisions::{self, Collision, HASH_LABEL, History},
};

/// A pod that ends at once is not replaced at once: after this long, then twice as long each time.
const FIRST_REPLACEMENT: Duration = Duration::from_secs(1);
const LONGEST_REPLACEMENT: Duration = Duration::from_secs(15 * 60);

/// Starts the controller.
pub fn start(context: &mut Context) {
    let (sets, pods) = (context.cache::<DaemonSet>(), context.cache::<Pod>());
    let (nodes, revisions) = (context.cache::<Node>(), context.cache::<ControllerRevision>());
    let controller = DaemonSets {
        sets: sets.clone(),
        pods: pods.clone(),
        nodes: nodes.clone(),
        revisions: revisions.clone(),
        writer: context.writer("daemon-set-controller"),
        events: context.recorder("daemon-set-controller", "daemonset-controller"),
        replacements: Mutex::default(),
    };
    let (adopters, all) = (sets.clone(), sets.clone());
    let runner = Runner::new("daemonset", controller)
        .concurrency(2)
        .watch(&sets)
        .watch_owned(&pods, "DaemonSet")
        .watch_owned(&revisions, "DaemonSet")
        .watch_map(&pods, move |change| {
            ownership::would_adopt(change, &adopters, |set: &DaemonSet| {
                ownership::selector(&set.spec.selector)
            })
        })
        .watch_map(&nodes, move |change| match is_placement(change) {
            true => all.list().iter().map(|set| ObjectKey::of(&**set)).collect(),
            false => Vec::new(),
        });
    context.run(runner);
}

/// Whether a node changed in a way that can make a difference to where pods belong.
fn is_placement(change: &Change<Node>) -> bool {
    let Change::Updated { old, new } = change else { return true };
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
    old.labels() != new.labels() || taints(old) != taints(new)
}

struct DaemonSets {
    sets: Arc<Cache<DaemonSet>>,
    pods: Arc<Cache<Pod>>,
    nodes: Arc<Cache<Node>>,
    revisions: Arc<Cache<ControllerRevision>>,
    writer: Writer,
    events: Recorder,
    /// How often a set's pods on a node have ended, and when the last one was replaced.
    replacements: Mutex<HashMap<(String, String), (u32, Instant)>>,
}

impl Reconcile for DaemonSets {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(set) = self.sets.get_key(key) else {
            self.replacements
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|(name, _), _| *name != key.to_string());
            return Ok(Next::OnChange);
        };
        let Some(selector) = ownership::selector(&set.spec.selector) else {
            let text = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.events.warning(&*set, "SelectingAll", text);
            return Ok(Next::OnChange);
        };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Next::OnChange);
        }
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let history =
            revisions::sync(&self.writer, &self.revisions, &*set, &set.spec.template, collisions).await?;
        let history = match history {
            Ok(history) => history,
            Err(Collision) => return self.count_collision(&set).await,
        };
        let pods = ownership::claimed(&self.writer, &*set, &selector, &self.pods).await?;
        let nodes = self.nodes.list();
        let now = Timestamp::now();
        let observed = Observed { set: &set, hash: history.current_hash(), nodes: &nodes, pods: &pods, now };
        let status = observed.status();
        turn::describe(
            format!("{} nodes", status.desired_number_scheduled),
            format!("{} scheduled, {} ready", status.current_number_scheduled, status.number_ready),
        );
        let mut plan = observed.plan();
        let wait = self.hold_back(key, &mut plan);
        let done = self.carry_out(&set, plan, history.current_hash()).await;
        if set.status.as_ref() != Some(&status) {
            let updated = DaemonSet { status: Some(status), ..(*set).clone() };
            self.writer.replace_status(&updated).await.or_not_found().map(drop).or_conflict()?;
        }
        done?;
        self.prune(&set, &history, &pods).await?;
        let ready = pods::next_available(&pods, pods::seconds(set.spec.min_ready_seconds), now);
        let next = [ready, wait].into_iter().flatten().min();
        Ok(next.map_or(Next::OnChange, Next::After))
    }
}

impl DaemonSets {
    async fn carry_out(&self, set: &DaemonSet, plan: Plan, hash: &str) -> Result<(), ClientError> {
        let deletions = plan.delete.iter().chain(&plan.replace).map(|pod| self.delete(set, pod));
        let creations = plan.create.iter().map(|node| self.create(set, node, hash));
        let (deleted, created) = futures::join!(join_all(deletions), join_all(creations));
        deleted.into_iter().chain(created).collect()
    }

    async fn create(&self, set: &DaemonSet, node: &str, hash: &str) -> Result<(), ClientError> {
        let namespace = set.namespace().unwrap_or_default();
        let mut pod = pods::from_template(&set.spec.template, &namespace, ownership::owner_reference(set));
        pod.labels_mut().insert(HASH_LABEL.into(), hash.into());
        let generation = set.metadata.generation.unwrap_or(1).to_string();
        pod.labels_mut().insert("pod-template-generation".into(), generation);
        plan::pin(pod.spec.get_or_insert_default(), node);
        match self.writer.create(&pod).await {
            Ok(created) => {
                self.events.normal(set, "SuccessfulCreate", format!("Created pod: {}", created.name_any()));
                Ok(())
            }
            Err(error) => {
                self.events.warning(set, "FailedCreate", format!("Error creating: {}", message(&error)));
                Err(error)
            }
        }
    }

    async fn delete(&self, set: &DaemonSet, pod: &Pod) -> Result<(), ClientError> {
        if pod.is_finished() {
            let (reason, state) = match pod.phase() {
                "Failed" => ("FailedDaemonPod", "failed"),
                _ => ("SucceededDaemonPod", "succeeded"),
            };
            let text = format!(
                "Found {state} daemon pod {} on node {}, will try to {} it",
                ObjectKey::of(pod),
                pod.node(),
                if state == "failed" { "kill" } else { "delete" }
            );
            match state {
                "failed" => self.events.warning(set, reason, text),
                _ => self.events.normal(set, reason, text),
            }
        }
        match self.writer.delete(pod).await {
            Ok(()) => {
                self.events.normal(set, "SuccessfulDelete", format!("Deleted pod: {}", pod.name_any()));
                Ok(())
            }
            Err(error) => {
                self.events.warning(set, "FailedDelete", format!("Error deleting: {}", message(&error)));
                Err(error)
            }
        }
    }

    /// Takes those pods out of the plan that have ended too soon after the last time; returns when to look again.
    fn hold_back(&self, key: &ObjectKey, plan: &mut Plan) -> Option<Duration> {
        let mut replacements = self.replacements.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wait: Option<Duration> = None;
        plan.replace.retain(|pod| {
            let place = (key.to_string(), pod.node().to_string());
            let (times, last) = replacements.get(&place).copied().unwrap_or((0, Instant::now()));
            let pause = match times {
                0 => Duration::ZERO,
                times => {
                    FIRST_REPLACEMENT.saturating_mul(2u32.saturating_pow(times - 1)).min(LONGEST_REPLACEMENT)
                }
            };
            let quiet_for = last.elapsed();
            if quiet_for < pause {
                let left = pause - quiet_for;
                wait = Some(wait.map_or(left, |wait| wait.min(left)));
                return false;
            }
            // A place that was quiet for twice the longest pause starts anew, as upstream's back-off does.
            let times = if quiet_for > 2 * LONGEST_REPLACEMENT { 1 } else { times + 1 };
            replacements.insert(place, (times, Instant::now()));
            true
        });
        wait
    }

    async fn prune(&self, set: &DaemonSet, history: &History, pods: &[Arc<Pod>]) -> Result<(), ClientError> {
        let used: BTreeSet<&str> = pods.iter().map(|pod| pod.label(HASH_LABEL)).collect();
        let limit = set.spec.revision_history_limit;
        for revision in revisions::surplus(&history.earlier, limit, |hash| used.contains(hash)) {
            self.writer.delete(&*revision).await?;
        }
        Ok(())
    }

    async fn count_collision(&self, set: &DaemonSet) -> Result<Next, ClientError> {
        let mut status: DaemonSetStatus = set.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
        let updated = DaemonSet { status: Some(status), ..set.clone() };
        self.writer.replace_status(&updated).await.or_not_found().map(drop).or_conflict()?;
        Ok(Next::OnChange)
    }
}

//! Decides what has to be done for one pod.
//!
//! [`plan_pod`] compares what the API asks for with what the runtime has and says which steps can be taken
//! now. It remembers nothing and reads no clock: the worker calls it after every event, carries the steps
//! out beside each other and reports back through its [`Memory`]. A lost event costs one more turn.

mod init;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::memory::{ContainerOperation, Memory, Volumes};
use super::observed::{ContainerState, KEPT, Observed, ObservedContainer};
use super::resize::{self, Change};
use super::view::{
    PodView, RestartPolicy, container_restart_policy, grace_of, init_restart_policy, is_sidecar, plain,
};
use crate::container::hash::container_hash;

/// Upstream never gives a container less than this to end, unless it was told to kill at once.
const SHORTEST_GRACE: Duration = Duration::from_secs(2);
/// How long a container may be away while another takes its place, before anybody is told.
const REPLACEMENT: Duration = Duration::from_secs(1);

/// Everything that a decision depends on.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// The pod as the API last told us.
    pub pod: &'a Pod,
    /// Whether the API no longer has it.
    pub is_gone: bool,
    /// What the runtime has of it.
    pub observed: &'a Observed,
    /// What the worker remembers.
    pub memory: &'a Memory,
    /// The scheme of container ids: who runs the containers.
    pub runtime: &'a str,
    /// The time.
    pub now: Timestamp,
}

/// One step for a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum PodAction {
    /// Make the pod's directories and volumes.
    PrepareVolumes,
    /// Make a sandbox; `attempt` counts the pod's sandboxes from 0.
    CreateSandbox {
        /// Which sandbox of the pod this is.
        attempt: u32,
    },
    /// Stop a sandbox and give its address back. Its dead containers stay.
    StopSandbox {
        /// The runtime's name for it.
        id: String,
    },
    /// Remove a stopped sandbox and its containers.
    RemoveSandbox {
        /// The runtime's name for it.
        id: String,
    },
    /// Pull the image if need be, make and start the container.
    StartContainer {
        /// Its name in the pod.
        name: String,
        /// How many containers of this name came before it.
        attempt: u32,
    },
    /// Give up starting a container, as the pod is to end.
    CancelStart {
        /// Its name in the pod.
        name: String,
    },
    /// Run the preStop hook, signal the container, kill it after the grace period.
    StopContainer {
        /// The runtime's name for it.
        id: String,
        /// Its name in the pod.
        name: String,
        /// The time it gets.
        grace: Duration,
        /// Why, in the words of the event.
        reason: StopReason,
    },
    /// Give a running container what the node has allocated to it.
    ResizeContainer {
        /// The runtime's name for it.
        id: String,
        /// Its name in the pod.
        name: String,
    },
    /// Remove a dead container that is no longer worth keeping.
    RemoveContainer {
        /// The runtime's name for it.
        id: String,
    },
    /// Unmount and remove the pod's volumes.
    RemoveVolumes,
    /// Delete the pod from the API for good, once its final status is there.
    DeletePod,
    /// Nothing is left of the pod on this node.
    Forget,
    /// Plan again at this time.
    WakeAt(Timestamp),
}

/// Why a container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The pod is to end.
    PodEnds,
    /// The liveness probe failed.
    Liveness,
    /// The startup probe failed.
    Startup,
    /// The container's spec has changed.
    Changed,
    /// The sandbox around it is dead.
    SandboxChanged,
    /// What it is to have can only be given at a start.
    Resized,
}

impl StopReason {
    /// The message of the `Killing` event.
    pub fn message(self, container: &str) -> String {
        match self {
            StopReason::PodEnds | StopReason::SandboxChanged => format!("Stopping container {container}"),
            StopReason::Liveness => format!("Container {container} failed liveness probe, will be restarted"),
            StopReason::Startup => format!("Container {container} failed startup probe, will be restarted"),
            StopReason::Resized => format!("Container {container} resize requires restart"),
            StopReason::Changed => format!("Container {container} definition changed, will be restarted"),
        }
    }
}

/// What the pod's worker is to bring about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The containers run.
    Run,
    /// Everything is stopped, what there is to read about it stays.
    Finish,
    /// Everything is stopped and the API object deleted.
    Delete,
    /// Nothing is left, as the API object is gone.
    Forget,
}

/// What the situation asks for.
pub fn goal(situation: &Situation<'_>) -> Goal {
    let pod = situation.pod;
    if situation.is_gone {
        Goal::Forget
    } else if pod.is_being_deleted() {
        Goal::Delete
    } else if pod.is_finished()
        || situation.memory.verdict.is_some()
        || deadline(pod).is_some_and(|deadline| deadline <= situation.now)
        || has_run_to_its_end(pod, situation.observed)
    {
        Goal::Finish
    } else {
        Goal::Run
    }
}

/// Until when the status waits for the successor of a container whose spec has changed. To replace it is one step:
/// as with upstream, a pod without probes goes from ready to ready, and no Service loses an endpoint over it.
pub fn replaced_until(situation: &Situation<'_>) -> Option<Timestamp> {
    if goal(situation) != Goal::Run {
        return None;
    }
    let ends = situation.pod.all_containers().filter_map(|container| {
        let active = situation.observed.active(&container.name)?;
        match active.state {
            ContainerState::Exited { finished_at, .. } if has_changed(&container, active) => {
                Some(finished_at + REPLACEMENT)
            }
            _ => None,
        }
    });
    ends.min().filter(|end| *end > situation.now)
}

/// The steps that can be taken now.
pub fn plan_pod(situation: &Situation<'_>) -> Vec<PodAction> {
    match goal(situation) {
        Goal::Run => plan_running(situation),
        goal => plan_ending(situation, goal),
    }
}

/// When `activeDeadlineSeconds` is over.
pub fn deadline(pod: &Pod) -> Option<Timestamp> {
    let seconds = u64::try_from(pod.spec().active_deadline_seconds?).ok()?;
    Some(pod.status().start_time.as_ref()?.0 + Duration::from_secs(seconds))
}

/// Whether all containers have ended and none will be started again.
pub fn has_run_to_its_end(pod: &Pod, observed: &Observed) -> bool {
    let failed_init =
        pod.init_containers().iter().filter(|container| !is_sidecar(container)).any(|container| {
            let code = observed.latest(&container.name).and_then(ObservedContainer::exit_code);
            code.is_some_and(|code| code != 0 && !init_restart_policy(pod, container).restarts(code))
        });
    let containers = &pod.spec().containers;
    failed_init
        || !containers.is_empty()
            && containers.iter().all(|container| {
                let code = observed.latest(&container.name).and_then(ObservedContainer::exit_code);
                code.is_some_and(|code| !container_restart_policy(pod, container).restarts(code))
            })
}

fn plan_running(situation: &Situation<'_>) -> Vec<PodAction> {
    let mut actions = plan_volumes(situation);
    if let Some(deadline) = deadline(situation.pod) {
        actions.push(PodAction::WakeAt(deadline));
    }
    match situation.observed.sandbox() {
        Some(sandbox) if sandbox.ready => {
            actions.extend(plan_old_sandboxes(situation));
            actions.extend(plan_garbage(situation));
            if situation.memory.volumes == Volumes::Ready {
                actions.extend(plan_ephemeral(situation));
                actions.extend(plan_containers(situation));
            }
        }
        _ => actions.extend(plan_sandbox(situation)),
    }
    actions
}

fn plan_volumes(situation: &Situation<'_>) -> Vec<PodAction> {
    match situation.memory.volumes {
        Volumes::Unknown => vec![PodAction::PrepareVolumes],
        Volumes::Failed { retry_at } if retry_at <= situation.now => vec![PodAction::PrepareVolumes],
        Volumes::Failed { retry_at } => vec![PodAction::WakeAt(retry_at)],
        Volumes::Preparing | Volumes::Ready => Vec::new(),
        Volumes::Removing | Volumes::RemovalFailed { .. } | Volumes::Removed => Vec::new(),
    }
}

/// What leads to a living sandbox: whatever runs in the dead one ends first, then a new one is made.
fn plan_sandbox(situation: &Situation<'_>) -> Vec<PodAction> {
    let Situation { pod, observed, memory, now, .. } = *situation;
    let running: Vec<_> = observed.containers.iter().filter(|container| container.is_running()).collect();
    if !running.is_empty() {
        let idle = running.into_iter().filter(|container| memory.operation(&container.name).is_none());
        let stop = |container: &ObservedContainer| stop_container(pod, container, StopReason::SandboxChanged);
        return idle.map(stop).collect();
    }
    let can_start =
        !memory.is_sandbox_busy && !memory.containers.values().any(|container| container.operation.is_some());
    if !can_start {
        return Vec::new();
    }
    match memory.sandbox_retry.at {
        Some(retry_at) if retry_at > now => vec![PodAction::WakeAt(retry_at)],
        _ => {
            let attempt = observed.sandbox().map_or(0, |sandbox| sandbox.attempt + 1);
            vec![PodAction::CreateSandbox { attempt }]
        }
    }
}

/// Sandboxes that a newer one has replaced.
fn plan_old_sandboxes(situation: &Situation<'_>) -> Vec<PodAction> {
    let must_wait = situation.memory.sandbox_retry.at.is_some_and(|retry_at| retry_at > situation.now);
    if situation.memory.is_sandbox_busy || must_wait {
        return Vec::new();
    }
    let replaced = situation.observed.sandboxes.iter().skip(1);
    // One that still holds the last run of a container is kept for its logs.
    let unread = |id: &str| {
        let held = situation.observed.containers.iter().filter(|container| container.sandbox_id == id);
        held.into_iter().any(|container| is_kept(situation.observed, container))
    };
    replaced
        .filter_map(|sandbox| match sandbox.ready {
            true => Some(PodAction::StopSandbox { id: sandbox.id.clone() }),
            false if !unread(&sandbox.id) => Some(PodAction::RemoveSandbox { id: sandbox.id.clone() }),
            false => None,
        })
        .take(1)
        .collect()
}

/// Dead containers that nobody will ask for again: all but the newest of a name.
fn plan_garbage(situation: &Situation<'_>) -> Vec<PodAction> {
    let Situation { observed, memory, .. } = *situation;
    let idle = observed.containers.iter().filter(|container| !container.is_running());
    idle.filter(|container| memory.operation(&container.name).is_none() && !is_kept(observed, container))
        .map(|container| PodAction::RemoveContainer { id: container.id.clone() })
        .collect()
}

fn is_kept(observed: &Observed, container: &ObservedContainer) -> bool {
    let named = observed.containers.iter().filter(|other| other.name == container.name);
    named.take(KEPT).any(|kept| kept.id == container.id)
}

/// The containers in a living sandbox: sidecars and init containers in order, then the others in order.
fn plan_containers(situation: &Situation<'_>) -> Vec<PodAction> {
    let pod = situation.pod;
    let (mut actions, is_initialized) = init::plan(situation);
    if !is_initialized {
        return actions;
    }
    let mut is_starting = is_any_starting(situation, &pod.spec().containers);
    for container in &pod.spec().containers {
        let policy = container_restart_policy(pod, container);
        let step = plan_container(situation, container, policy, &mut is_starting);
        actions.extend(step);
    }
    actions
}

/// Ephemeral containers start whenever there is a sandbox, each once.
fn plan_ephemeral(situation: &Situation<'_>) -> Vec<PodAction> {
    let Situation { pod, observed, memory, .. } = *situation;
    let new = pod.ephemeral_containers().iter().filter(|container| {
        memory.operation(&container.name).is_none() && observed.latest(&container.name).is_none()
    });
    new.filter_map(|container| start(situation, &plain(container), &mut false)).collect()
}

fn is_any_starting(situation: &Situation<'_>, containers: &[Container]) -> bool {
    containers
        .iter()
        .any(|container| situation.memory.operation(&container.name) == Some(ContainerOperation::Starting))
}

/// What one container needs. Starts are taken one after the other, so that containers start in order.
fn plan_container(
    situation: &Situation<'_>,
    container: &Container,
    policy: RestartPolicy,
    is_starting: &mut bool,
) -> Option<PodAction> {
    let Situation { pod, observed, memory, .. } = *situation;
    if memory.operation(&container.name).is_some() {
        return None;
    }
    let Some(active) = observed.active(&container.name) else {
        return match observed.latest(&container.name).and_then(ObservedContainer::exit_code) {
            // It ended in an earlier sandbox.
            Some(code) if !policy.restarts(code) => None,
            _ => start(situation, container, is_starting),
        };
    };
    match &active.state {
        ContainerState::Running { .. } => match reason_to_restart(situation, container, active) {
            Some(reason) => Some(stop_container(pod, active, reason)),
            None => plan_resize(situation, container, active),
        },
        // Left behind between its making and its start.
        ContainerState::Created | ContainerState::Unknown => start(situation, container, is_starting),
        ContainerState::Exited { code, finished_at, .. } if policy.restarts(*code) => {
            restart(situation, container, *finished_at, is_starting)
        }
        ContainerState::Exited { .. } => None,
    }
}

fn plan_resize(
    situation: &Situation<'_>,
    container: &Container,
    active: &ObservedContainer,
) -> Option<PodAction> {
    let failure =
        situation.memory.containers.get(&active.name).and_then(|memory| memory.resize_failure.as_ref());
    match resize::change(situation, container, active)? {
        Change::Restart => Some(stop_container(situation.pod, active, StopReason::Resized)),
        Change::InPlace => Some(match failure.filter(|(_, retry_at)| *retry_at > situation.now) {
            Some((_, retry_at)) => PodAction::WakeAt(*retry_at),
            None => PodAction::ResizeContainer { id: active.id.clone(), name: active.name.clone() },
        }),
    }
}

fn has_changed(container: &Container, active: &ObservedContainer) -> bool {
    !active.hash.is_empty() && active.hash != container_hash(container)
}

fn reason_to_restart(
    situation: &Situation<'_>,
    container: &Container,
    active: &ObservedContainer,
) -> Option<StopReason> {
    let probes = situation.memory.probes(&container.name, &active.id);
    if has_changed(container, active) {
        Some(StopReason::Changed)
    } else if probes.is_some_and(|probes| probes.startup == Some(false)) {
        Some(StopReason::Startup)
    } else if probes.is_some_and(|probes| probes.liveness == Some(false)) {
        Some(StopReason::Liveness)
    } else {
        None
    }
}

fn restart(
    situation: &Situation<'_>,
    container: &Container,
    finished_at: Timestamp,
    is_starting: &mut bool,
) -> Option<PodAction> {
    match crash_back_off(situation.memory, &container.name, finished_at, situation.now) {
        Some((until, _)) => Some(PodAction::WakeAt(until)),
        None => start(situation, container, is_starting),
    }
}

/// Until when a container that ended at `finished_at` is left alone, and the delay that this is.
pub fn crash_back_off(
    memory: &Memory,
    name: &str,
    finished_at: Timestamp,
    now: Timestamp,
) -> Option<(Timestamp, Duration)> {
    let crashes = &memory.containers.get(name)?.crashes;
    crashes.until(finished_at, now).map(|until| (until, crashes.delay()))
}

fn start(situation: &Situation<'_>, container: &Container, is_starting: &mut bool) -> Option<PodAction> {
    let failure =
        situation.memory.containers.get(&container.name).and_then(|memory| memory.start_failure.as_ref());
    if let Some(failure) = failure.filter(|failure| failure.retry_at > situation.now) {
        return Some(PodAction::WakeAt(failure.retry_at));
    }
    if std::mem::replace(is_starting, true) {
        return None;
    }
    let attempt = situation.observed.latest(&container.name).map_or(0, |latest| latest.attempt + 1);
    Some(PodAction::StartContainer { name: container.name.clone(), attempt })
}

/// Stops one container of a pod that goes on.
fn stop_container(pod: &Pod, container: &ObservedContainer, reason: StopReason) -> PodAction {
    let spec = pod.container(&container.name);
    let probe = spec.as_ref().and_then(|spec| match reason {
        StopReason::Liveness => spec.liveness_probe.as_ref(),
        StopReason::Startup => spec.startup_probe.as_ref(),
        _ => None,
    });
    let own = probe.and_then(|probe| probe.termination_grace_period_seconds);
    let grace = own.filter(|seconds| *seconds >= 0).map_or_else(|| pod.grace_period(), grace_of);
    PodAction::StopContainer { id: container.id.clone(), name: container.name.clone(), grace, reason }
}

/// Everything stops: containers, then sidecars in reverse order, then the sandbox, then what is on disk.
fn plan_ending(situation: &Situation<'_>, goal: Goal) -> Vec<PodAction> {
    let Situation { pod, observed, memory, now, .. } = *situation;
    let starting = memory
        .containers
        .iter()
        .filter(|(_, container)| container.operation == Some(ContainerOperation::Starting));
    let cancelled: Vec<_> = starting.map(|(name, _)| PodAction::CancelStart { name: name.clone() }).collect();
    if !cancelled.is_empty() {
        return cancelled;
    }

    let deadline = memory.terminating_since.unwrap_or(now) + grace_of_end(situation);
    let to_stop = next_to_stop(pod, observed);
    if !to_stop.is_empty() {
        return to_stop.into_iter().filter_map(|container| stop_by(situation, container, deadline)).collect();
    }
    if memory.is_busy() {
        return Vec::new();
    }
    if let Some(retry_at) = memory.sandbox_retry.at.filter(|retry_at| *retry_at > now) {
        return vec![PodAction::WakeAt(retry_at)];
    }
    if let Some(sandbox) = observed.sandboxes.iter().find(|sandbox| sandbox.ready) {
        return vec![PodAction::StopSandbox { id: sandbox.id.clone() }];
    }
    match memory.volumes {
        Volumes::Removed => {}
        Volumes::RemovalFailed { retry_at } if retry_at > now => return vec![PodAction::WakeAt(retry_at)],
        _ => return vec![PodAction::RemoveVolumes],
    }
    match goal {
        Goal::Run | Goal::Finish => Vec::new(),
        Goal::Delete => vec![PodAction::DeletePod],
        Goal::Forget => match observed.sandboxes.last() {
            Some(sandbox) => vec![PodAction::RemoveSandbox { id: sandbox.id.clone() }],
            None => vec![PodAction::Forget],
        },
    }
}

/// The time that a pod gets to end: its own, or less where the node cannot wait.
fn grace_of_end(situation: &Situation<'_>) -> Duration {
    let own = situation.pod.grace_period();
    situation.memory.verdict.as_ref().map_or(own, |verdict| verdict.grace.min(own))
}

/// All that is no sidecar at once; when that has ended, the last sidecar.
fn next_to_stop<'a>(pod: &Pod, observed: &'a Observed) -> Vec<&'a ObservedContainer> {
    let sidecars: Vec<&str> = pod
        .init_containers()
        .iter()
        .filter(|container| is_sidecar(container))
        .map(|container| container.name.as_str())
        .collect();
    let place = |container: &ObservedContainer| sidecars.iter().position(|name| *name == container.name);
    let (mut beside, others): (Vec<_>, Vec<_>) = observed
        .containers
        .iter()
        .filter(|container| container.is_running())
        .partition(|c| place(c).is_some());
    if others.is_empty() {
        beside.sort_by_key(|container| place(container));
        beside.pop().into_iter().collect()
    } else {
        others
    }
}

/// Stops a container unless that is under way already and could not be done much sooner.
fn stop_by(
    situation: &Situation<'_>,
    container: &ObservedContainer,
    deadline: Timestamp,
) -> Option<PodAction> {
    let left = Duration::try_from(deadline.duration_since(situation.now)).unwrap_or_default();
    let grace = left.max(SHORTEST_GRACE.min(grace_of_end(situation)));
    if let Some(ContainerOperation::Stopping { deadline: before }) =
        situation.memory.operation(&container.name)
        && before <= situation.now + grace + Duration::from_secs(1)
    {
        return None;
    }
    Some(PodAction::StopContainer {
        id: container.id.clone(),
        name: container.name.clone(),
        grace,
        reason: StopReason::PodEnds,
    })
}

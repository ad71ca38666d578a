//! The status of each container.

use cri::v1::LinuxContainerUser;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    self, Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ContainerUser, ResourceRequirements, VolumeMount,
    VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::whole_seconds;
use crate::image::is_pull_failure;
use crate::pod::backoff::go_duration;
use crate::pod::memory::{ContainerOperation, StartFailure};
use crate::pod::observed::{ContainerState, ObservedContainer};
use crate::pod::plan::{Goal, Situation, crash_back_off, goal};
use crate::pod::resize;
use crate::pod::view::{
    PodView, RestartPolicy, container_restart_policy, init_restart_policy, is_sidecar, plain,
};

/// One status for each of `spec.initContainers`, in their order.
pub(super) fn init_container_statuses(situation: &Situation<'_>) -> Vec<ContainerStatus> {
    let containers = situation.pod.init_containers().iter();
    containers.map(|container| init_container_status(situation, container)).collect()
}

/// One status for each of `spec.containers`, in their order.
pub(super) fn container_statuses(situation: &Situation<'_>) -> Vec<ContainerStatus> {
    let pod = situation.pod;
    let containers = pod.spec().containers.iter();
    containers
        .map(|container| {
            let policy = container_restart_policy(pod, container);
            let mut status = container_status(situation, container, policy);
            serve(situation, container, &mut status);
            status
        })
        .collect()
}

/// One status for each of `spec.ephemeralContainers`, in their order. They never count as ready.
pub(super) fn ephemeral_container_statuses(situation: &Situation<'_>) -> Vec<ContainerStatus> {
    let containers = situation.pod.ephemeral_containers().iter().map(plain);
    containers.map(|container| container_status(situation, &container, RestartPolicy::Never)).collect()
}

fn init_container_status(situation: &Situation<'_>, container: &Container) -> ContainerStatus {
    if is_sidecar(container) {
        let mut status = container_status(situation, container, RestartPolicy::Always);
        serve(situation, container, &mut status);
        return status;
    }
    let policy = init_restart_policy(situation.pod, container);
    let mut status = container_status(situation, container, policy);
    let state = status.state.as_ref();
    let code = state.and_then(|state| state.terminated.as_ref()).map(|terminated| terminated.exit_code);
    status.ready = code == Some(0);
    status.started = Some(state.is_some_and(|state| state.running.is_some()));
    status
}

/// Whether the container is up and can serve, as its probes say.
fn serve(situation: &Situation<'_>, container: &Container, status: &mut ContainerStatus) {
    let active = situation.observed.latest(&container.name).filter(|active| active.is_running());
    let Some(active) = active else {
        status.started = Some(false);
        return;
    };
    let probes = situation.memory.probes(&container.name, &active.id);
    let started =
        container.startup_probe.is_none() || probes.is_some_and(|probes| probes.startup == Some(true));
    let ready =
        container.readiness_probe.is_none() || probes.is_some_and(|probes| probes.readiness == Some(true));
    status.started = Some(started);
    status.ready = started && ready;
}

fn container_status(
    situation: &Situation<'_>,
    container: &Container,
    policy: RestartPolicy,
) -> ContainerStatus {
    let name = &container.name;
    let latest = situation.observed.latest(name);
    let mut status = match latest {
        Some(latest) => observed_status(latest, container, situation.runtime),
        None => unobserved_status(situation, container),
    };
    if let Some(allocated) = situation.memory.allocated.get(name) {
        status.allocated_resources = allocated.requests.clone();
        let applied =
            latest.and_then(|latest| resize::applied(situation.memory, latest)).unwrap_or(allocated);
        status.resources =
            Some(applied.clone()).filter(|resources| *resources != ResourceRequirements::default());
    }
    status.last_state = match situation.observed.previous(name) {
        Some(previous) => Some(api_state(previous, situation.runtime)),
        None => status.last_state.or(Some(ApiState::default())),
    };
    match waiting(situation, container, latest, policy) {
        Some(waiting) => {
            if let Some(ended) = status.state.take().filter(|state| state.terminated.is_some()) {
                status.last_state = Some(ended);
            }
            status.state = Some(ApiState { waiting: Some(waiting), ..ApiState::default() });
        }
        None if status.state.is_none() => {
            status.state = Some(ApiState { waiting: Some(not_yet(situation)), ..ApiState::default() });
        }
        None => {}
    }
    status
}

fn observed_status(latest: &ObservedContainer, container: &Container, runtime: &str) -> ContainerStatus {
    ContainerStatus {
        name: latest.name.clone(),
        image: latest.image.clone(),
        image_id: latest.image_id.clone(),
        container_id: Some(container_id(latest, runtime)),
        restart_count: i32::try_from(latest.attempt).unwrap_or(i32::MAX),
        state: match latest.state {
            ContainerState::Created | ContainerState::Unknown => None,
            _ => Some(api_state(latest, runtime)),
        },
        user: latest.details.user.as_ref().map(api_user),
        stop_signal: latest.details.stop_signal.clone(),
        volume_mounts: volume_mounts(latest, container),
        ..ContainerStatus::default()
    }
}

fn api_user(user: &LinuxContainerUser) -> ContainerUser {
    let supplemental_groups = Some(user.supplemental_groups.clone()).filter(|groups| !groups.is_empty());
    let linux = v1::LinuxContainerUser { uid: user.uid, gid: user.gid, supplemental_groups };
    ContainerUser { linux: Some(linux) }
}

/// What became of the mounts: whether read-only ones are so to their last leaf is up to the runtime.
fn volume_mounts(latest: &ObservedContainer, container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let status = |mount: &VolumeMount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only,
        recursive_read_only: (mount.read_only == Some(true)).then(|| {
            let is_recursive = latest.details.recursive_read_only.contains(&mount.mount_path);
            if is_recursive { "Enabled" } else { "Disabled" }.to_string()
        }),
        volume_status: None,
    };
    container.volume_mounts.as_ref().map(|mounts| mounts.iter().map(status).collect())
}

/// The runtime has no such container: it is yet to come, or what was said of it is the last that is known.
fn unobserved_status(situation: &Situation<'_>, container: &Container) -> ContainerStatus {
    let before = situation.pod.told(&container.name);
    if let Some(before) = before.filter(|_| goal(situation) != Goal::Run) {
        let mut status = before.clone();
        status.ready = false;
        if let Some(running) = status.state.as_ref().and_then(|state| state.running.clone()) {
            status.state = Some(ApiState { terminated: Some(lost(&status, running)), ..ApiState::default() });
        }
        return status;
    }
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        restart_count: before.map_or(0, |before| before.restart_count),
        ..ContainerStatus::default()
    }
}

fn lost(status: &ContainerStatus, running: ContainerStateRunning) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".into()),
        message: Some("The container could not be located when the pod was terminated".into()),
        container_id: status.container_id.clone(),
        started_at: running.started_at,
        ..ContainerStateTerminated::default()
    }
}

/// What the container waits for, when it does: after failures, upstream's reasons.
fn waiting(
    situation: &Situation<'_>,
    container: &Container,
    latest: Option<&ObservedContainer>,
    policy: RestartPolicy,
) -> Option<ContainerStateWaiting> {
    let Situation { pod, memory, now, .. } = *situation;
    let remembered = memory.containers.get(&container.name);
    if latest.is_some_and(ObservedContainer::is_running) || goal(situation) != Goal::Run {
        return None;
    }
    if let Some(failure) = remembered.and_then(|memory| memory.start_failure.as_ref()) {
        return Some(waiting_after(situation, container, failure));
    }
    let latest = latest?;
    let ContainerState::Exited { code, finished_at, .. } = latest.state else { return None };
    if !policy.restarts(code) {
        return None;
    }
    let starting = remembered.and_then(|memory| memory.operation) == Some(ContainerOperation::Starting);
    let (_, delay) = crash_back_off(memory, &container.name, finished_at, now).filter(|_| !starting)?;
    let message = format!(
        "back-off {} restarting failed container={} pod={}_{}({})",
        go_duration(delay),
        container.name,
        pod.name(),
        pod.namespace(),
        pod.uid()
    );
    Some(waiting_for("CrashLoopBackOff", Some(message)))
}

/// A failed pull is told as such once; from then on the container backs off.
fn waiting_after(
    situation: &Situation<'_>,
    container: &Container,
    failure: &StartFailure,
) -> ContainerStateWaiting {
    let StartFailure { reason, message, .. } = failure;
    let before = situation.pod.told(&container.name);
    let told = before.and_then(|before| before.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    let was_told = told.is_some_and(|told| is_pull_failure(told) || told == "ImagePullBackOff");
    if !is_pull_failure(reason) || !was_told {
        return waiting_for(reason, Some(message.clone()));
    }
    let image = container.image.as_deref().unwrap_or_default();
    let message = format!("Back-off pulling image \"{image}\": {reason}: {message}");
    waiting_for("ImagePullBackOff", Some(message))
}

/// Where nothing has gone wrong: the container's turn has not come.
fn not_yet(situation: &Situation<'_>) -> ContainerStateWaiting {
    let has_init = !situation.pod.init_containers().is_empty();
    waiting_for(if has_init { "PodInitializing" } else { "ContainerCreating" }, None)
}

fn waiting_for(reason: &str, message: Option<String>) -> ContainerStateWaiting {
    ContainerStateWaiting { reason: Some(reason.to_string()), message }
}

/// How container ids are written in the API: the runtime's name, then its id.
fn container_id(container: &ObservedContainer, runtime: &str) -> String {
    format!("{runtime}://{}", container.id)
}

fn api_state(container: &ObservedContainer, runtime: &str) -> ApiState {
    match &container.state {
        ContainerState::Created | ContainerState::Unknown => ApiState::default(),
        ContainerState::Running { started_at } => ApiState {
            running: Some(ContainerStateRunning { started_at: Some(Time(whole_seconds(*started_at))) }),
            ..ApiState::default()
        },
        ContainerState::Exited { started_at, finished_at, code, reason, message } => ApiState {
            terminated: Some(ContainerStateTerminated {
                exit_code: *code,
                reason: Some(reason.clone()).filter(|reason| !reason.is_empty()),
                message: Some(message.clone()).filter(|message| !message.is_empty()),
                started_at: Some(Time(whole_seconds(*started_at))),
                // Of a container that was lost nobody knows when it ended.
                finished_at: Some(Time(whole_seconds(*finished_at)))
                    .filter(|time| time.0 > Timestamp::UNIX_EPOCH),
                container_id: Some(container_id(container, runtime)),
                ..ContainerStateTerminated::default()
            }),
            ..ApiState::default()
        },
    }
}

//! What the API is told about a pod: a plain function of what the runtime has and the worker remembers.

mod conditions;
mod containers;
pub mod patch;
#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{Situation, deadline};
use super::view::{PodView, RestartPolicy, container_restart_policy, init_restart_policy, is_sidecar};
use crate::container::qos::qos_class;

const DEADLINE_MESSAGE: &str = "Pod was active on the node longer than the specified deadline";

/// The status of a pod. What others have written into it (conditions above all) is kept.
pub fn pod_status(situation: &Situation<'_>, host_ip: &str) -> PodStatus {
    let pod = situation.pod;
    let before = pod.status();
    let init_statuses = containers::init_container_statuses(situation);
    let statuses = containers::container_statuses(situation);
    let (phase, reason, message) = phase(situation, &init_statuses, &statuses);

    let mut status = before.clone();
    status.conditions = Some(conditions::conditions(situation, phase, &init_statuses, &statuses));
    status.phase = Some(phase.to_string());
    status.reason = reason;
    status.message = message;
    status.observed_generation = pod.metadata.generation;
    status.host_ip = Some(host_ip.to_string());
    status.host_ips = Some(vec![HostIP { ip: host_ip.to_string() }]);
    status.start_time = before.start_time.clone().or(Some(Time(whole_seconds(situation.memory.first_seen))));
    status.qos_class = before.qos_class.clone().or_else(|| Some(qos_class(pod.spec()).as_str().to_string()));
    status.container_statuses = Some(statuses);
    if !init_statuses.is_empty() {
        status.init_container_statuses = Some(init_statuses);
    }
    if !pod.ephemeral_containers().is_empty() {
        status.ephemeral_container_statuses = Some(containers::ephemeral_container_statuses(situation));
    }
    if let Some(ips) = addresses(situation, host_ip) {
        status.pod_ip = ips.first().cloned();
        status.pod_ips = Some(ips.into_iter().map(|ip| PodIP { ip }).collect());
    }
    status
}

/// The pod's addresses once its sandbox runs; `None` leaves what was said before.
fn addresses(situation: &Situation<'_>, host_ip: &str) -> Option<Vec<String>> {
    let sandbox = situation.observed.sandbox().filter(|sandbox| sandbox.ready)?;
    if situation.pod.is_host_network() {
        return Some(vec![host_ip.to_string()]);
    }
    (!sandbox.ips.is_empty()).then(|| sandbox.ips.clone())
}

/// The wire has no fractions of seconds, and a status that is compared must not either.
fn whole_seconds(time: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The phase with the pod-level reason and message. A phase that cannot be left is not entered before
/// everything has stopped: until then others must assume that the pod uses its resources.
fn phase(
    situation: &Situation<'_>,
    init_statuses: &[ContainerStatus],
    statuses: &[ContainerStatus],
) -> (&'static str, Option<String>, Option<String>) {
    let pod = situation.pod;
    let before = pod.status();
    let kept = || (before.reason.clone(), before.message.clone());
    let finished = match pod.phase() {
        "Succeeded" => Some("Succeeded"),
        "Failed" => Some("Failed"),
        _ => None,
    };
    if let Some(finished) = finished {
        let (reason, message) = kept();
        return (finished, reason, message);
    }

    let is_overdue = deadline(pod).is_some_and(|deadline| deadline <= situation.now);
    let verdict = situation.memory.verdict.as_ref();
    let computed = if is_overdue || verdict.is_some() {
        "Failed"
    } else {
        phase_of_containers(situation, init_statuses, statuses)
    };
    let can_run = situation.observed.is_any_running() || situation.memory.is_any_container_busy();
    if matches!(computed, "Succeeded" | "Failed") && can_run {
        let current = if pod.phase() == "Running" { "Running" } else { "Pending" };
        let (reason, message) = kept();
        return (current, reason, message);
    }
    if let Some(verdict) = verdict {
        return (computed, Some(verdict.reason.clone()), Some(verdict.message.clone()));
    }
    if is_overdue {
        return (computed, Some("DeadlineExceeded".into()), Some(DEADLINE_MESSAGE.into()));
    }
    let (reason, message) = kept();
    (computed, reason, message)
}

fn phase_of_containers(
    situation: &Situation<'_>,
    init_statuses: &[ContainerStatus],
    statuses: &[ContainerStatus],
) -> &'static str {
    let pod = situation.pod;
    let has_started = statuses.iter().any(|status| !is_waiting_for_the_first_time(status));
    for (container, status) in pod.init_containers().iter().zip(init_statuses) {
        let state = status.state.as_ref();
        if is_sidecar(container) {
            if !has_started && !situation.pod.is_being_deleted() && status.started != Some(true) {
                return "Pending";
            }
            continue;
        }
        let code = state.and_then(|state| state.terminated.as_ref()).map(|terminated| terminated.exit_code);
        match code {
            Some(0) => {}
            Some(code) if !init_restart_policy(pod, container).restarts(code) => return "Failed",
            _ if has_started => {}
            _ if situation.pod.is_being_deleted() && !situation.observed.is_any_running() => return "Failed",
            _ => return "Pending",
        }
    }

    let mut waiting = 0;
    let mut running = 0;
    let mut codes = Vec::new();
    for status in statuses {
        let Some(state) = &status.state else { continue };
        let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        if state.running.is_some() {
            running += 1;
        } else if let Some(terminated) = &state.terminated {
            codes.push(terminated.exit_code);
        } else if let Some(last) = last {
            codes.push(last.exit_code);
        } else {
            waiting += 1;
        }
    }
    let is_ending = situation.pod.is_being_deleted() || situation.is_gone;
    if is_ending && running == 0 {
        // What never ran cannot succeed any more.
        let succeeded = waiting == 0 && codes.iter().all(|code| *code == 0);
        return if succeeded { "Succeeded" } else { "Failed" };
    }
    let restarts = pod.spec().containers.iter().zip(statuses).any(|(container, status)| {
        let state = status.state.as_ref();
        let code = state.and_then(|state| state.terminated.as_ref()).map(|terminated| terminated.exit_code);
        let will_wait = state.is_some_and(|state| state.waiting.is_some());
        will_wait || code.is_some_and(|code| container_restart_policy(pod, container).restarts(code))
    });
    match (waiting, running) {
        (1.., _) => "Pending",
        (0, 1..) => "Running",
        _ if codes.is_empty() => "Pending",
        _ if restarts || pod.restart_policy() == RestartPolicy::Always => "Running",
        _ if codes.iter().all(|code| *code == 0) => "Succeeded",
        _ => "Failed",
    }
}

fn is_waiting_for_the_first_time(status: &ContainerStatus) -> bool {
    let has_ended_before = status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
    !has_ended_before && status.state.as_ref().is_none_or(|state| state.waiting.is_some())
}

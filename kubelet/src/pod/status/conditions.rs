//! The pod's conditions.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::whole_seconds;
use crate::pod::plan::{Goal, Situation, goal};
use crate::pod::resize;
use crate::pod::view::{PodView, is_sidecar};

/// What a condition is to say.
struct Verdict {
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn yes() -> Verdict {
        Verdict { status: true, reason: None, message: None }
    }

    fn no(reason: &'static str, message: Option<String>) -> Verdict {
        Verdict { status: false, reason: Some(reason), message }
    }
}

/// The kubelet's conditions in upstream's order, then those of others, unchanged.
pub(super) fn conditions(
    situation: &Situation<'_>,
    phase: &str,
    init_statuses: &[ContainerStatus],
    statuses: &[ContainerStatus],
) -> Vec<PodCondition> {
    let pod = situation.pod;
    let before = pod.status().conditions.as_deref().unwrap_or_default();
    let containers = containers_ready(situation, phase, init_statuses, statuses);
    let ready = ready(situation, &containers, before);
    let scheduled = Verdict::yes();
    let verdicts = [
        ("PodReadyToStartContainers", ready_to_start(situation)),
        ("Initialized", initialized(situation, phase, init_statuses, statuses)),
        ("Ready", ready),
        ("ContainersReady", containers),
        ("PodScheduled", scheduled),
    ];
    let ours: Vec<PodCondition> = verdicts
        .into_iter()
        .map(|(kind, verdict)| condition(kind, verdict, before, pod.metadata.generation, situation.now))
        .collect();
    let disruption =
        situation.memory.verdict.as_ref().filter(|verdict| verdict.is_disruption).map(|verdict| {
            let why = Verdict {
                message: Some(verdict.message.clone()),
                reason: Some("TerminationByKubelet"),
                ..Verdict::yes()
            };
            condition("DisruptionTarget", why, before, pod.metadata.generation, situation.now)
        });
    let resizes = resizes(situation)
        .into_iter()
        .map(|(kind, verdict)| condition(kind, verdict, before, pod.metadata.generation, situation.now));
    let ours: Vec<PodCondition> = ours.into_iter().chain(disruption).chain(resizes).collect();
    let is_ours = |kind: &str| RESIZES.contains(&kind) || ours.iter().any(|our| our.type_ == kind);
    let others = before.iter().filter(|condition| !is_ours(&condition.type_));
    let others: Vec<_> = others.cloned().collect();
    ours.into_iter().chain(others).collect()
}

/// The conditions that are only there while they are true.
const RESIZES: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

fn resizes(situation: &Situation<'_>) -> Vec<(&'static str, Verdict)> {
    let mut found = Vec::new();
    if let Some(wait) = &situation.memory.resize_wait {
        let (reason, message) = (Some(wait.reason), Some(wait.message.clone()));
        found.push(("PodResizePending", Verdict { reason, message, ..Verdict::yes() }));
    }
    if goal(situation) == Goal::Run && resize::is_in_progress(situation) {
        let failures = situation.memory.containers.values();
        let failure =
            failures.filter_map(|memory| memory.resize_failure.clone()).map(|(message, _)| message).next();
        let reason = failure.is_some().then_some("Error");
        found.push(("PodResizeInProgress", Verdict { reason, message: failure, ..Verdict::yes() }));
    }
    found
}

fn condition(
    kind: &str,
    verdict: Verdict,
    before: &[PodCondition],
    generation: Option<i64>,
    now: Timestamp,
) -> PodCondition {
    let status = if verdict.status { "True" } else { "False" };
    let old = before.iter().find(|condition| condition.type_ == kind);
    let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
    PodCondition {
        type_: kind.to_string(),
        status: status.to_string(),
        reason: verdict.reason.map(str::to_string),
        message: verdict.message,
        last_transition_time: since.or(Some(Time(whole_seconds(now)))),
        observed_generation: generation,
        ..PodCondition::default()
    }
}

fn ready_to_start(situation: &Situation<'_>) -> Verdict {
    let sandbox = situation.observed.sandbox().filter(|sandbox| sandbox.ready);
    let has_address =
        sandbox.is_some_and(|sandbox| situation.pod.is_host_network() || !sandbox.ips.is_empty());
    Verdict { status: has_address, reason: None, message: None }
}

fn initialized(
    situation: &Situation<'_>,
    phase: &str,
    init_statuses: &[ContainerStatus],
    statuses: &[ContainerStatus],
) -> Verdict {
    if phase == "Succeeded" {
        return Verdict { reason: Some("PodCompleted"), ..Verdict::yes() };
    }
    let has_started = statuses.iter().any(|status| status.container_id.is_some() || status.restart_count > 0);
    let specs = situation.pod.init_containers().iter().zip(init_statuses);
    let incomplete: Vec<&str> = specs
        .filter(|(container, status)| match is_sidecar(container) {
            true => status.started != Some(true) && !has_started,
            false => !status.ready && !has_started,
        })
        .map(|(container, _)| container.name.as_str())
        .collect();
    if incomplete.is_empty() {
        Verdict::yes()
    } else {
        let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
        Verdict::no("ContainersNotInitialized", Some(message))
    }
}

fn containers_ready(
    situation: &Situation<'_>,
    phase: &str,
    init_statuses: &[ContainerStatus],
    statuses: &[ContainerStatus],
) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::no("PodCompleted", None),
        "Failed" => return Verdict::no("PodFailed", None),
        _ => {}
    }
    let specs = situation.pod.init_containers().iter().zip(init_statuses);
    let sidecars = specs.filter(|(container, _)| is_sidecar(container)).map(|(_, status)| status);
    let unready: Vec<&str> =
        sidecars.chain(statuses).filter(|status| !status.ready).map(|status| status.name.as_str()).collect();
    if unready.is_empty() {
        Verdict::yes()
    } else {
        let message = format!("containers with unready status: [{}]", unready.join(" "));
        Verdict::no("ContainersNotReady", Some(message))
    }
}

fn ready(situation: &Situation<'_>, containers: &Verdict, before: &[PodCondition]) -> Verdict {
    if !containers.status {
        return Verdict { status: false, reason: containers.reason, message: containers.message.clone() };
    }
    let gates = situation.pod.spec().readiness_gates.as_deref().unwrap_or_default();
    let faults: Vec<String> = gates
        .iter()
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match before.iter().find(|condition| condition.type_ == *kind) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist."))
                }
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if faults.is_empty() {
        Verdict::yes()
    } else {
        Verdict::no("ReadinessGatesNotReady", Some(faults.join(", ")))
    }
}

//! What users read, from what the runtime has.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::pod::memory::{ContainerOperation, Memory, ProbeResults, StartFailure, Volumes};
use crate::pod::observed::{ContainerState, Details, Observed, ObservedContainer, Sandbox};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pod(spec: Value) -> Pod {
    let pod = json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "u", "generation": 1 },
        "spec": spec,
    });
    serde_json::from_value(pod).unwrap()
}

fn one_container() -> Pod {
    pod(json!({ "containers": [{ "name": "a", "image": "i" }] }))
}

fn memory() -> Memory {
    Memory { volumes: Volumes::Ready, ..Memory::new(at(5)) }
}

fn observed(containers: &[(&str, u32, ContainerState)]) -> Observed {
    let sandbox = Sandbox {
        id: "s".into(),
        attempt: 0,
        ready: true,
        ips: vec!["10.244.0.5".into()],
        created_at: at(1),
    };
    let container = |(name, attempt, state): &(&str, u32, ContainerState)| ObservedContainer {
        id: format!("{name}{attempt}"),
        sandbox_id: "s".into(),
        name: name.to_string(),
        attempt: *attempt,
        hash: String::new(),
        image: "i".into(),
        image_id: "sha256:i".into(),
        details: Details::default(),
        state: state.clone(),
    };
    let containers = containers.iter().map(container).collect();
    Observed { sandboxes: vec![sandbox], containers }.sorted()
}

fn running() -> ContainerState {
    ContainerState::Running { started_at: at(10) }
}

fn exited(code: i32, second: i64) -> ContainerState {
    let reason = if code == 0 { "Completed" } else { "Error" }.to_string();
    ContainerState::Exited {
        started_at: at(10),
        finished_at: at(second),
        code,
        reason,
        message: String::new(),
    }
}

fn told(pod: &Pod, observed: &Observed, memory: &Memory) -> PodStatus {
    let situation = Situation { pod, is_gone: false, observed, memory, runtime: "coracle", now: at(100) };
    pod_status(&situation, "192.0.2.1")
}

fn condition(status: &PodStatus, kind: &str) -> String {
    let conditions = status.conditions.as_ref().unwrap();
    let found = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    let words = [&found.reason, &found.message].into_iter().flatten().map(String::as_str);
    std::iter::once(found.status.as_str()).chain(words).collect::<Vec<_>>().join(": ")
}

fn waiting(status: &PodStatus, index: usize) -> String {
    let state = status.container_statuses.as_ref().unwrap()[index].state.clone().unwrap();
    let waiting = state.waiting.unwrap();
    [waiting.reason, waiting.message].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

#[test]
fn a_new_pod_is_pending_and_its_containers_are_being_created() {
    let status = told(&one_container(), &Observed::default(), &memory());
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting(&status, 0), "ContainerCreating");
    assert_eq!(condition(&status, "PodReadyToStartContainers"), "False");
    assert_eq!(condition(&status, "Initialized"), "True");
    assert_eq!(condition(&status, "Ready"), "False: ContainersNotReady: containers with unready status: [a]");
    assert_eq!(status.start_time.unwrap().0, at(5));
    assert_eq!((status.host_ip.as_deref(), status.pod_ip), (Some("192.0.2.1"), None));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
}

#[test]
fn a_running_pod_says_where_it_is_and_what_it_runs() {
    let status = told(&one_container(), &observed(&[("a", 0, running())]), &memory());
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&status, "Ready"), "True");
    assert_eq!(condition(&status, "ContainersReady"), "True");
    assert_eq!(status.pod_ips.unwrap()[0].ip, "10.244.0.5");
    let container = &status.container_statuses.unwrap()[0];
    assert_eq!(container.container_id.as_deref(), Some("coracle://a0"));
    assert_eq!((container.ready, container.started, container.restart_count), (true, Some(true), 0));
    assert_eq!(container.image_id, "sha256:i");
}

#[test]
fn a_status_that_was_told_is_not_told_again() {
    let mut pod = one_container();
    let observed = observed(&[("a", 0, running())]);
    let first = told(&pod, &observed, &memory());
    pod.status = Some(first.clone());
    let second = told(&pod, &observed, &memory());
    assert_eq!(patch::status_patch("u", &first, &second), None);
}

#[test]
fn init_containers_come_first() {
    let pod = pod(json!({ "initContainers": [{ "name": "i" }], "containers": [{ "name": "a" }] }));
    let status = told(&pod, &observed(&[("i", 0, running())]), &memory());
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting(&status, 0), "PodInitializing");
    let initialized = "False: ContainersNotInitialized: containers with incomplete status: [i]";
    assert_eq!(condition(&status, "Initialized"), initialized);
    let done = told(&pod, &observed(&[("i", 0, exited(0, 20)), ("a", 0, running())]), &memory());
    assert_eq!(done.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&done, "Initialized"), "True");
    assert!(done.init_container_statuses.unwrap()[0].ready);
}

#[test]
fn a_crashing_container_shows_its_back_off_and_its_last_end() {
    let mut memory = memory();
    memory.container("a").crashes.advance(at(90));
    let crashed = observed(&[("a", 0, exited(1, 50)), ("a", 1, exited(2, 99))]);
    let status = told(&one_container(), &crashed, &memory);
    assert_eq!(
        waiting(&status, 0),
        "CrashLoopBackOff: back-off 10s restarting failed container=a pod=web_shop(u)"
    );
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let container = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(container.restart_count, 1);
    let last = container.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (2, Some("Error")));
    // While it is started again it is simply what it was.
    memory.container("a").operation = Some(ContainerOperation::Starting);
    let status = told(&one_container(), &crashed, &memory);
    assert!(status.container_statuses.unwrap()[0].state.as_ref().unwrap().terminated.is_some());
}

#[test]
fn an_image_that_cannot_be_pulled_is_an_error_first_and_a_back_off_then() {
    let mut memory = memory();
    let failure = StartFailure { reason: "ErrImagePull", message: "no such host".into(), retry_at: at(110) };
    memory.container("a").start_failure = Some(failure);
    let mut pod = one_container();
    let status = told(&pod, &observed(&[]), &memory);
    assert_eq!(waiting(&status, 0), "ErrImagePull: no such host");
    pod.status = Some(status);
    let status = told(&pod, &observed(&[]), &memory);
    assert_eq!(
        waiting(&status, 0),
        "ImagePullBackOff: Back-off pulling image \"i\": ErrImagePull: no such host"
    );
    pod.status = Some(status);
    assert!(waiting(&told(&pod, &observed(&[]), &memory), 0).starts_with("ImagePullBackOff"));
}

#[test]
fn readiness_is_what_the_probes_say_of_this_very_container() {
    let pod = pod(json!({ "containers": [{ "name": "a", "readinessProbe": {}, "startupProbe": {} }] }));
    let ready = |probes: ProbeResults| {
        let mut memory = memory();
        memory.container("a").probes = probes;
        let status = told(&pod, &observed(&[("a", 0, running())]), &memory);
        let container = &status.container_statuses.unwrap()[0];
        (container.started, container.ready)
    };
    let results = |id: &str, startup, readiness| ProbeResults {
        container_id: id.into(),
        startup,
        readiness,
        liveness: None,
    };
    assert_eq!(ready(results("a0", None, None)), (Some(false), false));
    assert_eq!(ready(results("a0", Some(true), None)), (Some(true), false));
    assert_eq!(ready(results("a0", Some(true), Some(true))), (Some(true), true));
    assert_eq!(ready(results("other", Some(true), Some(true))), (Some(false), false));
}

#[test]
fn readiness_gates_are_asked_last() {
    let mut pod =
        pod(json!({ "containers": [{ "name": "a" }], "readinessGates": [{ "conditionType": "x/y" }] }));
    let runs = observed(&[("a", 0, running())]);
    assert_eq!(
        condition(&told(&pod, &runs, &memory()), "Ready"),
        "False: ReadinessGatesNotReady: corresponding condition of pod readiness gate \"x/y\" does not exist."
    );
    let status = json!({ "conditions": [{ "type": "x/y", "status": "True" }] });
    pod.status = Some(serde_json::from_value(status).unwrap());
    let status = told(&pod, &runs, &memory());
    assert_eq!(condition(&status, "Ready"), "True");
    assert_eq!(condition(&status, "x/y"), "True");
}

#[test]
fn phases_of_pods_that_end() {
    let phase = |policy: &str, codes: [i32; 2]| {
        let pod = pod(json!({ "restartPolicy": policy, "containers": [{ "name": "a" }, { "name": "b" }] }));
        let ended = observed(&[("a", 0, exited(codes[0], 50)), ("b", 0, exited(codes[1], 50))]);
        told(&pod, &ended, &memory()).phase.unwrap()
    };
    assert_eq!(phase("Never", [0, 0]), "Succeeded");
    assert_eq!(phase("Never", [0, 1]), "Failed");
    assert_eq!(phase("OnFailure", [0, 0]), "Succeeded");
    assert_eq!(phase("OnFailure", [0, 1]), "Running");
    assert_eq!(phase("Always", [0, 0]), "Running");
}

#[test]
fn a_pod_is_not_finished_while_a_sidecar_runs() {
    let mut pod = pod(json!({
        "restartPolicy": "Never",
        "initContainers": [{ "name": "s", "restartPolicy": "Always" }],
        "containers": [{ "name": "a" }],
    }));
    pod.status = Some(PodStatus { phase: Some("Running".into()), ..PodStatus::default() });
    let phase = |sidecar| {
        let observed = observed(&[("s", 0, sidecar), ("a", 0, exited(0, 50))]);
        told(&pod, &observed, &memory()).phase.unwrap()
    };
    assert_eq!(phase(running()), "Running");
    assert_eq!(phase(exited(143, 60)), "Succeeded");
}

#[test]
fn a_completed_pod_says_so_in_its_conditions() {
    let pod = pod(json!({ "restartPolicy": "Never", "containers": [{ "name": "a" }] }));
    let status = told(&pod, &observed(&[("a", 0, exited(0, 50))]), &memory());
    assert_eq!(condition(&status, "Initialized"), "True: PodCompleted");
    assert_eq!(condition(&status, "Ready"), "False: PodCompleted");
}

#[test]
fn a_failed_init_container_fails_the_pod_that_never_restarts() {
    let spec = json!({ "restartPolicy": "Never", "initContainers": [{ "name": "i" }], "containers": [{ "name": "a" }] });
    let status = told(&pod(spec), &observed(&[("i", 0, exited(3, 50))]), &memory());
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(waiting(&status, 0), "PodInitializing");
}

#[test]
fn the_deadline_is_the_reason_of_the_failure() {
    let mut pod = pod(json!({ "activeDeadlineSeconds": 10, "containers": [{ "name": "a" }] }));
    let status = json!({ "startTime": "1970-01-01T00:00:05Z", "phase": "Running" });
    pod.status = Some(serde_json::from_value(status).unwrap());
    let stopping = told(&pod, &observed(&[("a", 0, running())]), &memory());
    assert_eq!(stopping.phase.as_deref(), Some("Running"));
    let stopped = told(&pod, &observed(&[("a", 0, exited(137, 50))]), &memory());
    assert_eq!(stopped.phase.as_deref(), Some("Failed"));
    assert_eq!(stopped.reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn a_deleted_pod_that_never_ran_has_failed() {
    let mut pod = one_container();
    pod.metadata.deletion_timestamp = Some(Time(at(90)));
    let status = told(&pod, &Observed::default(), &memory());
    assert_eq!(status.phase.as_deref(), Some("Failed"));
}

#[test]
fn conditions_keep_the_time_of_their_last_change() {
    let mut pod = one_container();
    let status = json!({ "conditions": [
        { "type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:50Z" },
        { "type": "ContainersReady", "status": "False", "lastTransitionTime": "1970-01-01T00:00:50Z" } ] });
    pod.status = Some(serde_json::from_value(status).unwrap());
    let status = told(&pod, &observed(&[("a", 0, running())]), &memory());
    let since = |kind: &str| {
        let conditions = status.conditions.as_ref().unwrap();
        conditions.iter().find(|c| c.type_ == kind).unwrap().last_transition_time.as_ref().unwrap().0
    };
    assert_eq!((since("Ready"), since("ContainersReady")), (at(50), at(100)));
}

#[test]
fn ephemeral_containers_have_a_status_of_their_own_and_do_not_count() {
    let pod = pod(json!({ "containers": [{ "name": "a", "image": "i" }],
        "ephemeralContainers": [{ "name": "debugger", "image": "i", "targetContainerName": "a" }] }));
    let observed = observed(&[("a", 0, running()), ("debugger", 0, exited(1, 20))]);
    let status = told(&pod, &observed, &memory());
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let debugger = &status.ephemeral_container_statuses.unwrap()[0];
    assert_eq!(debugger.state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 1);
    assert!(!debugger.ready);
    assert_eq!(status.container_statuses.unwrap().len(), 1);
}

#[test]
fn users_signals_and_mounts_are_told_as_the_runtime_has_them() {
    let pod = pod(json!({ "containers": [{ "name": "a", "image": "i", "volumeMounts": [
        { "name": "v", "mountPath": "/v" },
        { "name": "v", "mountPath": "/r", "readOnly": true, "recursiveReadOnly": "IfPossible" } ] }] }));
    let mut observed = observed(&[("a", 0, running())]);
    observed.containers[0].details = Details {
        user: Some(cri::v1::LinuxContainerUser { uid: 7, gid: 8, supplemental_groups: vec![8, 9] }),
        stop_signal: Some("SIGUSR1".into()),
        resources: None,
        recursive_read_only: vec!["/r".into()],
    };
    let status = told(&pod, &observed, &memory());
    let container = serde_json::to_value(&status.container_statuses.unwrap()[0]).unwrap();
    assert_eq!(container["user"], json!({ "linux": { "uid": 7, "gid": 8, "supplementalGroups": [8, 9] } }));
    assert_eq!(container["stopSignal"], "SIGUSR1");
    let mounts = json!([
        { "name": "v", "mountPath": "/v" },
        { "name": "v", "mountPath": "/r", "readOnly": true, "recursiveReadOnly": "Enabled" },
    ]);
    assert_eq!(container["volumeMounts"], mounts);
}

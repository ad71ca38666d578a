//! One story a test: a pod as YAML would have it, what the runtime has, and the steps that follow.

use serde_json::{Value, json};

use super::*;
use crate::pod::memory::{ContainerMemory, ProbeResults, StartFailure};
use crate::pod::observed::{Details, Sandbox};

const NOW: i64 = 1_000;

/// A pod of two containers and everything around it.
struct Story {
    pod: Pod,
    observed: Observed,
    memory: Memory,
    is_gone: bool,
    now: Timestamp,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn story(spec: Value) -> Story {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{ "name": "a", "image": "i" }, { "name": "b", "image": "i" }]);
    }
    let pod = json!({ "metadata": { "name": "web", "namespace": "shop", "uid": "u" }, "spec": spec });
    let mut memory = Memory::new(at(0));
    memory.volumes = Volumes::Ready;
    Story {
        pod: serde_json::from_value(pod).unwrap(),
        observed: Observed::default(),
        memory,
        is_gone: false,
        now: at(NOW),
    }
}

impl Story {
    fn sandbox(mut self, attempt: u32, ready: bool) -> Story {
        let sandbox = Sandbox {
            id: format!("s{attempt}"),
            attempt,
            ready,
            ips: vec!["10.244.0.5".into()],
            created_at: at(i64::from(attempt)),
        };
        self.observed.sandboxes.push(sandbox);
        self.observed = self.observed.sorted();
        self
    }

    fn container(mut self, name: &str, attempt: u32, sandbox: &str, state: ContainerState) -> Story {
        let hash = self.pod.container(name).map(|container| container_hash(&container)).unwrap_or_default();
        self.observed.containers.push(ObservedContainer {
            id: format!("{name}{attempt}"),
            sandbox_id: sandbox.into(),
            name: name.into(),
            attempt,
            hash,
            image: "i".into(),
            image_id: "sha256:i".into(),
            details: Details::default(),
            state,
        });
        self.observed = self.observed.sorted();
        self
    }

    fn running(self, name: &str) -> Story {
        self.container(name, 0, "s0", ContainerState::Running { started_at: at(10) })
    }

    fn exited(self, name: &str, attempt: u32, code: i32, second: i64) -> Story {
        self.container(name, attempt, "s0", exited(code, second))
    }

    fn deleted(mut self, grace: i64) -> Story {
        let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            self.now + Duration::from_secs(grace as u64),
        );
        self.pod.metadata.deletion_timestamp = Some(time);
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.memory.terminating_since = Some(self.now);
        self
    }

    fn operation(mut self, name: &str, operation: ContainerOperation) -> Story {
        self.memory.container(name).operation = Some(operation);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Story)) -> Story {
        change(&mut self);
        self
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            pod: &self.pod,
            is_gone: self.is_gone,
            observed: &self.observed,
            memory: &self.memory,
            runtime: "coracle",
            now: self.now,
        }
    }

    fn plan(&self) -> Vec<PodAction> {
        plan_pod(&self.situation())
    }

    fn replaced_until(&self) -> Option<Timestamp> {
        replaced_until(&self.situation())
    }
}

fn exited(code: i32, second: i64) -> ContainerState {
    ContainerState::Exited {
        started_at: at(second - 1),
        finished_at: at(second),
        code,
        reason: "Error".into(),
        message: String::new(),
    }
}

fn start(name: &str, attempt: u32) -> PodAction {
    PodAction::StartContainer { name: name.into(), attempt }
}

fn stop(name: &str, grace: u64, reason: StopReason) -> PodAction {
    let grace = Duration::from_secs(grace);
    PodAction::StopContainer { id: format!("{name}0"), name: name.into(), grace, reason }
}

fn stop_sandbox(id: &str) -> PodAction {
    PodAction::StopSandbox { id: id.into() }
}

#[test]
fn a_new_pod_gets_its_volumes_and_its_sandbox_at_once() {
    let new = story(json!({})).with(|story| story.memory.volumes = Volumes::Unknown);
    assert_eq!(new.plan(), [PodAction::PrepareVolumes, PodAction::CreateSandbox { attempt: 0 }]);
    let busy = new.with(|story| {
        story.memory.volumes = Volumes::Preparing;
        story.memory.is_sandbox_busy = true;
    });
    assert_eq!(busy.plan(), []);
}

#[test]
fn containers_wait_for_the_volumes() {
    let waiting = story(json!({})).sandbox(0, true).with(|story| story.memory.volumes = Volumes::Preparing);
    assert_eq!(waiting.plan(), []);
    let failed = waiting.with(|story| story.memory.volumes = Volumes::Failed { retry_at: at(NOW + 2) });
    assert_eq!(failed.plan(), [PodAction::WakeAt(at(NOW + 2))]);
}

#[test]
fn containers_start_one_after_the_other() {
    let ready = story(json!({})).sandbox(0, true);
    assert_eq!(ready.plan(), [start("a", 0)]);
    let starting = ready.operation("a", ContainerOperation::Starting);
    assert_eq!(starting.plan(), []);
    let first = story(json!({})).sandbox(0, true).running("a");
    assert_eq!(first.plan(), [start("b", 0)]);
    assert_eq!(first.running("b").plan(), []);
}

#[test]
fn one_that_cannot_start_does_not_hold_up_the_others() {
    let failure = StartFailure { reason: "ErrImagePull", message: String::new(), retry_at: at(NOW + 5) };
    let failed = story(json!({}))
        .sandbox(0, true)
        .with(|story| story.memory.container("a").start_failure = Some(failure));
    assert_eq!(failed.plan(), [PodAction::WakeAt(at(NOW + 5)), start("b", 0)]);
}

#[test]
fn init_containers_run_in_order_to_success() {
    let spec = json!({ "initContainers": [{ "name": "i" }, { "name": "j" }] });
    let new = story(spec).sandbox(0, true);
    assert_eq!(new.plan(), [start("i", 0)]);
    let running = new.running("i");
    assert_eq!(running.plan(), []);
    let first = story(json!({ "initContainers": [{ "name": "i" }, { "name": "j" }] }))
        .sandbox(0, true)
        .exited("i", 0, 0, 20);
    assert_eq!(first.plan(), [start("j", 0)]);
    assert_eq!(first.exited("j", 0, 0, 30).plan(), [start("a", 0)]);
}

#[test]
fn a_failed_init_container_is_tried_again_unless_the_pod_says_never() {
    let failed = |policy: &str| {
        let spec = json!({ "restartPolicy": policy, "initContainers": [{ "name": "i" }] });
        story(spec).sandbox(0, true).exited("i", 0, 1, 20)
    };
    assert_eq!(failed("Always").plan(), [start("i", 1)]);
    assert_eq!(failed("OnFailure").plan(), [start("i", 1)]);
    assert_eq!(failed("Never").plan(), [stop_sandbox("s0")]);
}

#[test]
fn sidecars_start_in_their_turn_and_are_kept_alive() {
    let spec = || {
        json!({ "initContainers": [
            { "name": "s", "restartPolicy": "Always", "startupProbe": {} }, { "name": "i" } ] })
    };
    let probes = |startup| ProbeResults { container_id: "s0".into(), startup, ..ProbeResults::default() };
    let coming_up = story(spec()).sandbox(0, true).running("s");
    assert_eq!(coming_up.plan(), []);
    let up = coming_up.with(|story| story.memory.container("s").probes = probes(Some(true)));
    assert_eq!(up.plan(), [start("i", 0)]);
    let both = up.exited("i", 0, 0, 20).running("a").running("b");
    assert_eq!(both.plan(), []);
    let dead = story(spec()).sandbox(0, true).exited("s", 0, 1, 30).running("a").running("b");
    assert_eq!(dead.plan(), [start("s", 1)]);
}

#[test]
fn exit_codes_and_policies_decide_about_restarts() {
    let after = |policy: &str, code| {
        let story = story(json!({ "restartPolicy": policy })).sandbox(0, true);
        story.exited("a", 0, code, 20).running("b").plan()
    };
    assert_eq!(after("Always", 0), [start("a", 1)]);
    assert_eq!(after("OnFailure", 1), [start("a", 1)]);
    assert_eq!(after("OnFailure", 0), []);
    assert_eq!(after("Never", 1), []);
}

#[test]
fn a_crashing_container_waits_longer_each_time() {
    let crashed = story(json!({})).sandbox(0, true).exited("a", 1, 1, NOW - 3).running("b");
    let mut memory = ContainerMemory::default();
    memory.crashes.advance(at(NOW - 4));
    let waiting = crashed.with(|story| *story.memory.container("a") = memory);
    assert_eq!(waiting.plan(), [PodAction::WakeAt(at(NOW + 7))]);
    let later = waiting.with(|story| story.now = at(NOW + 7));
    assert_eq!(later.plan(), [start("a", 2)]);
}

#[test]
fn failed_probes_restart_the_very_container_that_failed() {
    let spec = json!({ "containers": [{ "name": "a", "image": "i",
        "livenessProbe": { "terminationGracePeriodSeconds": 3 } }] });
    let failed =
        |id: &str| ProbeResults { container_id: id.into(), liveness: Some(false), ..ProbeResults::default() };
    let unwell = story(spec).sandbox(0, true).running("a");
    let unwell = unwell.with(|story| story.memory.container("a").probes = failed("a0"));
    assert_eq!(unwell.plan(), [stop("a", 3, StopReason::Liveness)]);
    let replaced = unwell.with(|story| story.memory.container("a").probes = failed("another"));
    assert_eq!(replaced.plan(), []);
}

#[test]
fn another_image_makes_another_container() {
    let changed = story(json!({})).sandbox(0, true).running("a").running("b").with(|story| {
        story.pod.spec.as_mut().unwrap().containers[0].image = Some("new".into());
    });
    assert_eq!(changed.plan(), [stop("a", 30, StopReason::Changed)]);
}

#[test]
fn a_container_that_is_being_replaced_is_told_of_after_a_second() {
    let ended = |second| {
        story(json!({})).sandbox(0, true).exited("a", 0, 143, second).running("b").with(|story| {
            story.pod.spec.as_mut().unwrap().containers[0].image = Some("new".into());
        })
    };
    assert_eq!(ended(NOW).replaced_until(), Some(at(NOW + 1)));
    assert_eq!(ended(NOW - 1).replaced_until(), None, "that takes its time");
    assert_eq!(ended(NOW).container("a", 1, "s0", ContainerState::Created).replaced_until(), None);
    assert_eq!(ended(NOW).deleted(30).replaced_until(), None, "nobody takes its place");
    let crashed = story(json!({})).sandbox(0, true).exited("a", 0, 1, NOW).running("b");
    assert_eq!(crashed.replaced_until(), None);
}

#[test]
fn a_container_left_behind_before_its_start_is_replaced() {
    let left =
        story(json!({})).sandbox(0, true).container("a", 0, "s0", ContainerState::Created).running("b");
    assert_eq!(left.plan(), [start("a", 1)]);
}

#[test]
fn a_dead_sandbox_takes_its_containers_with_it_and_is_replaced() {
    let dead = story(json!({})).sandbox(0, false).running("a").exited("b", 0, 137, 20);
    assert_eq!(dead.plan(), [stop("a", 30, StopReason::SandboxChanged)]);
    let empty = story(json!({})).sandbox(0, false).exited("a", 0, 137, 20).exited("b", 0, 137, 20);
    assert_eq!(empty.plan(), [PodAction::CreateSandbox { attempt: 1 }]);
    let new = empty.sandbox(1, true);
    // The old one still holds the logs of the last run.
    assert_eq!(new.plan(), [start("a", 1)]);
}

#[test]
fn a_sandbox_that_failed_is_tried_again_later() {
    let failed = story(json!({})).with(|story| story.memory.sandbox_retry.at = Some(at(NOW + 1)));
    assert_eq!(failed.plan(), [PodAction::WakeAt(at(NOW + 1))]);
}

#[test]
fn init_containers_run_again_in_a_new_sandbox() {
    let spec = json!({ "initContainers": [{ "name": "i" }] });
    let again = story(spec).sandbox(0, false).exited("i", 0, 0, 20).exited("a", 0, 1, 30).sandbox(1, true);
    assert_eq!(again.plan(), [start("i", 1)]);
}

#[test]
fn what_has_succeeded_does_not_run_again_in_a_new_sandbox() {
    let spec = json!({ "restartPolicy": "OnFailure" });
    let half = story(spec).sandbox(0, false).exited("a", 0, 0, 20).exited("b", 0, 137, 30).sandbox(1, true);
    assert_eq!(half.plan(), [start("b", 1)]);
}

#[test]
fn a_pod_that_has_run_to_its_end_gives_back_what_it_holds_but_its_logs() {
    let done = || story(json!({ "restartPolicy": "Never" })).exited("a", 0, 0, 20).exited("b", 0, 1, 20);
    assert_eq!(done().sandbox(0, true).plan(), [stop_sandbox("s0")]);
    assert_eq!(done().sandbox(0, false).plan(), [PodAction::RemoveVolumes]);
    let removed = done().sandbox(0, false).with(|story| story.memory.volumes = Volumes::Removed);
    assert_eq!(removed.plan(), []);
}

#[test]
fn old_runs_are_removed_but_for_the_last_two() {
    let story = story(json!({})).sandbox(0, true).running("b");
    let story = story.exited("a", 0, 1, 20).exited("a", 1, 1, 30);
    let third = story.container("a", 2, "s0", ContainerState::Running { started_at: at(40) });
    assert_eq!(third.plan(), [PodAction::RemoveContainer { id: "a0".into() }]);
}

#[test]
fn the_deadline_ends_a_pod() {
    let late = story(json!({ "activeDeadlineSeconds": 50 })).sandbox(0, true).running("a").running("b");
    let late = late.with(|story| {
        let started = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(NOW - 20));
        story.pod.status.get_or_insert_default().start_time = Some(started);
    });
    assert_eq!(late.plan(), [PodAction::WakeAt(at(NOW + 30))]);
    let over = late.with(|story| story.now = at(NOW + 30));
    assert_eq!(over.plan(), [stop("a", 30, StopReason::PodEnds), stop("b", 30, StopReason::PodEnds)]);
}

#[test]
fn deletion_goes_from_containers_to_the_api_object() {
    let pod = || story(json!({})).deleted(30);
    let running = pod().sandbox(0, true).running("a").running("b");
    assert_eq!(running.plan(), [stop("a", 30, StopReason::PodEnds), stop("b", 30, StopReason::PodEnds)]);
    let deadline = at(NOW + 30);
    let stopping = running
        .operation("a", ContainerOperation::Stopping { deadline })
        .operation("b", ContainerOperation::Stopping { deadline });
    assert_eq!(stopping.plan(), []);
    let stopped = pod().sandbox(0, true).exited("a", 0, 0, 20).exited("b", 0, 0, 20);
    assert_eq!(stopped.plan(), [stop_sandbox("s0")]);
    let released = pod().sandbox(0, false).exited("a", 0, 0, 20);
    assert_eq!(released.plan(), [PodAction::RemoveVolumes]);
    let removed = released.with(|story| story.memory.volumes = Volumes::Removed);
    assert_eq!(removed.plan(), [PodAction::DeletePod]);
    let gone = removed.with(|story| story.is_gone = true);
    assert_eq!(gone.plan(), [PodAction::RemoveSandbox { id: "s0".into() }]);
    let nothing = gone.with(|story| story.observed = Observed::default());
    assert_eq!(nothing.plan(), [PodAction::Forget]);
}

#[test]
fn a_shorter_grace_period_hurries_what_is_being_stopped() {
    let hurried = story(json!({})).deleted(0).sandbox(0, true).running("a");
    let hurried = hurried.operation("a", ContainerOperation::Stopping { deadline: at(NOW + 30) });
    assert_eq!(hurried.plan(), [stop("a", 0, StopReason::PodEnds)]);
}

#[test]
fn starts_are_cancelled_before_anything_is_stopped() {
    let deleted = story(json!({})).deleted(30).sandbox(0, true).running("a");
    let deleted = deleted.operation("b", ContainerOperation::Starting);
    assert_eq!(deleted.plan(), [PodAction::CancelStart { name: "b".into() }]);
}

#[test]
fn sidecars_end_after_the_others_and_in_reverse() {
    let spec = json!({ "initContainers": [
        { "name": "s", "restartPolicy": "Always" }, { "name": "t", "restartPolicy": "Always" } ] });
    let all = story(spec).deleted(30).sandbox(0, true).running("s").running("t").running("a");
    assert_eq!(all.plan(), [stop("a", 30, StopReason::PodEnds)]);
    let sidecars = all.with(|story| story.observed.containers.retain(|container| container.name != "a"));
    assert_eq!(sidecars.plan(), [stop("t", 30, StopReason::PodEnds)]);
    let late = sidecars.with(|story| {
        story.observed.containers.retain(|container| container.name != "t");
        story.now = at(NOW + 40);
    });
    assert_eq!(late.plan(), [stop("s", 2, StopReason::PodEnds)]);
    // Being late is no reason to hurry it again and again.
    let deadline = at(NOW + 42);
    let stopping =
        late.operation("s", ContainerOperation::Stopping { deadline }).with(|story| story.now = at(NOW + 41));
    assert_eq!(stopping.plan(), []);
}

#[test]
fn nothing_is_removed_while_something_is_under_way() {
    let busy =
        story(json!({})).deleted(30).sandbox(0, true).with(|story| story.memory.is_sandbox_busy = true);
    assert_eq!(busy.plan(), []);
}

#[test]
fn ephemeral_containers_start_beside_everything_else_and_once() {
    let spec = json!({
        "initContainers": [{ "name": "i", "image": "i" }],
        "ephemeralContainers": [{ "name": "debugger", "image": "i" }],
    });
    let story = story(spec).sandbox(0, true);
    let start = PodAction::StartContainer { name: "debugger".into(), attempt: 0 };
    assert!(story.plan().contains(&start), "{:?}", story.plan());
    let story = story.running("debugger");
    assert!(!story.plan().contains(&start));
    let mut ended = self::story(json!({ "ephemeralContainers": [{ "name": "debugger", "image": "i" }] }));
    ended = ended.sandbox(0, true).exited("debugger", 0, 1, NOW - 1);
    assert!(
        !ended
            .plan()
            .iter()
            .any(|action| matches!(action, PodAction::StartContainer { name, .. } if name == "debugger"))
    );
}

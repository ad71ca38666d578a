//! What pods print.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{condition, is_condition_true, text_or};
use super::{AGE, Column, since};
use crate::{Kind, Object};

/// Columns of pods.
pub const COLUMNS: &[Column] = &[
    Column::text("Ready", "How many of the pod's containers are ready.", |pod, _| {
        let summary = Summary::of(pod);
        format!("{}/{}", summary.ready, summary.total).into()
    }),
    Column::text("Status", "What the pod's containers are doing.", |pod, _| Summary::of(pod).status.into()),
    Column::text("Restarts", "How often containers were restarted, and when last.", |pod, now| {
        Summary::of(pod).restarts(now).into()
    }),
    AGE,
    Column::text("IP", "Address of the pod.", |pod, _| {
        let first = pod.list(&["status", "podIPs"]).first().and_then(|address| address["ip"].as_str());
        first.map_or_else(|| text_or(pod, &["status", "podIP"], "<none>"), Value::from)
    })
    .wide(),
    Column::text("Node", "Node that the pod runs on.", |pod, _| {
        text_or(pod, &["spec", "nodeName"], "<none>")
    })
    .wide(),
    Column::text("Nominated Node", "Node where room is being made for the pod.", |pod, _| {
        text_or(pod, &["status", "nominatedNodeName"], "<none>")
    })
    .wide(),
    Column::text("Readiness Gates", "How many of the pod's readiness gates are open.", |pod, _| {
        readiness_gates(pod).into()
    })
    .wide(),
];

/// The condition of a row whose pod has ended.
pub(super) fn completion(kind: &Kind, object: &Object) -> Option<Value> {
    if (kind.group, kind.kind) != ("", "Pod") {
        return None;
    }
    let phase = object.text(&["status", "phase"]);
    let message = match phase {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": phase, "message": message}))
}

fn readiness_gates(pod: &Object) -> String {
    let gates = pod.list(&["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".into();
    }
    let is_open =
        |gate: &&Value| gate["conditionType"].as_str().is_some_and(|kind| is_condition_true(pod, kind));
    format!("{}/{}", gates.iter().filter(is_open).count(), gates.len())
}

/// A pod in one line.
#[derive(Debug, PartialEq)]
struct Summary {
    status: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<String>,
}

/// Restarts and the time of the last one.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<String>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += status["restartCount"].as_i64().unwrap_or_default();
        let finished = status["lastState"]["terminated"]["finishedAt"].as_str();
        // RFC 3339 in UTC sorts as text.
        if finished > self.last.as_deref() {
            self.last = finished.map(String::from);
        }
    }
}

/// What init containers are waiting for; `None` once they are done.
struct Initialization {
    waiting_for: Option<String>,
    restarts: Restarts,
    sidecar_restarts: Restarts,
    ready_sidecars: usize,
}

impl Summary {
    fn of(pod: &Object) -> Summary {
        let init = initialization(pod);
        let sidecars = pod.list(&["spec", "initContainers"]).iter().filter(|it| is_sidecar(it)).count();
        let mut ready = init.ready_sidecars;
        let mut restarts = init.restarts;
        let mut status = match pod.text(&["status", "reason"]) {
            "" => pod.text(&["status", "phase"]).to_string(),
            reason => reason.to_string(),
        };
        if condition(pod, "PodScheduled").is_some_and(|condition| condition["reason"] == "SchedulingGated") {
            status = "SchedulingGated".into();
        }
        let is_initialized = init.waiting_for.is_none() || is_condition_true(pod, "Initialized");
        if let Some(waiting_for) = init.waiting_for {
            status = waiting_for;
        }
        if is_initialized {
            restarts = init.sidecar_restarts;
            let mut is_any_running = false;
            for container in pod.list(&["status", "containerStatuses"]).iter().rev() {
                restarts.add(container);
                if let Some(reason) = reason_of(container, "") {
                    status = reason;
                } else if container["ready"] == true && !container["state"]["running"].is_null() {
                    is_any_running = true;
                    ready += 1;
                }
            }
            if status == "Completed" && is_any_running {
                let is_ready = is_condition_true(pod, "Ready");
                status = if is_ready { "Running" } else { "NotReady" }.into();
            }
        }
        if pod.deletion_timestamp().is_some() {
            let is_finished = matches!(pod.text(&["status", "phase"]), "Succeeded" | "Failed");
            if pod.text(&["status", "reason"]) == "NodeLost" {
                status = "Unknown".into();
            } else if !is_finished {
                status = "Terminating".into();
            }
        }
        let total = pod.list(&["spec", "containers"]).len() + sidecars;
        Summary { status, ready, total, restarts: restarts.count, last_restart: restarts.last }
    }

    fn restarts(&self, now: Timestamp) -> String {
        match (&self.last_restart, self.restarts) {
            (Some(moment), 1..) => format!("{} ({} ago)", self.restarts, since(moment, now)),
            _ => self.restarts.to_string(),
        }
    }
}

/// Goes through the init containers in order, up to the first that is not done.
fn initialization(pod: &Object) -> Initialization {
    let specs = pod.list(&["spec", "initContainers"]);
    let statuses = pod.list(&["status", "initContainerStatuses"]);
    let mut found = Initialization {
        waiting_for: None,
        restarts: Restarts::default(),
        sidecar_restarts: Restarts::default(),
        ready_sidecars: 0,
    };
    for (index, status) in statuses.iter().enumerate() {
        found.restarts.add(status);
        let is_sidecar = specs.iter().any(|spec| spec["name"] == status["name"] && is_sidecar(spec));
        if is_sidecar {
            found.sidecar_restarts.add(status);
        }
        let state = &status["state"];
        if state["terminated"]["exitCode"] == 0 {
            continue;
        }
        if is_sidecar && status["started"] == true {
            found.ready_sidecars += usize::from(status["ready"] == true);
            continue;
        }
        let is_initializing = state["waiting"]["reason"] == "PodInitializing";
        let reason = reason_of(status, "Init:").filter(|_| !is_initializing);
        found.waiting_for = reason.or_else(|| Some(format!("Init:{index}/{}", specs.len())));
        break;
    }
    found
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

/// Why a container does not run, in upstream's words.
fn reason_of(status: &Value, prefix: &str) -> Option<String> {
    let state = &status["state"];
    let given = |state: &Value| state["reason"].as_str().filter(|it| !it.is_empty()).map(String::from);
    let ended = &state["terminated"];
    let reason = given(&state["waiting"]).or_else(|| given(ended)).or_else(|| {
        let signal = ended["signal"].as_i64().filter(|signal| *signal != 0);
        match signal {
            Some(signal) => Some(format!("Signal:{signal}")),
            None => ended
                .is_object()
                .then(|| format!("ExitCode:{}", ended["exitCode"].as_i64().unwrap_or_default())),
        }
    })?;
    Some(format!("{prefix}{reason}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cells(pod: Value) -> [String; 3] {
        let pod = Object::from_value(pod).unwrap();
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        [0, 1, 2].map(|index: usize| match (COLUMNS[index].cell)(&pod, now) {
            Value::String(text) => text,
            other => other.to_string(),
        })
    }

    fn pod(status: Value) -> Value {
        json!({
            "spec": {
                "initContainers": [{"name": "i"}, {"name": "j"}],
                "containers": [{"name": "a"}, {"name": "b"}],
            },
            "status": status,
        })
    }

    #[test]
    fn the_row_of_a_pod_that_has_ended_says_so() {
        let kind = crate::kinds::find("", "v1", "pods").unwrap();
        let row = |phase: &str| {
            let pod = Object::from_value(json!({"status": {"phase": phase}})).unwrap();
            crate::table::row(kind, &pod, jiff::Timestamp::UNIX_EPOCH, false)["conditions"].clone()
        };
        assert_eq!(row("Running"), Value::Null);
        assert_eq!(
            row("Failed"),
            json!([{"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."}])
        );
        assert_eq!(row("Succeeded")[0]["message"], "The pod has completed successfully.");
    }

    #[test]
    fn a_running_pod_counts_its_ready_containers() {
        let running = |ready| json!({"ready": ready, "state": {"running": {}}, "restartCount": 0});
        let pod = pod(json!({"phase": "Running", "containerStatuses": [running(true), running(false)]}));
        assert_eq!(cells(pod), ["1/2", "Running", "0"]);
    }

    #[test]
    fn a_crashing_container_shows_in_the_status_with_its_restarts() {
        let pod = pod(json!({"phase": "Running", "containerStatuses": [{
            "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}},
        }]}));
        assert_eq!(cells(pod), ["0/2", "CrashLoopBackOff", "4 (5m ago)"]);
    }

    #[test]
    fn a_finished_pod_is_completed_or_tells_how_it_failed() {
        let ended = |state: Value| {
            cells(pod(json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": state}}]})))[1]
                .clone()
        };
        assert_eq!(ended(json!({"exitCode": 0, "reason": "Completed"})), "Completed");
        assert_eq!(ended(json!({"exitCode": 1, "reason": "Error"})), "Error");
        assert_eq!(ended(json!({"exitCode": 3})), "ExitCode:3");
        assert_eq!(ended(json!({"exitCode": 137, "signal": 9})), "Signal:9");
    }

    #[test]
    fn init_containers_are_counted_until_they_are_done() {
        let status = |first: Value| {
            cells(pod(json!({"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "state": first}, {"name": "j", "state": {"waiting": {"reason": "PodInitializing"}}},
            ], "containerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}]})))[1]
                .clone()
        };
        assert_eq!(status(json!({"running": {}})), "Init:0/2");
        assert_eq!(status(json!({"terminated": {"exitCode": 0}})), "Init:1/2");
        assert_eq!(status(json!({"terminated": {"exitCode": 1, "reason": "Error"}})), "Init:Error");
        assert_eq!(status(json!({"waiting": {"reason": "CrashLoopBackOff"}})), "Init:CrashLoopBackOff");
    }

    #[test]
    fn a_pod_being_deleted_is_terminating() {
        let mut value = pod(json!({"phase": "Running"}));
        value["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(cells(value)[1], "Terminating");
    }

    #[test]
    fn the_reason_of_the_pod_comes_before_its_phase() {
        assert_eq!(cells(pod(json!({"phase": "Failed", "reason": "Evicted"})))[1], "Evicted");
        let gated = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]});
        assert_eq!(cells(pod(gated))[1], "SchedulingGated");
    }

    #[test]
    fn sidecars_count_as_containers() {
        let pod = json!({
            "spec": {"initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]},
            "status": {
                "phase": "Running",
                "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "state": {"running": {}}}],
                "containerStatuses": [{"ready": true, "state": {"running": {}}}],
            },
        });
        assert_eq!(cells(pod), ["2/2", "Running", "0"]);
    }
}

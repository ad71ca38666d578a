//! What workloads print: Deployments, Jobs and the like.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{
    CONTAINERS, IMAGES, SELECTOR, is_condition_true, labels_at, number, share_or, since_or, text_or, truth,
};
use super::duration::between;
use super::{AGE, Column, NAME, since};
use crate::{Object, strategies::horizontal_pod_autoscaler_v1};

const DESIRED: Column =
    Column::number("Desired", "How many pods are wanted.", |object, _| number(object, &["spec", "replicas"]));
/// Columns of the `scale` of any kind.
pub const SCALE: &[Column] = &[
    Column { format: "", ..NAME },
    DESIRED,
    Column::number("Available", "How many pods there are.", |object, _| {
        number(object, &["status", "replicas"])
    }),
    AGE,
];

const CURRENT: Column = Column::number("Current", "How many pods there are.", |object, _| {
    number(object, &["status", "replicas"])
});
const READY: Column = Column::number("Ready", "How many pods are ready.", |object, _| {
    number(object, &["status", "readyReplicas"])
});
const READY_OF_ALL: Column = Column::text("Ready", "How many of the wanted pods are ready.", |object, _| {
    let [ready, wanted] = [&["status", "readyReplicas"], &["spec", "replicas"]]
        .map(|path| object.number(path).unwrap_or_default());
    format!("{ready}/{wanted}").into()
});

/// Columns of Deployments.
pub const DEPLOYMENT: &[Column] = &[
    READY_OF_ALL,
    Column::text("Up-to-date", "How many pods have the wanted template.", |object, _| {
        number(object, &["status", "updatedReplicas"])
    }),
    Column::text("Available", "How many pods have been ready for long enough.", |object, _| {
        number(object, &["status", "availableReplicas"])
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Columns of ReplicaSets.
pub const REPLICA_SET: &[Column] = &[DESIRED, CURRENT, READY, AGE, CONTAINERS, IMAGES, SELECTOR];

/// Columns of ReplicationControllers.
pub const REPLICATION_CONTROLLER: &[Column] = &[
    DESIRED,
    CURRENT,
    READY,
    AGE,
    CONTAINERS,
    IMAGES,
    Column::text("Selector", "Which pods belong to the object.", |object, _| {
        labels_at(object, &["spec", "selector"])
    })
    .wide(),
];

/// Columns of StatefulSets.
pub const STATEFUL_SET: &[Column] = &[READY_OF_ALL, AGE, CONTAINERS, IMAGES];

/// Columns of DaemonSets.
pub const DAEMON_SET: &[Column] = &[
    Column::number("Desired", "How many nodes should run the pod.", |object, _| {
        number(object, &["status", "desiredNumberScheduled"])
    }),
    Column::number("Current", "How many nodes run the pod and should.", |object, _| {
        number(object, &["status", "currentNumberScheduled"])
    }),
    Column::number("Ready", "On how many nodes the pod is ready.", |object, _| {
        number(object, &["status", "numberReady"])
    }),
    Column::number("Up-to-date", "On how many nodes the pod has the wanted template.", |object, _| {
        number(object, &["status", "updatedNumberScheduled"])
    }),
    Column::number("Available", "On how many nodes the pod has been ready for long enough.", |object, _| {
        number(object, &["status", "numberAvailable"])
    }),
    Column::text("Node Selector", "Labels of the nodes that should run the pod.", |object, _| {
        labels_at(object, &["spec", "template", "spec", "nodeSelector"])
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Columns of Jobs.
pub const JOB: &[Column] = &[
    Column::text("Status", "How the job stands.", |job, _| job_status(job).into()),
    Column::text("Completions", "How many of the wanted pods have succeeded.", |job, _| {
        completions(job).into()
    }),
    Column::text("Duration", "How long the job has been or was running.", |job, now| {
        let [start, end] = ["startTime", "completionTime"].map(|name| job.text(&["status", name]));
        match (start, end) {
            ("", _) => "".into(),
            (start, "") => since(start, now).into(),
            (start, end) => between(start, end).into(),
        }
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn job_status(job: &Object) -> &'static str {
    if is_condition_true(job, "Complete") {
        "Complete"
    } else if is_condition_true(job, "Failed") {
        "Failed"
    } else if job.deletion_timestamp().is_some() {
        "Terminating"
    } else if is_condition_true(job, "Suspended") {
        "Suspended"
    } else if is_condition_true(job, "FailureTarget") {
        "FailureTarget"
    } else if is_condition_true(job, "SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Object) -> String {
    let succeeded = job.number(&["status", "succeeded"]).unwrap_or_default();
    let parallelism = job.number(&["spec", "parallelism"]).unwrap_or_default();
    match job.number(&["spec", "completions"]) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    }
}

/// Columns of CronJobs.
pub const CRON_JOB: &[Column] = &[
    Column::text("Schedule", "When jobs are made, in cron's notation.", |object, _| {
        text_or(object, &["spec", "schedule"], "")
    }),
    Column::text("Timezone", "The time zone of the schedule.", |object, _| {
        text_or(object, &["spec", "timeZone"], "<none>")
    }),
    Column {
        kind: "boolean",
        ..Column::text("Suspend", "Whether no more jobs are made.", |object, _| {
            truth(object, &["spec", "suspend"])
        })
    },
    Column::number("Active", "How many jobs are running.", |object, _| {
        object.list(&["status", "active"]).len().into()
    }),
    Column::text("Last Schedule", "Time since a job was last made.", |object, now: Timestamp| {
        since_or(object, &["status", "lastScheduleTime"], now, "<none>")
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    Column::text("Selector", "Which pods belong to the jobs.", |object, _| {
        super::cells::selector_at(object, &["spec", "jobTemplate", "spec", "selector"])
    })
    .wide(),
];

/// Columns of PodTemplates.
pub const POD_TEMPLATE: &[Column] = &[
    Column { priority: 0, ..CONTAINERS },
    Column { priority: 0, ..IMAGES },
    Column::text("Pod Labels", "Labels of the template.", |object, _| {
        labels_at(object, &["template", "metadata", "labels"])
    }),
];

/// Columns of ControllerRevisions.
pub const CONTROLLER_REVISION: &[Column] = &[
    Column::text("Controller", "The object whose history this is part of.", |object, _| {
        let owner = object.owner_references().iter().find(|owner| owner["controller"] == true);
        owner.map_or_else(|| "<none>".into(), |owner| controller(owner).into())
    }),
    Column::text("Revision", "Place in the history.", |object, _| number(object, &["revision"])),
    AGE,
];

/// An owner as `daemonset.apps/web`.
fn controller(owner: &Value) -> String {
    let text = |name: &str| owner[name].as_str().unwrap_or_default();
    let kind = text("kind").to_lowercase();
    match text("apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{}", text("name")),
        None => format!("{kind}/{}", text("name")),
    }
}

/// Columns of PodDisruptionBudgets.
pub const POD_DISRUPTION_BUDGET: &[Column] = &[
    Column::text("Min Available", "How many pods must stay available.", |object, _| {
        share_or(object, &["spec", "minAvailable"], "N/A")
    }),
    Column::text("Max Unavailable", "How many pods may be unavailable.", |object, _| {
        share_or(object, &["spec", "maxUnavailable"], "N/A")
    }),
    Column::number("Allowed Disruptions", "How many pods may be disrupted now.", |object, _| {
        number(object, &["status", "disruptionsAllowed"])
    }),
    AGE,
];

/// Columns of HorizontalPodAutoscalers.
pub const HORIZONTAL_POD_AUTOSCALER: &[Column] = &[
    Column::text("Reference", "What is scaled.", |object, _| {
        let [kind, name] = ["kind", "name"].map(|name| object.text(&["spec", "scaleTargetRef", name]));
        format!("{kind}/{name}").into()
    }),
    Column::text("Targets", "What is measured and what is aimed at.", |object, _| targets(object).into()),
    Column::text("MinPods", "The fewest pods.", |object, _| {
        share_or(object, &["spec", "minReplicas"], "<unset>")
    }),
    Column::text("MaxPods", "The most pods.", |object, _| number(object, &["spec", "maxReplicas"])),
    Column::text("Replicas", "How many pods there are.", |object, _| {
        number(object, &["status", "currentReplicas"])
    }),
    AGE,
];

fn targets(object: &Object) -> String {
    const SHOWN: usize = 2;
    let mut object = object.clone();
    if object.at(&["spec", "metrics"]).is_none() {
        // autoscaling/v1 says it elsewhere.
        horizontal_pod_autoscaler_v1::to_v2(&mut object);
    }
    let measured = object.list(&["status", "currentMetrics"]);
    let wanted = object.list(&["spec", "metrics"]);
    let texts: Vec<String> =
        wanted.iter().enumerate().map(|(index, metric)| target(metric, measured.get(index))).collect();
    match texts.len() {
        0 => "<none>".into(),
        1..=SHOWN => texts.join(", "),
        all => format!("{} + {} more...", texts[..SHOWN].join(", "), all - SHOWN),
    }
}

/// One metric as `cpu: 10%/80%`.
fn target(metric: &Value, measured: Option<&Value>) -> String {
    let source = match metric["type"].as_str() {
        Some("ContainerResource") => "containerResource",
        Some("External") => "external",
        Some("Object") => "object",
        Some("Pods") => "pods",
        _ => "resource",
    };
    let wanted = &metric[source]["target"];
    let current = measured.map(|metric| &metric[source]["current"]);
    let amount = |field: &str| {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), String::from);
        let present = current.map(|current| &current[field]).filter(|value| !value.is_null());
        (present.map_or("<unknown>".into(), text), text(&wanted[field]))
    };
    let text = if let Some(share) = wanted["averageUtilization"].as_i64() {
        let present = current.and_then(|current| current["averageUtilization"].as_i64());
        format!("{}/{share}%", present.map_or("<unknown>".into(), |present| format!("{present}%")))
    } else if !wanted["averageValue"].is_null() {
        let (present, wanted) = amount("averageValue");
        let is_mean = matches!(source, "external" | "object");
        format!("{present}/{wanted}{}", if is_mean { " (avg)" } else { "" })
    } else {
        let (present, wanted) = amount("value");
        let is_share = matches!(source, "resource" | "containerResource");
        format!("{present}/{}", if is_share { "<auto>" } else { &wanted })
    };
    match metric[source]["name"].as_str() {
        Some(name) if source == "resource" || source == "containerResource" => format!("{name}: {text}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cells(columns: &[Column], value: Value) -> Vec<String> {
        let object = Object::from_value(value).unwrap();
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let cell = |column: &Column| match (column.cell)(&object, now) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        columns.iter().map(cell).collect()
    }

    #[test]
    fn a_deployment_shows_how_far_it_is() {
        let deployment = json!({
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "web"}, "matchExpressions": [
                    {"key": "tier", "operator": "In", "values": ["b", "a"]},
                ]},
                "template": {"spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:2"}]}},
            },
            "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1},
        });
        let expected = ["1/3", "2", "1", "60m", "a,b", "a:1,b:2", "app=web,tier in (a,b)"];
        assert_eq!(cells(DEPLOYMENT, deployment), expected);
    }

    #[test]
    fn a_job_shows_its_state_and_how_long_it_took() {
        let job = json!({
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"completions": 2},
            "status": {
                "succeeded": 2, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:07Z",
                "conditions": [{"type": "Complete", "status": "True"}],
            },
        });
        assert_eq!(cells(&JOB[..4], job), ["Complete", "2/2", "7s", "60m"]);
    }

    #[test]
    fn an_autoscaler_shows_measured_and_wanted() {
        let autoscaler = json!({"spec": {"metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}},
        ]}});
        assert_eq!(cells(&HORIZONTAL_POD_AUTOSCALER[1..2], autoscaler), ["cpu: <unknown>/80%"]);
        let autoscaler = json!({"spec": {"targetCPUUtilizationPercentage": 50}});
        assert_eq!(cells(&HORIZONTAL_POD_AUTOSCALER[1..2], autoscaler), ["cpu: <unknown>/50%"]);
    }
}

//! A Deployment's status and conditions, with upstream's reasons and messages.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;

use super::sets::{self, Size};
use crate::pods::unless_zero;

/// The conditions of a Deployment while a pass works on them.
#[derive(Clone, Debug)]
pub struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    pub fn of(deployment: &Deployment, now: Timestamp) -> Conditions {
        let list =
            deployment.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        Conditions { list, now }
    }

    pub fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_.as_deref() == Some(kind))
    }

    pub fn reason(&self, kind: &str) -> Option<&str> {
        self.get(kind)?.reason.as_deref()
    }

    /// Sets a condition. One with the same status and reason stays as it is, times included.
    pub fn set(&mut self, kind: &str, status: &str, reason: &str, message: impl Into<String>) {
        let unchanged = |condition: &DeploymentCondition| {
            condition.status.as_deref() == Some(status) && condition.reason.as_deref() == Some(reason)
        };
        if !self.get(kind).is_some_and(unchanged) {
            self.renew(kind, status, reason, message);
        }
    }

    /// Sets a condition and its time of update, even where nothing else changes.
    pub fn renew(&mut self, kind: &str, status: &str, reason: &str, message: impl Into<String>) {
        let before = self.get(kind).filter(|condition| condition.status.as_deref() == Some(status));
        let last_transition_time = before.and_then(|condition| condition.last_transition_time.clone());
        let condition = DeploymentCondition {
            type_: Some(kind.into()),
            status: Some(status.into()),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_update_time: Some(Time(self.now)),
            last_transition_time: last_transition_time.or(Some(Time(self.now))),
        };
        self.remove(kind);
        self.list.push(condition);
    }

    pub fn remove(&mut self, kind: &str) {
        self.list.retain(|condition| condition.type_.as_deref() != Some(kind));
    }

    fn into_option(self) -> Option<Vec<DeploymentCondition>> {
        (!self.list.is_empty()).then_some(self.list)
    }
}

/// The numbers and the Available condition.
pub fn calculate(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    all: &[Arc<ReplicaSet>],
    size: Size,
    mut conditions: Conditions,
) -> DeploymentStatus {
    let sum = |number: &dyn Fn(&ReplicaSet) -> i32| all.iter().map(|set| number(set)).sum::<i32>();
    let present = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let ready =
        |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
    let (replicas, available) = (sum(&present), sum(&sets::available));
    if available >= size.least_available() {
        let text = "Deployment has minimum availability.";
        conditions.set("Available", "True", "MinimumReplicasAvailable", text);
    } else {
        let text = "Deployment does not have minimum availability.";
        conditions.set("Available", "False", "MinimumReplicasUnavailable", text);
    }
    let old = deployment.status.as_ref();
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: unless_zero(replicas),
        updated_replicas: unless_zero(new.map_or(0, present)),
        ready_replicas: unless_zero(sum(&ready)),
        available_replicas: unless_zero(available),
        unavailable_replicas: unless_zero((replicas - available).max(0)),
        collision_count: old.and_then(|status| status.collision_count),
        conditions: conditions.into_option(),
        terminating_replicas: old.and_then(|status| status.terminating_replicas),
    }
}

/// The same during a rollout: whether it is getting on, is done, or is stuck; and why pods cannot be made.
pub fn calculate_rollout(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    all: &[Arc<ReplicaSet>],
    size: Size,
    conditions: Conditions,
) -> (DeploymentStatus, Option<Duration>) {
    let now = conditions.now;
    let mut status = calculate(deployment, new, all, size, conditions);
    let mut conditions = Conditions { list: status.conditions.take().unwrap_or_default(), now };
    let deadline = progress_deadline(deployment);
    let was_complete = status.replicas == status.updated_replicas
        && conditions.reason("Progressing") == Some("NewReplicaSetAvailable");
    match deadline {
        None => conditions.remove("Progressing"),
        Some(_) if was_complete => {}
        Some(deadline) => {
            let subject = match new {
                Some(set) => format!("ReplicaSet \"{}\"", set.name_any()),
                None => format!("Deployment \"{}\"", deployment.name_any()),
            };
            if is_complete(deployment, &status) {
                let text = format!("{subject} has successfully progressed.");
                conditions.set("Progressing", "True", "NewReplicaSetAvailable", text);
            } else if has_progressed(deployment, &status) {
                conditions.renew(
                    "Progressing",
                    "True",
                    "ReplicaSetUpdated",
                    format!("{subject} is progressing."),
                );
            } else if time_left(&conditions, deadline).is_some_and(|left| left.is_zero()) {
                let text = format!("{subject} has timed out progressing.");
                conditions.set("Progressing", "False", "ProgressDeadlineExceeded", text);
            }
        }
    }
    report_failure(&mut conditions, new, all);
    // Only a rollout that is under way can run out of time.
    let under_way = !is_complete(deployment, &status) && !is_settled(&conditions);
    let next = deadline.filter(|_| under_way).and_then(|deadline| time_left(&conditions, deadline));
    status.conditions = conditions.into_option();
    (status, next.filter(|left| !left.is_zero()))
}

/// Whether all pods are of the new template, and available, and no old ones are left.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = unless_zero(deployment.spec.replicas.unwrap_or(1));
    status.updated_replicas == wanted && status.replicas == wanted && status.available_replicas == wanted
}

/// Whether two statuses differ in anything that is worth a write. Unset counts as zero.
pub fn differs(old: Option<&DeploymentStatus>, new: &DeploymentStatus) -> bool {
    let numbers = |status: &DeploymentStatus| {
        [
            status.replicas,
            status.updated_replicas,
            status.ready_replicas,
            status.available_replicas,
            status.unavailable_replicas,
            status.collision_count,
        ]
        .map(Option::unwrap_or_default)
    };
    let Some(old) = old else { return true };
    numbers(old) != numbers(new)
        || old.observed_generation != new.observed_generation
        || old.conditions.as_deref().unwrap_or_default() != new.conditions.as_deref().unwrap_or_default()
}

/// A status as a merge patch: what it does not have is removed.
pub fn patch(status: &DeploymentStatus) -> Result<serde_json::Value, serde_json::Error> {
    let mut patch = serde_json::json!({
        "replicas": null,
        "updatedReplicas": null,
        "readyReplicas": null,
        "availableReplicas": null,
        "unavailableReplicas": null,
        "conditions": null,
    });
    if let (Some(patch), serde_json::Value::Object(present)) =
        (patch.as_object_mut(), serde_json::to_value(status)?)
    {
        patch.extend(present);
    }
    Ok(patch)
}

/// How long a rollout may stand still; `None` when for ever.
pub fn progress_deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment.spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)?;
    Some(Duration::from_secs(seconds.max(0).unsigned_abs().into()))
}

fn has_progressed(deployment: &Deployment, new: &DeploymentStatus) -> bool {
    let nothing = DeploymentStatus::default();
    let old = deployment.status.as_ref().unwrap_or(&nothing);
    let number = |number: Option<i32>| number.unwrap_or_default();
    let outdated = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(new.updated_replicas) > number(old.updated_replicas)
        || outdated(new) < outdated(old)
        || number(new.ready_replicas) > number(old.ready_replicas)
        || number(new.available_replicas) > number(old.available_replicas)
}

fn is_settled(conditions: &Conditions) -> bool {
    matches!(conditions.reason("Progressing"), Some("NewReplicaSetAvailable" | "ProgressDeadlineExceeded"))
}

/// How long until the deadline; `None` where no deadline runs.
fn time_left(conditions: &Conditions, deadline: Duration) -> Option<Duration> {
    let progressing = conditions.get("Progressing")?;
    if progressing.reason.as_deref() == Some("NewReplicaSetAvailable") {
        return None;
    }
    let since = progressing.last_update_time.as_ref()?.0;
    let elapsed = Duration::try_from(conditions.now.duration_since(since)).unwrap_or_default();
    Some(deadline.saturating_sub(elapsed))
}

/// Takes over the newest set's failure, or else any other's.
fn report_failure(conditions: &mut Conditions, new: Option<&ReplicaSet>, all: &[Arc<ReplicaSet>]) {
    let failure_of = |set: &ReplicaSet| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_.as_deref() == Some("ReplicaFailure")).cloned()
    };
    match new.and_then(failure_of).or_else(|| all.iter().find_map(|set| failure_of(set))) {
        Some(failure) => {
            let text = |field: Option<String>| field.unwrap_or_default();
            let (status, reason) = (text(failure.status), text(failure.reason));
            conditions.set("ReplicaFailure", &status, &reason, text(failure.message));
        }
        None => conditions.remove("ReplicaFailure"),
    }
}

//! Questions about pods that several controllers ask, answered as upstream does.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Pod, PodCondition, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::api::ObjectMeta;

/// What controllers ask of a pod.
pub trait PodExt {
    /// `status.phase`; empty when unset.
    fn phase(&self) -> &str;
    /// The node that it is bound to; empty when none.
    fn node(&self) -> &str;
    /// Whether it has succeeded or failed, for good.
    fn is_finished(&self) -> bool;
    /// Whether it is being deleted.
    fn is_terminating(&self) -> bool;
    /// Neither finished nor being deleted: it counts as a replica.
    fn is_active(&self) -> bool;
    /// One of its conditions.
    fn condition(&self, kind: &str) -> Option<&PodCondition>;
    /// Whether its Ready condition is true.
    fn is_ready(&self) -> bool;
    /// Since when it is ready.
    fn ready_since(&self) -> Option<Timestamp>;
    /// Whether it has been ready for at least so long.
    fn is_available(&self, min_ready: Duration, now: Timestamp) -> bool;
    /// When it was created.
    fn created_at(&self) -> Option<Timestamp>;
    /// A label's value; empty when it has none.
    fn label(&self, key: &str) -> &str;
}

impl PodExt for Pod {
    fn phase(&self) -> &str {
        self.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
    }

    fn node(&self) -> &str {
        self.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
    }

    fn is_finished(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn is_active(&self) -> bool {
        !self.is_finished() && !self.is_terminating()
    }

    fn condition(&self, kind: &str) -> Option<&PodCondition> {
        let conditions = self.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == kind)
    }

    fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|condition| condition.status == "True")
    }

    fn ready_since(&self) -> Option<Timestamp> {
        let ready = self.condition("Ready").filter(|condition| condition.status == "True")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    }

    fn is_available(&self, min_ready: Duration, now: Timestamp) -> bool {
        let long_enough =
            |since: Timestamp| now.duration_since(since).unsigned_abs() >= min_ready && now >= since;
        self.is_ready() && (min_ready.is_zero() || self.ready_since().is_some_and(long_enough))
    }

    fn created_at(&self) -> Option<Timestamp> {
        self.metadata.creation_timestamp.as_ref().map(|time| time.0)
    }

    fn label(&self, key: &str) -> &str {
        self.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map_or("", String::as_str)
    }
}

/// When the next of these pods becomes available, if time alone does it.
pub fn next_available(pods: &[Arc<Pod>], min_ready: Duration, now: Timestamp) -> Option<Duration> {
    let waits = pods.iter().filter_map(|pod| {
        let elapsed = now.duration_since(pod.ready_since()?).unsigned_abs();
        min_ready.checked_sub(elapsed).filter(|wait| !wait.is_zero())
    });
    // Times have whole seconds: a little later is never too early.
    waits.min().map(|wait| wait + Duration::from_millis(10))
}

/// A number of seconds from the API as a duration; negative ones count as none.
pub fn seconds(seconds: Option<i32>) -> Duration {
    Duration::from_secs(seconds.unwrap_or_default().max(0).unsigned_abs().into())
}

/// A count as upstream writes it into a status: left out when it is zero.
pub fn unless_zero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

/// A pod as a controller makes it from its template: owned, named by the server.
pub fn from_template(template: &PodTemplateSpec, namespace: &str, owner: OwnerReference) -> Pod {
    let given = template.metadata.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        namespace: Some(namespace.into()),
        generate_name: Some(format!("{}-", owner.name)),
        labels: given.labels,
        annotations: given.annotations,
        finalizers: given.finalizers,
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec.clone(), status: None }
}

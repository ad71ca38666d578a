//! Stops a container: its preStop hook first, then the signal, then the kill.

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::events::EventType;
use cri::v1::StopContainerRequest;
use k8s_openapi::api::core::v1::Pod;

use super::hook;
use super::plan::StopReason;
use super::start::first_ip;
use super::view::PodView;
use crate::context::Context;
use crate::events::container_reference;

/// What is left for the container itself after a long hook.
const SHORTEST_GRACE: Duration = Duration::from_secs(2);

/// One container to stop.
pub struct Stop {
    /// What all pods share.
    pub context: Arc<Context>,
    /// The pod.
    pub pod: Arc<Pod>,
    /// The container's name in it.
    pub name: String,
    /// The runtime's name for it.
    pub id: String,
    /// The time that hook and container share.
    pub grace: Duration,
    /// Why it is stopped.
    pub reason: StopReason,
    /// Whether it is being stopped already, and only the time has changed.
    pub is_hurry: bool,
    /// The pod's addresses.
    pub pod_ips: Vec<String>,
}

impl Stop {
    /// Returns when the container has ended.
    pub async fn run(self) -> Result<(), cri::Error> {
        let began = Instant::now();
        if !self.is_hurry {
            self.tell(EventType::Normal, "Killing", self.reason.message(&self.name));
            self.pre_stop().await;
        }
        let left = self.grace.saturating_sub(began.elapsed()).max(SHORTEST_GRACE.min(self.grace));
        // The runtime counts whole seconds; a part of one is a second.
        let seconds = left.as_secs() + u64::from(left.subsec_millis() > 0);
        let timeout = i64::try_from(seconds).unwrap_or(i64::MAX);
        let request = StopContainerRequest { container_id: self.id.clone(), timeout };
        match self.context.runtime.stop_container(request).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn pre_stop(&self) {
        let Some(container) = self.pod.container(&self.name) else { return };
        let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref())
        else {
            return;
        };
        if self.grace.is_zero() {
            return;
        }
        let address = first_ip(&self.context, &self.pod, &self.pod_ips);
        let runtime = &*self.context.runtime;
        if let Err(error) = hook::run(runtime, hook, &container, &self.id, address, self.grace).await {
            self.tell(EventType::Warning, "FailedPreStopHook", format!("PreStopHook failed: {error}"));
        }
    }

    fn tell(&self, kind: EventType, reason: &str, message: String) {
        self.context.events.event(container_reference(&self.pod, &self.name), kind, reason, message);
    }
}

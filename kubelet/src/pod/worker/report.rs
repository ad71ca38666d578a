//! Tells the API what has become of the pod, and keeps the volumes up to date with it.

use std::time::Duration;

use client::events::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::Value;

use super::Worker;
use super::outcome::Done;
use crate::events::container_reference;
use crate::pod::memory::Volumes;
use crate::pod::plan::{Goal, goal, replaced_until};
use crate::pod::status::patch::status_patch;
use crate::pod::status::pod_status;
use crate::pod::view::{PodView, StatusView};

const RETRY: Duration = Duration::from_secs(1);
/// The API may store less than it was told, or somebody else may have written: the same report is sent again
/// at this pace and no faster.
const REPEAT: Duration = Duration::from_secs(10);

/// Where the reports of a worker stand: one is under way at most, so what changes meanwhile becomes one more.
#[derive(Default)]
pub(super) struct Reporting {
    under_way: bool,
    retry_at: Option<Timestamp>,
    last: Option<(Value, Timestamp)>,
    /// The volumes are being brought up to date.
    pub(super) refreshing: bool,
    /// That has failed and is not to be tried before.
    pub(super) refresh_again_at: Option<Timestamp>,
}

impl Reporting {
    fn is_idle(&self, now: Timestamp) -> bool {
        !self.under_way && self.retry_at.is_none_or(|at| at <= now)
    }

    pub(super) fn succeeded(&mut self) {
        self.under_way = false;
        self.retry_at = None;
    }

    pub(super) fn failed(&mut self, now: Timestamp) {
        self.under_way = false;
        self.retry_at = Some(now + RETRY);
        self.last = None;
    }

    /// When this very report was sent with success, if it was the last one.
    fn sent_at(&self, patch: &Value) -> Option<Timestamp> {
        self.last.as_ref().filter(|(last, _)| last == patch).map(|(_, at)| *at)
    }
}

impl Worker {
    /// Sends the status if it differs from what the API has. Returns when to try again, if that failed.
    pub(super) fn tell_the_api(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.is_gone || self.is_deleting {
            return None;
        }
        if !self.report.is_idle(now) {
            return self.report.retry_at;
        }
        if let Some(until) = replaced_until(&self.situation(now)) {
            return Some(until);
        }
        let (status, patch) = self.status_change(now)?;
        if let Some(again_at) = self.report.sent_at(&patch).map(|at| at + REPEAT).filter(|at| *at > now) {
            return Some(again_at);
        }
        self.announce_back_off(&status);
        self.report.under_way = true;
        self.report.last = Some((patch.clone(), now));
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), self.pod.namespace());
        let name = self.pod.name().to_string();
        self.tasks.spawn(async move {
            let patch = Patch::Strategic(patch);
            Done::Reported(pods.patch_status(&name, &PatchParams::default(), &patch).await.map(Box::new))
        });
        None
    }

    /// The status as it should be, and the patch that makes it so; `None` when it is.
    fn status_change(&self, now: Timestamp) -> Option<(PodStatus, Value)> {
        let status = pod_status(&self.situation(now), &self.context.config.node_ip.to_string());
        let patch = status_patch(self.pod.uid(), self.pod.status(), &status)?;
        Some((status, patch))
    }

    /// Whether the API has been told everything.
    pub(super) fn has_told_all(&self, now: Timestamp) -> bool {
        let change = self.status_change(now);
        self.report.is_idle(now) && change.is_none_or(|(_, patch)| self.report.sent_at(&patch).is_some())
    }

    /// Waiting after a crash or a failed pull is told once, when it begins.
    fn announce_back_off(&self, status: &PodStatus) {
        let waits = |status: &PodStatus, name: &str| {
            let found = status.container_statuses().find(|status| status.name == name);
            let state = found.and_then(|status| status.state.clone());
            state.and_then(|state| state.waiting).and_then(|waiting| waiting.reason)
        };
        for container in self.pod.all_containers() {
            let now = waits(status, &container.name);
            if now == waits(self.pod.status(), &container.name) {
                continue;
            }
            let regarding = container_reference(&self.pod, &container.name);
            let tell = |kind, reason, message: String| {
                self.context.events.event(regarding.clone(), kind, reason, message);
            };
            match now.as_deref() {
                Some("CrashLoopBackOff") => {
                    let (name, pod) = (&container.name, &self.pod);
                    let pod = format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid());
                    let message = format!("Back-off restarting failed container {name} in pod {pod}");
                    tell(EventType::Warning, "BackOff", message);
                }
                Some("ImagePullBackOff") => {
                    let image = container.image.as_deref().unwrap_or_default();
                    tell(EventType::Normal, "BackOff", format!("Back-off pulling image \"{image}\""));
                    tell(EventType::Warning, "Failed", "Error: ImagePullBackOff".to_string());
                }
                _ => {}
            }
        }
    }

    /// Brings files up to date when their sources have changed or a token is due. Returns when one will be.
    pub(super) fn refresh_volumes(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.memory.volumes != Volumes::Ready
            || goal(&self.situation(now)) != Goal::Run
            || self.report.refreshing
        {
            return None;
        }
        if let Some(at) = self.report.refresh_again_at.filter(|at| *at > now) {
            return Some(at);
        }
        let due = self.volumes.refresh_at();
        if self.volumes_stale || due.is_some_and(|due| due <= now) {
            self.report.refreshing = true;
            self.prepare_volumes();
            return None;
        }
        due
    }
}

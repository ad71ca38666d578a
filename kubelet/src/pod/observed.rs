//! What the runtime knows of one pod, in the kubelet's words.

use std::cmp::Reverse;

use cri::v1::LinuxContainerUser;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerStateTerminated, ContainerStatus, PodStatus, ResourceRequirements,
};

use super::view::StatusView;

/// How many runs of a container are kept: the last one, and the one before it for its logs and its end.
pub const KEPT: usize = 2;

/// The sandboxes and containers of one pod, the newest of each first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// All sandboxes, newest first: a pod has had more than one when a sandbox died.
    pub sandboxes: Vec<Sandbox>,
    /// All containers, dead ones included, newest first.
    pub containers: Vec<ObservedContainer>,
}

/// One sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Sandbox {
    /// The runtime's name for it.
    pub id: String,
    /// Which sandbox of the pod it is, from 0.
    pub attempt: u32,
    /// Whether containers can run in it.
    pub ready: bool,
    /// Its addresses; none in the node's network.
    pub ips: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// One container, running or not.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedContainer {
    /// The runtime's name for it.
    pub id: String,
    /// The sandbox that it belongs to.
    pub sandbox_id: String,
    /// Its name in the pod.
    pub name: String,
    /// How many containers of this name came before it: the restart count.
    pub attempt: u32,
    /// The hash of the spec that it was made from.
    pub hash: String,
    /// The image as the spec named it.
    pub image: String,
    /// The image's digest.
    pub image_id: String,
    /// Where it stands.
    pub state: ContainerState,
    /// What else the runtime says of it.
    pub details: Details,
}

/// What the runtime says of a container beside its state, for those who look at its status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// Whom it runs as.
    pub user: Option<LinuxContainerUser>,
    /// The signal that ends it, where the runtime says.
    pub stop_signal: Option<String>,
    /// What it was made with.
    pub resources: Option<ResourceRequirements>,
    /// Places in it that are read-only with all mounts below them.
    pub recursive_read_only: Vec<String>,
}

/// Where a container stands.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Running.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// Ended.
    Exited {
        /// When it was started.
        started_at: Timestamp,
        /// When it ended.
        finished_at: Timestamp,
        /// The exit code, 128 + signal when a signal ended it.
        code: i32,
        /// `Completed`, `Error`, `OOMKilled` or what the runtime says.
        reason: String,
        /// What the container left in its termination message file.
        message: String,
    },
    /// The runtime has lost it.
    Unknown,
}

impl ObservedContainer {
    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }

    /// The exit code, when it has ended.
    pub fn exit_code(&self) -> Option<i32> {
        match self.state {
            ContainerState::Exited { code, .. } => Some(code),
            _ => None,
        }
    }
}

impl Observed {
    /// The newest sandbox.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first()
    }

    /// The newest container of this name, in whichever sandbox.
    pub fn latest(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The newest container of this name in the newest sandbox.
    pub fn active(&self, name: &str) -> Option<&ObservedContainer> {
        let sandbox = self.sandbox()?;
        self.containers.iter().find(|container| container.name == name && container.sandbox_id == sandbox.id)
    }

    /// The newest container of this name that has ended and is older than the newest one.
    pub fn previous(&self, name: &str) -> Option<&ObservedContainer> {
        let named = self.containers.iter().filter(|container| container.name == name);
        named.skip(1).find(|container| container.exit_code().is_some())
    }

    /// Adds the containers that the API has heard of and the runtime knows nothing about, as after a reboot that
    /// has emptied the runtime's memory. They have been, so they count as restarts and as last states, and what
    /// was to run once is not run twice.
    pub fn with_lost(mut self, status: &PodStatus) -> Observed {
        for told in status.container_statuses() {
            for lost in [lost(told), lost_before(told)].into_iter().flatten() {
                let known = || self.containers.iter().filter(|container| container.name == lost.name);
                let is_known =
                    known().any(|container| container.id == lost.id || container.attempt == lost.attempt);
                // Where the runtime has as many as are kept, the API is only late.
                if !is_known && known().count() < KEPT {
                    self.containers.push(lost);
                }
            }
        }
        self.sorted()
    }

    /// Puts the newest first; callers fill the lists in any order.
    pub fn sorted(mut self) -> Observed {
        self.sandboxes.sort_by_key(|sandbox| Reverse((sandbox.attempt, sandbox.created_at)));
        self.containers.sort_by(|a, b| (&a.name, b.attempt).cmp(&(&b.name, a.attempt)));
        self
    }

    /// Whether any container's process runs.
    pub fn is_any_running(&self) -> bool {
        self.containers.iter().any(ObservedContainer::is_running)
    }
}

/// A container as the API last heard of it; how it ended is known only if that was told.
fn lost(told: &ContainerStatus) -> Option<ObservedContainer> {
    let (state, last) = (told.state.clone().unwrap_or_default(), told.last_state.clone().unwrap_or_default());
    let ended = state.terminated.or(last.terminated).filter(|ended| ended.container_id == told.container_id);
    let ended = ended.unwrap_or_else(|| ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_string()),
        message: Some("The container could not be located when the pod was terminated".to_string()),
        container_id: told.container_id.clone(),
        started_at: state.running.and_then(|running| running.started_at),
        ..ContainerStateTerminated::default()
    });
    run(told, told.restart_count, ended)
}

/// The container before that one, if its end was told.
fn lost_before(told: &ContainerStatus) -> Option<ObservedContainer> {
    let ended = told.last_state.clone()?.terminated?;
    if ended.container_id == told.container_id {
        return None;
    }
    run(told, told.restart_count - 1, ended)
}

fn run(told: &ContainerStatus, attempt: i32, ended: ContainerStateTerminated) -> Option<ObservedContainer> {
    Some(ObservedContainer {
        id: ended.container_id?.rsplit_once("//")?.1.to_string(),
        sandbox_id: String::new(),
        name: told.name.clone(),
        attempt: u32::try_from(attempt).ok()?,
        hash: String::new(),
        image: told.image.clone(),
        image_id: told.image_id.clone(),
        details: Details::default(),
        state: ContainerState::Exited {
            started_at: ended.started_at.map(|time| time.0).unwrap_or_default(),
            finished_at: ended.finished_at.map(|time| time.0).unwrap_or_default(),
            code: ended.exit_code,
            reason: ended.reason.unwrap_or_default(),
            message: ended.message.unwrap_or_default(),
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(container: serde_json::Value) -> PodStatus {
        serde_json::from_value(json!({ "containerStatuses": [container] })).unwrap()
    }

    #[test]
    fn what_ran_before_a_reboot_has_ended() {
        let told = status(json!({
            "name": "a", "image": "i", "imageID": "", "ready": true, "restartCount": 2, "containerID": "coracle://x",
            "state": { "running": { "startedAt": "2026-01-02T03:04:05Z" } },
        }));
        let observed = Observed::default().with_lost(&told);
        let lost = observed.latest("a").unwrap();
        assert_eq!((lost.id.as_str(), lost.attempt, lost.exit_code()), ("x", 2, Some(137)));
        assert!(
            matches!(&lost.state, ContainerState::Exited { reason, .. } if reason == "ContainerStatusUnknown")
        );
    }

    #[test]
    fn an_end_that_was_told_is_remembered() {
        let told = status(json!({
            "name": "a", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "containerID": "coracle://x",
            "state": { "terminated": { "exitCode": 0, "reason": "Completed", "containerID": "coracle://x" } },
        }));
        assert_eq!(Observed::default().with_lost(&told).latest("a").unwrap().exit_code(), Some(0));
    }

    #[test]
    fn the_run_before_the_last_is_remembered_too() {
        let told = status(json!({
            "name": "a", "image": "i", "imageID": "", "ready": true, "restartCount": 1, "containerID": "coracle://y",
            "state": { "running": {} },
            "lastState": { "terminated": { "exitCode": 3, "containerID": "coracle://x" } },
        }));
        let observed = Observed::default().with_lost(&told);
        let previous = observed.previous("a").unwrap();
        assert_eq!((previous.id.as_str(), previous.attempt, previous.exit_code()), ("x", 0, Some(3)));
        assert_eq!(observed.clone().with_lost(&told), observed);
    }

    #[test]
    fn what_never_ran_is_not_lost() {
        let told = status(json!({
            "name": "a", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": "ContainerCreating" } },
        }));
        assert_eq!(Observed::default().with_lost(&told), Observed::default());
    }
}

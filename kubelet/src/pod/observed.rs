//! What the runtime knows of one pod, in the kubelet's words.

use std::cmp::Reverse;

use jiff::Timestamp;

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

//! What a pod's worker remembers between two turns. All of it can be lost: a restarted kubelet starts
//! with an empty memory and finds the rest in the runtime and in the API.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceRequirements;

use super::backoff::Backoff;

/// What a worker remembers of its pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// When this kubelet first saw the pod.
    pub first_seen: Timestamp,
    /// Since when everything is being stopped.
    pub terminating_since: Option<Timestamp>,
    /// Where the pod's volumes stand.
    pub volumes: Volumes,
    /// Whether a sandbox is being made, stopped or removed.
    pub is_sandbox_busy: bool,
    /// After a sandbox could not be made, stopped or removed.
    pub sandbox_retry: Retry,
    /// The node has decided that the pod has to end.
    pub verdict: Option<Verdict>,
    /// What the node has allocated to each container that stays.
    pub allocated: BTreeMap<String, ResourceRequirements>,
    /// Why the pod has not got yet what it asks for.
    pub resize_wait: Option<ResizeWait>,
    /// By container name.
    pub containers: BTreeMap<String, ContainerMemory>,
}

/// Why a resize waits: the condition `PodResizePending`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResizeWait {
    /// `Deferred` or `Infeasible`.
    pub reason: &'static str,
    /// The words for people.
    pub message: String,
}

/// Why a pod has to end although nobody has deleted it: the node does not take it, or cannot keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `Evicted`, `OutOfcpu`, ...
    pub reason: String,
    /// The words for people.
    pub message: String,
    /// How long its containers get, at most.
    pub grace: Duration,
    /// Whether it had its place already and loses it.
    pub is_disruption: bool,
}

/// Where the pod's volumes and directories stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volumes {
    /// Not looked at yet.
    Unknown,
    /// Being made.
    Preparing,
    /// All there.
    Ready,
    /// Some could not be made.
    Failed {
        /// When to try again.
        retry_at: Timestamp,
    },
    /// Being removed.
    Removing,
    /// Some could not be removed.
    RemovalFailed {
        /// When to try again.
        retry_at: Timestamp,
    },
    /// Removed.
    Removed,
}

/// When to try again what failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Not before this time.
    pub at: Option<Timestamp>,
    backoff: Backoff,
}

impl Retry {
    /// Tries again after one second at first, after half a minute in the end.
    pub const fn new() -> Retry {
        Retry { at: None, backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)) }
    }

    /// Records a failure.
    pub fn failed(&mut self, now: Timestamp) -> Timestamp {
        self.backoff.advance(now);
        let at = now + self.backoff.delay();
        self.at = Some(at);
        at
    }

    /// Records a success.
    pub fn succeeded(&mut self) {
        self.at = None;
        self.backoff.reset();
    }
}

impl Default for Retry {
    fn default() -> Retry {
        Retry::new()
    }
}

/// What a worker remembers of one container.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerMemory {
    /// What is under way with it.
    pub operation: Option<ContainerOperation>,
    /// Counts its restarts.
    pub crashes: Backoff,
    /// Counts failures to pull its image.
    pub pulls: Backoff,
    /// Why it could not be started the last time.
    pub start_failure: Option<StartFailure>,
    /// What its probes say.
    pub probes: ProbeResults,
    /// What the container with this id was given since it was made.
    pub applied: Option<(String, ResourceRequirements)>,
    /// Why it could not be given more or less, and when to try again.
    pub resize_failure: Option<(String, Timestamp)>,
}

impl Default for ContainerMemory {
    fn default() -> ContainerMemory {
        ContainerMemory {
            operation: None,
            crashes: Backoff::of_containers(),
            pulls: Backoff::of_containers(),
            start_failure: None,
            probes: ProbeResults::default(),
            applied: None,
            resize_failure: None,
        }
    }
}

/// What is under way with a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerOperation {
    /// Its image is pulled, it is made and started.
    Starting,
    /// It is being given more or less.
    Resizing,
    /// It is being stopped.
    Stopping {
        /// When it will be killed.
        deadline: Timestamp,
    },
}

/// Why a container is not there: a waiting state with upstream's reason.
#[derive(Clone, Debug, PartialEq)]
pub struct StartFailure {
    /// `ErrImagePull`, `CreateContainerConfigError`, ...
    pub reason: &'static str,
    /// The words for people.
    pub message: String,
    /// When to try again.
    pub retry_at: Timestamp,
}

/// What the probes of one container say; of another container of the same name they say nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProbeResults {
    /// The container that was probed.
    pub container_id: String,
    /// Whether it lives.
    pub liveness: Option<bool>,
    /// Whether it can serve.
    pub readiness: Option<bool>,
    /// Whether it has come up.
    pub startup: Option<bool>,
}

impl Memory {
    /// Nothing but the time of the first look.
    pub fn new(first_seen: Timestamp) -> Memory {
        Memory {
            first_seen,
            terminating_since: None,
            volumes: Volumes::Unknown,
            is_sandbox_busy: false,
            sandbox_retry: Retry::new(),
            verdict: None,
            allocated: BTreeMap::new(),
            resize_wait: None,
            containers: BTreeMap::new(),
        }
    }

    /// What is remembered of a container; nothing much where it is new.
    pub fn container(&mut self, name: &str) -> &mut ContainerMemory {
        self.containers.entry(name.to_string()).or_default()
    }

    /// What is under way with a container.
    pub fn operation(&self, name: &str) -> Option<ContainerOperation> {
        self.containers.get(name)?.operation
    }

    /// What the probes of this very container say.
    pub fn probes(&self, name: &str, container_id: &str) -> Option<&ProbeResults> {
        self.containers
            .get(name)
            .map(|memory| &memory.probes)
            .filter(|probes| probes.container_id == container_id)
    }

    /// Whether anything is under way.
    pub fn is_busy(&self) -> bool {
        self.is_sandbox_busy
            || matches!(self.volumes, Volumes::Preparing | Volumes::Removing)
            || self.is_any_container_busy()
    }

    /// Whether a container is being started or stopped.
    pub fn is_any_container_busy(&self) -> bool {
        self.containers.values().any(|memory| memory.operation.is_some())
    }
}

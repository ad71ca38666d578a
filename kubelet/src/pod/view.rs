//! Questions that everybody here asks of a Pod: who it is, what its spec says where fields may be absent.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

pub use api::meta::MIRROR;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, EphemeralContainer, Pod, PodSpec, PodStatus};

/// The priority of `system-cluster-critical` and above.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

static NO_SPEC: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
static NO_STATUS: LazyLock<PodStatus> = LazyLock::new(PodStatus::default);

/// What happens when a container ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Started again whatever its exit code.
    Always,
    /// Started again when it failed.
    OnFailure,
    /// Left as it ended.
    Never,
}

impl RestartPolicy {
    /// The policy of this name; upstream's default where the name is absent.
    pub fn parse(name: Option<&str>) -> RestartPolicy {
        match name {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        }
    }

    /// Whether a container that ended with this code is started again.
    pub fn restarts(self, exit_code: i32) -> bool {
        match self {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => exit_code != 0,
            RestartPolicy::Never => false,
        }
    }
}

/// Short ways to what a Pod says.
pub trait PodView {
    /// `metadata.uid`.
    fn uid(&self) -> &str;
    /// `metadata.namespace`.
    fn namespace(&self) -> &str;
    /// `metadata.name`.
    fn name(&self) -> &str;
    /// `spec`; an empty one where it is absent.
    fn spec(&self) -> &PodSpec;
    /// `status`; an empty one where it is absent.
    fn status(&self) -> &PodStatus;
    /// `status.phase`; empty where it is absent.
    fn phase(&self) -> &str;
    /// `spec.initContainers`.
    fn init_containers(&self) -> &[Container];
    /// `spec.restartPolicy`.
    fn restart_policy(&self) -> RestartPolicy;
    /// The time containers get between the first signal and the last.
    fn grace_period(&self) -> Duration;
    /// Whether the API has been asked to delete the pod.
    fn is_being_deleted(&self) -> bool;
    /// Whether the pod has reached a phase that it cannot leave.
    fn is_finished(&self) -> bool;
    /// Whether the pod uses the node's network.
    fn is_host_network(&self) -> bool;
    /// `spec.ephemeralContainers`.
    fn ephemeral_containers(&self) -> &[EphemeralContainer];
    /// All containers of whatever kind.
    fn all_containers(&self) -> impl Iterator<Item = Cow<'_, Container>>;
    /// The container of this name, of whatever kind.
    fn container(&self, name: &str) -> Option<Cow<'_, Container>>;
    /// All that the API has heard of containers, of whatever kind.
    fn told_statuses(&self) -> impl Iterator<Item = &ContainerStatus>;
    /// What the API has heard of the container of this name.
    fn told(&self, name: &str) -> Option<&ContainerStatus>;
}

impl PodView for Pod {
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn spec(&self) -> &PodSpec {
        self.spec.as_ref().unwrap_or(&NO_SPEC)
    }

    fn status(&self) -> &PodStatus {
        self.status.as_ref().unwrap_or(&NO_STATUS)
    }

    fn phase(&self) -> &str {
        self.status().phase.as_deref().unwrap_or_default()
    }

    fn init_containers(&self) -> &[Container] {
        self.spec().init_containers.as_deref().unwrap_or_default()
    }

    fn restart_policy(&self) -> RestartPolicy {
        RestartPolicy::parse(self.spec().restart_policy.as_deref())
    }

    fn grace_period(&self) -> Duration {
        let asked = self.metadata.deletion_grace_period_seconds;
        let seconds = asked.or(self.spec().termination_grace_period_seconds).unwrap_or(30);
        grace_of(seconds)
    }

    fn is_being_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn is_finished(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    fn is_host_network(&self) -> bool {
        self.spec().host_network == Some(true)
    }

    fn ephemeral_containers(&self) -> &[EphemeralContainer] {
        self.spec().ephemeral_containers.as_deref().unwrap_or_default()
    }

    fn all_containers(&self) -> impl Iterator<Item = Cow<'_, Container>> {
        let lasting = self.spec().containers.iter().chain(self.init_containers()).map(Cow::Borrowed);
        lasting.chain(self.ephemeral_containers().iter().map(|container| Cow::Owned(plain(container))))
    }

    fn container(&self, name: &str) -> Option<Cow<'_, Container>> {
        self.all_containers().find(|container| container.name == name)
    }

    fn told_statuses(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.status().container_statuses()
    }

    fn told(&self, name: &str) -> Option<&ContainerStatus> {
        self.told_statuses().find(|status| status.name == name)
    }
}

/// Short ways to what a PodStatus says.
pub trait StatusView {
    /// The statuses of all containers of whatever kind.
    fn container_statuses(&self) -> impl Iterator<Item = &ContainerStatus>;
}

impl StatusView for PodStatus {
    fn container_statuses(&self) -> impl Iterator<Item = &ContainerStatus> {
        let lists =
            [&self.container_statuses, &self.init_container_statuses, &self.ephemeral_container_statuses];
        lists.into_iter().flatten().flatten()
    }
}

/// An ephemeral container as one like the others: what it may not have is not there.
pub fn plain(ephemeral: &EphemeralContainer) -> Container {
    let from = ephemeral.clone();
    Container {
        name: from.name,
        image: from.image,
        image_pull_policy: from.image_pull_policy,
        command: from.command,
        args: from.args,
        working_dir: from.working_dir,
        env: from.env,
        env_from: from.env_from,
        security_context: from.security_context,
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        tty: from.tty,
        volume_mounts: from.volume_mounts,
        volume_devices: from.volume_devices,
        termination_message_path: from.termination_message_path,
        termination_message_policy: from.termination_message_policy,
        ..Container::default()
    }
}

/// Whether the node keeps this pod whatever it runs short of: it is its own, or the whole cluster needs it.
pub fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || pod.spec().priority.is_some_and(|priority| priority >= CRITICAL_PRIORITY)
}

/// Whether the pod comes from a file of the node; what the API has is its mirror.
pub fn is_static(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR))
}

/// A grace period as users write it, in seconds. The API allows any number; added to a time it must give a time.
pub fn grace_of(seconds: i64) -> Duration {
    Duration::from_secs(seconds.clamp(0, i32::MAX.into()).unsigned_abs())
}

/// Whether this init container is a sidecar: it runs beside the containers that come after it.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What the restart policy of the pod, or the container's own, says about one container.
pub fn container_restart_policy(pod: &Pod, container: &Container) -> RestartPolicy {
    match container.restart_policy.as_deref() {
        Some(own) => RestartPolicy::parse(Some(own)),
        None => pod.restart_policy(),
    }
}

/// What it says about an init container: `Always` on the pod means until it has succeeded.
pub fn init_restart_policy(pod: &Pod, container: &Container) -> RestartPolicy {
    match container_restart_policy(pod, container) {
        RestartPolicy::Always if !is_sidecar(container) => RestartPolicy::OnFailure,
        policy => policy,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn any_grace_period_can_be_added_to_a_time() {
        assert_eq!(grace_of(30), Duration::from_secs(30));
        assert_eq!(grace_of(-1), Duration::ZERO);
        assert!(Timestamp::now() + grace_of(i64::MAX) > Timestamp::now());
    }
}

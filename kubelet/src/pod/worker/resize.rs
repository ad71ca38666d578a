//! Gives a running container more or less, and decides with the node's room whether it may have it.

use std::collections::HashSet;
use std::sync::Arc;

use client::Cache;
use client::events::EventType;
use cri::v1::{LinuxContainerResources, UpdateContainerResourcesRequest, UpdatePodSandboxResourcesRequest};
use cri::{Code, Error};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use kube::Resource;

use super::Worker;
use crate::cgroup;
use crate::container::qos::{cgroup_parent, container_resources, pod_resources, qos_class};
use crate::context::Context;
use crate::pod::plan::{Goal, goal};
use crate::pod::resize::allocate;
use crate::pod::view::PodView;

impl Worker {
    /// Compares what the pod asks for with what it has been allocated.
    pub(super) fn allocate(&mut self, now: Timestamp) {
        if goal(&self.situation(now)) != Goal::Run {
            return;
        }
        let (context, own) = (self.context.clone(), self.pod.uid().to_string());
        let others = || pods_taken(&context.pods, &own, &context.taken.lock());
        let wait = allocate(&self.pod, &mut self.memory, &self.context.node, others);
        if let Some(wait) = wait.as_ref().filter(|wait| self.memory.resize_wait.as_ref() != Some(wait)) {
            let reason = format!("Resize{}", wait.reason);
            self.context.events.event(
                self.pod.object_ref(&()),
                EventType::Warning,
                &reason,
                wait.message.clone(),
            );
        }
        self.memory.resize_wait = wait;
    }
}

/// The pods that the node has taken beside `own`: as the API says, or as this kubelet knows by itself.
pub(super) fn pods_taken(pods: &Cache<Pod>, own: &str, ours: &HashSet<String>) -> Vec<Arc<Pod>> {
    let is_ours = |pod: &Pod| pod.status().start_time.is_some() || ours.contains(pod.uid());
    let taken = |pod: &Pod| pod.uid() != own && !pod.is_finished() && is_ours(pod);
    pods.list().into_iter().filter(|pod| taken(pod)).collect()
}

/// Tells the runtime and the pod's group what a container may use from now on. `pod` is the pod as allocated,
/// `before` what the container runs with.
pub(super) async fn run(
    context: &Context,
    pod: &Pod,
    sandbox: &str,
    container: &Container,
    id: &str,
    before: ResourceRequirements,
) -> Result<(), Error> {
    let class = qos_class(pod.spec());
    let group = cgroup_parent(&context.config.cgroup_parent, class, pod.uid());
    let limits = pod_resources(pod.spec());
    let mut former = pod.spec().clone();
    former.containers.iter_mut().filter(|other| other.name == container.name).for_each(|other| {
        other.resources = Some(before.clone());
    });
    let limit = |resources: &LinuxContainerResources| {
        let failed = |error| Error::unknown(format!("failed to resize the pod's cgroup {group}: {error}"));
        cgroup::prepare(&group, resources).map_err(failed)
    };
    limit(&wider(&limits, &pod_resources(&former)))?;
    let linux = container_resources(pod.spec(), container, context.node.memory);
    let request = UpdateContainerResourcesRequest {
        container_id: id.to_string(),
        linux: Some(linux),
        ..UpdateContainerResourcesRequest::default()
    };
    context.runtime.update_container_resources(request).await?;
    limit(&limits)?;
    let request = UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: sandbox.to_string(),
        resources: Some(limits),
        ..UpdatePodSandboxResourcesRequest::default()
    };
    match context.runtime.update_pod_sandbox_resources(request).await {
        // Older runtimes need not know.
        Err(error) if error.code != Code::Unimplemented => Err(error),
        _ => Ok(()),
    }
}

/// Limits that hold both; no limit is the widest.
fn wider(one: &LinuxContainerResources, other: &LinuxContainerResources) -> LinuxContainerResources {
    let either = |one: i64, other: i64| if one == 0 || other == 0 { 0 } else { one.max(other) };
    LinuxContainerResources {
        cpu_period: one.cpu_period,
        cpu_quota: either(one.cpu_quota, other.cpu_quota),
        cpu_shares: one.cpu_shares.max(other.cpu_shares),
        memory_limit_in_bytes: either(one.memory_limit_in_bytes, other.memory_limit_in_bytes),
        ..one.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_wide_enough_for_before_and_after() {
        let limits = |cpu_quota, memory_limit_in_bytes| LinuxContainerResources {
            cpu_quota,
            memory_limit_in_bytes,
            ..LinuxContainerResources::default()
        };
        assert_eq!(wider(&limits(5, 10), &limits(7, 3)), limits(7, 10));
        assert_eq!(wider(&limits(5, 0), &limits(7, 3)), limits(7, 0));
    }
}

//! Carries out the plan's actions: notes what is under way and starts a task for it.

use std::borrow::Cow;
use std::io;
use std::path::Path;

use client::events::EventType;
use cri::v1::{RemoveContainerRequest, RemovePodSandboxRequest, StopPodSandboxRequest};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Resource};
use tokio_util::sync::CancellationToken;

use super::Worker;
use super::outcome::Done;
use super::resize;
use crate::cgroup;
use crate::container::qos::{QosClass, cgroup_parent};
use crate::context::Context;
use crate::pod::memory::{ContainerOperation, Volumes};
use crate::pod::observed::ContainerState;
use crate::pod::plan::PodAction;
use crate::pod::resize::{allocated_pod, applied, wanted};
use crate::pod::start::{self, Start};
use crate::pod::stop::Stop;
use crate::pod::view::PodView;
use crate::volume::PodVolumes;

impl Worker {
    pub(super) fn act(&mut self, action: PodAction, now: Timestamp) {
        tracing::debug!(pod = self.pod.name(), namespace = self.pod.namespace(), ?action, "pod action");
        match action {
            PodAction::PrepareVolumes => {
                self.memory.volumes = Volumes::Preparing;
                self.prepare_volumes();
            }
            PodAction::CreateSandbox { attempt } => self.create_sandbox(attempt),
            PodAction::StopSandbox { id } => self.stop_sandbox(id),
            PodAction::RemoveSandbox { id } => self.remove_sandbox(id),
            PodAction::StartContainer { name, attempt } => self.start_container(name, attempt, now),
            PodAction::CancelStart { name } => {
                if let Some(token) = self.starting.get(&name) {
                    token.cancel();
                }
            }
            PodAction::StopContainer { id, name, grace, reason } => {
                let deadline = now + grace;
                let is_hurry = self.stopping.contains_key(&name);
                let operation = ContainerOperation::Stopping { deadline };
                self.memory.container(&name).operation = Some(operation);
                if let Some(slower) = self.stopping.remove(&name) {
                    slower.abort();
                }
                let stop = Stop {
                    context: self.context.clone(),
                    pod: self.pod.clone(),
                    name: name.clone(),
                    id,
                    grace,
                    reason,
                    is_hurry,
                    pod_ips: self.pod_ips(),
                };
                let done = name.clone();
                let handle = self.tasks.spawn(async move {
                    let result = stop.run().await;
                    Done::ContainerStopped { name: done, result }
                });
                self.stopping.insert(name, handle);
            }
            PodAction::ResizeContainer { id, name } => self.resize_container(id, name),
            PodAction::RemoveContainer { id } => self.remove_container(id),
            PodAction::RemoveVolumes => {
                self.memory.volumes = Volumes::Removing;
                let (context, uid) = (self.context.clone(), self.pod.uid().to_string());
                self.volumes = PodVolumes::default();
                self.watching.abort_all();
                self.tasks
                    .spawn(async move { Done::VolumesRemoved(context.volumes.remove_volumes(&uid).await) });
            }
            PodAction::DeletePod => self.delete_pod(now),
            PodAction::Forget => self.forget(now),
            // Waking up is the worker's own business.
            PodAction::WakeAt(_) => {}
        }
    }

    /// The same work makes volumes and brings them up to date.
    pub(super) fn prepare_volumes(&mut self) {
        self.volumes_stale = false;
        let (context, pod, before) = (self.context.clone(), self.pod.clone(), self.volumes.clone());
        let place = start::place(&context, self.pod_ips());
        self.tasks.spawn(async move { Done::Volumes(context.volumes.prepare(&pod, &place, &before).await) });
    }

    fn create_sandbox(&mut self, attempt: u32) {
        self.memory.is_sandbox_busy = true;
        if attempt > 0 {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.context.events.event(self.pod.object_ref(&()), EventType::Normal, "SandboxChanged", message);
        }
        let (context, pod) = (self.context.clone(), self.pod.clone());
        let dead = self.observed.sandbox().map(|sandbox| sandbox.id.clone());
        self.tasks.spawn(async move {
            if let Some(pod_sandbox_id) = dead {
                // Gives back the dead sandbox's address; a failure shows when the new one is made.
                let request = StopPodSandboxRequest { pod_sandbox_id };
                if let Err(error) = context.runtime.stop_pod_sandbox(request).await {
                    tracing::warn!(pod = pod.name(), %error, "cannot stop a dead sandbox");
                }
            }
            Done::SandboxCreated(start::create_sandbox(&context, &pod, attempt).await)
        });
    }

    fn stop_sandbox(&mut self, id: String) {
        self.memory.is_sandbox_busy = true;
        let context = self.context.clone();
        self.tasks.spawn(async move {
            let request = StopPodSandboxRequest { pod_sandbox_id: id };
            Done::SandboxEnded(context.runtime.stop_pod_sandbox(request).await.map(drop))
        });
    }

    fn remove_sandbox(&mut self, id: String) {
        self.memory.is_sandbox_busy = true;
        let context = self.context.clone();
        self.tasks.spawn(async move {
            let request = RemovePodSandboxRequest { pod_sandbox_id: id };
            Done::SandboxEnded(context.runtime.remove_pod_sandbox(request).await.map(drop))
        });
    }

    fn start_container(&mut self, name: String, attempt: u32, now: Timestamp) {
        let Some(sandbox) = self.observed.sandbox() else { return };
        let cancel = CancellationToken::new();
        let start = Start {
            context: self.context.clone(),
            pod: allocated_pod(&self.pod, &self.memory),
            name: name.clone(),
            attempt,
            target: self.target_of(&name),
            sandbox_id: sandbox.id.clone(),
            sandbox_attempt: sandbox.attempt,
            pod_ips: self.pod_ips(),
            volumes: self.volumes.clone(),
            cancel: cancel.clone(),
        };
        let has_ended_before = self
            .observed
            .active(&name)
            .is_some_and(|active| matches!(active.state, ContainerState::Exited { .. }));
        let memory = self.memory.container(&name);
        memory.operation = Some(ContainerOperation::Starting);
        if has_ended_before {
            memory.crashes.advance(now);
        }
        self.starting.insert(name.clone(), cancel);
        self.tasks.spawn(async move { Done::ContainerStarted { name, result: start.run().await } });
    }

    /// The group around the container first grows and last shrinks, so that the container always fits in.
    fn resize_container(&mut self, id: String, name: String) {
        let Some(running) = self.observed.active(&name) else { return };
        let before = applied(&self.memory, running).cloned().unwrap_or_default();
        let pod = allocated_pod(&self.pod, &self.memory);
        let Some(container) = pod.container(&name).map(Cow::into_owned) else { return };
        self.memory.container(&name).operation = Some(ContainerOperation::Resizing);
        let message = format!("Pod resize started: container {name}");
        self.context.events.event(self.pod.object_ref(&()), EventType::Normal, "ResizeStarted", message);
        let context = self.context.clone();
        let sandbox = self.observed.sandbox().map(|sandbox| sandbox.id.clone()).unwrap_or_default();
        self.tasks.spawn(async move {
            let resources = wanted(&container);
            let result = resize::run(&context, &pod, &sandbox, &container, &id, before).await;
            Done::ContainerResized { name, result: result.map(|()| (id, resources)) }
        });
    }

    /// The running container that an ephemeral one is aimed at.
    fn target_of(&self, name: &str) -> Result<Option<String>, String> {
        let ephemeral = self.pod.ephemeral_containers().iter().find(|container| container.name == name);
        let target = ephemeral.and_then(|container| container.target_container_name.as_deref());
        let Some(target) = target.filter(|target| !target.is_empty()) else { return Ok(None) };
        let running = self.observed.active(target).filter(|container| container.is_running());
        running.map(|container| Some(container.id.clone())).ok_or_else(|| target.to_string())
    }

    fn remove_container(&mut self, id: String) {
        let Some(container) = self.observed.containers.iter().find(|container| container.id == id) else {
            return;
        };
        let directory = self.context.config.log_dir.join(crate::sandbox::log_directory(&self.pod));
        let logs = (directory.join(&container.name), format!("{}.log", container.attempt));
        let words =
            self.context.volumes.pod_directory(self.pod.uid()).join("containers").join(&container.name);
        let words = (words, format!("{}.message", container.attempt));
        // Gone from what we have seen, so that it is not asked for twice.
        self.observed.containers.retain(|container| container.id != id);
        let context = self.context.clone();
        self.tasks.spawn(async move {
            let request = RemoveContainerRequest { container_id: id };
            if let Err(error) = context.runtime.remove_container(request).await {
                tracing::warn!(%error, "cannot remove a dead container");
            }
            for (directory, name) in [logs, words] {
                if let Err(error) = remove_all_named(&directory, &name).await {
                    let directory = directory.display().to_string();
                    tracing::debug!(directory, name, %error, "cannot remove what a dead container wrote");
                }
            }
            Done::ContainerRemoved
        });
    }

    /// The API object goes last, when it tells the whole truth.
    fn delete_pod(&mut self, now: Timestamp) {
        let must_wait = self.next_try.is_some_and(|at| at > now);
        if self.is_deleting || must_wait || !self.has_told_all(now) {
            return;
        }
        self.is_deleting = true;
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), self.pod.namespace());
        let (name, uid) = (self.pod.name().to_string(), self.pod.uid().to_string());
        self.tasks.spawn(async move {
            let preconditions = Preconditions { uid: Some(uid), resource_version: None };
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(preconditions),
                ..DeleteParams::default()
            };
            Done::Deleted(pods.delete(&name, &params).await.map(drop))
        });
    }

    fn forget(&mut self, now: Timestamp) {
        if self.is_forgetting || self.next_try.is_some_and(|at| at > now) {
            return;
        }
        self.is_forgetting = true;
        let (context, uid) = (self.context.clone(), self.pod.uid().to_string());
        let logs = context.config.log_dir.join(crate::sandbox::log_directory(&self.pod));
        self.tasks.spawn(async move {
            if let Err(error) = tokio::fs::remove_dir_all(&logs).await
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(logs = %logs.display(), %error, "cannot remove the logs of a pod");
            }
            Done::Forgotten(remove_traces(&context, &uid).await)
        });
    }
}

/// Removes what the kubelet itself has made for a pod.
async fn remove_traces(context: &Context, uid: &str) -> io::Result<()> {
    context.volumes.remove_pod(uid).await?;
    context.user_namespaces.release(uid);
    if context.node.runtime.keeps_pod_groups() {
        return Ok(());
    }
    // The class of one that was found without its spec is not known.
    for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
        cgroup::remove(&cgroup_parent(&context.config.cgroup_parent, class, uid))?;
    }
    Ok(())
}

/// Removes a file and those that were rotated away from it: `0.log` and `0.log.20260102-030405`.
async fn remove_all_named(directory: &Path, name: &str) -> io::Result<()> {
    let mut entries = tokio::fs::read_dir(directory).await?;
    while let Some(entry) = entries.next_entry().await? {
        let file = entry.file_name();
        let rest = file.to_str().and_then(|file| file.strip_prefix(name));
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
            tokio::fs::remove_file(entry.path()).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rotated_logs_go_with_the_last_one() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["1.log", "1.log.20260102-030405", "11.log", "2.log"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        remove_all_named(directory.path(), "1.log").await.unwrap();
        let left = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut left: Vec<_> = left.collect();
        left.sort();
        assert_eq!(left, ["11.log", "2.log"]);
    }
}

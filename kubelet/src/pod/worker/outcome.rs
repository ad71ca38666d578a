//! Takes in what the worker's tasks bring back.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use client::events::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use kube::Resource;
use tokio::task::JoinError;

use super::Worker;
use crate::events::container_reference;
use crate::image::is_pull_failure;
use crate::pod::Signal;
use crate::pod::memory::{StartFailure, Volumes};
use crate::pod::start::StartError;
use crate::pod::view::PodView;
use crate::volume::{PodVolumes, VolumeError};

/// Upstream tries again what cannot be configured about this often.
const CONFIG_RETRY: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// What a task has done.
pub(super) enum Done {
    Volumes(Result<PodVolumes, VolumeError>),
    VolumesRemoved(io::Result<()>),
    SandboxCreated(Result<(), String>),
    SandboxEnded(Result<(), cri::Error>),
    ContainerStarted { name: String, result: Result<(), StartError> },
    ContainerStopped { name: String, result: Result<(), cri::Error> },
    ContainerRemoved,
    ContainerResized { name: String, result: Result<(String, ResourceRequirements), cri::Error> },
    Reported(Result<Box<Pod>, kube::Error>),
    Deleted(Result<(), kube::Error>),
    Forgotten(io::Result<()>),
}

impl Worker {
    pub(super) fn take_in(&mut self, done: Result<Done, JoinError>) {
        let now = Timestamp::now();
        let done = match done {
            Ok(done) => done,
            // A slower stop that a faster one has replaced.
            Err(error) if error.is_cancelled() => return,
            Err(error) => {
                tracing::error!(pod = self.pod.name(), %error, "a task of a pod's worker died");
                return;
            }
        };
        match done {
            Done::Volumes(result) => self.volumes_prepared(result, now),
            Done::VolumesRemoved(result) => match result {
                Ok(()) => self.memory.volumes = Volumes::Removed,
                Err(error) => {
                    tracing::warn!(pod = self.pod.name(), %error, "cannot remove the volumes of a pod");
                    self.memory.volumes = Volumes::RemovalFailed { retry_at: now + RETRY };
                }
            },
            Done::SandboxCreated(result) => self.sandbox_created(result, now),
            Done::SandboxEnded(result) => {
                self.must_look = true;
                self.memory.is_sandbox_busy = false;
                match result {
                    Err(error) if !error.is_not_found() => {
                        self.memory.sandbox_retry.failed(now);
                        self.warn("FailedKillPod", &format!("error killing pod: {error}"));
                    }
                    _ => self.memory.sandbox_retry.succeeded(),
                }
            }
            Done::ContainerStarted { name, result } => {
                self.starting.remove(&name);
                self.must_look = true;
                self.container_started(&name, result, now);
            }
            Done::ContainerStopped { name, result } => {
                self.stopping.remove(&name);
                self.memory.container(&name).operation = None;
                self.must_look = true;
                if let Err(error) = result {
                    let regarding = container_reference(&self.pod, &name);
                    let message =
                        format!("error killing pod: failed to \"KillContainer\" for \"{name}\": {error}");
                    self.context.events.event(regarding, EventType::Warning, "FailedKillPod", message);
                }
            }
            Done::ContainerRemoved => {}
            Done::ContainerResized { name, result } => self.container_resized(&name, result, now),
            Done::Reported(result) => self.reported(result, now),
            Done::Deleted(result) => match result {
                // The watch will say that it is gone, at once or when its last finalizer is.
                Ok(()) => {}
                Err(error) if client::is_not_found(&error) => self.is_gone = true,
                Err(error) => {
                    tracing::warn!(pod = self.pod.name(), %error, "cannot delete a pod that has ended");
                    self.is_deleting = false;
                    self.next_try = Some(now + RETRY);
                }
            },
            Done::Forgotten(result) => match result {
                Ok(()) => self.is_forgotten = true,
                Err(error) => {
                    tracing::warn!(pod = self.pod.name(), %error, "cannot remove the files of a pod");
                    self.is_forgetting = false;
                    self.next_try = Some(now + RETRY);
                }
            },
        }
    }

    fn volumes_prepared(&mut self, result: Result<PodVolumes, VolumeError>, now: Timestamp) {
        match result {
            Ok(volumes) => {
                self.report.refresh_again_at = None;
                self.volumes = volumes;
                self.watch_sources();
                if self.memory.volumes == Volumes::Preparing {
                    self.memory.volumes = Volumes::Ready;
                }
            }
            Err(error) => {
                self.warn("FailedMount", &error.to_string());
                if self.memory.volumes == Volumes::Preparing {
                    self.memory.volumes = Volumes::Failed { retry_at: now + RETRY };
                } else {
                    self.volumes_stale = true;
                    self.report.refresh_again_at = Some(now + RETRY);
                }
            }
        }
        self.report.refreshing = false;
    }

    /// Every source that changes is a signal.
    fn watch_sources(&mut self) {
        self.watching.abort_all();
        for watched in self.volumes.sources() {
            let mut changed = watched.changed();
            changed.mark_unchanged();
            let signals = self.own_signals.clone();
            self.watching.spawn(async move {
                while changed.changed().await.is_ok() && signals.send(Signal::Sources).await.is_ok() {}
            });
        }
        while self.watching.try_join_next().is_some() {}
    }

    fn sandbox_created(&mut self, result: Result<(), String>, now: Timestamp) {
        self.memory.is_sandbox_busy = false;
        self.must_look = true;
        match result {
            Ok(()) => self.memory.sandbox_retry.succeeded(),
            Err(error) => {
                self.memory.sandbox_retry.failed(now);
                self.warn("FailedCreatePodSandBox", &format!("Failed to create pod sandbox: {error}"));
            }
        }
    }

    fn container_started(&mut self, name: &str, result: Result<(), StartError>, now: Timestamp) {
        let memory = self.memory.container(name);
        memory.operation = None;
        match result {
            Ok(()) => {
                memory.start_failure = None;
                memory.pulls.reset();
            }
            Err(StartError::Cancelled) => {}
            Err(StartError::Failed { reason, message }) => {
                let delay = match reason {
                    _ if is_pull_failure(reason) => {
                        memory.pulls.advance(now);
                        memory.pulls.delay()
                    }
                    "RunContainerError" | "PostStartHookError" => {
                        memory.crashes.advance(now);
                        memory.crashes.delay()
                    }
                    _ => CONFIG_RETRY,
                };
                memory.start_failure = Some(StartFailure { reason, message, retry_at: now + delay });
            }
        }
    }

    fn container_resized(
        &mut self,
        name: &str,
        result: Result<(String, ResourceRequirements), cri::Error>,
        now: Timestamp,
    ) {
        let memory = self.memory.container(name);
        memory.operation = None;
        match result {
            Ok(applied) => {
                memory.applied = Some(applied);
                memory.resize_failure = None;
                let message = format!("Pod resize completed: container {name}");
                self.context.events.event(
                    self.pod.object_ref(&()),
                    EventType::Normal,
                    "ResizeCompleted",
                    message,
                );
            }
            Err(error) => {
                let message = format!("failed to resize container {name}: {error}");
                memory.resize_failure = Some((message.clone(), now + CONFIG_RETRY));
                self.warn("ResizeError", &message);
            }
        }
    }

    pub(super) fn warn(&self, reason: &str, message: &str) {
        self.context.events.event(self.pod.object_ref(&()), EventType::Warning, reason, message);
    }

    fn reported(&mut self, result: Result<Box<Pod>, kube::Error>, now: Timestamp) {
        match result {
            Ok(pod) => {
                self.report.succeeded();
                self.take_newer(Arc::from(pod));
            }
            // Gone, or another pod of the same name: the watch will say so.
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => {
                self.report.failed(now)
            }
            Err(error) => {
                tracing::warn!(pod = self.pod.name(), namespace = self.pod.namespace(), %error, "cannot report the status of a pod");
                self.report.failed(now);
            }
        }
    }
}

//! Reads what the runtime has of one pod into the kubelet's words.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use cri::v1::{
    ContainerFilter, ContainerState as CriState, ContainerStatus, ContainerStatusRequest,
    ListContainersRequest, ListPodSandboxRequest, Mount, PodSandbox, PodSandboxFilter, PodSandboxState,
    PodSandboxStatusRequest, Signal,
};
use cri::{Error, RuntimeService};
use jiff::Timestamp;

use super::observed::{ContainerState, Details, Observed, ObservedContainer, Sandbox};
use crate::container::config::annotation;
use crate::container::labels;
use crate::logs;

/// Upstream's limits for the last words of a container.
const LONGEST_MESSAGE: u64 = 4096;
const LONGEST_LOG_MESSAGE: usize = 2048;
const MOST_LOG_LINES: usize = 80;

/// Looks at one pod again and again; what cannot change any more is read once.
pub struct Inspector {
    uid: String,
    log_dir: PathBuf,
    addresses: HashMap<String, Vec<String>>,
    ended: HashMap<String, ObservedContainer>,
}

impl Inspector {
    /// For the pod with this uid, whose logs are in `log_dir`.
    pub fn new(uid: &str, log_dir: PathBuf) -> Inspector {
        Inspector { uid: uid.to_string(), log_dir, addresses: HashMap::new(), ended: HashMap::new() }
    }

    /// Everything that the runtime has of the pod.
    pub async fn look(&mut self, runtime: &dyn RuntimeService) -> Result<Observed, Error> {
        let label_selector = HashMap::from([(labels::POD_UID.to_string(), self.uid.clone())]);
        let filter =
            PodSandboxFilter { label_selector: label_selector.clone(), ..PodSandboxFilter::default() };
        let sandboxes = runtime.list_pod_sandbox(ListPodSandboxRequest { filter: Some(filter) }).await?.items;
        let filter = ContainerFilter { label_selector, ..ContainerFilter::default() };
        let containers =
            runtime.list_containers(ListContainersRequest { filter: Some(filter) }).await?.containers;

        let mut observed = Observed::default();
        for sandbox in sandboxes {
            observed.sandboxes.push(self.sandbox(runtime, sandbox).await?);
        }
        for container in containers {
            if let Some(ended) = self.ended.get(&container.id) {
                observed.containers.push(ended.clone());
                continue;
            }
            let request = ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
            let status = match runtime.container_status(request).await {
                Ok(response) => response.status.unwrap_or_default(),
                // Removed since it was listed.
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            let found = self.container(&container.pod_sandbox_id, status);
            if found.exit_code().is_some() {
                self.ended.insert(found.id.clone(), found.clone());
            }
            observed.containers.push(found);
        }
        self.ended.retain(|id, _| observed.containers.iter().any(|container| container.id == *id));
        self.addresses.retain(|id, _| observed.sandboxes.iter().any(|sandbox| sandbox.id == *id));
        Ok(observed.sorted())
    }

    async fn sandbox(&mut self, runtime: &dyn RuntimeService, sandbox: PodSandbox) -> Result<Sandbox, Error> {
        let ready = sandbox.state == PodSandboxState::SandboxReady as i32;
        if ready && !self.addresses.contains_key(&sandbox.id) {
            let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.id.clone(), verbose: false };
            match runtime.pod_sandbox_status(request).await {
                Ok(response) => {
                    let network = response.status.and_then(|status| status.network).unwrap_or_default();
                    let more = network.additional_ips.into_iter().map(|ip| ip.ip);
                    let ips = std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty());
                    self.addresses.insert(sandbox.id.clone(), ips.collect());
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Sandbox {
            ips: self.addresses.get(&sandbox.id).cloned().unwrap_or_default(),
            attempt: sandbox.metadata.map_or(0, |metadata| metadata.attempt),
            created_at: nanoseconds(sandbox.created_at),
            ready,
            id: sandbox.id,
        })
    }

    fn container(&self, sandbox_id: &str, status: ContainerStatus) -> ObservedContainer {
        let metadata = status.metadata.clone().unwrap_or_default();
        let state = match status.state() {
            CriState::ContainerCreated => ContainerState::Created,
            CriState::ContainerRunning => {
                ContainerState::Running { started_at: nanoseconds(status.started_at) }
            }
            CriState::ContainerUnknown => ContainerState::Unknown,
            CriState::ContainerExited => ContainerState::Exited {
                started_at: nanoseconds(status.started_at),
                finished_at: nanoseconds(status.finished_at),
                code: status.exit_code,
                reason: exit_reason(&status),
                message: self.last_words(&metadata.name, metadata.attempt, &status),
            },
        };
        let asked = annotation(&status.annotations, labels::IMAGE);
        let image = status.image.clone().map(|image| image.image).unwrap_or_default();
        ObservedContainer {
            sandbox_id: sandbox_id.to_string(),
            name: metadata.name,
            attempt: metadata.attempt,
            hash: annotation(&status.annotations, labels::HASH).to_string(),
            image: if asked.is_empty() { image } else { asked.to_string() },
            image_id: if status.image_ref.is_empty() {
                status.image_id.clone()
            } else {
                status.image_ref.clone()
            },
            state,
            details: details(&status),
            id: status.id,
        }
    }

    /// The termination message: its file, or the end of the log where the policy says so and it failed.
    fn last_words(&self, name: &str, attempt: u32, status: &ContainerStatus) -> String {
        let path = annotation(&status.annotations, labels::TERMINATION_MESSAGE_PATH);
        let mount = status.mounts.iter().find(|mount| mount.container_path == path && !path.is_empty());
        let message =
            mount.map(|mount| read_end(Path::new(&mount.host_path), LONGEST_MESSAGE)).unwrap_or_default();
        if !message.is_empty() {
            return message;
        }
        let policy = annotation(&status.annotations, labels::TERMINATION_MESSAGE_POLICY);
        if policy == "FallbackToLogsOnError" && status.exit_code != 0 {
            let log = self.log_dir.join(name).join(format!("{attempt}.log"));
            return logs::last_lines(&log, MOST_LOG_LINES, LONGEST_LOG_MESSAGE);
        }
        status.message.clone()
    }
}

fn details(status: &ContainerStatus) -> Details {
    let is_recursive = |mount: &&Mount| mount.readonly && mount.recursive_read_only;
    Details {
        user: status.user.clone().and_then(|user| user.linux),
        stop_signal: match status.stop_signal() {
            Signal::RuntimeDefault => None,
            signal => Some(signal.as_str_name().replace("PLUS", "+").replace("MINUS", "-")),
        },
        resources: serde_json::from_str(annotation(&status.annotations, labels::RESOURCES)).ok(),
        recursive_read_only: status
            .mounts
            .iter()
            .filter(is_recursive)
            .map(|mount| mount.container_path.clone())
            .collect(),
    }
}

fn exit_reason(status: &ContainerStatus) -> String {
    match (status.reason.as_str(), status.exit_code) {
        ("", 0) => "Completed".to_string(),
        ("", _) => "Error".to_string(),
        (reason, _) => reason.to_string(),
    }
}

/// The end of a file; empty when it cannot be read.
fn read_end(path: &Path, limit: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

fn nanoseconds(time: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(time)).unwrap_or_default()
}

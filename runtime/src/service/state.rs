//! What is known about pods and containers, in memory and on disk.
//!
//! ```text
//! pods/<sandbox>/config.pb         what CRI asked for
//! pods/<sandbox>/record.json       what came of it
//! pods/<sandbox>/shim.sock ...     see `shim::protocol`
//! pods/<sandbox>/containers/<container>/config.pb, record.json, spec.json, started.json, exit.json
//! ```
//!
//! ```text
//! Created ── the shim has started it ──▶ Running ── its first process ended ──▶ Exited
//!    └───────── it could not be started, or its pod is gone ─────────────────────▲
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cri::v1;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::containers::{KILL_PATIENCE, START_PATIENCE};
use crate::container::spec::User;
use crate::shim::protocol::{
    ContainerDirectory, Exit, Life, PodDirectory, Reply, Request, Started, read_json, write_json, write_whole,
};
use crate::shim::{self, Connection};

/// The file that tells what came of a request; a directory without it is what a crash has left.
pub(super) const RECORD: &str = "record.json";

/// All pods and containers of the node.
#[derive(Default)]
pub(super) struct Pods {
    pub(super) sandboxes: BTreeMap<String, Arc<Sandbox>>,
    pub(super) containers: BTreeMap<String, Arc<Container>>,
}

/// A pod: namespaces, an address, and a shim that holds them.
pub(super) struct Sandbox {
    pub(super) id: String,
    pub(super) directory: PodDirectory,
    pub(super) config: v1::PodSandboxConfig,
    pub(super) runtime_handler: String,
    record: Mutex<SandboxRecord>,
    limits: Mutex<PodLimits>,
    /// Whether its shim is there.
    pub(super) ready: watch::Sender<bool>,
    /// Why its shim cannot be talked to, though it lives: it speaks another protocol than this release.
    pub(super) refusal: OnceLock<String>,
}

/// The limits of a pod's group, as its owner, the kubelet, last told them.
#[derive(Clone, Default)]
struct PodLimits {
    overhead: Option<v1::LinuxContainerResources>,
    resources: Option<v1::LinuxContainerResources>,
}

/// What came of the request for a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SandboxRecord {
    pub(super) created_at: Timestamp,
    pub(super) runtime_handler: String,
    #[serde(default)]
    pub(super) address: Option<net::PodAddress>,
    /// The shim, by its number; whoever has it now may be another, which [`super::shims::process_of`] tells.
    #[serde(default)]
    pub(super) shim: Option<i32>,
    /// Stopped on purpose: nothing of it is to be brought back.
    #[serde(default)]
    pub(super) stopped: bool,
}

/// A container of a pod.
pub(super) struct Container {
    pub(super) id: String,
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) directory: ContainerDirectory,
    pub(super) config: v1::ContainerConfig,
    pub(super) record: ContainerRecord,
    resources: Mutex<v1::LinuxContainerResources>,
    pub(super) state: watch::Sender<ContainerState>,
    /// Start, stop and remove take their turns.
    pub(super) turn: tokio::sync::Mutex<()>,
}

/// What came of the request for a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    pub(super) created_at: Timestamp,
    /// The image's id.
    pub(super) image: String,
    /// A name of it with a digest, or its id.
    pub(super) image_reference: String,
    pub(super) stop_signal: i32,
    pub(super) user: User,
    pub(super) log: Option<PathBuf>,
    /// The container's control group.
    pub(super) cgroup: String,
}

/// Where a container stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ContainerState {
    Created,
    Running(Started),
    Exited { started_at: Option<Timestamp>, exit: Exit },
}

/// What happened to a container.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Happened {
    Started(Started),
    Exited(Exit),
}

impl ContainerState {
    /// The state after something happened; the same when it was known already.
    pub(super) fn after(self, event: Happened) -> ContainerState {
        use ContainerState::*;
        match (self, event) {
            (Created, Happened::Started(started)) => Running(started),
            (Created, Happened::Exited(exit)) => Exited { started_at: None, exit },
            (Running(started), Happened::Exited(exit)) => Exited { started_at: Some(started.at), exit },
            // The shim tells an end once to its subscriber and once through its file, and a short life may
            // have ended before its beginning is heard of.
            (Exited { exit, .. }, Happened::Started(started)) => {
                Exited { started_at: Some(started.at), exit }
            }
            (state @ (Running(_) | Exited { .. }), _) => state,
        }
    }
}

impl Sandbox {
    pub(super) fn new(
        id: String,
        directory: PodDirectory,
        config: v1::PodSandboxConfig,
        record: SandboxRecord,
    ) -> Sandbox {
        let runtime_handler = record.runtime_handler.clone();
        let linux = config.linux.clone().unwrap_or_default();
        let limits = PodLimits { overhead: linux.overhead, resources: linux.resources };
        Sandbox {
            id,
            directory,
            config,
            runtime_handler,
            record: Mutex::new(record),
            limits: Mutex::new(limits),
            ready: watch::Sender::new(false),
            refusal: OnceLock::new(),
        }
    }

    /// Reads a sandbox back; `None` when its creation was cut short.
    pub(super) fn load(id: &str, directory: PodDirectory) -> io::Result<Option<Sandbox>> {
        let (Some(config), Some(record)) =
            (read_message(directory.0.join("config.pb"))?, read_json(&directory.0.join(RECORD))?)
        else {
            return Ok(None);
        };
        Ok(Some(Sandbox::new(id.to_owned(), directory, config, record)))
    }

    pub(super) fn record(&self) -> SandboxRecord {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the record in memory and on disk.
    pub(super) fn update(&self, change: impl FnOnce(&mut SandboxRecord)) -> io::Result<()> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut record);
        write_json(&self.directory.0.join(RECORD), &*record)
    }

    /// Writes what was asked for.
    pub(super) fn save_config(&self) -> io::Result<()> {
        write_message(self.directory.0.join("config.pb"), &self.config)
    }

    /// What was asked for, with the limits of today.
    pub(super) fn current_config(&self) -> v1::PodSandboxConfig {
        let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.config_with(limits)
    }

    /// Remembers new limits of the pod's group; those that are not given stay.
    pub(super) fn change_limits(
        &self,
        overhead: Option<v1::LinuxContainerResources>,
        resources: Option<v1::LinuxContainerResources>,
    ) -> io::Result<()> {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.overhead = overhead.or(limits.overhead.take());
        limits.resources = resources.or(limits.resources.take());
        write_message(self.directory.0.join("config.pb"), &self.config_with(limits.clone()))
    }

    fn config_with(&self, limits: PodLimits) -> v1::PodSandboxConfig {
        let mut config = self.config.clone();
        if limits.overhead.is_some() || limits.resources.is_some() {
            let linux = config.linux.get_or_insert_default();
            (linux.overhead, linux.resources) = (limits.overhead, limits.resources);
        }
        config
    }

    /// A connection to the shim; fails when there is none, and when it is of a release that we do not understand.
    fn connect(&self) -> io::Result<Connection> {
        match self.refusal.get() {
            Some(refusal) => Err(io::Error::new(io::ErrorKind::Unsupported, refusal.clone())),
            None => shim::connect(&self.directory),
        }
    }

    /// Asks the shim for something; it answers within a time, or is taken for one that hangs. Exec ends with its
    /// connection.
    pub(super) async fn ask(
        &self,
        request: &Request,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<(Connection, Reply, Vec<OwnedFd>)> {
        let patience = match request {
            Request::Start { .. } | Request::Exec { .. } => START_PATIENCE,
            _ => KILL_PATIENCE,
        };
        let mut connection = self.connect()?;
        let answer = tokio::time::timeout(patience, connection.call(request, descriptors)).await;
        let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "the pod's shim does not answer");
        let (reply, descriptors) = answer.map_err(silent).flatten()?;
        Ok((connection, reply, descriptors))
    }

    pub(super) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    pub(super) fn host_network(&self) -> bool {
        let options = crate::container::plan::sandbox_namespaces(&self.config);
        crate::container::plan::is_node(options.map(|options| options.network))
    }
}

impl Container {
    pub(super) fn new(
        id: String,
        sandbox: Arc<Sandbox>,
        config: v1::ContainerConfig,
        record: ContainerRecord,
        state: ContainerState,
    ) -> Container {
        let directory = sandbox.directory.container(&id);
        let state = watch::Sender::new(state);
        let resources = config.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
        let resources = Mutex::new(resources);
        Container {
            id,
            sandbox,
            directory,
            config,
            record,
            resources,
            state,
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Reads a container back; `None` when its creation was cut short.
    pub(super) fn load(id: &str, sandbox: &Arc<Sandbox>) -> io::Result<Option<Container>> {
        let directory = sandbox.directory.container(id);
        let (Some(config), Some(record)) =
            (read_message(directory.0.join("config.pb"))?, read_json(&directory.0.join(RECORD))?)
        else {
            return Ok(None);
        };
        let container =
            Container::new(id.to_owned(), sandbox.clone(), config, record, ContainerState::Created);
        container.catch_up()?;
        Ok(Some(container))
    }

    /// Writes what was asked for and what came of it.
    pub(super) fn save(&self) -> io::Result<()> {
        write_message(self.directory.0.join("config.pb"), &self.config)?;
        write_json(&self.directory.0.join(RECORD), &self.record)
    }

    /// Its limits, as they were last given.
    pub(super) fn resources(&self) -> v1::LinuxContainerResources {
        self.resources.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers new limits; those that are not given stay.
    pub(super) fn change_resources(&self, change: v1::LinuxContainerResources) -> io::Result<()> {
        let mut resources = self.resources.lock().unwrap_or_else(PoisonError::into_inner);
        merge_resources(&mut resources, change);
        let mut config = self.config.clone();
        config.linux.get_or_insert_default().resources = Some(resources.clone());
        write_message(self.directory.0.join("config.pb"), &config)
    }

    /// Learns from the shim's files what happened meanwhile.
    pub(super) fn catch_up(&self) -> io::Result<()> {
        if let Some(started) = read_json(&self.directory.started())? {
            self.happened(Happened::Started(started));
        }
        if let Some(exit) = read_json(&self.directory.exit())? {
            self.happened(Happened::Exited(exit));
        }
        Ok(())
    }

    /// Learns what the shim could not write down.
    pub(super) fn lived(&self, life: &Life) {
        if let Some(started) = &life.started {
            self.happened(Happened::Started(started.clone()));
        }
        if let Some(exit) = &life.exit {
            self.happened(Happened::Exited(exit.clone()));
        }
    }

    /// Takes in what happened; whether it was news.
    pub(super) fn happened(&self, event: Happened) -> bool {
        self.state.send_if_modified(|state| {
            let after = state.clone().after(event);
            let is_news = after != *state;
            *state = after;
            is_news
        })
    }

    pub(super) fn state(&self) -> ContainerState {
        self.state.borrow().clone()
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(*self.state.borrow(), ContainerState::Running(_))
    }
}

/// Zero and empty mean not given.
fn merge_resources(known: &mut v1::LinuxContainerResources, change: v1::LinuxContainerResources) {
    let keep = |known: &mut i64, change: i64| {
        if change != 0 {
            *known = change;
        }
    };
    keep(&mut known.cpu_period, change.cpu_period);
    keep(&mut known.cpu_quota, change.cpu_quota);
    keep(&mut known.cpu_shares, change.cpu_shares);
    keep(&mut known.memory_limit_in_bytes, change.memory_limit_in_bytes);
    keep(&mut known.memory_swap_limit_in_bytes, change.memory_swap_limit_in_bytes);
    keep(&mut known.oom_score_adj, change.oom_score_adj);
    if !change.cpuset_cpus.is_empty() {
        known.cpuset_cpus = change.cpuset_cpus;
    }
    if !change.cpuset_mems.is_empty() {
        known.cpuset_mems = change.cpuset_mems;
    }
    known.unified.extend(change.unified);
}

fn read_message<M: prost::Message + Default>(path: PathBuf) -> io::Result<Option<M>> {
    match fs::read(path) {
        Ok(content) => M::decode(content.as_slice()).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_message(path: PathBuf, message: &impl prost::Message) -> io::Result<()> {
    write_whole(&path, &message.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> Started {
        Started { pid: 7, at: Timestamp::UNIX_EPOCH, warnings: Vec::new() }
    }

    fn exit(code: i32) -> Exit {
        Exit::of_process(code, false, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn an_end_is_final_and_remembers_the_beginning() {
        let ended =
            ContainerState::Created.after(Happened::Started(started())).after(Happened::Exited(exit(3)));
        assert_eq!(ended, ContainerState::Exited { started_at: Some(Timestamp::UNIX_EPOCH), exit: exit(3) });
        assert_eq!(ended.clone().after(Happened::Exited(exit(137))), ended);
    }

    #[test]
    fn news_may_come_in_the_wrong_order() {
        let ended =
            ContainerState::Created.after(Happened::Exited(exit(0))).after(Happened::Started(started()));
        assert_eq!(ended, ContainerState::Exited { started_at: Some(Timestamp::UNIX_EPOCH), exit: exit(0) });
    }
}

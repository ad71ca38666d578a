//! All that is known about a container before it starts; written by the server, read by the shim.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ids::IdMap;
use crate::sys::mount::Propagation;

/// A container to set up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// What runs in it.
    pub process: Process,
    /// Its root file system.
    pub root: Root,
    /// What is mounted into it, parents before children.
    pub volumes: Vec<Volume>,
    /// Device nodes beside those that every container has.
    pub devices: Vec<DeviceNode>,
    /// Paths that show nothing.
    pub masked_paths: Vec<PathBuf>,
    /// Paths that cannot be written.
    pub readonly_paths: Vec<PathBuf>,
    /// Whose processes it sees.
    pub pid: PidNamespace,
    /// Whether it has the pod's own IPC namespace and `/dev/shm`, or the node's.
    pub host_ipc: bool,
    /// The ids of the pod's own user namespace, where it has one.
    #[serde(default)]
    pub ids: Option<IdMap>,
    /// Sees and changes the machine as the node does: sysfs and control groups are writable.
    pub privileged: bool,
    /// Its control groups.
    pub cgroup: Membership,
    /// Whether it has a standard input, and whether that ends with the first client.
    pub stdin: Stdin,
    /// Where its output is logged, if anywhere.
    pub log: Option<PathBuf>,
    /// When the log goes on in a new file; never by itself without one.
    #[serde(default)]
    pub log_limit: Option<LogLimit>,
    /// Whether the times of its set-up are told.
    #[serde(default)]
    pub trace: bool,
}

/// How long logs may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimit {
    /// The size of a file.
    pub bytes: u64,
    /// How many files there may be, the one that is written to included.
    pub files: usize,
}

/// A process to run in a container, be it the first one or one by `exec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Where it starts.
    pub working_directory: PathBuf,
    /// Who it is.
    pub user: User,
    /// What it may do beyond its user.
    pub capabilities: Capabilities,
    /// Whether programs with special rights give it none.
    pub no_new_privileges: bool,
    /// A compiled filter of system calls, or none.
    pub seccomp: Option<PathBuf>,
    /// How likely it is chosen when memory runs out.
    pub oom_score_adj: Option<i32>,
    /// The number of files that it may open, where it is to differ from the shim's.
    pub open_files: Option<u64>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// The first size of its terminal, if that is known: columns and rows.
    #[serde(default)]
    pub terminal_size: Option<(u16, u16)>,
    /// What it is for the kernel's security module.
    #[serde(default)]
    pub label: Option<Label>,
}

/// What a process is for a security module of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Label {
    /// The name of a profile.
    AppArmor(String),
    /// `user:role:type:level`.
    SeLinux(String),
}

/// Numeric user and groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one included.
    pub groups: Vec<u32>,
}

/// Capability sets as masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The most that the process and its descendants can ever have.
    pub bounding: u64,
    /// What programs of an ordinary user have.
    pub ambient: u64,
}

/// The root file system: layers of the image and a writable one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Root {
    /// Image layers, topmost first.
    pub layers: Vec<PathBuf>,
    /// The directory of the writable layer, with `upper` and `work` in it.
    pub snapshot: PathBuf,
    /// Whether the container may not write to it.
    pub readonly: bool,
    /// The SELinux label of all its files.
    #[serde(default)]
    pub label: Option<String>,
    /// Whether the writable layer outlives the container's run: what is written to it must then be synced when
    /// the container asks for that.
    #[serde(default)]
    pub is_kept: bool,
}

/// A file tree that appears in the container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Where it comes from.
    pub source: Source,
    /// Where it appears.
    pub target: PathBuf,
    /// Whether it can be written.
    pub access: Access,
    /// How later mounts spread.
    pub propagation: Propagation,
    /// Whether the ids of its files are those inside the pod's user namespace.
    #[serde(default)]
    pub map_ids: bool,
}

/// Where a volume comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Source {
    /// A part of the node's file tree.
    Path(PathBuf),
    /// The files of an image.
    Image {
        /// Its layers, topmost first.
        layers: Vec<PathBuf>,
        /// The part of it that appears; all of it when empty.
        sub_path: PathBuf,
    },
}

/// Whether a volume can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Yes.
    Write,
    /// No, but what is mounted below it on the node keeps its own rule.
    Read,
    /// Nothing in it, however deep.
    ReadRecursively,
}

/// A device node in `/dev`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Where it appears.
    pub path: PathBuf,
    /// `c` or `b`.
    pub kind: char,
    /// The driver.
    pub major: u64,
    /// The driver's device.
    pub minor: u64,
    /// Permission bits.
    pub mode: u32,
    /// The user it belongs to.
    #[serde(default)]
    pub uid: u32,
    /// The group it belongs to.
    #[serde(default)]
    pub gid: u32,
}

/// Whose processes a container sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidNamespace {
    /// Only its own.
    Own,
    /// All of the pod.
    Pod,
    /// All of the node.
    Host,
    /// Those of another container of the pod.
    Container(String),
}

impl PidNamespace {
    /// Whether other containers are in there before.
    pub fn is_joined(&self) -> bool {
        matches!(self, PidNamespace::Pod | PidNamespace::Container(_))
    }
}

/// The control groups of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Membership {
    /// Version 1 directories, each with the name that it has in the container.
    pub split: Vec<(String, PathBuf)>,
    /// The version 2 directory.
    pub unified: Option<PathBuf>,
}

impl Membership {
    /// The file that counts kills for lack of memory.
    pub fn out_of_memory_file(&self) -> Option<PathBuf> {
        let split = self.split.iter().find(|(name, _)| name == "memory");
        split
            .map(|(_, directory)| directory.join("memory.oom_control"))
            .or_else(|| Some(self.unified.as_ref()?.join("memory.events")))
    }
}

/// What the standard input of a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// Empty.
    Null,
    /// Open for whoever attaches.
    Open,
    /// Open for the first who attaches; with him it ends.
    Once,
}

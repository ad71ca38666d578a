//! Takes the steps of [`super::setup`], in the process that becomes the container.
//!
//! The process is a fresh fork of the single-threaded shim. Whatever fails is told to the shim in one
//! sentence, and the process ends; when the program is executed, the shim sees the channel close.
//! [`volumes`] opens what is the node's, [`tree`] builds what the container sees, [`program`] becomes the program.

mod program;
mod tree;
mod volumes;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::setup::SetupStep;
use super::spec::Label;
use crate::sys::mount;
use crate::sys::open::{self, write_kernel_file, write_value};
use crate::sys::{poll, process, socket};
use crate::trace::{self, Actor, Recorder};

/// What steps hand to each other, and what the shim has prepared for them.
pub struct Stage {
    /// Standard input, output and error for a process without a terminal.
    streams: Option<[OwnedFd; 3]>,
    /// The pod's `/dev/shm`.
    shared_memory: Option<SharedMemory>,
    /// The pod's user namespace.
    user_namespace: Option<OwnedFd>,
    /// The pid namespace of others that the process is to join.
    pid_namespace: Option<OwnedFd>,
    /// Where a terminal's other side, or the reason of a failure, is sent.
    channel: OwnedFd,
    recorder: Recorder,
    volumes: BTreeMap<usize, OwnedFd>,
    root: Option<OwnedFd>,
    dev: Option<OwnedFd>,
    memory: Option<OwnedFd>,
    label: Option<OwnedFd>,
    filter: Option<(PathBuf, Vec<u8>)>,
}

/// The `/dev/shm` that the containers of a pod share.
pub enum SharedMemory {
    /// A mount that is nowhere in the node's tree.
    Detached(OwnedFd),
    /// On kernels that cannot clone such a one: where it is.
    Attached(PathBuf),
}

impl SharedMemory {
    /// The same memory, for one more container.
    pub fn try_clone(&self) -> io::Result<SharedMemory> {
        match self {
            SharedMemory::Detached(memory) => memory.try_clone().map(SharedMemory::Detached),
            SharedMemory::Attached(place) => Ok(SharedMemory::Attached(place.clone())),
        }
    }
}

/// What the shim prepares for a process.
pub struct Prepared {
    /// Standard input, output and error for a process without a terminal.
    pub streams: Option<[OwnedFd; 3]>,
    /// The pod's `/dev/shm`.
    pub shared_memory: Option<SharedMemory>,
    /// The pod's user namespace.
    pub user_namespace: Option<OwnedFd>,
    /// Where the process tells what the shim has to know.
    pub channel: OwnedFd,
    /// Whether it tells how long its steps took.
    pub trace: bool,
}

impl Stage {
    /// Nothing is done yet.
    pub fn new(prepared: Prepared) -> Stage {
        let Prepared { streams, shared_memory, user_namespace, channel, trace } = prepared;
        Stage {
            streams,
            shared_memory,
            user_namespace,
            pid_namespace: None,
            channel,
            recorder: Recorder::start(trace, Actor::Container),
            volumes: BTreeMap::new(),
            root: None,
            dev: None,
            memory: None,
            label: None,
            filter: None,
        }
    }

    /// Reads files of the node that a later step needs when the node is out of sight.
    pub fn prepare(&mut self, steps: &[SetupStep]) -> Result<(), Failure> {
        for step in steps {
            if let SetupStep::Filter(path) = step {
                let program = std::fs::read(path)
                    .map_err(failed(format!("read the seccomp filter {}", path.display())))?;
                self.filter = Some((path.clone(), program));
            }
        }
        Ok(())
    }

    /// Whose pid namespace the process will join, by a process of it. Its own stays what it is until it
    /// [goes there](SetupStep::GoAmongOthers).
    pub fn join_pids_of(&mut self, process: impl AsFd) -> io::Result<()> {
        process::join_namespaces(process, libc::CLONE_NEWPID)?;
        self.pid_namespace = Some(std::fs::File::open("/proc/self/ns/pid_for_children")?.into());
        Ok(())
    }

    /// Tells the shim why the program was not executed.
    pub fn tell_failure(&self, failure: &Failure) {
        self.tell(b'E', &failure.to_string());
    }

    /// Tells the shim what could not be had as asked for, but is no reason to fail.
    fn warn(&self, warning: &str) {
        self.tell(b'W', warning);
    }

    fn tell_times(&mut self) {
        if let Some(steps) = self.recorder.take() {
            self.tell(b'D', &trace::pack(&steps));
        }
    }

    /// Should this fail, the shim sees the end of a process that told nothing.
    fn tell(&self, kind: u8, text: &str) {
        let message = [&[kind], text.as_bytes()].concat();
        socket::send(&self.channel, &message, &[]).ok();
    }

    /// No descriptor of a file tree is open any more when the container's word decides where to go.
    fn let_go_of_trees(&mut self) {
        self.volumes.clear();
        (self.root, self.dev, self.memory) = (None, None, None);
        (self.shared_memory, self.user_namespace, self.pid_namespace) = (None, None, None);
    }

    fn root(&self) -> io::Result<BorrowedFd<'_>> {
        let missing = || io::Error::other("the root is not mounted yet");
        self.root.as_ref().map(AsFd::as_fd).ok_or_else(missing)
    }

    fn user_namespace(&self) -> io::Result<BorrowedFd<'_>> {
        let missing = || io::Error::other("the pod has no user namespace");
        self.user_namespace.as_ref().map(AsFd::as_fd).ok_or_else(missing)
    }
}

/// Why a container could not be set up: one sentence for its user.
#[derive(Debug)]
pub struct Failure {
    what: String,
    source: Option<io::Error>,
}

impl Failure {
    /// A failure that says all itself.
    pub fn new(what: impl Into<String>) -> Failure {
        Failure { what: what.into(), source: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{}: {}", self.what, describe(source)),
            None => f.write_str(&self.what),
        }
    }
}

/// The system's words as other runtimes print them: lower case, without the number.
pub fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

/// Turns an error of the system into a failure of what was tried.
pub fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    move |source| Failure { what: format!("failed to {}", what.into()), source: Some(source) }
}

/// Takes all steps; comes back only when one fails, for the last becomes another program.
pub fn carry_out(steps: Vec<SetupStep>, stage: &mut Stage) -> Result<(), Failure> {
    for step in steps {
        if let SetupStep::Execute { .. } = step {
            stage.tell_times();
        }
        let name = stage.recorder.is_on().then(|| step.name());
        take(step, stage)?;
        if let Some(name) = name {
            stage.recorder.mark(&name);
        }
    }
    Ok(())
}

fn take(step: SetupStep, stage: &mut Stage) -> Result<(), Failure> {
    use SetupStep::*;
    match step {
        JoinCgroups(directories) => join_cgroups(&directories),
        SetOomScore(score) => set_oom_score(stage, score).map_err(failed("set oom_score_adj")),
        LimitFiles(limit) => limit_files(stage, limit).map_err(failed("limit the number of open files")),
        OwnStreams(owner) => program::own_streams(stage, owner).map_err(failed("own the standard streams")),
        OpenVolume { index, source, access, propagation, map_ids } => {
            let volume = volumes::open_volume(stage, &source, access, propagation, map_ids)
                .map_err(failed(format!("mount {:?}", source.display().to_string())))?;
            stage.volumes.insert(index, volume);
            Ok(())
        }
        OpenSharedMemory { of_host } => {
            volumes::open_shared_memory(stage, of_host).map_err(failed("open /dev/shm"))
        }
        IsolateMounts => mount::isolate_all().map_err(failed("isolate the mount namespace")),
        MapLayers(directory) => {
            volumes::map_layers(stage, &directory).map_err(failed("map the ids of the image"))
        }
        OpenImage { index, layers, sub_path, place } => {
            let volume = volumes::open_image(&layers, &sub_path, &place)?;
            stage.volumes.insert(index, volume);
            Ok(())
        }
        MountRoot { root, owner } => {
            let mounted = volumes::mount_root(&root, owner).map_err(failed("mount the root file system"))?;
            stage.root = Some(mounted);
            Ok(())
        }
        MakeDev { devices, owner } => {
            stage.dev = Some(tree::make_dev(&devices, owner).map_err(failed("make /dev"))?);
            Ok(())
        }
        NewCgroupNamespace => {
            process::unshare(libc::CLONE_NEWCGROUP).map_err(failed("make a cgroup namespace"))
        }
        EnterUserNamespace { own_pids } => enter_user_namespace(stage, own_pids),
        AttachRoot => tree::attach_root(stage).map_err(failed("attach the root file system")),
        MountProc => tree::mount_proc(stage).map_err(failed("mount /proc")),
        MountSys { writable } => tree::mount_sys(stage, writable).map_err(failed("mount /sys")),
        MountCgroups { groups, writable } => {
            tree::mount_cgroups(stage, &groups, writable).map_err(failed("mount /sys/fs/cgroup"))
        }
        MountDev => tree::mount_dev(stage).map_err(failed("mount /dev")),
        MountSharedMemory => tree::mount_shared_memory(stage).map_err(failed("mount /dev/shm")),
        MountMessageQueues => tree::mount_message_queues(stage).map_err(failed("mount /dev/mqueue")),
        AttachVolume { index, target } => tree::attach_volume(stage, index, &target),
        Mask(path) => tree::mask(stage, &path).map_err(failed(format!("mask {}", path.display()))),
        Protect(path) => tree::protect(stage, &path).map_err(failed(format!("protect {}", path.display()))),
        ProtectRoot => tree::protect_root(stage).map_err(failed("make the root file system read-only")),
        OpenLabel(label) => open_label(stage, &label),
        EnterRoot => stage.root().and_then(mount::pivot_into).map_err(failed("enter the root file system")),
        NewSession => nix::unistd::setsid().map(drop).map_err(|error| failed("make a session")(error.into())),
        OpenTerminal { console, owner, size } => {
            program::open_terminal(stage, console, &owner, size).map_err(failed("open a terminal"))
        }
        TakeTerminal => program::take_terminal().map_err(failed("take the terminal")),
        ConnectStreams => program::connect_streams(stage).map_err(failed("connect the standard streams")),
        EnterDirectory(path) => {
            stage.let_go_of_trees();
            program::enter_directory(&path)
        }
        LimitCapabilities(capabilities) => {
            program::limit_capabilities(&capabilities).map_err(failed("limit the capabilities"))
        }
        Filter(path) => load_filter(stage, &path).map_err(failed("load the seccomp filter")),
        BecomeUser(user) => program::become_user(&user).map_err(failed(format!("become user {}", user.uid))),
        KeepRightToFilter { capabilities, user } => {
            program::keep_right_to_filter(&capabilities, user).map_err(failed("reduce the capabilities"))
        }
        GoAmongOthers => go_among_others(stage).map_err(failed("join the pid namespace")),
        SetCapabilities { capabilities, user } => {
            program::set_capabilities(&capabilities, user).map_err(failed("set the capabilities"))
        }
        ApplyLabel(label) => apply_label(stage, &label),
        NoNewPrivileges => process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(failed("set no_new_privs")),
        ResetSignals => process::reset_signals().map_err(failed("reset signals")),
        CloseDescriptors => process::close_on_exec_from(3).map_err(failed("close descriptors")),
        Execute { args, env } => Err(program::execute(&args, &env)),
    }
}

fn join_cgroups(directories: &[PathBuf]) -> Result<(), Failure> {
    for directory in directories {
        // `tasks` with 0 moves only the caller, for which the kernel need not stop the whole machine's
        // forks and exits; this process has a single thread, so that it is all of it.
        write_kernel_file(&directory.join("tasks"), "0")
            .map_err(failed(format!("join {}", directory.display())))?;
    }
    Ok(())
}

/// Without CAP_SYS_RESOURCE the score can only grow: it then stays the shim's, which is the nearest allowed.
fn set_oom_score(stage: &Stage, score: i32) -> io::Result<()> {
    let file = open::writable_proc_file(Path::new("self/oom_score_adj"))?;
    match write_value(file, &score.clamp(-1000, 1000).to_string()) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => {
            stage.warn(&format!("oom_score_adj {score} is not permitted here: it stays the shim's"));
            Ok(())
        }
        result => result,
    }
}

/// Only a privileged shim may raise the limit; then as far as it goes.
fn limit_files(stage: &Stage, limit: u64) -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    match setrlimit(Resource::RLIMIT_NOFILE, limit, limit) {
        Err(nix::Error::EPERM) => {
            stage.warn(&format!("{limit} open files are not permitted here: the limit stays at {most}"));
            Ok(setrlimit(Resource::RLIMIT_NOFILE, limit.min(most), most)?)
        }
        result => Ok(result?),
    }
}

/// Becomes root of the pod. A new pid namespace counts only for children, so that one more process is needed: it
/// takes this one's place as a child of the shim.
fn enter_user_namespace(stage: &Stage, own_pids: bool) -> Result<(), Failure> {
    stage
        .user_namespace()
        .and_then(|namespace| process::join_namespaces(namespace, libc::CLONE_NEWUSER))
        .map_err(failed("enter the pod's user namespace"))?;
    if own_pids {
        go_on_in_new_process(stage, libc::CLONE_NEWPID).map_err(failed("make a pid namespace"))?;
    }
    process::become_user(0, 0, &[0]).map_err(failed("become root of the pod"))?;
    // A change of user forgets whom to follow.
    process::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
        .and_then(|()| process::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP))
        .map_err(failed("make mount and control group namespaces"))
}

/// Who is in a pid namespace was born there, so that one more process is needed here too. Whatever is open in it,
/// others may get hold of.
fn go_among_others(stage: &Stage) -> io::Result<()> {
    process::close_from(3, &stage.channel)?;
    go_on_in_new_process(stage, 0)?;
    process::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
}

/// Takes this process's place as a child of the shim.
fn go_on_in_new_process(stage: &Stage, namespaces: libc::c_int) -> io::Result<()> {
    let (told, tell) = poll::pipe()?;
    match process::fork_sibling(namespaces)? {
        Some(child) => {
            let sent = socket::send(&stage.channel, format!("P{}", child.pid).as_bytes(), &[child.pidfd]);
            // Only a process that the shim knows of may go on; and then only its end of the channel is open, for the
            // shim sees the program's beginning by that.
            let gone_on = sent
                .and_then(|_| process::close_from(0, &tell))
                .and_then(|()| Ok(nix::unistd::write(&tell, b"!")?));
            process::exit_now(if gone_on.is_ok() { 0 } else { 1 })
        }
        None => {
            drop(tell);
            match nix::unistd::read(&told, &mut [0])? {
                1 => Ok(()),
                _ => Err(io::Error::other("the shim could not be told")),
            }
        }
    }
}

fn open_label(stage: &mut Stage, label: &Label) -> Result<(), Failure> {
    let places = match label {
        Label::AppArmor(_) => &["self/attr/apparmor/exec", "self/attr/exec"][..],
        Label::SeLinux(_) => &["self/attr/exec"],
    };
    let mut outcome = Err(io::Error::from_raw_os_error(libc::ENOENT));
    for place in places {
        outcome = open::writable_proc_file(Path::new(place));
        if outcome.is_ok() {
            break;
        }
    }
    stage.label = Some(outcome.map_err(failed("reach the kernel's security module"))?);
    Ok(())
}

fn apply_label(stage: &Stage, label: &Label) -> Result<(), Failure> {
    let (what, value) = match label {
        Label::AppArmor(profile) => {
            (format!("apply apparmor profile {profile:?}"), format!("exec {profile}"))
        }
        Label::SeLinux(label) => (format!("set process label {label:?}"), label.clone()),
    };
    let file = stage.label.as_ref().ok_or_else(|| Failure::new("the security label was not prepared"))?;
    write_value(file, &value).map_err(failed(what))
}

fn load_filter(stage: &Stage, path: &Path) -> io::Result<()> {
    match &stage.filter {
        Some((prepared, program)) if prepared == path => process::load_seccomp(program),
        _ => Err(io::Error::other("the filter was not prepared")),
    }
}

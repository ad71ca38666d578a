//! The pod's namespaces, made and held by the shim being in them.
//!
//! A pod with a user namespace of its own has a holder: a child born in that namespace, which owns the network, IPC
//! and UTS namespaces made with it. The shim joins these but stays the node's root, for it has to open for the
//! containers what only the node's root may.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::protocol::{PodDirectory, Settings};
use crate::container::carry_out::{Failure, SharedMemory, failed};
use crate::container::ids::{IdMap, render};
use crate::sys::mount::{self, Filesystem, attribute};
use crate::sys::open::{self, write_kernel_file};
use crate::sys::process::{self, Child, CommandLine};
use crate::sys::socket;
use crate::trace::Recorder;

/// What the containers of a pod share beside the namespaces that the shim is in.
pub struct Shared {
    /// `/dev/shm`, unless the pod has the node's.
    pub memory: Option<SharedMemory>,
    /// The first process of a pid namespace, if the pod has one of its own.
    pub pause: Option<Child>,
    /// The user namespace, if the pod has one of its own.
    pub users: Option<OwnedFd>,
    /// The namespaces that the shim came from, if it is to go back there at its end.
    pub home: Vec<OwnedFd>,
    /// What the shim's children, whom containers may see, do not show.
    pub command_line: Option<CommandLine>,
}

/// Makes what the settings ask for.
pub fn make(
    settings: &Settings,
    directory: &PodDirectory,
    recorder: &mut Recorder,
) -> Result<Shared, Failure> {
    process::prctl(libc::PR_SET_DUMPABLE, 0).map_err(failed("hide the shim from its containers"))?;
    process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(failed("adopt orphans"))?;
    for (_, group) in &settings.group.split {
        // Moving oneself by `tasks` spares the kernel from stopping all forks of the machine.
        write_kernel_file(&group.join("tasks"), "0").map_err(failed(format!("join {}", group.display())))?;
    }
    // In its version 2 group the shim was born.
    recorder.mark("JoinCgroups");
    let home = if settings.exit_command.is_empty() { &[][..] } else { &["net", "ipc", "uts"] };
    let open = |name: &&str| File::open(format!("/proc/self/ns/{name}")).map(OwnedFd::from);
    let home = home.iter().map(open).collect::<io::Result<_>>();
    let home = home.map_err(failed("hold the namespaces that the shim came from"))?;
    // A kernel that does not tell leaves them as they are.
    let command_line = CommandLine::find().ok();
    if let Some(process) = settings.join_network {
        join_network(process).map_err(failed("join the other container's network"))?;
    }
    let namespaces = wanted_namespaces(settings);
    let (users, holder) = match &settings.ids {
        Some(ids) => {
            let (users, holder) = make_with_users(settings, ids, namespaces, command_line)?;
            (Some(users), holder)
        }
        None => {
            process::unshare(namespaces).map_err(failed("make the pod's namespaces"))?;
            (None, None)
        }
    };
    recorder.mark("MakeNamespaces");
    if let Some(hostname) = &settings.hostname {
        nix::unistd::sethostname(hostname).map_err(|error| failed("set the hostname")(error.into()))?;
    }
    if namespaces & libc::CLONE_NEWNET != 0 {
        socket::raise_loopback().map_err(failed("raise the loopback device"))?;
    }
    if users.is_none() {
        set_sysctls(&settings.sysctls)?;
    }
    recorder.mark("SetUpNamespaces");
    let memory = match settings.host_ipc {
        true => None,
        false => Some(shared_memory(directory, settings.ids.as_ref())?),
    };
    recorder.mark("MountSharedMemory");
    let pause = match holder {
        None if settings.shared_pid => Some(start_pause(command_line)?),
        holder => holder,
    };
    recorder.mark("StartPause");
    Ok(Shared { memory, pause, users, home, command_line })
}

fn wanted_namespaces(settings: &Settings) -> libc::c_int {
    let mut namespaces = 0;
    if !settings.host_network && settings.join_network.is_none() {
        namespaces |= libc::CLONE_NEWNET;
    }
    if !settings.host_ipc {
        namespaces |= libc::CLONE_NEWIPC;
    }
    if settings.hostname.is_some() {
        namespaces |= libc::CLONE_NEWUTS;
    }
    namespaces
}

/// The server has made sure that these are the pod's own to set.
fn set_sysctls(sysctls: &[(String, String)]) -> Result<(), Failure> {
    for (file, value) in sysctls {
        open::writable_proc_file(&Path::new("sys").join(file))
            .and_then(|opened| open::write_value(opened, value))
            .map_err(failed(format!("set sysctl {file:?} to {value:?}")))?;
    }
    Ok(())
}

/// Makes the user namespace and those that belong to it, and joins the latter. The holder stays as the first
/// process of the pod's pid namespace, where it has one.
fn make_with_users(
    settings: &Settings,
    ids: &IdMap,
    namespaces: libc::c_int,
    command_line: Option<CommandLine>,
) -> Result<(OwnedFd, Option<Child>), Failure> {
    let (ours, theirs) = socket::message_pair().map_err(failed("make a channel"))?;
    let pids = if settings.shared_pid { libc::CLONE_NEWPID } else { 0 };
    let forked = process::fork(libc::CLONE_NEWUSER | namespaces | pids, None);
    let Some(holder) = forked.map_err(failed("make the pod's user namespace"))? else {
        drop(ours);
        hold(&theirs, settings, command_line)
    };
    drop(theirs);
    for (file, ranges) in [("uid_map", &ids.uids), ("gid_map", &ids.gids)] {
        open::writable_proc_file(&Path::new(&holder.pid.to_string()).join(file))
            .and_then(|opened| open::write_value(opened, &render(ranges)))
            .map_err(failed(format!("write the {file} of the pod's user namespace")))?;
    }
    socket::send(&ours, b"!", &[]).map_err(failed("start the holder of the pod's user namespace"))?;
    let mut words = [0; 4096];
    let length = socket::receive(&ours, &mut words, &mut Vec::new());
    match &words[..length.map_err(failed("hear of the pod's user namespace"))?] {
        b"!" => {}
        [] => return Err(Failure::new("the holder of the pod's user namespace died")),
        failure => return Err(Failure::new(String::from_utf8_lossy(failure))),
    }
    let users = File::open(format!("/proc/{}/ns/user", holder.pid));
    let users = users.map_err(failed("open the pod's user namespace"))?.into();
    process::join_namespaces(&holder.pidfd, namespaces).map_err(failed("join the pod's namespaces"))?;
    if settings.shared_pid {
        return Ok((users, Some(holder)));
    }
    process::pidfd_signal(&holder.pidfd, libc::SIGKILL).map_err(failed("end the holder"))?;
    process::wait_pidfd(&holder.pidfd).map_err(failed("bury the holder"))?;
    Ok((users, None))
}

/// Kernel parameters of the IPC namespace may be set by its own root alone, which is not the node's.
fn hold(channel: &OwnedFd, settings: &Settings, command_line: Option<CommandLine>) -> ! {
    let prepare = || -> Result<(), Failure> {
        // The maps are written by now.
        socket::receive(channel.as_fd(), &mut [0; 1], &mut Vec::new()).map_err(failed("wait for ids"))?;
        process::become_user(0, 0, &[0]).map_err(failed("become root of the pod"))?;
        set_sysctls(&settings.sysctls)
    };
    let words = match prepare() {
        Ok(()) => "!".to_owned(),
        Err(failure) => failure.to_string(),
    };
    if socket::send(channel, words.as_bytes(), &[]).is_err() {
        process::exit_now(1);
    }
    pause(command_line)
}

fn join_network(process: i32) -> io::Result<()> {
    process::join_namespaces(process::pidfd_open(process)?, libc::CLONE_NEWNET)
}

fn shared_memory(directory: &PodDirectory, ids: Option<&IdMap>) -> Result<SharedMemory, Failure> {
    let make = || -> io::Result<SharedMemory> {
        let filesystem = Filesystem::open(c"tmpfs")?;
        filesystem.set(c"mode", Path::new("1777"))?.set(c"size", Path::new("65536k"))?;
        if let Some(root) = ids.and_then(|ids| ids.owner(0, 0)) {
            let (uid, gid) = (root.uid.to_string(), root.gid.to_string());
            filesystem.set(c"uid", Path::new(&uid))?.set(c"gid", Path::new(&gid))?;
        }
        let memory = filesystem.mount(attribute::NO_SUID | attribute::NO_DEVICES | attribute::NO_EXEC)?;
        if mount::clone_tree_at(&memory, false).is_ok() {
            return Ok(SharedMemory::Detached(memory));
        }
        // Before Linux 6.15 a mount that is nowhere cannot be cloned: it then needs a place.
        let place = directory.shared_memory();
        std::fs::create_dir_all(&place)?;
        mount::attach(&memory, open::directory(&place)?)?;
        Ok(SharedMemory::Attached(place))
    };
    make().map_err(failed("mount the pod's /dev/shm"))
}

/// The first process of the shared pid namespace: it waits for orphans, for ever.
fn start_pause(command_line: Option<CommandLine>) -> Result<Child, Failure> {
    match process::fork(libc::CLONE_NEWPID, None).map_err(failed("make the pod's pid namespace"))? {
        Some(child) => Ok(child),
        None => pause(command_line),
    }
}

/// A container that may trace the processes of its pod looks through them as `/proc/1/root`.
fn hide_the_node() -> io::Result<()> {
    process::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP)?;
    mount::isolate_all()?;
    let nothing = Filesystem::open(c"tmpfs")?;
    nothing.set(c"size", Path::new("4k"))?;
    let attributes = attribute::READ_ONLY | attribute::NO_SUID | attribute::NO_DEVICES | attribute::NO_EXEC;
    let nothing = nothing.mount(attributes)?;
    mount::attach(&nothing, open::directory(Path::new("/"))?)?;
    mount::pivot_into(&nothing)
}

fn pause(command_line: Option<CommandLine>) -> ! {
    if let Some(command_line) = command_line {
        // All containers of the pod see this process: paths of the node are none of their business.
        command_line.replace(c"pause");
    }
    let hidden = hide_the_node();
    // It must not keep the shim's socket open, nor outlive the shim.
    process::close_all();
    let ready = hidden
        .and_then(|()| process::reset_signals())
        // Whoever may trace it would have its rights.
        .and_then(|()| process::give_up_capabilities())
        .and_then(|()| process::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong));
    if ready.is_err() {
        process::exit_now(1);
    }
    loop {
        // Sleeps until a child ends; with none, until a signal comes.
        if let Err(error) = process::wait_any()
            && error.raw_os_error() == Some(libc::ECHILD)
        {
            process::wait_for_child_signal();
        }
    }
}

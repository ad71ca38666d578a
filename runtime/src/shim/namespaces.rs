//! The pod's namespaces, made and held by the shim being in them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::protocol::{PodDirectory, Settings};
use crate::container::carry_out::{Failure, SharedMemory, failed};
use crate::sys::mount::{self, Filesystem, attribute};
use crate::sys::open::write_kernel_file;
use crate::sys::process::{self, Child};

/// What the containers of a pod share beside the namespaces that the shim is in.
pub struct Shared {
    /// `/dev/shm`, unless the pod has the node's.
    pub memory: Option<SharedMemory>,
    /// The first process of a pid namespace, if the pod has one of its own.
    pub pause: Option<Child>,
    /// The pid namespace to come back to after joining another one for a child.
    pub own_pid: OwnedFd,
    /// The namespaces that the shim came from, if it is to go back there at its end.
    pub home: Vec<OwnedFd>,
}

/// Makes what the settings ask for.
pub fn make(settings: &Settings, directory: &PodDirectory) -> Result<Shared, Failure> {
    process::prctl(libc::PR_SET_DUMPABLE, 0).map_err(failed("hide the shim from its containers"))?;
    process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(failed("adopt orphans"))?;
    for (_, group) in &settings.group.split {
        // Moving oneself by `tasks` spares the kernel from stopping all forks of the machine.
        write_kernel_file(&group.join("tasks"), "0").map_err(failed(format!("join {}", group.display())))?;
    }
    if let Some(group) = &settings.group.unified {
        write_kernel_file(&group.join("cgroup.procs"), "0")
            .map_err(failed(format!("join {}", group.display())))?;
    }
    let home = if settings.exit_command.is_empty() { &[][..] } else { &["net", "ipc", "uts"] };
    let open = |name: &&str| File::open(format!("/proc/self/ns/{name}")).map(OwnedFd::from);
    let home = home.iter().map(open).collect::<io::Result<_>>();
    let home = home.map_err(failed("hold the namespaces that the shim came from"))?;
    let mut namespaces = 0;
    if let Some(process) = settings.join_network {
        join_network(process).map_err(failed("join the other container's network"))?;
    } else if !settings.host_network {
        namespaces |= libc::CLONE_NEWNET;
    }
    if !settings.host_ipc {
        namespaces |= libc::CLONE_NEWIPC;
    }
    if settings.hostname.is_some() {
        namespaces |= libc::CLONE_NEWUTS;
    }
    process::unshare(namespaces).map_err(failed("make the pod's namespaces"))?;
    if let Some(hostname) = &settings.hostname {
        nix::unistd::sethostname(hostname).map_err(|error| failed("set the hostname")(error.into()))?;
    }
    if namespaces & libc::CLONE_NEWNET != 0 {
        crate::sys::socket::raise_loopback().map_err(failed("raise the loopback device"))?;
    }
    for (name, value) in &settings.sysctls {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        write_kernel_file(&path, value).map_err(failed(format!("set sysctl {name:?} to {value:?}")))?;
    }
    let memory = if settings.host_ipc { None } else { Some(shared_memory(directory)?) };
    let own_pid = File::open("/proc/self/ns/pid").map_err(failed("open the pid namespace"))?.into();
    let pause = if settings.shared_pid { Some(start_pause()?) } else { None };
    Ok(Shared { memory, pause, own_pid, home })
}

fn join_network(process: i32) -> io::Result<()> {
    process::join_namespaces(process::pidfd_open(process)?, libc::CLONE_NEWNET)
}

fn shared_memory(directory: &PodDirectory) -> Result<SharedMemory, Failure> {
    let make = || -> io::Result<SharedMemory> {
        let filesystem = Filesystem::open(c"tmpfs")?;
        filesystem.set(c"mode", Path::new("1777"))?.set(c"size", Path::new("65536k"))?;
        let memory = filesystem.mount(attribute::NO_SUID | attribute::NO_DEVICES | attribute::NO_EXEC)?;
        if mount::clone_tree_at(&memory, false).is_ok() {
            return Ok(SharedMemory::Detached(memory));
        }
        // Before Linux 6.15 a mount that is nowhere cannot be cloned: it then needs a place.
        let place = directory.shared_memory();
        std::fs::create_dir_all(&place)?;
        mount::attach(&memory, crate::sys::open::directory(&place)?)?;
        Ok(SharedMemory::Attached(place))
    };
    make().map_err(failed("mount the pod's /dev/shm"))
}

/// The first process of the shared pid namespace: it waits for orphans, for ever.
fn start_pause() -> Result<Child, Failure> {
    match process::fork(libc::CLONE_NEWPID, None).map_err(failed("make the pod's pid namespace"))? {
        Some(child) => Ok(child),
        None => pause(),
    }
}

fn pause() -> ! {
    // It must not keep the shim's socket open, nor outlive the shim.
    process::close_all();
    let ready = process::reset_signals()
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

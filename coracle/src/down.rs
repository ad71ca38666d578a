//! `coracle down` and `coracle reset`: the way back.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::{AsFd, FromRawFd, OwnedFd},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    libc,
    mount::{MntFlags, umount2},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{checks, cli::DownArgs, containers, kubeconfig, progress::Progress, server, settings::Place};

/// The word beside the pid of a runtime that runs alone.
const RUNTIME: &str = "runtime";

/// A server that runs, found by the lock that it holds.
pub(crate) struct Running {
    /// Its process.
    pub(crate) pid: u32,
    /// What it is.
    pub(crate) role: Role,
}

/// What runs at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A whole cluster.
    Cluster,
    /// The container runtime alone.
    Runtime,
}

/// The lock of a running server. Whatever way the server ends, the kernel lets go of it.
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Running {
    /// The server at this place, if one runs. One that has been killed and still holds its files is waited for.
    pub(crate) fn find(place: &Place) -> Result<Option<Running>> {
        let Some(running) = Running::holder(place)? else { return Ok(None) };
        if !running.is_ending() {
            return Ok(Some(running));
        }
        terminate(running.pid, Duration::from_secs(10))?;
        Running::holder(place)
    }

    /// Whoever holds the lock.
    fn holder(place: &Place) -> Result<Option<Running>> {
        let path = place.lock();
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_unlocked_again) => Ok(None),
            Err((_, Errno::EWOULDBLOCK)) => {
                let mut words = text.split_whitespace();
                let pid = words.next().unwrap_or_default().parse();
                let pid = pid.with_context(|| format!("no pid in {}", path.display()))?;
                let role = if words.next() == Some(RUNTIME) { Role::Runtime } else { Role::Cluster };
                Ok(Some(Running { pid, role }))
            }
            Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// Whether the process has been killed and only has not gone yet: it holds its lock to the very end.
    fn is_ending(&self) -> bool {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.pid));
        let (Ok(status), Ok(stat)) = (read("status"), read("stat")) else { return true };
        is_killed(&status) || is_exiting(&stat)
    }
}

/// Whether SIGKILL waits for a process, by its `/proc/PID/status`.
fn is_killed(status: &str) -> bool {
    let pending =
        status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")));
    let kill = 1_u64 << (Signal::SIGKILL as u32 - 1);
    pending.filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok()).any(|mask| mask & kill != 0)
}

/// Whether a process has begun to exit, by the flags in its `/proc/PID/stat`.
fn is_exiting(stat: &str) -> bool {
    const PF_EXITING: u64 = 4;
    // After the name, which may hold anything: state, parent, group, session, terminal, its group, flags.
    let flags = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(6));
    flags.and_then(|flags| flags.parse::<u64>().ok()).is_none_or(|flags| flags & PF_EXITING != 0)
}

impl Lock {
    /// Takes the place for this process.
    pub(crate) fn take(place: &Place, role: Role) -> Result<Lock> {
        let path = place.lock();
        std::fs::create_dir_all(&place.run_dir)
            .with_context(|| format!("cannot create {}", place.run_dir.display()))?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let lock = |file| Flock::lock(file, FlockArg::LockExclusiveNonblock);
        let locked = match lock(file) {
            // Whoever has been killed holds it until he is gone, and is waited for.
            Err((file, Errno::EWOULDBLOCK)) if Running::find(place)?.is_none() => lock(file),
            locked => locked,
        };
        let mut file = match locked {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => {
                bail!("another server runs in {}: stop it with `coracle down`", place.data_dir.display())
            }
            Err((_, error)) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
        };
        file.set_len(0)
            .and_then(|()| match role {
                Role::Cluster => writeln!(file, "{}", std::process::id()),
                Role::Runtime => writeln!(file, "{} {RUNTIME}", std::process::id()),
            })
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Lock { _file: file })
    }
}

/// Stops the server and all pods; what is stored stays.
pub(crate) fn down(args: &DownArgs) -> Result<()> {
    checks::root("stopping a cluster")?;
    let place = Place::new(&args.place)?;
    let mut progress = Progress::new();
    stop_server(&place, &mut progress)?;
    progress.step("Stopping the pods");
    let stopped = runtime()?.block_on(server::stop_pods(&place, Duration::from_secs(args.grace)));
    stopped.context("cannot stop the pods")?;
    progress.done();
    println!("The cluster is stopped; `coracle up` starts it again, `coracle reset` removes what it stored.");
    Ok(())
}

/// Removes every trace of the cluster.
pub(crate) fn reset(args: &DownArgs) -> Result<()> {
    checks::root("removing a cluster")?;
    let place = Place::new(&args.place)?;
    // Before anything is stopped for nothing.
    for dir in [&place.run_dir, &place.data_dir] {
        find(dir)?;
    }
    let mut progress = Progress::new();
    stop_server(&place, &mut progress)?;
    progress.step("Removing pods, images and control groups");
    // Before anything is removed: what is mounted there is not ours to delete.
    for dir in [&place.run_dir, &place.data_dir] {
        unmount_below(dir)?;
    }
    let containers = containers::place(&place, ctr::DEFAULT_CIDR.parse()?)?;
    runtime()?.block_on(ctr::reset(&containers)).context("cannot remove the containers")?;
    runtime()?.block_on(server::reset_runtime(&place)).context("cannot remove the pods")?;
    progress.step("Removing links, addresses and packet filter rules");
    runtime()?.block_on(async {
        kube_proxy::cleanup().await.context("cannot remove the service rules")?;
        let network = server::pod_network(&place, server::ANY_CIDR.parse()?)?;
        network.cleanup().await.context("cannot remove the pod network")
    })?;
    progress.step("Removing data");
    for dir in [&place.run_dir, &place.data_dir] {
        remove(dir)?;
    }
    if let Some(file) = kubeconfig::user_file() {
        kubeconfig::remove_from(&file)?;
    }
    progress.done();
    println!("Every trace of the cluster is removed.");
    Ok(())
}

fn stop_server(place: &Place, progress: &mut Progress) -> Result<()> {
    let Some(running) = Running::find(place)? else { return Ok(()) };
    progress.step("Stopping the server");
    terminate(running.pid, Duration::from_secs(10))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Asks a process to end and sees that it does. It need not be our child.
pub(crate) fn terminate(pid: u32, patience: Duration) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid).context("no process has such a pid")?);
    let Some(process) = pidfd(pid)? else { return Ok(()) };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        match kill(pid, signal) {
            Err(Errno::ESRCH) => return Ok(()),
            sent => sent.with_context(|| format!("cannot stop process {pid}"))?,
        }
        // A process's descriptor can be read from the moment it has ended.
        let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        if poll(&mut ended, timeout).with_context(|| format!("cannot wait for process {pid}"))? > 0 {
            return Ok(());
        }
    }
    bail!("process {pid} does not end")
}

/// A descriptor of a process; `None` when it is gone.
fn pidfd(pid: Pid) -> Result<Option<OwnedFd>> {
    // SAFETY: pidfd_open takes two numbers and returns a new descriptor, which nobody else owns, or -1.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    match Errno::result(opened) {
        Err(Errno::ESRCH) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot watch process {pid}")),
        // SAFETY: as above; a descriptor fits into an i32.
        Ok(descriptor) => Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })),
    }
}

/// Removes a folder, whatever its name leads through, and nothing that is mounted in it.
fn remove(dir: &Path) -> Result<()> {
    let Some(real) = unmount_below(dir)? else { return Ok(()) };
    match std::fs::remove_dir_all(&real) {
        // The folder is a disk of its own: it is empty now, and stays.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) && is_empty(&real) => {}
        removed => removed.with_context(|| format!("cannot remove {}", real.display()))?,
    }
    match std::fs::symlink_metadata(dir).is_ok_and(|metadata| metadata.is_symlink()) {
        true => std::fs::remove_file(dir).with_context(|| format!("cannot remove {}", dir.display())),
        false => Ok(()),
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Unmounts everything below a folder, which is a pod's, put there by the kubelet or the runtime. Tells where the
/// folder really is; `None` when it is nowhere.
fn unmount_below(dir: &Path) -> Result<Option<PathBuf>> {
    let Some(real) = find(dir)? else { return Ok(None) };
    let table = std::fs::read("/proc/thread-self/mountinfo").context("cannot read the mount table")?;
    // Deepest first.
    for point in mounts_below(&table, &real).into_iter().rev() {
        match umount2(&point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // It went with one above.
            Err(Errno::EINVAL | Errno::ENOENT) => {}
            unmounted => unmounted.with_context(|| format!("cannot unmount {}", point.display()))?,
        }
    }
    Ok(Some(real))
}

/// Where a folder really is, which must not be the root of everything; `None` when it is nowhere.
fn find(dir: &Path) -> Result<Option<PathBuf>> {
    let real = match dir.canonicalize() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        found => found.with_context(|| format!("cannot find {}", dir.display()))?,
    };
    if real.parent().is_none() {
        bail!("will not remove {}", dir.display());
    }
    Ok(Some(real))
}

/// Mount points below a folder, in the order in which they were made: removing through one would delete
/// what is behind it.
fn mounts_below(table: &[u8], dir: &Path) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    let points = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4)).map(unescape);
    points.filter(|point| point.starts_with(dir) && point != dir).collect()
}

/// A path as the kernel writes it into its tables, where `\040` stands for a space.
fn unescape(field: &[u8]) -> PathBuf {
    let (mut path, mut rest) = (Vec::new(), field);
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| first == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use nix::mount::{MsFlags, mount};

    use super::*;

    #[test]
    fn a_killed_process_is_known_from_what_waits_for_it() {
        let status = |own: &str, shared: &str| format!("Name:\tcoracle\nSigPnd:\t{own}\nShdPnd:\t{shared}\n");
        assert!(!is_killed(&status("0000000000000000", "0000000000004000")));
        assert!(is_killed(&status("0000000000000100", "0000000000000000")));
        assert!(is_killed(&status("0000000000000000", "0000000000004100")));
    }

    #[test]
    fn a_process_on_its_way_out_is_known_from_its_flags() {
        assert!(!is_exiting("7 (a) b) S 1 7 7 0 -1 4194560 0"));
        assert!(is_exiting("7 (a) b) R 1 7 7 0 -1 4194564 0"));
        let this = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(!is_exiting(&this));
    }

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        let table = b"1 0 8:1 / / rw - ext4 d rw\n2 1 8:1 / /d rw - ext4 d rw\n3 2 0:1 / /d/a\\040b\\134c rw - tmpfs t rw\n\
                      4 1 0:2 / /dd/x rw - tmpfs t rw\n5 2 0:3 / /d/y rw shared:1 - tmpfs t rw\n";
        let below = mounts_below(table, Path::new("/d"));
        assert_eq!(below, [Path::new("/d/a b\\c"), Path::new("/d/y")], "nor is the folder itself");
        assert_eq!(unescape(b"odd\\9\\04"), Path::new("odd\\9\\04"));
    }

    /// Whether this thread has mounts of its own now, which takes root.
    fn has_own_mounts() -> bool {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return false;
        }
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        true
    }

    #[test]
    fn the_root_is_refused_before_anything_is_unmounted() {
        if !has_own_mounts() {
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let link = top.path().join("link");
        std::os::unix::fs::symlink("/", &link).unwrap();
        let mounts = || std::fs::read("/proc/thread-self/mountinfo").unwrap();
        let before = mounts();
        for root in [Path::new("/"), &link] {
            let refused = unmount_below(root).unwrap_err().to_string();
            assert_eq!(refused, format!("will not remove {}", root.display()));
        }
        assert!(before == mounts());
    }

    #[test]
    fn what_is_mounted_in_a_folder_outlives_it() {
        if !has_own_mounts() {
            return;
        }
        let none = None::<&str>;
        let top = tempfile::tempdir().unwrap();
        let (outside, real, link) =
            (top.path().join("outside"), top.path().join("real"), top.path().join("link"));
        let point = real.join("pods/a volume\\of a pod");
        for dir in [&outside, &point] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::fs::write(outside.join("theirs"), "kept").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        mount(Some(&outside), &point, none, MsFlags::MS_BIND, none).unwrap();
        remove(&link).unwrap();
        assert_eq!(std::fs::read_to_string(outside.join("theirs")).unwrap(), "kept");
        assert!(!real.exists() && link.symlink_metadata().is_err());
        remove(&link).unwrap();
        // A folder that is a disk of its own is emptied.
        std::fs::create_dir(&real).unwrap();
        mount(Some("tmpfs"), &real, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        std::fs::write(real.join("ours"), "x").unwrap();
        remove(&real).unwrap();
        assert!(is_empty(&real));
        nix::mount::umount2(&real, MntFlags::MNT_DETACH).unwrap();
    }
}

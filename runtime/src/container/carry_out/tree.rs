//! What the container sees: its root with the kernel's file systems, devices and volumes in it. Every place is found
//! by the kernel below the open root, and every mount is attached to an open place.
//!
//! That nobody in a shared pid namespace gets at the node by a process of ours (see [`crate::container::setup`]) needs
//! Linux 6.18, where a procfs can be made from outside. On older kernels a child makes it in there, and while it lives,
//! those with CAP_SYS_PTRACE may take it over: it holds no descriptor but its channel and no capability but the one
//! that it needs, but the node's tree is its root.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, mknodat};
use nix::unistd::{fchownat, symlinkat};

use super::{Failure, Stage, failed};
use crate::container::ids::Owner;
use crate::container::setup::is_in_proc;
use crate::container::spec::{DeviceNode, Membership};
use crate::sys::mount::{self, Filesystem, Propagation, attribute};
use crate::sys::open::{self, Links, place_in};
use crate::sys::{process, socket};

/// What procfs and the like are mounted with everywhere.
pub(super) const PROTECTED: u64 = attribute::NO_SUID | attribute::NO_DEVICES | attribute::NO_EXEC;

/// The root has to be somewhere in this namespace to be entered; nobody else sees this namespace.
pub(super) fn attach_root(stage: &Stage) -> io::Result<()> {
    mount::attach(stage.root()?, open::directory(Path::new("/"))?)
}

pub(super) fn mount_proc(stage: &Stage) -> io::Result<()> {
    let procfs = match &stage.pid_namespace {
        None => Filesystem::open(c"proc")?.mount(PROTECTED)?,
        Some(namespace) => procfs_of(namespace)?,
    };
    attach_kernel(stage, procfs, "proc")
}

/// A procfs of the pid namespace that children will be in.
fn procfs_of(namespace: &OwnedFd) -> io::Result<OwnedFd> {
    let procfs = Filesystem::open(c"proc")?;
    match procfs.set_descriptor(c"pidns", namespace) {
        Ok(_) => procfs.mount(PROTECTED),
        // Before Linux 6.18 only who is in there can make one.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => procfs_of_child(),
        Err(error) => Err(error),
    }
}

/// What it takes to make a procfs.
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// The same, made by a child that lives no longer than that.
fn procfs_of_child() -> io::Result<OwnedFd> {
    let (ours, theirs) = socket::message_pair()?;
    let Some(child) = process::fork(0, None)? else {
        let narrowed = process::close_from(3, &theirs)
            .and_then(|()| process::set_capabilities(CAP_SYS_ADMIN, CAP_SYS_ADMIN, 0));
        let made = narrowed.and_then(|()| Filesystem::open(c"proc")?.mount(PROTECTED));
        let sent = made.and_then(|procfs| socket::send(&theirs, b"P", &[procfs]));
        process::exit_now(if sent.is_ok() { 0 } else { 1 })
    };
    drop(theirs);
    let mut procfs = Vec::new();
    socket::receive(&ours, &mut [0], &mut procfs)?;
    process::wait_pidfd(&child.pidfd)?;
    procfs.pop().ok_or_else(|| io::Error::other("none can be made in the joined pid namespace"))
}

pub(super) fn mount_sys(stage: &Stage, writable: bool) -> io::Result<()> {
    let attributes = PROTECTED | if writable { 0 } else { attribute::READ_ONLY };
    attach_kernel(stage, Filesystem::open(c"sysfs")?.mount(attributes)?, "sys")
}

/// Attaches a kernel file system at a directory of the root that is no link.
fn attach_kernel(stage: &Stage, filesystem: OwnedFd, at: &str) -> io::Result<()> {
    let place = open::make_directories_in(stage.root()?, Path::new(at), 0o755, Links::Refused)?;
    mount::attach(filesystem, place)
}

pub(super) fn mount_cgroups(stage: &Stage, groups: &Membership, writable: bool) -> io::Result<()> {
    let attributes = PROTECTED | if writable { 0 } else { attribute::READ_ONLY };
    let at = |path: &str| place_in(stage.root()?, Path::new(path), Links::Refused);
    if groups.split.is_empty() {
        let filesystem = Filesystem::open(c"cgroup2")?.mount(attributes)?;
        return mount::attach(filesystem, at("sys/fs/cgroup")?);
    }
    let directory = Filesystem::open(c"tmpfs")?;
    directory.set(c"mode", Path::new("755"))?.set(c"size", Path::new("64k"))?;
    let directory = directory.mount(PROTECTED)?;
    mount::attach(&directory, at("sys/fs/cgroup")?)?;
    for (controller, group) in &groups.split {
        open::make_directory_at(&directory, controller.as_ref(), 0o755)?;
        let group = mount::clone_tree(group, false)?;
        mount::set_attributes(&group, attributes, Some(Propagation::Private), false)?;
        mount::attach(group, place_in(&directory, Path::new(controller), Links::Refused)?)?;
    }
    mount::set_attributes(&directory, attribute::READ_ONLY, None, false)
}

/// Name, driver and device of what every container has.
const DEVICES: &[(&str, u64, u64)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const DEVICE_LINKS: &[(&str, &str)] = &[
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// The image has no say in `/dev`: it is filled while nobody can see it, and later appears as a whole.
pub(super) fn make_dev(devices: &[DeviceNode], owner: Owner) -> io::Result<OwnedFd> {
    let filesystem = Filesystem::open(c"tmpfs")?;
    filesystem.set(c"mode", Path::new("755"))?.set(c"size", Path::new("65536k"))?;
    if owner != Owner::default() {
        let (uid, gid) = (owner.uid.to_string(), owner.gid.to_string());
        filesystem.set(c"uid", Path::new(&uid))?.set(c"gid", Path::new(&gid))?;
    }
    let dev = filesystem.mount(attribute::NO_SUID | attribute::NO_EXEC)?;
    for (name, major, minor) in DEVICES {
        let path = Path::new("/dev").join(name);
        let (major, minor, Owner { uid, gid }) = (*major, *minor, owner);
        make_device(
            &dev,
            Path::new(name),
            &DeviceNode { path, kind: 'c', major, minor, mode: 0o666, uid, gid },
        )?;
    }
    for device in devices {
        let Ok(name) = device.path.strip_prefix("/dev") else { continue };
        if let Some(parent) = name.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            open::make_directories_in(&dev, parent, 0o755, Links::Refused)?;
        }
        make_device(&dev, name, device)?;
    }
    for (name, target) in DEVICE_LINKS {
        match symlinkat(*target, &dev, *name) {
            // A device of this name was asked for.
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for directory in ["pts", "shm", "mqueue"] {
        open::make_directory_at(&dev, directory.as_ref(), 0o755)?;
    }
    Ok(dev)
}

fn make_device(dev: &OwnedFd, name: &Path, device: &DeviceNode) -> io::Result<()> {
    let kind = if device.kind == 'b' { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
    let mode = Mode::from_bits_truncate(device.mode);
    match mknodat(dev, name, kind, mode, libc::makedev(device.major as u32, device.minor as u32)) {
        // The first one stays: it is what every container has.
        Err(nix::Error::EEXIST) => return Ok(()),
        result => result?,
    }
    // Past the umask.
    fchmodat(dev, name, mode, FchmodatFlags::FollowSymlink)?;
    if (device.uid, device.gid) != (0, 0) {
        let (uid, gid) = (Some(device.uid.into()), Some(device.gid.into()));
        fchownat(dev, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

pub(super) fn mount_dev(stage: &Stage) -> io::Result<()> {
    let dev = dev(stage)?;
    let place = open::make_directories_in(stage.root()?, Path::new("dev"), 0o755, Links::Refused)?;
    mount::attach(dev, place)?;
    let terminals = Filesystem::open(c"devpts")?;
    terminals.flag(c"newinstance")?.set(c"ptmxmode", Path::new("0666"))?;
    terminals.set(c"mode", Path::new("0620"))?.set(c"gid", Path::new("5"))?;
    let terminals = terminals.mount(attribute::NO_SUID | attribute::NO_EXEC)?;
    mount::attach(terminals, place_in(dev, Path::new("pts"), Links::Refused)?)
}

fn dev(stage: &Stage) -> io::Result<&OwnedFd> {
    stage.dev.as_ref().ok_or_else(|| io::Error::other("/dev is not made yet"))
}

pub(super) fn mount_shared_memory(stage: &Stage) -> io::Result<()> {
    let memory = stage.memory.as_ref().ok_or_else(|| io::Error::other("it is not open"))?;
    mount::attach(memory, place_in(dev(stage)?, Path::new("shm"), Links::Refused)?)
}

pub(super) fn mount_message_queues(stage: &Stage) -> io::Result<()> {
    let queues = match Filesystem::open(c"mqueue").and_then(|filesystem| filesystem.mount(PROTECTED)) {
        // A kernel without message queues.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
        result => result?,
    };
    mount::attach(queues, place_in(dev(stage)?, Path::new("mqueue"), Links::Refused)?)
}

pub(super) fn attach_volume(stage: &Stage, index: usize, target: &Path) -> Result<(), Failure> {
    let shown = target.display().to_string();
    let inside_proc = || Failure::new(format!("{shown:?} cannot be mounted because it is inside /proc"));
    if is_in_proc(target) {
        return Err(inside_proc());
    }
    let volume = stage.volumes.get(&index);
    let volume = volume.ok_or_else(|| Failure::new(format!("the volume for {shown:?} is not open")))?;
    let find = || -> io::Result<OwnedFd> {
        if open::is_directory(volume)? {
            open::make_directories_in(stage.root()?, target, 0o755, Links::InRoot)
        } else {
            open::make_file_in(stage.root()?, target, Links::InRoot)
        }
    };
    let place = find().map_err(failed(format!("mount at {shown:?}")))?;
    // A link of the image may have led there after all.
    let is_view_of_the_machine = target.starts_with("/proc");
    if !is_view_of_the_machine && is_procfs(&place).map_err(failed(format!("mount at {shown:?}")))? {
        return Err(inside_proc());
    }
    mount::attach(volume, place).map_err(failed(format!("mount at {shown:?}")))
}

fn is_procfs(place: &OwnedFd) -> io::Result<bool> {
    Ok(nix::sys::statfs::fstatfs(place)?.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC)
}

/// A path that the kernel does not have needs no hiding.
fn existing(stage: &Stage, path: &Path) -> io::Result<Option<OwnedFd>> {
    match place_in(stage.root()?, path, Links::InRoot) {
        Ok(place) => Ok(Some(place)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn mask(stage: &Stage, path: &Path) -> io::Result<()> {
    let Some(place) = existing(stage, path)? else { return Ok(()) };
    if open::is_directory(&place)? {
        let nothing = Filesystem::open(c"tmpfs")?;
        nothing.set(c"size", Path::new("4k"))?;
        return mount::attach(nothing.mount(PROTECTED | attribute::READ_ONLY)?, place);
    }
    // Our own null device, made a moment ago where no image could touch it.
    let null = place_in(dev(stage)?, Path::new("null"), Links::Refused)?;
    let nothing = mount::clone_tree_at(null, false)?;
    mount::attach(nothing, place)
}

pub(super) fn protect(stage: &Stage, path: &Path) -> io::Result<()> {
    let Some(place) = existing(stage, path)? else { return Ok(()) };
    let copy = mount::clone_tree_at(&place, true)?;
    mount::set_attributes(&copy, attribute::READ_ONLY | PROTECTED, None, false)?;
    mount::attach(copy, place)
}

pub(super) fn protect_root(stage: &Stage) -> io::Result<()> {
    mount::set_attributes(stage.root()?, attribute::READ_ONLY, None, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_kernels_let_a_child_make_the_procfs_of_its_namespace() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        process::unshare(libc::CLONE_NEWPID).unwrap();
        let procfs = procfs_of_child().unwrap();
        assert!(is_procfs(&procfs).unwrap());
        let node = nix::sys::stat::stat("/proc").unwrap();
        assert_ne!(nix::sys::stat::fstat(&procfs).unwrap().st_dev, node.st_dev, "it is another one");
    }
}

//! The shim's binary, out of reach of containers.
//!
//! A process in a container could once find our binary as `/proc/<pid>/exe` and overwrite it
//! (CVE-2019-5736), and ours is the whole cluster. Shims are therefore started from a clone of its mount that
//! is read-only and attached nowhere: nobody can write through it, remount it, or find it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::ShimCommand;
use crate::sys::mount::{self, Propagation, attribute};

/// A program that can be started but not changed.
pub(super) struct Executable {
    file: OwnedFd,
}

impl Executable {
    /// Protects the shim's program.
    pub(super) fn protect(command: &ShimCommand) -> io::Result<Executable> {
        let path = command.program.clone().unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
        let path = std::fs::canonicalize(path)?;
        let file = read_only_clone(&path).or_else(|_| sealed_copy(&path))?;
        Ok(Executable { file })
    }

    /// A path for `execve` in this process and in those that it forks.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

fn read_only_clone(path: &Path) -> io::Result<OwnedFd> {
    let mount = mount::clone_tree(path, false)?;
    mount::set_attributes(&mount, attribute::READ_ONLY, Some(Propagation::Private), false)?;
    Ok(mount)
}

/// Where mounts cannot be cloned: a copy in memory that nobody can change any more.
fn sealed_copy(path: &Path) -> io::Result<OwnedFd> {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let mut copy = File::from(memfd_create(c"coracle", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    io::copy(&mut File::open(path)?, &mut copy)?;
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(copy.into())
}

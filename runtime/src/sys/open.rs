//! Opening and making files below a directory that is already open, never outside it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use super::{c_path, check};

const RESOLVE_NO_XDEV: u64 = 0x01;
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_BENEATH: u64 = 0x08;
const RESOLVE_IN_ROOT: u64 = 0x10;

/// How symbolic links on the way are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Followed as if the directory were the root of everything, as a container sees them.
    InRoot,
    /// Refused.
    Refused,
    /// Followed as long as they stay below the directory and on its mount.
    OnMount,
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Opens `path` below `root`, close-on-exec.
pub fn open_in(
    root: impl AsFd,
    path: &Path,
    flags: libc::c_int,
    mode: u32,
    links: Links,
) -> io::Result<OwnedFd> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let path = c_path(if relative.as_os_str().is_empty() { Path::new(".") } else { relative })?;
    let resolve = match links {
        Links::InRoot => RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
        Links::Refused => RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
        Links::OnMount => RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
    };
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: mode as u64, resolve };
    // A rename elsewhere in the tree makes the kernel ask us to try again; it cannot go on for ever.
    for _ in 0..128 {
        // SAFETY: `how` has the kernel's layout and lives through the call, as does the path.
        let result = check(unsafe {
            libc::syscall(
                libc::SYS_openat2,
                root.as_fd().as_raw_fd(),
                path.as_ptr(),
                &how as *const OpenHow,
                size_of::<OpenHow>(),
            )
        });
        match result {
            // SAFETY: the kernel has just given us this descriptor.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => continue,
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

/// A handle on a place, for mounting there or asking about it, without opening what is in it.
pub fn place_in(root: impl AsFd, path: &Path, links: Links) -> io::Result<OwnedFd> {
    open_in(root, path, libc::O_PATH, 0, links)
}

/// A handle on whatever is at a path of the node.
pub fn handle(path: &Path) -> io::Result<OwnedFd> {
    use nix::fcntl::OFlag;
    Ok(nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?)
}

/// Opens a file of the procfs at `/proc` for writing, having made sure that it is one: what the kernel is told
/// there must not end up in a file that somebody has put in its place, nor in another file of the kernel's.
pub fn writable_proc_file(path: &Path) -> io::Result<OwnedFd> {
    let procfs = directory(Path::new("/proc"))?;
    expect_procfs(&procfs)?;
    let file = open_in(&procfs, path, libc::O_WRONLY | libc::O_NOFOLLOW, 0, Links::OnMount)?;
    expect_procfs(&file)?;
    Ok(file)
}

fn expect_procfs(file: impl AsFd) -> io::Result<()> {
    let kind = nix::sys::statfs::fstatfs(file.as_fd())?.filesystem_type();
    if kind == nix::sys::statfs::PROC_SUPER_MAGIC { Ok(()) } else { Err(io::Error::other("it is no procfs")) }
}

/// Writes a value to an open file of a kernel file system, in one write as they want it.
pub fn write_value(file: impl AsFd, value: &str) -> io::Result<()> {
    nix::unistd::write(file.as_fd(), value.as_bytes())?;
    Ok(())
}

/// Opens a directory by a path that we made ourselves.
pub fn directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(nix::fcntl::open(
        path,
        nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_PATH,
        nix::sys::stat::Mode::empty(),
    )?)
}

/// As [`directory`], for calls that want more than a handle.
pub fn readable_directory(path: &Path) -> io::Result<OwnedFd> {
    use nix::fcntl::OFlag;
    Ok(nix::fcntl::open(
        path,
        OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY,
        nix::sys::stat::Mode::empty(),
    )?)
}

/// The directory `path` below `root`, made with its parents where it is missing.
pub fn make_directories_in(root: impl AsFd, path: &Path, mode: u32, links: Links) -> io::Result<OwnedFd> {
    let mut walked = PathBuf::from(".");
    let mut current = place_in(&root, &walked, links)?;
    for component in path.components() {
        let name = match component {
            Component::Normal(name) => name,
            Component::ParentDir => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path holds .."));
            }
            _ => continue,
        };
        walked.push(name);
        current = match place_in(&root, &walked, links) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_directory_at(&current, name, mode)?;
                // Reopened from the root: if somebody put a link there meanwhile, it still leads nowhere else.
                place_in(&root, &walked, links)?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(current)
}

/// Makes one directory; that it is there already is no error.
pub fn make_directory_at(parent: impl AsFd, name: &OsStr, mode: u32) -> io::Result<()> {
    let made = nix::sys::stat::mkdirat(parent.as_fd(), name, nix::sys::stat::Mode::from_bits_truncate(mode));
    match made {
        Ok(()) | Err(nix::Error::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A handle on the file `path` below `root`, made empty with its parents where it is missing.
pub fn make_file_in(root: impl AsFd, path: &Path, links: Links) -> io::Result<OwnedFd> {
    match place_in(&root, path, links) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    if let Some(parent) = path.parent() {
        make_directories_in(&root, parent, 0o755, links)?;
    }
    let file = open_in(&root, path, libc::O_CREAT | libc::O_WRONLY | libc::O_NOFOLLOW, 0o644, links)?;
    drop(file);
    place_in(&root, path, links)
}

/// Whether a handle stands on a directory.
pub fn is_directory(place: impl AsFd) -> io::Result<bool> {
    let status = nix::sys::stat::fstat(place.as_fd())?;
    Ok(status.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Whether a directory of an overlay's layer hides what is below it in others.
pub fn is_opaque(directory: impl AsFd) -> io::Result<bool> {
    let path = c_path(Path::new(&format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd())))?;
    let mut value = [0_u8; 1];
    // SAFETY: strings and buffer live through the call, and the buffer's length is told.
    let read = check(unsafe {
        libc::getxattr(
            path.as_ptr(),
            c"trusted.overlay.opaque".as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    } as libc::c_long);
    match read {
        Ok(_) => Ok(value == *b"y"),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes to a file of a kernel file system, such as cgroupfs, in one write as they want it.
pub fn write_kernel_file(path: &Path, value: &str) -> io::Result<()> {
    let file = nix::fcntl::open(
        path,
        nix::fcntl::OFlag::O_WRONLY | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )?;
    write_value(&file, value)
}

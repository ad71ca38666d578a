//! Mounts by file descriptor: `fsopen`, `fsmount`, `open_tree`, `move_mount`, `mount_setattr`.
//!
//! A mount exists detached first, is given its attributes, and becomes visible in one step at a
//! place that was opened before: no path string can be exchanged for a symbolic link in between.

use std::ffi::CStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::{c_path, check};

/// `AT_RECURSIVE`: with everything mounted below.
const AT_RECURSIVE: libc::c_uint = 0x8000;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_SET_FD: libc::c_uint = 5;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

/// Mount attributes, as `mount_setattr(2)` knows them.
pub mod attribute {
    /// Nothing can be written.
    pub const READ_ONLY: u64 = 0x1;
    /// Set-user-id bits are ignored.
    pub const NO_SUID: u64 = 0x2;
    /// Device nodes do not open.
    pub const NO_DEVICES: u64 = 0x4;
    /// Nothing can be executed.
    pub const NO_EXEC: u64 = 0x8;
}

/// How mounts made later on one side appear on the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Propagation {
    /// Neither way.
    Private,
    /// From the node into the container.
    Slave,
    /// Both ways.
    Shared,
}

impl Propagation {
    fn flag(self) -> u64 {
        match self {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Shared => libc::MS_SHARED,
        }
    }
}

/// A file system being configured.
pub struct Filesystem {
    context: OwnedFd,
}

impl Filesystem {
    /// Starts configuring a file system of this type.
    pub fn open(kind: &CStr) -> io::Result<Filesystem> {
        // SAFETY: the name is a valid C string; the call returns a new descriptor or an error.
        let fd = check(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
        // SAFETY: the kernel has just given us this descriptor.
        Ok(Filesystem { context: unsafe { OwnedFd::from_raw_fd(fd as i32) } })
    }

    /// Sets an option that has a value.
    pub fn set(&self, key: &CStr, value: &Path) -> io::Result<&Filesystem> {
        let value = c_path(value)?;
        self.configure(FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0)?;
        Ok(self)
    }

    /// Sets an option whose value is something open.
    pub fn set_descriptor(&self, key: &CStr, value: impl AsFd) -> io::Result<&Filesystem> {
        self.configure(FSCONFIG_SET_FD, key.as_ptr(), std::ptr::null(), value.as_fd().as_raw_fd())?;
        Ok(self)
    }

    /// Sets an option that has no value.
    pub fn flag(&self, key: &CStr) -> io::Result<&Filesystem> {
        self.configure(FSCONFIG_SET_FLAG, key.as_ptr(), std::ptr::null(), 0)?;
        Ok(self)
    }

    /// Makes the superblock and a detached mount of it.
    pub fn mount(&self, attributes: u64) -> io::Result<OwnedFd> {
        self.configure(FSCONFIG_CMD_CREATE, std::ptr::null(), std::ptr::null(), 0)?;
        // SAFETY: only numbers are passed; the call returns a new descriptor or an error.
        let fd = check(unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.context.as_raw_fd(),
                FSMOUNT_CLOEXEC,
                attributes as libc::c_uint,
            )
        })?;
        // SAFETY: the kernel has just given us this descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    fn configure(
        &self,
        command: libc::c_uint,
        key: *const libc::c_char,
        value: *const libc::c_char,
        number: libc::c_int,
    ) -> io::Result<()> {
        // SAFETY: key and value are null or valid C strings that outlive the call.
        let result = check(unsafe {
            libc::syscall(libc::SYS_fsconfig, self.context.as_raw_fd(), command, key, value, number)
        });
        result.map(drop).map_err(|error| self.explain(error))
    }

    /// The kernel leaves words about what it refused in the context; errno alone seldom tells.
    fn explain(&self, error: io::Error) -> io::Error {
        let Ok(context) = self.context.try_clone() else { return error };
        let mut words = [0u8; 512];
        match std::fs::File::from(context).read(&mut words) {
            Ok(length) if length > 2 => io::Error::new(
                error.kind(),
                format!("{error} ({})", String::from_utf8_lossy(&words[2..length]).trim()),
            ),
            _ => error,
        }
    }
}

/// A detached copy of the mount at `path`, with everything below when `recursive`.
pub fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | if recursive { AT_RECURSIVE } else { 0 };
    open_tree(libc::AT_FDCWD, &path, flags)
}

/// A detached copy of the mount that an open descriptor stands on.
pub fn clone_tree_at(fd: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE
        | OPEN_TREE_CLOEXEC
        | libc::AT_EMPTY_PATH as libc::c_uint
        | if recursive { AT_RECURSIVE } else { 0 };
    open_tree(fd.as_fd().as_raw_fd(), c"", flags)
}

fn open_tree(directory: libc::c_int, path: &CStr, flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: the path is a valid C string; the call returns a new descriptor or an error.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, directory, path.as_ptr(), flags) })?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Makes a detached mount visible at an open place.
pub fn attach(mount: impl AsFd, place: impl AsFd) -> io::Result<()> {
    // SAFETY: both paths are the empty C string: the descriptors alone say what and where.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            place.as_fd().as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(drop)
}

#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Adds attributes to a mount, and sets its propagation when one is given.
pub fn set_attributes(
    mount: impl AsFd,
    attributes: u64,
    propagation: Option<Propagation>,
    recursive: bool,
) -> io::Result<()> {
    let propagation = propagation.map_or(0, Propagation::flag);
    change_attributes(
        mount,
        MountAttributes { set: attributes, clear: 0, propagation, user_namespace: 0 },
        recursive,
    )
}

/// Shows the ids of a detached mount's files as those of the same numbers inside a user namespace.
pub fn map_ids(mount: impl AsFd, user_namespace: impl AsFd) -> io::Result<()> {
    let user_namespace = user_namespace.as_fd().as_raw_fd() as u64;
    change_attributes(
        mount,
        MountAttributes { set: MOUNT_ATTR_IDMAP, clear: 0, propagation: 0, user_namespace },
        false,
    )
}

fn change_attributes(mount: impl AsFd, change: MountAttributes, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH as libc::c_uint | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `change` has the kernel's layout and lives through the call, its size is passed along.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &change as *const MountAttributes,
            size_of::<MountAttributes>(),
        )
    })
    .map(drop)
}

/// Cuts all mounts of this mount namespace off from the node: what happens here stays here.
pub fn isolate_all() -> io::Result<()> {
    nix::mount::mount(
        None::<&str>,
        "/",
        None::<&str>,
        nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_SLAVE,
        None::<&str>,
    )?;
    Ok(())
}

/// Makes `root`, which must be a mount of this namespace, the root of everything, and lets go of the old one.
pub fn pivot_into(root: impl AsFd) -> io::Result<()> {
    nix::unistd::fchdir(root.as_fd())?;
    // Both places may be the same: the old root is then stacked on the new one and goes with it.
    nix::unistd::pivot_root(".", ".")?;
    nix::mount::umount2(".", nix::mount::MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    Ok(())
}

/// What an overlay is made of.
pub struct Overlay<'a> {
    /// Topmost first.
    pub layers: &'a [PathBuf],
    /// The writable directory and its work directory; without it nothing can be written.
    pub writable: Option<(&'a Path, &'a Path)>,
    /// Whether the writable directory will be mounted again some day.
    pub is_kept: bool,
    /// The SELinux label of all files.
    pub label: Option<&'a str>,
    /// A directory of ours in a mount namespace that nobody else sees, where it may be on its way.
    pub place: &'a Path,
}

impl Overlay<'_> {
    /// Puts the layers together, detached.
    ///
    /// Option strings longer than a page would not fit mount(2): since Linux 6.5 each layer is added
    /// alone; before, their names relative to the layers' common directory have to do. The names are
    /// relative in any case, for a container reads them in its own mountinfo.
    pub fn mount(&self) -> io::Result<OwnedFd> {
        let common = self.common_directory();
        nix::unistd::chdir(common)?;
        let relative = |path: &Path| path.strip_prefix(common).unwrap_or(path).to_owned();
        let layers: Vec<PathBuf> = self.layers.iter().map(|layer| relative(layer)).collect();
        match self.by_layers(&layers, relative) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.by_options(&layers, relative),
            result => result,
        }
    }

    /// The longest path that all parts begin with.
    fn common_directory(&self) -> &Path {
        let mut common = self.layers.first().and_then(|layer| layer.parent()).unwrap_or(Path::new("/"));
        let writable = self.writable.iter().flat_map(|(upper, work)| [*upper, *work]);
        for path in self.layers.iter().map(PathBuf::as_path).chain(writable) {
            while !path.starts_with(common) {
                common = common.parent().unwrap_or(Path::new("/"));
            }
        }
        common
    }

    fn by_layers(&self, layers: &[PathBuf], relative: impl Fn(&Path) -> PathBuf) -> io::Result<OwnedFd> {
        let filesystem = Filesystem::open(c"overlay")?;
        filesystem.set(c"source", Path::new("overlay"))?;
        for layer in layers {
            filesystem.set(c"lowerdir+", layer)?;
        }
        if let Some((upper, work)) = self.writable {
            filesystem.set(c"upperdir", &relative(upper))?.set(c"workdir", &relative(work))?;
            if !self.is_kept {
                // It is mounted once and never again: nothing is gained by syncing it.
                filesystem.flag(c"volatile")?;
            }
        }
        if let Some(label) = self.label {
            filesystem.set(c"context", Path::new(label))?;
        }
        filesystem.mount(0)
    }

    fn by_options(&self, layers: &[PathBuf], relative: impl Fn(&Path) -> PathBuf) -> io::Result<OwnedFd> {
        let names: Vec<String> = layers.iter().map(|layer| layer.display().to_string()).collect();
        let mut options = format!("lowerdir={}", names.join(":"));
        if let Some((upper, work)) = self.writable {
            let (upper, work) = (relative(upper), relative(work));
            options += &format!(",upperdir={},workdir={}", upper.display(), work.display());
        }
        if let Some(label) = self.label {
            options += &format!(",context=\"{label}\"");
        }
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("overlay"), self.place, Some("overlay"), flags, Some(options.as_str()))?;
        let overlay = clone_tree(self.place, false)?;
        detach(self.place)?;
        Ok(overlay)
    }
}

/// How a mount of the node and those of others follow each other, and where it is.
pub struct Peers {
    /// The place of the mount.
    pub place: PathBuf,
    /// Its mounts appear elsewhere.
    pub is_shared: bool,
    /// Mounts of elsewhere appear in it.
    pub is_slave: bool,
}

/// How the mount that `path` is on follows others.
pub fn peers(path: &Path) -> io::Result<Peers> {
    let place = super::open::handle(path)?;
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", place.as_raw_fd()))?;
    let number = about.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let found = mounts.lines().find(|line| line.split(' ').next() == number);
    let line = found.ok_or_else(|| io::Error::other("its mount is not in mountinfo"))?;
    let fields: Vec<&str> = line.split(' ').collect();
    let has = |name: &str| {
        fields.iter().skip(6).take_while(|field| **field != "-").any(|field| field.starts_with(name))
    };
    let place = fields.get(4).copied().unwrap_or_default().into();
    Ok(Peers { place, is_shared: has("shared:"), is_slave: has("master:") })
}

/// Unmounts whatever is at `path`, lazily; nothing mounted there is no error.
pub fn detach(path: &Path) -> io::Result<()> {
    match nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH | nix::mount::MntFlags::UMOUNT_NOFOLLOW)
    {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

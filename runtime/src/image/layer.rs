//! Unpacks a layer's tar into a directory, in the form that overlayfs reads.
//!
//! Every entry is reached through a descriptor of its parent, which the kernel resolved below the
//! layer's own directory: neither `..` nor a symbolic link of the layer leads out of it. A whiteout
//! (`.wh.name`) becomes overlayfs' character device 0:0, an opaque directory its attribute.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmodat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use super::ImageError;
use crate::sys::check;
use crate::sys::open::{Links, directory, make_directories_in, make_directory_at, open_in};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Unpacks `tar` into `target`, an empty directory; tells how many bytes its files have.
pub fn unpack(tar: impl Read, target: &Path, layer: &str) -> Result<u64, ImageError> {
    let root = directory(target).map_err(ImageError::storage("open", target))?;
    let mut archive = tar::Archive::new(tar);
    let mut size = 0;
    // Making an entry changes its directory's time, so those are set when all is there.
    let mut directory_times = Vec::new();
    for entry in archive.entries().map_err(ImageError::Read)? {
        let mut entry = entry.map_err(|error| ImageError::invalid(format!("layer {layer}: {error}")))?;
        let path = entry.path().map_err(ImageError::Read)?.into_owned();
        let failed = |source| ImageError::Unpack { layer: layer.to_owned(), entry: path.clone(), source };
        size += unpack_entry(&root, &mut entry, &path, &mut directory_times).map_err(failed)?;
    }
    for (path, modified) in directory_times.iter().rev() {
        set_time(&root, path, *modified).map_err(ImageError::storage("set the time of", path))?;
    }
    Ok(size)
}

fn unpack_entry<R: Read>(
    root: &OwnedFd,
    entry: &mut tar::Entry<'_, R>,
    path: &Path,
    directory_times: &mut Vec<(PathBuf, i64)>,
) -> io::Result<u64> {
    let path = inside(path)?;
    let kind = entry.header().entry_type();
    if kind == tar::EntryType::XGlobalHeader {
        return Ok(0);
    }
    let attributes = Attributes::of(entry)?;
    let Some(name) = path.file_name() else {
        // The layer's own root.
        attributes.apply_to_directory(root, Path::new("."))?;
        return Ok(0);
    };
    let parent = make_directories_in(root, path.parent().unwrap_or(Path::new("")), 0o755, Links::InRoot)?;

    if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
        return whiteout(&parent, name, OsStr::from_bytes(hidden)).map(|()| 0);
    }
    if kind.is_dir() {
        make_directory(&parent, name)?;
        attributes.apply_to_directory(&parent, Path::new(name))?;
        directory_times.push((path, attributes.modified));
        return Ok(0);
    }
    clear(&parent, name)?;
    let mut size = 0;
    match kind {
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
            let file = open_in(&parent, Path::new(name), flags, 0o600, Links::Refused)?;
            let mut file = std::fs::File::from(file);
            size = io::copy(entry, &mut file)?;
            attributes.set_extended(&file)?;
        }
        tar::EntryType::Symlink => {
            let target = entry.link_name_bytes().unwrap_or_default();
            symlinkat(OsStr::from_bytes(&target), &parent, name)?;
        }
        tar::EntryType::Link => {
            let target = inside(Path::new(OsStr::from_bytes(&entry.link_name_bytes().unwrap_or_default())))?;
            let (Some(holder), Some(linked)) = (target.parent(), target.file_name()) else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a hard link leads nowhere"));
            };
            let holder = open_in(root, holder, libc::O_PATH | libc::O_DIRECTORY, 0, Links::InRoot)?;
            linkat(&holder, linked, &parent, name, AtFlags::empty())?;
            // Owner, mode and time are those of the file that it is.
            return Ok(0);
        }
        tar::EntryType::Char => make_node(&parent, name, SFlag::S_IFCHR, device_number(entry)?)?,
        tar::EntryType::Block => make_node(&parent, name, SFlag::S_IFBLK, device_number(entry)?)?,
        tar::EntryType::Fifo => make_node(&parent, name, SFlag::S_IFIFO, 0)?,
        other => {
            let message = format!("entries of type {other:?} are not known");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
    }
    attributes.apply(&parent, name, kind.is_symlink())?;
    Ok(size)
}

/// The path relative to the layer's root; one that climbs out of it is refused.
fn inside(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the path leads out of the layer"));
            }
            _ => {}
        }
    }
    Ok(clean)
}

fn whiteout(parent: &OwnedFd, name: &OsStr, hidden: &OsStr) -> io::Result<()> {
    if name.as_bytes() == OPAQUE {
        return set_extended_attribute(parent, c"trusted.overlay.opaque", b"y");
    }
    if hidden.is_empty() || hidden == "." || hidden == ".." {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a whiteout hides nothing that could be there",
        ));
    }
    match make_node(parent, hidden, SFlag::S_IFCHR, 0) {
        // The same layer brings a new one of this name.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

fn make_directory(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let there = open_in(parent, Path::new(name), libc::O_PATH | libc::O_NOFOLLOW, 0, Links::InRoot);
    match there {
        Ok(place) if crate::sys::open::is_directory(&place)? => Ok(()),
        Ok(_) => {
            clear(parent, name)?;
            make_directory_at(parent, name, 0o755)
        }
        Err(_) => make_directory_at(parent, name, 0o755),
    }
}

/// Removes what an earlier entry of this layer left under the name.
fn clear(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
        Err(nix::Error::EISDIR) => Ok(unlinkat(parent, name, UnlinkatFlags::RemoveDir)?),
        Err(error) => Err(error.into()),
    }
}

fn make_node(parent: &OwnedFd, name: &OsStr, kind: SFlag, device: libc::dev_t) -> io::Result<()> {
    Ok(mknodat(parent, name, kind, Mode::from_bits_truncate(0o600), device)?)
}

fn device_number<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<libc::dev_t> {
    let major = entry.header().device_major()?.unwrap_or(0);
    let minor = entry.header().device_minor()?.unwrap_or(0);
    Ok(libc::makedev(major, minor))
}

/// Owner, mode, time and extended attributes of an entry.
struct Attributes {
    uid: u32,
    gid: u32,
    mode: u32,
    modified: i64,
    extended: HashMap<String, Vec<u8>>,
}

impl Attributes {
    fn of<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Attributes> {
        let header = entry.header();
        let mut attributes = Attributes {
            uid: checked_id(header.uid()?)?,
            gid: checked_id(header.gid()?)?,
            mode: header.mode()? & 0o7777,
            modified: header.mtime()? as i64,
            extended: HashMap::new(),
        };
        // What does not fit the old header comes as an extension and takes precedence.
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            let (Ok(key), value) = (extension.key(), extension.value_bytes()) else { continue };
            let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<f64>().ok());
            match (key, number()) {
                ("uid", Some(uid)) => attributes.uid = checked_id(uid as u64)?,
                ("gid", Some(gid)) => attributes.gid = checked_id(gid as u64)?,
                ("mtime", Some(seconds)) => attributes.modified = seconds as i64,
                _ => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        attributes.extended.insert(name.to_owned(), value.to_vec());
                    }
                }
            }
        }
        Ok(attributes)
    }

    fn apply(&self, parent: &OwnedFd, name: &OsStr, is_symlink: bool) -> io::Result<()> {
        self.apply_owner(parent, name)?;
        // After the owner, whose change takes set-user-id away; a link has no mode.
        if !is_symlink {
            fchmodat(
                parent,
                name,
                Mode::from_bits_truncate(self.mode),
                nix::sys::stat::FchmodatFlags::FollowSymlink,
            )?;
        }
        set_time(parent, Path::new(name), self.modified)
    }

    fn apply_to_directory(&self, parent: &OwnedFd, path: &Path) -> io::Result<()> {
        self.apply_owner(parent, path.as_os_str())?;
        let directory = open_in(parent, path, libc::O_RDONLY | libc::O_DIRECTORY, 0, Links::InRoot)?;
        nix::sys::stat::fchmod(&directory, Mode::from_bits_truncate(self.mode))?;
        self.set_extended(&directory)
    }

    fn apply_owner(&self, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let (uid, gid) = (nix::unistd::Uid::from_raw(self.uid), nix::unistd::Gid::from_raw(self.gid));
        Ok(fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    fn set_extended(&self, file: impl AsFd) -> io::Result<()> {
        for (name, value) in &self.extended {
            // What belongs to overlayfs or to the node's own security module is not an image's to say.
            if !(name.starts_with("user.") || name == "security.capability") {
                continue;
            }
            set_extended_attribute(&file, &crate::sys::c_string(name.as_bytes())?, value)?;
        }
        Ok(())
    }
}

/// Ids above 2^31 - 1 turn negative somewhere in most programs.
fn checked_id(id: u64) -> io::Result<u32> {
    u32::try_from(id)
        .ok()
        .filter(|id| *id <= i32::MAX as u32)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{id} is no valid owner")))
}

fn set_time(parent: &OwnedFd, path: &Path, seconds: i64) -> io::Result<()> {
    let time = TimeSpec::new(seconds, 0);
    Ok(utimensat(parent, path, &time, &time, UtimensatFlags::NoFollowSymlink)?)
}

fn set_extended_attribute(file: impl AsFd, name: &std::ffi::CStr, value: &[u8]) -> io::Result<()> {
    // Through /proc, for an O_PATH handle has no attributes of its own.
    let path = crate::sys::c_string(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()).as_bytes())?;
    // SAFETY: path, name and value live through the call, the value's length is passed along.
    check(unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) }
        as libc::c_long)
    .map(drop)
}

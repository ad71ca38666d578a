//! Unpacks a layer's tar into a directory, in the form that overlayfs reads.
//!
//! Every entry is reached through a descriptor of its parent, which the kernel resolved below the
//! layer's own directory: neither `..` nor a symbolic link of the layer leads out of it. A whiteout
//! (`.wh.name`) becomes overlayfs' character device 0:0, an opaque directory its attribute.

mod sparse;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmodat, futimens, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use sparse::Sparse;

use super::ImageError;
use crate::sys::check;
use crate::sys::open::{Links, directory, is_directory, make_directory_at, open_in};

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
        let failed = |source| ImageError::Unpack { layer: layer.to_owned(), entry: path.clone(), source };
        set_directory_time(&root, path, modified).map_err(failed)?;
    }
    Ok(size)
}

fn unpack_entry<R: Read>(
    root: &OwnedFd,
    entry: &mut tar::Entry<'_, R>,
    path: &Path,
    directory_times: &mut Vec<(PathBuf, TimeSpec)>,
) -> io::Result<u64> {
    let kind = entry.header().entry_type();
    if kind == tar::EntryType::XGlobalHeader {
        return Ok(0);
    }
    let (attributes, holes) = Attributes::of(entry)?;
    let path = inside(holes.name.as_deref().unwrap_or(path))?;
    let Some(name) = path.file_name() else {
        // The layer's own root.
        attributes.apply_to_directory(root, Path::new("."))?;
        return Ok(0);
    };
    let parent = parent_of(root, &path)?;

    if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
        return whiteout(&parent, name, OsStr::from_bytes(hidden)).map(|()| 0);
    }
    if kind.is_dir() {
        make_directory(&parent, name)?;
        attributes.apply_to_directory(&parent, Path::new(name))?;
        directory_times.push((path, attributes.modified));
        return Ok(0);
    }
    if kind != tar::EntryType::Link {
        clear(&parent, name)?;
    }
    match kind {
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
            let file = open_in(&parent, Path::new(name), flags, 0o600, Links::Refused)?;
            let mut file = std::fs::File::from(file);
            let size =
                if holes.applies() { holes.unpack(entry, &file)? } else { io::copy(entry, &mut file)? };
            attributes.apply(&parent, name, false)?;
            // After the owner, whose change takes a file's capabilities away.
            attributes.set_extended(&file)?;
            return Ok(size);
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
            link(&holder, linked, &parent, name)?;
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
    Ok(0)
}

/// The directory that an entry belongs into, made where the layer has not said anything about it.
fn parent_of(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let parent = path.parent().unwrap_or(Path::new(""));
    match open_in(root, parent, libc::O_PATH | libc::O_DIRECTORY, 0, Links::InRoot) {
        // Missing, or behind the whiteout of an older folder.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
            let mut holder =
                open_in(root, Path::new("."), libc::O_PATH | libc::O_DIRECTORY, 0, Links::InRoot)?;
            let mut walked = PathBuf::new();
            for name in parent.iter() {
                if place(&holder, name)?.is_none_or(|there| is_whiteout(&there)) {
                    make_directory(&holder, name)?;
                }
                walked.push(name);
                // From the root again: what is there may be a link.
                holder = open_in(root, &walked, libc::O_PATH | libc::O_DIRECTORY, 0, Links::InRoot)?;
            }
            Ok(holder)
        }
        result => result,
    }
}

/// A hard link, also in place of what an earlier entry left under its name.
fn link(holder: &OwnedFd, linked: &OsStr, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let same = |place: &OwnedFd, name: &OsStr| {
        nix::sys::stat::fstatat(place, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map(|status| (status.st_dev, status.st_ino))
    };
    // Linked to itself, it must not be cleared away first.
    let target = same(holder, linked)?;
    if same(parent, name).is_ok_and(|there| there == target) {
        return Ok(());
    }
    clear(parent, name)?;
    Ok(linkat(holder, linked, parent, name, AtFlags::empty())?)
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
        return make_opaque(parent);
    }
    if hidden.is_empty() || hidden == "." || hidden == ".." {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a whiteout hides nothing that could be there",
        ));
    }
    match make_node(parent, hidden, SFlag::S_IFCHR, 0) {
        // The same layer brings a new one of this name, which hides the old one; a directory has to be told so.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match place(parent, hidden)? {
            Some(there) if is_directory(&there)? => make_opaque(&there),
            _ => Ok(()),
        },
        result => result,
    }
}

/// A handle on what has this name, if anything has.
fn place(parent: &OwnedFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    match open_in(parent, Path::new(name), libc::O_PATH | libc::O_NOFOLLOW, 0, Links::InRoot) {
        Ok(place) => Ok(Some(place)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a handle stands on overlayfs' mark for what is hidden.
fn is_whiteout(place: &OwnedFd) -> bool {
    nix::sys::stat::fstat(place)
        .is_ok_and(|status| status.st_mode & libc::S_IFMT == libc::S_IFCHR && status.st_rdev == 0)
}

/// Hides what lower layers have in this directory.
fn make_opaque(directory: &OwnedFd) -> io::Result<()> {
    set_extended_attribute(directory, c"trusted.overlay.opaque", b"y")
}

fn make_directory(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let Some(there) = place(parent, name)? else { return make_directory_at(parent, name, 0o755) };
    let is_whiteout = is_whiteout(&there);
    if is_directory(&there)? {
        return Ok(());
    }
    clear(parent, name)?;
    make_directory_at(parent, name, 0o755)?;
    match place(parent, name)? {
        // The whiteout that made room for it still counts for what lower layers have below this name.
        Some(made) if is_whiteout => make_opaque(&made),
        _ => Ok(()),
    }
}

/// Removes what an earlier entry of this layer left under the name, with all that is in it.
fn clear(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
        Err(nix::Error::EISDIR) => {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let inside = open_in(parent, Path::new(name), flags, 0, Links::Refused)?;
            let mut listed = nix::dir::Dir::from_fd(inside.try_clone()?)?;
            let names: Vec<_> =
                listed.iter().map(|entry| Ok(entry?.file_name().to_owned())).collect::<io::Result<_>>()?;
            for name in names.iter().filter(|name| ![c".", c".."].contains(&name.as_c_str())) {
                clear(&inside, OsStr::from_bytes(name.to_bytes()))?;
            }
            Ok(unlinkat(parent, name, UnlinkatFlags::RemoveDir)?)
        }
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
    modified: TimeSpec,
    extended: HashMap<String, Vec<u8>>,
}

impl Attributes {
    fn of<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<(Attributes, Sparse)> {
        let header = entry.header();
        let mut attributes = Attributes {
            uid: checked_id(header.uid()?)?,
            gid: checked_id(header.gid()?)?,
            mode: header.mode()? & 0o7777,
            modified: TimeSpec::new(i64::try_from(header.mtime()?).unwrap_or(0), 0),
            extended: HashMap::new(),
        };
        let mut holes = Sparse::default();
        // What does not fit the old header comes as an extension and takes precedence.
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            let (Ok(key), value) = (extension.key(), extension.value_bytes()) else { continue };
            holes.note(key, value)?;
            let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
            match (key, number()) {
                ("uid", Some(uid)) => attributes.uid = checked_id(uid)?,
                ("gid", Some(gid)) => attributes.gid = checked_id(gid)?,
                ("mtime", _) => attributes.modified = time(value).unwrap_or(attributes.modified),
                _ => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        attributes.extended.insert(name.to_owned(), value.to_vec());
                    }
                }
            }
        }
        Ok((attributes, holes))
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
        Ok(utimensat(parent, name, &self.modified, &self.modified, UtimensatFlags::NoFollowSymlink)?)
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
            match set_extended_attribute(&file, &crate::sys::c_string(name.as_bytes())?, value) {
                // Some file systems have no attributes for users; containers do not need them to run.
                Err(error) if name.starts_with("user.") && error.kind() == io::ErrorKind::Unsupported => {}
                result => result?,
            }
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

/// A time as PAX writes it: seconds with a fraction, before 1970 with a sign.
fn time(text: &[u8]) -> Option<TimeSpec> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: i64 = digits.parse().ok()?;
    if text.starts_with('-') && nanoseconds > 0 {
        return Some(TimeSpec::new(whole.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some(TimeSpec::new(whole, nanoseconds))
}

/// Sets the time of a directory that the layer made, if it is still there: a later entry may have put something
/// else in its place.
fn set_directory_time(root: &OwnedFd, path: &Path, modified: &TimeSpec) -> io::Result<()> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    match open_in(root, path, flags, 0, Links::Refused) {
        Ok(directory) => Ok(futimens(&directory, modified, modified)?),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Ok(()),
            _ => Err(error),
        },
    }
}

fn set_extended_attribute(file: impl AsFd, name: &std::ffi::CStr, value: &[u8]) -> io::Result<()> {
    // Through /proc, for an O_PATH handle has no attributes of its own.
    let path = crate::sys::c_string(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()).as_bytes())?;
    // SAFETY: path, name and value live through the call, the value's length is passed along.
    check(unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) }
        as libc::c_long)
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_may_lie_before_1970() {
        let parts = |text: &str| time(text.as_bytes()).map(|time| (time.tv_sec(), time.tv_nsec()));
        assert_eq!(parts("1700000000.25"), Some((1_700_000_000, 250_000_000)));
        assert_eq!(parts("12"), Some((12, 0)));
        assert_eq!(parts("-1.5"), Some((-2, 500_000_000)));
        assert_eq!(parts("-0.5"), Some((-1, 500_000_000)));
        assert_eq!(parts("noon"), None);
    }

    #[test]
    fn paths_that_climb_are_refused() {
        assert_eq!(inside(Path::new("/etc/./passwd")).unwrap(), Path::new("etc/passwd"));
        assert!(inside(Path::new("etc/../../passwd")).is_err());
    }
}

//! File trees below open directories: walking them, copying them, and turning them into tars and back.
//!
//! No path is ever resolved twice: each step is taken from a directory that is open, without following links, so
//! that whoever changes the tree meanwhile leads us nowhere else.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, fchown, fchownat, symlinkat, unlinkat};
use runtime::sys::open::{Links, make_directories_in, open_in};

/// How files come to their new place.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Whose they are there.
    pub owner: Owner,
    /// Whether the place is this machine's and not a container's: what a container has made gets no rights here.
    pub is_here: bool,
}

impl Manner {
    /// The mode of a copy: on this machine nothing runs as somebody else for a container's sake.
    fn mode(self, status: &FileStat) -> Mode {
        let kept = if self.is_here { 0o1777 } else { 0o7777 };
        Mode::from_bits_truncate(status.st_mode & kept)
    }
}

/// Whose files are at their new place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Their owner's.
    Kept,
    /// Root's.
    Root,
}

/// An entry's kind, by its mode.
pub fn kind(status: &FileStat) -> u32 {
    status.st_mode & libc::S_IFMT
}

/// What is at a name, links not followed.
pub fn status(directory: impl AsFd, name: &OsStr) -> io::Result<FileStat> {
    Ok(fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?)
}

/// The names in a directory, in order.
pub fn names(directory: impl AsFd) -> io::Result<Vec<OsString>> {
    // Read through a descriptor of its own, from the beginning.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let own = openat(directory, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in nix::dir::Dir::from_fd(own)?.iter() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

/// Opens a directory below another, which must be no link.
pub fn enter(directory: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(directory, name, flags, Mode::empty())?)
}

fn open_file(directory: impl AsFd, name: &OsStr) -> io::Result<File> {
    // A pipe that took the file's place must not stop us.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::from(openat(directory, name, flags, Mode::empty())?);
    // Nor a device that did.
    match kind(&fstat(&file)?) {
        libc::S_IFREG => Ok(file),
        _ => Err(io::Error::other("it is no file any more")),
    }
}

/// Copies `name` below `from`, with all that is in it, to `new_name` below `to`.
pub fn copy(from: &OwnedFd, name: &OsStr, to: &OwnedFd, new_name: &OsStr, manner: Manner) -> Result<()> {
    let shown = Path::new(name).display().to_string();
    let status = status(from, name).with_context(|| format!("cannot read {shown}"))?;
    copy_entry(from, name, to, new_name, manner, &status).with_context(|| format!("cannot copy {shown}"))?;
    if kind(&status) == libc::S_IFDIR {
        let source = enter(from, name).with_context(|| format!("cannot read {shown}"))?;
        let target = enter(to, new_name).with_context(|| format!("cannot write {shown}"))?;
        copy_content(&source, &target, manner)?;
        // Last, for what was put into it has changed its time.
        set_times(to, new_name, &status).with_context(|| format!("cannot copy {shown}"))?;
    }
    Ok(())
}

/// Copies all that is in a directory into another one.
pub fn copy_content(from: &OwnedFd, to: &OwnedFd, manner: Manner) -> Result<()> {
    names(from)
        .context("cannot list a directory")?
        .iter()
        .try_for_each(|name| copy(from, name, to, name, manner))
}

fn copy_entry(
    from: &OwnedFd,
    name: &OsStr,
    to: &OwnedFd,
    new_name: &OsStr,
    manner: Manner,
    status: &FileStat,
) -> io::Result<()> {
    match kind(status) {
        libc::S_IFDIR => {
            match mkdirat(to, new_name, Mode::from_bits_truncate(0o700)) {
                Ok(()) | Err(nix::Error::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let directory = enter(to, new_name)?;
            own(&directory, manner.owner, status)?;
            return Ok(fchmod(&directory, manner.mode(status))?);
        }
        libc::S_IFREG => {
            let mut source = open_file(from, name)?;
            let mut target = create(to, new_name)?;
            io::copy(&mut source, &mut target)?;
            own(&target, manner.owner, status)?;
            fchmod(&target, manner.mode(status))?;
        }
        libc::S_IFLNK => {
            let target = readlinkat(from, name)?;
            make_way(to, new_name)?;
            symlinkat(target.as_os_str(), to, new_name)?;
            own_link(to, new_name, manner.owner, status)?;
        }
        // A socket is nothing without whoever listens on it.
        libc::S_IFSOCK => return Ok(()),
        libc::S_IFCHR | libc::S_IFBLK if manner.is_here => {
            return Err(io::Error::other("a container's devices are not made on this machine"));
        }
        other => {
            make_way(to, new_name)?;
            mknodat(to, new_name, SFlag::from_bits_truncate(other), manner.mode(status), status.st_rdev)?;
            own_link(to, new_name, manner.owner, status)?;
        }
    }
    set_times(to, new_name, status)
}

/// A new file in the place of whatever is there but a directory. One that is mounted there is written over.
fn create(directory: &OwnedFd, name: &OsStr) -> io::Result<File> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(nix::Error::ENOENT | nix::Error::EBUSY) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(File::from(openat(directory, name, flags, Mode::from_bits_truncate(0o600))?))
}

fn make_way(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn own(file: impl AsFd, owner: Owner, status: &FileStat) -> io::Result<()> {
    let (uid, gid) = ids(owner, status);
    Ok(fchown(file, Some(uid.into()), Some(gid.into()))?)
}

fn own_link(directory: &OwnedFd, name: &OsStr, owner: Owner, status: &FileStat) -> io::Result<()> {
    let (uid, gid) = ids(owner, status);
    Ok(fchownat(directory, name, Some(uid.into()), Some(gid.into()), AtFlags::AT_SYMLINK_NOFOLLOW)?)
}

fn ids(owner: Owner, status: &FileStat) -> (u32, u32) {
    match owner {
        Owner::Kept => (status.st_uid, status.st_gid),
        Owner::Root => (0, 0),
    }
}

fn set_times(directory: &OwnedFd, name: &OsStr, status: &FileStat) -> io::Result<()> {
    let time = TimeSpec::new(status.st_mtime, status.st_mtime_nsec);
    Ok(utimensat(directory, name, &time, &time, UtimensatFlags::NoFollowSymlink)?)
}

/// Writes trees into a tar.
pub struct Writer<W: Write> {
    tar: tar::Builder<W>,
    /// Where a file with several names was written first.
    links: HashMap<(u64, u64), PathBuf>,
    /// What is on another file system is shown empty, if that is wanted.
    device: Option<u64>,
}

impl<W: Write> Writer<W> {
    /// Everything, wherever it is.
    pub fn new(target: W) -> Writer<W> {
        Writer { tar: tar::Builder::new(target), links: HashMap::new(), device: None }
    }

    /// Of what is mounted inside the tree, only the empty places.
    pub fn of_one_file_system(target: W, root: &OwnedFd) -> Result<Writer<W>> {
        let device = fstat(root).context("cannot read the tree's root")?.st_dev;
        Ok(Writer { device: Some(device), ..Writer::new(target) })
    }

    /// Adds all that is in a directory, below `path`.
    pub fn add_content(&mut self, directory: &OwnedFd, path: &Path) -> Result<()> {
        names(directory)
            .with_context(|| format!("cannot list {}", path.display()))?
            .iter()
            .try_for_each(|name| self.add(directory, name, &path.join(name)))
    }

    /// Adds what is at a name, with all that is in it, as `path`.
    pub fn add(&mut self, directory: &OwnedFd, name: &OsStr, path: &Path) -> Result<()> {
        let status = match status(directory, name) {
            // It was removed since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result.with_context(|| format!("cannot read {}", path.display()))?,
        };
        self.add_entry(directory, name, path, &status)
            .with_context(|| format!("cannot archive {}", path.display()))?;
        let is_elsewhere = self.device.is_some_and(|device| device != status.st_dev);
        if kind(&status) != libc::S_IFDIR || is_elsewhere {
            return Ok(());
        }
        let inside = enter(directory, name).with_context(|| format!("cannot read {}", path.display()))?;
        self.add_content(&inside, path)
    }

    fn add_entry(
        &mut self,
        directory: &OwnedFd,
        name: &OsStr,
        path: &Path,
        status: &FileStat,
    ) -> io::Result<()> {
        let mut header = header(status);
        if kind(status) == libc::S_IFREG && status.st_nlink > 1 {
            let key = (status.st_dev, status.st_ino);
            if let Some(first) = self.links.get(&key) {
                header.set_entry_type(tar::EntryType::Link);
                let first = first.clone();
                return self.tar.append_link(&mut header, path, first);
            }
            self.links.insert(key, path.to_owned());
        }
        if kind(status) != libc::S_IFSOCK {
            self.add_attributes(directory, name)?;
        }
        match kind(status) {
            libc::S_IFREG if self.device.is_some_and(|device| device != status.st_dev) => {
                self.tar.append_data(&mut header, path, io::empty())
            }
            libc::S_IFREG => {
                let file = open_file(directory, name)?;
                let size = fstat(&file)?.st_size as u64;
                header.set_size(size);
                // One that grows or shrinks meanwhile has the size that it had.
                self.tar.append_data(&mut header, path, file.chain(io::repeat(0)).take(size))
            }
            libc::S_IFDIR => {
                header.set_entry_type(tar::EntryType::Directory);
                self.tar.append_data(&mut header, path.join(""), io::empty())
            }
            libc::S_IFLNK => {
                header.set_entry_type(tar::EntryType::Symlink);
                let target = readlinkat(directory, name)?;
                self.tar.append_link(&mut header, path, target)
            }
            libc::S_IFSOCK => Ok(()),
            other => {
                header.set_entry_type(match other {
                    libc::S_IFCHR => tar::EntryType::Char,
                    libc::S_IFBLK => tar::EntryType::Block,
                    _ => tar::EntryType::Fifo,
                });
                header.set_device_major(libc::major(status.st_rdev))?;
                header.set_device_minor(libc::minor(status.st_rdev))?;
                self.tar.append_data(&mut header, path, io::empty())
            }
        }
    }

    /// Adds the extended attributes of the entry that comes next, such as a program's capabilities.
    fn add_attributes(&mut self, directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let attributes = runtime::sys::attributes::of(directory, name)?;
        let travelling = attributes.iter().filter(|(name, _)| travels(name));
        let records: Vec<(String, &[u8])> =
            travelling.map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.as_slice())).collect();
        let records = records.iter().map(|(key, value)| (key.as_str(), *value));
        self.tar.append_pax_extensions(records)
    }

    /// Adds an empty file, such as a whiteout.
    pub fn add_marker(&mut self, path: &Path, status: &FileStat) -> Result<()> {
        let mut header = header(status);
        header.set_mode(0o600);
        self.tar.append_data(&mut header, path, io::empty()).context("cannot write the archive")
    }

    /// Adds an entry without what is in it.
    pub fn add_alone(
        &mut self,
        directory: &OwnedFd,
        name: &OsStr,
        path: &Path,
        status: &FileStat,
    ) -> Result<()> {
        self.add_entry(directory, name, path, status)
            .with_context(|| format!("cannot archive {}", path.display()))
    }

    /// Ends the archive.
    pub fn finish(self) -> Result<W> {
        self.tar.into_inner().context("cannot write the archive")
    }
}

/// Whether an extended attribute is the file's own: overlayfs' are the layer's, and labels and measurements the
/// machine's.
fn travels(name: &str) -> bool {
    name == "security.capability" || name.starts_with("user.") && !name.starts_with("user.overlay.")
}

fn header(status: &FileStat) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(status.st_mode & 0o7777);
    header.set_uid(status.st_uid.into());
    header.set_gid(status.st_gid.into());
    header.set_mtime(status.st_mtime.max(0) as u64);
    header.set_size(0);
    header
}

/// Unpacks a tar below `path` of a tree, whose links are followed as its owner sees them.
pub fn unpack(archive: impl Read, root: &OwnedFd, path: &Path, owner: Owner) -> Result<()> {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().context("cannot read the archive")? {
        let mut entry = entry.context("cannot read the archive")?;
        let inside = entry.path().context("cannot read the archive")?.into_owned();
        unpack_entry(&mut entry, root, path, &inside, owner)
            .with_context(|| format!("cannot unpack {}", inside.display()))?;
    }
    Ok(())
}

fn unpack_entry(
    entry: &mut tar::Entry<'_, impl Read>,
    root: &OwnedFd,
    base: &Path,
    inside: &Path,
    owner: Owner,
) -> Result<()> {
    let clean = within(inside)?;
    let Some(name) = clean.file_name().map(OsStr::to_owned) else { return Ok(()) };
    let parent = base.join(clean.parent().unwrap_or(Path::new("")));
    make_directories_in(root, relative(&parent), 0o755, Links::InRoot)?;
    let parent = open_in(root, &parent, libc::O_RDONLY | libc::O_DIRECTORY, 0, Links::InRoot)?;
    let header = entry.header().clone();
    let mode = header.mode()? & 0o7777;
    let (uid, gid) = match owner {
        Owner::Kept => (header.uid()? as u32, header.gid()? as u32),
        Owner::Root => (0, 0),
    };
    match header.entry_type() {
        tar::EntryType::Directory => {
            runtime::sys::open::make_directory_at(&parent, &name, mode)?;
            let directory = enter(&parent, &name)?;
            fchown(&directory, Some(uid.into()), Some(gid.into()))?;
            fchmod(&directory, Mode::from_bits_truncate(mode))?;
        }
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            let mut file = create(&parent, &name)?;
            io::copy(entry, &mut file)?;
            fchown(&file, Some(uid.into()), Some(gid.into()))?;
            fchmod(&file, Mode::from_bits_truncate(mode))?;
            let time = TimeSpec::new(header.mtime()? as i64, 0);
            utimensat(&parent, name.as_os_str(), &time, &time, UtimensatFlags::NoFollowSymlink)?;
        }
        tar::EntryType::Symlink => {
            let target = entry.link_name()?.context("a link without a target")?;
            make_way(&parent, &name)?;
            symlinkat(target.as_os_str(), &parent, name.as_os_str())?;
            fchownat(
                &parent,
                name.as_os_str(),
                Some(uid.into()),
                Some(gid.into()),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            )?;
        }
        tar::EntryType::Link => {
            let target = entry.link_name()?.context("a link without a target")?.into_owned();
            let target = base.join(within(&target)?);
            let source = target.parent().unwrap_or(Path::new("/"));
            let directory = open_in(root, source, libc::O_RDONLY | libc::O_DIRECTORY, 0, Links::InRoot)?;
            let known = target.file_name().context("a link to nothing")?;
            make_way(&parent, &name)?;
            nix::unistd::linkat(&directory, known, &parent, name.as_os_str(), AtFlags::empty())?;
        }
        tar::EntryType::Fifo => {
            make_way(&parent, &name)?;
            mknodat(&parent, name.as_os_str(), SFlag::S_IFIFO, Mode::from_bits_truncate(mode), 0)?;
        }
        other => bail!("entries of kind {other:?} are not unpacked"),
    }
    Ok(())
}

/// A path of an archive without what would lead out.
fn within(path: &Path) -> Result<PathBuf> {
    if path.components().any(|part| part == Component::ParentDir) {
        bail!("the path holds ..");
    }
    Ok(path.components().filter(|part| matches!(part, Component::Normal(_))).collect())
}

/// A path below a root.
pub fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

//! Mounts that volumes need: tmpfs for what must not reach a disk, bind mounts for parts of volumes.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat};

/// Makes the directory a tmpfs; `false` when it is a mount already.
pub fn ensure_tmpfs(directory: &Path, size: Option<i64>) -> io::Result<bool> {
    fs::create_dir_all(directory)?;
    if is_mount_point(directory)? {
        return Ok(false);
    }
    let size = size.map_or(String::new(), |bytes| format!(",size={bytes}"));
    let options = format!("mode=0777{size}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), directory, Some("tmpfs"), flags, Some(options.as_str()))?;
    Ok(true)
}

fn is_mount_point(directory: &Path) -> io::Result<bool> {
    let parent = directory.parent().unwrap_or(directory);
    Ok(fs::metadata(directory)?.dev() != fs::metadata(parent)?.dev())
}

/// Gives a directory to a group, which may write to it and passes it on to new files.
pub fn give_to_group(directory: &Path, group: u32) -> io::Result<()> {
    give(&open_root(directory)?, group, 0o2770)
}

/// Gives everything below a directory to a group, links themselves left alone. Who shares the volume may exchange
/// its files meanwhile: nothing is touched by its path.
pub fn give_tree_to_group(directory: &Path, group: u32) -> io::Result<()> {
    give_below(open_root(directory)?, group)
}

/// A volume's own place is the node's choice and may be a link.
fn open_root(directory: &Path) -> nix::Result<OwnedFd> {
    open(directory, DIRECTORY.difference(OFlag::O_NOFOLLOW), Mode::empty())
}

/// What is opened has to be a directory and no link to one.
const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

fn give_below(directory: OwnedFd, group: u32) -> io::Result<()> {
    give(&directory, group, 0o2770)?;
    for entry in fs::read_dir(proc_path(&directory))? {
        let name = entry?.file_name();
        let look = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let entry = match openat(&directory, name.as_os_str(), look, Mode::empty()) {
            Err(Errno::ENOENT) => continue,
            entry => entry?,
        };
        match SFlag::from_bits_truncate(fstat(&entry)?.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => give_below(openat(&entry, ".", DIRECTORY, Mode::empty())?, group)?,
            SFlag::S_IFREG => give(&entry, group, 0o660)?,
            _ => {}
        }
    }
    Ok(())
}

/// Gives what a descriptor stands for to a group, with further rights.
fn give(file: &OwnedFd, group: u32, rights: u32) -> io::Result<()> {
    // Descriptors that were opened only to look at something are changed by their place in /proc, which is no name.
    let place = proc_path(file);
    chown(&place, None, Some(group))?;
    let mode = fs::metadata(&place)?.permissions().mode();
    fs::set_permissions(&place, fs::Permissions::from_mode(mode | rights))
}

/// Mounts a part of a volume at `target`, so that the container gets what was there when it was looked up:
/// a link swapped in later leads nowhere. The part is made a directory when it is not there.
pub fn mount_sub_path(volume: &Path, sub_path: &str, target: &Path) -> io::Result<()> {
    let part = open_inside(volume, sub_path)?;
    let is_directory = fs::metadata(proc_path(&part))?.is_dir();
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    unmount_if_mounted(target)?;
    if is_directory {
        fs::create_dir_all(target)?;
    } else if !target.exists() {
        fs::File::create(target)?;
    }
    mount(Some(&proc_path(&part)), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}

/// Opens a path below a directory and makes what is missing of it; links in it cannot lead out, whoever exchanges
/// them meanwhile.
fn open_inside(root: &Path, path: &str) -> io::Result<OwnedFd> {
    let root = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    match look_inside(&root, Path::new(path)) {
        Err(Errno::ENOENT) => {
            make_inside(&root, Path::new(path))?;
            Ok(look_inside(&root, Path::new(path))?)
        }
        Err(Errno::ENOSYS) => {
            let text = "subPath needs the system call openat2, which Linux has since 5.6";
            Err(io::Error::new(io::ErrorKind::Unsupported, text))
        }
        other => Ok(other?),
    }
}

fn look_inside(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

/// Makes the directories of a path one by one, each in a directory that is held open. They get the volume's rights.
fn make_inside(root: &OwnedFd, path: &Path) -> io::Result<()> {
    let mode = Mode::from_bits_truncate(fstat(root)?.st_mode);
    let mut place = PathBuf::new();
    for part in path.components() {
        let parent =
            if place.as_os_str().is_empty() { root.try_clone()? } else { look_inside(root, &place)? };
        place.push(part);
        match mkdirat(&parent, part.as_os_str(), mode) {
            Ok(()) => {
                // The process's mask has taken from the rights.
                let made = openat(&parent, part.as_os_str(), DIRECTORY, Mode::empty())?;
                fchmod(&made, mode)?;
            }
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn proc_path(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn unmount_if_mounted(target: &Path) -> io::Result<()> {
    match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Unmounts everything below a directory and removes it. Nothing is removed while something is mounted in
/// it: that would delete what the mount shows.
pub fn remove_tree(directory: &Path) -> io::Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    let resolved = fs::canonicalize(directory)?;
    for place in mounts_below(&resolved)?.into_iter().rev() {
        umount2(&place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    if let Some(left) = mounts_below(&resolved)?.first() {
        let text = format!("{} is still mounted", left.display());
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn mounts_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mount_points(&table).filter(|place| place.starts_with(directory)).collect())
}

/// The mount points in the order in which they were mounted.
fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(|place| PathBuf::from(unescape(place)))
}

/// The table writes blanks as `\040`.
fn unescape(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_read_with_its_escapes() {
        let table = "22 1 0:20 / /var/lib/a\\040b rw - tmpfs tmpfs rw\n23 1 0:21 / /c rw - tmpfs tmpfs rw\n";
        let places: Vec<_> = mount_points(table).collect();
        assert_eq!(places, [PathBuf::from("/var/lib/a b"), PathBuf::from("/c")]);
    }

    #[test]
    fn a_link_in_a_volume_cannot_lead_out_of_it() {
        let volume = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", volume.path().join("out")).unwrap();
        // Within the volume's own root /etc is a directory that is not there and cannot be made outside.
        assert!(open_inside(volume.path(), "out/passwd").is_err());
        let made = open_inside(volume.path(), "a/b").unwrap();
        assert!(fs::metadata(proc_path(&made)).unwrap().is_dir());
        assert!(volume.path().join("a/b").is_dir());
    }

    /// CVE-2017-1002101, CVE-2021-25741: a pod exchanges a directory for a link while a subPath is prepared.
    #[test]
    fn a_link_that_is_exchanged_meanwhile_leads_nowhere() {
        let (volume, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let rights = fs::metadata(outside.path()).unwrap().permissions();
        fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let (place, spare) = (volume.path().join("a"), volume.path().join("spare"));
        fs::create_dir(&place).unwrap();
        std::os::unix::fs::symlink(outside.path(), &spare).unwrap();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                    nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, &place, nix::fcntl::AT_FDCWD, &spare, flags)
                        .unwrap();
                }
            });
            for round in 0..300 {
                // It may fail, as often as it meets the link; it may not reach what is outside.
                if let Ok(part) = open_inside(volume.path(), &format!("a/b{round}")) {
                    let reached = fs::read_link(proc_path(&part)).unwrap();
                    assert!(reached.starts_with(volume.path()), "{}", reached.display());
                }
                give_tree_to_group(volume.path(), 4711).unwrap_or_default();
            }
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert_eq!(fs::metadata(outside.path()).unwrap().permissions(), rights);
        assert_ne!(fs::metadata(outside.path()).unwrap().gid(), 4711);
    }

    #[test]
    fn a_tree_without_mounts_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("pod/volumes");
        fs::create_dir_all(&tree).unwrap();
        remove_tree(&root.path().join("pod")).unwrap();
        assert!(!tree.exists());
        remove_tree(&tree).unwrap();
    }
}

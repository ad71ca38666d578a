//! Mounts that volumes need: tmpfs for what must not reach a disk, bind mounts for parts of volumes.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;

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
    chown(directory, None, Some(group))?;
    let mode = fs::metadata(directory)?.permissions().mode();
    fs::set_permissions(directory, fs::Permissions::from_mode(mode | 0o2770))
}

/// Gives everything below a directory to a group, links themselves left alone.
pub fn give_tree_to_group(directory: &Path, group: u32) -> io::Result<()> {
    give_to_group(directory, group)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            give_tree_to_group(&entry.path(), group)?;
        } else if kind.is_file() {
            chown(entry.path(), None, Some(group))?;
            let mode = entry.metadata()?.permissions().mode();
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode | 0o660))?;
        }
    }
    Ok(())
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

/// Opens a path below a directory; links in it cannot lead out.
fn open_inside(root: &Path, path: &str) -> io::Result<OwnedFd> {
    let directory = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(&directory, path, how) {
        Err(Errno::ENOENT) => {
            make_inside(root, path)?;
            Ok(openat2(&directory, path, how)?)
        }
        // Kernels before 5.6 have no openat2: the path is resolved and checked by hand.
        Err(Errno::ENOSYS) => {
            make_inside(root, path)?;
            let resolved = fs::canonicalize(root.join(path))?;
            check_inside(root, &resolved)?;
            Ok(open(&resolved, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

/// Makes the directories of a path one by one, each in a place that has been checked.
fn make_inside(root: &Path, path: &str) -> io::Result<()> {
    let mode = fs::metadata(root)?.permissions().mode() & 0o7777;
    let mut place = root.to_path_buf();
    for part in Path::new(path).components() {
        place.push(part);
        if fs::symlink_metadata(&place).is_err() {
            fs::DirBuilder::new().mode(mode).create(&place)?;
            fs::set_permissions(&place, fs::Permissions::from_mode(mode))?;
        }
        check_inside(root, &fs::canonicalize(&place)?)?;
    }
    Ok(())
}

fn check_inside(root: &Path, resolved: &Path) -> io::Result<()> {
    match resolved.starts_with(fs::canonicalize(root)?) {
        true => Ok(()),
        false => {
            let text = format!("{} is outside of the volume {}", resolved.display(), root.display());
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        }
    }
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

//! Writes the files of a volume so that readers see all of them change at once.
//!
//! The layout is upstream's: the files live in a directory named after the time, the link `..data` points to
//! it, and what users see are links through `..data`. A change is one rename of that link.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

const DATA: &str = "..data";
const NEXT_DATA: &str = "..data_tmp";

/// One file: its bytes and its permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What is in it.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// All files of a volume by their path in it.
pub type Files = BTreeMap<String, File>;

/// Brings a directory to exactly these files; answers whether anything had to change. With a group, everything belongs
/// to it and it may read what the owner may.
pub fn write_files(directory: &Path, files: &Files, group: Option<u32>, now: Timestamp) -> io::Result<bool> {
    if let Some(path) = files.keys().find(|path| !is_inside(path)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path: {path}")));
    }
    fs::create_dir_all(directory)?;
    if let Some(group) = group {
        chown(directory, None, Some(group))?;
    }
    let old = fs::read_link(directory.join(DATA)).ok();
    if old.as_ref().is_some_and(|old| holds_exactly(&directory.join(old), files)) {
        link_visible_names(directory, files)?;
        return Ok(false);
    }
    let fresh = make_payload(directory, files, group, now)?;
    let next = directory.join(NEXT_DATA);
    remove_if_there(&next)?;
    symlink(&fresh, &next)?;
    fs::rename(&next, directory.join(DATA))?;
    link_visible_names(directory, files)?;
    remove_stale_names(directory, files)?;
    if let Some(old) = old {
        fs::remove_dir_all(directory.join(old))?;
    }
    Ok(true)
}

/// Writes the files into a new directory and returns its name.
fn make_payload(directory: &Path, files: &Files, group: Option<u32>, now: Timestamp) -> io::Result<PathBuf> {
    let stamp = now.strftime("%Y_%m_%d_%H_%M_%S");
    let name = PathBuf::from(format!("..{stamp}.{}", now.subsec_nanosecond()));
    let payload = directory.join(&name);
    if payload.exists() {
        fs::remove_dir_all(&payload)?;
    }
    make_directory(&payload, group)?;
    for (path, file) in files {
        let target = payload.join(path);
        let mut parents: Vec<_> =
            target.ancestors().skip(1).take_while(|parent| *parent != payload).collect();
        parents.reverse();
        for parent in parents.into_iter().filter(|parent| !parent.exists()) {
            make_directory(parent, group)?;
        }
        let mode = file.mode | if group.is_some() { (file.mode & 0o400) >> 3 } else { 0 };
        let mut written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
        written.write_all(&file.content)?;
        // Set apart from the opening, so that the umask has no say.
        fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
        if let Some(group) = group {
            chown(&target, None, Some(group))?;
        }
    }
    Ok(name)
}

fn make_directory(path: &Path, group: Option<u32>) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    match group {
        Some(group) => chown(path, None, Some(group)),
        None => Ok(()),
    }
}

/// The first part of every path is a link into `..data`.
fn link_visible_names(directory: &Path, files: &Files) -> io::Result<()> {
    for name in visible_names(files) {
        let link = directory.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    Ok(())
}

fn remove_stale_names(directory: &Path, files: &Files) -> io::Result<()> {
    let wanted: Vec<&str> = visible_names(files).collect();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_ours = entry.file_type()?.is_symlink() && name != DATA;
        if is_ours && !wanted.iter().any(|wanted| name == *wanted) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn visible_names(files: &Files) -> impl Iterator<Item = &str> {
    files.keys().filter_map(|path| path.split('/').next())
}

/// Whether a payload has these files and no others.
fn holds_exactly(payload: &Path, files: &Files) -> bool {
    let same =
        files.iter().all(|(path, file)| fs::read(payload.join(path)).is_ok_and(|old| old == file.content));
    same && count_files(payload).is_ok_and(|count| count == files.len())
}

fn count_files(directory: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Ok(count)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Whether a path stays in its volume and cannot be confused with our own names.
fn is_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some()
        && !path.starts_with("..")
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &str)]) -> Files {
        let file = |text: &str| File { content: text.into(), mode: 0o640 };
        entries.iter().map(|(path, text)| (path.to_string(), file(text))).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn visible(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with(".."))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_appear_through_one_link() {
        let volume = tempfile::tempdir().unwrap();
        let path = volume.path();
        assert!(write_files(path, &files(&[("a", "1"), ("dir/b", "2")]), None, at(0)).unwrap());
        assert_eq!(fs::read_to_string(path.join("dir/b")).unwrap(), "2");
        assert_eq!(fs::read_link(path.join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(fs::metadata(path.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_change_replaces_all_files_and_leaves_nothing_behind() {
        let volume = tempfile::tempdir().unwrap();
        let path = volume.path();
        write_files(path, &files(&[("a", "1"), ("gone", "x")]), None, at(0)).unwrap();
        assert!(write_files(path, &files(&[("a", "2"), ("new", "y")]), None, at(1)).unwrap());
        assert_eq!(visible(path), ["a", "new"]);
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "2");
        assert_eq!(fs::read_dir(path).unwrap().count(), 4);
    }

    #[test]
    fn the_same_files_change_nothing() {
        let volume = tempfile::tempdir().unwrap();
        let wanted = files(&[("a", "1")]);
        write_files(volume.path(), &wanted, None, at(0)).unwrap();
        let before = fs::read_link(volume.path().join("..data")).unwrap();
        assert!(!write_files(volume.path(), &wanted, None, at(1)).unwrap());
        assert_eq!(fs::read_link(volume.path().join("..data")).unwrap(), before);
    }

    #[test]
    fn the_volumes_group_may_read_what_the_owner_may() {
        let volume = tempfile::tempdir().unwrap();
        let wanted = Files::from([("k".to_string(), File { content: b"s".to_vec(), mode: 0o400 })]);
        write_files(volume.path(), &wanted, Some(fs_group()), at(0)).unwrap();
        assert_eq!(fs::metadata(volume.path().join("k")).unwrap().permissions().mode() & 0o777, 0o440);
    }

    #[test]
    fn paths_cannot_leave_the_volume() {
        let volume = tempfile::tempdir().unwrap();
        for path in ["../x", "/etc/x", "a/../../x", "..data", ""] {
            assert!(write_files(volume.path(), &files(&[(path, "")]), None, at(0)).is_err(), "{path}");
        }
    }

    /// A group that the test's user may give files to.
    fn fs_group() -> u32 {
        nix::unistd::getgid().as_raw()
    }
}

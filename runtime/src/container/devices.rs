//! The devices of the node that a container gets.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use cri::v1;

use super::spec::DeviceNode;

/// A device, and what the container may do with it: any of `r`, `w` and `m`.
pub type Granted = (DeviceNode, String);

/// What a container asks for; all there are, if it is privileged.
pub fn of_container(config: &v1::ContainerConfig, privileged: bool) -> io::Result<Vec<Granted>> {
    let mut granted = Vec::new();
    if privileged {
        for path in below(Path::new("/dev"))? {
            granted.extend(device(&path, &path)?.map(|node| (node, "rwm".to_owned())));
        }
    }
    for given in &config.devices {
        let source = Path::new(&given.host_path);
        let target = if given.container_path.is_empty() { source } else { Path::new(&given.container_path) };
        let access = if given.permissions.is_empty() { "rwm" } else { &given.permissions };
        if let Some(letter) = access.chars().find(|letter| !"rwm".contains(*letter)) {
            return Err(invalid(format!("{letter:?} is no permission on {}", source.display())));
        }
        granted.extend(found_at(source, target)?.into_iter().map(|node| (node, access.to_owned())));
    }
    Ok(granted)
}

/// One device, or all in a directory.
fn found_at(source: &Path, target: &Path) -> io::Result<Vec<DeviceNode>> {
    let source = fs::canonicalize(source)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", source.display())))?;
    if !source.is_dir() {
        let no_device = || invalid(format!("{} is no device", source.display()));
        return Ok(vec![device(&source, target)?.ok_or_else(no_device)?]);
    }
    let mut nodes = Vec::new();
    for path in below(&source)? {
        let target = target.join(path.strip_prefix(&source).unwrap_or(&path));
        nodes.extend(device(&path, &target)?);
    }
    Ok(nodes)
}

/// What is below a directory of devices, but for what every container has of its own.
fn below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    const OWN: [&str; 6] = ["console", "ptmx", "pts", "shm", "mqueue", "fd"];
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") || OWN.iter().any(|own| name == *own) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            found.extend(below(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The device at `source` as it appears at `target`; `None` when it is none.
pub(super) fn device(source: &Path, target: &Path) -> io::Result<Option<DeviceNode>> {
    let metadata = fs::symlink_metadata(source)?;
    let kind = metadata.file_type();
    let kind = match (kind.is_char_device(), kind.is_block_device()) {
        (true, _) => 'c',
        (_, true) => 'b',
        _ => return Ok(None),
    };
    let number = metadata.rdev();
    Ok(Some(DeviceNode {
        path: target.to_owned(),
        kind,
        major: libc::major(number) as u64,
        minor: libc::minor(number) as u64,
        mode: metadata.mode() & 0o777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    }))
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host_path: &str, permissions: &str) -> v1::ContainerConfig {
        let device = v1::Device {
            container_path: "/dev/mine".into(),
            host_path: host_path.into(),
            permissions: permissions.into(),
        };
        v1::ContainerConfig { devices: vec![device], ..Default::default() }
    }

    #[test]
    fn a_device_keeps_its_numbers_under_another_name() {
        let granted = of_container(&asked("/dev/null", "r"), false).unwrap();
        let (node, access) = &granted[0];
        assert_eq!((node.path.to_str(), node.kind, node.major, node.minor), (Some("/dev/mine"), 'c', 1, 3));
        assert_eq!(access, "r");
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let refused =
            |path, permissions| of_container(&asked(path, permissions), false).unwrap_err().to_string();
        assert_eq!(refused("/etc/hostname", ""), "/etc/hostname is no device");
        assert!(refused("/no/such", "").starts_with("/no/such: "));
        assert_eq!(refused("/dev/null", "rx"), "'x' is no permission on /dev/null");
    }
}

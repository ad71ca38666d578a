//! The control group of a pod, where the runtime leaves it to the kubelet.
//!
//! containerd and CRI-O put containers below the group that they are told, but neither limit it nor remove it.
//! The embedded runtime does both itself. Version 1 of control groups, version 2 and both beside each other.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use cri::v1::LinuxContainerResources;

const ROOT: &str = "/sys/fs/cgroup";
/// The controllers that a pod's limits are for; in version 1 each has a tree of its own.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Makes the group with what the pod may use.
pub fn prepare(group: &str, resources: &LinuxContainerResources) -> io::Result<()> {
    let root = Path::new(ROOT);
    if !is_unified(root) {
        for controller in CONTROLLERS.iter().filter(|name| root.join(name).is_dir()) {
            fs::create_dir_all(inside(&root.join(controller), group))?;
        }
        return write_all(legacy_settings(resources), |controller| inside(&root.join(controller), group));
    }
    let mut place = root.to_path_buf();
    for part in Path::new(group.trim_start_matches('/')) {
        delegate(&place)?;
        place.push(part);
        fs::create_dir_all(&place)?;
    }
    write_all(unified_settings(resources), |_| place.clone())
}

/// Removes the group and what is left below it. Fails while a process lives in it.
pub fn remove(group: &str) -> io::Result<()> {
    let root = Path::new(ROOT);
    let trees = fs::read_dir(root)?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    for tree in trees.chain([root.to_path_buf()]) {
        remove_tree(&inside(&tree, group))?;
    }
    Ok(())
}

fn is_unified(root: &Path) -> bool {
    root.join("cgroup.controllers").exists()
}

fn inside(tree: &Path, group: &str) -> PathBuf {
    tree.join(group.trim_start_matches('/'))
}

/// Lets the groups below have controllers of their own.
fn delegate(group: &Path) -> io::Result<()> {
    let known = fs::read_to_string(group.join("cgroup.controllers"))?;
    let wanted = known.split_whitespace().filter(|name| CONTROLLERS.contains(name));
    let switches: Vec<String> = wanted.map(|name| format!("+{name}")).collect();
    fs::write(group.join("cgroup.subtree_control"), switches.join(" "))
}

/// A controller, one of its files, and what goes into it.
type Setting = (&'static str, &'static str, String);

fn legacy_settings(resources: &LinuxContainerResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    if resources.cpu_shares > 0 {
        settings.push(("cpu", "cpu.shares", resources.cpu_shares.to_string()));
    }
    if resources.cpu_quota > 0 {
        settings.push(("cpu", "cpu.cfs_period_us", resources.cpu_period.to_string()));
        settings.push(("cpu", "cpu.cfs_quota_us", resources.cpu_quota.to_string()));
    }
    if resources.memory_limit_in_bytes > 0 {
        settings.push(("memory", "memory.limit_in_bytes", resources.memory_limit_in_bytes.to_string()));
    }
    settings
}

fn unified_settings(resources: &LinuxContainerResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    if resources.cpu_shares > 0 {
        settings.push(("cpu", "cpu.weight", weight(resources.cpu_shares).to_string()));
    }
    if resources.cpu_quota > 0 {
        settings.push(("cpu", "cpu.max", format!("{} {}", resources.cpu_quota, resources.cpu_period)));
    }
    if resources.memory_limit_in_bytes > 0 {
        settings.push(("memory", "memory.max", resources.memory_limit_in_bytes.to_string()));
    }
    settings
}

/// Shares, 2 to 262144, as a weight, 1 to 10000: the line that runtimes draw between the two.
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

fn write_all(settings: Vec<Setting>, place: impl Fn(&str) -> PathBuf) -> io::Result<()> {
    for (controller, file, value) in settings {
        fs::write(place(controller).join(file), value)?;
    }
    Ok(())
}

fn remove_tree(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path())?;
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_in_the_words_of_either_version() {
        let resources = LinuxContainerResources {
            cpu_shares: 1024,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: 64 << 20,
            ..LinuxContainerResources::default()
        };
        let words = |settings: Vec<Setting>| -> Vec<String> {
            settings.into_iter().map(|(_, file, value)| format!("{file}={value}")).collect()
        };
        let legacy = [
            "cpu.shares=1024",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "memory.limit_in_bytes=67108864",
        ];
        assert_eq!(words(legacy_settings(&resources)), legacy);
        let unified = ["cpu.weight=39", "cpu.max=50000 100000", "memory.max=67108864"];
        assert_eq!(words(unified_settings(&resources)), unified);
        assert_eq!(unified_settings(&LinuxContainerResources::default()), []);
    }

    #[test]
    fn a_group_is_made_and_removed() {
        let group = format!("/coracle-kubelet-test-{}/podu", std::process::id());
        let resources = LinuxContainerResources { cpu_shares: 2, ..LinuxContainerResources::default() };
        prepare(&group, &resources).unwrap();
        let parent = group.strip_suffix("/podu").unwrap();
        let made = |name: &str| inside(&Path::new(ROOT).join(name), parent).join("podu").is_dir();
        assert!(made("cpu") || made(""));
        remove(parent).unwrap();
        assert!(!made("cpu") && !made(""));
    }
}

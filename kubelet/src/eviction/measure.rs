//! Measures the node, and what its pods use.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri::Error;
use cri::v1::{ImageFsInfoRequest, ListContainerStatsRequest, UInt64Value};
use k8s_openapi::api::core::v1::Pod;
use nix::sys::statvfs::statvfs;

use super::plan::{Level, Measured, PodUsage};
use super::threshold::Signal;
use crate::container::labels;
use crate::context::Context;
use crate::node::meminfo_bytes;
use crate::pod::view::PodView;
use crate::sandbox::log_directory;

/// Files and blocks of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tree {
    bytes: u64,
    inodes: u64,
}

/// Reads what the kernel and the runtime count.
pub struct Meter {
    context: Arc<Context>,
    images: Option<PathBuf>,
}

impl Meter {
    /// Nothing measured yet.
    pub fn new(context: Arc<Context>) -> Meter {
        Meter { context, images: None }
    }

    /// What the node has left. What cannot be measured is left out, and nobody goes for it.
    pub async fn measure(&mut self) -> Measured {
        if self.images.is_none() {
            self.images = self.place_of_images().await;
        }
        let mut measured = Measured::new();
        let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory_level(&text));
        measured.extend(memory.map(|level| (Signal::MemoryAvailable, level)));
        let root = Some(self.context.config.root.clone());
        let disks = [
            (root, Signal::NodeFsAvailable, Signal::NodeFsInodesFree),
            (self.images.clone(), Signal::ImageFsAvailable, Signal::ImageFsInodesFree),
        ];
        for (place, room, files) in disks {
            let Some(disk) = place.and_then(|place| statvfs(&place).ok()) else { continue };
            let size = disk.fragment_size();
            measured.insert(
                room,
                Level { available: disk.blocks_available() * size, capacity: disk.blocks() * size },
            );
            // File systems that make inodes as they need them have none to run out of.
            if disk.files() > 0 {
                measured.insert(files, Level { available: disk.files_available(), capacity: disk.files() });
            }
        }
        measured.extend(pid_level().map(|level| (Signal::PidAvailable, level)));
        measured
    }

    async fn place_of_images(&self) -> Option<PathBuf> {
        let info = self.context.images.image_fs_info(ImageFsInfoRequest {}).await.ok()?;
        let place = info.image_filesystems.into_iter().next()?.fs_id?.mountpoint;
        Some(PathBuf::from(place))
    }

    /// What pods use, by uid.
    pub async fn usage(&self, pods: &[Arc<Pod>]) -> Result<BTreeMap<String, PodUsage>, Error> {
        let mut usage: BTreeMap<String, PodUsage> = BTreeMap::new();
        let stats =
            self.context.runtime.list_container_stats(ListContainerStatsRequest::default()).await?.stats;
        for container in stats {
            let Some(attributes) = container.attributes else { continue };
            let label = |name: &str| attributes.labels.get(name).cloned().unwrap_or_default();
            let pod = usage.entry(label(labels::POD_UID)).or_default();
            let used = pod.containers.entry(label(labels::CONTAINER_NAME)).or_default();
            let number = |value: Option<UInt64Value>| value.map_or(0, |value| value.value);
            used.memory += container.memory.map_or(0, |memory| number(memory.working_set_bytes));
            let layer = container.writable_layer.unwrap_or_default();
            used.disk += number(layer.used_bytes);
            used.inodes += number(layer.inodes_used);
        }
        let (root, logs) = (self.context.config.root.clone(), self.context.config.log_dir.clone());
        let places: Vec<(String, PathBuf, PathBuf, Vec<String>)> = pods
            .iter()
            .map(|pod| {
                let names = pod.spec().containers.iter().map(|container| container.name.clone()).collect();
                let volumes = root.join("pods").join(pod.uid()).join("volumes/kubernetes.io~empty-dir");
                (pod.uid().to_string(), volumes, logs.join(log_directory(pod)), names)
            })
            .collect();
        let measured = tokio::task::spawn_blocking(move || on_disk(places)).await;
        for (uid, volumes, logs) in measured.unwrap_or_default() {
            let pod = usage.entry(uid).or_default();
            pod.volumes = volumes.bytes;
            pod.volume_inodes = volumes.inodes;
            for (name, log) in logs {
                let container = pod.containers.entry(name).or_default();
                container.disk += log.bytes;
                container.inodes += log.inodes;
            }
        }
        for (uid, pod) in &mut usage {
            pod.processes = processes(&self.context.config.cgroup_parent, uid);
        }
        Ok(usage)
    }
}

type OnDisk = (String, Tree, Vec<(String, Tree)>);

fn on_disk(places: Vec<(String, PathBuf, PathBuf, Vec<String>)>) -> Vec<OnDisk> {
    let measure = |(uid, volumes, logs, names): (String, PathBuf, PathBuf, Vec<String>)| {
        let logs = names.into_iter().map(|name| (name.clone(), tree(&logs.join(name)))).collect();
        (uid, tree(&volumes), logs)
    };
    places.into_iter().map(measure).collect()
}

/// All below a directory that is on its own disk. What goes away meanwhile does not count.
fn tree(directory: &Path) -> Tree {
    let Ok(root) = fs::symlink_metadata(directory) else { return Tree::default() };
    let mut sum = Tree::default();
    let mut unread = vec![directory.to_path_buf()];
    while let Some(place) = unread.pop() {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != root.dev() {
                continue;
            }
            sum.bytes += metadata.blocks() * 512;
            sum.inodes += 1;
            if metadata.is_dir() {
                unread.push(entry.path());
            }
        }
    }
    sum
}

fn memory_level(meminfo: &str) -> Option<Level> {
    let bytes = |field| meminfo_bytes(meminfo, field);
    Some(Level { available: bytes("MemAvailable")?, capacity: bytes("MemTotal")? })
}

/// Process ids that are left: the lower of the kernel's two limits, less the threads that there are.
fn pid_level() -> Option<Level> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let capacity = number("/proc/sys/kernel/pid_max")?.min(number("/proc/sys/kernel/threads-max")?);
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let threads: u64 = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some(Level { available: capacity.saturating_sub(threads), capacity })
}

/// How many processes a pod's control group holds, by whichever version counts them.
fn processes(parent: &str, uid: &str) -> u64 {
    let parent = parent.trim_matches('/');
    let classes = ["", "burstable/", "besteffort/"];
    let places = ["pids/", "unified/", ""].iter().flat_map(|tree| classes.map(|class| (tree, class)));
    let read = |(tree, class): (&&str, &str)| {
        let path = format!("/sys/fs/cgroup/{tree}{parent}/kubepods/{class}pod{uid}/pids.current");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    places.into_iter().find_map(read).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read() {
        let level = memory_level("MemTotal: 100 kB\nMemAvailable: 25 kB\n").unwrap();
        assert_eq!(level, Level { available: 25 * 1024, capacity: 100 * 1024 });
        let pids = pid_level().unwrap();
        assert!(pids.available > 0 && pids.available < pids.capacity);
    }

    #[test]
    fn a_tree_is_measured_with_all_that_is_in_it() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        fs::write(root.path().join("a/file"), vec![1; 10_000]).unwrap();
        let measured = tree(root.path());
        assert_eq!(measured.inodes, 2);
        assert!(measured.bytes >= 10_000, "{measured:?}");
        assert_eq!(tree(&root.path().join("none")), Tree::default());
    }
}

//! Which control group hierarchies this machine has, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A version 1 controller that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Controller {
    /// Processor shares and quota.
    Cpu,
    /// Processor time used.
    Cpuacct,
    /// Which processors.
    Cpuset,
    /// Memory limit and use.
    Memory,
    /// How many processes.
    Pids,
    /// Which devices.
    Devices,
    /// Stopping for a while.
    Freezer,
    /// Memory in huge pages.
    Hugetlb,
}

const CONTROLLERS: &[(&str, Controller)] = &[
    ("cpu", Controller::Cpu),
    ("cpuacct", Controller::Cpuacct),
    ("cpuset", Controller::Cpuset),
    ("memory", Controller::Memory),
    ("pids", Controller::Pids),
    ("devices", Controller::Devices),
    ("freezer", Controller::Freezer),
    ("hugetlb", Controller::Hugetlb),
];

impl Controller {
    /// The kernel's name for it.
    pub fn name(self) -> &'static str {
        CONTROLLERS.iter().find(|(_, controller)| *controller == self).expect("every controller is listed").0
    }
}

/// Whether we pass this version 2 controller on to our groups.
pub(super) fn is_used(name: &str) -> bool {
    matches!(name, "cpu" | "cpuset" | "memory" | "pids" | "io" | "hugetlb")
}

/// Where the hierarchies are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Version 1 controllers.
    pub controllers: BTreeMap<Controller, PathBuf>,
    /// The version 2 hierarchy. Beside version 1 it seldom has controllers, and serves to kill groups at once.
    pub unified: Option<PathBuf>,
    /// The controllers that version 2 has on a machine that has version 1 too.
    pub beside: BTreeSet<Controller>,
}

/// The two ways in which the kernel knows control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller.
    Split,
    /// One hierarchy for all.
    Unified,
}

impl Layout {
    /// Reads the layout from `/proc/self/mountinfo`'s content.
    pub fn parse(mount_info: &str) -> Layout {
        let mut layout = Layout::default();
        for line in mount_info.lines() {
            let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
            let Some(place) = mount.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut filesystem = filesystem.split(' ');
            match filesystem.next() {
                Some("cgroup2") => layout.unified = layout.unified.or(Some(place)),
                Some("cgroup") => {
                    let options = filesystem.nth(1).unwrap_or_default();
                    for (name, controller) in CONTROLLERS {
                        if options.split(',').any(|option| option == *name) {
                            layout.controllers.entry(*controller).or_insert(place.clone());
                        }
                    }
                }
                _ => {}
            }
        }
        layout
    }

    /// This machine's layout.
    pub fn detect() -> std::io::Result<Layout> {
        let mut layout = Layout::parse(&std::fs::read_to_string("/proc/self/mountinfo")?);
        if let (false, Some(unified)) = (layout.is_unified(), &layout.unified) {
            let names = std::fs::read_to_string(unified.join("cgroup.controllers")).unwrap_or_default();
            layout.beside = CONTROLLERS
                .iter()
                .filter(|(name, _)| names.split_whitespace().any(|there| there == *name))
                .map(|(_, controller)| *controller)
                .collect();
        }
        if layout.controllers.is_empty() && layout.unified.is_none() {
            let message = "no control groups are mounted (expected at /sys/fs/cgroup)";
            return Err(std::io::Error::new(std::io::ErrorKind::Unsupported, message));
        }
        Ok(layout)
    }

    /// Whether version 2 does all the work.
    pub fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }

    /// Where a controller is to be found, if anywhere.
    pub(super) fn version(&self, controller: Controller) -> Option<Version> {
        if self.controllers.contains_key(&controller) {
            return Some(Version::Split);
        }
        let is_there = self.unified.is_some() && (self.is_unified() || self.beside.contains(&controller));
        is_there.then_some(Version::Unified)
    }

    pub(super) fn directory(&self, controller: Controller) -> Option<&Path> {
        match self.version(controller)? {
            Version::Split => self.controllers.get(&controller),
            Version::Unified => self.unified.as_ref(),
        }
        .map(PathBuf::as_path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_machine_has_controllers_in_version_1_and_kills_in_version_2() {
        let layout = Layout::parse(
            "29 28 0:25 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
             30 28 0:26 / /sys/fs/cgroup/memory rw,relatime shared:1 - cgroup cgroup rw,memory\n\
             31 28 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
             32 28 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             33 28 0:29 / / rw - ext4 /dev/vda rw",
        );
        assert_eq!(
            layout.controllers.keys().copied().collect::<Vec<_>>(),
            [Controller::Cpu, Controller::Memory]
        );
        assert_eq!(layout.unified, Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert!(!layout.is_unified());
    }

    #[test]
    fn a_version_2_machine_has_all_in_one_place() {
        let layout = Layout::parse("30 28 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate");
        assert!(layout.is_unified());
        assert_eq!(layout.directory(Controller::Memory), Some(Path::new("/sys/fs/cgroup")));
    }

    #[test]
    fn controllers_mounted_together_are_found_twice() {
        let layout =
            Layout::parse("30 28 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct");
        assert_eq!(layout.controllers[&Controller::Cpu], layout.controllers[&Controller::Cpuacct]);
    }
}

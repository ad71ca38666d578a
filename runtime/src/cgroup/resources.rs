//! Which control group file gets which value: plain functions.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Controller, Version};

/// Limits of a container. What is absent is not limited, or not changed by an update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Weight against others, 1024 for one processor.
    pub cpu_shares: Option<u64>,
    /// Microseconds of processor time in each period; -1 for no limit.
    pub cpu_quota: Option<i64>,
    /// Length of the period in microseconds.
    pub cpu_period: Option<u64>,
    /// Bytes.
    pub memory_limit: Option<i64>,
    /// Bytes of memory and swap together.
    pub memory_and_swap_limit: Option<i64>,
    /// Such as `0-3,8`.
    pub cpus: Option<String>,
    /// Memory nodes.
    pub memory_nodes: Option<String>,
    /// How many processes.
    pub pids_limit: Option<i64>,
    /// Bytes in huge pages, by the size of the page, such as `2MB`.
    pub hugepages: BTreeMap<String, u64>,
    /// Version 2 files and what is written to them, as the caller says.
    pub unified: BTreeMap<String, String>,
}

/// One value for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// In whose hierarchy.
    pub controller: Controller,
    /// The file's name.
    pub file: String,
    /// What is written.
    pub value: String,
    /// A kernel without the file is as good: nothing is limited that could be used.
    pub may_be_missing: bool,
}

/// The values for all controllers, wherever this machine has each.
pub fn settings(
    resources: &Resources,
    version: impl Fn(Controller) -> Option<Version>,
) -> Result<Vec<Setting>, String> {
    use Controller::*;
    use Version::*;
    check(resources)?;
    let mut settings = Vec::new();
    let mut set = |controller, file: &str, value: Option<String>, may_be_missing| {
        let file = file.to_owned();
        settings.extend(value.map(|value| Setting { controller, file, value, may_be_missing }));
    };
    match version(Cpu) {
        Some(Split) => {
            set(Cpu, "cpu.shares", resources.cpu_shares.map(|shares| shares.max(2).to_string()), false);
            // The period first: a quota is checked against it.
            set(Cpu, "cpu.cfs_period_us", resources.cpu_period.map(|period| period.to_string()), false);
            set(Cpu, "cpu.cfs_quota_us", resources.cpu_quota.map(|quota| quota.to_string()), false);
        }
        Some(Unified) => {
            set(Cpu, "cpu.weight", resources.cpu_shares.map(|shares| weight(shares).to_string()), false);
            set(Cpu, "cpu.max", cpu_max(resources), false);
        }
        None => {}
    }
    match version(Memory) {
        Some(Split) => {
            set(Memory, "memory.limit_in_bytes", resources.memory_limit.map(at_most), false);
            let both = resources.memory_and_swap_limit.map(at_most);
            set(Memory, "memory.memsw.limit_in_bytes", both, true);
        }
        Some(Unified) => {
            set(Memory, "memory.max", resources.memory_limit.map(unlimited_is_max), false);
            set(Memory, "memory.swap.max", swap_max(resources), true);
        }
        None => {}
    }
    set(Cpuset, "cpuset.cpus", resources.cpus.clone(), false);
    set(Cpuset, "cpuset.mems", resources.memory_nodes.clone(), false);
    set(Pids, "pids.max", resources.pids_limit.map(unlimited_is_max), false);
    for (size, limit) in &resources.hugepages {
        let file = match version(Hugetlb) {
            Some(Split) => format!("hugetlb.{size}.limit_in_bytes"),
            _ => format!("hugetlb.{size}.max"),
        };
        set(Hugetlb, &file, Some(limit.to_string()), true);
    }
    if version(Memory) == Some(Unified) {
        // All hierarchies are one here, so that the controller does not matter.
        for (file, value) in &resources.unified {
            set(Memory, file, Some(value.clone()), false);
        }
    } else if let Some(file) = resources.unified.keys().find(|file| *file != "pids.max") {
        return Err(format!("invalid configuration: cannot use unified on cgroup v1 ({file})"));
    }
    Ok(settings)
}

fn check(resources: &Resources) -> Result<(), String> {
    if let (Some(memory), Some(both)) = (resources.memory_limit, resources.memory_and_swap_limit)
        && memory > 0
        && both > 0
        && both < memory
    {
        return Err("memory+swap limit should be >= memory limit".to_owned());
    }
    for file in resources.unified.keys() {
        if file.contains('/') {
            return Err(format!("unified resource {file:?} must be a file name (no slashes)"));
        }
        if file.split('.').filter(|part| !part.is_empty()).count() < 2 {
            return Err(format!("unified resource {file:?} must be in the form CONTROLLER.PARAMETER"));
        }
    }
    Ok(())
}

/// Version 1 takes -1, and only -1, for no limit.
fn at_most(limit: i64) -> String {
    limit.max(-1).to_string()
}

/// The weight that version 2 has for version 1's shares: 2..262144 becomes 1..10000.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

fn cpu_max(resources: &Resources) -> Option<String> {
    let period = resources.cpu_period.unwrap_or(100_000);
    match resources.cpu_quota {
        Some(quota) if quota > 0 => Some(format!("{quota} {period}")),
        Some(_) => Some(format!("max {period}")),
        None => None,
    }
}

/// Version 2 counts swap alone, version 1 and CRI together with memory.
fn swap_max(resources: &Resources) -> Option<String> {
    let (Some(both), Some(memory)) = (resources.memory_and_swap_limit, resources.memory_limit) else {
        return None;
    };
    Some(if both < 0 { "max".to_owned() } else { (both - memory).max(0).to_string() })
}

fn unlimited_is_max(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

/// A device that processes of a group may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// `c`, `b`, or `a` for all devices.
    pub kind: char,
    /// The driver; every one when absent.
    pub major: Option<u64>,
    /// The driver's device; every one when absent.
    pub minor: Option<u64>,
    /// Any of `r`, `w` and `m` (make a node).
    pub access: String,
}

impl DeviceRule {
    /// A character device.
    pub fn character(major: u64, minor: Option<u64>, access: &str) -> DeviceRule {
        DeviceRule { kind: 'c', major: Some(major), minor, access: access.to_owned() }
    }

    /// Everything, for privileged containers.
    pub fn all() -> DeviceRule {
        DeviceRule { kind: 'a', major: None, minor: None, access: "rwm".to_owned() }
    }

    /// What every container may use: the harmless ones of memory (null, zero, full, random, urandom, tty),
    /// terminals, and making any node, which gives no access by itself.
    pub fn defaults() -> Vec<DeviceRule> {
        let mut rules = vec![
            DeviceRule { kind: 'c', major: None, minor: None, access: "m".to_owned() },
            DeviceRule { kind: 'b', major: None, minor: None, access: "m".to_owned() },
        ];
        let devices = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
        rules.extend(devices.map(|(major, minor)| DeviceRule::character(major, Some(minor), "rwm")));
        rules.push(DeviceRule::character(136, None, "rwm"));
        rules
    }
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u64>| number.map_or("*".to_owned(), |number| number.to_string());
        match self.kind {
            'a' => write!(f, "a *:* rwm"),
            kind => write!(f, "{kind} {}:{} {}", number(self.major), number(self.minor), self.access),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(settings: Vec<Setting>) -> Vec<(String, String)> {
        settings.into_iter().map(|setting| (setting.file, setting.value)).collect()
    }

    #[test]
    fn limits_become_files_of_both_versions() {
        let resources = Resources {
            cpu_shares: Some(512),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            memory_limit: Some(64 << 20),
            pids_limit: Some(-1),
            ..Resources::default()
        };
        let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(file, value)| (file.to_string(), value.to_string())).collect()
        };
        assert_eq!(
            values(settings(&resources, |_| Some(Version::Split)).unwrap()),
            pairs(&[
                ("cpu.shares", "512"),
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_quota_us", "50000"),
                ("memory.limit_in_bytes", "67108864"),
                ("pids.max", "max"),
            ])
        );
        assert_eq!(
            values(settings(&resources, |_| Some(Version::Unified)).unwrap()),
            pairs(&[
                ("cpu.weight", "20"),
                ("cpu.max", "50000 100000"),
                ("memory.max", "67108864"),
                ("pids.max", "max"),
            ])
        );
    }

    #[test]
    fn swap_is_counted_with_memory_in_version_1_and_alone_in_version_2() {
        let swap = |memory, both, version| {
            let resources = Resources {
                memory_limit: Some(memory),
                memory_and_swap_limit: Some(both),
                ..Resources::default()
            };
            let settings = settings(&resources, |_| Some(version)).unwrap();
            values(settings).pop().unwrap().1
        };
        assert_eq!(swap(100, 150, Version::Split), "150");
        assert_eq!(swap(100, 150, Version::Unified), "50");
        assert_eq!(
            (swap(100, 100, Version::Unified), swap(100, -1, Version::Unified)),
            ("0".into(), "max".into())
        );
        let wrong =
            Resources { memory_limit: Some(2), memory_and_swap_limit: Some(1), ..Resources::default() };
        assert!(settings(&wrong, |_| Some(Version::Split)).is_err());
    }

    #[test]
    fn each_controller_is_set_where_the_machine_has_it() {
        let resources = Resources {
            memory_limit: Some(1 << 20),
            hugepages: [("2MB".to_owned(), 4 << 20)].into(),
            ..Resources::default()
        };
        let hybrid = |controller| match controller {
            Controller::Hugetlb => Some(Version::Unified),
            _ => Some(Version::Split),
        };
        let files: Vec<String> =
            values(settings(&resources, hybrid).unwrap()).into_iter().map(|(file, _)| file).collect();
        assert_eq!(files, ["memory.limit_in_bytes", "hugetlb.2MB.max"]);
    }

    #[test]
    fn files_of_version_2_are_names_and_for_version_2() {
        let with = |file: &str| Resources {
            unified: [(file.to_owned(), "1".to_owned())].into(),
            ..Resources::default()
        };
        let outcome = |file, version| settings(&with(file), |_| Some(version)).map(values);
        let set = |file: &str| Ok(vec![(file.to_owned(), "1".to_owned())]);
        assert_eq!(outcome("memory.high", Version::Unified), set("memory.high"));
        for file in ["../memory.high", "memory", "a/b.c"] {
            assert!(outcome(file, Version::Unified).is_err(), "{file}");
        }
        assert!(
            outcome("memory.high", Version::Split).unwrap_err().contains("cannot use unified on cgroup v1")
        );
    }

    #[test]
    fn the_extremes_of_shares_are_the_extremes_of_weight() {
        assert_eq!((weight(0), weight(2), weight(262_144), weight(1 << 40)), (1, 1, 10_000, 10_000));
    }
}

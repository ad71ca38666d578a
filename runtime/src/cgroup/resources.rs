//! Which control group file gets which value: plain functions.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Controller;

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
}

/// The values for version 1.
pub fn settings(resources: &Resources) -> Vec<Setting> {
    use Controller::*;
    let mut settings = Vec::new();
    let mut set = |controller, file: &str, value: Option<String>| {
        settings.extend(value.map(|value| Setting { controller, file: file.to_owned(), value }));
    };
    set(Cpu, "cpu.shares", resources.cpu_shares.map(|shares| shares.max(2).to_string()));
    // The period first: a quota is checked against it.
    set(Cpu, "cpu.cfs_period_us", resources.cpu_period.map(|period| period.to_string()));
    set(Cpu, "cpu.cfs_quota_us", resources.cpu_quota.map(|quota| quota.to_string()));
    set(Memory, "memory.limit_in_bytes", resources.memory_limit.map(|limit| limit.to_string()));
    set(Cpuset, "cpuset.cpus", resources.cpus.clone());
    set(Cpuset, "cpuset.mems", resources.memory_nodes.clone());
    set(Pids, "pids.max", resources.pids_limit.map(unlimited_is_max));
    settings
}

/// The values for version 2.
pub fn unified_settings(resources: &Resources) -> Vec<Setting> {
    use Controller::*;
    let mut settings = Vec::new();
    let mut set = |controller, file: &str, value: Option<String>| {
        settings.extend(value.map(|value| Setting { controller, file: file.to_owned(), value }));
    };
    set(Cpu, "cpu.weight", resources.cpu_shares.map(|shares| weight(shares).to_string()));
    set(Cpu, "cpu.max", cpu_max(resources));
    set(Memory, "memory.max", resources.memory_limit.map(unlimited_is_max));
    set(Memory, "memory.swap.max", swap_max(resources));
    set(Cpuset, "cpuset.cpus", resources.cpus.clone());
    set(Cpuset, "cpuset.mems", resources.memory_nodes.clone());
    set(Pids, "pids.max", resources.pids_limit.map(unlimited_is_max));
    for (file, value) in &resources.unified {
        // A file name, never a path; all hierarchies are one here, so the controller does not matter.
        if !file.contains('/') {
            set(Memory, file, Some(value.clone()));
        }
    }
    settings
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
            values(settings(&resources)),
            pairs(&[
                ("cpu.shares", "512"),
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_quota_us", "50000"),
                ("memory.limit_in_bytes", "67108864"),
                ("pids.max", "max"),
            ])
        );
        assert_eq!(
            values(unified_settings(&resources)),
            pairs(&[
                ("cpu.weight", "20"),
                ("cpu.max", "50000 100000"),
                ("memory.max", "67108864"),
                ("pids.max", "max"),
            ])
        );
    }

    #[test]
    fn the_extremes_of_shares_are_the_extremes_of_weight() {
        assert_eq!((weight(0), weight(2), weight(262_144), weight(1 << 40)), (1, 1, 10_000, 10_000));
    }
}

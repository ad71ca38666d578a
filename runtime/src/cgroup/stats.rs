//! What a group has used.

use std::fs;
use std::path::Path;

use super::{Cgroup, Controller};

/// Use of processor, memory and process numbers; what the machine does not count is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nanoseconds of processor time.
    pub cpu_nanoseconds: Option<u64>,
    /// Bytes, file cache included.
    pub memory_usage: Option<u64>,
    /// Bytes without the file cache that could be dropped at once.
    pub memory_working_set: Option<u64>,
    /// Bytes that no file backs.
    pub memory_rss: Option<u64>,
    /// Page faults.
    pub page_faults: Option<u64>,
    /// Page faults that had to read a disk.
    pub major_page_faults: Option<u64>,
    /// The memory limit, if there is one.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// Reads what the group has used so far.
pub fn read(group: &Cgroup) -> Stats {
    if group.layout.is_unified() { read_unified(group) } else { read_split(group) }
}

fn read_split(group: &Cgroup) -> Stats {
    let directory = |controller| group.layout.directory(controller).map(|root| root.join(&group.path));
    let mut stats = Stats::default();
    if let Some(directory) = directory(Controller::Cpuacct) {
        stats.cpu_nanoseconds = number(&directory.join("cpuacct.usage"));
    }
    if let Some(directory) = directory(Controller::Memory) {
        let table = Table::read(&directory.join("memory.stat"));
        stats.memory_usage = number(&directory.join("memory.usage_in_bytes"));
        stats.memory_working_set = working_set(stats.memory_usage, table.get("total_inactive_file"));
        stats.memory_rss = table.get("total_rss");
        stats.page_faults = table.get("total_pgfault");
        stats.major_page_faults = table.get("total_pgmajfault");
        stats.memory_limit =
            number(&directory.join("memory.limit_in_bytes")).filter(|limit| *limit < 1 << 60);
    }
    if let Some(directory) = directory(Controller::Pids) {
        stats.processes = number(&directory.join("pids.current"));
    }
    stats
}

fn read_unified(group: &Cgroup) -> Stats {
    let Some(directory) = group.unified() else { return Stats::default() };
    let table = Table::read(&directory.join("memory.stat"));
    let memory_usage = number(&directory.join("memory.current"));
    Stats {
        cpu_nanoseconds: Table::read(&directory.join("cpu.stat")).get("usage_usec").map(|used| used * 1_000),
        memory_usage,
        memory_working_set: working_set(memory_usage, table.get("inactive_file")),
        memory_rss: table.get("anon"),
        page_faults: table.get("pgfault"),
        major_page_faults: table.get("pgmajfault"),
        memory_limit: number(&directory.join("memory.max")),
        processes: number(&directory.join("pids.current")),
    }
}

fn working_set(usage: Option<u64>, inactive_file: Option<u64>) -> Option<u64> {
    Some(usage?.saturating_sub(inactive_file.unwrap_or(0)))
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// A file of names and numbers.
struct Table(String);

impl Table {
    fn read(file: &Path) -> Table {
        Table(fs::read_to_string(file).unwrap_or_default())
    }

    fn get(&self, name: &str) -> Option<u64> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }
}

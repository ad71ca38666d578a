//! Memory and idle CPU of processes.
//!
//! Memory is PSS: what is shared (the binary's text, mostly) is divided among those who share it, so that
//! the sum over processes is what they take together.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::report::Table;

/// Which processes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A process; may be given several times.
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// Every process in a cgroup and below it, such as /sys/fs/cgroup/pids/coracle.
    #[arg(long, value_name = "DIR")]
    cgroup: Vec<PathBuf>,
    /// Every process whose command line contains this, such as "shim /run/coracle".
    #[arg(long, value_name = "TEXT")]
    matching: Vec<String>,
    /// How long CPU time is counted.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    seconds: u64,
}

/// What one process takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Its memory, shared memory in part.
    pub pss_kib: u64,
    /// Its CPU time in hundredths of a second.
    pub cpu_ticks: u64,
}

/// Looks at the processes twice.
pub async fn run(args: Args) -> Result<Table> {
    let Args { pid, cgroup, matching, seconds } = args;
    let mut groups: Vec<(String, BTreeSet<u32>)> = Vec::new();
    groups.extend(pid.iter().map(|pid| (format!("pid {pid}"), BTreeSet::from([*pid]))));
    for dir in &cgroup {
        groups.push((dir.display().to_string(), in_cgroup(dir)?));
    }
    for text in &matching {
        groups.push((format!("{text:?}"), with_command(text)?));
    }
    ensure!(!groups.is_empty(), "say which processes: --pid, --cgroup or --matching");

    let before: Vec<Usage> = groups.iter().map(|(_, pids)| total(pids)).collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after: Vec<Usage> = groups.iter().map(|(_, pids)| total(pids)).collect();

    let mut table = Table::new(&["processes", "number", "PSS MB", "CPU % of a core"]);
    let mut sum = (0, 0, 0);
    for ((name, pids), (before, after)) in groups.iter().zip(before.iter().zip(&after)) {
        let ticks = after.cpu_ticks.saturating_sub(before.cpu_ticks);
        table.row(row(name, pids.len(), after.pss_kib, ticks, seconds));
        sum = (sum.0 + pids.len(), sum.1 + after.pss_kib, sum.2 + ticks);
    }
    if groups.len() > 1 {
        table.row(row("together", sum.0, sum.1, sum.2, seconds));
    }
    Ok(table)
}

fn row(name: &str, number: usize, pss_kib: u64, ticks: u64, seconds: u64) -> Vec<String> {
    // Linux counts CPU time for user space in hundredths of a second on every architecture that matters.
    let share = ticks as f64 / seconds.max(1) as f64;
    vec![name.into(), number.to_string(), format!("{:.1}", pss_kib as f64 / 1024.0), format!("{share:.2}")]
}

/// The processes that are there; one that ends meanwhile takes nothing.
fn total(pids: &BTreeSet<u32>) -> Usage {
    pids.iter().filter_map(|pid| usage(*pid)).fold(Usage::default(), |sum, one| Usage {
        pss_kib: sum.pss_kib + one.pss_kib,
        cpu_ticks: sum.cpu_ticks + one.cpu_ticks,
    })
}

/// What one process takes now; none when it has gone.
pub fn usage(pid: u32) -> Option<Usage> {
    let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(Usage { pss_kib: pss(&memory)?, cpu_ticks: ticks(&stat)? })
}

fn pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time, fields 14 and 15; the name before them may contain anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

fn in_cgroup(dir: &Path) -> Result<BTreeSet<u32>> {
    let procs = dir.join("cgroup.procs");
    let text = fs::read_to_string(&procs).with_context(|| format!("cannot read {}", procs.display()))?;
    let mut pids: BTreeSet<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(in_cgroup(&entry.path())?);
        }
    }
    Ok(pids)
}

fn with_command(text: &str) -> Result<BTreeSet<u32>> {
    let ours = own_ancestry();
    let mut pids = BTreeSet::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if !ours.contains(&pid) && command.contains(text) {
            pids.insert(pid);
        }
    }
    Ok(pids)
}

/// This process and those that started it, whose command lines may hold the same words.
fn own_ancestry() -> BTreeSet<u32> {
    let parent = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    std::iter::successors(Some(std::process::id()), |pid| parent(*pid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read() {
        assert_eq!(pss("00400000-7ff [rollup]\nRss:  10 kB\nPss:      7 kB\nPss_Dirty: 1 kB\n"), Some(7));
        assert_eq!(ticks("42 (a ) b) S 1 2 3 4 5 6 7 8 9 10 11 22 33 0"), Some(33));
    }

    #[test]
    fn a_process_that_is_gone_takes_nothing() {
        assert_eq!(total(&BTreeSet::from([u32::MAX])).pss_kib, 0);
    }
}

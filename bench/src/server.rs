//! The process that is measured, where it runs on this machine.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

use crate::footprint::{self, Usage};

/// Which process serves.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Server {
    /// The server's process, if it runs here: what it takes is told, too.
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
}

impl Server {
    /// The time that it has had on processors, if it is known.
    pub fn cpu(self) -> Option<Duration> {
        let Usage { cpu_ticks, .. } = footprint::usage(self.pid?)?;
        Some(Duration::from_millis(cpu_ticks * 10))
    }

    /// What it has in memory of its own, in bytes: what is read from files does not count.
    pub fn memory(self) -> Result<Option<u64>> {
        self.pid.map(|pid| status(pid, "RssAnon")).transpose()
    }

    /// Forgets the highest memory so far.
    pub fn begin_peak(self) -> Result<()> {
        let Some(pid) = self.pid else { return Ok(()) };
        // 5: the highest resident set, see proc(5).
        fs::write(format!("/proc/{pid}/clear_refs"), "5")
            .with_context(|| format!("cannot reset the peak of {pid}"))
    }

    /// The most that it has had in memory since, files included.
    pub fn peak(self) -> Result<Option<u64>> {
        self.pid.map(|pid| status(pid, "VmHWM")).transpose()
    }

    /// What it has in memory now, files included.
    pub fn resident(self) -> Result<Option<u64>> {
        self.pid.map(|pid| status(pid, "VmRSS")).transpose()
    }
}

fn status(pid: u32, field: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("there is no process {pid}"))?;
    kilobytes(&text, field).map(|kilobytes| kilobytes * 1024).with_context(|| format!("{pid} has no {field}"))
}

fn kilobytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// As tables have it.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_status_is_read() {
        let status = "VmHWM:\t  6000 kB\nVmRSS:\t    5000 kB\nRssAnon:\t 300 kB\n";
        assert_eq!(kilobytes(status, "VmRSS"), Some(5000));
        assert_eq!(kilobytes(status, "RssAnon"), Some(300));
        assert_eq!(kilobytes(status, "Rss"), None);
    }

    #[test]
    fn a_server_elsewhere_has_no_figures() {
        let server = Server { pid: None };
        assert_eq!(server.cpu(), None);
        assert_eq!(server.memory().unwrap(), None);
    }
}

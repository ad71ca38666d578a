//! What a container does and uses: `ctr top` and `ctr stats`.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use runtime::cgroup::Cgroup;
use runtime::cgroup::stats::{self, Stats};
use serde_json::json;

use crate::args::{Form, StatsArgs, TopArgs};
use crate::containers::Container;
use crate::life::running;
use crate::place::Place;
use crate::table::{Table, binary, decimal};

/// How often the use is shown; also what the processor's share is measured over.
const INTERVAL: Duration = Duration::from_secs(1);

/// A process of a container, by the machine's numbers.
#[derive(Debug, PartialEq)]
struct Process {
    user: String,
    pid: i32,
    parent: i32,
    state: String,
    terminal: String,
    cpu_time: String,
    command: String,
}

const TITLES: &[&str] = &["UID", "PID", "PPID", "S", "TTY", "TIME", "CMD"];

/// `ctr top`.
pub fn top(place: &Place, args: &TopArgs) -> Result<()> {
    let (container, _) = running(place, &args.container)?;
    let pids = place.cgroup(container.id())?.processes().context("cannot list the container's processes")?;
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    // Those that end meanwhile are not shown.
    let processes: Vec<Process> = pids.iter().filter_map(|pid| process(*pid, &passwd)).collect();
    let cells = |process: &Process| {
        let Process { user, pid, parent, state, terminal, cpu_time, command } = process;
        vec![
            user.clone(),
            pid.to_string(),
            parent.to_string(),
            state.clone(),
            terminal.clone(),
            cpu_time.clone(),
            command.clone(),
        ]
    };
    if args.format.form == Form::Json {
        let rows: Vec<_> = processes.iter().map(cells).collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "Titles": TITLES, "Processes": rows }))?);
    } else {
        let mut table = Table::new(TITLES);
        processes.iter().for_each(|process| table.row(cells(process)));
        print!("{}", table.render());
    }
    Ok(())
}

fn process(pid: i32, passwd: &str) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let line = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?;
    // Linux counts processor time for user space in hundredths of a second everywhere that matters.
    let seconds = (fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?) / 100;
    let device: u64 = fields.get(4)?.parse().unwrap_or(0);
    Some(Process {
        user: user_name(uid, passwd).to_owned(),
        pid,
        parent: fields.get(1)?.parse().ok()?,
        state: (*fields.first()?).to_owned(),
        terminal: if device == 0 { "?".to_owned() } else { format!("pts/{}", device & 0xff) },
        cpu_time: format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
        command: if line.is_empty() { format!("[{name}]") } else { line },
    })
}

fn user_name<'a>(uid: &'a str, passwd: &'a str) -> &'a str {
    let mut accounts = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    accounts.find(|account| account.get(2) == Some(&uid)).map_or(uid, |account| account[0])
}

/// What a container has used at one moment.
struct Sample {
    at: Instant,
    stats: Stats,
}

/// `ctr stats`.
pub async fn stats(place: &Place, args: &StatsArgs) -> Result<()> {
    let memory = total_memory();
    loop {
        let containers = chosen(place, args)?;
        let groups: Vec<Cgroup> =
            containers.iter().map(|(container, _)| place.cgroup(container.id())).collect::<Result<_>>()?;
        let sample = |group: &Cgroup| Sample { at: Instant::now(), stats: stats::read(group) };
        let before: Vec<Sample> = groups.iter().map(sample).collect();
        tokio::time::sleep(INTERVAL).await;
        let mut rows = Vec::new();
        for (((container, pid), group), before) in containers.iter().zip(&groups).zip(&before) {
            rows.push(usage(container, *pid, group, before, &sample(group), memory));
        }
        if args.format.form == Form::Json {
            println!("{}", serde_json::to_string_pretty(&rows.iter().map(Usage::json).collect::<Vec<_>>())?);
        } else {
            if !args.no_stream {
                // Home, and clear: each table in the place of the last.
                print!("\x1b[2J\x1b[H");
            }
            let mut table = Table::new(&[
                "CONTAINER ID",
                "NAME",
                "CPU %",
                "MEM USAGE / LIMIT",
                "MEM %",
                "NET I/O",
                "BLOCK I/O",
                "PIDS",
            ]);
            rows.iter().for_each(|usage| table.row(usage.cells()));
            print!("{}", table.render());
        }
        if args.no_stream {
            return Ok(());
        }
    }
}

fn chosen(place: &Place, args: &StatsArgs) -> Result<Vec<(Container, i32)>> {
    if !args.containers.is_empty() {
        return args.containers.iter().map(|name| running(place, name)).collect();
    }
    let mut chosen = Vec::new();
    for container in Container::all(place)? {
        if let crate::definition::Status::Running { pid, .. } = container.status(place)? {
            chosen.push((container, pid));
        }
    }
    Ok(chosen)
}

struct Usage {
    id: String,
    name: String,
    cpu_percent: f64,
    memory: u64,
    memory_limit: u64,
    network: (u64, u64),
    disk: (u64, u64),
    processes: u64,
}

fn usage(
    container: &Container,
    pid: i32,
    group: &Cgroup,
    before: &Sample,
    after: &Sample,
    memory: u64,
) -> Usage {
    let used =
        after.stats.cpu_nanoseconds.unwrap_or(0).saturating_sub(before.stats.cpu_nanoseconds.unwrap_or(0));
    let passed = after.at.duration_since(before.at).as_nanos().max(1) as f64;
    let network = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    Usage {
        id: container.id().to_owned(),
        name: container.name().to_owned(),
        cpu_percent: used as f64 / passed * 100.0,
        memory: after.stats.memory_working_set.unwrap_or(0),
        memory_limit: after.stats.memory_limit.unwrap_or(memory),
        network: traffic(&network),
        disk: disk(group),
        processes: after.stats.processes.unwrap_or(0),
    }
}

impl Usage {
    fn memory_percent(&self) -> f64 {
        self.memory as f64 / self.memory_limit.max(1) as f64 * 100.0
    }

    fn cells(&self) -> Vec<String> {
        let pair = |(one, other)| format!("{} / {}", decimal(one), decimal(other));
        vec![
            self.id[..12].to_owned(),
            self.name.clone(),
            format!("{:.2}%", self.cpu_percent),
            format!("{} / {}", binary(self.memory), binary(self.memory_limit)),
            format!("{:.2}%", self.memory_percent()),
            pair(self.network),
            pair(self.disk),
            self.processes.to_string(),
        ]
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "ID": self.id, "Name": self.name, "CPUPercent": self.cpu_percent, "MemUsage": self.memory,
            "MemLimit": self.memory_limit, "MemPercent": self.memory_percent(), "NetReceived": self.network.0,
            "NetSent": self.network.1, "BlockRead": self.disk.0, "BlockWritten": self.disk.1, "PIDs": self.processes,
        })
    }
}

/// Bytes received and sent, loopback left out.
fn traffic(table: &str) -> (u64, u64) {
    let lines = table.lines().filter_map(|line| line.split_once(':'));
    let others = lines.filter(|(name, _)| name.trim() != "lo");
    others.fold((0, 0), |(received, sent), (_, numbers)| {
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let number = |index: usize| numbers.get(index).copied().unwrap_or(0);
        (received + number(0), sent + number(8))
    })
}

/// Bytes that the processes which are there have read from disks and written to them.
fn disk(group: &Cgroup) -> (u64, u64) {
    let number = |text: &str, name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    let texts = group.processes().unwrap_or_default().into_iter();
    let texts = texts.filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/io")).ok());
    texts.fold((0, 0), |(read, written), text| {
        (read + number(&text, "read_bytes"), written + number(&text, "write_bytes"))
    })
}

fn total_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    kibibytes.unwrap_or(0_u64) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_that_of_real_links() {
        let table = "Inter-|   Receive\n face |bytes\n    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n  \
                     eth0: 100 1 0 0 0 0 0 0 42 1 0 0 0 0 0 0\n";
        assert_eq!(traffic(table), (100, 42));
    }

    #[test]
    fn our_own_process_is_told() {
        let own = process(std::process::id() as i32, "root:x:0:0::/root:/bin/sh").unwrap();
        assert_eq!(
            (own.pid, own.parent),
            (std::process::id() as i32, std::os::unix::process::parent_id() as i32)
        );
        assert!(own.command.contains("ctr"), "{}", own.command);
    }
}

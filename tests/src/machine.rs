//! A machine of a test's own: namespaces that one holder process keeps alive.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use crate::Said;

/// The machine's address on its network card.
pub const ADDRESS: &str = "192.0.2.10";

/// Prepares the namespaces and waits to be killed. `eth0` leads nowhere; it is there because a node has one.
/// The host's mounts must not see ours, and the address must be reachable before anybody is told.
const SET_UP: &str = "\
set -e
mount --make-rprivate /
ip link set lo up
ip link add eth0 type veth peer name wire
ip link set wire up
ip addr add 192.0.2.10/24 dev eth0
ip link set eth0 up
ip route add default via 192.0.2.1
echo ready
exec sleep infinity
";

/// A network and mount namespace of its own. Ends, with everything in it, when dropped.
pub struct Machine {
    holder: Child,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine::new()
    }
}

impl Machine {
    /// A fresh machine with one address.
    pub fn new() -> Machine {
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", SET_UP])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("unshare (util-linux) can be run");
        let mut line = String::new();
        let out = holder.stdout.take().expect("standard output is a pipe");
        BufReader::new(out).read_line(&mut line).expect("the holder reports");
        assert_eq!(line.trim(), "ready", "the machine could not be set up; the tests need root");
        Machine { holder }
    }

    /// A command on this machine, to be given more arguments and run.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let pid = self.holder.id().to_string();
        command.args(["--target", &pid, "--net", "--mount", "--", program]);
        command
    }

    /// Runs `work` on a thread that is on this machine's network.
    pub fn on_its_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.holder.id()));
        let namespace = namespace.expect("the holder has a network namespace");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("root may enter");
                work()
            });
            thread.join().expect("the work does not panic")
        })
    }

    /// Runs a shell command line.
    pub fn sh(&self, script: &str) -> Said {
        self.command("sh").args(["-c", script]).output().expect("nsenter can be run").into()
    }

    /// The processes that live on this machine, the holder and whoever asks aside: `pid command line`.
    pub fn processes(&self) -> Vec<String> {
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let holder = self.holder.id().to_string();
        let own = namespace(&holder);
        processes_where(|pid| pid != holder && namespace(pid) == own)
    }

    /// What a cluster could leave behind, as text to compare: mounts, links, rules.
    pub fn traces(&self) -> String {
        let commands = [
            "findmnt -rn -o TARGET | sort",
            "ip -br link | awk '{print $1}' | sort",
            // The kernel's own chains come with the first question; rules and further chains are somebody's.
            "iptables-save | grep -E '^-A|^:.* - '",
            "ip netns list",
        ];
        commands.map(|command| format!("$ {command}\n{}", self.sh(command).out)).join("")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A failed test may leave processes; they are all in this machine's mount namespace.
        for process in self.processes() {
            if let Some(Ok(pid)) = process.split(' ').next().map(str::parse) {
                kill(pid);
            }
        }
        kill(i32::try_from(self.holder.id()).expect("a pid fits"));
        self.holder.wait().expect("the holder is our child");
    }
}

/// The processes that `wanted` accepts by their pid: `pid command line`. One that has ended and only waits to
/// be counted by its parent does not count.
pub(crate) fn processes_where(wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let has_ended = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
    };
    let pids = pids.filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()));
    let pids = pids.filter(|pid| wanted(pid) && !has_ended(pid));
    let line = |pid: String| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        format!("{pid} {}", String::from_utf8_lossy(&line).replace('\0', " "))
    };
    pids.map(line).collect()
}

pub(crate) fn kill(pid: i32) {
    use nix::sys::signal::{Signal, kill};
    // It may have ended by itself in between.
    kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).ok();
}

//! What a container was asked to be, and what became of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a container was asked to be: written once, when it is made. Only its name can change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// 64 hexadecimal digits.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The image as it was asked for.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// The program in front of the arguments; none for the image's, an empty one for no program.
    pub entrypoint: Option<String>,
    /// What follows it.
    pub args: Vec<String>,
    /// What it runs all in all, for showing.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Where it starts, unless the image says it.
    pub workdir: Option<String>,
    /// Who it is, unless the image says it.
    pub user: Option<String>,
    /// Its host name.
    pub hostname: String,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether its standard input is open.
    pub interactive: bool,
    /// Whether nobody was attached when it was made: its input then waits for whoever attaches.
    pub detached: bool,
    /// Whether it goes with its end.
    pub auto_remove: bool,
    /// Its network.
    pub network: Network,
    /// The machine's ports that lead to it.
    pub ports: Vec<Port>,
    /// What of the machine it sees.
    pub volumes: Vec<Volume>,
    /// Bytes.
    pub memory: Option<i64>,
    /// Thousandths of a processor.
    pub milli_cpus: Option<i64>,
    /// The most processes.
    pub pids_limit: Option<i64>,
    /// Whether its root cannot be written.
    pub read_only: bool,
    /// Capabilities beyond the usual ones.
    pub cap_add: Vec<String>,
    /// Capabilities that it lacks.
    pub cap_drop: Vec<String>,
    /// All rights.
    pub privileged: bool,
    /// Words about it.
    pub labels: BTreeMap<String, String>,
    /// What asks it to stop, a number.
    pub stop_signal: i32,
}

/// Which network a container has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// An address of its own.
    Bridge,
    /// The machine's.
    Host,
    /// Loopback alone.
    None,
    /// That of another container, by id.
    Container(String),
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::Bridge => f.write_str("bridge"),
            Network::Host => f.write_str("host"),
            Network::None => f.write_str("none"),
            Network::Container(id) => write!(f, "container:{id}"),
        }
    }
}

/// A port of the machine that leads to one of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// On this address of the machine, or on all.
    pub host_ip: Option<Ipv4Addr>,
    /// The machine's.
    pub host_port: u16,
    /// The container's.
    pub container_port: u16,
    /// How.
    pub protocol: net::Protocol,
}

impl Port {
    /// The container's side: `80/tcp`.
    pub fn inside(&self) -> String {
        format!("{}/{}", self.container_port, self.protocol.name())
    }

    /// The machine's side: `0.0.0.0:8080`.
    pub fn outside(&self) -> String {
        format!("{}:{}", self.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED), self.host_port)
    }
}

/// A folder or file of the machine that appears in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The name of a volume; none for a path of the machine.
    pub name: Option<String>,
    /// Whether the volume was made for this container and goes with it.
    pub anonymous: bool,
    /// On the machine.
    pub source: PathBuf,
    /// In the container.
    pub target: String,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Whether it stays empty although the image has something at its place.
    #[serde(default)]
    pub no_copy: bool,
    /// How later mounts spread.
    pub propagation: Spread,
}

/// How later mounts below a volume spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// Not at all.
    #[default]
    Private,
    /// Into the container.
    Slave,
    /// Both ways.
    Shared,
}

/// What became of a container the last time; written at its start and at its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// When it was started last.
    pub started_at: Option<Timestamp>,
    /// When it ended; none while it runs, and when nobody saw the end.
    pub finished_at: Option<Timestamp>,
    /// How it ended.
    pub exit_code: i32,
    /// Whether memory ran out.
    #[serde(default)]
    pub out_of_memory: bool,
    /// Why it could not be started, or what else there is to say.
    #[serde(default)]
    pub error: String,
    /// How often it was started.
    #[serde(default)]
    pub starts: u32,
}

/// Where a container stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// Never started.
    Created,
    /// Its first process is there.
    Running {
        /// In the machine's pid namespace.
        pid: i32,
        /// Since when.
        since: Timestamp,
        /// Whether it stands still.
        paused: bool,
    },
    /// It has ended.
    Exited(Past),
}

impl Status {
    /// In docker's word.
    pub fn word(&self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running { paused: false, .. } => "running",
            Status::Running { paused: true, .. } => "paused",
            Status::Exited(_) => "exited",
        }
    }

    /// Whether it runs, be it paused.
    pub fn is_running(&self) -> bool {
        matches!(self, Status::Running { .. })
    }

    /// As `ps` shows it: `Up 5 minutes`, `Exited (0) 2 hours ago`.
    pub fn sentence(&self, now: Timestamp) -> String {
        match self {
            Status::Created => "Created".to_owned(),
            Status::Running { since, paused, .. } => {
                format!("Up {}{}", ago(*since, now), if *paused { " (Paused)" } else { "" })
            }
            Status::Exited(past) => match past.finished_at {
                Some(at) => format!("Exited ({}) {} ago", past.exit_code, ago(at, now)),
                None => format!("Exited ({})", past.exit_code),
            },
        }
    }
}

/// How long ago, in docker's words.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, (seconds + 1800) / 3600, seconds / 86400);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..2760 => format!("{minutes} minutes"),
        2760..5400 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if days < 14 => format!("{days} days"),
        _ if days < 60 => format!("{} weeks", days / 7),
        _ if days < 730 => format!("{} months", days / 30),
        _ => format!("{} years", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_docker_tells_them() {
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let told = |seconds: i64| ago(now - jiff::SignedDuration::from_secs(seconds), now);
        assert_eq!(told(0), "Less than a second");
        assert_eq!(told(59), "59 seconds");
        assert_eq!(told(60), "About a minute");
        assert_eq!(told(150), "2 minutes");
        assert_eq!(told(3600), "About an hour");
        assert_eq!(told(3 * 3600), "3 hours");
        assert_eq!(told(3 * 86400), "3 days");
        assert_eq!(told(21 * 86400), "3 weeks");
        assert_eq!(told(90 * 86400), "3 months");
    }

    #[test]
    fn a_status_says_what_there_is_to_say() {
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let since = now - jiff::SignedDuration::from_secs(5);
        let running = |paused| Status::Running { pid: 1, since, paused }.sentence(now);
        assert_eq!(
            (running(false).as_str(), running(true).as_str()),
            ("Up 5 seconds", "Up 5 seconds (Paused)")
        );
        let past = Past { finished_at: Some(since), exit_code: 3, ..Past::default() };
        assert_eq!(Status::Exited(past).sentence(now), "Exited (3) 5 seconds ago");
    }
}

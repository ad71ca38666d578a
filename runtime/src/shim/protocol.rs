//! What the server and a shim say to each other, and the files that both know.
//!
//! A message is a length (4 bytes, little-endian) and JSON; descriptors travel with its first bytes. A
//! connection carries one request at a time, answers in order; `exec` answers twice, and who subscribes
//! turns the connection into a stream of [`Reply::ContainerExited`].
//!
//! A shim is as old as its pod, the server as new as the last upgrade. Both say which [`Versions`] they speak
//! ([`Request::Introduce`]) and use the newest that both do; fields and messages that one does not know are
//! passed over. A field that is added has a default; what else changes is a new version.
//!
//! | version | since then |
//! |---|---|
//! | 1 | the beginning; a shim ends a connection on which it hears what it does not know |
//! | 2 | `Introduce`; unknown requests are answered; news that no disk took are told to the next server |

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::container::ids::IdMap;
use crate::container::spec::{Membership, Process};

/// The versions of the protocol that this binary speaks.
pub const VERSIONS: Versions = Versions { oldest: 1, newest: 2 };

/// A range of versions of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The first.
    pub oldest: u32,
    /// The last.
    pub newest: u32,
}

impl Versions {
    /// The newest version that both speak.
    pub fn common(self, other: Versions) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

/// What the server asks of a shim.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Are the namespaces there?
    Hello,
    /// Says who asks, and asks who answers; from version 2 on.
    Introduce {
        /// What the server speaks.
        versions: Versions,
        /// Whether to tell of every container that ends from now on, as [`Request::Subscribe`] does.
        #[serde(default)]
        subscribe: bool,
    },
    /// Starts the container whose spec is in its directory.
    Start {
        /// Which.
        container: String,
        /// Streams to it from its first byte on: sockets come back with the answer, as by `Attach`.
        #[serde(default)]
        attach: Attached,
        /// The first size of its terminal: columns and rows.
        #[serde(default)]
        size: Option<(u16, u16)>,
    },
    /// Sends a signal to the first process of a container.
    Signal {
        /// Whose.
        container: String,
        /// Which.
        signal: i32,
    },
    /// Runs one more process in a container. Without a terminal, standard input, output and error come
    /// along; with one, its other side comes back. It is killed when the connection ends.
    Exec {
        /// Where.
        container: String,
        /// What.
        process: Process,
        /// Nobody waits for its end: it goes on when the connection ends.
        #[serde(default)]
        detached: bool,
    },
    /// Asks for streams to and from the first process: up to three sockets come back, in the order of the fields.
    Attach {
        /// To which.
        container: String,
        /// To write to.
        stdin: bool,
        /// To read from.
        stdout: bool,
        /// To read from.
        stderr: bool,
    },
    /// Tells the terminal of a container its size.
    Resize {
        /// Whose.
        container: String,
        /// Characters in a row.
        columns: u16,
        /// Rows.
        rows: u16,
    },
    /// Goes on logging in a new file of the same name.
    ReopenLog {
        /// Whose.
        container: String,
    },
    /// Starts connecting to a TCP port of the pod's own loopback; the socket comes back.
    Connect {
        /// Which.
        port: u16,
    },
    /// From now on tells of every container that ends.
    Subscribe,
    /// Kills all containers and ends; answered when they are gone.
    Shutdown,
}

/// Which streams of a container somebody wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// To write to.
    pub stdin: bool,
    /// To read from.
    pub stdout: bool,
    /// To read from.
    pub stderr: bool,
}

/// What a shim answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// Who answers.
    Introduced(Introduction),
    /// It could not be done.
    Failed {
        /// One sentence.
        message: String,
    },
    /// The process runs.
    Started(Started),
    /// The process of an exec has ended.
    Exited {
        /// As a shell tells it.
        code: i32,
    },
    /// A container has begun, though whoever started it is gone; told to subscribers from version 2 on.
    ContainerStarted {
        /// Which.
        container: String,
        /// Its beginning.
        started: Started,
    },
    /// A container has ended.
    ContainerExited {
        /// Which.
        container: String,
        /// How.
        exit: Exit,
    },
}

/// What a shim says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Introduction {
    /// What it speaks.
    pub versions: Versions,
    /// The release of its binary, for messages to people.
    #[serde(default)]
    pub release: String,
    /// What happened to containers and is not on disk, because the disk did not take it.
    #[serde(default)]
    pub unsaved: BTreeMap<String, Life>,
}

/// What happened to a container, as far as it has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Life {
    /// Its beginning.
    #[serde(default)]
    pub started: Option<Started>,
    /// Its end.
    #[serde(default)]
    pub exit: Option<Exit>,
}

/// A container that was started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// In the shim's pid namespace, which is the server's.
    pub pid: i32,
    /// When.
    pub at: Timestamp,
    /// What could not be had as asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// As a shell tells it.
    pub code: i32,
    /// When.
    pub at: Timestamp,
    /// In one word, as Kubernetes shows it.
    pub reason: String,
    /// In a sentence, when there is more to say.
    #[serde(default)]
    pub message: String,
}

impl Exit {
    /// The end of a process that ran.
    pub fn of_process(code: i32, out_of_memory: bool, at: Timestamp) -> Exit {
        let reason = match (code, out_of_memory) {
            (0, _) => "Completed",
            (_, true) => "OOMKilled",
            _ => "Error",
        };
        Exit { code, at, reason: reason.to_owned(), message: String::new() }
    }

    /// The end of one whose shim was killed, by which the kernel or we kill it too.
    pub fn of_killed_shim(at: Timestamp) -> Exit {
        let message = "the pod's shim was killed, and the container with it".to_owned();
        Exit { code: 128 + libc::SIGKILL, at, reason: "Error".to_owned(), message }
    }

    /// The end of one that never ran.
    pub fn of_failed_start(message: &str, at: Timestamp) -> Exit {
        Exit { code: 128, at, reason: "StartError".to_owned(), message: message.to_owned() }
    }
}

/// What a shim sets up before it takes requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The pod's name in its UTS namespace; none when it has the node's network, and with it the node's name.
    pub hostname: Option<String>,
    /// No network of its own.
    pub host_network: bool,
    /// The process whose network namespace it joins instead of having one of its own.
    #[serde(default)]
    pub join_network: Option<i32>,
    /// What the shim becomes, outside the pod's namespaces, when containers have ended, none is left and nobody
    /// is subscribed. Without it the shim stays until it is told to end.
    #[serde(default)]
    pub exit_command: Vec<String>,
    /// No IPC namespace of its own.
    pub host_ipc: bool,
    /// Whether its containers see each other's processes.
    pub shared_pid: bool,
    /// Kernel parameters of its namespaces: files below `/proc/sys`, and what is written there.
    pub sysctls: Vec<(String, String)>,
    /// The ids of a user namespace of its own.
    #[serde(default)]
    pub ids: Option<IdMap>,
    /// Whether the times of its start are written down.
    #[serde(default)]
    pub trace: bool,
    /// The shim's own control groups: it must not die with a pod's memory limit, nor with the server's service.
    pub group: Membership,
}

/// The directory of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodDirectory(pub PathBuf);

impl PodDirectory {
    /// Where the shim listens.
    pub const SOCKET: &'static str = "shim.sock";

    /// What the shim is to set up.
    pub fn settings(&self) -> PathBuf {
        self.0.join("shim.json")
    }

    /// The times of its start, if they are wanted.
    pub fn trace(&self) -> PathBuf {
        self.0.join("trace.json")
    }

    /// What the shim says beside its answers: why it could not go on.
    pub fn shim_log(&self) -> PathBuf {
        self.0.join("shim.log")
    }

    /// Where the pod's `/dev/shm` is mounted on kernels that cannot hand a detached mount around.
    pub fn shared_memory(&self) -> PathBuf {
        self.0.join("shm")
    }

    /// The pod's resolv.conf.
    pub fn resolv_conf(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }

    /// The pod's /etc/hostname.
    pub fn hostname(&self) -> PathBuf {
        self.0.join("hostname")
    }

    /// All containers of the pod.
    pub fn containers(&self) -> PathBuf {
        self.0.join("containers")
    }

    /// One container.
    pub fn container(&self, id: &str) -> ContainerDirectory {
        ContainerDirectory(self.containers().join(id))
    }
}

/// The directory of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerDirectory(pub PathBuf);

impl ContainerDirectory {
    /// What it is.
    pub fn spec(&self) -> PathBuf {
        self.0.join("spec.json")
    }

    /// There since it runs.
    pub fn started(&self) -> PathBuf {
        self.0.join("started.json")
    }

    /// The times of its start, if they are wanted.
    pub fn trace(&self) -> PathBuf {
        self.0.join("trace.json")
    }

    /// There since it ended.
    pub fn exit(&self) -> PathBuf {
        self.0.join("exit.json")
    }
}

/// Reads a file of ours; `None` when it is not there.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(serde_json::from_slice(&content)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file of ours so that it is there whole or not at all.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_whole(path, &serde_json::to_vec(value)?)
}

/// Writes a file so that it is there whole or not at all.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, content)?;
    fs::rename(temporary, path)
}

/// Longer messages are a mistake.
const LONGEST: usize = 16 << 20;

/// A message as bytes.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// A message of somebody who may be newer.
#[derive(Debug, PartialEq)]
pub enum Message<T> {
    /// One of ours.
    Known(T),
    /// Well-formed, but we have no such message; its name.
    Unknown(String),
}

/// Collects what arrives until it makes whole messages.
#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Descriptors that came along.
    pub descriptors: Vec<OwnedFd>,
}

impl Inbox {
    /// Takes what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message; an error when what came is none.
    pub fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<Message<T>>> {
        let Some(header) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*header) as usize;
        if length > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
        }
        if self.bytes.len() < 4 + length {
            return Ok(None);
        }
        let message = parse(&self.bytes[4..4 + length])?;
        self.bytes.drain(..4 + length);
        if self.bytes.is_empty() {
            // A long message is rare, and a shim small.
            self.bytes.shrink_to(4096);
        }
        Ok(Some(message))
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<Message<T>> {
    let error = match serde_json::from_slice(bytes) {
        Ok(message) => return Ok(Message::Known(message)),
        Err(error) => error,
    };
    // The names of messages are serde's: the text itself, or the only key.
    match serde_json::from_slice(bytes) {
        Ok(serde_json::Value::String(name)) => Ok(Message::Unknown(name)),
        Ok(serde_json::Value::Object(fields)) if fields.len() == 1 => {
            Ok(Message::Unknown(fields.into_iter().map(|(name, _)| name).collect()))
        }
        _ => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_however_they_are_cut() {
        let bytes =
            [encode(&Request::Hello).unwrap(), encode(&Request::Connect { port: 80 }).unwrap()].concat();
        let mut inbox = Inbox::default();
        let mut seen = Vec::new();
        for byte in bytes {
            inbox.push(&[byte]);
            while let Some(request) = inbox.take::<Request>().unwrap() {
                seen.push(format!("{request:?}"));
            }
        }
        assert_eq!(seen, ["Known(Hello)", "Known(Connect { port: 80 })"]);
    }

    fn received(json: &str) -> io::Result<Option<Message<Request>>> {
        let mut inbox = Inbox::default();
        inbox.push(&(json.len() as u32).to_le_bytes());
        inbox.push(json.as_bytes());
        inbox.take()
    }

    #[test]
    fn what_is_newer_than_we_is_passed_over() {
        let message = received(r#"{"Connect":{"port":80,"protocol":"SCTP"}}"#).unwrap();
        assert!(matches!(message, Some(Message::Known(Request::Connect { port: 80 }))), "{message:?}");
        for (json, expected) in [(r#""Freeze""#, "Freeze"), (r#"{"Teleport":{"to":"moon"}}"#, "Teleport")] {
            let Some(Message::Unknown(name)) = received(json).unwrap() else { panic!("{json} is known") };
            assert_eq!(name, expected);
        }
        for nonsense in ["", "7", "{", "[]", r#"{"a":1,"b":2}"#] {
            received(nonsense).unwrap_err();
        }
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        let versions = |oldest, newest| Versions { oldest, newest };
        assert_eq!(versions(1, 2).common(versions(1, 1)), Some(1));
        assert_eq!(versions(1, 2).common(versions(2, 5)), Some(2));
        assert_eq!(versions(1, 2).common(versions(3, 5)), None);
        assert_eq!(versions(3, 5).common(versions(1, 2)), None);
    }

    #[test]
    fn reasons_are_those_of_kubernetes() {
        let reason =
            |code, out_of_memory| Exit::of_process(code, out_of_memory, Timestamp::UNIX_EPOCH).reason;
        assert_eq!(reason(0, false), "Completed");
        assert_eq!(reason(1, false), "Error");
        assert_eq!(reason(137, true), "OOMKilled");
    }
}

//! Containers and their processes, as the shim holds them.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use jiff::Timestamp;

use super::log::{Lines, LogFile, Stream};
use super::namespaces::Shared;
use crate::cgroup::out_of_memory_kills_in;
use crate::container::carry_out::{Failure, Prepared, SharedMemory, Stage, carry_out, failed};
use crate::container::ids::IdMap;
use crate::container::spec::{Membership, PidNamespace, Process, Spec, Stdin};
use crate::container::{SetupStep, container_setup, process_setup, setup};
use crate::sys::process::{self, Child};
use crate::sys::{poll, socket};
use crate::trace::{Actor, Step, unpack};

/// A container with a first process that has not been reaped yet.
pub struct Container {
    /// A handle on its first process.
    pub pidfd: OwnedFd,
    /// Its control groups.
    pub groups: Membership,
    /// The ids of its user namespace, if that is not the node's.
    pub ids: Option<IdMap>,
    /// What it writes and who reads it.
    pub output: Output,
    /// What it reads and who writes it.
    pub input: Input,
}

/// A process that the shim has forked and not reaped yet.
pub struct Forked {
    /// Its number.
    pub pid: i32,
    /// What it is.
    pub role: Role,
    /// Open until it has executed its program, or failed to.
    pub channel: Option<OwnedFd>,
    /// Its terminal's other side.
    pub terminal: Option<OwnedFd>,
    /// The other ends of streams that were asked for together with it.
    pub attached: Vec<OwnedFd>,
    /// Why it could not execute its program.
    pub failure: Option<String>,
    /// What could not be had as asked for.
    pub warnings: Vec<String>,
    /// The times of its set-up, if they are wanted.
    pub steps: Vec<Step>,
    /// Who waits for an answer.
    pub waiting: Option<u64>,
}

/// What a forked process is.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// The first process of a container.
    First(String),
    /// One more, by exec.
    Exec {
        /// Nobody waits for its end.
        detached: bool,
    },
}

/// What a setting-up process told.
pub enum News {
    /// Nothing yet.
    Nothing,
    /// The other side of its terminal.
    Terminal(OwnedFd),
    /// Another process goes on in its place.
    Succeeded(Child),
    /// What could not be had as asked for.
    Warning(String),
    /// How long its steps took.
    Times(Vec<Step>),
    /// Why it cannot go on.
    Failed(String),
    /// It has become its program.
    Executed,
}

impl Forked {
    /// Whether it may go on: its start has not failed, and whoever waits for its end is still there, and would have
    /// ended it otherwise.
    pub fn is_wanted(&self) -> bool {
        let is_forsaken = self.role == (Role::Exec { detached: false }) && self.waiting.is_none();
        self.failure.is_none() && !is_forsaken
    }

    /// Hears what the process has told since.
    pub fn listen(&mut self) -> io::Result<News> {
        let Some(channel) = &self.channel else { return Ok(News::Nothing) };
        let (mut buffer, mut descriptors) = ([0; 16 << 10], Vec::new());
        let length = match socket::receive(channel, &mut buffer, &mut descriptors) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(News::Nothing),
            result => result?,
        };
        match (&buffer[..length], descriptors.pop()) {
            ([], _) => {
                self.channel = None;
                Ok(News::Executed)
            }
            ([b'T', ..], Some(terminal)) => Ok(News::Terminal(terminal)),
            ([b'T', ..], None) => without_descriptor(self.pid),
            ([b'P', pid @ ..], pidfd) => {
                let pid = std::str::from_utf8(pid).ok().and_then(|pid| pid.parse().ok());
                let pid = pid.ok_or_else(|| io::Error::other("a process told no number"))?;
                match pidfd {
                    Some(pidfd) => Ok(News::Succeeded(Child { pid, pidfd })),
                    None => without_descriptor(pid),
                }
            }
            ([b'W', warning @ ..], _) => Ok(News::Warning(String::from_utf8_lossy(warning).into_owned())),
            ([b'D', steps @ ..], _) => {
                Ok(News::Times(unpack(&String::from_utf8_lossy(steps), Actor::Container)))
            }
            ([_, message @ ..], _) => Ok(News::Failed(String::from_utf8_lossy(message).into_owned())),
        }
    }
}

/// The shim had no room for what came with the message: without it, the process that it was for cannot be served.
fn without_descriptor(pid: i32) -> io::Result<News> {
    process::kill_child(pid)?;
    Ok(News::Failed("too many open files".to_owned()))
}

/// Starts the first process of a container; tells its number, and where it tells how it fares.
pub fn start(
    spec: Spec,
    shared: &Shared,
    target: Option<&OwnedFd>,
) -> Result<(i32, OwnedFd, Container), Failure> {
    let open = |path| LogFile::open(path, spec.log_limit);
    let log = spec.log.clone().map(open).transpose().map_err(failed("open the container's log"))?;
    let mut output = Output { log, sources: Vec::new(), clients: Vec::new() };
    let mut input = Input { sink: None, pending: Vec::new(), ends_with_client: spec.stdin == Stdin::Once };
    let streams =
        if spec.process.terminal { None } else { Some(make_streams(spec.stdin, &mut output, &mut input)?) };
    let memory =
        shared.memory.as_ref().map(SharedMemory::try_clone).transpose().map_err(failed("share /dev/shm"))?;

    let joined = match &spec.pid {
        PidNamespace::Own | PidNamespace::Host => None,
        PidNamespace::Pod => Some(
            shared
                .pause
                .as_ref()
                .map(|pause| &pause.pidfd)
                .ok_or_else(|| Failure::new("the pod has no pid namespace to share"))?,
        ),
        PidNamespace::Container(_) => Some(
            target
                .ok_or_else(|| Failure::new("the container whose processes are to be seen does not run"))?,
        ),
    };
    let joined = joined.map(OwnedFd::try_clone).transpose().map_err(failed("hold the pid namespace"))?;
    // With a user namespace the process makes its pid namespace in there.
    let own_pids = spec.pid == PidNamespace::Own && spec.ids.is_none();
    let namespaces = libc::CLONE_NEWNS | if own_pids { libc::CLONE_NEWPID } else { 0 };
    let users = shared.users.as_ref().filter(|_| spec.ids.is_some()).map(OwnedFd::try_clone).transpose();
    let user_namespace = users.map_err(failed("hold the user namespace"))?;
    let (channel, theirs) = channel().map_err(failed("make a channel"))?;
    let groups = spec.cgroup.clone();
    let child = fork_into(&groups, namespaces, shared)?;
    let Some(child) = child else {
        let trace = spec.trace;
        let prepared = Prepared { streams, shared_memory: memory, user_namespace, channel: theirs, trace };
        become_container(container_setup(&spec), joined, &mut Stage::new(prepared))
    };
    // From here on nothing may fail: nobody would know of the process.
    Ok((child.pid, channel, Container { pidfd: child.pidfd, groups, ids: spec.ids, output, input }))
}

/// Starts one more process in a container.
pub fn exec(
    container: &Container,
    process: Process,
    streams: Option<[OwnedFd; 3]>,
    shared: &Shared,
) -> Result<(Child, OwnedFd), Failure> {
    let (channel, theirs) = channel().map_err(failed("make a channel"))?;
    let Some(child) = fork_into(&container.groups, 0, shared)? else {
        let (shared_memory, user_namespace) = (None, None);
        let prepared = Prepared { streams, shared_memory, user_namespace, channel: theirs, trace: false };
        become_process(container, &process, &mut Stage::new(prepared))
    };
    Ok((child, channel))
}

/// Forks a child that is born in the version 2 group.
fn fork_into(
    groups: &Membership,
    namespaces: libc::c_int,
    shared: &Shared,
) -> Result<Option<Child>, Failure> {
    let group = groups.unified.as_deref().map(crate::sys::open::directory).transpose();
    let group = group.map_err(failed("open the control group"))?;
    let forked = process::fork(namespaces, group.as_ref());
    if let (Ok(None), Some(command_line)) = (&forked, &shared.command_line) {
        // Others of the pod may see this process: paths of the node are none of their business.
        command_line.replace(c"coracle-init");
    }
    forked.map_err(failed("fork"))
}

fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socket::message_pair()?;
    socket::set_nonblocking(&ours, true)?;
    Ok((ours, theirs))
}

fn become_container(steps: Vec<SetupStep>, joined: Option<OwnedFd>, stage: &mut Stage) -> ! {
    let set_up = |stage: &mut Stage| -> Result<(), Failure> {
        die_with_the_shim()?;
        stage.prepare(&steps)?;
        if let Some(process) = joined {
            stage.join_pids_of(process).map_err(failed("join the pid namespace"))?;
        }
        carry_out(steps, stage)
    };
    let outcome = set_up(stage);
    give_up(outcome, stage)
}

fn become_process(container: &Container, process: &Process, stage: &mut Stage) -> ! {
    let enter = |stage: &mut Stage| -> Result<(), Failure> {
        let steps = process_setup(process);
        die_with_the_shim()?;
        stage.prepare(&steps)?;
        let ids = container.ids.as_ref();
        carry_out(setup::join_container(&container.groups, process, ids), stage)?;
        let users = if ids.is_some() { libc::CLONE_NEWUSER } else { 0 };
        // Its tree at once; its processes see this one only when it goes among them.
        let namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP | libc::CLONE_NEWPID | users;
        process::join_namespaces(&container.pidfd, namespaces)
            .map_err(failed("join the container's namespaces"))?;
        if ids.is_some() {
            process::become_user(0, 0, &[0]).map_err(failed("become root of the pod"))?;
        }
        carry_out(steps, stage)
    };
    let outcome = enter(stage);
    give_up(outcome, stage)
}

/// A process that is still being set up holds the shim's sockets: it must not seem to be the shim. Programs die
/// later by their control group.
fn die_with_the_shim() -> Result<(), Failure> {
    process::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong).map_err(failed("follow the shim"))
}

/// Tells the shim why the program was not executed, and ends.
fn give_up(outcome: Result<(), Failure>, stage: &Stage) -> ! {
    if let Err(failure) = outcome {
        stage.tell_failure(&failure);
    }
    process::exit_now(1)
}

fn make_streams(stdin: Stdin, output: &mut Output, input: &mut Input) -> Result<[OwnedFd; 3], Failure> {
    let mut make = || -> io::Result<[OwnedFd; 3]> {
        let standard_input = match stdin {
            Stdin::Null => File::open("/dev/null")?.into(),
            Stdin::Open | Stdin::Once => {
                let (theirs, ours) = poll::pipe()?;
                socket::set_nonblocking(&ours, true)?;
                input.sink = Some(ours);
                theirs
            }
        };
        let (stdout, their_stdout) = poll::pipe()?;
        let (stderr, their_stderr) = poll::pipe()?;
        for (source, stream) in [(stdout, Stream::Stdout), (stderr, Stream::Stderr)] {
            output.add(source, stream)?;
        }
        Ok([standard_input, their_stdout, their_stderr])
    };
    make().map_err(failed("make the standard streams"))
}

/// What a container writes: into its log, and to those who are attached.
pub struct Output {
    log: Option<LogFile>,
    sources: Vec<Source>,
    /// Those who read along.
    pub clients: Vec<Client>,
}

struct Source {
    file: Option<File>,
    stream: Stream,
    lines: Lines,
}

/// Somebody attached.
pub struct Client {
    /// What they type.
    pub stdin: Option<OwnedFd>,
    /// Where output goes, and what of it they have not taken yet.
    pub outputs: Vec<Reader>,
}

/// One stream to a client.
pub struct Reader {
    stream: Stream,
    /// The socket.
    pub socket: OwnedFd,
    /// What the client has not taken yet.
    pub pending: Vec<u8>,
}

impl Output {
    /// Goes on reading from this end of a pipe or terminal.
    pub fn add(&mut self, source: OwnedFd, stream: Stream) -> io::Result<()> {
        socket::set_nonblocking(&source, true)?;
        self.sources.push(Source { file: Some(source.into()), stream, lines: Lines::new(stream) });
        Ok(())
    }

    /// What to wait for, by number. While a client is behind, the container waits with him: nothing is lost.
    pub fn readable(&self) -> impl Iterator<Item = (usize, std::os::fd::BorrowedFd<'_>)> {
        let behind =
            self.clients.iter().flat_map(|client| &client.outputs).any(|reader| !reader.pending.is_empty());
        let sources = if behind { &[] } else { self.sources.as_slice() };
        sources.iter().enumerate().filter_map(|(index, source)| Some((index, source.file.as_ref()?.as_fd())))
    }

    /// Reads once from a source, into the log and to the clients.
    pub fn read(&mut self, index: usize) {
        let mut buffer = [0; 16 * 1024];
        self.read_into(index, &mut buffer);
    }

    /// Reads all that is left, and closes. Whoever else holds the other end and goes on writing is not waited for.
    pub fn drain(&mut self) {
        let mut buffer = [0; 16 * 1024];
        const LARGEST_PIPE: usize = 1 << 20;
        for index in 0..self.sources.len() {
            for _ in 0..LARGEST_PIPE / buffer.len() {
                if !self.read_into(index, &mut buffer) {
                    break;
                }
            }
            self.close(index);
        }
    }

    /// `false` when there is nothing more for now, or for ever.
    fn read_into(&mut self, index: usize, buffer: &mut [u8]) -> bool {
        let source = &mut self.sources[index];
        let Some(file) = &mut source.file else { return false };
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            // A terminal whose last user is gone answers EIO.
            Ok(0) | Err(_) => {
                self.close(index);
                false
            }
            Ok(length) => {
                let (stream, data) = (source.stream, &buffer[..length]);
                if let Some(log) = &mut self.log {
                    let mut lines = Vec::with_capacity(length + 64);
                    source.lines.feed(data, Timestamp::now(), &mut lines);
                    log.write(&lines);
                }
                for reader in self.clients.iter_mut().flat_map(|client| &mut client.outputs) {
                    if reader.stream == stream {
                        reader.pending.extend_from_slice(data);
                        reader.flush();
                    }
                }
                true
            }
        }
    }

    fn close(&mut self, index: usize) {
        let source = &mut self.sources[index];
        source.file = None;
        let mut lines = Vec::new();
        source.lines.finish(Timestamp::now(), &mut lines);
        if let Some(log) = &mut self.log {
            log.write(&lines);
        }
    }

    /// Goes on in a new log file.
    pub fn reopen_log(&mut self) -> io::Result<()> {
        self.log.as_mut().map_or(Ok(()), LogFile::reopen)
    }
}

impl Reader {
    /// A stream to a client.
    pub fn new(stream: Stream, socket: OwnedFd) -> io::Result<Reader> {
        socket::set_nonblocking(&socket, true)?;
        Ok(Reader { stream, socket, pending: Vec::new() })
    }

    /// Sends what the client takes; one that is gone takes all.
    pub fn flush(&mut self) {
        while !self.pending.is_empty() {
            match socket::send(&self.socket, &self.pending, &[]) {
                Ok(sent) => drop(self.pending.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.pending.clear(),
            }
        }
    }
}

/// What a container reads.
pub struct Input {
    /// The pipe or terminal that it reads from; none when its input is empty or has ended.
    pub sink: Option<OwnedFd>,
    /// What it has not read yet.
    pub pending: Vec<u8>,
    /// Whether the input ends with the first client's.
    pub ends_with_client: bool,
}

impl Input {
    /// Passes on what the container takes.
    pub fn flush(&mut self) {
        while let Some(sink) = &self.sink
            && !self.pending.is_empty()
        {
            match nix::unistd::write(sink, &self.pending) {
                Ok(written) => drop(self.pending.drain(..written)),
                Err(nix::Error::EAGAIN) => return,
                // Nobody reads any more.
                Err(_) => {
                    self.sink = None;
                    self.pending.clear();
                }
            }
        }
    }
}

/// Whether the kernel has killed a process of these groups because memory ran out.
pub fn ran_out_of_memory(groups: &Membership) -> bool {
    let file: Option<PathBuf> = groups.out_of_memory_file();
    let content = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    out_of_memory_kills_in(&content) > 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    fn forked(pid: i32, role: Role, channel: Option<OwnedFd>) -> Forked {
        Forked {
            pid,
            role,
            channel,
            terminal: None,
            attached: Vec::new(),
            failure: None,
            warnings: Vec::new(),
            steps: Vec::new(),
            waiting: None,
        }
    }

    #[test]
    fn only_what_has_not_failed_and_somebody_waits_for_goes_on() {
        let waiting = |role, waiting, failure: Option<&str>| {
            let failure = failure.map(str::to_owned);
            Forked { waiting, failure, ..forked(1, role, None) }.is_wanted()
        };
        for role in [Role::First("main".into()), Role::Exec { detached: true }] {
            assert!(waiting(role.clone(), None, None));
            assert!(!waiting(role, Some(7), Some("too many open files")));
        }
        let watched = Role::Exec { detached: false };
        assert!(waiting(watched.clone(), Some(7), None));
        assert!(!waiting(watched, None, None));
    }

    /// What the shim makes of a message that comes without its descriptor, and how the process has ended.
    fn heard(message: impl FnOnce(u32) -> String) -> (News, Option<i32>) {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let (channel, theirs) = channel().unwrap();
        socket::send(&theirs, message(child.id()).as_bytes(), &[]).unwrap();
        let mut forked = forked(child.id() as i32, Role::Exec { detached: true }, Some(channel));
        (forked.listen().unwrap(), child.wait().unwrap().signal())
    }

    #[test]
    fn a_process_whose_descriptor_the_shim_has_no_room_for_is_killed() {
        let terminal = heard(|_| "T".to_owned());
        let successor = heard(|pid| format!("P{pid}"));
        for (news, signal) in [terminal, successor] {
            assert!(matches!(news, News::Failed(reason) if reason == "too many open files"));
            assert_eq!(signal, Some(libc::SIGKILL));
        }
    }

    #[test]
    fn nobody_else_than_a_child_is_killed_by_its_number() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 1000 & echo $!; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
        let grandchild: i32 = line.trim().parse().unwrap();
        process::kill_child(grandchild).unwrap();
        let grandchild = nix::unistd::Pid::from_raw(grandchild);
        nix::sys::signal::kill(grandchild, nix::sys::signal::Signal::SIGKILL).expect("it is alive");
        // Its parent has buried it, which no killed process does.
        assert_eq!(child.wait().unwrap().signal(), None);
    }
}

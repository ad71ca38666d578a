//! The shim's loop: waits for everything at once, and does one thing after the other.
//!
//! Once it serves, no error ends it: what fails is said, and concerns one container or one client at most.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::clients;
use super::connection::Connection;
use super::containers::{self, Container, Forked, News, Reader, Role};
use super::ledger::Ledger;
use super::log::Stream;
use super::namespaces::{self, Shared};
use super::protocol::{Exit, Message, PodDirectory, Reply, Settings, Started, read_json};
use crate::container::carry_out::{Failure, failed};
use crate::sys::failpoint;
use crate::sys::poll::{Notices, Waiting};
use crate::sys::process::{self, Child};
use crate::sys::socket;
use crate::trace::{self, Actor, Recorder};

/// How long after a failure the same is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Makes the pod's namespaces and serves until told to end.
pub(super) fn run(directory: PodDirectory) -> Result<(), Failure> {
    nix::unistd::setsid().map_err(|error| failed("make a session")(error.into()))?;
    let listener = socket::take_standard_input().map_err(failed("take the listening socket"))?;
    // Whoever connects from now on is told our number as the peer's, not that of the server that made the socket.
    socket::listen(&listener).map_err(failed("listen"))?;
    let mut recorder = Recorder::start(true, Actor::Shim);
    let settings: Option<Settings> =
        read_json(&directory.settings()).map_err(failed("read the shim's settings"))?;
    let settings = settings.ok_or_else(|| Failure::new("the shim has no settings"))?;
    // Before the first fork, so that no child's end is missed.
    let notices = Notices::watch().map_err(failed("watch for children"))?;
    recorder.mark("ReadSettings");
    let shared = namespaces::make(&settings, &directory, &mut recorder)?;
    if settings.trace {
        trace::append(&directory.trace(), recorder.take().unwrap_or_default())
            .map_err(failed("tell times"))?;
    }
    failpoint::reach("shim.namespaces");
    // Containers have a score of their own each; where the machine forbids it, the shim goes like anybody else.
    let own_score = process::spare_from_out_of_memory().unwrap_or_default();
    std::env::set_current_dir("/").map_err(failed("leave the directory"))?;
    socket::set_nonblocking(&listener, true).map_err(failed("serve"))?;
    let mut shim = Shim {
        ledger: Ledger::new(directory.clone()),
        directory,
        shared,
        listener,
        notices,
        connections: BTreeMap::new(),
        containers: BTreeMap::new(),
        processes: Vec::new(),
        next_connection: 0,
        ending: None,
        goes_home: !settings.exit_command.is_empty(),
        has_ended: false,
        resting_until: None,
        last_complaint: String::new(),
    };
    match shim.serve() {
        End::Asked => Ok(()),
        End::Forsaken => go_home(&shim.shared, &settings.exit_command, own_score),
    }
}

/// Becomes the command that looks after what is left, where it can: out of the pod's namespaces.
fn go_home(shared: &Shared, command: &[String], score: Option<i32>) -> Result<(), Failure> {
    score
        .map_or(Ok(()), process::set_oom_score)
        .map_err(failed("be like any other process when memory runs out"))?;
    for namespace in &shared.home {
        process::join_namespaces(namespace, 0).map_err(failed("leave the pod's namespaces"))?;
    }
    process::reset_signals().map_err(failed("reset signals"))?;
    process::close_on_exec_from(3).map_err(failed("close descriptors"))?;
    let c_string = |text: &String| std::ffi::CString::new(text.as_str());
    let arguments: Result<Vec<_>, _> = command.iter().map(c_string).collect();
    let arguments = arguments.map_err(|_| Failure::new("the exit command holds a zero byte"))?;
    let Some(program) = arguments.first() else { return Ok(()) };
    let environment = [c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    Err(failed("become the exit command")(process::execute(program, &arguments, &environment)))
}

pub(super) struct Shim {
    pub(super) directory: PodDirectory,
    pub(super) shared: Shared,
    pub(super) ledger: Ledger,
    listener: OwnedFd,
    notices: Notices,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) processes: Vec<Forked>,
    next_connection: u64,
    /// Whether it is to end with its containers, and who is told then.
    pub(super) ending: Option<Ending>,
    /// Whether it ends by itself after its containers.
    goes_home: bool,
    /// Whether a container has ended.
    has_ended: bool,
    /// No connection is taken before, for the last could not be.
    resting_until: Option<Instant>,
    /// What failed last: a failure that repeats itself is said once.
    last_complaint: String,
}

/// Who wants the shim to end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ending {
    /// The client of this connection.
    AskedBy(u64),
    /// The machine, which goes down.
    WithTheMachine,
}

/// Why the shim has ended.
enum End {
    Asked,
    /// Its containers have ended, and nobody is there who would hear of it.
    Forsaken,
}

/// What there is to do.
#[derive(Clone, Copy, Debug)]
enum Event {
    Connect,
    Notices,
    Request(u64),
    Flush(u64),
    Setup(i32),
    Output(usize, usize),
    Input(usize),
    Typed(usize, usize),
    Taken(usize, usize, usize),
    Left(usize, usize),
}

impl Shim {
    fn serve(&mut self) -> End {
        loop {
            match self.wait() {
                Ok(events) => self.handle_all(events),
                Err(error) => {
                    self.complain(format!("failed to wait: {error}"));
                    self.wait_for_notices();
                }
            }
            if let Err(error) = self.ledger.save() {
                self.complain(format!("failed to record what happened to a container: {error}"));
            }
            if let Some(ending) = self.ending
                && self.containers.is_empty()
            {
                if let Ending::AskedBy(connection) = ending {
                    self.answer(connection, Reply::Done, Vec::new());
                }
                failpoint::reach("shim.ending");
                return End::Asked;
            }
            if self.goes_home && self.is_forsaken() {
                return End::Forsaken;
            }
        }
    }

    /// What is left to wait for when there is no memory to wait for all: the end of a process may help.
    fn wait_for_notices(&mut self) {
        let mut waiting = Waiting::new();
        waiting.readable(self.notices.as_fd(), Event::Notices);
        match waiting.wait(Some(PAUSE)) {
            Ok(events) => self.handle_all(events),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }

    fn handle_all(&mut self, events: Vec<Event>) {
        for event in events {
            let clients = self.clients();
            if let Err(error) = self.handle(event) {
                self.complain(format!("failed to handle {event:?}: {error}"));
            }
            // The numbers in the other events of this round are no longer true; they will come again.
            if self.clients() != clients {
                break;
            }
        }
    }

    pub(super) fn complain(&mut self, complaint: String) {
        if complaint != self.last_complaint {
            super::say(&complaint);
            self.last_complaint = complaint;
        }
    }

    fn wait(&self) -> io::Result<Vec<Event>> {
        // Containers and their clients go by their numbers here, so what changes those (requests, ends)
        // comes after them.
        let mut waiting = Waiting::new();
        for (number, container) in self.containers.values().enumerate() {
            for (index, source) in container.output.readable() {
                waiting.readable(source, Event::Output(number, index));
            }
            if let Some(sink) = container.input.sink.as_ref().filter(|_| !container.input.pending.is_empty())
            {
                waiting.writable(sink.as_fd(), Event::Input(number));
            }
            for (client_number, client) in container.output.clients.iter().enumerate() {
                if let Some(stdin) = client.stdin.as_ref().filter(|_| container.input.pending.is_empty()) {
                    waiting.readable(stdin.as_fd(), Event::Typed(number, client_number));
                }
                for (index, reader) in client.outputs.iter().enumerate() {
                    if reader.pending.is_empty() {
                        waiting.hung_up(reader.socket.as_fd(), Event::Left(number, client_number));
                    } else {
                        waiting.writable(reader.socket.as_fd(), Event::Taken(number, client_number, index));
                    }
                }
            }
        }
        let is_resting = self.resting_until.is_some_and(|until| Instant::now() < until);
        if !is_resting {
            waiting.readable(self.listener.as_fd(), Event::Connect);
        }
        for (id, connection) in &self.connections {
            waiting.readable(connection.as_fd(), Event::Request(*id));
            if connection.is_flushing() {
                waiting.writable(connection.as_fd(), Event::Flush(*id));
            }
        }
        for forked in &self.processes {
            if let Some(channel) = &forked.channel {
                waiting.readable(channel.as_fd(), Event::Setup(forked.pid));
            }
        }
        // Last, so that output that came before an end is read before it.
        waiting.readable(self.notices.as_fd(), Event::Notices);
        let is_retrying = is_resting || !self.ledger.unsaved().is_empty();
        waiting.wait(is_retrying.then_some(PAUSE))
    }

    /// Whether all is over and nobody is there who would hear of it.
    fn is_forsaken(&self) -> bool {
        let is_heard = |client: &Connection| client.subscribed || client.is_flushing();
        let is_told = self.ledger.unsaved().is_empty();
        self.has_ended && is_told && self.containers.is_empty() && !self.connections.values().any(is_heard)
    }

    /// Who is attached to any container.
    fn clients(&self) -> usize {
        self.containers.values().map(|container| container.output.clients.len()).sum()
    }

    fn handle(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Connect => self.accept(),
            Event::Request(id) => self.receive(id),
            Event::Flush(id) => {
                if let Some(connection) = self.connections.get_mut(&id)
                    && connection.flush().is_err()
                {
                    self.disconnect(id);
                }
                Ok(())
            }
            Event::Setup(pid) => self.listen(pid),
            Event::Notices => self.take_notice(),
            Event::Output(number, index) => {
                self.with_container(number, |container| container.output.read(index));
                Ok(())
            }
            Event::Input(number) => {
                self.with_container(number, |container| container.input.flush());
                Ok(())
            }
            Event::Typed(number, client) => {
                self.with_container(number, |container| clients::read_typed(container, client));
                Ok(())
            }
            Event::Taken(number, client, index) => {
                self.with_reader(number, client, index, Reader::flush);
                Ok(())
            }
            Event::Left(number, client) => {
                self.with_container(number, |container| {
                    if client < container.output.clients.len() {
                        clients::leave(container, client);
                    }
                });
                Ok(())
            }
        }
    }

    fn with_container(&mut self, number: usize, act: impl FnOnce(&mut Container)) {
        if let Some(container) = self.containers.values_mut().nth(number) {
            act(container);
        }
    }

    fn with_reader(&mut self, number: usize, client: usize, index: usize, act: impl FnOnce(&mut Reader)) {
        self.with_container(number, |container| {
            if let Some(reader) =
                container.output.clients.get_mut(client).and_then(|client| client.outputs.get_mut(index))
            {
                act(reader);
            }
        });
    }

    fn accept(&mut self) -> io::Result<()> {
        match socket::accept(&self.listener) {
            Ok(socket) => {
                self.connections.insert(self.next_connection, Connection::new(socket)?);
                self.next_connection += 1;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => {
                // Such as too many open files: asking again at once would change nothing.
                self.resting_until = Some(Instant::now() + PAUSE);
                Err(error)
            }
        }
    }

    fn receive(&mut self, id: u64) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let open = connection.receive().unwrap_or(false);
        // A client that talks nonsense is none of ours; one that is newer than we may ask what we do not know.
        while let Some(next) = self.connections.get_mut(&id).map(Connection::take) {
            match next {
                Ok(Some((Message::Known(request), descriptors))) => self.carry_out(id, request, descriptors),
                Ok(Some((Message::Unknown(name), _))) => {
                    let message = format!("the pod's shim ({}) knows no {name:?}", super::RELEASE);
                    self.answer(id, Reply::Failed { message }, Vec::new());
                }
                Ok(None) => break,
                Err(_) => self.disconnect(id),
            }
        }
        if !open {
            self.disconnect(id);
        }
        Ok(())
    }

    /// With a connection ends the exec that it asked for.
    pub(super) fn disconnect(&mut self, id: u64) {
        self.connections.remove(&id);
        for forked in &mut self.processes {
            if forked.waiting == Some(id) {
                forked.waiting = None;
                if forked.role == (Role::Exec { detached: false }) {
                    // It leads a session, and with it a group, of its own.
                    let group = nix::unistd::Pid::from_raw(forked.pid);
                    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL)
                        .or_else(|_| nix::sys::signal::kill(group, nix::sys::signal::Signal::SIGKILL))
                        .ok();
                }
            }
        }
    }

    pub(super) fn answer(&mut self, id: u64, reply: Reply, descriptors: Vec<OwnedFd>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.send(&reply, descriptors).is_err() {
            self.disconnect(id);
        }
    }

    /// A process on its way to its program has told something.
    fn listen(&mut self, pid: i32) -> io::Result<()> {
        let Some(position) = self.processes.iter().position(|forked| forked.pid == pid) else {
            return Ok(());
        };
        while self.processes[position].channel.is_some() {
            let forked = &mut self.processes[position];
            match forked.listen() {
                Ok(News::Nothing) => return Ok(()),
                Ok(News::Terminal(master)) => forked.terminal = Some(master),
                Ok(News::Succeeded(child)) => self.succeeded(position, child),
                Ok(News::Warning(warning)) => forked.warnings.push(warning),
                Ok(News::Times(steps)) => forked.steps.extend(steps),
                Ok(News::Failed(message)) => {
                    forked.failure = Some(format!("unable to start container process: {message}"));
                }
                Ok(News::Executed) if forked.failure.is_some() => {}
                Ok(News::Executed) => {
                    if let Err(error) = self.executed(position) {
                        self.give_up_on(position, error);
                    }
                }
                Err(error) => {
                    forked.channel = None;
                    self.give_up_on(position, error);
                }
            }
        }
        Ok(())
    }

    /// The process has made one more for a new pid namespace, and is no longer the one that counts.
    fn succeeded(&mut self, position: usize, child: Child) {
        let forked = &mut self.processes[position];
        forked.pid = child.pid;
        let killed = match forked.is_wanted() {
            true => Ok(()),
            false => process::pidfd_signal(&child.pidfd, libc::SIGKILL),
        };
        if let Role::First(name) = &forked.role
            && let Some(container) = self.containers.get_mut(name)
        {
            container.pidfd = child.pidfd;
        }
        if let Err(error) = killed {
            self.complain(format!("failed to kill a process: {error}"));
        }
    }

    /// A process that the shim cannot serve ends; its end is told as that of one that did not begin.
    pub(super) fn give_up_on(&mut self, position: usize, error: impl std::fmt::Display) {
        let forked = &mut self.processes[position];
        forked.failure = Some(format!("unable to serve container process: {error}"));
        let killed =
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(forked.pid), nix::sys::signal::Signal::SIGKILL);
        if let Err(error) = killed {
            self.complain(format!("failed to kill a process: {error}"));
        }
    }

    fn executed(&mut self, position: usize) -> io::Result<()> {
        failpoint::reach("shim.executed");
        let forked = &mut self.processes[position];
        let (terminal, waiting) = (forked.terminal.take(), forked.waiting);
        let (warnings, steps) = (std::mem::take(&mut forked.warnings), std::mem::take(&mut forked.steps));
        let started = Started { pid: forked.pid, at: Timestamp::now(), warnings };
        let mut descriptors = Vec::new();
        match forked.role.clone() {
            Role::First(name) => {
                if let (Some(master), Some(container)) = (terminal, self.containers.get_mut(&name)) {
                    container.input.sink = Some(master.try_clone()?);
                    container.output.add(master, Stream::Stdout)?;
                }
                let forked = &mut self.processes[position];
                forked.waiting = None;
                descriptors.append(&mut forked.attached);
                if let Err(error) = self.ledger.started(&name, started.clone()) {
                    self.complain(format!("failed to record the start of {name}: {error}"));
                }
                failpoint::reach("shim.started");
                if !steps.is_empty()
                    && let Err(error) = trace::append(&self.directory.container(&name).trace(), steps)
                {
                    self.complain(format!("failed to tell how long {name} took: {error}"));
                }
            }
            Role::Exec { detached } => {
                descriptors.extend(terminal);
                if detached {
                    self.processes[position].waiting = None;
                }
            }
        }
        match (waiting, &self.processes[position].role) {
            (Some(id), _) => self.answer(id, Reply::Started(started), descriptors),
            // The server that asked was killed: the next one is told.
            (None, Role::First(container)) => {
                let container = container.clone();
                self.tell(2, || Reply::ContainerStarted {
                    container: container.clone(),
                    started: started.clone(),
                });
            }
            (None, Role::Exec { .. }) => {}
        }
        Ok(())
    }

    /// Tells all subscribers who know of such news, which is since this version.
    fn tell(&mut self, since: u32, news: impl Fn() -> Reply) {
        let is_told = |client: &Connection| client.subscribed && client.version >= since;
        let listeners: Vec<u64> =
            self.connections.iter().filter(|(_, client)| is_told(client)).map(|(id, _)| *id).collect();
        listeners.into_iter().for_each(|id| self.answer(id, news(), Vec::new()));
    }

    fn take_notice(&mut self) -> io::Result<()> {
        if self.notices.take()? && self.ending.is_none() {
            self.ending = Some(Ending::WithTheMachine);
            self.kill_all()?;
        }
        while let Some((pid, code)) = process::reap()? {
            // Its last words come before its end; and if it is nobody's yet, somebody is about to say whose.
            self.listen(pid)?;
            if !self.processes.iter().any(|forked| forked.pid == pid) {
                let others: Vec<i32> = self.processes.iter().map(|forked| forked.pid).collect();
                others.into_iter().try_for_each(|other| self.listen(other))?;
            }
            // Others are orphans that came to us from a pid namespace that is not a container's own.
            if let Some(position) = self.processes.iter().position(|forked| forked.pid == pid) {
                let forked = self.processes.swap_remove(position);
                self.ended(forked, code);
            }
        }
        Ok(())
    }

    fn ended(&mut self, forked: Forked, code: i32) {
        let reply = match (&forked.role, &forked.failure) {
            (_, Some(message)) => Reply::Failed { message: message.clone() },
            _ => Reply::Exited { code },
        };
        if let Role::First(name) = forked.role {
            self.has_ended = true;
            let Some(mut container) = self.containers.remove(&name) else { return };
            container.output.drain();
            let now = Timestamp::now();
            let exit = match &forked.failure {
                Some(message) => Exit::of_failed_start(message, now),
                None => Exit::of_process(code, containers::ran_out_of_memory(&container.groups), now),
            };
            failpoint::reach("shim.reaped");
            if let Err(error) = self.ledger.ended(&name, exit.clone()) {
                self.complain(format!("failed to record the end of {name}: {error}"));
            }
            failpoint::reach("shim.ended");
            self.tell(1, || Reply::ContainerExited { container: name.clone(), exit: exit.clone() });
            clients::finish(container);
        }
        if let Some(id) = forked.waiting {
            self.answer(id, reply, Vec::new());
        }
    }
}

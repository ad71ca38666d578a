//! The shim's loop: waits for everything at once, and does one thing after the other.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use jiff::Timestamp;

use super::connection::Connection;
use super::containers::{self, Client, Container, Forked, News, Reader, Role};
use super::log::Stream;
use super::namespaces::{self, Shared};
use super::protocol::{Attached, Exit, PodDirectory, Reply, Request, Settings, Started, read_json, write_json};
use crate::container::carry_out::{Failure, failed};
use crate::container::spec::{PidNamespace, Process, Spec};
use crate::sys::poll::{ChildExits, Waiting};
use crate::sys::{process, socket, terminal};

/// Makes the pod's namespaces and serves until told to end.
pub(super) fn run(directory: PodDirectory) -> Result<(), Failure> {
    nix::unistd::setsid().map_err(|error| failed("make a session")(error.into()))?;
    let listener = socket::take_standard_input().map_err(failed("take the listening socket"))?;
    let settings: Option<Settings> =
        read_json(&directory.settings()).map_err(failed("read the shim's settings"))?;
    let settings = settings.ok_or_else(|| Failure::new("the shim has no settings"))?;
    // Before the first fork, so that no child's end is missed.
    let exits = ChildExits::watch().map_err(failed("watch for children"))?;
    let shared = namespaces::make(&settings, &directory)?;
    std::env::set_current_dir("/").map_err(failed("leave the directory"))?;
    socket::set_nonblocking(&listener, true).map_err(failed("serve"))?;
    let mut shim = Shim {
        directory,
        shared,
        listener,
        exits,
        connections: BTreeMap::new(),
        containers: BTreeMap::new(),
        processes: Vec::new(),
        next_connection: 0,
        ending: None,
        goes_home: !settings.exit_command.is_empty(),
        has_ended: false,
    };
    shim.serve().map_err(failed("serve"))?;
    if shim.ending.is_none() { go_home(&shim.shared, &settings.exit_command) } else { Ok(()) }
}

/// Becomes the command that looks after what is left, where it can: out of the pod's namespaces.
fn go_home(shared: &Shared, command: &[String]) -> Result<(), Failure> {
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

struct Shim {
    directory: PodDirectory,
    shared: Shared,
    listener: OwnedFd,
    exits: ChildExits,
    connections: BTreeMap<u64, Connection>,
    containers: BTreeMap<String, Container>,
    processes: Vec<Forked>,
    next_connection: u64,
    /// Who is told when all is over.
    ending: Option<u64>,
    /// Whether it ends by itself after its containers.
    goes_home: bool,
    /// Whether a container has ended.
    has_ended: bool,
}

/// What there is to do.
#[derive(Clone, Copy, Debug)]
enum Event {
    Connect,
    Exits,
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
    fn serve(&mut self) -> io::Result<()> {
        loop {
            for event in self.wait()? {
                let clients = self.clients();
                self.handle(event)?;
                // The numbers in the other events of this round are no longer true; they will come again.
                if self.clients() != clients {
                    break;
                }
            }
            if let Some(connection) = self.ending
                && self.containers.is_empty()
            {
                self.answer(connection, Reply::Done, Vec::new());
                return Ok(());
            }
            if self.goes_home && self.is_forsaken() {
                return Ok(());
            }
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
        waiting.readable(self.listener.as_fd(), Event::Connect);
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
        waiting.readable(self.exits.as_fd(), Event::Exits);
        waiting.wait()
    }

    /// Whether all is over and nobody is there who would hear of it.
    fn is_forsaken(&self) -> bool {
        let is_heard = |client: &Connection| client.subscribed || client.is_flushing();
        self.has_ended && self.containers.is_empty() && !self.connections.values().any(is_heard)
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
            Event::Exits => self.reap(),
            Event::Output(number, index) => {
                self.with_container(number, |container| container.output.read(index));
                Ok(())
            }
            Event::Input(number) => {
                self.with_container(number, |container| container.input.flush());
                Ok(())
            }
            Event::Typed(number, client) => {
                self.with_container(number, |container| read_typed(container, client));
                Ok(())
            }
            Event::Taken(number, client, index) => {
                self.with_reader(number, client, index, Reader::flush);
                Ok(())
            }
            Event::Left(number, client) => {
                self.with_container(number, |container| {
                    if client < container.output.clients.len() {
                        leave(container, client);
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
            Err(error) => Err(error),
        }
    }

    fn receive(&mut self, id: u64) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let open = connection.receive().unwrap_or(false);
        // A client that talks nonsense is none of ours.
        while let Some(next) = self.connections.get_mut(&id).map(Connection::take) {
            match next {
                Ok(Some((request, descriptors))) => self.carry_out(id, request, descriptors)?,
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
    fn disconnect(&mut self, id: u64) {
        self.connections.remove(&id);
        for forked in &mut self.processes {
            if forked.waiting == Some(id) {
                forked.waiting = None;
                if matches!(forked.role, Role::Exec { .. }) {
                    // It leads a session, and with it a group, of its own.
                    let group = nix::unistd::Pid::from_raw(forked.pid);
                    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL)
                        .or_else(|_| nix::sys::signal::kill(group, nix::sys::signal::Signal::SIGKILL))
                        .ok();
                }
            }
        }
    }

    fn answer(&mut self, id: u64, reply: Reply, descriptors: Vec<OwnedFd>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.send(&reply, descriptors).is_err() {
            self.disconnect(id);
        }
    }

    fn carry_out(&mut self, id: u64, request: Request, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let outcome = match request {
            Request::Hello => Ok(Some(Vec::new())),
            Request::Start { container, attach, size } => {
                self.start(id, container, attach, size).map(|()| None)
            }
            Request::Exec { container, process, detached } => {
                self.exec(id, &container, process, detached, descriptors).map(|()| None)
            }
            Request::Signal { container, signal } => {
                self.signal(&container, signal).map(|()| Some(Vec::new()))
            }
            Request::Attach { container, stdin, stdout, stderr } => {
                self.attach(&container, Attached { stdin, stdout, stderr }).map(Some)
            }
            Request::Resize { container, columns, rows } => {
                self.resize(&container, columns, rows).map(|()| Some(Vec::new()))
            }
            Request::ReopenLog { container } => self.reopen_log(&container).map(|()| Some(Vec::new())),
            Request::Connect { port } => socket::start_connecting(port)
                .map(|socket| Some(vec![socket]))
                .map_err(failed(format!("connect to {port}"))),
            Request::Subscribe => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.subscribed = true;
                }
                Ok(Some(Vec::new()))
            }
            Request::Shutdown => {
                self.ending = Some(id);
                self.kill_all()?;
                Ok(None)
            }
        };
        match outcome {
            Ok(Some(descriptors)) => self.answer(id, Reply::Done, descriptors),
            Ok(None) => {}
            Err(failure) => self.answer(id, Reply::Failed { message: failure.to_string() }, Vec::new()),
        }
        Ok(())
    }

    fn start(
        &mut self,
        id: u64,
        container: String,
        attach: Attached,
        size: Option<(u16, u16)>,
    ) -> Result<(), Failure> {
        let path = self.directory.container(&container).spec();
        let spec: Option<Spec> = read_json(&path).map_err(failed(format!("read {}", path.display())))?;
        let mut spec = spec.ok_or_else(|| Failure::new(format!("container {container} has no spec")))?;
        spec.process.terminal_size = size;
        let target = match &spec.pid {
            PidNamespace::Container(name) => self.containers.get(name).map(|target| &target.pidfd),
            _ => None,
        };
        let (child, channel, started) = containers::start(spec, &self.shared, target)?;
        self.containers.insert(container.clone(), started);
        // Nothing of its output is read before this is done.
        let attached = if attach == Attached::default() { Vec::new() } else { self.attach(&container, attach)? };
        self.processes.push(Forked {
            pid: child.pid,
            role: Role::First(container),
            channel: Some(channel),
            terminal: None,
            attached,
            failure: None,
            waiting: Some(id),
        });
        Ok(())
    }

    fn exec(
        &mut self,
        id: u64,
        name: &str,
        process: Process,
        detached: bool,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        let container = running(&self.containers, name)?;
        let streams = if process.terminal {
            None
        } else {
            Some(
                <[OwnedFd; 3]>::try_from(descriptors)
                    .map_err(|_| Failure::new("an exec needs three streams"))?,
            )
        };
        let (child, channel) = containers::exec(container, process, streams, &self.shared)?;
        self.processes.push(Forked {
            pid: child.pid,
            role: Role::Exec { detached },
            channel: Some(channel),
            terminal: None,
            attached: Vec::new(),
            failure: None,
            waiting: Some(id),
        });
        Ok(())
    }

    fn signal(&self, name: &str, signal: i32) -> Result<(), Failure> {
        let container = running(&self.containers, name)?;
        process::pidfd_signal(&container.pidfd, signal).map_err(failed(format!("send signal {signal}")))
    }

    fn attach(&mut self, name: &str, wanted: Attached) -> Result<Vec<OwnedFd>, Failure> {
        let Attached { stdin, stdout, stderr } = wanted;
        let container = self.containers.get_mut(name).ok_or_else(|| not_running(name))?;
        let mut make = || -> io::Result<Vec<OwnedFd>> {
            let (mut theirs, mut client) = (Vec::new(), Client { stdin: None, outputs: Vec::new() });
            if stdin {
                let (our_end, their_end) = socket::stream_pair()?;
                socket::set_nonblocking(&our_end, true)?;
                client.stdin = Some(our_end);
                theirs.push(their_end);
            }
            for (wanted, stream) in [(stdout, Stream::Stdout), (stderr, Stream::Stderr)] {
                if wanted {
                    let (our_end, their_end) = socket::stream_pair()?;
                    client.outputs.push(Reader::new(stream, our_end)?);
                    theirs.push(their_end);
                }
            }
            container.output.clients.push(client);
            Ok(theirs)
        };
        make().map_err(failed("attach"))
    }

    fn resize(&self, name: &str, columns: u16, rows: u16) -> Result<(), Failure> {
        let container = running(&self.containers, name)?;
        let sink =
            container.input.sink.as_ref().ok_or_else(|| Failure::new("the container has no terminal"))?;
        terminal::resize(sink, columns, rows).map_err(failed("resize the terminal"))
    }

    fn reopen_log(&mut self, name: &str) -> Result<(), Failure> {
        let container = self.containers.get_mut(name).ok_or_else(|| not_running(name))?;
        container.output.reopen_log().map_err(failed("reopen the log"))
    }

    /// A process on its way to its program has told something.
    fn listen(&mut self, pid: i32) -> io::Result<()> {
        let Some(position) = self.processes.iter().position(|forked| forked.pid == pid) else {
            return Ok(());
        };
        while self.processes[position].channel.is_some() {
            let forked = &mut self.processes[position];
            match forked.listen()? {
                News::Nothing => return Ok(()),
                News::Terminal(master) => forked.terminal = Some(master),
                News::Failed(message) => {
                    forked.failure = Some(format!("unable to start container process: {message}"));
                }
                News::Executed if forked.failure.is_some() => {}
                News::Executed => self.executed(position)?,
            }
        }
        Ok(())
    }

    fn executed(&mut self, position: usize) -> io::Result<()> {
        let forked = &mut self.processes[position];
        let (terminal, waiting) = (forked.terminal.take(), forked.waiting);
        let started = Started { pid: forked.pid, at: Timestamp::now() };
        let mut descriptors = Vec::new();
        match forked.role.clone() {
            Role::First(name) => {
                forked.waiting = None;
                descriptors.append(&mut forked.attached);
                if let (Some(master), Some(container)) = (terminal, self.containers.get_mut(&name)) {
                    container.input.sink = Some(master.try_clone()?);
                    container.output.add(master, Stream::Stdout)?;
                }
                write_json(&self.directory.container(&name).started(), &started)?;
            }
            Role::Exec { detached } => {
                descriptors.extend(terminal);
                if detached {
                    forked.waiting = None;
                }
            }
        }
        if let Some(id) = waiting {
            self.answer(id, Reply::Started(started), descriptors);
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        self.exits.take()?;
        while let Some((pid, code)) = process::reap()? {
            // Its last words come before its end.
            self.listen(pid)?;
            // Others are orphans that came to us from a pid namespace that is not a container's own.
            if let Some(position) = self.processes.iter().position(|forked| forked.pid == pid) {
                let forked = self.processes.swap_remove(position);
                self.ended(forked, code)?;
            }
        }
        Ok(())
    }

    fn ended(&mut self, forked: Forked, code: i32) -> io::Result<()> {
        let reply = match (&forked.role, &forked.failure) {
            (_, Some(message)) => Reply::Failed { message: message.clone() },
            _ => Reply::Exited { code },
        };
        if let Role::First(name) = forked.role {
            self.has_ended = true;
            let Some(mut container) = self.containers.remove(&name) else { return Ok(()) };
            container.output.drain();
            let now = Timestamp::now();
            let exit = match &forked.failure {
                Some(message) => Exit::of_failed_start(message, now),
                None => Exit::of_process(code, containers::ran_out_of_memory(&container.groups), now),
            };
            write_json(&self.directory.container(&name).exit(), &exit)?;
            let subscribers: Vec<u64> =
                self.connections.iter().filter(|(_, client)| client.subscribed).map(|(id, _)| *id).collect();
            for id in subscribers {
                self.answer(
                    id,
                    Reply::ContainerExited { container: name.clone(), exit: exit.clone() },
                    Vec::new(),
                );
            }
            finish_clients(container);
        }
        if let Some(id) = forked.waiting {
            self.answer(id, reply, Vec::new());
        }
        Ok(())
    }

    fn kill_all(&self) -> io::Result<()> {
        self.containers
            .values()
            .try_for_each(|container| process::pidfd_signal(&container.pidfd, libc::SIGKILL))
    }
}

fn running<'a>(containers: &'a BTreeMap<String, Container>, name: &str) -> Result<&'a Container, Failure> {
    containers.get(name).ok_or_else(|| not_running(name))
}

fn not_running(name: &str) -> Failure {
    Failure::new(format!("container {name} is not running"))
}

fn read_typed(container: &mut Container, number: usize) {
    let Some(client) = container.output.clients.get_mut(number) else { return };
    let Some(stdin) = &client.stdin else { return };
    let mut buffer = [0; 4096];
    match nix::unistd::read(stdin, &mut buffer) {
        Err(nix::Error::EAGAIN) => {}
        Ok(length) if length > 0 => {
            if container.input.sink.is_some() {
                container.input.pending.extend_from_slice(&buffer[..length]);
                container.input.flush();
            }
        }
        Ok(_) | Err(_) => {
            client.stdin = None;
            end_input(container);
            if container.output.clients[number].outputs.is_empty() {
                container.output.clients.remove(number);
            }
        }
    }
}

fn leave(container: &mut Container, number: usize) {
    let client = container.output.clients.remove(number);
    if client.stdin.is_some() {
        end_input(container);
    }
}

/// A terminal is told the end of input by its user's Ctrl-D, and never closed.
fn end_input(container: &mut Container) {
    let is_pipe = |sink: &OwnedFd| !nix::unistd::isatty(sink).unwrap_or(true);
    if container.input.ends_with_client && container.input.sink.as_ref().is_some_and(is_pipe) {
        container.input.flush();
        container.input.sink = None;
    }
}

/// What clients have not taken yet they still get: the kernel keeps what fits into their sockets.
fn finish_clients(container: Container) {
    for client in container.output.clients {
        for mut reader in client.outputs {
            // The last bytes may wait for a slow client, but not for one that does not read at all.
            if socket::set_nonblocking(&reader.socket, false).is_ok()
                && socket::limit_sending(&reader.socket, 1).is_ok()
            {
                reader.flush();
            }
        }
    }
}

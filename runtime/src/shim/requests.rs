//! What clients of the shim ask for.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use super::containers::{self, Client, Container, Forked, Reader, Role};
use super::log::Stream;
use super::protocol::{Attached, Introduction, Reply, Request, VERSIONS, Versions, read_json};
use super::serve::{Ending, Shim};
use crate::container::carry_out::{Failure, failed};
use crate::container::spec::{PidNamespace, Process, Spec};
use crate::sys::failpoint;
use crate::sys::{process, socket, terminal};
use crate::trace::{Actor, Recorder};

impl Shim {
    pub(super) fn carry_out(&mut self, id: u64, request: Request, descriptors: Vec<OwnedFd>) {
        let outcome = match request {
            Request::Hello => Ok(Some(Vec::new())),
            Request::Introduce { versions, subscribe } => {
                self.introduce(id, versions, subscribe);
                Ok(None)
            }
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
                self.subscribe(id);
                Ok(Some(Vec::new()))
            }
            Request::Shutdown => {
                self.ending = Some(Ending::AskedBy(id));
                self.kill_all().map(|()| None).map_err(failed("kill the pod's containers"))
            }
        };
        match outcome {
            Ok(Some(descriptors)) => self.answer(id, Reply::Done, descriptors),
            Ok(None) => {}
            Err(failure) => self.answer(id, Reply::Failed { message: failure.to_string() }, Vec::new()),
        }
    }

    fn introduce(&mut self, id: u64, theirs: Versions, subscribe: bool) {
        // A server with whom there is no common version goes by what it is told, and asks for nothing.
        if let (Some(connection), Some(version)) = (self.connections.get_mut(&id), VERSIONS.common(theirs)) {
            connection.version = version;
        }
        if subscribe {
            self.subscribe(id);
        }
        let introduction = Introduction {
            versions: VERSIONS,
            release: super::RELEASE.to_owned(),
            unsaved: self.ledger.unsaved().clone(),
        };
        self.answer(id, Reply::Introduced(introduction), Vec::new());
    }

    fn subscribe(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.subscribed = true;
        }
    }

    fn start(
        &mut self,
        id: u64,
        container: String,
        attach: Attached,
        size: Option<(u16, u16)>,
    ) -> Result<(), Failure> {
        self.refuse_while_ending()?;
        // Whoever asked first may have been killed: the next one waits in his place.
        let is_this = |forked: &&mut Forked| forked.role == Role::First(container.clone());
        if let Some(forked) = self.processes.iter_mut().find(is_this) {
            let is_free = forked.channel.is_some() && forked.waiting.is_none();
            let is_running = || Failure::new(format!("container {container} has been started already"));
            return is_free.then(|| forked.waiting = Some(id)).ok_or_else(is_running);
        }
        // Whether somebody wants to know is in the spec.
        let mut recorder = Recorder::start(true, Actor::Shim);
        let path = self.directory.container(&container).spec();
        let spec: Option<Spec> = read_json(&path).map_err(failed(format!("read {}", path.display())))?;
        let mut spec = spec.ok_or_else(|| Failure::new(format!("container {container} has no spec")))?;
        spec.process.terminal_size = size;
        let trace = spec.trace;
        recorder.mark("ReadSpec");
        let target = match &spec.pid {
            PidNamespace::Container(name) => self.containers.get(name).map(|target| &target.pidfd),
            _ => None,
        };
        let (pid, channel, started) = containers::start(spec, &self.shared, target)?;
        recorder.mark("Fork");
        failpoint::reach("shim.forked");
        self.containers.insert(container.clone(), started);
        self.processes.push(Forked {
            pid,
            role: Role::First(container.clone()),
            channel: Some(channel),
            terminal: None,
            attached: Vec::new(),
            failure: None,
            warnings: Vec::new(),
            steps: recorder.take().filter(|_| trace).unwrap_or_default(),
            waiting: Some(id),
        });
        if attach != Attached::default() {
            // Nothing of its output is read before this is done.
            let position = self.processes.len() - 1;
            match self.attach(&container, attach) {
                Ok(attached) => self.processes[position].attached = attached,
                // Told when it has ended.
                Err(failure) => self.give_up_on(position, failure),
            }
        }
        Ok(())
    }

    /// What is there has been told to end; what came now would not.
    fn refuse_while_ending(&self) -> Result<(), Failure> {
        match self.ending {
            None => Ok(()),
            Some(_) => Err(Failure::new("the pod is being stopped")),
        }
    }

    fn exec(
        &mut self,
        id: u64,
        name: &str,
        process: Process,
        detached: bool,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        self.refuse_while_ending()?;
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
            warnings: Vec::new(),
            steps: Vec::new(),
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

    pub(super) fn kill_all(&self) -> io::Result<()> {
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

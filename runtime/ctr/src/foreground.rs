//! A terminal, or a script's pipes, joined to a container.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use runtime::shim::Connection;
use runtime::shim::protocol::{Exit, Reply, Request};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::AttachArgs;
use crate::containers::Container;
use crate::definition::Status;
use crate::life::{self, Begun};
use crate::outcome::Failure;
use crate::place::Place;
use crate::terminal::{self, DetachKeys, Raw};

/// Why somebody is no longer attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The keys that leave were typed.
    Detached,
    /// The container has ended, with this code.
    Ended(u8),
}

/// Signals that are the container's, not ours, while we stand for it.
const FORWARDED: &[i32] =
    &[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGALRM];

/// Joins our streams to a container that has just begun, until it ends or the user leaves. For as long as the
/// connection that comes back is held, its shim waits for whoever settles the end.
pub async fn join(
    place: &Place,
    container: &Container,
    begun: Begun,
    keys: DetachKeys,
    interactive: bool,
) -> Result<(Left, Connection)> {
    let Begun { mut events, sockets } = begun;
    let has_terminal = container.definition.terminal;
    let mut sockets = sockets.into_iter();
    let input = if interactive && container.definition.interactive { sockets.next() } else { None };
    let streams = Streams { input, output: sockets.next(), errors: sockets.next() };
    let left = session(place, container, &mut events, streams, has_terminal.then_some(keys)).await?;
    Ok((left, events))
}

/// `ctr attach`.
pub async fn attach(place: &Place, args: &AttachArgs) -> Result<u8, Failure> {
    let keys = DetachKeys::parse(&args.detach_keys)?;
    let container = Container::find(place, &args.container)?;
    match container.status(place)? {
        Status::Running { paused: false, .. } => {}
        Status::Running { .. } => {
            return Err(anyhow::anyhow!("You cannot attach to a paused container, unpause it first").into());
        }
        _ => return Err(anyhow::anyhow!("You cannot attach to a stopped container, start it first").into()),
    }
    let definition = &container.definition;
    let interactive = definition.interactive && !args.no_stdin;
    if interactive && definition.terminal {
        terminal::require()?;
    }
    let events = subscribe(place, container.id()).await?;
    let request = Request::Attach {
        container: container.id().to_owned(),
        stdin: interactive,
        stdout: true,
        stderr: !definition.terminal,
    };
    let mut connection = runtime::shim::connect(&place.pod(container.id()))?;
    let (reply, sockets) = connection.call(&request, Vec::new()).await?;
    if let Reply::Failed { message } = reply {
        return Err(anyhow::anyhow!("{message}").into());
    }
    if let (true, Some(size)) = (definition.terminal, terminal::size()) {
        resize(place, container.id(), size).await?;
    }
    let (left, _waits) = join(place, &container, Begun { events, sockets }, keys, interactive).await?;
    match left {
        Left::Detached => Ok(0),
        Left::Ended(code) => {
            life::settle_in_turn(place, &container).await?;
            Ok(code)
        }
    }
}

/// A connection that tells a container's end; the shim stays for as long as it lasts.
pub async fn subscribe(place: &Place, id: &str) -> Result<Connection> {
    let mut events =
        runtime::shim::connect(&place.pod(id)).context("cannot connect to the container's shim")?;
    events.call(&Request::Subscribe, Vec::new()).await.context("cannot talk to the container's shim")?;
    Ok(events)
}

/// The end of a container; `None` when its shim is gone without a word.
pub async fn end(events: &mut Connection) -> Option<Exit> {
    loop {
        match events.receive().await {
            Ok(Some((Reply::ContainerExited { exit, .. }, _))) => return Some(exit),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

struct Streams {
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    errors: Option<OwnedFd>,
}

async fn session(
    place: &Place,
    container: &Container,
    events: &mut Connection,
    streams: Streams,
    keys: Option<DetachKeys>,
) -> Result<Left> {
    let has_terminal = keys.is_some();
    let raw = if has_terminal && streams.input.is_some() { Some(Raw::enter()?) } else { None };
    let mut signals = signals(FORWARDED)?;
    let mut window = signal(SignalKind::window_change())?;
    let (leave, mut leaving) = mpsc::channel::<()>(1);
    if let Some(socket) = streams.input {
        type_into(File::from(socket), keys, leave.clone());
    }
    let (said, mut silent) = mpsc::channel::<()>(1);
    for (socket, is_error) in [(streams.output, false), (streams.errors, true)] {
        if let Some(socket) = socket {
            pass_on(File::from(socket), is_error, said.clone());
        }
    }
    drop(said);
    let exit = loop {
        tokio::select! {
            exit = end(events) => break exit,
            Some(()) = leaving.recv() => {
                drop(raw);
                eprintln!("read escape sequence");
                return Ok(Left::Detached);
            }
            Some(number) = signals.recv() => {
                let request = Request::Signal { container: container.id().to_owned(), signal: number };
                // One that ends at this moment tells so by itself.
                if let Err(error) = ask(place, container.id(), request).await {
                    tracing::debug!(%error, number, "failed to pass a signal on");
                }
            }
            Some(()) = window.recv(), if has_terminal => {
                if let Some(size) = terminal::size()
                    && let Err(error) = resize(place, container.id(), size).await
                {
                    tracing::debug!(%error, "failed to resize the container's terminal");
                }
            }
        }
    };
    // Both streams end with the container; when each has been written out, nobody can say more.
    while silent.recv().await.is_some() {}
    drop((raw, leave));
    Ok(Left::Ended(match exit {
        Some(exit) => exit.code as u8,
        None => match container.status(place)? {
            Status::Exited(past) => past.exit_code as u8,
            Status::Created | Status::Running { .. } => 255,
        },
    }))
}

/// All these signals in one channel.
fn signals(numbers: &[i32]) -> Result<mpsc::Receiver<i32>> {
    let (sender, receiver) = mpsc::channel(16);
    for &number in numbers {
        let mut signal: Signal = signal(SignalKind::from_raw(number))?;
        let sender = sender.clone();
        tokio::spawn(
            async move { while signal.recv().await.is_some() && sender.send(number).await.is_ok() {} },
        );
    }
    Ok(receiver)
}

/// Passes on what is typed, on a thread of its own: standard input may be a file or a terminal alike.
fn type_into(mut socket: File, mut keys: Option<DetachKeys>, leave: mpsc::Sender<()>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        loop {
            let typed = match io::stdin().lock().read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => return,
                Ok(length) => &buffer[..length],
            };
            let (passed, leaves) = match &mut keys {
                Some(keys) => keys.take(typed),
                None => (typed.to_vec(), false),
            };
            if socket.write_all(&passed).is_err() {
                return;
            }
            if leaves {
                // Whoever listens is gone only when all is over.
                leave.blocking_send(()).ok();
                return;
            }
        }
    });
}

/// Writes out what a container writes; `_said` is dropped at its end.
fn pass_on(mut socket: File, is_error: bool, _said: mpsc::Sender<()>) {
    std::thread::spawn(move || {
        let _said = _said;
        let mut buffer = [0; 32 * 1024];
        loop {
            let length = match socket.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => return,
                Ok(length) => length,
            };
            // A reader that is gone, as in `ctr logs | head`, does not stop the container.
            if is_error {
                io::stderr().write_all(&buffer[..length]).ok();
            } else {
                let mut output = io::stdout().lock();
                output.write_all(&buffer[..length]).and_then(|()| output.flush()).ok();
            }
        }
    });
}

/// Asks a container's shim for something that is answered once.
pub async fn ask(place: &Place, id: &str, request: Request) -> Result<()> {
    let mut connection =
        runtime::shim::connect(&place.pod(id)).context("cannot connect to the container's shim")?;
    match connection.call(&request, Vec::new()).await.context("cannot talk to the container's shim")? {
        (Reply::Failed { message }, _) => Err(anyhow::anyhow!("{message}")),
        _ => Ok(()),
    }
}

/// Tells a container's terminal its size.
pub async fn resize(place: &Place, id: &str, (columns, rows): (u16, u16)) -> Result<()> {
    ask(place, id, Request::Resize { container: id.to_owned(), columns, rows }).await
}

//! `ctr exec`: one more process in a container that runs.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use once::Once;
use runtime::container::Spec;
use runtime::container::capabilities;
use runtime::container::plan::exec_process;
use runtime::container::spec::{Capabilities, Process};
use runtime::container::user::{Wanted, resolve};
use runtime::shim::Connection;
use runtime::shim::protocol::{Reply, Request, read_json};
use runtime::sys::{poll, socket};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::ExecArgs;
use crate::containers::Container;
use crate::definition::Status;
use crate::outcome::{Failure, start_code};
use crate::place::Place;
use crate::request::variable;
use crate::terminal::{self, Raw};

/// `ctr exec`.
pub async fn exec(place: &Place, args: &ExecArgs) -> Result<u8, Failure> {
    if args.tty && args.interactive && !args.detach {
        terminal::require()?;
    }
    let container = Container::find(place, &args.container)?;
    match container.status(place)? {
        Status::Running { paused: false, .. } => {}
        Status::Running { .. } => {
            let message =
                format!("Container {} is paused, unpause the container before exec", container.id());
            return Err(anyhow::anyhow!(message).into());
        }
        _ => return Err(anyhow::anyhow!("Container {} is not running", container.id()).into()),
    }
    let spec: Option<Spec> = read_json(&place.pod(container.id()).container(container.id()).spec())?;
    let spec = spec.context("the container's spec is gone")?;
    let request = Request::Exec {
        container: container.id().to_owned(),
        process: process(place, &container, &spec, args)?,
        detached: args.detach,
    };
    let mut connection =
        runtime::shim::connect(&place.pod(container.id())).context("cannot connect to the shim")?;
    if args.tty {
        in_terminal(&mut connection, &request, args).await
    } else {
        with_pipes(&mut connection, &request, args).await
    }
}

/// As the container's first process, but for what was asked for.
fn process(place: &Place, container: &Container, spec: &Spec, args: &ExecArgs) -> Result<Process> {
    let mut process = exec_process(&spec.process, &args.command, args.tty);
    if let Some(user) = &args.user {
        let image_layers = [place.images()?.snapshot_path(container.id()).join("upper")];
        let layers: Vec<_> = image_layers.into_iter().chain(spec.root.layers.iter().cloned()).collect();
        let read = |path| {
            runtime::read_in_layers(&layers, path)
                .with_context(|| format!("cannot read the container's /{path}"))
        };
        let wanted = Wanted { of_image: user, ..Wanted::default() };
        let resolved = resolve(&wanted, &read("etc/passwd")?, &read("etc/group")?);
        let resolved = resolved.map_err(|error| anyhow::anyhow!("unable to find user {user}: {error}"))?;
        process.user = resolved.user;
        set(&mut process.env, format!("HOME={}", resolved.home));
    }
    for given in &args.env {
        if let Some(entry) = variable(given, &|name| std::env::var(name).ok())? {
            set(&mut process.env, entry);
        }
    }
    if let Some(path) = &args.workdir {
        process.working_directory = path.into();
    }
    if args.privileged {
        process.capabilities = Capabilities { bounding: capabilities::all(), ambient: 0 };
        process.seccomp = None;
    }
    process.terminal_size = if args.tty { terminal::size() } else { None };
    Ok(process)
}

/// A later value replaces an earlier one.
fn set(env: &mut Vec<String>, entry: String) {
    let name = entry.split('=').next().unwrap_or_default().to_owned();
    env.retain(|known| known.split('=').next() != Some(name.as_str()));
    env.push(entry);
}

async fn with_pipes(connection: &mut Connection, request: &Request, args: &ExecArgs) -> Result<u8, Failure> {
    if args.detach {
        let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        begin(connection, request, vec![null()?, null()?, null()?]).await?;
        return Ok(0);
    }
    let (output, their_output) = output_pipe()?;
    let (errors, their_errors) = output_pipe()?;
    let their_input: OwnedFd = if args.interactive {
        let (theirs, ours) = poll::pipe()?;
        type_into(File::from(ours));
        theirs
    } else {
        File::open("/dev/null")?.into()
    };
    begin(connection, request, vec![their_input, their_output, their_errors]).await?;
    let ended = Once::default();
    let (code, output, errors) = tokio::join!(
        wait(connection, &ended),
        pass_on(output, io::stdout(), &ended),
        pass_on(errors, io::stderr(), &ended)
    );
    output.and(errors)?;
    Ok(code?)
}

async fn in_terminal(connection: &mut Connection, request: &Request, args: &ExecArgs) -> Result<u8, Failure> {
    let master = begin(connection, request, Vec::new()).await?.pop().context("no terminal came back")?;
    if args.detach {
        return Ok(0);
    }
    let raw = if args.interactive { Some(Raw::enter()?) } else { None };
    if args.interactive {
        type_into(File::from(master.try_clone()?));
    }
    let window = master.try_clone()?;
    socket::set_nonblocking(&master, true)?;
    let output = pipe::Receiver::from_file_unchecked(File::from(master))?;
    let mut resized = signal(SignalKind::window_change())?;
    let ended = Once::default();
    let resizing = async {
        while resized.recv().await.is_some() {
            if let Some((columns, rows)) = terminal::size()
                && let Err(error) = runtime::sys::terminal::resize(&window, columns, rows)
            {
                tracing::debug!(%error, "failed to resize a terminal");
            }
        }
    };
    let session = async { tokio::join!(wait(connection, &ended), pass_on(output, io::stdout(), &ended)) };
    let (code, delivered) = tokio::select! {
        outcome = session => outcome,
        () = resizing => return Err(anyhow::anyhow!("no signals come any more").into()),
    };
    drop(raw);
    delivered?;
    Ok(code?)
}

async fn begin(
    connection: &mut Connection,
    request: &Request,
    streams: Vec<OwnedFd>,
) -> Result<Vec<OwnedFd>, Failure> {
    match connection.call(request, streams).await.context("cannot talk to the shim")? {
        (Reply::Started(_), descriptors) => Ok(descriptors),
        (Reply::Failed { message }, _) => {
            let code = match start_code(&message) {
                crate::outcome::OURS => 126,
                code => code,
            };
            Err(Failure::new(code, anyhow::anyhow!("OCI runtime exec failed: {message}")))
        }
        (other, _) => Err(anyhow::anyhow!("the shim answered {other:?}").into()),
    }
}

async fn wait(connection: &mut Connection, ended: &Once) -> Result<u8> {
    let reply = connection.receive().await;
    ended.set();
    match reply.context("cannot talk to the shim")? {
        Some((Reply::Exited { code }, _)) => Ok(code as u8),
        Some((Reply::Failed { message }, _)) => Err(anyhow::anyhow!(message)),
        Some((other, _)) => Err(anyhow::anyhow!("the shim answered {other:?}")),
        // With the container ends everything in it.
        None => Ok(137),
    }
}

fn output_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (ours, theirs) = poll::pipe()?;
    socket::set_nonblocking(&ours, true)?;
    Ok((pipe::Receiver::from_owned_fd(ours)?, theirs))
}

/// Writes out what comes, to the end of the stream or the process: those whom it left behind may hold the stream
/// open as long as they like.
async fn pass_on(mut source: pipe::Receiver, mut target: impl Write, ended: &Once) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = tokio::select! {
            biased;
            read = source.read(&mut buffer) => read,
            // Asks the kernel, not the executor, who may not have heard yet that there is something to read.
            () = ended.is_set() => match nix::unistd::read(source.as_fd(), &mut buffer) {
                Err(nix::Error::EAGAIN) => return Ok(()),
                read => read.map_err(io::Error::from),
            },
        };
        match read {
            Ok(0) => return Ok(()),
            // A terminal whose last user is gone.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(()),
            Err(error) => return Err(error),
            // A reader that is gone does not stop the process.
            Ok(length) => {
                target.write_all(&buffer[..length]).and_then(|()| target.flush()).ok();
            }
        }
    }
}

fn type_into(mut target: File) {
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        loop {
            match io::stdin().lock().read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return,
                Ok(length) if target.write_all(&buffer[..length]).is_err() => return,
                Ok(_) => {}
            }
        }
    });
}

mod once {
    //! Something that happens once.

    use tokio::sync::watch;

    /// Whether it has happened.
    pub struct Once(watch::Sender<bool>);

    impl Default for Once {
        fn default() -> Once {
            Once(watch::Sender::new(false))
        }
    }

    impl Once {
        /// Now it has.
        pub fn set(&self) {
            self.0.send_replace(true);
        }

        /// Waits until it has.
        pub async fn is_set(&self) {
            // The sender lives as long as this borrow of it.
            self.0.subscribe().wait_for(|is_set| *is_set).await.map(drop).unwrap_or_default();
        }
    }
}

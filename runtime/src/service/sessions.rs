//! Sessions with running containers: exec, attach, port-forward.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cri::{Code, Error, v1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::containers::KILL_PATIENCE;
use super::state::{Container, ContainerState, Sandbox};
use crate::container::Spec;
use crate::container::plan::exec_process;
use crate::shim::Connection;
use crate::shim::protocol::{Reply, Request, read_json};
use crate::streaming::{self, Backend, BackendError, Streams, TerminalSize};
use crate::sys::{poll, process, socket, terminal};

/// What an answer to ExecSync may hold of each stream; containerd's limit.
const MOST_OUTPUT: usize = 16 << 20;

/// A process started in a container. When it is dropped, the process is killed.
struct Exec {
    connection: Connection,
    /// The process; none if it ended before we looked.
    process: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

impl Shared {
    async fn start_exec(
        &self,
        container: &Container,
        command: &[String],
        terminal: bool,
        streams: Vec<OwnedFd>,
    ) -> io::Result<Exec> {
        let spec: Option<Spec> = read_json(&container.directory.spec())?;
        let spec = spec.ok_or_else(|| io::Error::other("the container's spec is gone"))?;
        let request = Request::Exec {
            container: container.id.clone(),
            process: exec_process(&spec.process, command, terminal),
            detached: false,
        };
        match container.sandbox.ask(&request, streams).await? {
            (connection, Reply::Started(started), mut descriptors) => {
                let process = process::pidfd_open(started.pid).ok();
                Ok(Exec { connection, process, terminal: descriptors.pop() })
            }
            (_, Reply::Failed { message }, _) => Err(io::Error::other(message)),
            (_, other, _) => Err(io::Error::other(format!("the pod's shim answered {other:?}"))),
        }
    }

    /// Runs a command in a container and collects what it writes.
    pub(super) async fn exec_sync(
        &self,
        request: v1::ExecSyncRequest,
    ) -> Result<v1::ExecSyncResponse, Error> {
        let container = self.find_container(&request.container_id)?;
        if !container.is_running() {
            let state = container_state_name(&container);
            return Err(Error::failed_precondition(format!(
                "failed to exec in container: container is in {state} state"
            )));
        }
        let failed = |error: io::Error| Error::unknown(format!("failed to exec in container: {error}"));
        let (stdout, their_stdout) = output_pipe().map_err(failed)?;
        let (stderr, their_stderr) = output_pipe().map_err(failed)?;
        let stdin = File::open("/dev/null").map_err(failed)?.into();
        let streams = vec![stdin, their_stdout, their_stderr];
        let mut exec = self.start_exec(&container, &request.cmd, false, streams).await.map_err(failed)?;
        let run = run_to_end(&mut exec, stdout, stderr);
        if request.timeout <= 0 {
            return run.await.map_err(failed);
        }
        let limit = Duration::from_secs(request.timeout as u64);
        match tokio::time::timeout(limit, run).await {
            Ok(ended) => ended.map_err(failed),
            Err(_) => {
                exec.kill().await.map_err(failed)?;
                let message = format!(
                    "failed to exec in container: timeout {}s exceeded: context deadline exceeded",
                    request.timeout
                );
                Err(Error::new(Code::DeadlineExceeded, message))
            }
        }
    }

    fn running_container(&self, id: &str) -> Result<Arc<Container>, BackendError> {
        let not_running = || BackendError::NotRunning { what: format!("container {id}") };
        let container = self.find_container(id).map_err(|_| not_running())?;
        if container.is_running() { Ok(container) } else { Err(not_running()) }
    }

    fn running_sandbox(&self, id: &str) -> Result<Arc<Sandbox>, BackendError> {
        let not_running = || BackendError::NotRunning { what: format!("sandbox {id}") };
        let sandbox = self.find_sandbox(id).map_err(|_| not_running())?;
        if sandbox.is_ready() { Ok(sandbox) } else { Err(not_running()) }
    }

    async fn exec_in_terminal(
        &self,
        container: &Container,
        command: &[String],
        streams: Streams,
    ) -> io::Result<i32> {
        let Streams { stdin, stdout, stderr: _, mut resize } = streams;
        // The first size is known before the program asks for it.
        let mut exec = self.start_exec(container, command, true, Vec::new()).await?;
        let master = exec.terminal.take().ok_or_else(|| io::Error::other("no terminal came back"))?;
        socket::set_nonblocking(&master, true)?;
        let window = master.try_clone()?;
        let input = pipe::Sender::from_file_unchecked(File::from(master.try_clone()?))?;
        let output = pipe::Receiver::from_file_unchecked(File::from(master))?;
        let ended = CancellationToken::new();
        let wait = async {
            let code = exec.wait().await;
            ended.cancel();
            code
        };
        let typing = async {
            if let Some(mut stdin) = stdin {
                // The end of what is typed does not end a terminal session; its owner does.
                copy(&mut *stdin, input, Finish::Keep).await;
            }
        };
        let resizing = resize_with(&mut resize, |size| terminal::resize(&window, size.width, size.height));
        let session = async { tokio::join!(wait, pump_to(output, stdout, &ended)) };
        until_done(session, typing, resizing).await
    }

    async fn exec_with_pipes(
        &self,
        container: &Container,
        command: &[String],
        streams: Streams,
    ) -> io::Result<i32> {
        let Streams { stdin, stdout, stderr, resize: _ } = streams;
        let (output, their_stdout) = output_pipe()?;
        let (errors, their_stderr) = output_pipe()?;
        let (their_stdin, input) = match &stdin {
            Some(_) => {
                let (theirs, ours) = poll::pipe()?;
                socket::set_nonblocking(&ours, true)?;
                (theirs, Some(pipe::Sender::from_owned_fd(ours)?))
            }
            None => (File::open("/dev/null")?.into(), None),
        };
        let given = vec![their_stdin, their_stdout, their_stderr];
        let mut exec = self.start_exec(container, command, false, given).await?;
        let ended = CancellationToken::new();
        let wait = async {
            let code = exec.wait().await;
            ended.cancel();
            code
        };
        let typing = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                copy(&mut *stdin, input, Finish::Drop).await;
            }
        };
        let session = async {
            let (code, out, err) =
                tokio::join!(wait, pump_to(output, stdout, &ended), pump_to(errors, stderr, &ended));
            (code, out.and(err))
        };
        until_done(session, typing, std::future::pending()).await
    }
}

/// What a client's session needs of the runtime.
pub(super) struct Sessions(pub(super) Arc<Shared>);

#[async_trait]
impl Backend for Sessions {
    async fn exec(
        &self,
        container_id: &str,
        command: &[String],
        tty: bool,
        streams: Streams,
    ) -> Result<i32, BackendError> {
        let container = self.0.running_container(container_id)?;
        let code = if tty {
            self.0.exec_in_terminal(&container, command, streams).await
        } else {
            self.0.exec_with_pipes(&container, command, streams).await
        };
        code.map_err(|error| failed("exec in container".to_owned(), error))
    }

    async fn attach(&self, container_id: &str, tty: bool, streams: Streams) -> Result<(), BackendError> {
        let container = self.0.running_container(container_id)?;
        let Streams { stdin, stdout, stderr, mut resize } = streams;
        let request = Request::Attach {
            container: container.id.clone(),
            stdin: stdin.is_some(),
            stdout: stdout.is_some(),
            stderr: stderr.is_some() && !tty,
        };
        let attach = async {
            let (_, reply, sockets) = container.sandbox.ask(&request, Vec::new()).await?;
            match reply {
                Reply::Done => Ok(sockets),
                Reply::Failed { message } => Err(io::Error::other(message)),
                other => Err(io::Error::other(format!("the pod's shim answered {other:?}"))),
            }
        };
        let sockets: io::Result<Vec<OwnedFd>> = attach.await;
        let mut sockets = sockets.map_err(|error| failed("attach".to_owned(), error))?.into_iter();
        let mut next = |wanted: bool| wanted.then(|| sockets.next()).flatten().map(stream).transpose();
        let connect = |error| failed("attach".to_owned(), error);
        let input = next(stdin.is_some()).map_err(connect)?;
        let output = next(stdout.is_some()).map_err(connect)?;
        let errors = next(stderr.is_some() && !tty).map_err(connect)?;

        let typing = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                copy(&mut *stdin, input, Finish::Drop).await;
            }
        };
        let shared = &self.0;
        let resizing = async {
            while let Some(TerminalSize { width, height }) = resize.recv().await {
                let request =
                    Request::Resize { container: container.id.clone(), columns: width, rows: height };
                if let Err(error) = shared.ask(&container.sandbox, request).await {
                    tracing::debug!(%error, "failed to resize a terminal");
                }
            }
            std::future::pending::<()>().await
        };
        // Both outputs end with the container; a session without any ends with it too.
        let session = async {
            let mut state = container.state.subscribe();
            let ended = async {
                state.wait_for(|state| matches!(state, ContainerState::Exited { .. })).await.map(drop).ok();
            };
            let nothing_to_read = output.is_none() && errors.is_none();
            let out = copy_all(output, stdout);
            let err = copy_all(errors, stderr);
            if nothing_to_read {
                ended.await;
            } else {
                tokio::join!(out, err);
            }
        };
        tokio::select! {
            () = session => {}
            () = async { tokio::join!(typing, resizing); } => {}
        }
        Ok(())
    }

    async fn port_forward(
        &self,
        sandbox_id: &str,
        port: u16,
    ) -> Result<Box<dyn streaming::Connection>, BackendError> {
        let sandbox = self.0.running_sandbox(sandbox_id)?;
        let connect = async {
            let socket = match sandbox.ask(&Request::Connect { port }, Vec::new()).await? {
                (_, Reply::Done, mut sockets) => sockets.pop(),
                (_, Reply::Failed { message }, _) => return Err(io::Error::other(message)),
                _ => None,
            };
            let socket = socket.ok_or_else(|| io::Error::other("the pod's shim sent no socket"))?;
            let stream = TcpStream::from_std(socket.into())?;
            stream.writable().await?;
            match stream.take_error()? {
                Some(error) => Err(error),
                None => Ok(stream),
            }
        };
        let stream: io::Result<TcpStream> = connect.await;
        match stream {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => {
                Err(failed(format!("connect to localhost:{port} inside sandbox {}", sandbox.id), error))
            }
        }
    }
}

/// Collects what a process writes until it has ended.
async fn run_to_end(
    exec: &mut Exec,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
) -> io::Result<v1::ExecSyncResponse> {
    let ended = CancellationToken::new();
    let (mut stdout_bytes, mut stderr_bytes) = (Collected::default(), Collected::default());
    let wait = async {
        let code = exec.wait().await;
        ended.cancel();
        code
    };
    let (code, out, err) =
        tokio::join!(wait, pump(stdout, &mut stdout_bytes, &ended), pump(stderr, &mut stderr_bytes, &ended));
    out.and(err)?;
    Ok(v1::ExecSyncResponse { stdout: stdout_bytes.0, stderr: stderr_bytes.0, exit_code: code? })
}

impl Exec {
    /// Ends the process, and waits until it is gone: whoever hears of a timeout may look.
    async fn kill(&mut self) -> io::Result<()> {
        if let Some(process) = &self.process
            && let Err(error) = process::pidfd_signal(process, libc::SIGKILL)
            && error.raw_os_error() != Some(libc::ESRCH)
        {
            return Err(error);
        }
        match tokio::time::timeout(KILL_PATIENCE, self.wait()).await {
            Ok(ended) => ended.map(drop),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the killed process does not end")),
        }
    }

    /// The code with which it ends.
    async fn wait(&mut self) -> io::Result<i32> {
        match self.connection.receive().await? {
            Some((Reply::Exited { code }, _)) => Ok(code),
            Some((Reply::Failed { message }, _)) => Err(io::Error::other(message)),
            Some((other, _)) => Err(io::Error::other(format!("the pod's shim answered {other:?}"))),
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the pod's shim is gone")),
        }
    }
}

fn failed(what: String, error: io::Error) -> BackendError {
    BackendError::Failed { what, source: Box::new(error) }
}

fn container_state_name(container: &Container) -> &'static str {
    match container.state() {
        ContainerState::Created => "CONTAINER_CREATED",
        ContainerState::Running(_) => "CONTAINER_RUNNING",
        ContainerState::Exited { .. } => "CONTAINER_EXITED",
    }
}

fn output_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (ours, theirs) = poll::pipe()?;
    socket::set_nonblocking(&ours, true)?;
    Ok((pipe::Receiver::from_owned_fd(ours)?, theirs))
}

fn stream(socket: OwnedFd) -> io::Result<UnixStream> {
    socket::set_nonblocking(&socket, true)?;
    UnixStream::from_std(socket.into())
}

/// Output kept in memory; what is too much is dropped.
#[derive(Default)]
struct Collected(Vec<u8>);

impl Collected {
    fn take(&mut self, bytes: &[u8]) {
        let room = MOST_OUTPUT - self.0.len();
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

async fn pump(
    source: pipe::Receiver,
    collected: &mut Collected,
    ended: &CancellationToken,
) -> io::Result<()> {
    let mut source = source;
    let mut buffer = [0; 8192];
    while let Some(length) = read(&mut source, &mut buffer, ended).await? {
        collected.take(&buffer[..length]);
    }
    Ok(())
}

/// Without a target the output is read all the same, or the process would wait for ever.
async fn pump_to(
    mut source: pipe::Receiver,
    mut target: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    ended: &CancellationToken,
) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    while let Some(length) = read(&mut source, &mut buffer, ended).await? {
        if let Some(target) = &mut target {
            target.write_all(&buffer[..length]).await?;
            target.flush().await?;
        }
    }
    Ok(())
}

/// Reads once; `None` at the end, or when the process has ended and nothing is left of what it wrote. Those
/// whom it left behind may hold the stream open as long as they like.
async fn read(
    source: &mut pipe::Receiver,
    buffer: &mut [u8],
    ended: &CancellationToken,
) -> io::Result<Option<usize>> {
    let read = tokio::select! {
        biased;
        read = source.read(buffer) => read,
        // Asks the kernel, not the executor, who may not have heard yet that there is something to read.
        () = ended.cancelled() => match nix::unistd::read(source.as_fd(), buffer) {
            Err(nix::Error::EAGAIN) => return Ok(None),
            read => read.map_err(io::Error::from),
        },
    };
    match read {
        Ok(0) => Ok(None),
        Ok(length) => Ok(Some(length)),
        // A terminal whose last user is gone.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What becomes of the input when its client has nothing more to say.
enum Finish {
    Drop,
    Keep,
}

/// Passes on what a client types. That the other side no longer reads is its own affair.
async fn copy(
    source: &mut (impl AsyncRead + Unpin + ?Sized),
    mut target: impl AsyncWrite + Unpin,
    finish: Finish,
) {
    let mut buffer = [0; 8192];
    while let Ok(length) = source.read(&mut buffer).await
        && length > 0
    {
        if target.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    if matches!(finish, Finish::Drop) {
        drop(target);
    }
    std::future::pending::<()>().await
}

async fn copy_all(source: Option<UnixStream>, target: Option<Box<dyn AsyncWrite + Send + Unpin>>) {
    let (Some(mut source), Some(mut target)) = (source, target) else { return };
    let mut buffer = [0; 16 * 1024];
    while let Ok(length) = source.read(&mut buffer).await
        && length > 0
    {
        if target.write_all(&buffer[..length]).await.is_err() || target.flush().await.is_err() {
            return;
        }
    }
}

async fn resize_with(
    sizes: &mut mpsc::Receiver<TerminalSize>,
    resize: impl Fn(TerminalSize) -> io::Result<()>,
) {
    while let Some(size) = sizes.recv().await {
        if let Err(error) = resize(size) {
            tracing::debug!(%error, "failed to resize a terminal");
        }
    }
    std::future::pending::<()>().await
}

/// The session is over when its process is and its output is delivered; the others never end by themselves.
async fn until_done(
    session: impl Future<Output = (io::Result<i32>, io::Result<()>)>,
    typing: impl Future<Output = ()>,
    resizing: impl Future<Output = ()>,
) -> io::Result<i32> {
    tokio::select! {
        (code, delivered) = session => {
            delivered?;
            code
        }
        () = async { tokio::join!(typing, resizing); } => Err(io::Error::other("the session ended without its process")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn the_last_words_of_a_process_are_read_though_its_end_was_heard_first() {
        let (mut source, sink) = output_pipe().unwrap();
        let ended = CancellationToken::new();
        // Both happen before the executor looks at the pipe.
        let mut sink = File::from(sink);
        sink.write_all(b"last words").unwrap();
        ended.cancel();
        let mut buffer = [0; 64];
        let length = read(&mut source, &mut buffer, &ended).await.unwrap();
        assert_eq!(&buffer[..length.unwrap()], b"last words");
        assert_eq!(read(&mut source, &mut buffer, &ended).await.unwrap(), None);
    }
}

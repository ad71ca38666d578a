//! Exec and attach: a command's streams, whichever protocol carries them.

use std::{future::pending, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use super::{
    AttachRequest, ExecRequest,
    backend::{Backend, Streams, TerminalSize},
    pipe::{Reader, Writer},
    spdy::{self, Stream},
    status::Outcome,
    websocket,
};

/// How long a client may take to open its streams; as upstream.
const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(30);

/// How many sizes of a terminal may wait.
const SIZES: usize = 8;

/// The longest text that can still be a terminal's size.
const LONGEST_SIZE: usize = 1024;

/// What to connect a client to.
pub(super) enum Session {
    Exec(ExecRequest),
    Attach(AttachRequest),
}

/// Which streams a session has.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

impl Session {
    pub fn wanted(&self) -> Wanted {
        let (tty, stdin, stdout, stderr) = match self {
            Session::Exec(ExecRequest { tty, stdin, stdout, stderr, .. })
            | Session::Attach(AttachRequest { tty, stdin, stdout, stderr, .. }) => {
                (*tty, *stdin, *stdout, *stderr)
            }
        };
        // A terminal has one output.
        Wanted { tty, stdin, stdout, stderr: stderr && !tty }
    }

    async fn run(&self, backend: &dyn Backend, streams: Streams) -> Outcome {
        match self {
            Session::Exec(ExecRequest { container_id, command, tty, .. }) => {
                match backend.exec(container_id, command, *tty, streams).await {
                    Ok(code) => Outcome::Exited(code),
                    Err(error) => Outcome::Failed("error executing command in container", error),
                }
            }
            Session::Attach(AttachRequest { container_id, tty, .. }) => {
                match backend.attach(container_id, *tty, streams).await {
                    Ok(()) => Outcome::Detached,
                    Err(error) => Outcome::Failed("error attaching to container", error),
                }
            }
        }
    }
}

/// The version of the protocol for exec and attach, as far as it makes a difference here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub u8);

impl Version {
    /// How a session's end is told.
    fn farewell(self, outcome: &Outcome) -> bytes::Bytes {
        if self >= Version(4) { outcome.to_status() } else { outcome.to_text() }
    }

    fn has_resize(self) -> bool {
        self >= Version(3)
    }
}

/// Serves a session over SPDY.
pub(super) async fn serve_spdy(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
    session: Session,
    version: Version,
    backend: Arc<dyn Backend>,
) {
    let mut connection = spdy::Connection::start(io);
    let wanted = session.wanted();
    let names = [
        ("error", true),
        ("stdin", wanted.stdin),
        ("stdout", wanted.stdout),
        ("stderr", wanted.stderr),
        ("resize", wanted.tty && version.has_resize()),
    ];
    let names: Vec<&str> = names.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect();
    let collected = tokio::time::timeout(STREAM_CREATION_TIMEOUT, collect(&mut connection, &names)).await;
    let Ok(Some(mut streams)) = collected else {
        tracing::debug!("a streaming client did not open its streams");
        return;
    };
    let mut take = |name| {
        let at = streams.iter().position(|(found, _)| *found == name)?;
        Some(streams.swap_remove(at).1)
    };
    let (stdin, stdout, stderr, resize) = (take("stdin"), take("stdout"), take("stderr"), take("resize"));
    let error = take("error").expect("it has been collected");
    let ends = [&stdin, &stdout, &stderr, &resize].into_iter().flatten().map(Stream::end);
    let farewell: Vec<_> = ends.chain([error.end()]).collect();
    let ends = Ends {
        stdin: stdin.map(|stream| stream.reader),
        stdout: stdout.map(|stream| stream.writer),
        stderr: stderr.map(|stream| stream.writer),
        resize: resize.map(|stream| stream.reader),
    };
    let Some(outcome) = run(&session, &*backend, ends, connection.gone()).await else { return };
    tell(error.writer, version, &outcome).await;
    drop(error.reader);
    connection.finish(farewell).await;
}

/// The streams with these names, once the client has opened them all.
async fn collect<'a>(connection: &mut spdy::Connection, names: &[&'a str]) -> Option<Vec<(&'a str, Stream)>> {
    let mut streams: Vec<(&str, Stream)> = Vec::new();
    while streams.len() < names.len() {
        let stream = connection.accept().await?;
        let kind = stream.headers.get("streamtype").map(String::as_str);
        let wanted = names.iter().find(|name| Some(**name) == kind);
        if let Some(name) = wanted
            && !streams.iter().any(|(found, _)| found == name)
        {
            streams.push((name, stream));
        }
    }
    Some(streams)
}

/// The numbers that the channels have over WebSocket.
mod channel {
    pub const STDIN: u8 = 0;
    pub const STDOUT: u8 = 1;
    pub const STDERR: u8 = 2;
    pub const ERROR: u8 = 3;
    pub const RESIZE: u8 = 4;
}

/// Serves a session over WebSocket.
pub(super) async fn serve_websocket(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
    session: Session,
    version: Version,
    encoding: websocket::Encoding,
    backend: Arc<dyn Backend>,
) {
    let wanted = session.wanted();
    let from_client = [channel::STDIN, channel::RESIZE];
    let mut connection = websocket::Connection::start(io, &from_client, encoding);
    let outputs =
        [(wanted.stdout, channel::STDOUT), (wanted.stderr, channel::STDERR), (true, channel::ERROR)];
    if let Some((_, lowest)) = outputs.into_iter().find(|(wanted, _)| *wanted) {
        connection.greet(lowest).await;
    }
    let ends = Ends {
        stdin: connection.reader(channel::STDIN).filter(|_| wanted.stdin),
        stdout: wanted.stdout.then(|| connection.writer(channel::STDOUT)),
        stderr: wanted.stderr.then(|| connection.writer(channel::STDERR)),
        resize: connection.reader(channel::RESIZE).filter(|_| wanted.tty),
    };
    let Some(outcome) = run(&session, &*backend, ends, connection.gone()).await else { return };
    tell(connection.writer(channel::ERROR), version, &outcome).await;
    connection.finish().await;
}

/// The session's ends of the streams.
struct Ends {
    stdin: Option<Reader>,
    stdout: Option<Writer>,
    stderr: Option<Writer>,
    resize: Option<Reader>,
}

/// How the session ended; none if the client left it.
async fn run(
    session: &Session,
    backend: &dyn Backend,
    ends: Ends,
    gone: impl Future<Output = ()>,
) -> Option<Outcome> {
    let (sizes, resize) = mpsc::channel(SIZES);
    let streams = Streams {
        stdin: ends.stdin.map(|reader| Box::new(reader) as _),
        stdout: ends.stdout.map(|writer| Box::new(writer) as _),
        stderr: ends.stderr.map(|writer| Box::new(writer) as _),
        resize,
    };
    let resizing = async {
        if let Some(reader) = ends.resize {
            forward_sizes(reader, &sizes).await;
        }
        pending::<()>().await;
    };
    tokio::select! {
        outcome = session.run(backend, streams) => Some(outcome),
        () = resizing => None,
        () = gone => None,
    }
}

/// Reads the sizes that a client sends, one JSON object after the other.
async fn forward_sizes(mut reader: impl AsyncRead + Unpin, sizes: &mpsc::Sender<TerminalSize>) {
    let mut buffer = BytesMut::new();
    while buffer.len() < LONGEST_SIZE && reader.read_buf(&mut buffer).await.is_ok_and(|length| length > 0) {
        let mut objects = serde_json::Deserializer::from_slice(&buffer).into_iter::<TerminalSize>();
        let mut complete = Vec::new();
        let mut understood = 0;
        while let Some(object) = objects.next() {
            match object {
                Ok(size) => complete.push(size),
                Err(error) if error.is_eof() => break,
                Err(_) => return,
            }
            understood = objects.byte_offset();
        }
        let rest = buffer.split_off(understood);
        buffer = rest;
        for size in complete {
            if sizes.send(size).await.is_err() {
                return;
            }
        }
    }
}

async fn tell(mut writer: Writer, version: Version, outcome: &Outcome) {
    if let Err(error) = writer.write_all(&version.farewell(outcome)).await {
        tracing::debug!(%error, "the client left before it learnt how its session ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sizes_are_read_however_they_arrive() {
        let text = br#"{"Width":80,"Height":24}{"Width":100,"Height":50} {"Width":1,"Height":2,"Other":3}"#;
        for step in [1, 7, 30, 1000] {
            let (mut client, server) = tokio::io::duplex(step);
            let (sender, mut sizes) = mpsc::channel(8);
            let writing = async {
                client.write_all(text).await.unwrap();
                drop(client);
            };
            tokio::join!(writing, forward_sizes(server, &sender));
            let read: Vec<_> =
                (0..3).map(|_| sizes.try_recv().unwrap()).map(|size| (size.width, size.height)).collect();
            assert_eq!(read, [(80, 24), (100, 50), (1, 2)]);
        }
    }
}

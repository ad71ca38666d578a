//! Port-forward: for each connection that the client has accepted, a pair of streams, one for its
//! bytes and one on which to tell what went wrong.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy},
    task::JoinSet,
    time::Instant,
};

use super::{
    PortForwardRequest,
    backend::Backend,
    pipe::{Reader, Writer},
    spdy::{Connection, Stream},
};

/// How long the second stream of a pair may be missing; as upstream.
const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(30);

/// The halves of pairs whose other halves have not come yet.
#[derive(Default)]
struct Incomplete(HashMap<String, (Stream, Instant)>);

/// Two streams that belong together.
struct Pair {
    port: String,
    data: Stream,
    error: Stream,
}

/// Serves a client until it leaves.
pub(super) async fn serve(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
    request: PortForwardRequest,
    backend: Arc<dyn Backend>,
) {
    let mut connection = Connection::start(io);
    let mut incomplete = Incomplete::default();
    // When the client is gone and this is dropped, so is what it was connected to.
    let mut forwards = JoinSet::new();
    while let Some(stream) = connection.accept().await {
        while forwards.try_join_next().is_some() {}
        incomplete.forget_abandoned(Instant::now());
        if let Some(pair) = incomplete.add(stream, Instant::now()) {
            forwards.spawn(forward(pair, request.sandbox_id.clone(), backend.clone()));
        }
    }
}

impl Incomplete {
    /// The pair, if `stream` completes one.
    fn add(&mut self, stream: Stream, now: Instant) -> Option<Pair> {
        let id = request_id(&stream);
        match self.0.remove(&id) {
            Some((other, _)) if is_error(&other) != is_error(&stream) => {
                let (error, data) = if is_error(&stream) { (stream, other) } else { (other, stream) };
                Some(Pair { port: header(&data, "port"), data, error })
            }
            _ => {
                self.0.insert(id, (stream, now));
                None
            }
        }
    }

    fn forget_abandoned(&mut self, now: Instant) {
        self.0.retain(|_, (_, since)| now.duration_since(*since) < STREAM_CREATION_TIMEOUT);
    }
}

fn header(stream: &Stream, name: &str) -> String {
    stream.headers.get(name).cloned().unwrap_or_default()
}

fn is_error(stream: &Stream) -> bool {
    header(stream, "streamtype") == "error"
}

/// Clients that send no identifier open one pair for each port at a time.
fn request_id(stream: &Stream) -> String {
    match header(stream, "requestid") {
        id if id.is_empty() => format!("port {}", header(stream, "port")),
        id => id,
    }
}

/// Connects one pair, until both directions have ended.
async fn forward(pair: Pair, sandbox_id: String, backend: Arc<dyn Backend>) {
    let Pair { port, data, error } = pair;
    let (mut reader, mut writer, mut errors) = (data.reader, data.writer, error.writer);
    if let Err(reason) = connect(&port, &sandbox_id, &*backend, &mut reader, &mut writer).await {
        let text = format!("error forwarding port {port} to pod {sandbox_id}: {reason}");
        if let Err(error) = errors.write_all(text.as_bytes()).await {
            tracing::debug!(%error, text, "the client left before it learnt what failed");
        }
    }
    // A client that is gone already needs no ends.
    writer.shutdown().await.ok();
    errors.shutdown().await.ok();
}

/// Connects to a port and passes on both directions until they have ended.
pub(super) async fn connect(
    port: &str,
    sandbox_id: &str,
    backend: &dyn Backend,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let port =
        port.parse().ok().filter(|port| *port != 0).ok_or("the port is not a number from 1 to 65535")?;
    let connection = backend.port_forward(sandbox_id, port).await?;
    let (mut from_pod, mut to_pod) = tokio::io::split(connection);
    let upstream = async {
        // A pod that does not take what is sent may still answer.
        copy(reader, &mut to_pod).await.ok();
        to_pod.shutdown().await.ok();
    };
    let downstream = async {
        let copied = copy(&mut from_pod, writer).await;
        writer.shutdown().await.ok();
        copied
    };
    // When the pod has ended its side there is nothing left to say to it.
    tokio::select! {
        copied = downstream => copied.map(drop).map_err(Into::into),
        copied = async { upstream.await; std::future::pending().await } => copied,
    }
}

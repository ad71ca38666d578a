//! The streaming server of the CRI: exec, attach and port-forward.
//!
//! The CRI answers a request for one of these with a URL of this server, on loopback, good for one
//! connection. A client (the kubelet, which passes on what kubectl sends) redeems it with an HTTP/1.1
//! Upgrade to SPDY/3.1 or WebSocket. [`handshake`] finds the protocol, [`session`], [`port_forward`]
//! and [`port_channels`] serve it; what they do is left to a [`Backend`].

mod backend;
mod handshake;
mod idle;
mod link;
mod pipe;
mod port_channels;
mod port_forward;
mod session;
mod spdy;
mod status;
#[cfg(test)]
mod tests;
mod tokens;
mod websocket;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use daemon::listen;
use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    backend::{Backend, BackendError, Connection, Streams, TerminalSize},
    tokens::TooManyRequests,
};
use self::{
    handshake::{Agreement, Kind, Transport, agree, refusal},
    idle::Attended,
    session::Session,
    tokens::Tokens,
};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::{spdy::fuzz as fuzz_spdy, websocket::fuzz as fuzz_websocket};

/// How long a connection may be silent before it ends; as upstream's kubelet has it.
const IDLE: Duration = Duration::from_secs(4 * 60 * 60);

/// What a client will be connected to when it redeems the URL made for this request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// The container to run in.
    pub container_id: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Whether the command gets a terminal.
    pub tty: bool,
    /// Whether the client sends input.
    pub stdin: bool,
    /// Whether the client wants the standard output.
    pub stdout: bool,
    /// Whether the client wants the standard error; not together with `tty`.
    pub stderr: bool,
}

/// As [`ExecRequest`], for the main process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// The container to attach to.
    pub container_id: String,
    /// Whether the container's main process has a terminal.
    pub tty: bool,
    /// Whether the client sends input.
    pub stdin: bool,
    /// Whether the client wants the standard output.
    pub stdout: bool,
    /// Whether the client wants the standard error; not together with `tty`.
    pub stderr: bool,
}

/// As [`ExecRequest`], for the ports of a sandbox. Most clients say which ports when they are connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortForwardRequest {
    /// The sandbox to connect to.
    pub sandbox_id: String,
    /// The ports, for clients of the old protocol, which do not name them.
    pub ports: Vec<u16>,
}

/// The server. It serves until its token is cancelled.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    connections: TaskTracker,
}

struct Shared {
    backend: Arc<dyn Backend>,
    tokens: Mutex<Tokens<Requested>>,
    stop: CancellationToken,
}

enum Requested {
    Session(Session),
    PortForward(PortForwardRequest),
}

impl Server {
    /// Listens at `address`, where port 0 is any free one.
    pub async fn start(
        address: SocketAddr,
        backend: Arc<dyn Backend>,
        stop: CancellationToken,
    ) -> io::Result<Server> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { backend, tokens: Mutex::new(Tokens::new()), stop });
        let connections = TaskTracker::new();
        connections.spawn(accept(listener, shared.clone(), connections.clone()));
        Ok(Server { address, shared, connections })
    }

    /// A URL for running a command.
    pub fn exec(&self, request: ExecRequest) -> Result<String, TooManyRequests> {
        self.url("exec", Requested::Session(Session::Exec(request)))
    }

    /// A URL for attaching to a container.
    pub fn attach(&self, request: AttachRequest) -> Result<String, TooManyRequests> {
        self.url("attach", Requested::Session(Session::Attach(request)))
    }

    /// A URL for connections to a sandbox's ports.
    pub fn port_forward(&self, request: PortForwardRequest) -> Result<String, TooManyRequests> {
        self.url("portforward", Requested::PortForward(request))
    }

    /// Waits until everything has ended after the token was cancelled.
    pub async fn stopped(&self) {
        self.shared.stop.cancelled().await;
        self.connections.close();
        self.connections.wait().await;
    }

    fn url(&self, path: &str, request: Requested) -> Result<String, TooManyRequests> {
        let token = uuid::Uuid::new_v4().simple().to_string();
        self.shared.tokens().issue(token.clone(), request, Instant::now())?;
        Ok(format!("http://{}/{path}/{token}", self.address))
    }
}

impl Shared {
    fn tokens(&self) -> std::sync::MutexGuard<'_, Tokens<Requested>> {
        // Nothing that holds the lock can leave it half changed.
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, connections: TaskTracker) {
    loop {
        tokio::select! {
            (stream, _) = listen::accept(&listener) => {
                connections.spawn(serve_connection(stream, shared.clone(), connections.clone()));
            }
            () = shared.stop.cancelled() => return,
        }
    }
}

async fn serve_connection(stream: TcpStream, shared: Arc<Shared>, connections: TaskTracker) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a streaming connection will be slow");
    }
    let stop = shared.stop.clone();
    let service = service_fn(|request| {
        let response = answer(request, &shared, &connections);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let result = tokio::select! {
        result = connection.with_upgrades() => result,
        () = stop.cancelled() => return,
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a streaming client failed before its connection was upgraded");
    }
}

/// Upgrades a connection whose URL is good, and starts what the URL stands for.
fn answer(
    mut request: Request<Incoming>,
    shared: &Arc<Shared>,
    connections: &TaskTracker,
) -> Response<String> {
    let path = request.uri().path();
    let (kind, token) = match path.trim_start_matches('/').split_once('/') {
        Some(("exec" | "attach", token)) => (Kind::Session, token),
        Some(("portforward", token)) => (Kind::PortForward, token),
        _ => return *refusal(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    };
    let token = token.to_owned();
    // A client that cannot be served has not used its token up.
    let agreement = match agree(&request, kind) {
        Ok(agreement) => agreement,
        Err(refusal) => return *refusal,
    };
    let Some(requested) = shared.tokens().redeem(&token, Instant::now()) else {
        return *refusal(StatusCode::NOT_FOUND, "404 page not found\n".to_owned());
    };
    let response = agreement.response();
    let upgrade = hyper::upgrade::on(&mut request);
    let (backend, stop) = (shared.backend.clone(), shared.stop.clone());
    connections.spawn(async move {
        tokio::select! {
            () = serve(upgrade, agreement, requested, backend) => {}
            () = stop.cancelled() => {}
        }
    });
    response
}

async fn serve(upgrade: OnUpgrade, agreement: Agreement, requested: Requested, backend: Arc<dyn Backend>) {
    let io = match upgrade.await {
        Ok(upgraded) => TokioIo::new(upgraded),
        Err(error) => return tracing::debug!(%error, "a streaming client left while it was being connected"),
    };
    let io = Attended::new(io, IDLE);
    let Agreement { transport, version, encoding, .. } = agreement;
    match (requested, transport) {
        (Requested::Session(session), Transport::Spdy) => {
            session::serve_spdy(io, session, version, backend).await
        }
        (Requested::Session(session), _) => {
            session::serve_websocket(io, session, version, encoding, backend).await
        }
        (Requested::PortForward(request), Transport::Spdy) => port_forward::serve(io, request, backend).await,
        (Requested::PortForward(request), Transport::WebSocket) => {
            port_channels::serve(io, request, encoding, backend).await
        }
        (Requested::PortForward(request), Transport::SpdyInWebSocket) => {
            let (inside, carry) = websocket::tunnel(io);
            tokio::join!(port_forward::serve(inside, request, backend), carry);
        }
    }
}

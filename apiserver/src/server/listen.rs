//! The server on the network: TLS, HTTP/1.1 and HTTP/2, limits, an orderly end.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::body::Body;
use daemon::listen;
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{ApiServer, State, corked::Corked, prompt::Prompt};
use crate::{hooks::PeerAddress, request::PeerCertificate};

const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(32);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long requests may take to end after the stop.
const FAREWELL: Duration = Duration::from_secs(5);
/// Requests at once in one HTTP/2 connection. More than upstream allows: a client that keeps to one connection has
/// all its watches in it. Streams that are opened and reset at once are limited by the protocol's own count.
const STREAMS: u32 = 1000;
/// Such streams that have not been looked at yet; more end the connection.
const RESET_STREAMS: usize = 50;
/// How long all headers of a request may be together in HTTP/2; version 1 has a limit of its own, four times as high.
const HEADER_BYTES: u32 = 100 << 10;
/// How much of an answer waits in a stream for a client that does not read.
const SEND_BUFFER: usize = 128 << 10;

/// How TLS names version 2.
const HTTP2: &[u8] = b"h2";

/// TLS that offers both versions of HTTP.
pub(super) fn acceptor(config: Arc<rustls::ServerConfig>) -> TlsAcceptor {
    let mut config = (*config).clone();
    config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

impl ApiServer {
    /// Serves connections until `stop`; then lets running requests end and closes.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) {
        loop {
            let (stream, address) = tokio::select! {
                accepted = listen::accept(&listener) => accepted,
                () = stop.cancelled() => return,
            };
            let connection = connection(self.state.clone(), stream, address, stop.clone());
            self.state.connections.spawn(connection);
        }
    }
}

async fn connection(state: Arc<State>, stream: TcpStream, address: SocketAddr, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %address, "cannot turn off delays");
    }
    let Some(acceptor) = state.tls.clone() else {
        return serve_http(state, stream, false, address, None, stop).await;
    };
    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let session = stream.get_ref().1;
            let is_http2 = session.alpn_protocol() == Some(HTTP2);
            let chain = session.peer_certificates();
            let peer = chain.map(|chain| {
                PeerCertificate::new(chain.iter().map(|one| one.clone().into_owned()).collect())
            });
            serve_http(state, stream, is_http2, address, peer, stop).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, %address, "TLS handshake failed"),
        Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
    }
}

/// Serves a connection that speaks version 2 for certain (`is_http2`), or whatever its first bytes say.
async fn serve_http(
    state: Arc<State>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    is_http2: bool,
    address: SocketAddr,
    peer: Option<PeerCertificate>,
    stop: CancellationToken,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (state, peer) = (state.clone(), peer.clone());
        // Boxed, so that a watch, which lasts, does not keep the room that making its answer took.
        Box::pin(async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(PeerAddress(address));
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            Ok::<_, Infallible>(state.handle(request).await)
        })
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_header_list_size(HEADER_BYTES)
        .max_send_buf_size(SEND_BUFFER);
    let builder = if is_http2 { builder.http2_only() } else { builder };
    let stream = Corked::new(Prompt::new(stream, HEADERS), is_http2);
    let io = TokioIo::new(stream.clone());
    let connection = builder.serve_connection_with_upgrades(io, service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = stream.turns(connection.as_mut()) => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(FAREWELL, stream.turns(connection)).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        tracing::debug!(error, %address, "connection ended early");
    }
}

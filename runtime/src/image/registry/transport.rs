//! HTTP requests over connections that are kept and used again.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use http::{Method, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::hosts::TlsSettings;
use super::resolve::addresses;
use super::tls::client_config;
use super::{Cause, PATIENCE, RegistryError};

/// A connection that nobody has used for this long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// One address of several may be dead; the others shall still get their turn.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What is asked of a server; it can be sent again.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub method: Method,
    pub url: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Bytes(Bytes),
    File { path: PathBuf, size: u64 },
}

impl Request {
    pub(super) fn new(method: Method, url: &str) -> Request {
        Request { method, url: url.to_owned(), headers: Vec::new(), body: Content::Bytes(Bytes::new()) }
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn body(mut self, content: impl Into<Bytes>) -> Request {
        self.body = Content::Bytes(content.into());
        self
    }

    /// The content of a file, which is read while it is sent.
    pub(super) fn file(mut self, path: PathBuf, size: u64) -> Request {
        self.body = Content::File { path, size };
        self
    }

    async fn build(&self) -> Result<http::Request<Body>, Cause> {
        let mut request = http::Request::builder().method(&self.method).uri(&self.url);
        request = request.header("user-agent", concat!("coracle/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = match &self.body {
            Content::Bytes(bytes) => Full::new(bytes.clone()).map_err(|never| match never {}).boxed_unsync(),
            Content::File { path, size } => {
                request = request.header("content-length", *size);
                let file = tokio::fs::File::open(path).await?;
                let chunks = futures::stream::try_unfold(file, |mut file| async move {
                    let mut chunk = BytesMut::with_capacity(256 << 10);
                    let length = file.read_buf(&mut chunk).await?;
                    Ok::<_, io::Error>((length > 0).then(|| (chunk.freeze(), file)))
                });
                StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync()
            }
        };
        Ok(request.body(body)?)
    }

    /// That no answer came, and why.
    pub(super) fn failed(&self, source: impl Into<Cause>) -> RegistryError {
        let (method, url) = (self.method.to_string(), self.url.clone());
        RegistryError::Request { method, url, source: source.into() }
    }
}

/// Keeps connections by how they are made.
pub(super) struct Transport {
    clients: Mutex<HashMap<TlsSettings, Client<Connector, Body>>>,
}

impl Transport {
    pub(super) fn new() -> Transport {
        Transport { clients: Mutex::default() }
    }

    /// Sends a request and waits for the head of the answer; redirections are the caller's.
    pub(super) async fn send(
        &self,
        tls: &TlsSettings,
        request: &Request,
    ) -> Result<Response<Incoming>, RegistryError> {
        let client = self.client(tls).map_err(|error| request.failed(error))?;
        let built = request.build().await.map_err(|error| request.failed(error))?;
        // A large body takes its time; the connection's end is noticed anyway.
        let sending = client.request(built);
        let answer = match &request.body {
            Content::Bytes(_) => tokio::time::timeout(PATIENCE, sending).await,
            Content::File { .. } => Ok(sending.await),
        };
        let answer = answer.map_err(|_| request.failed("no answer within 30 s"))?;
        answer.map_err(|error| request.failed(plain(error)))
    }

    fn client(&self, tls: &TlsSettings) -> Result<Client<Connector, Body>, Cause> {
        let mut clients = self.clients.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some(client) = clients.get(tls) {
            return Ok(client.clone());
        }
        let connector = Connector { tls: TlsConnector::from(Arc::new(client_config(tls)?)) };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        clients.insert(tls.clone(), client.clone());
        Ok(client)
    }
}

/// Says what went wrong instead of which layer of the client has noticed.
fn plain(error: hyper_util::client::legacy::Error) -> Cause {
    let mut innermost: &(dyn std::error::Error + 'static) = &error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string().into()
}

/// The whole body of a small answer.
pub(super) async fn read_body(
    answer: Response<Incoming>,
    limit: usize,
    url: &str,
) -> Result<Bytes, RegistryError> {
    let invalid = |reason: String| RegistryError::Invalid { url: url.to_owned(), reason };
    let body = http_body_util::Limited::new(answer.into_body(), limit);
    let read = tokio::time::timeout(PATIENCE, body.collect()).await;
    let collected = read.map_err(|_| invalid("the answer does not end".to_owned()))?;
    Ok(collected.map_err(|error| invalid(error.to_string()))?.to_bytes())
}

#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, Cause>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.tls.clone();
        Box::pin(async move { Ok(TokioIo::new(connect(&uri, tls).await?)) })
    }
}

async fn connect(uri: &Uri, tls: TlsConnector) -> Result<Stream, Cause> {
    let host = uri.host().ok_or("the URL names no host")?.trim_matches(['[', ']']).to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let mut failure: Cause = format!("lookup {host}: no such host").into();
    for address in addresses(&host).await.map_err(|error| format!("dial tcp: lookup {host}: {error}"))? {
        let dialled = tokio::time::timeout(CONNECT_PATIENCE, TcpStream::connect((address, port))).await;
        let stream = match dialled {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                failure = format!("dial tcp {address}:{port}: connect: {error}").into();
                continue;
            }
            Err(_) => {
                failure = format!("dial tcp {address}:{port}: i/o timeout").into();
                continue;
            }
        };
        stream.set_nodelay(true)?;
        if !secure {
            return Ok(Stream::Plain(stream));
        }
        let name = ServerName::try_from(host)?;
        let handshake = tokio::time::timeout(CONNECT_PATIENCE, tls.connect(name, stream)).await;
        let secured = handshake.map_err(|_| "tls: handshake timed out")?;
        return Ok(Stream::Tls(Box::new(secured.map_err(|error| format!("tls: {error}"))?)));
    }
    Err(failure)
}

/// A connection with TLS or without.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

//! Connections to registries: with TLS or without, straight or through a proxy.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use daemon::resolve::addresses;
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Cause;
use super::hosts::TlsSettings;
use super::proxy::{Proxies, Proxy};
use super::tls::client_config;

/// One address of several may be dead; the others shall still get their turn.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// No proxy has more to say before it passes bytes on.
const HEAD_LIMIT: usize = 16 << 10;

/// Makes connections in one way.
#[derive(Clone)]
pub(super) struct Connector {
    pub tls: TlsConnector,
    pub proxies: Arc<Proxies>,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, Cause>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { Ok(TokioIo::new(connector.connect(&uri).await?)) })
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri) -> Result<Stream, Cause> {
        let host = uri.host().ok_or("the URL names no host")?.trim_matches(['[', ']']).to_owned();
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let proxy = self.proxies.before(uri)?;
        let bytes: Box<dyn Bytes> = match proxy {
            None => Box::new(dial(&host, port).await?),
            Some(proxy) => {
                let mut way = meet(proxy).await.map_err(|error| format!("proxy: {error}"))?;
                if secure {
                    let tunnel = open_tunnel(&mut way, proxy, &host, port);
                    tokio::time::timeout(CONNECT_PATIENCE, tunnel)
                        .await
                        .map_err(|_| "proxy: no answer to CONNECT")??;
                }
                way
            }
        };
        if !secure {
            return Ok(Stream { bytes, speaks_to_proxy: proxy.is_some() });
        }
        Ok(Stream { bytes: secured(&self.tls, &host, bytes).await?, speaks_to_proxy: false })
    }
}

async fn dial(host: &str, port: u16) -> Result<TcpStream, Cause> {
    let mut failure: Cause = format!("lookup {host}: no such host").into();
    for address in addresses(host).await.map_err(|error| format!("dial tcp: lookup {host}: {error}"))? {
        match tokio::time::timeout(CONNECT_PATIENCE, TcpStream::connect((address, port))).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => failure = format!("dial tcp {address}:{port}: connect: {error}").into(),
            Err(_) => failure = format!("dial tcp {address}:{port}: i/o timeout").into(),
        }
    }
    Err(failure)
}

async fn secured(tls: &TlsConnector, host: &str, bytes: Box<dyn Bytes>) -> Result<Box<dyn Bytes>, Cause> {
    let name = ServerName::try_from(host.to_owned())?;
    let handshake = tokio::time::timeout(CONNECT_PATIENCE, tls.connect(name, bytes)).await;
    let stream = handshake.map_err(|_| "tls: handshake timed out")?;
    Ok(Box::new(stream.map_err(|error| format!("tls: {error}"))?))
}

async fn meet(proxy: &Proxy) -> Result<Box<dyn Bytes>, Cause> {
    let stream = Box::new(dial(&proxy.host, proxy.port).await?);
    if !proxy.secure {
        return Ok(stream);
    }
    let tls = TlsConnector::from(Arc::new(client_config(&TlsSettings::default())?));
    secured(&tls, &proxy.host, stream).await
}

/// Has a proxy pass bytes on to a host.
async fn open_tunnel(
    way: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> Result<(), Cause> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let authorization = proxy.authorization();
    let authorization = authorization.map(|header| format!("Proxy-Authorization: {header}\r\n"));
    let request = format!(
        "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{}\r\n",
        authorization.unwrap_or_default()
    );
    way.write_all(request.as_bytes()).await?;
    way.flush().await?;
    // Byte by byte: what follows the head is the host's.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_LIMIT {
            return Err("proxy: its answer to CONNECT does not end".into());
        }
        head.push(way.read_u8().await.map_err(|error| format!("proxy: {error}"))?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let status = head.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(format!("proxy: CONNECT {host}:{port}: {status}").into()),
    }
}

/// What can be read and written, by whatever it is carried.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A connection to a registry, or to a proxy that asks it for us.
pub(super) struct Stream {
    bytes: Box<dyn Bytes>,
    speaks_to_proxy: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.speaks_to_proxy)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().bytes).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().bytes).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().bytes).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().bytes).poll_shutdown(context)
    }
}

//! One GET request to a container.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use daemon::tls;
use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::check::{authority, dial_error};

/// What to get.
pub(super) struct Get<'a> {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: &'a str,
    pub(super) is_https: bool,
    pub(super) headers: Vec<(&'a str, &'a str)>,
}

impl Get<'_> {
    pub(super) fn url(&self) -> String {
        let scheme = if self.is_https { "https" } else { "http" };
        format!("{scheme}://{}{}", authority(&self.host, self.port), self.absolute_path())
    }

    fn absolute_path(&self) -> String {
        if self.path.starts_with('/') { self.path.to_string() } else { format!("/{}", self.path) }
    }
}

/// The status code of the answer, or what went wrong in words.
pub(super) async fn get(request: &Get<'_>) -> Result<u16, String> {
    let stream = TcpStream::connect((request.host.as_str(), request.port)).await;
    let stream = stream.map_err(|error| dial_error(&request.host, request.port, &error))?;
    if !request.is_https {
        return exchange(stream, request).await;
    }
    let name = ServerName::try_from(request.host.clone()).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::new(tls::trusting_client().map_err(|error| error.to_string())?));
    let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    exchange(stream, request).await
}

async fn exchange<S>(stream: S, request: &Get<'_>) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let message = build(request)?;
    let sent = sender.send_request(message);
    // The connection does its work while the answer is waited for, and ends with this function.
    let (mut sent, mut connection) = (std::pin::pin!(sent), std::pin::pin!(connection));
    let answer = tokio::select! {
        answer = &mut sent => answer,
        ended = &mut connection => {
            ended.map_err(words)?;
            // The last thing before its end may have been the answer.
            sent.await
        }
    };
    answer.map(|answer| answer.status().as_u16()).map_err(words)
}

fn build(get: &Get<'_>) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::get(get.absolute_path());
    let has = |name: &str| get.headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name));
    if !has("host") {
        request = request.header(header::HOST, authority(&get.host, get.port));
    }
    if !has("user-agent") {
        request = request.header(header::USER_AGENT, "kube-probe/1.37");
    }
    if !has("accept") {
        request = request.header(header::ACCEPT, "*/*");
    }
    request = request.header(header::CONNECTION, "close");
    for (name, value) in get.headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    request.body(Empty::new()).map_err(|error| error.to_string())
}

fn words(error: hyper::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

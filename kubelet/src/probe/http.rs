//! One GET request to a container.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use daemon::tls;
use http::{Request, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::check::{authority, dial_error};

/// As many as Go's client follows.
const MOST_REDIRECTS: u32 = 10;

/// What to get.
pub(super) struct Get<'a> {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
    pub(super) is_https: bool,
    pub(super) headers: Vec<(&'a str, &'a str)>,
}

impl Get<'_> {
    pub(super) fn url(&self) -> String {
        let scheme = if self.is_https { "https" } else { "http" };
        format!("{scheme}://{}{}", authority(&self.host, self.port), self.absolute_path())
    }

    fn absolute_path(&self) -> String {
        if self.path.starts_with('/') { self.path.clone() } else { format!("/{}", self.path) }
    }

    /// Aims at a redirect's target; `false` when that is another host.
    fn go_to(&mut self, location: &str) -> Result<bool, String> {
        let bad = |error: &dyn std::fmt::Display| {
            format!("failed to parse Location header \"{location}\": {error}")
        };
        let Some((scheme, rest)) = location.split_once("://") else {
            let folder = self.absolute_path();
            let folder = folder.split('?').next().unwrap_or_default();
            let folder = folder.rsplit_once('/').map_or("", |(folder, _)| folder);
            self.path =
                if location.starts_with('/') { location.into() } else { format!("{folder}/{location}") };
            return Ok(true);
        };
        let target: Uri = format!("{scheme}://{rest}").parse().map_err(|error| bad(&error))?;
        let host = target.host().unwrap_or_default().trim_matches(['[', ']']);
        if !host.eq_ignore_ascii_case(&self.host) {
            return Ok(false);
        }
        self.is_https = target.scheme_str() == Some("https");
        self.port = target.port_u16().unwrap_or(if self.is_https { 443 } else { 80 });
        self.path = target.path_and_query().map_or_else(|| "/".to_string(), ToString::to_string);
        Ok(true)
    }
}

/// What came back at the end of all redirects.
pub(super) struct Reply {
    pub(super) status: u16,
    /// The last answer leads to another host, where a probe does not go.
    pub(super) leads_away: bool,
}

/// An answer, and where it leads.
struct Answered {
    status: u16,
    location: Option<String>,
}

/// Gets, and follows where the same host leads. An error is what went wrong in words.
pub(super) async fn follow(mut request: Get<'_>) -> Result<Reply, String> {
    for _ in 0..MOST_REDIRECTS {
        let Answered { status, location } = get(&request).await?;
        let Some(location) = location.filter(|_| matches!(status, 301 | 302 | 303 | 307 | 308)) else {
            return Ok(Reply { status, leads_away: false });
        };
        if !request.go_to(&location)? {
            return Ok(Reply { status, leads_away: true });
        }
    }
    Err(format!("stopped after {MOST_REDIRECTS} redirects"))
}

async fn get(request: &Get<'_>) -> Result<Answered, String> {
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

async fn exchange<S>(stream: S, request: &Get<'_>) -> Result<Answered, String>
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
    let answer = answer.map_err(words)?;
    let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    Ok(Answered { status: answer.status().as_u16(), location: location.map(str::to_string) })
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

//! Passes one HTTP request on to another server, connection upgrades included.
//!
//! The API server uses it towards kubelets, pods and Services, the kubelet towards the runtime's streaming
//! server. Bodies stream in both directions. After a `101 Switching Protocols` (SPDY/3.1 or WebSocket, the
//! proxy does not care which) both connections become plain byte pipes: when one direction ends, only
//! that direction is shut down, so that output which is still under way after the end of the input arrives.

use std::{future::Future, io};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::http1,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tracing::{Instrument, debug, debug_span};

/// Why a request got no answer from the server behind.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No connection could be made.
    #[error("error dialing backend: {source}")]
    Connect {
        /// What the connector said.
        source: io::Error,
    },
    /// The connection broke before there was an answer, or the other side does not speak HTTP.
    #[error("error proxying to backend: {source}")]
    Exchange {
        /// What the HTTP client said.
        source: hyper::Error,
    },
}

/// Sends `request` over the stream that `connect` makes and returns the answer as it streams in.
///
/// The path, query and `Host` are sent as they stand in `request`, so the caller rewrites them first;
/// headers that concern one connection only are taken out. When both sides agree on an upgrade, the pipe between
/// them runs in a task of its own and ends with either connection.
pub async fn forward<B, S>(
    mut request: Request<B>,
    connect: impl Future<Output = io::Result<S>>,
) -> Result<Response<Incoming>, ForwardError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = connect.await.map_err(|source| ForwardError::Connect { source })?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|source| ForwardError::Exchange { source })?;
    // The task ends with the connection: when the answer was read or dropped, or the pipe took the connection over.
    tokio::spawn(
        async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(%error, "proxied connection ended early");
            }
        }
        .instrument(debug_span!("proxy_connection")),
    );

    let upgrade = upgrade_protocol(request.headers());
    let downstream = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let request = prepare(request, upgrade.as_ref());
    let mut response =
        sender.send_request(request).await.map_err(|source| ForwardError::Exchange { source })?;

    match downstream {
        Some(downstream) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let upstream = hyper::upgrade::on(&mut response);
            tokio::spawn(pipe(downstream, upstream).instrument(debug_span!("proxy_pipe")));
        }
        _ => strip_connection_headers(response.headers_mut()),
    }
    Ok(response)
}

/// The protocol that a request wants to upgrade to, if it does.
pub fn upgrade_protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let wants_upgrade = connection_tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    wants_upgrade.then(|| headers.get(header::UPGRADE).cloned()).flatten()
}

/// The request as the server behind gets it: HTTP/1.1, origin form, without connection headers.
fn prepare<B>(request: Request<B>, upgrade: Option<&HeaderValue>) -> Request<B> {
    let (mut parts, body) = request.into_parts();
    parts.version = Version::HTTP_11;
    if !parts.headers.contains_key(header::HOST) {
        let authority = parts.uri.authority().map_or("localhost", |authority| authority.as_str());
        if let Ok(host) = HeaderValue::from_str(authority) {
            parts.headers.insert(header::HOST, host);
        }
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    strip_connection_headers(&mut parts.headers);
    if let Some(protocol) = upgrade {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        parts.headers.insert(header::UPGRADE, protocol.clone());
    }
    Request::from_parts(parts, body)
}

/// Removes what RFC 9110, section 7.6.1, says a proxy must not pass on.
fn strip_connection_headers(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = connection_tokens(headers).filter_map(|token| token.parse().ok()).collect();
    for name in named {
        headers.remove(name);
    }
    for name in
        ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"]
    {
        headers.remove(name);
    }
}

/// The items of all `Connection` headers.
fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// Copies bytes both ways until both directions have ended.
async fn pipe(downstream: OnUpgrade, upstream: OnUpgrade) {
    let both: Result<(Upgraded, Upgraded), hyper::Error> = tokio::try_join!(downstream, upstream);
    let (downstream, upstream) = match both {
        Ok(both) => both,
        Err(error) => return debug!(%error, "connection was not upgraded"),
    };
    match copy_bidirectional(&mut TokioIo::new(downstream), &mut TokioIo::new(upstream)).await {
        Ok((sent, received)) => debug!(sent, received, "upgraded connection ended"),
        Err(error) => debug!(%error, "upgraded connection broke"),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt, Empty, Full};
    use hyper::{server::conn::http1 as server, service::service_fn};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn only_a_connection_header_makes_an_upgrade() {
        let mut headers = HeaderMap::new();
        headers.insert("upgrade", HeaderValue::from_static("SPDY/3.1"));
        assert_eq!(upgrade_protocol(&headers), None);
        headers.insert("connection", HeaderValue::from_static("keep-alive, Upgrade"));
        assert_eq!(upgrade_protocol(&headers), Some(HeaderValue::from_static("SPDY/3.1")));
    }

    #[test]
    fn connection_headers_and_those_they_name_stay_behind() {
        let request = Request::get("https://node:10250/exec/a?command=ls")
            .header("connection", "close, x-secret")
            .header("x-secret", "1")
            .header("x-kept", "2")
            .body(())
            .unwrap();
        let sent = prepare(request, None);
        assert_eq!(sent.uri(), "/exec/a?command=ls");
        assert_eq!(sent.headers()["host"], "node:10250");
        assert_eq!(sent.headers()["x-kept"], "2");
        assert!(!sent.headers().contains_key("x-secret") && !sent.headers().contains_key("connection"));
    }

    #[tokio::test]
    async fn a_body_streams_through() {
        let backend = backend(|request| async move {
            let path = request.uri().to_string();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let text = format!("{path} {}", String::from_utf8_lossy(&body));
            Ok(Response::new(Full::from(text)))
        });
        let request = Request::post("/logs?follow=true").body(Full::from("hello")).unwrap();
        let response = forward(request, async { Ok(backend) }).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "/logs?follow=true hello");
    }

    #[tokio::test]
    async fn an_upgraded_connection_carries_output_after_the_end_of_input() {
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = proxy.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = proxy.accept().await.unwrap();
            let forward_all = service_fn(|request: Request<Incoming>| async move {
                Ok::<_, Infallible>(forward(request, async { Ok(echo_after_end_of_input()) }).await.unwrap())
            });
            server::Builder::new().serve_connection(TokioIo::new(stream), forward_all).with_upgrades().await
        });

        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let request = Request::post("/exec")
            .header("connection", "Upgrade")
            .header("upgrade", "SPDY/3.1")
            .body(Empty::<Bytes>::new())
            .unwrap();
        let mut response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()["upgrade"], "SPDY/3.1");
        let mut pipe = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        pipe.write_all(b"input").await.unwrap();
        pipe.shutdown().await.unwrap();
        let mut output = String::new();
        pipe.read_to_string(&mut output).await.unwrap();
        assert_eq!(output, "input, and that was all");
    }

    #[tokio::test]
    async fn a_backend_that_cannot_be_reached_is_named_as_such() {
        let refused = async { Err::<DuplexStream, _>(io::Error::from(io::ErrorKind::ConnectionRefused)) };
        let error = forward(Request::new(Empty::<Bytes>::new()), refused).await.unwrap_err();
        assert_eq!(error.to_string(), "error dialing backend: connection refused");
    }

    /// A stream to a server that answers every request with `answer`.
    fn backend<F>(answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> DuplexStream
    where
        F: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send,
    {
        let (near, far) = duplex(1024);
        let answer = std::sync::Arc::new(answer);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer.clone();
                async move { answer(request).await }
            });
            server::Builder::new().serve_connection(TokioIo::new(far), service).with_upgrades().await
        });
        near
    }

    /// A stream to a server that upgrades, reads to the end and only then answers.
    fn echo_after_end_of_input() -> DuplexStream {
        backend(|mut request| async move {
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut pipe = TokioIo::new(upgraded.await.unwrap());
                let mut input = String::new();
                pipe.read_to_string(&mut input).await.unwrap();
                pipe.write_all(format!("{input}, and that was all").as_bytes()).await.unwrap();
                pipe.shutdown().await.unwrap();
            });
            let switching = Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "Upgrade")
                .header("upgrade", "SPDY/3.1");
            Ok(switching.body(Full::default()).unwrap())
        })
    }
}

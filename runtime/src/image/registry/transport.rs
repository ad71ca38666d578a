//! HTTP requests over connections that are kept and used again.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use http::{HeaderValue, Method, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::connect::Connector;
use super::hosts::TlsSettings;
use super::proxy::Proxies;
use super::tls::client_config;
use super::{Cause, PATIENCE, RegistryError};

/// A connection that nobody has used for this long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// How long an upload may stand still.
#[derive(Clone, Copy)]
struct Patience {
    /// Until the next bytes are taken.
    moving: Duration,
    /// From the last byte to the answer.
    storing: Duration,
}

/// Some registries copy what they have got elsewhere before they answer.
const UPLOADS: Patience = Patience { moving: PATIENCE, storing: Duration::from_secs(300) };

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

    /// The request, and how many bytes of a file have been sent.
    async fn build(&self) -> Result<(http::Request<Body>, watch::Receiver<u64>), Cause> {
        let mut request = http::Request::builder().method(&self.method).uri(&self.url);
        request = request.header("user-agent", concat!("coracle/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let (sender, sent) = watch::channel(0);
        let body = match &self.body {
            Content::Bytes(bytes) => Full::new(bytes.clone()).map_err(|never| match never {}).boxed_unsync(),
            Content::File { path, size } => {
                request = request.header("content-length", *size);
                let file = tokio::fs::File::open(path).await?;
                let chunks = futures::stream::try_unfold((file, sender), |(mut file, sender)| async move {
                    let mut chunk = BytesMut::with_capacity(256 << 10);
                    let length = file.read_buf(&mut chunk).await?;
                    sender.send_modify(|sent| *sent += length as u64);
                    Ok::<_, io::Error>((length > 0).then(|| (chunk.freeze(), (file, sender))))
                });
                StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync()
            }
        };
        Ok((request.body(body)?, sent))
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
    proxies: Arc<Proxies>,
}

impl Transport {
    pub(super) fn new(proxies: Proxies) -> Transport {
        Transport { clients: Mutex::default(), proxies: Arc::new(proxies) }
    }

    /// Sends a request and waits for the head of the answer; redirections are the caller's.
    pub(super) async fn send(
        &self,
        tls: &TlsSettings,
        request: &Request,
    ) -> Result<Response<Incoming>, RegistryError> {
        let client = self.client(tls).map_err(|error| request.failed(error))?;
        let (mut built, sent) = request.build().await.map_err(|error| request.failed(error))?;
        self.introduce(&mut built).map_err(|error| request.failed(error))?;
        let sending = client.request(built);
        let answer = match &request.body {
            Content::Bytes(_) => {
                tokio::time::timeout(PATIENCE, sending).await.map_err(|_| "no answer within 30 s")
            }
            Content::File { size, .. } => patiently(sending, sent, *size, UPLOADS).await,
        };
        let answer = answer.map_err(|reason| request.failed(reason))?;
        answer.map_err(|error| request.failed(plain(error)))
    }

    /// Shows a proxy who we are, where it is the one that gets the request.
    fn introduce(&self, request: &mut http::Request<Body>) -> Result<(), Cause> {
        let gets_it = request.uri().scheme_str() == Some("http");
        let proxy = self.proxies.before(request.uri())?.filter(|_| gets_it);
        if let Some(header) = proxy.and_then(|proxy| proxy.authorization()) {
            request.headers_mut().insert("proxy-authorization", HeaderValue::try_from(header)?);
        }
        Ok(())
    }

    fn client(&self, tls: &TlsSettings) -> Result<Client<Connector, Body>, Cause> {
        let mut clients = self.clients.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some(client) = clients.get(tls) {
            return Ok(client.clone());
        }
        let tls_connector = TlsConnector::from(Arc::new(client_config(tls)?));
        let connector = Connector { tls: tls_connector, proxies: self.proxies.clone() };
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

/// Waits for the answer to an upload as long as it goes on, and then for as long as storing it may take.
async fn patiently<T>(
    sending: impl Future<Output = T>,
    mut sent: watch::Receiver<u64>,
    size: u64,
    Patience { moving, storing }: Patience,
) -> Result<T, &'static str> {
    let mut sending = pin!(sending);
    loop {
        let patience = if *sent.borrow_and_update() < size { moving } else { storing };
        let stuck = async {
            match tokio::time::timeout(patience, sent.changed()).await {
                Ok(Ok(())) => false,
                Err(_) => true,
                // All was read, and nobody will read it again.
                Ok(Err(_)) => {
                    tokio::time::sleep(storing).await;
                    true
                }
            }
        };
        tokio::select! {
            biased;
            answer = &mut sending => return Ok(answer),
            is_stuck = stuck => {
                if is_stuck {
                    return Err("the upload does not go on");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LATE: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn an_upload_may_take_as_long_as_it_goes_on() {
        let (sender, sent) = watch::channel(0);
        let sending = async {
            for _ in 0..10 {
                sender.send_modify(|sent| *sent += 10);
                tokio::task::yield_now().await;
            }
            drop(sender);
            tokio::task::yield_now().await;
        };
        assert_eq!(patiently(sending, sent, 100, Patience { moving: LATE, storing: LATE }).await, Ok(()));
    }

    #[tokio::test]
    async fn an_upload_that_nobody_takes_or_answers_is_given_up() {
        let (_sender, sent) = watch::channel(99);
        let never = pending::<()>();
        assert!(patiently(never, sent, 100, Patience { moving: SOON, storing: LATE }).await.is_err());
        let (sender, sent) = watch::channel(100);
        let never = pending::<()>();
        assert!(patiently(never, sent.clone(), 100, Patience { moving: LATE, storing: SOON }).await.is_err());
        drop(sender);
        let never = pending::<()>();
        assert!(patiently(never, sent, 100, Patience { moving: LATE, storing: SOON }).await.is_err());
    }
}

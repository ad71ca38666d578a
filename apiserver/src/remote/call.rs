//! One call of a webhook, over a connection that may have served before.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::{CallError, Failure, Target, Trust, client_config};
use crate::registry::Registry;

/// How long an answer may be.
const MAX_ANSWER: usize = 32 << 20;
/// How much of what it says about an error is passed on, in bytes, as upstream.
const MAX_ERROR_TEXT: usize = 2048;
/// How long a connection is kept that nobody needs.
const IDLE: Duration = Duration::from_secs(60);
/// How many of them are kept for one server.
const MOST_IDLE: usize = 8;
/// How many different authorities are remembered.
const MOST_CONFIGURATIONS: usize = 256;

/// The connections to webhooks.
#[derive(Default)]
pub(crate) struct Remotes {
    configurations: Mutex<HashMap<Trust, TlsConnector>>,
    idle: Mutex<HashMap<Server, Vec<Idle>>>,
}

/// Connections to the same server that are trusted for the same reason serve each other's calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Server {
    name: String,
    address: SocketAddr,
    trust: Trust,
}

type Sender = http1::SendRequest<Full<Bytes>>;

struct Idle {
    sender: Sender,
    since: Instant,
}

impl Remotes {
    /// Sends `body` to the webhook that a `clientConfig` describes and returns what it answers.
    pub(crate) async fn call(
        &self,
        registry: &Registry,
        client: &Value,
        body: &Value,
        patience: Duration,
    ) -> Result<Value, CallError> {
        let misconfigured = |reason: String| CallError::Configuration { reason };
        let target = Target::of_client(client).map_err(misconfigured)?;
        let trust = trust(client).map_err(misconfigured)?;
        let tls = self.tls(&trust).map_err(misconfigured)?;
        let path = target.path_within(patience);
        let request = Request::post(&path)
            .header(header::HOST, &target.authority)
            .header(header::USER_AGENT, "kube-apiserver-admission")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| misconfigured(error.to_string()))?;
        // On the heap: every write would carry its room about, and few call a webhook.
        let exchange = Box::pin(self.exchange(registry, &target, trust, tls, request));
        let answered = timeout(patience, exchange).await.unwrap_or(Err(Failure::Late));
        let url = || format!("https://{}{path}", target.authority);
        let (code, bytes) = answered.map_err(|source| CallError::Exchange { url: url(), source })?;
        read(code, &bytes)
    }

    async fn exchange(
        &self,
        registry: &Registry,
        target: &Target,
        trust: Trust,
        tls: TlsConnector,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let addresses = target.addresses(registry).await?;
        let server =
            |address: SocketAddr| Server { name: target.name.clone(), address, trust: trust.clone() };
        for server in addresses.iter().map(|address| server(*address)) {
            while let Some(mut sender) = self.take(&server) {
                match sender.try_send_request(request).await {
                    Ok(response) => return self.finish(server, sender, response).await,
                    // The other side had closed the connection: as long as nothing was sent, another one will do.
                    Err(mut error) => match error.take_message() {
                        Some(unsent) => request = unsent,
                        None => return Err(Failure::Broken { source: error.into_error() }),
                    },
                }
            }
        }
        let stream = super::connect(&tls, &target.name, &addresses).await?;
        let address = stream.get_ref().0.peer_addr().map_err(|_| Failure::Nowhere)?;
        let broken = |source| Failure::Broken { source };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let stop = registry.stop().clone();
        // Ends with the server, or when nobody holds the sender any more.
        registry.tasks().spawn(async move {
            if let Some(Err(error)) = stop.run_until_cancelled(connection).await {
                tracing::debug!(%error, "the connection to a webhook broke");
            }
        });
        let response = sender.send_request(request).await.map_err(broken)?;
        self.finish(server(address), sender, response).await
    }

    async fn finish(
        &self,
        server: Server,
        sender: Sender,
        response: Response<Incoming>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let code = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| Failure::Unreadable { reason: error.to_string() })?;
        self.put_back(server, sender);
        Ok((code, body.to_bytes()))
    }

    fn take(&self, server: &Server) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(server)?;
        let found = std::iter::from_fn(|| kept.pop()).find(|one| !one.sender.is_closed());
        found.map(|one| one.sender)
    }

    fn put_back(&self, server: Server, sender: Sender) {
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, kept| {
            kept.retain(|one| now.duration_since(one.since) < IDLE && !one.sender.is_closed());
            !kept.is_empty()
        });
        let kept = idle.entry(server).or_default();
        if !sender.is_closed() && kept.len() < MOST_IDLE {
            kept.push(Idle { sender, since: now });
        }
    }

    fn tls(&self, trust: &Trust) -> Result<TlsConnector, String> {
        let mut known = self.configurations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tls) = known.get(trust) {
            return Ok(tls.clone());
        }
        let tls = TlsConnector::from(Arc::new(client_config(trust, None)?));
        if known.len() >= MOST_CONFIGURATIONS {
            known.clear();
        }
        known.insert(trust.clone(), tls.clone());
        Ok(tls)
    }
}

/// The authority that a `clientConfig` names, or those of the machine.
fn trust(client: &Value) -> Result<Trust, String> {
    match client["caBundle"].as_str().unwrap_or_default() {
        "" => Ok(Trust::Machine),
        bundle => {
            let decoded = BASE64_STANDARD.decode(bundle);
            decoded
                .map(Trust::Authorities)
                .map_err(|error| format!("unable to load root certificates: {error}"))
        }
    }
}

/// The answer, or what an HTTP error means.
fn read(code: StatusCode, bytes: &Bytes) -> Result<Value, CallError> {
    let failed = |reason: String| Err(CallError::Answer { reason });
    if !code.is_success() {
        return failed(refusal(code, bytes));
    }
    match serde_json::from_slice(bytes) {
        Ok(answer) => Ok(answer),
        Err(_) if bytes.is_empty() => failed("unexpected end of JSON input".into()),
        Err(error) => failed(format!("couldn't get version/kind; json parse error: {error}")),
    }
}

/// What upstream's client says to an answer that is none.
fn refusal(code: StatusCode, bytes: &Bytes) -> String {
    let status: Value = serde_json::from_slice(bytes).unwrap_or_default();
    if let ("Status", Some(message)) =
        (status["kind"].as_str().unwrap_or_default(), status["message"].as_str())
    {
        return cut(message).to_string();
    }
    let text = String::from_utf8_lossy(bytes);
    match code.as_u16() {
        400 => "the server rejected our request for an unknown reason".into(),
        401 => "the server has asked for the client to provide credentials".into(),
        403 => "forbidden".into(),
        404 => "the server could not find the requested resource".into(),
        405 => "the server does not allow this method on the requested resource".into(),
        415 => "the body of the request was in an unknown format - accepted media types include: ".into(),
        429 => "the server has received too many requests and has asked us to try again later".into(),
        503 => "the server is currently unable to handle the request".into(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the request".into(),
        500.. => format!("an error on the server ({:?}) has prevented the request from succeeding", cut(&text).trim()),
        code => format!("the server responded with the status code {code} but did not return more information"),
    }
}

/// As much of a text as is told.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_ERROR_TEXT)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: u16, body: &'static str) -> String {
        read(StatusCode::from_u16(code).unwrap(), &Bytes::from_static(body.as_bytes()))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn what_is_no_answer_is_told_as_upstream_does() {
        assert_eq!(
            said(500, "boom\n"),
            r#"failed to call webhook: an error on the server ("boom") has prevented the request from succeeding"#
        );
        assert_eq!(
            said(404, "404 page not found"),
            "failed to call webhook: the server could not find the requested resource"
        );
        assert_eq!(said(403, r#"{"kind": "Status", "message": "no"}"#), "failed to call webhook: no");
        let long = "é".repeat(4000).leak();
        assert!(said(500, long).len() < 2200);
        let status = format!(r#"{{"kind": "Status", "message": "a{long}"}}"#).leak();
        assert_eq!(said(403, status).len(), "failed to call webhook: ".len() + 2047);
        assert_eq!(said(200, ""), "failed to call webhook: unexpected end of JSON input");
    }
}

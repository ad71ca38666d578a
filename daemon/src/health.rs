//! Health of a process: named checks, and the small HTTP server that every component has
//! (`/healthz`, `/livez`, `/readyz`, `/metrics`).

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{listen, metrics};

/// What has to be true for the process to be ready. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub struct Health {
    checks: Arc<Mutex<BTreeMap<&'static str, bool>>>,
}

impl Health {
    /// Declares a check, failing until [`Health::pass`].
    pub fn declare(&self, name: &'static str) {
        self.set(name, false);
    }

    /// Marks a check as passing.
    pub fn pass(&self, name: &'static str) {
        self.set(name, true);
    }

    /// Marks a check as failing.
    pub fn fail(&self, name: &'static str) {
        self.set(name, false);
    }

    /// Every check and whether it passes, by name.
    pub fn checks(&self) -> BTreeMap<&'static str, bool> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, name: &'static str, passes: bool) {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).insert(name, passes);
    }
}

/// The answer to a health question as upstream words it: `ok`, or one line a check when something fails or
/// `verbose` asks for it. `endpoint` is `healthz`, `livez` or `readyz`.
pub fn report(endpoint: &str, checks: &BTreeMap<&'static str, bool>, verbose: bool) -> (StatusCode, String) {
    let is_well = checks.values().all(|passes| *passes);
    let status = if is_well { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    if is_well && !verbose {
        return (status, "ok".to_string());
    }
    let mut text = String::new();
    for (name, passes) in checks {
        text.push_str(&match passes {
            true => format!("[+]{name} ok\n"),
            false => format!("[-]{name} failed: reason withheld\n"),
        });
    }
    text.push_str(&format!("{endpoint} check {}\n", if is_well { "passed" } else { "failed" }));
    (status, text)
}

/// Serves health and metrics over plain HTTP until `stop`.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(address: SocketAddr, health: Health, stop: CancellationToken) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            (stream, _) = listen::accept(&listener) => stream,
        };
        let health = health.clone();
        let connection = http1::Builder::new().serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| {
                let answer = answer(&request, &health);
                async move { Ok::<_, Infallible>(answer) }
            }),
        );
        let stop = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                served = connection => if let Err(error) = served {
                    tracing::debug!(%error, "health connection ended early");
                },
            }
        });
    }
}

fn answer(request: &Request<Incoming>, health: &Health) -> Response<Full<Bytes>> {
    let verbose = request.uri().query().is_some_and(|query| query.contains("verbose"));
    let (status, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, metrics::CONTENT_TYPE, metrics::render()),
        (&Method::GET, "/livez" | "/healthz" | "/readyz") => {
            let endpoint = request.uri().path().trim_start_matches('/');
            let checks = if endpoint == "livez" { BTreeMap::new() } else { health.checks() };
            let (status, text) = report(endpoint, &checks, verbose);
            (status, "text/plain; charset=utf-8", text)
        }
        _ => (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n".to_string()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_check_is_named_and_a_passing_process_says_ok() {
        let health = Health::default();
        health.declare("informer-sync");
        health.pass("ping");
        let (status, text) = report("readyz", &health.checks(), false);
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(text, "[-]informer-sync failed: reason withheld\n[+]ping ok\nreadyz check failed\n");
        health.pass("informer-sync");
        assert_eq!(report("readyz", &health.checks(), false), (StatusCode::OK, "ok".to_string()));
    }
}

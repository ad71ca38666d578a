//! Carries a request on to an extension API server, and tells it who the user is.
//!
//! The server believes the headers because of the certificate that the connection shows. What a client sends under
//! the names of these headers never gets there.

use api::Status;
use axum::body::Body;
use daemon::proxy::{ForwardError, forward, upgrade_protocol};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;

use super::{Aggregation, Service};
use crate::{
    answer, audit,
    hooks::PeerAddress,
    registry::Registry,
    remote::{self, Failure},
    request::User,
};

const USER: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUP: &str = "x-remote-group";
const EXTRA_PREFIX: &str = "x-remote-extra-";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The server cannot be reached, or is another one.
    #[error("{source}")]
    Connect {
        /// Why.
        source: Failure,
    },
    /// What the APIService says of trust makes no sense.
    #[error("{reason}")]
    Trust {
        /// Why.
        reason: String,
    },
    /// The connection broke.
    #[error("{source}")]
    Exchange {
        /// How.
        source: ForwardError,
    },
    /// The user's name or the path fits no header.
    #[error("{reason}")]
    Request {
        /// Why.
        reason: String,
    },
}

impl Aggregation {
    /// The answer of the server behind `service`, as it streams in.
    pub(crate) async fn carry_on(
        &self,
        registry: &Registry,
        service: &Service,
        user: &User,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        if !service.is_available {
            return Ok(answer::text(StatusCode::SERVICE_UNAVAILABLE, "service unavailable\n"));
        }
        let answered = send(self, registry, service, user, request).await;
        let response = answered.map_err(|error| {
            Status::new(503, "ServiceUnavailable", format!("error trying to reach service: {error}"))
        })?;
        let mut response = response.map(Body::new);
        response.extensions_mut().insert(audit::Foreign);
        Ok(response)
    }
}

/// Sends a request in a user's name.
pub(super) async fn send(
    aggregation: &Aggregation,
    registry: &Registry,
    service: &Service,
    user: &User,
    mut request: Request<Body>,
) -> Result<Response<Incoming>, SendError> {
    let tls = aggregation.tls(&service.trust).map_err(|reason| SendError::Trust { reason })?;
    let connect = |source| SendError::Connect { source };
    let addresses = service.target.addresses(registry).await.map_err(connect)?;
    let stream = remote::connect(&tls, &service.target.name, &addresses).await.map_err(connect)?;
    prepare(&mut request, service, user).map_err(|reason| SendError::Request { reason })?;
    forward(request, async { Ok(stream) }).await.map_err(|source| SendError::Exchange { source })
}

/// The request as the other server gets it.
fn prepare(request: &mut Request<Body>, service: &Service, user: &User) -> Result<(), String> {
    let peer = request.extensions().get::<PeerAddress>().map(|peer| peer.0.ip().to_string());
    let uri = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_string();
    let host = request.headers().get(header::HOST).cloned();
    // The host is the server's; what is asked for is as it was.
    *request.uri_mut() = uri.parse::<Uri>().map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    let authority = HeaderValue::from_str(&service.target.authority).map_err(|error| error.to_string())?;
    headers.insert(header::HOST, authority);
    identify(headers, user)?;
    let told = [
        ("x-forwarded-for", peer.and_then(|peer| HeaderValue::from_str(&peer).ok())),
        ("x-forwarded-host", host),
        ("x-forwarded-proto", Some(HeaderValue::from_static("https"))),
        ("x-forwarded-uri", HeaderValue::from_str(&uri).ok()),
    ];
    for (name, value) in told {
        if let Some(value) = value {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Ok(())
}

/// Says who the user is, and forgets what the client said about it.
fn identify(headers: &mut HeaderMap, user: &User) -> Result<(), String> {
    // What the client lists there is taken out on the way; that must not be what is said here.
    let is_upgrade = upgrade_protocol(headers).is_some();
    headers.remove(header::CONNECTION);
    if is_upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    let is_claim = |name: &HeaderName| {
        let name = name.as_str();
        matches!(name, "authorization" | USER | UID | GROUP)
            || name.starts_with(EXTRA_PREFIX)
            || name.starts_with("impersonate-")
    };
    let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
    for claim in claims {
        headers.remove(claim);
    }
    let value = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
    headers.insert(HeaderName::from_static(USER), value(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert(HeaderName::from_static(UID), value(&user.uid)?);
    }
    for group in &user.groups {
        headers.append(HeaderName::from_static(GROUP), value(group)?);
    }
    for (key, values) in &user.extra {
        let name = HeaderName::try_from(format!("{EXTRA_PREFIX}{}", escaped(key)));
        let name = name.map_err(|error| error.to_string())?;
        for text in values {
            headers.append(name.clone(), value(text)?);
        }
    }
    Ok(())
}

/// A key as the name of a header can have it: what it cannot have is percent-encoded, as upstream.
fn escaped(key: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    let mut text = String::new();
    for byte in key.to_ascii_lowercase().bytes() {
        match is_plain(byte) {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use hyper::{server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;

    use super::*;

    #[test]
    fn nobody_but_the_proxy_says_who_the_user_is() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("x-remote-user", "root"),
            ("x-remote-group", "system:masters"),
            ("x-remote-extra-scopes", "all"),
            ("impersonate-user", "root"),
            ("accept", "application/json"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut user = User::new("jane", &["devs", "system:authenticated"]);
        user.extra.insert("example.com/Scope".into(), vec!["read".into()]);
        identify(&mut headers, &user).unwrap();
        let mut all: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        all.sort();
        assert_eq!(
            all,
            [
                "accept: application/json",
                "x-remote-extra-example.com%2fscope: read",
                "x-remote-group: devs",
                "x-remote-group: system:authenticated",
                "x-remote-user: jane",
            ]
        );
    }

    #[tokio::test]
    async fn a_client_cannot_take_out_who_it_is() {
        let (near, far) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let told = service_fn(|request: Request<Incoming>| async move {
                let text = |name: &str| {
                    request.headers().get(name).cloned().unwrap_or(HeaderValue::from_static("-"))
                };
                let mut response = Response::new(Body::empty());
                for name in [USER, GROUP, "upgrade"] {
                    let saw = HeaderName::try_from(format!("saw-{name}")).unwrap();
                    response.headers_mut().insert(saw, text(name));
                }
                Ok::<_, std::convert::Infallible>(response)
            });
            http1::Builder::new().serve_connection(TokioIo::new(far), told).await
        });
        let mut request = Request::get("/apis")
            .header("connection", "X-Remote-User, X-Remote-Group, Upgrade")
            .header("upgrade", "SPDY/3.1")
            .body(Body::empty())
            .unwrap();
        identify(request.headers_mut(), &User::new("jane", &["devs"])).unwrap();
        let response = forward(request, async { Ok(near) }).await.unwrap();
        assert_eq!(response.headers()["saw-x-remote-user"], "jane");
        assert_eq!(response.headers()["saw-x-remote-group"], "devs");
        assert_eq!(response.headers()["saw-upgrade"], "SPDY/3.1");
    }
}

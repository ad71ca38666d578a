//! A small extension API server: it serves one kind, and believes what the API server's proxy says about users.

use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{StreamExt, stream};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use rustls::{RootCertStore, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

pub const GROUP_VERSION: &str = "wardle.example.com/v1";

/// A running server.
pub struct Extension {
    pub port: u16,
    pub bundle: String,
    #[allow(dead_code, reason = "stories look at the outcome")]
    pub seen: Seen,
}

/// The headers of every request that was let in.
pub type Seen = Arc<Mutex<Vec<HeaderMap>>>;

impl Extension {
    /// A server at 127.0.0.1.
    #[allow(dead_code, reason = "stories have machines of their own")]
    pub async fn start(front_proxy_ca: &str) -> Extension {
        Extension::on(TcpListener::bind("127.0.0.1:0").unwrap(), front_proxy_ca).await
    }

    /// A server at a socket with the name `wardle.default.svc`. It lets in whom `front_proxy_ca` (PEM) vouches for.
    pub async fn on(listener: TcpListener, front_proxy_ca: &str) -> Extension {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let made = rcgen::generate_simple_self_signed(["wardle.default.svc".to_string()]).unwrap();
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(front_proxy_ca.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let port = listener.local_addr().unwrap().port();
        let seen = Seen::default();
        let router = router(seen.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let peer = Peer(common_name(stream.get_ref().1.peer_certificates()));
                    let service = TowerToHyperService::new(router.layer(axum::Extension(peer)));
                    let served = hyper::server::conn::http1::Builder::new();
                    // A client that goes away is none of the server's business.
                    drop(served.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Extension { port, bundle: BASE64_STANDARD.encode(made.cert.pem()), seen }
    }
}

/// Whose certificate the other side has shown.
#[derive(Clone)]
struct Peer(Option<String>);

fn common_name(chain: Option<&[CertificateDer<'_>]>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(chain?.first()?).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_string())
}

fn router(seen: Seen) -> Router {
    Router::new()
        .route("/apis/wardle.example.com/v1", get(resources))
        .route("/apis/wardle.example.com/v1/namespaces/{namespace}/flunders", get(list).post(create))
        .route("/apis/wardle.example.com/v1/namespaces/{namespace}/flunders/{name}", get(one))
        .route("/openapi/v2", get(document))
        .route("/openapi/v3", get(index))
        .route("/openapi/v3/apis/wardle.example.com/v1", get(schemas))
        .with_state(seen.clone())
        .layer(middleware::from_fn_with_state(seen, let_in))
}

/// Only the proxy may come in.
async fn let_in(State(seen): State<Seen>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().and_then(|peer| peer.0.clone());
    if peer.as_deref() != Some("front-proxy-client") || !request.headers().contains_key("x-remote-user") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    seen.lock().unwrap().push(request.headers().clone());
    next.run(request).await
}

async fn resources() -> Response {
    let verbs = json!(["create", "get", "list", "watch"]);
    answer(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION,
        "resources": [{
            "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": verbs,
        }],
    }))
}

fn answer(value: Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

fn flunder(namespace: &str, name: &str) -> Value {
    json!({
        "kind": "Flunder", "apiVersion": GROUP_VERSION,
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": "1"},
    })
}

async fn list(
    Path(namespace): Path<String>,
    Query(query): Query<std::collections::HashMap<String, String>>,
) -> Response {
    if query.get("watch").is_some_and(|watch| watch == "true" || watch == "1") {
        let events = ["a", "b"].map(|name| {
            let event = json!({"type": "ADDED", "object": flunder(&namespace, name)});
            Ok::<_, std::convert::Infallible>(Bytes::from(format!("{event}\n")))
        });
        // Like a real watch, it does not end by itself.
        let events = stream::iter(events).chain(stream::pending());
        return Response::new(Body::from_stream(events));
    }
    answer(json!({
        "kind": "FlunderList", "apiVersion": GROUP_VERSION, "metadata": {"resourceVersion": "1"},
        "items": [flunder(&namespace, "a"), flunder(&namespace, "b")],
    }))
}

async fn create(object: Bytes) -> Response {
    (StatusCode::CREATED, answer(serde_json::from_slice(&object).unwrap())).into_response()
}

async fn one(Path((namespace, name)): Path<(String, String)>) -> Response {
    answer(flunder(&namespace, &name))
}

async fn index() -> Response {
    let url = "/openapi/v3/apis/wardle.example.com/v1?hash=1";
    answer(json!({"paths": {"apis/wardle.example.com/v1": {"serverRelativeURL": url}}}))
}

async fn document() -> Response {
    let flunder = json!({
        "description": "Something that flunds.", "type": "object",
        "properties": {"metadata": {"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}},
        "x-kubernetes-group-version-kind": [{"group": "wardle.example.com", "version": "v1", "kind": "Flunder"}],
    });
    let schema = json!({"$ref": "#/definitions/wardle.v1.Flunder"});
    let read = json!({"responses": {"200": {"description": "OK", "schema": schema}}});
    answer(json!({
        "swagger": "2.0",
        "info": {"title": "wardle", "version": "1"},
        "paths": {
            "/apis/wardle.example.com/v1/namespaces/{namespace}/flunders/{name}": {"get": read},
            "/version": {"get": {}},
        },
        "definitions": {
            "wardle.v1.Flunder": flunder,
            "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta": {"description": "Not ours."},
        },
    }))
}

async fn schemas() -> Response {
    let kind = json!({"group": "wardle.example.com", "version": "v1", "kind": "Flunder"});
    let flunder = json!({
        "type": "object",
        "description": "Something that flunds.",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "description": "What it flunds.",
                "properties": {"size": {"type": "integer"}},
            },
        },
        "x-kubernetes-group-version-kind": [kind],
    });
    answer(json!({
        "openapi": "3.0.0",
        "info": {"title": "wardle", "version": "1"},
        "paths": {
            "/apis/wardle.example.com/v1/namespaces/{namespace}/flunders": {
                "get": {"x-kubernetes-action": "list", "x-kubernetes-group-version-kind": kind},
            },
        },
        "components": {"schemas": {"wardle.v1.Flunder": flunder}},
    }))
}

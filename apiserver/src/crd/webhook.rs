//! One call of a webhook: JSON out, JSON back, over TLS with the authority that the configuration names.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use api::{Status, kinds};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::registry::Registry;

/// How long a webhook may take; upstream's limit.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long its answer may be.
const MAX_ANSWER: usize = 32 << 20;

/// Sends `request` to the webhook that a `clientConfig` describes.
pub(super) async fn call(registry: &Registry, client: &Value, request: &Value) -> Result<Value, String> {
    let place = Place::of(registry, client).await?;
    let shown = format!("Post {:?}", format!("https://{}{}", place.host, place.path));
    match tokio::time::timeout(PATIENCE, exchange(&place, client, request)).await {
        Ok(answer) => answer.map_err(|why| format!("{shown}: {why}")),
        Err(_) => Err(format!("{shown}: context deadline exceeded")),
    }
}

/// Where a webhook is.
struct Place {
    /// As the certificate and the `Host` header have it.
    host: String,
    path: String,
    addresses: Vec<SocketAddr>,
}

impl Place {
    async fn of(registry: &Registry, client: &Value) -> Result<Place, String> {
        if let Some(url) = client["url"].as_str() {
            let uri: Uri = url.parse().map_err(|_| format!("{url:?} is no URL"))?;
            let host = uri.host().ok_or_else(|| format!("{url:?} has no host"))?.to_string();
            let port = uri.port_u16().unwrap_or(443);
            let bare = host.trim_start_matches('[').trim_end_matches(']').to_string();
            let found = tokio::net::lookup_host((bare, port)).await;
            let addresses = found.map_err(|error| format!("dial tcp: lookup {host}: {error}"))?.collect();
            let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_string();
            return Ok(Place { host, path, addresses });
        }
        let service = &client["service"];
        let text = |field: &str| service[field].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let port = service["port"].as_u64().unwrap_or(443);
        let addresses = endpoints(registry, namespace, name, port).await.map_err(|status| status.message)?;
        let path = format!("/{}", text("path").trim_start_matches('/'));
        Ok(Place { host: format!("{name}.{namespace}.svc"), path, addresses })
    }
}

/// The ready endpoints of a Service, or the name that an ExternalName leads to.
async fn endpoints(
    registry: &Registry,
    namespace: &str,
    name: &str,
    port: u64,
) -> Result<Vec<SocketAddr>, Status> {
    let kind = |group, plural| kinds::find(group, "v1", plural).expect("a kind that is built in");
    let service = registry.get(kind("", "services"), namespace, name).await?;
    let slices = registry.list(kind("discovery.k8s.io", "endpointslices"), Some(namespace)).await?;
    crate::proxy::addresses_of_service(&service, &slices, &port.to_string())
}

async fn exchange(place: &Place, client: &Value, request: &Value) -> Result<Value, String> {
    let mut failure = "no addresses".to_string();
    for address in &place.addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return converse(stream, place, client, request).await,
            Err(error) => failure = format!("dial tcp {address}: {error}"),
        }
    }
    Err(failure)
}

async fn converse(
    stream: TcpStream,
    place: &Place,
    client: &Value,
    request: &Value,
) -> Result<Value, String> {
    let connector = TlsConnector::from(Arc::new(tls(client)?));
    let bare = place.host.trim_start_matches('[').trim_end_matches(']').to_string();
    let name = ServerName::try_from(bare).map_err(|error| error.to_string())?;
    let stream = connector.connect(name, stream).await.map_err(|error| format!("tls: {error}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let body = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    let request = Request::post(&place.path)
        .header(header::HOST, &place.host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let code = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        if !code.is_success() {
            return Err(format!("the server answered {code}: {}", String::from_utf8_lossy(&body)));
        }
        serde_json::from_slice(&body).map_err(|error| format!("the answer is no JSON: {error}"))
    };
    // The connection is driven for as long as the answer takes, and closed with it.
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

/// Trusts the authority of the configuration.
fn tls(client: &Value) -> Result<ClientConfig, String> {
    let bundle = client["caBundle"].as_str().unwrap_or_default();
    let pem = BASE64_STANDARD
        .decode(bundle)
        .map_err(|error| format!("unable to load root certificates: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate =
            certificate.map_err(|error| format!("unable to load root certificates: {error}"))?;
        roots.add(certificate).map_err(|error| format!("unable to load root certificates: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

//! What an extension API server says of itself: its resources, and where their schemas are.

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use super::{Aggregation, Service, proxy};
use crate::{registry::Registry, request::User};

/// How long a document of another server may be.
const MAX_DOCUMENT: usize = 16 << 20;

/// What is known of one server.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Offer {
    /// Its `APIResourceList`.
    pub(super) resources: Value,
    /// Where its OpenAPI v3 document is, with a hash; null when it has none.
    pub(super) schemas: Value,
}

/// Who asks.
pub(super) fn aggregator() -> User {
    User::new("system:kube-aggregator", &["system:masters"])
}

/// Asks a server what it offers; the error is upstream's message about a failed check.
pub(super) async fn ask(
    aggregation: &Aggregation,
    registry: &Registry,
    service: &Service,
) -> Result<Offer, String> {
    let root = service.root();
    let (code, body) = get(aggregation, registry, service, &root).await.map_err(|why| {
        format!("failing or missing response from https://{}{root}: {why}", service.target.authority)
    })?;
    if !code.is_success() {
        return Err(format!(
            "failing or missing response from https://{}{root}: bad status from https://{}{root}: {}",
            service.target.authority,
            service.target.authority,
            code.as_u16()
        ));
    }
    let resources = serde_json::from_slice(&body).unwrap_or_default();
    // A server without schemas is a good server.
    let index = match get(aggregation, registry, service, "/openapi/v3").await {
        Ok((code, body)) if code.is_success() => serde_json::from_slice(&body).unwrap_or_default(),
        _ => Value::Null,
    };
    let schemas = index["paths"][root.trim_start_matches('/')].clone();
    Ok(Offer { resources, schemas })
}

async fn get(
    aggregation: &Aggregation,
    registry: &Registry,
    service: &Service,
    path: &str,
) -> Result<(StatusCode, Bytes), String> {
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(header::ACCEPT, "application/json")
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let response = proxy::send(aggregation, registry, service, &aggregator(), request).await;
    let response =
        response.map_err(|error| format!("Get \"https://{}{path}\": {error}", service.target.authority))?;
    let code = response.status();
    let body = Limited::new(response.into_body(), MAX_DOCUMENT).collect().await;
    Ok((code, body.map_err(|error| error.to_string())?.to_bytes()))
}

//! What an extension API server says of itself: its resources, and where their schemas are.

use std::sync::Arc;

use api::openapi::Part;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header, response::Parts};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use super::{Aggregation, Service, proxy, schemas};
use crate::{registry::Registry, request::User};

/// How long a document of another server may be.
pub(super) const MAX_DOCUMENT: usize = 16 << 20;

/// What is known of one server.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Offer {
    /// Its `APIResourceList`.
    pub(super) resources: Value,
    /// Where its OpenAPI v3 document is, with a hash; null when it has none.
    pub(super) schemas: Value,
    /// What it adds to the document of OpenAPI v2.
    pub(super) document: Arc<Document>,
}

/// The part of an OpenAPI v2 document that is about a server's group.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Document {
    pub(super) part: Part,
    /// By which the server knows whether we have its newest document.
    tag: Option<HeaderValue>,
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
    let document = document(aggregation, registry, service).await;
    Ok(Offer { resources, schemas, document })
}

/// The server's document, or what we have of it when that is the newest or it gives none.
async fn document(aggregation: &Aggregation, registry: &Registry, service: &Service) -> Arc<Document> {
    let known = aggregation.offer(&service.name).map(|offer| offer.document.clone()).unwrap_or_default();
    let answer = get_unless(aggregation, registry, service, "/openapi/v2", known.tag.as_ref()).await;
    let Ok((parts, body)) = answer else { return known };
    if !parts.status.is_success() {
        return known;
    }
    let document: Value = serde_json::from_slice(&body).unwrap_or_default();
    let part = schemas::part_of(&document, &service.group, &service.version);
    Arc::new(Document { part, tag: parts.headers.get(header::ETAG).cloned() })
}

async fn get(
    aggregation: &Aggregation,
    registry: &Registry,
    service: &Service,
    path: &str,
) -> Result<(StatusCode, Bytes), String> {
    let (parts, body) = get_unless(aggregation, registry, service, path, None).await?;
    Ok((parts.status, body))
}

/// Asks for a document, unless it is the one with this tag.
async fn get_unless(
    aggregation: &Aggregation,
    registry: &Registry,
    service: &Service,
    path: &str,
    tag: Option<&HeaderValue>,
) -> Result<(Parts, Bytes), String> {
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(header::ACCEPT, "application/json")
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    if let Some(tag) = tag {
        request.headers_mut().insert(header::IF_NONE_MATCH, tag.clone());
    }
    let response = proxy::send(aggregation, registry, service, &aggregator(), request).await;
    let response =
        response.map_err(|error| format!("Get \"https://{}{path}\": {error}", service.target.authority))?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, MAX_DOCUMENT).collect().await;
    Ok((parts, body.map_err(|error| error.to_string())?.to_bytes()))
}

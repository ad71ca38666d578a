//! Paths that are no resources: discovery, OpenAPI, version, health, metrics, and what the binary adds.

use api::{Status, openapi};
use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower::ServiceExt;

use super::State;
use crate::{
    answer::{self, Wanted},
    discovery,
    request::{Query, RequestInfo, User},
};

/// The version that clients are told.
const GIT_VERSION: &str = "v1.37.0+coracle";

/// Answers a request for a path that is no resource.
pub(super) async fn serve(
    state: &State,
    info: &RequestInfo,
    query: &Query,
    user: &User,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let request = match state.hooks.answers.connect(&state.registry, user, info, request).await {
        Ok(answer) => return answer,
        Err(request) => request,
    };
    if matches!(*request.method(), Method::GET | Method::HEAD)
        && let Some(answer) = known(state, info, query, request.headers()).await?
    {
        return Ok(answer);
    }
    match &state.extra {
        Some(router) => router.clone().oneshot(request).await.map_err(|never| match never {}),
        None => Ok(answer::text(StatusCode::NOT_FOUND, "404 page not found\n")),
    }
}

async fn known(
    state: &State,
    info: &RequestInfo,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Option<Response<Body>>, Status> {
    let segments: Vec<&str> = info.path.split('/').filter(|segment| !segment.is_empty()).collect();
    let document = match segments.as_slice() {
        [] => paths(),
        ["version"] => version(),
        ["metrics"] => {
            let mut response = answer::text(StatusCode::OK, daemon::metrics::render());
            let content_type = HeaderValue::from_static(daemon::metrics::CONTENT_TYPE);
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            return Ok(Some(response));
        }
        [endpoint @ ("healthz" | "livez" | "readyz"), check @ ..] => {
            return Ok(Some(health(state, endpoint, check, query).await));
        }
        ["api"] => discovery::core(headers),
        ["apis"] => discovery::groups(headers),
        ["api", version] => return resources(headers, query, "", version),
        ["apis", group] => match discovery::group(group) {
            Some(group) => group,
            None => return Err(Status::no_such_resource()),
        },
        ["apis", group, version] => return resources(headers, query, group, version),
        ["openapi", "v2"] => openapi::v2(api::kinds::KINDS),
        ["openapi", "v3"] => openapi::v3_index(api::kinds::KINDS),
        ["openapi", "v3", "api", version] => return openapi_v3(headers, query, "", version),
        ["openapi", "v3", "apis", group, version] => return openapi_v3(headers, query, group, version),
        _ => return Ok(None),
    };
    tagged(headers, query, &document).map(Some)
}

fn resources(headers: &HeaderMap, query: &Query, group: &str, version: &str) -> Result<Option<Response<Body>>, Status> {
    let list = discovery::resources(group, version).ok_or_else(Status::no_such_resource)?;
    tagged(headers, query, &list).map(Some)
}

fn openapi_v3(headers: &HeaderMap, query: &Query, group: &str, version: &str) -> Result<Option<Response<Body>>, Status> {
    let document = openapi::v3(group, version).ok_or_else(Status::no_such_resource)?;
    tagged(headers, query, &document).map(Some)
}

/// A document that changes seldom: clients that have it already are told so.
fn tagged(headers: &HeaderMap, query: &Query, document: &Value) -> Result<Response<Body>, Status> {
    let wanted = if document["kind"] == "APIGroupDiscoveryList" { Wanted::default() } else { Wanted::lenient(headers, query)? };
    let json = serde_json::to_vec(document).map_err(Status::internal)?;
    let tag = format!("\"{}\"", hex::encode_upper(Sha256::digest(&json)));
    let is_known = headers.get_all(header::IF_NONE_MATCH).iter().any(|known| known.as_bytes() == tag.as_bytes());
    let mut response = match is_known {
        true => answer::text(StatusCode::NOT_MODIFIED, ""),
        false => answer::document(StatusCode::OK, json.into(), &wanted)?,
    };
    let answer_headers = response.headers_mut();
    answer_headers.insert(header::ETAG, HeaderValue::from_str(&tag).map_err(Status::internal)?);
    answer_headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    if document["kind"] == "APIGroupDiscoveryList" {
        let content_type = HeaderValue::from_static(discovery::AGGREGATED);
        answer_headers.insert(header::CONTENT_TYPE, content_type);
    }
    Ok(response)
}

async fn health(state: &State, endpoint: &str, check: &[&str], query: &Query) -> Response<Body> {
    let mut checks = match endpoint {
        // Being alive does not depend on others.
        "livez" => std::collections::BTreeMap::new(),
        _ => state.health.checks(),
    };
    checks.insert("ping", true);
    checks.insert("etcd", state.registry.check_store().await.is_ok());
    if endpoint == "readyz" {
        checks.insert("shutdown", !state.stop.is_cancelled());
    }
    match check {
        [] => checks.retain(|name, _| !query.all("exclude").any(|excluded| excluded == *name)),
        [one] => checks.retain(|name, _| name == one),
        _ => checks.clear(),
    }
    if checks.is_empty() {
        return answer::text(StatusCode::NOT_FOUND, "404 page not found\n");
    }
    let (code, text) = daemon::health::report(endpoint, &checks, query.is_true("verbose"));
    let mut response = answer::text(code, text);
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "37",
        "emulationMajor": "1",
        "emulationMinor": "37",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": concat!("linux/", "amd64"),
    })
}

/// What can be asked for, as the root says.
fn paths() -> Value {
    let mut paths: Vec<String> = discovery::paths();
    let others = [
        "/healthz", "/healthz/etcd", "/healthz/ping", "/livez", "/livez/etcd", "/livez/ping", "/metrics",
        "/openapi/v2", "/openapi/v3", "/readyz", "/readyz/etcd", "/readyz/ping", "/readyz/shutdown", "/version",
    ];
    paths.extend(others.map(str::to_string));
    paths.sort_unstable();
    json!({ "paths": paths })
}

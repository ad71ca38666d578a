//! Paths that are no resources: discovery, OpenAPI, version, health, metrics, and what the binary adds.

use api::{Kind, Status, openapi};
use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower::ServiceExt;

use super::State;
use crate::{
    aggregation,
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
    if let Some((group, version)) = info.path.strip_prefix("/openapi/v3").and_then(aggregation::addressed)
        && let Some(service) = state.aggregation.find(&state.registry, group, version).await?
    {
        return state.aggregation.carry_on(&state.registry, &service, user, request).await;
    }
    let request = match state.hooks.answers.connect(&state.registry, user, info, request).await {
        Ok(answer) => return answer,
        Err(request) => request,
    };
    if let Some(answer) = known(state, info, query, request.headers()).await? {
        return match *request.method() {
            Method::GET | Method::HEAD => Ok(answer),
            _ => Err(Status::method_not_allowed()),
        };
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
    if matches!(segments.first(), Some(&"apis" | &"openapi")) {
        state.registry.kinds().loaded().await;
    }
    let kinds = &state.registry.kinds().all()[..];
    let document = match segments.as_slice() {
        [] => return tagged(headers, &Wanted::json(headers, query), &paths(kinds)).map(Some),
        ["version"] => {
            let wanted = Wanted::of_json(headers, query)?;
            return tagged(headers, &wanted, &version(state.commit)).map(Some);
        }
        ["metrics"] => {
            let mut response = answer::text(StatusCode::OK, daemon::metrics::render());
            let content_type = HeaderValue::from_static(daemon::metrics::CONTENT_TYPE);
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            return Ok(Some(response));
        }
        [endpoint @ ("healthz" | "livez" | "readyz"), check @ ..] => {
            return Ok(Some(health(state, endpoint, check, query).await));
        }
        ["debug", "api_priority_and_fairness", page] => {
            return Ok(state.fairness.page(page).map(|page| answer::text(StatusCode::OK, page)));
        }
        ["api"] => discovery::core(kinds, headers),
        ["apis"] => groups(state, kinds, headers).await?,
        ["api", version] => return resources(kinds, headers, query, "", version),
        ["apis", group] => {
            let all = groups(state, kinds, &HeaderMap::new()).await?;
            aggregation::named_group(&all, group).ok_or_else(Status::no_such_resource)?
        }
        ["apis", group, version] => return resources(kinds, headers, query, group, version),
        ["openapi", "v3"] => {
            let mut index = openapi::v3_index(&rows(kinds));
            aggregation::merge_openapi(&mut index, &state.aggregation.remotes(&state.registry).await?);
            return tagged(headers, &Wanted::json(headers, query), &index).map(Some);
        }
        ["openapi", rest @ ..] => {
            let others = match rest {
                ["v2"] => aggregation::schemas_of_others(&state.aggregation.remotes(&state.registry).await?),
                _ => openapi::Part::default(),
            };
            return schemas(rows(kinds), others, rest, query, headers).await;
        }
        _ => return Ok(None),
    };
    discovered(headers, query, &document).map(Some)
}

/// All groups, those of other servers included.
async fn groups(state: &State, kinds: &[&'static Kind], headers: &HeaderMap) -> Result<Value, Status> {
    let mut groups = discovery::groups(kinds, headers);
    let remotes = state.aggregation.remotes(&state.registry).await?;
    match groups["kind"] == "APIGroupList" {
        true => aggregation::merge_groups(&mut groups, &remotes),
        false => aggregation::merge_aggregated(&mut groups, &remotes),
    }
    Ok(groups)
}

fn rows(kinds: &[&'static Kind]) -> Vec<Kind> {
    kinds.iter().map(|kind| **kind).collect()
}

fn resources(
    kinds: &[&'static Kind],
    headers: &HeaderMap,
    query: &Query,
    group: &str,
    version: &str,
) -> Result<Option<Response<Body>>, Status> {
    let list = discovery::resources(kinds, group, version).ok_or_else(Status::no_such_resource)?;
    discovered(headers, query, &list).map(Some)
}

/// OpenAPI documents: large, made when they are asked for, and kept by clients.
async fn schemas(
    kinds: Vec<Kind>,
    others: openapi::Part,
    path: &[&str],
    query: &Query,
    headers: &HeaderMap,
) -> Result<Option<Response<Body>>, Status> {
    const JSON: &str = "application/json";
    let known = [JSON, openapi::V2_PROTOBUF, openapi::V2_PROTOBUF_OLD];
    let known = if *path == ["v2"] { &known[..] } else { &known[..1] };
    let Some(chosen) = answer::chosen(headers, known) else {
        // Upstream says no more than that.
        let mut response = answer::text(StatusCode::NOT_ACCEPTABLE, "");
        response.headers_mut().remove(header::CONTENT_TYPE);
        return Ok(Some(response));
    };
    let content_type = if chosen == JSON { JSON } else { openapi::V2_PROTOBUF };
    let make: Box<dyn FnOnce() -> Option<Vec<u8>> + Send> = match path {
        ["v2"] if chosen != JSON => Box::new(move || Some(openapi::v2_protobuf(&kinds, &others))),
        ["v2"] => Box::new(move || Some(openapi::v2_json(&kinds, &others))),
        ["v3", "api", version] => {
            let version = version.to_string();
            Box::new(move || openapi::v3_json(&kinds, "", &version))
        }
        ["v3", "apis", group, version] => {
            let (group, version) = (group.to_string(), version.to_string());
            Box::new(move || openapi::v3_json(&kinds, &group, &version))
        }
        _ => return Ok(None),
    };
    let made = tokio::task::spawn_blocking(make).await.map_err(Status::internal)?;
    let document = made.ok_or_else(Status::no_such_resource)?;
    let mut response = tagged_bytes(headers, document, |document| {
        let mut response = answer::text(StatusCode::OK, "");
        *response.body_mut() = Body::from(document);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok(response)
    })?;
    if query.get("hash").is_some() {
        // The address changes with the document.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    Ok(Some(response))
}

/// Groups, versions and resources, in the form that the client asked for.
fn discovered(headers: &HeaderMap, query: &Query, document: &Value) -> Result<Response<Body>, Status> {
    if document["kind"] != "APIGroupDiscoveryList" {
        return tagged(headers, &Wanted::of_discovery(headers, query)?, document);
    }
    let mut response = tagged(headers, &Wanted::default(), document)?;
    let content_type = HeaderValue::from_static(discovery::AGGREGATED);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

/// A document that changes seldom: clients that have it already are told so.
fn tagged(headers: &HeaderMap, wanted: &Wanted, document: &Value) -> Result<Response<Body>, Status> {
    let json = serde_json::to_vec(document).map_err(Status::internal)?;
    tagged_bytes(headers, json, |json| answer::document(StatusCode::OK, json.into(), wanted))
}

fn tagged_bytes(
    headers: &HeaderMap,
    document: Vec<u8>,
    answer: impl FnOnce(Vec<u8>) -> Result<Response<Body>, Status>,
) -> Result<Response<Body>, Status> {
    let tag = format!("\"{}\"", hex::encode_upper(Sha256::digest(&document)));
    let is_known =
        headers.get_all(header::IF_NONE_MATCH).iter().any(|known| known.as_bytes() == tag.as_bytes());
    let mut response = match is_known {
        true => answer::text(StatusCode::NOT_MODIFIED, ""),
        false => answer(document)?,
    };
    let answer_headers = response.headers_mut();
    answer_headers.insert(header::ETAG, HeaderValue::from_str(&tag).map_err(Status::internal)?);
    answer_headers.insert(header::VARY, HeaderValue::from_static("Accept"));
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

fn version(commit: &str) -> Value {
    json!({
        "major": "1",
        "minor": "37",
        "emulationMajor": "1",
        "emulationMinor": "37",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": commit,
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": concat!("linux/", "amd64"),
    })
}

/// What can be asked for, as the root says.
fn paths(kinds: &[&'static Kind]) -> Value {
    let mut paths: Vec<String> = discovery::paths(kinds);
    let others = [
        "/healthz",
        "/healthz/etcd",
        "/healthz/ping",
        "/livez",
        "/livez/etcd",
        "/livez/ping",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/readyz/etcd",
        "/readyz/ping",
        "/readyz/shutdown",
        "/version",
    ];
    paths.extend(others.map(str::to_string));
    paths.sort_unstable();
    json!({ "paths": paths })
}

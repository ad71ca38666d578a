//! From objects to HTTP responses, in the form that the client accepts.

mod list;
mod negotiate;
mod view;

use api::Status;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::Value;

pub(crate) use list::{ListMeta, list};
pub(crate) use negotiate::{Encoding, Form, Wanted, accepted};
pub(crate) use view::View;

/// A JSON document, encoded as the client wants it.
pub(crate) fn document(code: StatusCode, json: Bytes, wanted: &Wanted) -> Result<Response<Body>, Status> {
    let (content_type, bytes) = match wanted.encoding {
        Encoding::Json if wanted.pretty => ("application/json", pretty(&json)?),
        Encoding::Json => ("application/json", json),
        Encoding::Yaml => ("application/yaml", yaml(&json)?),
    };
    Ok(response(code, content_type, Body::from(bytes)))
}

/// Any JSON value, encoded as the client wants it.
pub(crate) fn value(code: StatusCode, value: &Value, wanted: &Wanted) -> Result<Response<Body>, Status> {
    document(code, serde_json::to_vec(value).map_err(Status::internal)?.into(), wanted)
}

/// Plain text.
pub(crate) fn text(code: StatusCode, text: impl Into<String>) -> Response<Body> {
    response(code, "text/plain; charset=utf-8", Body::from(text.into()))
}

/// A failure. Clients that accept no JSON get it, too.
pub(crate) fn failure(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = response(code, "application/json", Body::from(status.to_json().to_string()));
    let seconds = status.details.as_ref().and_then(|details| details.get("retryAfterSeconds"));
    if let Some(seconds) = seconds.and_then(Value::as_u64) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Tells the client what to think about, as `Warning` headers.
pub(crate) fn warn(headers: &mut HeaderMap, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            headers.append(header::WARNING, value);
        }
    }
}

fn response(code: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

fn pretty(json: &[u8]) -> Result<Bytes, Status> {
    let value: Value = serde_json::from_slice(json).map_err(Status::internal)?;
    let mut text = serde_json::to_string_pretty(&value).map_err(Status::internal)?;
    text.push('\n');
    Ok(text.into())
}

fn yaml(json: &[u8]) -> Result<Bytes, Status> {
    let value: Value = serde_json::from_slice(json).map_err(Status::internal)?;
    serde_yaml::to_string(&value).map(Bytes::from).map_err(Status::internal)
}

//! From objects to HTTP responses, in the form that the client accepts.

mod gzip;
mod layout;
mod list;
mod negotiate;
mod view;

use api::{Object, Status, protobuf};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use crate::registry::entry::Entry;
pub(crate) use list::{ListMeta, list};
use negotiate::{Count, MetaVersion};
pub(crate) use negotiate::{Encoding, Form, Offer, Wanted, accepted, chosen};
pub(crate) use view::View;

/// One object.
pub(crate) fn object(code: StatusCode, view: &View, entry: &Entry) -> Result<Response<Body>, Status> {
    view.expect(Count::One)?;
    match view.wanted.encoding {
        Encoding::Protobuf => Ok(whole(code, view.frame(entry)?.document(), &view.wanted)),
        _ => document(code, view.object(entry)?, &view.wanted),
    }
}

/// One object that is in no store.
pub(crate) fn made(code: StatusCode, view: &View, object: Object) -> Result<Response<Body>, Status> {
    view.expect(Count::One)?;
    value(code, &view.value_of(object), &view.wanted)
}

/// Objects that are in no store.
pub(crate) fn made_list(view: &View, objects: Vec<Object>) -> Result<Response<Body>, Status> {
    view.expect(Count::List)?;
    value(StatusCode::OK, &view.list_of(objects), &view.wanted)
}

/// A JSON document, encoded as the client wants it.
pub(crate) fn document(code: StatusCode, json: Bytes, wanted: &Wanted) -> Result<Response<Body>, Status> {
    let bytes = match wanted.encoding {
        Encoding::Json if wanted.pretty => layout::pretty(&json)?,
        Encoding::Json => json,
        Encoding::Yaml => layout::yaml(&json)?,
        Encoding::Protobuf => {
            let document = protobuf::document(&json).map_err(Status::internal)?;
            document.ok_or_else(|| protobuf::not_marshalable("*v1.Unknown"))?.into()
        }
    };
    Ok(whole(code, bytes, wanted))
}

/// An answer that is there as a whole, packed if it is worth it.
fn whole(code: StatusCode, bytes: Bytes, wanted: &Wanted) -> Response<Body> {
    let content_type = wanted.encoding.media_type();
    match wanted.gzip && bytes.len() > gzip::WORTH_PACKING {
        true => {
            gzip::mark(response(code, content_type, Body::new(gzip::Packed::new(Some(bytes).into_iter()))))
        }
        false => response(code, content_type, Body::from(bytes)),
    }
}

/// Any JSON value, encoded as the client wants it.
pub(crate) fn value(code: StatusCode, value: &Value, wanted: &Wanted) -> Result<Response<Body>, Status> {
    document(code, serde_json::to_vec(value).map_err(Status::internal)?.into(), wanted)
}

/// Plain text.
pub(crate) fn text(code: StatusCode, text: impl Into<String>) -> Response<Body> {
    response(code, "text/plain; charset=utf-8", Body::from(text.into()))
}

/// A failure, as the client wants it or in JSON.
pub(crate) fn failure(status: &Status, wanted: &Wanted) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = status.to_json().to_string();
    let mut response = document(code, Bytes::from(json.clone()), wanted)
        .unwrap_or_else(|_| response(code, Encoding::Json.media_type(), Body::from(json)));
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

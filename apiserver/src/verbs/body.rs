//! Request bodies: read with a limit, decoded and checked against the kind.

use api::{
    Kind, Object, Status,
    decode::{self, Decoded, Faults},
    protobuf, schema,
};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::{audit, request::FieldValidation};

/// Upstream's limit of a request's body.
const MAX_BODY: usize = 3 << 20;
/// So much of a body that is too long is still taken: a client that is cut off while it sends does not read
/// why.
const MAX_DROPPED: usize = 64 << 20;

/// The whole body; 413 when it is too long. How long it may take is a matter of the request's time limit.
pub(super) async fn read(body: Body) -> Result<Bytes, Status> {
    let bytes = collect(body).await?;
    audit::saw_body(&bytes);
    Ok(bytes)
}

async fn collect(mut body: Body) -> Result<Bytes, Status> {
    let mut bytes = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Status::bad_request(format!("cannot read the request's body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > MAX_DROPPED {
            break;
        }
        if length > MAX_BODY {
            bytes.clear();
        } else if bytes.is_empty() && body.is_end_stream() {
            // Most bodies come in one piece.
            return Ok(data);
        } else {
            bytes.extend_from_slice(&data);
        }
    }
    match length > MAX_BODY {
        false => Ok(bytes.freeze()),
        true => {
            let message = format!("Request entity too large: limit is {MAX_BODY}");
            Err(Status::new(413, "RequestEntityTooLarge", message))
        }
    }
}

/// `Content-Type` without parameters; empty when absent.
pub(super) fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// An object out of a body, and warnings about fields that were dropped.
pub(super) fn object(
    kind: &Kind,
    headers: &HeaderMap,
    body: &[u8],
    validation: FieldValidation,
) -> Result<(Object, Vec<String>), Status> {
    if kind.custom.is_some() && content_type(headers) == protobuf::CONTENT_TYPE {
        // A kind of the same name may be built in.
        let why = protobuf::not_marshalable("*unstructured.Unstructured").message;
        let what = format!("{0} in version {1:?} cannot be handled as a {0}", kind.kind, kind.version);
        return Err(Status::bad_request(format!("{what}: {why}")));
    }
    object_of_any(kind, &[], headers, body, validation)
}

/// The same for a kind that also has these versions, which read alike.
pub(super) fn object_of_any(
    kind: &Kind,
    versions: &[&str],
    headers: &HeaderMap,
    body: &[u8],
    validation: FieldValidation,
) -> Result<(Object, Vec<String>), Status> {
    let decoded = decoded(headers, body, schema::of(kind))?;
    let mut object = decoded.object;
    if kind.custom.is_some() {
        expect_named(kind, &object, body)?;
    }
    if versions.contains(&object.api_version()) {
        object.set(&["apiVersion"], kind.api_version());
    }
    decode::expect_kind(&mut object, kind)?;
    let warnings = judge(kind, decoded.faults, validation)?;
    Ok((object, warnings))
}

/// Custom resources have no type that tells their kind: they have to say it.
fn expect_named(kind: &Kind, object: &Object, body: &[u8]) -> Result<(), Status> {
    let missing = match (object.kind(), object.api_version()) {
        ("", _) => "Kind",
        (_, "") => "apiVersion",
        _ => return Ok(()),
    };
    let found = if object.kind().is_empty() { kind.kind } else { object.kind() };
    Err(Status::bad_request(format!(
        "{found} in version {:?} cannot be handled as a {}: Object '{missing}' is missing in '{}'",
        kind.version,
        kind.kind,
        String::from_utf8_lossy(body.trim_ascii())
    )))
}

/// A body in any of the forms that are known.
pub(super) fn decoded(
    headers: &HeaderMap,
    body: &[u8],
    schema: Option<&'static schema::Schema>,
) -> Result<Decoded, Status> {
    match content_type(headers) {
        content_type if content_type == protobuf::CONTENT_TYPE => decode::protobuf(body, schema),
        content_type => decode::decode(body, &content_type, schema),
    }
}

/// What becomes of unknown and repeated fields.
pub(super) fn judge(kind: &Kind, faults: Faults, validation: FieldValidation) -> Result<Vec<String>, Status> {
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(faults.warnings()),
        FieldValidation::Strict if faults.is_empty() => Ok(Vec::new()),
        FieldValidation::Strict => Err(Status::bad_request(format!(
            "{0} in version {1:?} cannot be handled as a {0}: strict decoding error: {2}",
            kind.kind, kind.version, faults
        ))),
    }
}

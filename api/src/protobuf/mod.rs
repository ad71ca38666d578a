//! Kubernetes' protobuf form (`application/vnd.kubernetes.protobuf`), in both directions: bodies are read into
//! JSON, and from there go the way of all bodies; answers are written from the JSON that is kept.
//!
//! There is no code for any kind. `fields.txt` has the messages with their field numbers, one a line, as
//! [`messages`] explains; [`read`] and [`write`] walk along it. A document is `k8s\0` and an `Unknown` message:
//! apiVersion and kind, then the object's own message as bytes. Fields are written in the order of the JSON; what
//! JSON leaves out is left out, which readers take for the zero value that upstream would have written.

mod envelope;
mod messages;
mod read;
mod scan;
mod special;
mod wire;
mod write;

use serde_json::Map;

use crate::{Object, Status};
pub use envelope::{Framed, ListParts, document, event, framed, item_length, list_parts, write_item};
pub use messages::Message;

/// What the `Content-Type` header says.
pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// The same for a watch.
pub const STREAM_TYPE: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// The first bytes of every document.
const MAGIC: &[u8] = b"k8s\0";
/// How deep messages may nest: some, such as a schema's items, are two messages and one level of JSON.
const DEPTH_LIMIT: usize = 2 * crate::decode::DEPTH_LIMIT;

/// Why a body cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodeError {
    /// What the body says that it is, if it came that far: apiVersion and kind.
    pub type_meta: Option<(String, String)>,
    /// In upstream's words.
    pub why: String,
}

/// Why JSON cannot be written: it does not fit its message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct EncodeError(String);

impl EncodeError {
    fn new(why: impl Into<String>) -> EncodeError {
        EncodeError(why.into())
    }
}

/// Reads a body.
pub fn decode(body: &[u8]) -> Result<Object, DecodeError> {
    let (api_version, kind, raw) =
        envelope::open(body).map_err(|why| DecodeError { type_meta: None, why })?;
    let mut map = Map::new();
    let read = match Message::of(&api_version, &kind) {
        Some(message) => read::message(message, raw, &mut map, 0),
        None => Err(format!("no kind {kind:?} is registered for version {api_version:?}")),
    };
    if let Err(why) = read {
        return Err(DecodeError { type_meta: Some((api_version, kind)), why });
    }
    map.insert("apiVersion".into(), api_version.into());
    map.insert("kind".into(), kind.into());
    Ok(Object(map))
}

/// What upstream says of objects that have no message.
pub fn not_marshalable(go_type: &str) -> Status {
    let why =
        "does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message";
    Status::new(406, "NotAcceptable", format!("object {go_type} {why}"))
}

#[cfg(test)]
mod tests;

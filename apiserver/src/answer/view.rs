//! One kind's objects in the form that a client asked for.

use std::borrow::Cow;

use api::{
    Kind, Object, Status,
    protobuf::{self, Message},
};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Encoding, Form, MetaVersion, Wanted, negotiate::Count};
use crate::{
    registry::{
        convert,
        encode::{Happened, event_line},
        entry::Entry,
        frame::Frame,
    },
    request::Query,
};

/// How objects of a kind are shown.
#[derive(Clone, Copy)]
pub(crate) struct View {
    pub(crate) kind: &'static Kind,
    pub(crate) wanted: Wanted,
    /// What a Table says of each object beside its cells.
    rows: Rows,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    Nothing,
    Metadata,
    Object,
}

impl View {
    /// How `query` and what was negotiated want it.
    pub(crate) fn new(kind: &'static Kind, wanted: Wanted, query: &Query) -> Result<View, Status> {
        let rows = match query.get("includeObject") {
            None | Some("Metadata") => Rows::Metadata,
            Some("None") => Rows::Nothing,
            Some("Object") => Rows::Object,
            Some(other) => {
                return Err(Status::bad_request(format!(
                    "unrecognized includeObject value: {other:?}: must be one of \"None\", \"Metadata\", \"Object\""
                )));
            }
        };
        Ok(View { kind, wanted, rows })
    }

    /// 406 when a list is asked for as if it were one object, or the other way round.
    pub(super) fn expect(&self, found: Count) -> Result<(), Status> {
        let what = match (self.wanted.count, found) {
            (Some(Count::One), Count::List) => "PartialObjectMetadata, but the requested object is a list",
            (Some(Count::List), Count::One) => {
                "PartialObjectMetadataList, but the requested object is not a list"
            }
            _ => return Ok(()),
        };
        let message = format!("you requested {what} ({})", self.go_type(found));
        Err(Status::new(406, "NotAcceptable", message))
    }

    /// Upstream's own type of what is shown.
    fn go_type(&self, count: Count) -> String {
        let suffix = if count == Count::List { "List" } else { "" };
        let package = match self.kind.group {
            _ if self.kind.custom.is_some() => return format!("*unstructured.Unstructured{suffix}"),
            "" | "events.k8s.io" => "core",
            group => group.split('.').next().unwrap_or_default(),
        };
        format!("*{package}.{}{suffix}", self.kind.kind)
    }

    /// Whether the bytes that are kept can be sent as they are.
    pub(crate) fn is_plain(&self) -> bool {
        let is_kept_so = convert::is_stored_as_it_is(self.kind)
            || self.kind.custom.is_some_and(|version| version.needs_webhook());
        self.wanted.form == Form::Whole && is_kept_so
    }

    /// One object as JSON.
    pub(crate) fn object(&self, entry: &Entry) -> Result<Bytes, Status> {
        match self.wanted.form {
            Form::Whole if self.is_plain() => Ok(entry.bytes()),
            Form::Metadata => Ok(self.partial(entry.metadata()?)),
            Form::Whole | Form::Table => encoded(&self.value_of(entry.decode_as(self.kind)?)),
        }
    }

    /// One object, which may be in no store.
    pub(crate) fn value_of(&self, object: Object) -> Value {
        match self.wanted.form {
            Form::Whole => object.into_value(),
            Form::Metadata => self.metadata_of(&object),
            Form::Table => {
                let mut table = self.table_head(json!({"resourceVersion": object.resource_version()}));
                table.insert("rows".into(), json!([self.row(&object)]));
                table.into()
            }
        }
    }

    /// Objects that are in no store.
    pub(crate) fn list_of(&self, objects: Vec<Object>) -> Value {
        if self.wanted.form == Form::Table {
            let mut table = self.table_head(json!({}));
            table.insert("rows".into(), objects.iter().map(|object| self.row(object)).collect());
            return table.into();
        }
        let (api_version, kind) = self.list_meta();
        let items: Vec<Value> = objects.into_iter().map(|object| self.value_of(object)).collect();
        json!({"kind": kind, "apiVersion": api_version, "metadata": {}, "items": items})
    }

    /// One object in protobuf: kept by the entry, unless it is kept as another version of itself.
    pub(crate) fn frame<'a>(&self, entry: &'a Entry) -> Result<Cow<'a, Frame>, Status> {
        let message = self.message()?;
        let (api_version, kind) = self.type_meta();
        let names = (api_version.as_str(), kind);
        let make = |happened, json: &[u8]| Frame::new(happened, names, message, json);
        match self.wanted.form {
            Form::Whole if !self.is_plain() => {
                let json = self.object(entry)?;
                make(Happened::Modified, &json).map(Cow::Owned)
            }
            Form::Whole => entry.frame(|frames| &frames.whole, make).map(Cow::Borrowed),
            // Kept in the version that clients have asked for in the last years.
            _ if self.wanted.meta != MetaVersion::V1 => {
                make(Happened::Modified, &self.object(entry)?).map(Cow::Owned)
            }
            _ => entry.frame(|frames| &frames.metadata, make).map(Cow::Borrowed),
        }
    }

    /// An item of a list in JSON.
    pub(super) fn item<'a>(&self, entry: &'a Entry) -> Result<Cow<'a, [u8]>, Status> {
        Ok(match self.wanted.form {
            Form::Whole if self.is_plain() => Cow::Borrowed(entry.json()),
            Form::Table => Cow::Owned(encoded(&self.row(&entry.decode_as(self.kind)?))?.into()),
            _ => Cow::Owned(self.object(entry)?.into()),
        })
    }

    /// One object as an event of a watch.
    pub(crate) fn event(&self, happened: Happened, entry: &Entry) -> Result<Bytes, Status> {
        match self.wanted.encoding {
            Encoding::Protobuf => Ok(self.frame(entry)?.saying(happened)),
            _ if self.is_plain() => Ok(entry.event(happened)),
            _ => Ok(event_line(happened.word(), &self.object(entry)?)),
        }
    }

    /// An event that tells how far a watch is.
    pub(crate) fn bookmark(
        &self,
        revision: store::Revision,
        ends_initial_events: bool,
    ) -> Result<Bytes, Status> {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if ends_initial_events {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (api_version, kind) = self.type_meta();
        let value = match self.wanted.form {
            Form::Whole | Form::Metadata => {
                json!({"kind": kind, "apiVersion": api_version, "metadata": metadata})
            }
            Form::Table => {
                let mut table = self.table_head(metadata);
                table.insert("rows".into(), json!([]));
                table.into()
            }
        };
        self.other_event("BOOKMARK", &value)
    }

    /// An event that tells why a watch ends.
    pub(crate) fn error(&self, status: &Status) -> Bytes {
        let status = status.to_json();
        // A Status has a message, so this cannot fail but in JSON.
        self.other_event("ERROR", &status)
            .unwrap_or_else(|_| event_line("ERROR", status.to_string().as_bytes()))
    }

    fn other_event(&self, word: &str, value: &Value) -> Result<Bytes, Status> {
        let json = encoded(value)?;
        match self.wanted.encoding {
            Encoding::Protobuf => {
                let document = protobuf::document(&json).map_err(Status::internal)?;
                let document = document.ok_or_else(|| self.not_marshalable())?;
                Ok(protobuf::event(word, &document).into())
            }
            _ => Ok(event_line(word, &json)),
        }
    }

    /// The content type of a watch.
    pub(crate) fn stream_type(&self) -> &'static str {
        match self.wanted.encoding {
            Encoding::Protobuf => protobuf::STREAM_TYPE,
            encoding => encoding.media_type(),
        }
    }

    /// apiVersion and kind of one object.
    fn type_meta(&self) -> (String, &'static str) {
        match self.wanted.form {
            Form::Metadata => (self.meta().into(), "PartialObjectMetadata"),
            Form::Table => (self.meta().into(), "Table"),
            Form::Whole => (self.kind.api_version(), self.kind.kind),
        }
    }

    /// apiVersion and kind of a list.
    pub(super) fn list_meta(&self) -> (String, String) {
        match self.wanted.form {
            Form::Metadata => (self.meta().into(), "PartialObjectMetadataList".into()),
            Form::Table => (self.meta().into(), "Table".into()),
            Form::Whole => (self.kind.api_version(), self.kind.list_kind()),
        }
    }

    fn message(&self) -> Result<&'static Message, Status> {
        let (api_version, kind) = self.type_meta();
        let message = Message::of(&api_version, kind);
        message.ok_or_else(|| self.not_marshalable())
    }

    fn not_marshalable(&self) -> Status {
        protobuf::not_marshalable(&format!("*{}.{}", self.kind.version, self.kind.kind))
    }

    /// A Table without its rows.
    pub(super) fn table_head(&self, metadata: Value) -> Map<String, Value> {
        let head = json!({
            "kind": "Table",
            "apiVersion": self.meta(),
            "metadata": metadata,
            "columnDefinitions": api::table::definitions(self.kind),
        });
        let Value::Object(head) = head else { return Map::new() };
        head
    }

    fn row(&self, object: &Object) -> Value {
        let now = jiff::Timestamp::now();
        let mut row = api::table::row(self.kind, object, now, self.rows == Rows::Object);
        if let (Rows::Nothing, Some(row)) = (self.rows, row.as_object_mut()) {
            row.remove("object");
        }
        if self.rows == Rows::Metadata {
            row["object"]["apiVersion"] = self.meta().into();
        }
        row
    }

    /// The version of what can be said of all kinds.
    fn meta(&self) -> &'static str {
        self.wanted.meta.api_version()
    }

    /// The metadata of an object, whatever kind it is.
    fn partial(&self, metadata: &[u8]) -> Bytes {
        let head = format!(r#"{{"kind":"PartialObjectMetadata","apiVersion":"{}","metadata":"#, self.meta());
        [head.as_bytes(), metadata, b"}"].concat().into()
    }

    /// The same of an object that is in no store.
    fn metadata_of(&self, object: &Object) -> Value {
        let metadata = object.0.get("metadata");
        json!({"kind": "PartialObjectMetadata", "apiVersion": self.meta(), "metadata": metadata})
    }
}

fn encoded(value: &Value) -> Result<Bytes, Status> {
    serde_json::to_vec(value).map(Bytes::from).map_err(Status::internal)
}

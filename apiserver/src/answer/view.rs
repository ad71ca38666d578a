//! One kind's objects in the form that a client asked for.

use api::{Kind, Object, Status};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Form, Wanted};
use crate::{
    registry::{
        convert,
        encode::{Happened, event_line},
        entry::Entry,
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

    /// Whether the bytes that are kept can be sent as they are.
    pub(crate) fn is_plain(&self) -> bool {
        let is_kept_so = convert::is_stored_as_it_is(self.kind)
            || self.kind.custom.is_some_and(|version| version.needs_webhook());
        self.wanted.form == Form::Whole && is_kept_so
    }

    /// One object as JSON.
    pub(crate) fn object(&self, entry: &Entry) -> Result<Bytes, Status> {
        if self.is_plain() {
            return Ok(entry.bytes());
        }
        encoded(&self.value_of(entry.decode_as(self.kind)?))
    }

    /// One object, as it is in no store.
    pub(crate) fn value_of(&self, object: Object) -> Value {
        match self.wanted.form {
            Form::Whole => object.into_value(),
            Form::Metadata => metadata_of(&object),
            Form::Table => {
                let version = object.resource_version().to_string();
                self.table(std::slice::from_ref(&object), json!({"resourceVersion": version}))
            }
        }
    }

    /// One object as a line of a watch stream.
    pub(crate) fn event(&self, happened: Happened, entry: &Entry) -> Result<Bytes, Status> {
        if self.is_plain() {
            return Ok(entry.event(happened));
        }
        let word = match happened {
            Happened::Added => "ADDED",
            Happened::Modified => "MODIFIED",
            Happened::Deleted => "DELETED",
        };
        Ok(event_line(word, &self.object(entry)?))
    }

    /// A line that tells how far a watch is.
    pub(crate) fn bookmark(
        &self,
        revision: store::Revision,
        ends_initial_events: bool,
    ) -> Result<Bytes, Status> {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if ends_initial_events {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let value = match self.wanted.form {
            Form::Whole => {
                json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata})
            }
            Form::Metadata => partial(metadata),
            Form::Table => self.table(&[], metadata),
        };
        Ok(event_line("BOOKMARK", &encoded(&value)?))
    }

    /// Many objects in a form other than the one that is kept.
    pub(crate) fn rendered_list(
        &self,
        entries: &[std::sync::Arc<Entry>],
        metadata: Map<String, Value>,
    ) -> Result<Value, Status> {
        let objects: Result<Vec<Object>, Status> =
            entries.iter().map(|entry| entry.decode_as(self.kind)).collect();
        Ok(self.list_of(objects?, metadata))
    }

    /// Objects as a list.
    pub(crate) fn list_of(&self, objects: Vec<Object>, metadata: Map<String, Value>) -> Value {
        let list = |api_version: &str, kind: &str, items: Vec<Value>| json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items});
        match self.wanted.form {
            Form::Whole => {
                let items = objects.into_iter().map(Object::into_value).collect();
                list(&self.kind.api_version(), &self.kind.list_kind(), items)
            }
            Form::Metadata => {
                let items = objects.iter().map(metadata_of).collect();
                list("meta.k8s.io/v1", "PartialObjectMetadataList", items)
            }
            Form::Table => self.table(&objects, Value::Object(metadata)),
        }
    }

    fn table(&self, objects: &[Object], metadata: Value) -> Value {
        let now = jiff::Timestamp::now();
        let mut table = api::table::render(self.kind, objects, now, metadata, self.rows == Rows::Object);
        if self.rows == Rows::Nothing {
            for row in table.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
                row.as_object_mut().map(|row| row.remove("object"));
            }
        }
        table
    }
}

fn metadata_of(object: &Object) -> Value {
    partial(object.0.get("metadata").cloned().unwrap_or_default())
}

fn partial(metadata: Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

fn encoded(value: &Value) -> Result<Bytes, Status> {
    serde_json::to_vec(value).map(Bytes::from).map_err(Status::internal)
}

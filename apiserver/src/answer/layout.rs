//! How a list is laid out in each encoding: what is before, between and behind its items.

use api::{Status, protobuf};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::{Encoding, Form, View};
use crate::registry::entry::Entry;

/// What is around the items.
pub(super) struct Layout {
    pub(super) head: Vec<u8>,
    pub(super) separator: &'static [u8],
    pub(super) tail: Vec<u8>,
    /// The number of the field that items are in protobuf.
    pub(super) item: u32,
}

impl Layout {
    /// Of a list with this `metadata`. Protobuf needs to know how many bytes the `items` take.
    pub(super) fn new(
        view: &View,
        metadata: Map<String, Value>,
        is_empty: bool,
        items: usize,
    ) -> Result<Layout, Status> {
        match view.wanted.encoding {
            Encoding::Json => Layout::json(view, metadata, is_empty),
            Encoding::Yaml => Layout::yaml(view, metadata, is_empty),
            Encoding::Protobuf => Layout::protobuf(view, metadata, items),
        }
    }

    fn json(view: &View, metadata: Map<String, Value>, is_empty: bool) -> Result<Layout, Status> {
        let (api_version, kind) = view.list_meta();
        let text = |value: &Value| serde_json::to_string(value).map_err(Status::internal);
        let metadata = Value::Object(metadata);
        let columns = (view.wanted.form == Form::Table).then(|| api::table::definitions(view.kind));
        let list = items_name(view.wanted.form);
        if !view.wanted.pretty {
            let columns = columns.as_ref().map(text).transpose()?;
            let columns =
                columns.map(|columns| format!(r#","columnDefinitions":{columns}"#)).unwrap_or_default();
            let metadata = text(&metadata)?;
            let head = format!(
                r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata}{columns},"{list}":["#
            );
            return Ok(Layout { head: head.into(), separator: b",", tail: b"]}\n".into(), item: 0 });
        }
        let pretty = |value: &Value| -> Result<String, Status> {
            let text = serde_json::to_string_pretty(value).map_err(Status::internal)?;
            Ok(text.replace('\n', "\n  "))
        };
        let columns = columns.as_ref().map(pretty).transpose()?;
        let columns =
            columns.map(|columns| format!(",\n  \"columnDefinitions\": {columns}")).unwrap_or_default();
        let metadata = pretty(&metadata)?;
        let head = format!(
            "{{\n  \"kind\": \"{kind}\",\n  \"apiVersion\": \"{api_version}\",\n  \"metadata\": {metadata}{columns},\n  \"{list}\": ["
        );
        let tail = if is_empty { "]\n}\n" } else { "\n  ]\n}\n" };
        Ok(Layout { head: head.into(), separator: b",", tail: tail.into(), item: 0 })
    }

    /// In alphabetical order, as upstream's.
    fn yaml(view: &View, metadata: Map<String, Value>, is_empty: bool) -> Result<Layout, Status> {
        let (api_version, kind) = view.list_meta();
        let list = items_name(view.wanted.form);
        let mut before = Map::new();
        let mut after = Map::new();
        before.insert("apiVersion".into(), api_version.into());
        if view.wanted.form == Form::Table {
            before.insert("columnDefinitions".into(), api::table::definitions(view.kind));
        }
        // Rows come behind the rest, items before.
        let rest = if view.wanted.form == Form::Table { &mut before } else { &mut after };
        rest.insert("kind".into(), kind.into());
        rest.insert("metadata".into(), metadata.into());
        let text = |map: Map<String, Value>| match map.is_empty() {
            true => Ok(String::new()),
            false => serde_yaml::to_string(&map).map_err(Status::internal),
        };
        let opening = if is_empty { format!("{list}: []\n") } else { format!("{list}:\n") };
        let head = (text(before)? + &opening).into();
        Ok(Layout { head, separator: b"", tail: text(after)?.into(), item: 0 })
    }

    fn protobuf(view: &View, metadata: Map<String, Value>, items: usize) -> Result<Layout, Status> {
        let (api_version, kind) = view.list_meta();
        let metadata = serde_json::to_vec(&metadata).map_err(Status::internal)?;
        let parts = protobuf::list_parts(&api_version, &kind, &metadata, items).map_err(Status::internal)?;
        Ok(Layout { head: parts.head, separator: b"", tail: parts.tail.into(), item: parts.item })
    }

    /// Appends an item.
    pub(super) fn write_item(&self, view: &View, entry: &Entry, out: &mut Vec<u8>) -> Result<(), Status> {
        match view.wanted.encoding {
            Encoding::Json if view.wanted.pretty => {
                let item = pretty(&view.item(entry)?)?;
                for line in item.trim_ascii_end().split(|byte| *byte == b'\n') {
                    out.extend_from_slice(b"\n    ");
                    out.extend_from_slice(line);
                }
            }
            Encoding::Json => out.extend_from_slice(&view.item(entry)?),
            Encoding::Yaml => {
                let item = yaml(&view.item(entry)?)?;
                for (index, line) in item.trim_ascii_end().split(|byte| *byte == b'\n').enumerate() {
                    let indent: &[u8] = match (index, line) {
                        (0, _) => b"- ",
                        (_, b"") => b"",
                        _ => b"  ",
                    };
                    out.extend_from_slice(indent);
                    out.extend_from_slice(line);
                    out.push(b'\n');
                }
            }
            Encoding::Protobuf => protobuf::write_item(self.item, view.frame(entry)?.message(), out),
        }
        Ok(())
    }
}

fn items_name(form: Form) -> &'static str {
    if form == Form::Table { "rows" } else { "items" }
}

/// JSON with line breaks.
pub(super) fn pretty(json: &[u8]) -> Result<Bytes, Status> {
    let value: Value = serde_json::from_slice(json).map_err(Status::internal)?;
    let mut text = serde_json::to_string_pretty(&value).map_err(Status::internal)?;
    text.push('\n');
    Ok(text.into())
}

/// JSON as YAML.
pub(super) fn yaml(json: &[u8]) -> Result<Bytes, Status> {
    let value: Value = serde_json::from_slice(json).map_err(Status::internal)?;
    serde_yaml::to_string(&value).map(Bytes::from).map_err(Status::internal)
}

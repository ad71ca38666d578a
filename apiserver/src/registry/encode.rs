//! Objects as bytes: encoded once when written, kept with their resourceVersion, sent as they are.
//!
//! The store's value has no resourceVersion (it is the store's own revision, unknown until after the
//! write). What the cache keeps is a whole line of a watch stream with the version spliced in:
//! `{"type":"MODIFIED","object":{...}}\n`; the object is a slice of it. So a get, a list item and
//! a watch event are all the same allocation.

use api::{Kind, Object, Status, scan};
use bytes::Bytes;
use serde_json::Value;
use store::Revision;

/// What is never stored: the revision is the store's, the link is not kept.
const NOT_STORED: [&str; 2] = ["resourceVersion", "selfLink"];

/// What happened to an object, padded to one length, so that an event's bytes do not depend on it.
const ADDED: &[u8] = br#"{"type":"ADDED"   ,"object":"#;
const MODIFIED: &[u8] = br#"{"type":"MODIFIED","object":"#;
const DELETED: &[u8] = br#"{"type":"DELETED" ,"object":"#;
const LINE_END: &[u8] = b"}\n";

/// A line of a watch stream, and where in it things are.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) bytes: Bytes,
    /// Where the digits of the resourceVersion are; empty when there is none.
    version: (usize, usize),
}

/// What a line says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    Added,
    Modified,
    Deleted,
}

impl Happened {
    fn opening(self) -> &'static [u8] {
        match self {
            Happened::Added => ADDED,
            Happened::Modified => MODIFIED,
            Happened::Deleted => DELETED,
        }
    }

    /// As events say it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Happened::Added => "ADDED",
            Happened::Modified => "MODIFIED",
            Happened::Deleted => "DELETED",
        }
    }
}

impl Line {
    /// A stored value as a line; at revision 0, of an object that is not stored, without a version.
    /// `None` when the value is not a JSON object with metadata.
    pub(crate) fn of(value: &[u8], revision: Revision, happened: Happened) -> Option<Line> {
        let at = metadata_start(value)?;
        let mut bytes = Vec::with_capacity(ADDED.len() + value.len() + 48);
        bytes.extend_from_slice(happened.opening());
        bytes.extend_from_slice(&value[..at]);
        let mut version = (0, 0);
        if revision > Revision(0) {
            bytes.extend_from_slice(br#""resourceVersion":""#);
            let digits = bytes.len();
            bytes.extend_from_slice(revision.to_string().as_bytes());
            version = (digits, bytes.len());
            let is_empty = value[at..].trim_ascii_start().first() == Some(&b'}');
            bytes.extend_from_slice(if is_empty { b"\"" } else { b"\"," });
        }
        bytes.extend_from_slice(&value[at..]);
        bytes.extend_from_slice(LINE_END);
        Some(Line { bytes: bytes.into(), version })
    }

    /// The object alone; the same allocation.
    pub(crate) fn object(&self) -> Bytes {
        self.bytes.slice(ADDED.len()..self.bytes.len() - LINE_END.len())
    }

    /// The same, borrowed.
    pub(crate) fn object_slice(&self) -> &[u8] {
        &self.bytes[ADDED.len()..self.bytes.len() - LINE_END.len()]
    }

    /// What it says happened.
    pub(crate) fn happened(&self) -> Happened {
        let all = [Happened::Added, Happened::Modified, Happened::Deleted];
        all.into_iter()
            .find(|happened| self.bytes.starts_with(happened.opening()))
            .unwrap_or(Happened::Modified)
    }

    /// The line that says `happened`; the same allocation where it says so already.
    pub(crate) fn saying(&self, happened: Happened) -> Bytes {
        if self.bytes.starts_with(happened.opening()) {
            return self.bytes.clone();
        }
        let mut bytes = self.bytes.to_vec();
        bytes[..ADDED.len()].copy_from_slice(happened.opening());
        bytes.into()
    }

    /// The same object at another revision.
    pub(crate) fn at(&self, revision: Revision, happened: Happened) -> Line {
        let (start, end) = self.version;
        let digits = revision.to_string();
        let mut bytes = Vec::with_capacity(self.bytes.len() + digits.len());
        bytes.extend_from_slice(happened.opening());
        bytes.extend_from_slice(&self.bytes[ADDED.len()..start]);
        bytes.extend_from_slice(digits.as_bytes());
        bytes.extend_from_slice(&self.bytes[end..]);
        Line { bytes: bytes.into(), version: (start, start + digits.len()) }
    }
}

/// A line with any object in it.
pub(crate) fn event_line(happened: &str, object: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(object.len() + 40);
    bytes.extend_from_slice(br#"{"type":""#);
    bytes.extend_from_slice(happened.as_bytes());
    bytes.extend_from_slice(br#"","object":"#);
    bytes.extend_from_slice(object);
    bytes.extend_from_slice(LINE_END);
    bytes.into()
}

/// The value to store: type and metadata first, so that they are found at once.
pub(crate) fn value(kind: &Kind, object: &Object) -> Result<Bytes, Status> {
    write_value(kind, object).map(Bytes::from).map_err(Status::internal)
}

fn write_value(kind: &Kind, object: &Object) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4096);
    bytes.extend_from_slice(br#"{"apiVersion":"#);
    serde_json::to_writer(&mut bytes, &kind.api_version())?;
    bytes.extend_from_slice(br#","kind":"#);
    serde_json::to_writer(&mut bytes, kind.kind)?;
    bytes.extend_from_slice(br#","metadata":{"#);
    let metadata = object.0.get("metadata").and_then(Value::as_object);
    let kept = metadata.into_iter().flatten().filter(|(key, _)| !NOT_STORED.contains(&key.as_str()));
    for (index, (key, value)) in kept.enumerate() {
        write_member(&mut bytes, index > 0, key, value)?;
    }
    bytes.push(b'}');
    let others =
        object.0.iter().filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata"));
    for (key, value) in others {
        write_member(&mut bytes, true, key, value)?;
    }
    bytes.push(b'}');
    // It is kept for as long as the object is: no room beyond it.
    bytes.shrink_to_fit();
    Ok(bytes)
}

fn write_member(bytes: &mut Vec<u8>, comma: bool, key: &str, value: &Value) -> serde_json::Result<()> {
    if comma {
        bytes.push(b',');
    }
    serde_json::to_writer(&mut *bytes, key)?;
    bytes.push(b':');
    serde_json::to_writer(bytes, value)
}

/// Just behind the opening brace of the top-level `metadata`.
fn metadata_start(json: &[u8]) -> Option<usize> {
    let start = scan::find(json, &["metadata"])?;
    (json.get(start) == Some(&b'{')).then_some(start + 1)
}

/// The top-level `metadata` as it stands.
pub(crate) fn metadata(json: &[u8]) -> Option<&[u8]> {
    let start = metadata_start(json)? - 1;
    json.get(start..scan::value_end(json, start)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn a_line_holds_the_object_with_its_version() {
        let value = br#"{"data":{"metadata":"x\"{"},"kind":"ConfigMap", "metadata" : {"name":"a"}}"#;
        let line = Line::of(value, Revision(42), Happened::Added).unwrap();
        assert_eq!(
            parsed(&line.object())["metadata"],
            serde_json::json!({"name": "a", "resourceVersion": "42"})
        );
        assert_eq!(parsed(&line.bytes)["type"], "ADDED");
        let deleted = line.at(Revision(1000), Happened::Deleted);
        assert_eq!(parsed(&deleted.bytes)["type"], "DELETED");
        assert_eq!(parsed(&deleted.object())["metadata"]["resourceVersion"], "1000");
        assert_eq!(
            parsed(&deleted.at(Revision(7), Happened::Modified).object())["metadata"]["resourceVersion"],
            "7"
        );
        assert_eq!(parsed(&line.saying(Happened::Modified))["type"], "MODIFIED");
    }

    #[test]
    fn empty_metadata_and_no_version_are_fine() {
        let line = Line::of(br#"{"metadata":{ }}"#, Revision(3), Happened::Added).unwrap();
        assert_eq!(parsed(&line.object())["metadata"]["resourceVersion"], "3");
        let line = Line::of(br#"{"metadata":{"name":"a"}}"#, Revision(0), Happened::Added).unwrap();
        assert_eq!(parsed(&line.object()), serde_json::json!({"metadata": {"name": "a"}}));
    }

    #[test]
    fn metadata_is_found_as_it_stands() {
        let value = br#"{"a":["metadata",{}],"metadata":{"name":"}\"","labels":{"a":"["}},"spec":{}}"#;
        assert_eq!(metadata(value), Some(&br#"{"name":"}\"","labels":{"a":"["}}"#[..]));
        assert_eq!(metadata(br#"{"metadata":{"name":"#), None);
        assert_eq!(metadata(br#"{"spec":{}}"#), None);
    }

    #[test]
    fn what_is_no_object_with_metadata_is_no_line() {
        for value in [&b"k8s\0binary"[..], b"{}", b"", b"[]", br#"{"metadata":3}"#, br#"{"metadata"#] {
            assert!(Line::of(value, Revision(1), Happened::Added).is_none(), "{value:?}");
        }
    }
}

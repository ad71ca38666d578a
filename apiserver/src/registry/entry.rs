//! One object as the cache keeps it: the bytes that are served, and the few decoded parts that selectors ask for.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use api::{Kind, Object, Scope, Status};
use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use store::{KeyValue, Revision};

use super::{
    convert,
    encode::{self, Happened, Line},
    frame::{Frame, Frames},
    key,
};

/// An object at one revision. Never changes.
#[derive(Debug)]
pub(crate) struct Entry {
    key: Arc<str>,
    /// Where namespace and name start in the key.
    scope: Scope,
    prefix: usize,
    create_revision: Revision,
    revision: Revision,
    line: Line,
    frames: Frames,
    index: Index,
}

/// What selectors ask for.
#[derive(Debug, Default)]
struct Index {
    labels: Box<[(Box<str>, Box<str>)]>,
    /// The values of the kind's selectable fields, in the row's order.
    fields: Box<[Box<str>]>,
}

impl Entry {
    /// An object read from the store. `kind` is the kind it is stored as.
    pub(crate) fn new(kind: &'static Kind, stored: &KeyValue) -> Result<Entry, Status> {
        let normal = normalized(kind, stored)?;
        let stored = normal.as_ref().unwrap_or(stored);
        let mut entry = Entry::unindexed(kind, stored)?;
        let index = Picker::of(kind).pick(&stored.value);
        entry.index = index.map_err(|error| unreadable(&stored.key, &error.to_string()))?;
        Ok(entry)
    }

    /// An object on its way to the client that wrote it: no selector will ask.
    pub(crate) fn unindexed(kind: &'static Kind, stored: &KeyValue) -> Result<Entry, Status> {
        let is_new = stored.create_revision == stored.mod_revision;
        let happened = if is_new { Happened::Added } else { Happened::Modified };
        let line = Line::of(&stored.value, stored.mod_revision, happened)
            .ok_or_else(|| unreadable(&stored.key, "no JSON object"))?;
        Ok(Entry {
            key: stored.key.clone(),
            scope: kind.scope,
            prefix: key::kind_prefix(kind).len(),
            create_revision: stored.create_revision,
            revision: stored.mod_revision,
            line,
            frames: Frames::default(),
            index: Index::default(),
        })
    }

    /// The same object in another version: `value` without its resourceVersion.
    pub(crate) fn converted(&self, value: &[u8]) -> Result<Entry, Status> {
        let is_new = self.create_revision == self.revision;
        let happened = if is_new { Happened::Added } else { Happened::Modified };
        let line = Line::of(value, self.revision, happened)
            .ok_or_else(|| unreadable(&self.key, "no JSON object"))?;
        let index = Index { labels: self.index.labels.clone(), fields: self.index.fields.clone() };
        Ok(Entry { key: self.key.clone(), line, frames: Frames::default(), index, ..*self })
    }

    /// The object as it was when it was deleted, at the revision of the deletion.
    pub(crate) fn deleted(&self, revision: Revision) -> Entry {
        Entry {
            key: self.key.clone(),
            scope: self.scope,
            prefix: self.prefix,
            create_revision: self.create_revision,
            revision,
            line: self.line.at(revision, Happened::Deleted),
            frames: Frames::default(),
            index: Index { labels: self.index.labels.clone(), fields: self.index.fields.clone() },
        }
    }

    /// Its key in the store.
    pub(crate) fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// `metadata.namespace`.
    pub(crate) fn namespace(&self) -> &str {
        key::namespace_and_name(self.scope, &self.key[self.prefix..]).0
    }

    /// `metadata.name`.
    pub(crate) fn name(&self) -> &str {
        key::namespace_and_name(self.scope, &self.key[self.prefix..]).1
    }

    /// When it was created.
    pub(crate) fn create_revision(&self) -> Revision {
        self.create_revision
    }

    /// When it was last written.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The object as JSON.
    pub(crate) fn bytes(&self) -> Bytes {
        self.line.object()
    }

    /// The same, borrowed.
    pub(crate) fn json(&self) -> &[u8] {
        self.line.object_slice()
    }

    /// The object as a line of a watch stream.
    pub(crate) fn event(&self, happened: Happened) -> Bytes {
        self.line.saying(happened)
    }

    /// The object in protobuf; `make` encodes it for the first who asks.
    pub(crate) fn frame(
        &self,
        place: fn(&Frames) -> &OnceLock<Box<Frame>>,
        make: impl FnOnce(Happened, &[u8]) -> Result<Frame, Status>,
    ) -> Result<&Frame, Status> {
        let place = place(&self.frames);
        if let Some(frame) = place.get() {
            return Ok(frame);
        }
        // Two who ask at once may both encode; one of the two is kept.
        let frame = Box::new(make(self.line.happened(), self.json())?);
        Ok(place.get_or_init(|| frame))
    }

    /// Its metadata as JSON.
    pub(crate) fn metadata(&self) -> Result<&[u8], Status> {
        encode::metadata(self.json()).ok_or_else(|| unreadable(&self.key, "no metadata"))
    }

    /// How much memory it takes.
    pub(crate) fn size(&self) -> usize {
        self.line.bytes.len()
    }

    /// One label.
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        let labels = &self.index.labels;
        let found = labels.binary_search_by(|(name, _)| (**name).cmp(key)).ok()?;
        Some(&labels[found].1)
    }

    /// The value of the kind's selectable field number `index`; empty when it is not set.
    pub(crate) fn field(&self, index: usize) -> &str {
        self.index.fields.get(index).map_or("", |value| value)
    }

    /// The whole object, as `kind` has it.
    pub(crate) fn decode_as(&self, kind: &'static Kind) -> Result<Object, Status> {
        let map =
            serde_json::from_slice(self.json()).map_err(|error| unreadable(&self.key, &error.to_string()))?;
        Ok(convert::from_stored(kind, Object(map)))
    }
}

/// A custom resource as its definition has it now, where it was stored otherwise: by another definition, or in
/// another version.
fn normalized(kind: &'static Kind, stored: &KeyValue) -> Result<Option<KeyValue>, Status> {
    let Some(version) = kind.custom else { return Ok(None) };
    let map =
        serde_json::from_slice(&stored.value).map_err(|error| unreadable(&stored.key, &error.to_string()))?;
    let mut object = Object(map);
    let is_other = object.api_version() != kind.api_version();
    if is_other && version.needs_webhook() {
        return Ok(None);
    }
    let before = object.clone();
    object.set(&["apiVersion"], kind.api_version());
    version.normalize(&mut object);
    if object == before {
        return Ok(None);
    }
    let value = super::encode::value(kind, &object)?;
    Ok(Some(KeyValue { value, ..stored.clone() }))
}

fn unreadable(key: &str, why: &str) -> Status {
    Status::internal(format!("the object stored at {key} cannot be read: {why}"))
}

/// Reads labels and selectable fields out of JSON and skips the rest without building it.
struct Picker {
    fields: Vec<Vec<&'static str>>,
}

impl Picker {
    fn of(kind: &'static Kind) -> Picker {
        Picker { fields: kind.selectable.iter().map(|field| field.split('.').collect()).collect() }
    }

    fn pick(&self, json: &[u8]) -> serde_json::Result<Index> {
        let mut found = Found { fields: vec![Box::default(); self.fields.len()], labels: Vec::new() };
        let wanted = self.fields.iter().enumerate().map(|(index, path)| (index, path.as_slice())).collect();
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        Node { wanted, place: Place::Root, found: &mut found }.deserialize(&mut deserializer)?;
        found.labels.sort_unstable();
        Ok(Index { labels: found.labels.into(), fields: found.fields.into() })
    }
}

struct Found {
    fields: Vec<Box<str>>,
    labels: Vec<(Box<str>, Box<str>)>,
}

/// Where in the object a [`Node`] is, as far as labels are concerned.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    Metadata,
    Labels,
    Elsewhere,
}

/// A value in which some paths are wanted.
struct Node<'a> {
    wanted: Vec<(usize, &'a [&'static str])>,
    place: Place,
    found: &'a mut Found,
}

impl Node<'_> {
    /// A scalar where a wanted path ends.
    fn put(self, text: &str) {
        for (index, path) in &self.wanted {
            if path.is_empty() {
                self.found.fields[*index] = text.into();
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Node { wanted, place, found } = self;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if place == Place::Labels {
                found.labels.push((key.as_ref().into(), map.next_value::<Box<str>>()?));
                continue;
            }
            let place = match (place, key.as_ref()) {
                (Place::Root, "metadata") => Place::Metadata,
                (Place::Metadata, "labels") => Place::Labels,
                _ => Place::Elsewhere,
            };
            let below = wanted.iter().filter_map(|(index, path)| {
                let (first, rest) = path.split_first()?;
                (*first == key).then_some((*index, rest))
            });
            let below: Vec<_> = below.collect();
            if below.is_empty() && place == Place::Elsewhere {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(Node { wanted: below, place, found })?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.put(text);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.put(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.put(&value.to_string());
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.put(&value.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.put(&value.to_string());
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_find_what_they_ask_for() {
        let json = br#"{"apiVersion":"v1","kind":"Pod",
            "metadata":{"labels":{"b":"2","a":"1"},"name":"x","annotations":{"labels":"no"}},
            "spec":{"nodeName":"n\u0031","hostNetwork":true,"containers":[{"nodeName":"no"}]},
            "status":{"phase":null}}"#;
        let fields = ["spec.nodeName", "status.phase", "spec.hostNetwork", "spec.schedulerName"];
        let picker = Picker { fields: fields.iter().map(|field| field.split('.').collect()).collect() };
        let index = picker.pick(json).unwrap();
        let fields: Vec<&str> = index.fields.iter().map(|value| &**value).collect();
        assert_eq!(fields, ["n1", "", "true", ""]);
        assert_eq!(index.labels.len(), 2);
        assert_eq!((&*index.labels[0].0, &*index.labels[0].1), ("a", "1"));
    }
}

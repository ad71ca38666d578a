//! Kinds that are stored as another version of themselves.
//!
//! Today these are the Events of `events.k8s.io/v1`, stored as core Events: the same facts under other
//! names. One table serves both directions.

use api::{Kind, Object, kinds};
use serde_json::Value;

/// The kind that objects of `kind` are stored as; mostly itself.
pub(crate) fn stored_kind(kind: &'static Kind) -> &'static Kind {
    let Some(api_version) = kind.stored_as else { return kind };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    kinds::find(group, version, kind.plural).unwrap_or(kind)
}

/// `events.k8s.io/v1` and `v1` names of an Event's fields.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

/// The object as it is stored.
pub(crate) fn to_stored(kind: &'static Kind, object: Object) -> Object {
    renamed(kind, stored_kind(kind), object, |(served, stored)| (served, stored))
}

/// A stored object as `kind` has it.
pub(crate) fn from_stored(kind: &'static Kind, object: Object) -> Object {
    renamed(kind, kind, object, |(served, stored)| (stored, served))
}

fn renamed(
    kind: &Kind,
    target: &Kind,
    mut object: Object,
    direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
) -> Object {
    if kind.stored_as.is_none() {
        return object;
    }
    for pair in EVENT_FIELDS {
        let (from, to) = direction(*pair);
        if let Some(value) = object.0.remove(from) {
            object.0.insert(to.to_string(), value);
        }
    }
    object.0.insert("apiVersion".into(), Value::String(target.api_version()));
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_the_same_under_both_names() {
        let served = kinds::find("events.k8s.io", "v1", "events").unwrap();
        let event = Object::from_value(json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "regarding": {"kind": "Pod"}, "note": "hello", "reportingController": "me", "reason": "Because",
        }));
        let event = event.unwrap();
        let stored = to_stored(served, event.clone());
        assert_eq!(stored.text(&["involvedObject", "kind"]), "Pod");
        assert_eq!(stored.text(&["message"]), "hello");
        assert_eq!(stored.api_version(), "v1");
        assert_eq!(from_stored(served, stored), event);
    }
}

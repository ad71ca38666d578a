//! Kinds that are stored as another version of themselves: Events of `events.k8s.io/v1` are stored as core
//! Events, HorizontalPodAutoscalers of `autoscaling/v1` as those of v2.

use api::{Kind, Object, kinds, strategies::horizontal_pod_autoscaler_v1 as autoscaler_v1};
use serde_json::Value;

/// The kind that objects of `kind` are stored as; mostly itself.
pub(crate) fn stored_kind(kind: &'static Kind) -> &'static Kind {
    if let Some(stored) = kind.stored() {
        return stored;
    }
    let Some(api_version) = kind.stored_as else { return kind };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    kinds::find(group, version, kind.plural).unwrap_or(kind)
}

/// Whether the bytes that are kept of an object are those of `kind`.
pub(crate) fn is_stored_as_it_is(kind: &'static Kind) -> bool {
    kind.stored_as.is_none() && kind.stored().is_none()
}

/// `events.k8s.io/v1` and `v1` names of an Event's fields; one table serves both directions.
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
pub(crate) fn to_stored(kind: &'static Kind, mut object: Object) -> Object {
    if let Some(stored) = kind.stored() {
        return between_versions(stored, object);
    }
    match (kind.stored_as, kind.group) {
        (None, _) => return object,
        (_, "autoscaling") => autoscaler_v1::to_v2(&mut object),
        _ => rename(&mut object, EVENT_FIELDS.iter().copied()),
    }
    with_version(object, stored_kind(kind))
}

/// A stored object as `kind` has it.
pub(crate) fn from_stored(kind: &'static Kind, mut object: Object) -> Object {
    if kind.stored().is_some() {
        return between_versions(kind, object);
    }
    match (kind.stored_as, kind.group) {
        (None, _) => return object,
        (_, "autoscaling") => autoscaler_v1::to_v1(&mut object),
        _ => rename(&mut object, EVENT_FIELDS.iter().map(|(served, stored)| (*stored, *served))),
    }
    with_version(object, kind)
}

/// A custom resource in another version, when all versions are the same; a webhook has done its work before.
fn between_versions(kind: &'static Kind, object: Object) -> Object {
    match kind.custom {
        Some(version) if !version.needs_webhook() => {
            let mut object = with_version(object, kind);
            version.normalize(&mut object);
            object
        }
        _ => object,
    }
}

fn rename(object: &mut Object, pairs: impl Iterator<Item = (&'static str, &'static str)>) {
    for (from, to) in pairs {
        if let Some(value) = object.0.remove(from) {
            object.0.insert(to.to_string(), value);
        }
    }
}

fn with_version(mut object: Object, kind: &Kind) -> Object {
    object.0.insert("apiVersion".into(), Value::String(kind.api_version()));
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

    #[test]
    fn an_autoscaler_is_the_same_in_both_versions() {
        let served = kinds::find("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
        let autoscaler = Object::from_value(json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50},
        }));
        let autoscaler = autoscaler.unwrap();
        let stored = to_stored(served, autoscaler.clone());
        assert_eq!(stored.api_version(), "autoscaling/v2");
        assert_eq!(stored.list(&["spec", "metrics"]).len(), 1);
        assert_eq!(from_stored(served, stored), autoscaler);
    }
}

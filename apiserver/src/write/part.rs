//! Which part of an object a write to a subresource may change.

use api::{FieldError, Kind, Object};
use serde_json::Value;

/// `object` as far as a write through `subresource` may change `old`; everything else is as it was.
pub(super) fn confined(kind: &Kind, subresource: &str, object: Object, old: &Object) -> Object {
    match subresource {
        "status" => with(old, object, &[&["metadata"], &["status"]]),
        "approval" => with(old, object, &[&["metadata"], &["status", "conditions"]]),
        "finalize" => with(old, object, &[&["metadata"], &["spec", "finalizers"]]),
        "ephemeralcontainers" => with(old, object, &[&["spec", "ephemeralContainers"]]),
        "resize" => resized(object, old),
        _ if kind.status => with(&object, old.clone(), &[&["status"]]),
        _ => object,
    }
}

/// `base` with what `source` has at `paths`, or lacks there.
fn with(base: &Object, mut source: Object, paths: &[&[&str]]) -> Object {
    let mut result = base.clone();
    for path in paths {
        match source.remove(path) {
            Some(value) => result.set(path, value),
            None => {
                result.remove(path);
            }
        }
    }
    result
}

/// `old` with the resources that the containers of `object` ask for.
fn resized(object: Object, old: &Object) -> Object {
    let mut result = old.clone();
    for list in ["containers", "initContainers"] {
        let wanted = object.list(&["spec", list]);
        let Some(Value::Array(containers)) = result.map_mut(&["spec"]).get_mut(list) else { continue };
        for container in containers {
            let same = wanted.iter().find(|other| other.get("name") == container.get("name"));
            for field in ["resources", "resizePolicy"] {
                if let Some(value) = same.and_then(|same| same.get(field)) {
                    container[field] = value.clone();
                }
            }
        }
    }
    result
}

/// Faults of a write through a subresource that changes the spec in a way of its own.
pub(super) fn validate(subresource: &str, object: &Object, old: &Object) -> Option<Vec<FieldError>> {
    match subresource {
        "ephemeralcontainers" => Some(validate_ephemeral_containers(object, old)),
        "resize" | "finalize" => Some(Vec::new()),
        _ => None,
    }
}

/// Ephemeral containers may be added, never changed or removed.
fn validate_ephemeral_containers(object: &Object, old: &Object) -> Vec<FieldError> {
    let path = ["spec", "ephemeralContainers"];
    let new = object.list(&path);
    let mut errors = Vec::new();
    for existing in old.list(&path) {
        let name = existing.get("name").and_then(Value::as_str).unwrap_or_default();
        match new.iter().find(|container| container.get("name") == existing.get("name")) {
            None => errors.push(FieldError::forbidden(
                path.join("."),
                format!("existing ephemeral containers {name:?} may not be removed\n"),
            )),
            Some(same) if same != existing => errors.push(FieldError::forbidden(
                path.join("."),
                format!("existing ephemeral containers {name:?} may not be changed\n"),
            )),
            Some(_) => {}
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::kinds;
    use serde_json::json;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn each_subresource_changes_its_part_alone() {
        let kind = kinds::find("", "v1", "pods").unwrap();
        let old = object(json!({"metadata": {"name": "a"}, "spec": {"x": 1}, "status": {"phase": "Pending"}}));
        let new = object(json!({"metadata": {"name": "a", "labels": {"l": "1"}}, "spec": {"x": 2}}));
        let whole = confined(kind, "", new.clone(), &old);
        assert_eq!((whole.number(&["spec", "x"]), whole.text(&["status", "phase"])), (Some(2), "Pending"));
        let status = confined(kind, "status", new, &old);
        assert_eq!((status.number(&["spec", "x"]), status.at(&["status"])), (Some(1), None));
        assert_eq!(status.text(&["metadata", "labels", "l"]), "1");
    }

    #[test]
    fn ephemeral_containers_stay() {
        let old = object(json!({"spec": {"ephemeralContainers": [{"name": "a", "image": "x"}]}}));
        let more = object(json!({"spec": {"ephemeralContainers": [{"name": "a", "image": "x"}, {"name": "b"}]}}));
        assert!(validate_ephemeral_containers(&more, &old).is_empty());
        assert_eq!(validate_ephemeral_containers(&old, &more).len(), 1);
    }
}

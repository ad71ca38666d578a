//! The part of metadata that the server owns.

use api::{Kind, Object, Scope, Status, meta};
use jiff::Timestamp;
use serde_json::Value;

use super::Write;

/// Kinds whose status a client may set on create, as upstream: a node registers with its capacity.
const CREATED_WITH_STATUS: &[&str] = &["nodes"];

/// Whether `metadata.generation` is kept for a kind, as upstream does.
pub(super) fn has_generation(kind: &Kind) -> bool {
    kind.strategy.has_generation()
}

/// Checks and sets the namespace of an object that was sent to a URL with one.
pub(super) fn set_namespace(write: &Write<'_>, object: &mut Object) -> Result<(), Status> {
    if write.kind.scope == Scope::Cluster {
        if !object.namespace().is_empty() {
            object.remove(&["metadata", "namespace"]);
        }
        return Ok(());
    }
    match object.namespace() {
        "" => object.set(&["metadata", "namespace"], write.namespace),
        namespace if namespace == write.namespace => {}
        _ => {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// Sets what a client cannot choose for a new object.
pub(super) fn begin(kind: &Kind, object: &mut Object, now: Timestamp) {
    meta::stamp_new(object, &uuid::Uuid::new_v4().to_string(), now);
    let metadata = object.map_mut(&["metadata"]);
    metadata.remove("generation");
    if has_generation(kind) {
        metadata.insert("generation".into(), 1.into());
    }
    if kind.status && !CREATED_WITH_STATUS.contains(&kind.plural) {
        object.0.remove("status");
    }
}

/// What the warning of repeated owners adds when admission has repeated them.
pub(super) const AFTER_ADMISSION: &str = " after mutating admission happens";

/// Takes away owners that are named more than once, and says so.
pub(super) fn name_owners_once(object: &mut Object, when: &str) -> Option<String> {
    let owners = object.list(&["metadata", "ownerReferences"]);
    let is_repeated = |(index, owner): (usize, &Value)| owners[..index].contains(owner);
    let repeated: Vec<&str> = owners
        .iter()
        .enumerate()
        .filter(|pair| is_repeated(*pair))
        .map(|(_, owner)| owner["uid"].as_str().unwrap_or_default())
        .collect();
    if repeated.is_empty() {
        return None;
    }
    let warning = format!(
        ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and \
         may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        repeated.join(", ")
    );
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    for owner in owners {
        if !kept.contains(owner) {
            kept.push(owner.clone());
        }
    }
    object.set(&["metadata", "ownerReferences"], kept);
    Some(warning)
}

/// Gives back to a changed object what a client cannot change or may leave out.
pub(super) fn carry_over(object: &mut Object, old: &Object) {
    object.0.insert("apiVersion".into(), old.api_version().into());
    object.0.insert("kind".into(), old.kind().into());
    let old = old.0.get("metadata").and_then(Value::as_object);
    let metadata = object.map_mut(&["metadata"]);
    metadata.remove("selfLink");
    for field in ["generation", "resourceVersion"] {
        match old.and_then(|old| old.get(field)) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
    // Time does not change, whatever the client says.
    for field in ["creationTimestamp", "deletionTimestamp"] {
        if let Some(value) = old.and_then(|old| old.get(field)) {
            metadata.insert(field.into(), value.clone());
        }
    }
    // May be left out, but what is there must be right: validation compares.
    for field in ["uid", "deletionGracePeriodSeconds", "name", "namespace"] {
        let is_absent = metadata.get(field).is_none_or(|value| value.is_null() || value == "");
        if is_absent && let Some(value) = old.and_then(|old| old.get(field)) {
            metadata.insert(field.into(), value.clone());
        }
    }
}

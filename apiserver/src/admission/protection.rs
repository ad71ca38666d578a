//! StorageObjectInUseProtection: claims and volumes stay until nobody uses them.

use api::Object;
use serde_json::Value;

/// On claims.
pub(super) const CLAIM: &str = "kubernetes.io/pvc-protection";
/// On volumes.
pub(super) const VOLUME: &str = "kubernetes.io/pv-protection";

/// Adds a finalizer; the controller that watches the use takes it away.
pub(super) fn add(object: &mut Object, finalizer: &str) {
    if !object.finalizers().any(|present| present == finalizer) {
        let present = object.finalizers().map(Value::from);
        let finalizers: Vec<Value> = present.chain([Value::from(finalizer)]).collect();
        object.set(&["metadata", "finalizers"], finalizers);
    }
}

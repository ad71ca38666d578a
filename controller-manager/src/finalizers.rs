//! Finalizers by which controllers keep an object that is being deleted until nobody needs it any more.

use client::{ApiObject, ClientError, ObjectKey, Tolerate, Writer, turn};
use kube::ResourceExt;
use serde_json::json;

/// Takes a finalizer off an object that is being deleted.
pub async fn release<K: ApiObject>(writer: &Writer, object: &K, finalizer: &str) -> Result<(), ClientError> {
    if object.meta().deletion_timestamp.is_none() || !object.finalizers().iter().any(|name| name == finalizer)
    {
        return Ok(());
    }
    let left: Vec<_> = object.finalizers().iter().filter(|name| *name != finalizer).collect();
    let metadata =
        json!({"uid": object.uid(), "resourceVersion": object.resource_version(), "finalizers": left});
    let key = ObjectKey::of(object);
    if writer.merge::<K>(&key, json!({"metadata": metadata})).await.or_not_found()?.is_some() {
        turn::meant(format!("let {} {key} go", K::kind(&())));
    }
    Ok(())
}

//! Which object an event of the kubelet is about.

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::Resource;

use crate::pod::view::PodView;

/// The Node. Upstream's kubelet uses the name for the uid, and kubectl looks for that.
pub fn node_reference(name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: Some(name.to_string()),
        uid: Some(name.to_string()),
        ..ObjectReference::default()
    }
}

/// A container of a pod, as upstream points to it.
pub fn container_reference(pod: &Pod, container: &str) -> ObjectReference {
    let list = if pod.init_containers().iter().any(|init| init.name == container) {
        "initContainers"
    } else if pod.ephemeral_containers().iter().any(|ephemeral| ephemeral.name == container) {
        "ephemeralContainers"
    } else {
        "containers"
    };
    ObjectReference { field_path: Some(format!("spec.{list}{{{container}}}")), ..pod.object_ref(&()) }
}

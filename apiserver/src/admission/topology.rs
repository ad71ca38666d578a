//! PodTopologyLabels: a pod bears the region and the zone of its node, where its containers can read them.

use api::{Object, Status};

use super::kind;
use crate::registry::Registry;

const LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// Labels a Binding, whose labels the pod gets.
pub(super) async fn label_binding(registry: &Registry, binding: &mut Object) -> Result<(), Status> {
    match binding.text(&["target", "kind"]) {
        "Node" => label(registry, binding, &["target", "name"]).await,
        _ => Ok(()),
    }
}

/// Labels a pod that comes with its node.
pub(super) async fn label_pod(registry: &Registry, pod: &mut Object) -> Result<(), Status> {
    label(registry, pod, &["spec", "nodeName"]).await
}

async fn label(registry: &Registry, object: &mut Object, path: &[&str]) -> Result<(), Status> {
    let name = object.text(path).to_string();
    if name.is_empty() {
        return Ok(());
    }
    match registry.entry(kind("", "nodes"), "", &name).await {
        Ok(node) => copy(|label| node.label(label), object),
        Err(status) if status.code == 404 => {}
        Err(status) => return Err(status),
    }
    Ok(())
}

/// What somebody has said already stays.
fn copy<'a>(of_node: impl Fn(&str) -> Option<&'a str>, object: &mut Object) {
    for label in LABELS {
        if let Some(value) = of_node(label) {
            object.set_if_absent(&["metadata", "labels", label], value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn region_and_zone_are_copied_and_nothing_else() {
        let object = |labels| Object::from_value(json!({"metadata": {"labels": labels}})).unwrap();
        let node = [(LABELS[0], "r"), (LABELS[1], "z"), ("kubernetes.io/os", "linux")];
        let mut pod = object(json!({LABELS[1]: "mine"}));
        copy(|label| node.iter().find(|(name, _)| *name == label).map(|(_, value)| *value), &mut pod);
        assert_eq!(pod, object(json!({LABELS[0]: "r", LABELS[1]: "mine"})));
    }
}

//! ExtendedResourceToleration: who asks for a device tolerates the nodes that are kept for those who do.

use std::collections::BTreeSet;

use api::{Object, is_extended_resource};
use serde_json::{Value, json};

/// Adds a toleration for each extended resource that a container asks for.
pub(super) fn tolerate(pod: &mut Object) {
    let containers = ["containers", "initContainers"].into_iter().flat_map(|list| pod.list(&["spec", list]));
    let asked = containers.filter_map(|container| container["resources"]["requests"].as_object()).flatten();
    let resources: BTreeSet<String> =
        asked.map(|(name, _)| name.clone()).filter(|name| is_extended_resource(name)).collect();
    let mut tolerations = pod.list(&["spec", "tolerations"]).to_vec();
    let before = tolerations.len();
    for resource in resources {
        let toleration = json!({"key": resource, "operator": "Exists"});
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    if tolerations.len() > before {
        pod.set(&["spec", "tolerations"], Value::Array(tolerations));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_tolerated_once() {
        let requests =
            json!({"example.com/gpu": "1", "cpu": "1", "kubernetes.io/x": "1", "hugepages-2Mi": "1"});
        let spec = json!({"containers": [{"resources": {"requests": requests}}]});
        let mut pod = Object::from_value(json!({"spec": spec})).unwrap();
        tolerate(&mut pod);
        tolerate(&mut pod);
        assert_eq!(
            pod.list(&["spec", "tolerations"]),
            [json!({"key": "example.com/gpu", "operator": "Exists"})]
        );
    }
}

//! The quality-of-service class of a pod.

use serde_json::Value;

use crate::Object;
use crate::strategies::resources::{is_positive, quantity};

const COUNTED: [&str; 2] = ["cpu", "memory"];

/// `Guaranteed` when every container has equal requests and limits of CPU and memory, `BestEffort` when
/// none has any, else `Burstable`.
pub fn quality_of_service(pod: &Object) -> &'static str {
    let own = pod.at(&["spec", "resources"]).filter(|resources| asks_for_anything(resources));
    let lists = ["containers", "initContainers"].map(|list| pod.list(&["spec", list]));
    let containers = || lists.iter().copied().flatten().map(|container| &container["resources"]);
    let (asks, is_guaranteed) = match own {
        Some(resources) => (true, is_guaranteed(resources)),
        None => (containers().any(asks_for_anything), containers().all(is_guaranteed)),
    };
    match (asks, is_guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn asks_for_anything(resources: &Value) -> bool {
    let lists = [&resources["requests"], &resources["limits"]];
    lists.iter().any(|list| COUNTED.iter().any(|name| is_positive(&list[*name])))
}

fn is_guaranteed(resources: &Value) -> bool {
    COUNTED.iter().all(|name| {
        let (request, limit) = (&resources["requests"][*name], &resources["limits"][*name]);
        is_positive(limit) && (request.is_null() || quantity(request) == quantity(limit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn class(resources: &[Value]) -> &'static str {
        let containers: Vec<Value> = resources.iter().map(|it| json!({"resources": it})).collect();
        quality_of_service(&Object::from_value(json!({"spec": {"containers": containers}})).unwrap())
    }

    #[test]
    fn the_class_follows_from_requests_and_limits() {
        let full = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1024Mi"}});
        assert_eq!(class(&[json!({}), json!({})]), "BestEffort");
        assert_eq!(class(std::slice::from_ref(&full)), "Guaranteed");
        assert_eq!(class(&[full, json!({})]), "Burstable");
        assert_eq!(class(&[json!({"requests": {"cpu": "100m"}})]), "Burstable");
    }
}

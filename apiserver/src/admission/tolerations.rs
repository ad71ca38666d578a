//! DefaultTolerationSeconds and TaintNodesByCondition: how pods and nodes get along while a node is not well.

use api::Object;
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const SECONDS: i64 = 300;

/// Pods stay for five minutes on a node that is not ready or out of reach, unless they say otherwise.
pub(super) fn for_unready_nodes(pod: &mut Object) {
    for key in [NOT_READY, UNREACHABLE] {
        if !tolerates(pod, key, "NoExecute") {
            add(
                pod,
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}),
            );
        }
    }
}

/// A new node is not ready until it says so.
pub(super) fn taint_new_node(node: &mut Object) {
    let taints = node.list(&["spec", "taints"]);
    let is_tainted = taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule");
    if !is_tainted {
        let mut taints = taints.to_vec();
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        node.set(&["spec", "taints"], taints);
    }
}

fn tolerates(pod: &Object, key: &str, effect: &str) -> bool {
    pod.list(&["spec", "tolerations"]).iter().any(|toleration| {
        let text = |field: &str| toleration[field].as_str().unwrap_or_default();
        (text("key") == key || text("key").is_empty())
            && (text("effect") == effect || text("effect").is_empty())
    })
}

fn add(pod: &mut Object, toleration: Value) {
    let mut tolerations = pod.list(&["spec", "tolerations"]).to_vec();
    tolerations.push(toleration);
    pod.set(&["spec", "tolerations"], tolerations);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: Value) -> Object {
        Object::from_value(json!({"spec": spec})).unwrap()
    }

    #[test]
    fn five_minutes_unless_the_pod_says_otherwise() {
        let mut plain = pod(json!({}));
        for_unready_nodes(&mut plain);
        let keys: Vec<_> =
            plain.list(&["spec", "tolerations"]).iter().map(|one| one["key"].clone()).collect();
        assert_eq!(keys, [NOT_READY, UNREACHABLE]);
        let mut own =
            pod(json!({"tolerations": [{"key": NOT_READY, "operator": "Exists", "effect": "NoExecute"}]}));
        for_unready_nodes(&mut own);
        assert_eq!(own.list(&["spec", "tolerations"]).len(), 2);
        let mut all = pod(json!({"tolerations": [{"operator": "Exists"}]}));
        for_unready_nodes(&mut all);
        assert_eq!(all.list(&["spec", "tolerations"]).len(), 1);
    }

    #[test]
    fn a_new_node_is_tainted_once() {
        let mut node = pod(json!({}));
        taint_new_node(&mut node);
        taint_new_node(&mut node);
        assert_eq!(node.list(&["spec", "taints"]), [json!({"key": NOT_READY, "effect": "NoSchedule"})]);
    }
}

//! NodeRestriction: a kubelet writes its own node, its own lease and the pods bound to it, nothing else.

use api::meta::MIRROR;
use api::{Object, Status, items};
use serde_json::{Map, Value};

use super::{forbidden, what};
use crate::{
    authz::references_of,
    hooks::{Attributes, Operation},
};

const RESERVED_PREFIX: &str = "node-restriction.kubernetes.io/";

/// Labels of upstream's own that a kubelet may give its node.
const OWN_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "node.kubernetes.io/windows-build",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const OWN_PREFIXES: &[&str] = &["kubelet.kubernetes.io/", "node.kubernetes.io/"];

/// Refuses what is not the node's own. `subject` is what the answer hangs on beside the object: the pod that is to be
/// evicted, or the Node whose pod is to be created.
pub(super) fn validate(
    node: &str,
    attributes: &Attributes<'_>,
    object: Option<&Object>,
    old: Option<&Object>,
    subject: Option<&Object>,
) -> Result<(), Status> {
    // As upstream: what connects to a pod or a node is the authorizer's to judge.
    if attributes.operation == Operation::Connect {
        return Ok(());
    }
    let refused = match (what(attributes), attributes.operation) {
        (("", "pods", ""), Operation::Create) => object.and_then(|pod| refuse_new_pod(node, pod, subject)),
        (("", "pods", ""), Operation::Delete) => old.and_then(|pod| refuse_foreign(node, pod, "delete pods")),
        (("", "pods", ""), _) => Some(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        )),
        (("", "pods", "status"), _) => refuse_pod_status(node, object, old),
        (("", "pods", "eviction"), _) => subject.and_then(|pod| refuse_foreign(node, pod, "evict pods")),
        (("", "pods", other), _) => {
            Some(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
        }
        (("", "nodes", _), _) => refuse_node(node, attributes, object, old),
        (("", "persistentvolumeclaims", "status"), _) => refuse_claim_status(node, object, old),
        (("", "persistentvolumeclaims", _), _) => Some("may only update PVC status".into()),
        (("coordination.k8s.io", "leases", _), _) => refuse_lease(node, attributes, object),
        (("storage.k8s.io", "csinodes", _), _) => {
            let name = object.or(old).map_or(attributes.name, Object::name);
            (name != node).then(|| "can only access CSINode with the same name as the requesting node".into())
        }
        (("resource.k8s.io", "resourceslices", _), operation) => refuse_slice(node, operation, object, old),
        _ => None,
    };
    match refused {
        Some(why) => Err(forbidden(attributes, object.or(old), &why)),
        None => Ok(()),
    }
}

fn refuse_new_pod(node: &str, pod: &Object, own: Option<&Object>) -> Option<String> {
    if pod.annotation(MIRROR).is_none() {
        return Some(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    refuse_foreign(node, pod, "create pods")
        .or_else(|| refuse_owners(node, pod, own))
        .or_else(|| refuse_references(node, pod))
}

/// A mirror pod goes with its node.
fn refuse_owners(node: &str, pod: &Object, own: Option<&Object>) -> Option<String> {
    let only = |what: &str| Some(format!("node {node:?} can only create pods with {what} set to itself"));
    let owner = match pod.owner_references() {
        [] => return only("an owner reference"),
        [owner] => owner,
        _ => return only("a single owner reference"),
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return only("an owner reference");
    }
    if owner["controller"] != true {
        return only("a controller owner reference");
    }
    if owner["blockOwnerDeletion"] == true {
        return Some(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let (expected, given) = (own.map_or("", Object::uid), owner["uid"].as_str().unwrap_or_default());
    (expected != given).then(|| format!("node {node} UID mismatch: expected {given} got {expected}"))
}

/// Nobody gets at secrets by making a pod that mounts them.
fn refuse_references(node: &str, pod: &Object) -> Option<String> {
    let refuse = |what: &str| Some(format!("node {node:?} can not create pods that reference {what}"));
    if !pod.text(&["spec", "serviceAccountName"]).is_empty() {
        return refuse("a service account");
    }
    let has_volume = |sort: &str| {
        pod.list(&["spec", "volumes"]).iter().any(|volume| {
            let projected = items(&volume["projected"]["sources"]);
            !volume[sort].is_null() || projected.iter().any(|source| !source[sort].is_null())
        })
    };
    let has_variable = |reference: &str, all: &str| {
        let lists = ["containers", "initContainers", "ephemeralContainers"];
        lists.iter().flat_map(|list| pod.list(&["spec", list])).any(|container| {
            let entries = |field: &str| container[field].as_array().cloned().unwrap_or_default();
            entries("env").iter().any(|entry| !entry["valueFrom"][reference].is_null())
                || entries("envFrom").iter().any(|entry| !entry[all].is_null())
        })
    };
    if has_volume("secret")
        || has_variable("secretKeyRef", "secretRef")
        || !pod.list(&["spec", "imagePullSecrets"]).is_empty()
    {
        return refuse("secrets");
    }
    if has_volume("configMap") || has_variable("configMapKeyRef", "configMapRef") {
        return refuse("configmaps");
    }
    if has_volume("persistentVolumeClaim") {
        return refuse("persistentvolumeclaims");
    }
    if has_volume("clusterTrustBundle") {
        return refuse("clustertrustbundles");
    }
    if !pod.list(&["spec", "resourceClaims"]).is_empty() {
        return refuse("resourceclaims");
    }
    // Whatever the authorizer would let the node read because of the pod.
    let references = references_of(pod);
    references.iter().find(|reference| reference.resource != "pods").and_then(|other| refuse(other.resource))
}

fn refuse_foreign(node: &str, pod: &Object, verb: &str) -> Option<String> {
    let is_own = pod.text(&["spec", "nodeName"]) == node;
    (!is_own).then(|| format!("node {node:?} can only {verb} with spec.nodeName set to itself"))
}

fn refuse_pod_status(node: &str, object: Option<&Object>, old: Option<&Object>) -> Option<String> {
    let old = old?;
    if old.text(&["spec", "nodeName"]) != node {
        return Some(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let object = object?;
    if object.labels() != old.labels() {
        return Some(format!("node {node:?} cannot update labels through pod status"));
    }
    // A node may read the claims that are named there.
    let claims = ["status", "resourceClaimStatuses"];
    let is_same = object.list(&claims) == old.list(&claims);
    (!is_same).then(|| format!("node {node:?} cannot update resource claim statuses"))
}

/// A kubelet says how large a claim has become, nothing else.
fn refuse_claim_status(node: &str, object: Option<&Object>, old: Option<&Object>) -> Option<String> {
    let rest = |claim: &Object| {
        let mut rest = claim.clone();
        for field in ["resourceVersion", "managedFields"] {
            rest.remove(&["metadata", field]);
        }
        for field in ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"] {
            rest.remove(&["status", field]);
        }
        rest
    };
    (object.map(rest) != old.map(rest)).then(|| {
        format!(
            "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
        )
    })
}

/// What is offered belongs to the node; changes of others' the authorizer refuses.
fn refuse_slice(
    node: &str,
    operation: Operation,
    object: Option<&Object>,
    old: Option<&Object>,
) -> Option<String> {
    let (slice, verb) = match operation {
        Operation::Create => (object?, "create"),
        Operation::Delete => (old?, "delete"),
        _ => return None,
    };
    let is_own = slice.text(&["spec", "nodeName"]) == node;
    (!is_own).then(|| format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
}

fn refuse_node(
    node: &str,
    attributes: &Attributes<'_>,
    object: Option<&Object>,
    old: Option<&Object>,
) -> Option<String> {
    let name = object.or(old).map_or(attributes.name, Object::name);
    if name != node {
        return Some(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let object = object?;
    let config = |node: &Object| node.at(&["spec", "configSource"]).cloned().unwrap_or(Value::Null);
    let Some(old) = old else {
        if !config(object).is_null() {
            return Some(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
        }
        let labels = others_labels(object, None);
        return (!labels.is_empty())
            .then(|| format!("node {node:?} is not allowed to set the following labels: {labels}"));
    };
    if !config(object).is_null() && config(old) != config(object) {
        let what = "update configSource to a new non-nil configSource";
        return Some(format!("node {node:?} is not allowed to {what}"));
    }
    // Both would steer workloads to the node that are not meant for it.
    if old.list(&["spec", "taints"]) != object.list(&["spec", "taints"]) {
        return Some(format!("node {node:?} is not allowed to modify taints"));
    }
    let labels = others_labels(object, Some(old));
    if !labels.is_empty() {
        return Some(format!("is not allowed to modify labels: {labels}"));
    }
    let is_reowned = old.owner_references() != object.owner_references();
    is_reowned.then(|| format!("node {node:?} is not allowed to modify ownerReferences"))
}

/// The labels that differ and that are not a kubelet's to give.
fn others_labels(object: &Object, old: Option<&Object>) -> String {
    let none = Map::new();
    let (now, before) = (object.labels().unwrap_or(&none), old.and_then(Object::labels).unwrap_or(&none));
    let keys = now.keys().chain(before.keys()).map(String::as_str);
    let mut changed: Vec<&str> =
        keys.filter(|key| now.get(*key) != before.get(*key) && !is_own_label(key)).collect();
    changed.sort_unstable();
    changed.dedup();
    changed.join(", ")
}

fn refuse_lease(node: &str, attributes: &Attributes<'_>, object: Option<&Object>) -> Option<String> {
    if attributes.namespace != "kube-node-lease" {
        return Some(r#"can only access leases in the "kube-node-lease" system namespace"#.into());
    }
    let name = object.map_or(attributes.name, Object::name);
    (name != node).then(|| "can only access node lease with the same name as the requesting node".into())
}

/// Labels outside upstream's domains are free; of those inside, a kubelet has its own.
fn is_own_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let is_upstreams = ["kubernetes.io", "k8s.io"]
        .iter()
        .any(|own| domain.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    if key.starts_with(RESERVED_PREFIX) {
        return false;
    }
    !is_upstreams
        || OWN_LABELS.contains(&key)
        || OWN_PREFIXES.iter().any(|prefix| {
            key.starts_with(prefix) || domain.ends_with(&format!(".{}", prefix.trim_end_matches('/')))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn a_kubelet_reports_on_its_own_pods_only() {
        let pod = |node: &str| object(json!({"metadata": {"name": "a"}, "spec": {"nodeName": node}}));
        assert_eq!(refuse_pod_status("n1", Some(&pod("n1")), Some(&pod("n1"))), None);
        assert!(refuse_pod_status("n1", Some(&pod("n2")), Some(&pod("n2"))).is_some());
        let relabelled = object(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "n1"}}));
        assert!(refuse_pod_status("n1", Some(&relabelled), Some(&pod("n1"))).is_some());
        let mut claiming = pod("n1");
        claiming.set(&["status", "resourceClaimStatuses"], json!([{"name": "a", "resourceClaimName": "b"}]));
        assert_eq!(
            refuse_pod_status("n1", Some(&claiming), Some(&pod("n1"))).as_deref(),
            Some(r#"node "n1" cannot update resource claim statuses"#)
        );
    }

    #[test]
    fn a_kubelet_creates_mirror_pods_only() {
        let plain = object(json!({"spec": {"nodeName": "n1"}}));
        let own = object(json!({"metadata": {"name": "n1", "uid": "1"}}));
        assert!(refuse_new_pod("n1", &plain, Some(&own)).unwrap().contains("can only create mirror pods"));
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "1", "controller": true});
        let mirror = |owners: Value, mut spec: Value| {
            spec["nodeName"] = "n1".into();
            let metadata = json!({"annotations": {MIRROR: "x"}, "ownerReferences": owners});
            refuse_new_pod("n1", &object(json!({"metadata": metadata, "spec": spec})), Some(&own))
        };
        assert_eq!(mirror(json!([owner]), json!({})), None);
        let orphan = r#"node "n1" can only create pods with an owner reference set to itself"#;
        assert_eq!(mirror(json!([]), json!({})).as_deref(), Some(orphan));
        let mut former = owner.clone();
        former["uid"] = "0".into();
        let mismatch = "node n1 UID mismatch: expected 0 got 1";
        assert_eq!(mirror(json!([former]), json!({})).as_deref(), Some(mismatch));
        let secret =
            json!({"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}]});
        let refused = mirror(json!([owner]), secret);
        assert_eq!(refused.as_deref(), Some(r#"node "n1" can not create pods that reference secrets"#));
        let env = json!({"containers": [{"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {}}}]}]});
        let refused = mirror(json!([owner]), env);
        assert_eq!(refused.as_deref(), Some(r#"node "n1" can not create pods that reference configmaps"#));
        let of_volume = |mut volume: Value| {
            volume["name"] = "v".into();
            mirror(json!([owner]), json!({"volumes": [volume]})).unwrap_or_default()
        };
        let secret = json!({"secretRef": {"name": "s"}});
        for volume in [
            json!({"csi": {"driver": "d", "nodePublishSecretRef": {"name": "s"}}}),
            json!({"azureFile": {"secretName": "s"}}),
            json!({"cephfs": secret}),
            json!({"flexVolume": secret}),
            json!({"iscsi": secret}),
            json!({"rbd": secret}),
            json!({"scaleIO": secret}),
            json!({"storageos": secret}),
        ] {
            let refused = of_volume(volume.clone());
            assert_eq!(refused, r#"node "n1" can not create pods that reference secrets"#, "{volume}");
        }
        let refused = of_volume(json!({"ephemeral": {"volumeClaimTemplate": {}}}));
        assert_eq!(refused, r#"node "n1" can not create pods that reference persistentvolumeclaims"#);
        assert_eq!(of_volume(json!({"hostPath": {"path": "/"}})), "");
    }

    #[test]
    fn a_kubelet_says_how_large_a_claim_is_and_no_more() {
        let claim = |label: &str, size: &str, phase: &str| {
            object(json!({
                "metadata": {"name": "c", "labels": {"a": label}, "resourceVersion": size},
                "status": {"capacity": {"storage": size}, "phase": phase},
            }))
        };
        let old = claim("x", "1", "Bound");
        let refused = |new: Object| refuse_claim_status("n1", Some(&new), Some(&old));
        assert_eq!(refused(claim("x", "2", "Bound")), None);
        assert!(refused(claim("x", "2", "Lost")).is_some() && refused(claim("y", "2", "Bound")).is_some());
    }

    #[test]
    fn a_kubelet_offers_what_is_its_own() {
        let slice = |node: &str| object(json!({"spec": {"nodeName": node}}));
        let create = |node| refuse_slice("n1", Operation::Create, Some(&slice(node)), None);
        assert_eq!(create("n1"), None);
        let refused = "can only create ResourceSlice with the same NodeName as the requesting node";
        assert_eq!(create("n2").as_deref(), Some(refused));
        assert!(refuse_slice("n1", Operation::Delete, None, Some(&slice("n2"))).is_some());
    }

    #[test]
    fn whoever_connects_writes_nothing() {
        let user = crate::request::User::new("system:node:n1", &["system:nodes"]);
        let judged = |operation| {
            let attributes = Attributes {
                user: &user,
                operation,
                kind: api::kinds::built_in("", "pods"),
                subresource: "exec",
                namespace: "default",
                name: "web",
                addressed: "web",
                dry_run: false,
                options: &Value::Null,
                deadline: None,
            };
            validate("n1", &attributes, None, None, None).map_err(|status| status.code)
        };
        assert_eq!((judged(Operation::Connect), judged(Operation::Create)), (Ok(()), Err(403)));
    }

    #[test]
    fn a_kubelet_changes_of_its_node_what_is_its_own() {
        let user = crate::request::User::new("system:node:n1", &["system:nodes"]);
        let kind = api::kinds::find("", "v1", "nodes").unwrap();
        let attributes = Attributes {
            user: &user,
            operation: Operation::Update,
            kind,
            subresource: "",
            namespace: "",
            name: "n1",
            addressed: "",
            dry_run: false,
            options: &Value::Null,
            deadline: None,
        };
        let node = |change: Value| {
            let node = json!({"metadata": {"name": "n1", "labels": {}}, "spec": {}});
            object(api::patch::merge_patch(&node, &change).unwrap())
        };
        let old = node(json!({}));
        let refused = |change: Value, old: Option<&Object>| {
            refuse_node("n1", &attributes, Some(&node(change)), old).unwrap_or_default()
        };
        let label = json!({"metadata": {"labels": {"node-role.kubernetes.io/x": "", "team": "a"}}});
        assert_eq!(
            refused(label.clone(), None),
            r#"node "n1" is not allowed to set the following labels: node-role.kubernetes.io/x"#
        );
        assert_eq!(refused(label, Some(&old)), "is not allowed to modify labels: node-role.kubernetes.io/x");
        let taint = json!({"spec": {"taints": [{"key": "a"}]}});
        assert_eq!(refused(taint.clone(), Some(&old)), r#"node "n1" is not allowed to modify taints"#);
        assert_eq!(refused(taint, None), "");
        let owners = json!({"metadata": {"ownerReferences": [{"name": "x"}]}});
        assert_eq!(refused(owners, Some(&old)), r#"node "n1" is not allowed to modify ownerReferences"#);
        assert_eq!(refused(json!({"metadata": {"labels": {"team": "a"}}}), Some(&old)), "");
    }

    #[test]
    fn some_labels_are_not_the_kubelets_to_give() {
        for own in [
            "team",
            "example.com/team",
            "kubernetes.io/hostname",
            "node.kubernetes.io/pool",
            "topology.kubernetes.io/zone",
        ] {
            assert!(is_own_label(own), "{own}");
        }
        for other in [
            "node-restriction.kubernetes.io/trusted",
            "node-role.kubernetes.io/control-plane",
            "kubernetes.io/x",
        ] {
            assert!(!is_own_label(other), "{other}");
        }
    }
}

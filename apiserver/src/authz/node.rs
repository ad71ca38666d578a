//! What a kubelet may do: its own node, the pods bound to it, and what these pods refer to.
//!
//! [`decide`] is pure; where the answer hangs on what pods refer to, it names the reference. [`references_of`] says
//! what a pod refers to.

use api::meta::MIRROR;
use api::{Object, items};
use serde_json::Value;

use super::Question;
use crate::request::User;

/// An object that a pod refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Plural name, `secrets` for example.
    pub resource: &'static str,
    /// The pod's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

/// The answer to a kubelet's question, or what it hangs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Allowed,
    /// No, with the reason.
    Denied(String),
    /// Yes if a pod on the node refers to it.
    IfReferenced(Reference),
    /// Yes if a pod on the node refers to the claim that this volume is bound to.
    IfVolumeIsClaimed(String),
    /// Yes if this attachment is to the node.
    IfAttached(String),
    /// Yes if this ResourceSlice is the node's.
    IfOffered(String),
    /// Yes if this request for a certificate is for a pod on the node.
    IfRequested { namespace: String, name: String },
    /// Whatever the ClusterRole `system:node` says.
    ByRole,
}

/// The name of the node that a user is the kubelet of.
pub fn node_of(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:").filter(|name| !name.is_empty())?;
    user.is_in("system:nodes").then_some(name)
}

/// What may the kubelet of `node` do?
pub fn decide(node: &str, question: &Question<'_>) -> Verdict {
    let denied = |why: &str| Verdict::Denied(why.into());
    match (question.group, question.resource, question.subresource) {
        _ if !question.is_resource => Verdict::ByRole,
        ("", "secrets", _) => read_one("secrets", question),
        ("", "configmaps", _) => read_one("configmaps", question),
        ("", "persistentvolumeclaims", "status") => match question.verb {
            "update" | "patch" => named("persistentvolumeclaims", question),
            _ => denied("can only get/update/patch this type"),
        },
        ("", "persistentvolumeclaims", _) => get_one(question, || named("persistentvolumeclaims", question)),
        ("", "persistentvolumes", _) => {
            get_one(question, || Verdict::IfVolumeIsClaimed(question.name.to_string()))
        }
        ("storage.k8s.io", "volumeattachments", _) => {
            get_one(question, || Verdict::IfAttached(question.name.to_string()))
        }
        ("", "serviceaccounts", "") if question.verb == "get" => named("serviceaccounts", question),
        ("", "serviceaccounts", subresource) => match (question.verb, subresource) {
            ("create", _) if question.name.is_empty() => denied(ONLY_TOKENS),
            ("create", "token") => named("serviceaccounts", question),
            ("create", _) => denied("can only create token subresource of serviceaccount"),
            _ => denied(ONLY_TOKENS),
        },
        ("", "pods", "") => pod(node, question),
        ("resource.k8s.io", "resourceclaims", _) => get_one(question, || named("resourceclaims", question)),
        ("resource.k8s.io", "resourceslices", _) => slice(node, question),
        ("certificates.k8s.io", "podcertificaterequests", _) => certificate_request(node, question),
        ("coordination.k8s.io", "leases", _) => lease(node, question),
        ("storage.k8s.io", "csinodes", _) => csi_node(node, question),
        ("", "nodes", "" | "status") => own_node(node, question),
        _ => Verdict::ByRole,
    }
}

const ONLY_TOKENS: &str = "can only create tokens for individual service accounts";

fn read_one(resource: &'static str, question: &Question<'_>) -> Verdict {
    match question.verb {
        "get" | "list" | "watch" if question.subresource.is_empty() => named(resource, question),
        "get" | "list" | "watch" => Verdict::Denied("cannot read subresource".into()),
        _ => Verdict::Denied("can only read resources of this type".into()),
    }
}

fn get_one(question: &Question<'_>, verdict: impl Fn() -> Verdict) -> Verdict {
    match question.verb {
        "get" if !question.subresource.is_empty() => Verdict::Denied("cannot get subresource".into()),
        "get" if question.name.is_empty() => Verdict::Denied("No Object name found".into()),
        "get" => verdict(),
        _ => Verdict::Denied("can only get individual resources of this type".into()),
    }
}

fn named(resource: &'static str, question: &Question<'_>) -> Verdict {
    if question.namespace.is_empty() {
        return Verdict::Denied("can only read namespaced object of this type".into());
    }
    if question.name.is_empty() {
        return Verdict::Denied("No Object name found".into());
    }
    let (namespace, name) = (question.namespace.to_string(), question.name.to_string());
    Verdict::IfReferenced(Reference { resource, namespace, name })
}

/// A kubelet reads its own pods; what it may create and delete is admission's to say.
fn pod(node: &str, question: &Question<'_>) -> Verdict {
    match question.verb {
        "get" => named("pods", question),
        "list" | "watch" if requires(question.fields, "spec.nodeName", node) => Verdict::Allowed,
        // One pod by its name, as its own field selector.
        "list" | "watch" if !question.name.is_empty() && !question.namespace.is_empty() => {
            named("pods", question)
        }
        "list" | "watch" => {
            Verdict::Denied("can only list/watch pods with spec.nodeName field selector".into())
        }
        _ => Verdict::ByRole,
    }
}

/// What a node offers to claims; what it may create is admission's to say.
fn slice(node: &str, question: &Question<'_>) -> Verdict {
    let denied = |why: &str| Verdict::Denied(why.into());
    if !question.subresource.is_empty() {
        return denied("cannot access resourceslices subresources");
    }
    match question.verb {
        "create" => Verdict::Allowed,
        "get" | "update" | "patch" | "delete" if question.name.is_empty() => denied("No Object name found"),
        "get" | "update" | "patch" | "delete" => Verdict::IfOffered(question.name.to_string()),
        "list" | "watch" | "deletecollection" if requires(question.fields, "spec.nodeName", node) => {
            Verdict::Allowed
        }
        "list" | "watch" | "deletecollection" => {
            denied("can only list/watch/deletecollection resourceslices with nodeName field selector")
        }
        _ => denied(
            "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, \
             deletecollection",
        ),
    }
}

/// A kubelet asks for its pods' certificates; that they are its pods is admission's to say.
fn certificate_request(node: &str, question: &Question<'_>) -> Verdict {
    let denied = |why: &str| Verdict::Denied(why.into());
    if !question.subresource.is_empty() {
        return denied("cannot access podcertificaterequests subresources");
    }
    match question.verb {
        "create" => Verdict::Allowed,
        "get" if question.name.is_empty() => denied("No Object name found"),
        "get" => {
            let (namespace, name) = (question.namespace.to_string(), question.name.to_string());
            Verdict::IfRequested { namespace, name }
        }
        "list" | "watch" if requires(question.fields, "spec.nodeName", node) => Verdict::Allowed,
        "list" | "watch" => {
            denied("can only list/watch podcertificaterequests with spec.nodeName field selector")
        }
        _ => denied(
            "only the following verbs are allowed for a PodCertificateRequest: create, get, list, watch",
        ),
    }
}

/// Whether a field selector asks for exactly this value.
fn requires(selector: &str, field: &str, value: &str) -> bool {
    selector.split(',').any(|term| {
        let wanted = term.strip_prefix(field).and_then(|rest| rest.strip_prefix('='));
        wanted.is_some_and(|wanted| wanted.strip_prefix('=').unwrap_or(wanted) == value)
    })
}

fn lease(node: &str, question: &Question<'_>) -> Verdict {
    match question.verb {
        "get" | "create" | "update" | "patch" | "delete" => {}
        _ => return Verdict::Denied("can only get, create, update, patch, or delete a node lease".into()),
    }
    if question.namespace != "kube-node-lease" {
        return Verdict::Denied("can only access leases in the \"kube-node-lease\" system namespace".into());
    }
    // The name of a lease that is being created may stand in the body alone; admission checks it.
    if question.name == node || question.verb == "create" {
        return Verdict::Allowed;
    }
    Verdict::Denied("can only access node lease with the same name as the requesting node".into())
}

fn csi_node(node: &str, question: &Question<'_>) -> Verdict {
    let denied = |why: &str| Verdict::Denied(why.into());
    match question.verb {
        "get" | "create" | "update" | "patch" | "delete" if !question.subresource.is_empty() => {
            denied("cannot authorize CSINode subresources")
        }
        // The name may stand in the body alone; admission checks it.
        "create" => Verdict::Allowed,
        "get" | "update" | "patch" | "delete" if question.name == node => Verdict::Allowed,
        "get" | "update" | "patch" | "delete" => {
            denied("can only access CSINode with the same name as the requesting node")
        }
        _ => denied("can only get, create, update, patch, or delete a CSINode"),
    }
}

fn own_node(node: &str, question: &Question<'_>) -> Verdict {
    match question.verb {
        // Registration; admission checks the name in the body.
        "create" if question.subresource.is_empty() => Verdict::Allowed,
        "get" | "list" | "watch" | "update" | "patch" if question.name == node => Verdict::Allowed,
        "get" | "list" | "watch" => Verdict::Denied(format!(
            "node '{node}' cannot read '{}', only its own Node object",
            question.name
        )),
        "update" | "patch" => Verdict::Denied(format!("node '{node}' cannot write any other Node object")),
        _ => Verdict::ByRole,
    }
}

/// What a pod lets its kubelet read. Mirror pods, which kubelets make themselves, open nothing but themselves.
pub fn opened_by(pod: &Object) -> Vec<Reference> {
    let is_mirror = pod.annotation(MIRROR).is_some();
    references_of(pod).into_iter().filter(|reference| !is_mirror || reference.resource == "pods").collect()
}

/// Everything that a pod refers to and its kubelet must read.
pub fn references_of(pod: &Object) -> Vec<Reference> {
    let mut found = Vec::new();
    let mut add = |resource: &'static str, name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            found.push(Reference {
                resource,
                namespace: pod.namespace().to_string(),
                name: name.to_string(),
            });
        }
    };
    add("pods", &Value::from(pod.name()));
    for claim in pod.list(&["spec", "resourceClaims"]) {
        add("resourceclaims", &claim["resourceClaimName"]);
    }
    for claim in pod.list(&["status", "resourceClaimStatuses"]) {
        add("resourceclaims", &claim["resourceClaimName"]);
    }
    add("serviceaccounts", pod.at(&["spec", "serviceAccountName"]).unwrap_or(&Value::Null));
    for secret in pod.list(&["spec", "imagePullSecrets"]) {
        add("secrets", &secret["name"]);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in pod.list(&["spec", list]) {
            for variable in items(&container["env"]) {
                add("secrets", &variable["valueFrom"]["secretKeyRef"]["name"]);
                add("configmaps", &variable["valueFrom"]["configMapKeyRef"]["name"]);
            }
            for source in items(&container["envFrom"]) {
                add("secrets", &source["secretRef"]["name"]);
                add("configmaps", &source["configMapRef"]["name"]);
            }
        }
    }
    for volume in pod.list(&["spec", "volumes"]) {
        add("secrets", &volume["secret"]["secretName"]);
        add("configmaps", &volume["configMap"]["name"]);
        add("persistentvolumeclaims", &volume["persistentVolumeClaim"]["claimName"]);
        add("secrets", &volume["csi"]["nodePublishSecretRef"]["name"]);
        for plugin in ["azureFile", "cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
            add("secrets", &volume[plugin]["secretRef"]["name"]);
            add("secrets", &volume[plugin]["secretName"]);
        }
        if !volume["ephemeral"].is_null() {
            let claim = format!("{}-{}", pod.name(), volume["name"].as_str().unwrap_or_default());
            add("persistentvolumeclaims", &Value::String(claim));
        }
        for source in items(&volume["projected"]["sources"]) {
            add("secrets", &source["secret"]["name"]);
            add("configmaps", &source["configMap"]["name"]);
        }
    }
    found
}

/// The Secrets that a kubelet needs for a volume, with their namespaces.
pub fn secrets_of_volume(volume: &Object) -> Vec<(String, String)> {
    let spec = volume.at(&["spec"]).unwrap_or(&Value::Null);
    let claim_namespace = volume.text(&["spec", "claimRef", "namespace"]);
    let csi = &spec["csi"];
    let references =
        ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"].map(|key| &csi[key]);
    let plugins =
        ["cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"].map(|key| &spec[key]["secretRef"]);
    let of_reference = |reference: &Value| {
        let text = |key: &str| reference[key].as_str().filter(|text| !text.is_empty());
        Some((text("namespace").unwrap_or(claim_namespace).to_string(), text("name")?.to_string()))
    };
    let azure = &spec["azureFile"];
    let azure = azure["secretName"].as_str().map(|name| {
        let namespace = azure["secretNamespace"].as_str().unwrap_or(claim_namespace);
        (namespace.to_string(), name.to_string())
    });
    references.into_iter().chain(plugins).filter_map(of_reference).chain(azure).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask<'a>(
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> Question<'a> {
        Question { is_resource: true, verb, group, resource, namespace, name, ..Question::default() }
    }

    /// Verb, group, resource with its subresource, namespace, name, and the beginning of the answer.
    #[test]
    fn a_kubelet_gets_no_further_than_its_own() {
        let (coordination, storage, resource) = ("coordination.k8s.io", "storage.k8s.io", "resource.k8s.io");
        let certificates = "certificates.k8s.io";
        let leases = "kube-node-lease";
        let get_only = "Denied(\"can only get individual resources of this type";
        let read_only = "Denied(\"can only read resources of this type";
        let other_lease = "Denied(\"can only access node lease with the same name";
        let other_csi_node = "Denied(\"can only access CSINode with the same name";
        let table = [
            ("get", "", "secrets", "a", "s", "IfReferenced"),
            ("list", "", "secrets", "a", "s", "IfReferenced"),
            ("list", "", "secrets", "a", "", "Denied(\"No Object name found"),
            ("watch", "", "configmaps", "", "s", "Denied(\"can only read namespaced object"),
            ("get", "", "secrets/x", "a", "s", "Denied(\"cannot read subresource"),
            ("update", "", "secrets", "a", "s", read_only),
            ("delete", "", "configmaps", "a", "s", read_only),
            ("get", "", "persistentvolumeclaims", "a", "c", "IfReferenced"),
            ("get", "", "persistentvolumeclaims/x", "a", "c", "Denied(\"cannot get subresource"),
            ("list", "", "persistentvolumeclaims", "a", "", get_only),
            ("patch", "", "persistentvolumeclaims/status", "a", "c", "IfReferenced"),
            ("delete", "", "persistentvolumeclaims/status", "a", "c", "Denied(\"can only get/update/patch"),
            ("get", "", "persistentvolumes", "", "v", "IfVolumeIsClaimed"),
            ("get", "", "persistentvolumes", "", "", "Denied(\"No Object name found"),
            ("watch", "", "persistentvolumes", "", "v", get_only),
            ("get", storage, "volumeattachments", "", "v", "IfAttached"),
            ("list", storage, "volumeattachments", "", "", get_only),
            ("get", "", "serviceaccounts", "a", "web", "IfReferenced"),
            ("create", "", "serviceaccounts/token", "a", "web", "IfReferenced"),
            ("create", "", "serviceaccounts", "a", "", "Denied(\"can only create tokens for individual"),
            ("create", "", "serviceaccounts", "a", "web", "Denied(\"can only create token subresource"),
            ("list", "", "serviceaccounts", "a", "", "Denied(\"can only create tokens for individual"),
            ("get", resource, "resourceclaims", "a", "c", "IfReferenced"),
            ("update", resource, "resourceclaims", "a", "c", get_only),
            ("create", resource, "resourceslices", "", "", "Allowed"),
            ("delete", resource, "resourceslices", "", "s", "IfOffered"),
            ("create", certificates, "podcertificaterequests", "a", "", "Allowed"),
            ("get", certificates, "podcertificaterequests", "a", "r", "IfRequested"),
            ("get", certificates, "podcertificaterequests", "a", "", "Denied(\"No Object name found"),
            ("list", certificates, "podcertificaterequests", "a", "", "Denied(\"can only list/watch"),
            ("update", certificates, "podcertificaterequests", "a", "r", "Denied(\"only the following verbs"),
            ("update", certificates, "podcertificaterequests/status", "a", "r", "Denied(\"cannot access"),
            ("list", resource, "resourceslices", "", "", "Denied(\"can only list/watch/deletecollection"),
            ("update", resource, "resourceslices/status", "", "s", "Denied(\"cannot access resourceslices"),
            ("update", coordination, "leases", leases, "n1", "Allowed"),
            ("create", coordination, "leases", leases, "", "Allowed"),
            ("update", coordination, "leases", leases, "n2", other_lease),
            ("get", coordination, "leases", "a", "n1", "Denied(\"can only access leases in the"),
            ("list", coordination, "leases", leases, "", "Denied(\"can only get, create, update, patch, or"),
            ("get", storage, "csinodes", "", "n1", "Allowed"),
            ("create", storage, "csinodes", "", "", "Allowed"),
            ("delete", storage, "csinodes", "", "n2", other_csi_node),
            ("list", storage, "csinodes", "", "", "Denied(\"can only get, create, update, patch, or"),
            ("patch", "", "nodes", "", "n1", "Allowed"),
            ("patch", "", "nodes/status", "", "n1", "Allowed"),
            ("patch", "", "nodes", "", "n2", "Denied"),
            ("list", "", "nodes", "", "", "Denied(\"node 'n1' cannot read '', only its own Node object"),
            ("delete", "", "nodes", "", "n1", "ByRole"),
            ("get", "", "pods", "a", "web", "IfReferenced"),
            ("create", "", "pods", "a", "", "ByRole"),
            ("list", "", "services", "", "", "ByRole"),
        ];
        for (verb, group, resource, namespace, name, expected) in table {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let question = Question { subresource, ..ask(verb, group, resource, namespace, name) };
            let verdict = format!("{:?}", decide("n1", &question));
            assert!(verdict.starts_with(expected), "{verb} {resource}/{subresource} {name}: {verdict}");
        }
    }

    #[test]
    fn a_kubelet_finds_the_slices_of_its_node() {
        let ask = ask("deletecollection", "resource.k8s.io", "resourceslices", "", "");
        assert_eq!(decide("n1", &Question { fields: "spec.nodeName=n1", ..ask }), Verdict::Allowed);
        assert!(matches!(decide("n1", &Question { fields: "spec.nodeName=n2", ..ask }), Verdict::Denied(_)));
    }

    #[test]
    fn a_mirror_pod_opens_nothing() {
        let pod = |annotations: Value| {
            let spec = json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]});
            let metadata = json!({"name": "web", "namespace": "a", "annotations": annotations});
            opened_by(&Object::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
        };
        assert_eq!(pod(json!({})).iter().map(|one| one.resource).collect::<Vec<_>>(), ["pods", "secrets"]);
        assert_eq!(pod(json!({MIRROR: "x"})).iter().map(|one| one.resource).collect::<Vec<_>>(), ["pods"]);
    }

    #[test]
    fn secrets_hang_on_the_pods_of_the_node() {
        let pod = Object::from_value(json!({
            "metadata": {"name": "web", "namespace": "a"},
            "spec": {
                "serviceAccountName": "default",
                "containers": [{"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "key"}}}]}],
                "volumes": [
                    {"name": "v", "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}},
                    {"name": "data", "ephemeral": {}},
                ],
            },
        }));
        let pod = pod.unwrap();
        let references = references_of(&pod);
        let has = |resource, name: &str| {
            references.contains(&Reference { resource, namespace: "a".into(), name: name.into() })
        };
        assert!(has("secrets", "key"));
        assert!(has("configmaps", "kube-root-ca.crt"));
        assert!(has("serviceaccounts", "default"));
        assert!(has("persistentvolumeclaims", "web-data"));
        assert!(!has("secrets", "other"));
        let verdict = decide("n1", &ask("get", "", "secrets", "a", "key"));
        assert!(matches!(verdict, Verdict::IfReferenced(reference) if references.contains(&reference)));
    }

    #[test]
    fn a_kubelet_lists_the_pods_of_its_node() {
        let list = |fields| decide("n1", &Question { fields, ..ask("list", "", "pods", "", "") });
        assert_eq!(list("spec.nodeName=n1"), Verdict::Allowed);
        assert_eq!(list("metadata.namespace!=a,spec.nodeName==n1"), Verdict::Allowed);
        for fields in ["", "spec.nodeName=n2", "spec.nodeName!=n1", "spec.nodeName=n11"] {
            assert!(matches!(list(fields), Verdict::Denied(_)), "{fields}");
        }
        assert!(matches!(decide("n1", &ask("get", "", "pods", "a", "web")), Verdict::IfReferenced(_)));
    }

    #[test]
    fn a_volume_names_the_secrets_that_mounting_it_takes() {
        let volume = Object::from_value(json!({"spec": {
            "claimRef": {"namespace": "a", "name": "c"},
            "csi": {"nodeStageSecretRef": {"namespace": "s", "name": "one"}},
            "azureFile": {"secretName": "two"},
        }}));
        let pair = |one: &str, other: &str| (one.to_string(), other.to_string());
        assert_eq!(secrets_of_volume(&volume.unwrap()), [pair("s", "one"), pair("a", "two")]);
    }

    #[test]
    fn only_the_group_makes_a_node() {
        assert_eq!(node_of(&User::new("system:node:n1", &["system:nodes"])), Some("n1"));
        assert_eq!(node_of(&User::new("system:node:n1", &[])), None);
    }
}

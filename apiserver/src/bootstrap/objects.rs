//! Every object that a cluster starts with.

use std::{net::SocketAddr, sync::Arc};

use api::kinds::built_in as kind;
use api::{Kind, Object};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    Config,
    controllers::CONTROLLERS,
    range,
    roles::{
        AGGREGATED, AGGREGATED_METRICS, CLUSTER_BINDINGS, CLUSTER_ROLES, Grant, NAMESPACED_BINDINGS,
        NAMESPACED_ROLES, Role, Subject,
    },
};
use crate::{alloc, authz::Rule, fairness};

const RBAC: &str = "rbac.authorization.k8s.io";

/// An object that should be there.
pub(super) struct Desired {
    pub(super) kind: &'static Kind,
    pub(super) object: Object,
    pub(super) keep: Keep,
}

/// What happens to it when it is there already.
#[derive(Clone, Copy)]
pub(super) enum Keep {
    /// Whatever it looks like, it stays so.
    AsItIs,
    /// Missing rules are added.
    Role,
    /// Missing subjects are added.
    Binding,
    /// These fields are set, the rest stays.
    Fields(&'static [&'static str]),
    /// These entries of `data` are set, others stay.
    Data,
    /// The spec is set unless an annotation says otherwise, which counts only where the object may differ.
    Fairness { is_mandatory: bool },
}

/// All of them. The order does not matter.
pub(super) fn all(config: &Config) -> Vec<Desired> {
    let mut all: Vec<Desired> =
        ["default", "kube-system", "kube-public", "kube-node-lease"].map(namespace).into();
    all.extend(cluster_roles());
    all.extend(CLUSTER_BINDINGS.iter().map(|(role, subjects)| cluster_binding(role, subjects)));
    all.extend(CONTROLLERS.iter().map(|(name, _)| controller_binding(name)));
    for (namespace, role) in NAMESPACED_ROLES {
        let object = json!({"metadata": bootstrapped(role.name, namespace, &[]), "rules": rules(role.rules)});
        all.push(desired(RBAC, "roles", object, Keep::Role));
    }
    for (namespace, name, role, subjects) in NAMESPACED_BINDINGS {
        let metadata = bootstrapped(name, namespace, &[]);
        all.push(desired(RBAC, "rolebindings", binding(metadata, "Role", role, subjects), Keep::Binding));
    }
    all.extend(priority_classes());
    all.extend(fairness::objects::all().into_iter().map(|wanted| {
        let keep = Keep::Fairness { is_mandatory: wanted.is_mandatory };
        Desired { kind: wanted.kind, object: wanted.object, keep }
    }));
    all.extend(kubernetes_service(config));
    all.push(authentication_config(config));
    all.push(cluster_info(config));
    all.push(service_range(config));
    let local = crate::aggregation::local_rows().into_iter();
    all.extend(local.map(|row| Desired {
        kind: kind("apiregistration.k8s.io", "apiservices"),
        object: row,
        keep: Keep::AsItIs,
    }));
    all
}

/// A rule as the authorizer has it.
pub(super) fn rule(grant: &Grant) -> Rule {
    let words = |text: &str| -> Vec<String> {
        text.split_whitespace().map(|word| if word == "core" { "" } else { word }.to_string()).collect()
    };
    Rule {
        verbs: words(grant.verbs),
        groups: words(grant.groups),
        resources: words(grant.resources),
        names: words(grant.names),
        urls: words(grant.urls),
    }
}

fn rules(grants: &[Grant]) -> Value {
    grants.iter().map(|grant| rule(grant).to_json()).collect()
}

fn namespace(name: &str) -> Desired {
    let labels = json!({"kubernetes.io/metadata.name": name});
    desired("", "namespaces", json!({"metadata": {"name": name, "labels": labels}}), Keep::AsItIs)
}

fn cluster_roles() -> Vec<Desired> {
    let plain = CLUSTER_ROLES
        .iter()
        .map(|role| json!({"metadata": bootstrapped(role.name, "", &gathered_by(role)), "rules": rules(role.rules)}));
    let controllers = CONTROLLERS.iter().map(|(name, grants)| {
        json!({"metadata": bootstrapped(&format!("system:controller:{name}"), "", &[]), "rules": rules(grants)})
    });
    let mut roles: Vec<Arc<Object>> =
        plain.chain(controllers).filter_map(Object::from_value).map(Arc::new).collect();
    // Roles that gather others come with what they gather, the innermost first.
    for (name, gathered, label) in AGGREGATED.iter().rev() {
        let selector = json!({"matchLabels": {*gathered: "true"}});
        let object = json!({
            "metadata": bootstrapped(name, "", label.as_slice()),
            "aggregationRule": {"clusterRoleSelectors": [selector]},
        });
        let mut role = Object::from_value(object).unwrap_or_default();
        let rules: Value = crate::authz::aggregated(&role, &roles).iter().map(Rule::to_json).collect();
        role.set(&["rules"], rules);
        roles.push(Arc::new(role));
    }
    let kind = kind(RBAC, "clusterroles");
    roles
        .into_iter()
        .map(|role| Desired { kind, object: typed(kind, (*role).clone()), keep: Keep::Role })
        .collect()
}

fn cluster_binding(role: &str, subjects: &[Subject]) -> Desired {
    let object = binding(bootstrapped(role, "", &[]), "ClusterRole", role, subjects);
    desired(RBAC, "clusterrolebindings", object, Keep::Binding)
}

fn controller_binding(name: &'static str) -> Desired {
    cluster_binding(&format!("system:controller:{name}"), &[Subject::ServiceAccount("kube-system", name)])
}

fn binding(metadata: Value, role_kind: &str, role: &str, subjects: &[Subject]) -> Value {
    let subject = |subject: &Subject| match subject {
        Subject::User(name) => json!({"apiGroup": RBAC, "kind": "User", "name": name}),
        Subject::Group(name) => json!({"apiGroup": RBAC, "kind": "Group", "name": name}),
        Subject::ServiceAccount(namespace, name) => {
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
    };
    let mut object = json!({
        "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": role_kind, "name": role},
    });
    if !subjects.is_empty() {
        object["subjects"] = subjects.iter().map(subject).collect();
    }
    object
}

/// The labels by which roles that gather others find this one.
fn gathered_by(role: &Role) -> Vec<&'static str> {
    let all = AGGREGATED.iter().map(|(_, label, _)| *label);
    let own = role.name.strip_prefix("system:").unwrap_or_default();
    all.filter(|label| role.name == AGGREGATED_METRICS || label.ends_with(&format!("/{own}"))).collect()
}

fn bootstrapped(name: &str, namespace: &str, labels: &[&str]) -> Value {
    let mut metadata = json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    });
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    for label in labels {
        metadata["labels"][*label] = "true".into();
    }
    metadata
}

fn priority_classes() -> [Desired; 2] {
    let class = |name: &str, value: i64, description: &str| {
        let object = json!({
            "metadata": {"name": name},
            "value": value,
            "description": description,
            "preemptionPolicy": "PreemptLowerPriority",
        });
        desired("scheduling.k8s.io", "priorityclasses", object, Keep::AsItIs)
    };
    [
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
}

/// The Service through which pods reach the API, and where it leads.
fn kubernetes_service(config: &Config) -> [Desired; 3] {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let address = config.service_address.to_string();
    let service = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": config.port}],
        },
    });
    let endpoints = json!({
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{
            "addresses": [{"ip": config.advertise.to_string()}],
            "ports": [{"name": "https", "port": config.port, "protocol": "TCP"}],
        }],
    });
    let slice = json!({
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": if config.advertise.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [config.advertise.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": config.port, "protocol": "TCP"}],
    });
    [
        desired("", "services", service, Keep::AsItIs),
        desired("", "endpoints", endpoints, Keep::Fields(&["subsets"])),
        desired("discovery.k8s.io", "endpointslices", slice, Keep::Fields(&["endpoints", "ports"])),
    ]
}

/// What extension API servers read to know whose certificates to trust.
fn authentication_config(config: &Config) -> Desired {
    let object = json!({
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": config.client_ca,
            "requestheader-allowed-names": r#"["front-proxy-client"]"#,
            "requestheader-client-ca-file": config.front_proxy_ca,
            "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
            "requestheader-group-headers": r#"["X-Remote-Group"]"#,
            "requestheader-uid-headers": r#"["X-Remote-Uid"]"#,
            "requestheader-username-headers": r#"["X-Remote-User"]"#,
        },
    });
    desired("", "configmaps", object, Keep::Fields(&["data"]))
}

/// What whoever joins reads first, without credentials. Signatures of bootstrap tokens are added to it.
fn cluster_info(config: &Config) -> Desired {
    let kubeconfig = format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {}\n    server: https://{}\n  name: \"\"\n\
         contexts: null\ncurrent-context: \"\"\nkind: Config\nusers: null\n",
        BASE64_STANDARD.encode(&config.server_ca),
        SocketAddr::new(config.advertise, config.port),
    );
    let object = json!({
        "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": kubeconfig},
    });
    desired("", "configmaps", object, Keep::Data)
}

fn service_range(config: &Config) -> Desired {
    Desired {
        kind: alloc::service_cidrs(),
        object: range::service_cidr(&config.service_range),
        keep: Keep::AsItIs,
    }
}

fn desired(group: &str, plural: &str, object: Value, keep: Keep) -> Desired {
    let kind = kind(group, plural);
    Desired { kind, object: typed(kind, Object::from_value(object).unwrap_or_default()), keep }
}

fn typed(kind: &Kind, mut object: Object) -> Object {
    let version = if kind.group.is_empty() {
        kind.version.to_string()
    } else {
        format!("{}/{}", kind.group, kind.version)
    };
    object.set(&["apiVersion"], version);
    object.set(&["kind"], kind.kind);
    object
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn config() -> Config {
        Config {
            service_address: "10.96.0.1".parse().unwrap(),
            service_range: "10.96.0.0/12".into(),
            advertise: "192.0.2.7".parse().unwrap(),
            port: 6443,
            client_ca: String::new(),
            server_ca: String::new(),
            front_proxy_ca: String::new(),
        }
    }

    fn find<'a>(all: &'a [Desired], plural: &str, name: &str) -> &'a Object {
        let found = all.iter().find(|one| one.kind.plural == plural && one.object.name() == name);
        &found.unwrap_or_else(|| panic!("{plural} {name}")).object
    }

    #[test]
    fn roles_and_bindings_say_that_they_are_kept_up_to_date_and_who_gathers_them() {
        let all = all(&config());
        for one in all.iter().filter(|one| one.kind.group == RBAC) {
            let name = one.object.name();
            let labels = one.object.labels().unwrap();
            assert_eq!(labels["kubernetes.io/bootstrapping"], "rbac-defaults", "{name}");
            let autoupdate = one.object.annotation("rbac.authorization.kubernetes.io/autoupdate");
            assert_eq!(autoupdate, Some("true"), "{name}");
        }
        let gathered = |name: &str| -> Vec<String> {
            let labels = find(&all, "clusterroles", name).labels().unwrap().keys();
            let prefix = "rbac.authorization.k8s.io/aggregate-to-";
            labels.filter_map(|label| label.strip_prefix(prefix)).map(str::to_string).collect()
        };
        assert_eq!(gathered("system:aggregate-to-edit"), ["edit"]);
        assert_eq!(gathered("edit"), ["admin"]);
        assert_eq!(gathered("view"), ["edit"]);
        assert_eq!(gathered("admin"), [""; 0]);
        assert_eq!(gathered("system:aggregated-metrics-reader"), ["admin", "edit", "view"]);
        assert_eq!(gathered("system:node"), [""; 0]);
    }

    #[test]
    fn nobody_reads_where_the_cluster_is_and_little_else() {
        let all = all(&config());
        let info = find(&all, "configmaps", "cluster-info");
        let kubeconfig: Value = serde_yaml::from_str(info.text(&["data", "kubeconfig"])).unwrap();
        assert_eq!(kubeconfig["clusters"][0]["cluster"]["server"], "https://192.0.2.7:6443");
        let is_nobodys = |object: &Object| {
            let subjects = object.list(&["subjects"]).iter();
            subjects
                .map(|subject| &subject["name"])
                .any(|name| name == "system:anonymous" || name == "system:unauthenticated")
        };
        let bindings: Vec<&str> =
            all.iter().filter(|one| is_nobodys(&one.object)).map(|one| one.object.name()).collect();
        assert_eq!(bindings, ["system:public-info-viewer", "kubeadm:bootstrap-signer-clusterinfo"]);
    }

    #[test]
    fn no_object_stands_twice() {
        let all = all(&config());
        let keys: HashSet<_> =
            all.iter().map(|one| (one.kind.storage, one.object.namespace(), one.object.name())).collect();
        assert_eq!(keys.len(), all.len());
    }

    #[test]
    fn every_binding_has_its_role() {
        let all = all(&config());
        let roles: HashSet<_> =
            all.iter().filter(|one| one.kind.plural == "clusterroles").map(|one| one.object.name()).collect();
        for binding in all.iter().filter(|one| one.kind.plural == "clusterrolebindings") {
            assert!(roles.contains(binding.object.text(&["roleRef", "name"])), "{}", binding.object.name());
        }
    }

    #[test]
    fn admin_gathers_edit_and_edit_gathers_view() {
        let all = all(&config());
        let allows = |role: &str, verb: &str, resource: &str| {
            let asked = Rule {
                verbs: vec![verb.into()],
                groups: vec!["".into()],
                resources: vec![resource.into()],
                ..Rule::default()
            };
            Rule::all_of(find(&all, "clusterroles", role)).iter().any(|rule| rule.covers(&asked))
        };
        assert!(
            allows("view", "get", "pods")
                && !allows("view", "get", "secrets")
                && !allows("view", "create", "pods")
        );
        assert!(
            allows("edit", "get", "pods")
                && allows("edit", "create", "pods")
                && allows("edit", "get", "secrets")
        );
        assert!(allows("admin", "create", "pods") && allows("admin", "list", "events"));
    }

    #[test]
    fn controllers_are_bound_to_their_service_accounts() {
        let all = all(&config());
        let binding = find(&all, "clusterrolebindings", "system:controller:replicaset-controller");
        let subject =
            json!({"kind": "ServiceAccount", "name": "replicaset-controller", "namespace": "kube-system"});
        assert_eq!(binding.list(&["subjects"]), [subject]);
    }
}

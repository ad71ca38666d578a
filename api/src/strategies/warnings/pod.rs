//! Pods and templates of pods.

use std::collections::{HashMap, HashSet};

use super::{Field, fractional, of_claim_spec, old_labels_in, old_node_label};
use crate::{Object, meta};

/// Annotations that mean nothing any more.
const OLD_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];
const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const APP_ARMOR: &str = "deprecated since v1.30; use the \"appArmorProfile\" field instead";

/// Volumes of storage that is gone or going.
const OLD_VOLUMES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Warnings about a new pod. Changes of pods are the business of programs, who do not listen.
pub fn of_pod(object: &Object, old: Option<&Object>) -> Vec<String> {
    if old.is_some() {
        return Vec::new();
    }
    let mut found = Vec::new();
    found.extend(super::recommend_label(object, old, "this is used in the Pod's hostname"));
    of_parts(&Field::at(object, &["spec"]), &Field::at(object, &["metadata", "annotations"]), &mut found);
    found
}

/// Warnings about a pod in a template, which stands at `template`.
pub fn of_template(template: &Field, found: &mut Vec<String>) {
    of_parts(&template.get("spec"), &template.get("metadata").get("annotations"), found);
}

fn of_parts(spec: &Field, annotations: &Field, found: &mut Vec<String>) {
    old_labels(spec, found);
    spread(&spec.get("topologySpreadConstraints"), found);
    for (annotation, advice) in OLD_ANNOTATIONS {
        of_annotation(annotations, annotation, advice, found);
    }
    volumes(&spec.get("volumes"), found);
    token_paths(&spec.get("volumes"), found);
    repeated(&spec.get("hostAliases"), "ip", "duplicate ip", found);
    repeated(&spec.get("imagePullSecrets"), "name", "duplicate name", found);
    for secret in spec.get("imagePullSecrets").items().filter(|secret| secret.get("name").text().is_empty()) {
        found.push(format!("{}.name: invalid empty name \"\"", secret.path));
    }
    for resource in ["memory", "ephemeral-storage"] {
        fractional(&spec.get("overhead"), resource, found);
    }
    if !spec.get("securityContext").get("seccompProfile").is_set() {
        of_annotation(annotations, "seccomp.security.alpha.kubernetes.io/pod", SECCOMP, found);
    }
    let containers: Vec<Field> = ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| spec.get(list).items())
        .collect();
    for container in &containers {
        old_profiles(container, spec, annotations, found);
        for list in ["memory", "ephemeral-storage"] {
            for amounts in ["limits", "requests"] {
                fractional(&container.get("resources").get(amounts), list, found);
            }
        }
        hidden_variables(container, found);
    }
    overlapping_ports(&containers, found);
    if spec.get("terminationGracePeriodSeconds").number().is_some_and(|seconds| seconds < 0) {
        let path = &spec.path;
        found.push(format!("{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    neighbours_of_nobody(&spec.get("affinity"), found);
}

fn old_labels(spec: &Field, found: &mut Vec<String>) {
    for (label, entry) in spec.get("nodeSelector").entries() {
        if let Some(advice) = old_node_label(label) {
            found.push(format!("{}: {advice}", entry.path));
        }
    }
    let affinity = spec.get("affinity").get("nodeAffinity");
    let required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution");
    for term in required.get("nodeSelectorTerms").items() {
        old_labels_in(&term.get("matchExpressions"), found);
    }
    for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        old_labels_in(&term.get("preference").get("matchExpressions"), found);
    }
}

fn spread(constraints: &Field, found: &mut Vec<String>) {
    for constraint in constraints.items() {
        let key = constraint.get("topologyKey");
        if let Some(advice) = old_node_label(key.text()) {
            found.push(format!("{}: {} is {advice}", key.path, key.text()));
        }
        matches_nobody(&constraint, found);
    }
}

fn matches_nobody(of: &Field, found: &mut Vec<String>) {
    let selector = of.get("labelSelector");
    if !selector.is_set() {
        found.push(format!("{}: a null labelSelector results in matching no pod", selector.path));
    }
}

fn neighbours_of_nobody(affinity: &Field, found: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let kind = affinity.get(kind);
        for term in kind.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            matches_nobody(&term, found);
        }
        for term in kind.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            matches_nobody(&term.get("podAffinityTerm"), found);
        }
    }
}

fn of_annotation(annotations: &Field, annotation: &str, advice: &str, found: &mut Vec<String>) {
    let entry = annotations.entry(annotation);
    if entry.is_set() {
        found.push(format!("{}: {advice}", entry.path));
    }
}

fn old_profiles(container: &Field, spec: &Field, annotations: &Field, found: &mut Vec<String>) {
    let name = container.get("name").text();
    let own = container.get("securityContext");
    if !own.get("seccompProfile").is_set() {
        let annotation = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
        of_annotation(annotations, &annotation, SECCOMP, found);
    }
    let of_pod = spec.get("securityContext");
    if !own.get("appArmorProfile").is_set() && !of_pod.get("appArmorProfile").is_set() {
        let annotation = format!("{}{name}", meta::APP_ARMOR);
        of_annotation(annotations, &annotation, APP_ARMOR, found);
    }
}

fn volumes(volumes: &Field, found: &mut Vec<String>) {
    for volume in volumes.items() {
        old_volumes(&volume, found);
        let template = volume.get("ephemeral").get("volumeClaimTemplate");
        if template.is_set() {
            of_claim_spec(&template.get("spec"), found);
        }
    }
}

/// Storage of a pod's volume or a PersistentVolume that is gone or going.
pub fn old_volumes(volume: &Field, found: &mut Vec<String>) {
    for (kind, advice) in OLD_VOLUMES {
        if volume.get(kind).is_set() {
            found.push(format!("{}.{kind}: {advice}", volume.path));
        }
    }
}

fn sources<'a>(volume: &Field<'a>) -> impl Iterator<Item = Field<'a>> + use<'a> {
    volume.get("projected").get("sources").items()
}

/// Files of a projected volume that hide a token.
fn token_paths(volumes: &Field, found: &mut Vec<String>) {
    let tokens: HashSet<String> = volumes
        .items()
        .flat_map(|volume| sources(&volume))
        .map(|source| source.get("serviceAccountToken"))
        .filter(Field::is_set)
        .map(|token| token.get("path").text().to_string())
        .collect();
    if tokens.is_empty() {
        return;
    }
    let mut refuse = |place: String, path: &str| {
        if tokens.contains(path) {
            found.push(format!("{place}: has duplicated path with ServiceAccountToken \"{path}\""));
        }
    };
    for volume in volumes.items() {
        for source in sources(&volume) {
            let of_sources = format!("{}.projected.sources", volume.path);
            for (kind, shown) in
                [("configMap", "configMap"), ("secret", "secrets"), ("downwardAPI", "downwardAPI")]
            {
                for (index, item) in source.get(kind).get("items").items().enumerate() {
                    refuse(format!("{of_sources}.{shown}[{index}]"), item.get("path").text());
                }
            }
            let bundle = source.get("clusterTrustBundle");
            if bundle.is_set() {
                refuse(format!("{of_sources}.ClusterTrustBundle"), bundle.get("path").text());
            }
        }
    }
}

fn repeated(list: &Field, key: &str, what: &str, found: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for item in list.items() {
        let key = item.get(key);
        if !seen.insert(key.text()) {
            found.push(format!("{}: {what} \"{}\"", key.path, key.text()));
        }
    }
}

/// A variable may add to what an earlier one of its name says, and may not hide it.
fn hidden_variables(container: &Field, found: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for variable in container.get("env").items() {
        let (name, value) = (variable.get("name").text(), variable.get("value").text());
        if seen.insert(name) {
            continue;
        }
        let reference = format!("$({name})");
        let adds = value.contains(&reference) && value != reference && !variable.get("valueFrom").is_set();
        if !adds {
            found.push(format!(
                "{}: hides previous definition of \"{name}\", which may be dropped when using apply",
                variable.path
            ));
        }
    }
}

/// One port of a container, as far as others may be in its way.
struct Port<'a> {
    path: String,
    host_ip: &'a str,
    host_port: i64,
}

/// Ports of all containers that are given twice, or are not clearly different.
fn overlapping_ports(containers: &[Field], found: &mut Vec<String>) {
    let mut all: HashMap<(i64, &str), Vec<Port>> = HashMap::new();
    for field in containers.iter().flat_map(|container| container.get("ports").items()) {
        let (number, protocol) =
            (field.get("containerPort").number().unwrap_or_default(), field.get("protocol").text());
        let port = Port {
            host_ip: field.get("hostIP").text(),
            host_port: field.get("hostPort").number().unwrap_or_default(),
            path: field.path.clone(),
        };
        if !port.host_ip.is_empty() && port.host_port == 0 {
            let (name, host_ip) = (field.get("name").text(), port.host_ip);
            found.push(format!(
                "{}: hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{host_ip}}}",
                port.path
            ));
        }
        let others = all.entry((number, protocol)).or_default();
        for other in others.iter() {
            if let Some(how) = port.is_in_the_way_of(other) {
                found.push(format!("{}: {how} port definition with {}", port.path, other.path));
            }
        }
        others.push(port);
    }
}

impl Port<'_> {
    fn is_in_the_way_of(&self, other: &Port) -> Option<&'static str> {
        let is_same_port = self.host_port == other.host_port;
        if is_same_port && self.host_ip == other.host_ip {
            return Some("duplicate");
        }
        if self.host_port == 0 || other.host_port == 0 {
            return Some("overlapping");
        }
        let one_names_an_address = self.host_ip.is_empty() != other.host_ip.is_empty();
        (is_same_port && one_names_an_address).then_some("dangerously ambiguous")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn said(pod: Value) -> Vec<String> {
        let mut pod = pod;
        pod["metadata"]["name"] = "web".into();
        of_pod(&Object::from_value(pod).unwrap(), None)
    }

    fn of_spec(spec: Value) -> Vec<String> {
        said(json!({"metadata": {}, "spec": spec}))
    }

    #[test]
    fn labels_and_annotations_of_old_are_named() {
        let required =
            json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "beta.kubernetes.io/os"}]}]});
        let found = said(json!({
            "metadata": {"annotations": {
                "security.alpha.kubernetes.io/sysctls": "x",
                "seccomp.security.alpha.kubernetes.io/pod": "x",
                "container.apparmor.security.beta.kubernetes.io/a": "x",
            }},
            "spec": {
                "nodeSelector": {"node-role.kubernetes.io/master": ""},
                "affinity": {
                    "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required},
                    "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a"}]},
                },
                "topologySpreadConstraints": [{"topologyKey": "beta.kubernetes.io/arch"}],
                "containers": [{"name": "a"}],
            },
        }));
        assert_eq!(
            found,
            [
                r#"spec.nodeSelector[node-role.kubernetes.io/master]: use "node-role.kubernetes.io/control-plane" instead"#,
                r#"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/os is deprecated since v1.14; use "kubernetes.io/os" instead"#,
                r#"spec.topologySpreadConstraints[0].topologyKey: beta.kubernetes.io/arch is deprecated since v1.14; use "kubernetes.io/arch" instead"#,
                "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
                r#"metadata.annotations[security.alpha.kubernetes.io/sysctls]: non-functional in v1.11+; use the "sysctls" field instead"#,
                r#"metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the "seccompProfile" field instead"#,
                r#"metadata.annotations[container.apparmor.security.beta.kubernetes.io/a]: deprecated since v1.30; use the "appArmorProfile" field instead"#,
                "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null labelSelector results in matching no pod",
            ]
        );
    }

    #[test]
    fn volumes_that_hide_tokens_or_are_gone_are_named() {
        let found = of_spec(json!({"volumes": [
            {"name": "a", "gitRepo": {}}, {"name": "b", "rbd": {}},
            {"name": "c", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token"}},
                {"configMap": {"items": [{"path": "x"}, {"path": "token"}]}},
                {"clusterTrustBundle": {"path": "token"}},
            ]}},
        ]}));
        assert_eq!(
            found,
            [
                "spec.volumes[0].gitRepo: deprecated in v1.11",
                "spec.volumes[1].rbd: deprecated in v1.28, non-functional in v1.31+",
                "spec.volumes[2].projected.sources.configMap[1]: has duplicated path with ServiceAccountToken \"token\"",
                "spec.volumes[2].projected.sources.ClusterTrustBundle: has duplicated path with ServiceAccountToken \"token\"",
            ]
        );
    }

    #[test]
    fn what_stands_twice_is_named() {
        let found = of_spec(json!({
            "hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}],
            "imagePullSecrets": [{"name": ""}],
            "overhead": {"memory": "1500m"},
            "containers": [{
                "name": "a",
                "env": [{"name": "P", "value": "a"}, {"name": "P", "value": "$(P):b"}, {"name": "P", "value": "c"}],
                "resources": {"limits": {"memory": "100m"}},
            }],
        }));
        assert_eq!(
            found,
            [
                "spec.hostAliases[1].ip: duplicate ip \"1.1.1.1\"",
                "spec.imagePullSecrets[0].name: invalid empty name \"\"",
                "spec.overhead[memory]: fractional byte value \"1500m\" is invalid, must be an integer",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                "spec.containers[0].env[2]: hides previous definition of \"P\", which may be dropped when using apply",
            ]
        );
    }

    #[test]
    fn ports_are_told_apart_across_containers() {
        let port = |host_port: i64, host_ip: &str| json!({"containerPort": 80, "protocol": "TCP", "hostPort": host_port, "hostIP": host_ip});
        let found = of_spec(json!({"containers": [
            {"name": "a", "ports": [port(8080, "")]},
            {"name": "b", "ports": [port(8080, "1.2.3.4"), port(0, "")]},
            {"name": "c", "ports": [{"name": "p", "containerPort": 81, "protocol": "UDP", "hostIP": "1.2.3.4"}]},
        ]}));
        assert_eq!(
            found,
            [
                "spec.containers[1].ports[0]: dangerously ambiguous port definition with spec.containers[0].ports[0]",
                "spec.containers[1].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
                "spec.containers[1].ports[1]: overlapping port definition with spec.containers[1].ports[0]",
                "spec.containers[2].ports[0]: hostIP set without hostPort: {Name:p HostPort:0 ContainerPort:81 Protocol:UDP HostIP:1.2.3.4}",
            ]
        );
    }

    #[test]
    fn only_new_pods_are_spoken_of() {
        let pod = Object::from_value(json!({"metadata": {"name": "a.b"}, "spec": {}})).unwrap();
        let said = of_pod(&pod, None);
        assert!(said[0].starts_with("metadata.name: this is used in the Pod's hostname, which"), "{said:?}");
        assert!(said[0].contains("a DNS label is recommended: [a lowercase RFC 1123 label"), "{said:?}");
        assert!(of_pod(&pod, Some(&pod)).is_empty());
    }
}

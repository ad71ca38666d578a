//! What is allowed in a pod spec and still most likely a mistake.

use std::collections::{HashMap, HashSet};

use crate::strategies::check::Field;

const OLD_NODE_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
];

/// Warnings about a pod spec, be it a pod's own or one in a template.
pub fn warnings(spec: &Field) -> Vec<String> {
    let mut found = Vec::new();
    for (label, advice) in OLD_NODE_LABELS {
        if spec.get("nodeSelector").get(label).is_set() {
            found.push(format!("{}.nodeSelector[{label}]: {advice}", spec.path));
        }
    }
    for volume in spec.get("volumes").items() {
        if volume.get("gitRepo").is_set() {
            found.push(format!("{}.gitRepo: deprecated in v1.11", volume.path));
        }
    }
    for list in ["initContainers", "containers"] {
        for container in spec.get(list).items() {
            hidden_variables(&container, &mut found);
            repeated_ports(&container, &mut found);
            fractional_bytes(&container, &mut found);
        }
    }
    if spec.get("terminationGracePeriodSeconds").number().is_some_and(|seconds| seconds < 0) {
        let path = &spec.path;
        found.push(format!("{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    found
}

fn hidden_variables(container: &Field, found: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for variable in container.get("env").items() {
        let name = variable.get("name");
        if !seen.insert(name.text()) {
            found.push(format!(
                "{}: hides previous definition of \"{}\", which may be dropped when using apply",
                variable.path,
                name.text()
            ));
        }
    }
}

fn repeated_ports(container: &Field, found: &mut Vec<String>) {
    let mut seen: HashMap<(Option<i64>, &str), String> = HashMap::new();
    for port in container.get("ports").items() {
        let key = (port.get("containerPort").number(), port.get("protocol").text());
        match seen.get(&key) {
            Some(first) => found.push(format!("{}: duplicate port definition with {first}", port.path)),
            None => {
                seen.insert(key, port.path.clone());
            }
        }
    }
}

fn fractional_bytes(container: &Field, found: &mut Vec<String>) {
    for list in ["limits", "requests"] {
        let amounts = container.get("resources").get(list);
        for resource in ["memory", "ephemeral-storage"] {
            let amount = amounts.get(resource);
            if amount.text().ends_with('m') {
                found.push(format!(
                    "{}[{resource}]: fractional byte value \"{}\" is invalid, must be an integer",
                    amounts.path,
                    amount.text()
                ));
            }
        }
    }
}

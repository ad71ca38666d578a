//! Where pods may go: affinity, tolerations and spreading.

use std::collections::HashSet;

use crate::name;
use crate::strategies::check::{Faults, Field};
use crate::strategies::label_selector;

/// Affinity, tolerations and spreading of a pod spec.
pub fn validate(spec: &Field, faults: &mut Faults) {
    let affinity = spec.get("affinity");
    validate_node_affinity(&affinity.get("nodeAffinity"), faults);
    validate_pod_affinity(&affinity.get("podAffinity"), faults);
    validate_pod_affinity(&affinity.get("podAntiAffinity"), faults);
    spec.get("tolerations").items().for_each(|toleration| validate_toleration(&toleration, faults));
    validate_topology_constraints(&spec.get("topologySpreadConstraints"), faults);
}

fn validate_node_affinity(affinity: &Field, faults: &mut Faults) {
    let required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution");
    if required.is_set() {
        validate_node_selector(&required, faults);
    }
    for preferred in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        validate_weight(&preferred, faults);
        validate_node_term(&preferred.get("preference"), faults);
    }
}

/// A node selector: at least one term.
pub fn validate_node_selector(selector: &Field, faults: &mut Faults) {
    let terms = selector.get("nodeSelectorTerms");
    if terms.is_empty() {
        faults.required(&terms, "must have at least one node selector term");
    }
    terms.items().for_each(|term| validate_node_term(&term, faults));
}

fn validate_node_term(term: &Field, faults: &mut Faults) {
    for requirement in term.get("matchExpressions").items() {
        validate_node_requirement(&requirement, faults);
        let key = requirement.get("key");
        if let Err(message) = name::qualified_name(key.text()) {
            faults.invalid(&key, message);
        }
    }
    for requirement in term.get("matchFields").items() {
        let (key, operator) = (requirement.get("key"), requirement.get("operator"));
        if key.text() != "metadata.name" {
            faults.invalid(&key, "not a valid field selector key");
        }
        if !matches!(operator.text(), "In" | "NotIn") {
            faults.invalid(&operator, "not a valid selector operator");
        } else if requirement.get("values").len() != 1 {
            let text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            faults.required(&requirement.get("values"), text);
        } else {
            requirement.get("values").items().for_each(|node| faults.fits(&node, name::dns_subdomain));
        }
    }
}

fn validate_node_requirement(requirement: &Field, faults: &mut Faults) {
    let (operator, values) = (requirement.get("operator"), requirement.get("values"));
    match operator.text() {
        "In" | "NotIn" if values.is_empty() => {
            faults.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            faults.forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            faults.required(&values, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => faults.invalid(&operator, "not a valid selector operator"),
    }
}

fn validate_pod_affinity(affinity: &Field, faults: &mut Faults) {
    for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
        validate_pod_term(&term, faults);
    }
    for preferred in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        validate_weight(&preferred, faults);
        validate_pod_term(&preferred.get("podAffinityTerm"), faults);
    }
}

fn validate_pod_term(term: &Field, faults: &mut Faults) {
    label_selector::validate(&term.get("labelSelector"), faults);
    label_selector::validate(&term.get("namespaceSelector"), faults);
    for namespace in term.get("namespaces").items() {
        let path = format!("{}.namespace", term.path);
        faults.fits(&Field { path, value: namespace.value }, name::dns_label);
    }
    let topology = term.get("topologyKey");
    if topology.text().is_empty() {
        faults.required(&topology, "can not be empty");
    } else {
        faults.keeps(&topology, name::qualified_name);
    }
}

fn validate_weight(preferred: &Field, faults: &mut Faults) {
    let weight = preferred.get("weight");
    if !weight.number().is_some_and(|weight| (1..=100).contains(&weight)) {
        faults.invalid(&weight, "must be in the range 1-100");
    }
}

/// A toleration of a taint.
pub fn validate_toleration(toleration: &Field, faults: &mut Faults) {
    let (key, operator, effect) =
        (toleration.get("key"), toleration.get("operator"), toleration.get("effect"));
    faults.keeps(&key, name::qualified_name);
    if key.text().is_empty() && operator.text() != "Exists" {
        let text =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        faults.invalid(&operator, text);
    }
    let seconds = toleration.get("tolerationSeconds");
    if seconds.is_set() && effect.text() != "NoExecute" {
        faults.invalid(&effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
    }
    let value = toleration.get("value");
    match operator.text() {
        "Equal" | "" => {
            if let Err(message) = name::label_value(value.text()) {
                faults.invalid(&operator, message);
            }
        }
        "Exists" if !value.text().is_empty() => {
            faults.invalid(&operator, "value must be empty when `operator` is 'Exists'");
        }
        "Exists" => {}
        _ => faults.not_supported(&operator, &["Equal", "Exists"]),
    }
    if !effect.text().is_empty() {
        faults.one_of(&effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
    }
}

/// How pods are spread.
pub fn validate_topology_constraints(constraints: &Field, faults: &mut Faults) {
    let mut pairs = HashSet::new();
    for constraint in constraints.items() {
        let (skew, domains) = (constraint.get("maxSkew"), constraint.get("minDomains"));
        for (number, least) in
            [(&skew, skew.number().unwrap_or_default()), (&domains, domains.number().unwrap_or(1))]
        {
            if least <= 0 {
                faults.invalid(number, "must be greater than zero");
            }
        }
        let topology = constraint.get("topologyKey");
        if topology.text().is_empty() {
            faults.required(&topology, "can not be empty");
        } else {
            faults.keeps(&topology, name::qualified_name);
        }
        let action = constraint.get("whenUnsatisfiable");
        if !matches!(action.text(), "DoNotSchedule" | "ScheduleAnyway") {
            faults.not_supported(&action, &["DoNotSchedule", "ScheduleAnyway"]);
        } else if domains.is_set() && action.text() != "DoNotSchedule" {
            let text = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway";
            faults.invalid(&domains, text);
        }
        if !pairs.insert((topology.text(), action.text())) {
            let pair = serde_json::Value::from(format!("{{{}, {}}}", topology.text(), action.text()));
            faults.duplicate(&Field {
                path: format!("{}.{{topologyKey, whenUnsatisfiable}}", constraint.path),
                value: &pair,
            });
        }
        faults.one_of(&constraint.get("nodeAffinityPolicy"), &["Honor", "Ignore"]);
        faults.one_of(&constraint.get("nodeTaintsPolicy"), &["Honor", "Ignore"]);
        label_selector::validate(&constraint.get("labelSelector"), faults);
        validate_label_keys(&constraint, faults);
    }
}

/// Labels whose values a pod takes from itself; the selector must not speak of them as well.
fn validate_label_keys(constraint: &Field, faults: &mut Faults) {
    let (keys, selector) = (constraint.get("matchLabelKeys"), constraint.get("labelSelector"));
    if !keys.is_empty() && !selector.is_set() {
        faults.forbidden(&keys, "must not be specified when labelSelector is not set");
    }
    for key in keys.items() {
        faults.keeps(&key, name::qualified_name);
        let mut expressions = selector.get("matchExpressions").items();
        let is_selected = selector.get("matchLabels").entry(key.text()).is_set()
            || expressions.any(|expression| expression.get("key").text() == key.text());
        if is_selected {
            faults.invalid(&key, "exists in both matchLabelKeys and labelSelector");
        }
    }
}

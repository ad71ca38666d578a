//! What may change in a pod that exists.

use serde_json::{Map, Value};

use crate::strategies::check::{Faults, Field, same};
use crate::strategies::fill::Fill;
use crate::strategies::pod_spec;
use crate::{
    Object,
    meta::{APP_ARMOR, MIRROR},
};

const CHANGEABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A write to the pod itself: images, a shorter deadline, more tolerations, fewer gates.
pub fn validate(object: &Object, old: &Object, faults: &mut Faults) {
    validate_annotations(object, old, faults);
    let (spec, old_spec) = (Field::at(object, &["spec"]), Field::at(old, &["spec"]));
    for list in ["containers", "initContainers"] {
        if spec.get(list).len() != old_spec.get(list).len() {
            faults.forbidden(&spec.get(list), "pod updates may not add or remove containers");
            return;
        }
    }
    validate_deadline(&spec.get("activeDeadlineSeconds"), &old_spec.get("activeDeadlineSeconds"), faults);
    validate_tolerations(&spec.get("tolerations"), &old_spec.get("tolerations"), faults);
    validate_gates(&spec.get("schedulingGates"), &old_spec.get("schedulingGates"), faults);
    validate_rest(&spec, &old_spec, faults);
}

/// The faults of a spec that came with the change: what was stored once may stay.
pub fn validate_spec(spec: &Field, old: &Field, faults: &mut Faults) {
    if spec.value == old.value {
        return;
    }
    let all = |spec: &Field| {
        let mut faults = Faults::new();
        pod_spec::validate(spec, &mut faults);
        faults
    };
    faults.0.extend(all(spec).new_since(|| all(old)).0);
}

/// What a pod is in the hands of its node it stays: a mirror of a static pod, or confined by a profile.
fn validate_annotations(object: &Object, old: &Object, faults: &mut Faults) {
    let [new, before] = [object, old].map(|it| Field::at(it, &["metadata", "annotations"]));
    let what = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        key if key.starts_with(APP_ARMOR) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, value) in before.entries() {
        if let Some(what) = what(key).filter(|_| new.entry(key).value != value.value) {
            faults.forbidden(&new.entry(key), format!("may not remove or update {what}"));
        }
    }
    for (key, value) in new.entries() {
        if let Some(what) = what(key).filter(|_| !before.entry(key).is_set()) {
            faults.forbidden(&value, format!("may not add {what}"));
        }
    }
}

fn validate_deadline(deadline: &Field, old: &Field, faults: &mut Faults) {
    match (deadline.number(), old.number()) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            faults.between(deadline, 0, i64::from(i32::MAX));
        }
        (Some(new), Some(old)) if new > old => {
            faults.invalid(deadline, "must be less than or equal to previous value");
        }
        (None, Some(_)) => faults.invalid(deadline, "must not update from a positive integer to nil value"),
        _ => {}
    }
}

fn validate_tolerations(tolerations: &Field, old: &Field, faults: &mut Faults) {
    let without_seconds = |toleration: &Field| {
        let mut map = toleration.map().cloned().unwrap_or_default();
        map.remove("tolerationSeconds");
        map
    };
    let kept: Vec<Map<String, Value>> = tolerations.items().map(|it| without_seconds(&it)).collect();
    if !old.items().all(|toleration| kept.contains(&without_seconds(&toleration))) {
        faults.forbidden(tolerations, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn validate_gates(gates: &Field, old: &Field, faults: &mut Faults) {
    for gate in gates.items() {
        if !old.items().any(|before| before.value == gate.value) {
            let name = gate.get("name");
            let text = format!("only deletion is allowed, but found new scheduling gate '{}'", name.text());
            faults.forbidden(&gate, text);
        }
    }
}

/// Everything else must be as it was.
fn validate_rest(spec: &Field, old: &Field, faults: &mut Faults) {
    let mut compared = spec.map().cloned().unwrap_or_default();
    let before = old.map().cloned().unwrap_or_default();
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        take_over(&mut compared, &before, key);
    }
    let was_negative =
        before.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|it| it < 0);
    if was_negative && spec.get("terminationGracePeriodSeconds").number() == Some(1) {
        take_over(&mut compared, &before, "terminationGracePeriodSeconds");
    }
    let is_gated = !old.get("schedulingGates").is_empty();
    if is_gated {
        validate_gated(spec, old, faults);
        take_over(&mut compared, &before, "nodeSelector");
        take_over(&mut compared, &before, "affinity");
    }
    for list in ["containers", "initContainers"] {
        for (container, before) in compared.maps_at(list).zip(old.get(list).items()) {
            if let Some(before) = before.map() {
                take_over(container, before, "image");
            }
        }
    }
    let changed = changed_keys(&compared, &before);
    if !changed.is_empty() {
        faults.forbidden(spec, format!("{CHANGEABLE}\n{changed}"));
    }
}

/// While it waits at a gate, a pod's choice of nodes may become narrower.
fn validate_gated(spec: &Field, old: &Field, faults: &mut Faults) {
    let (selector, before) = (spec.get("nodeSelector"), old.get("nodeSelector"));
    if before.entries().any(|(key, value)| selector.entry(key).value != value.value) {
        faults.invalid(
            &selector,
            "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        );
    }
    let required = ["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = |spec: &Field| required.iter().fold(spec.clone(), |field, key| field.get(key)).value.clone();
    if !terms(old).is_null() && terms(spec) != terms(old) {
        faults.invalid(&spec.get("affinity").get("nodeAffinity"), "field is immutable");
    }
}

fn take_over(map: &mut Map<String, Value>, from: &Map<String, Value>, key: &str) {
    match from.get(key) {
        Some(value) => map.insert(key.to_string(), value.clone()),
        None => map.remove(key),
    };
}

/// The changes, one a line: `- before` and `+ after` of each field at the top of the spec.
fn changed_keys(new: &Map<String, Value>, old: &Map<String, Value>) -> String {
    let nothing = Value::Null;
    let mut keys: Vec<&String> = new.keys().chain(old.keys()).collect();
    keys.sort();
    keys.dedup();
    let mut lines = String::new();
    for key in keys {
        let (before, after) = (old.get(key).unwrap_or(&nothing), new.get(key).unwrap_or(&nothing));
        if !same(before, after) {
            lines.push_str(&format!("- {key}: {before}\n+ {key}: {after}\n"));
        }
    }
    lines
}

/// Containers for debugging may be added, never changed or taken away.
pub fn validate_ephemeral_containers(object: &Object, old: &Object, faults: &mut Faults) {
    if old.annotation(MIRROR).is_some() {
        return faults.forbidden(&nowhere(), "static pods do not support ephemeral containers");
    }
    validate_spec(&Field::at(object, &["spec"]), &Field::at(old, &["spec"]), faults);
    let path = ["spec", "ephemeralContainers"];
    let (containers, before) = (Field::at(object, &path), Field::at(old, &path));
    for old_container in before.items() {
        let name = old_container.get("name");
        match containers.items().find(|container| container.get("name").text() == name.text()) {
            None => {
                let text = format!("existing ephemeral containers \"{}\" may not be removed\n", name.text());
                faults.forbidden(&containers, text);
            }
            Some(container) if container.value != old_container.value => {
                let text = format!("existing ephemeral containers \"{}\" may not be changed\n", name.text());
                faults.forbidden(&containers, text);
            }
            Some(_) => {}
        }
    }
}

/// A resize may change CPU and memory of containers, and may not change the pod's class.
pub fn validate_resize(object: &Object, old: &Object, faults: &mut Faults) {
    let (spec, old_spec) = (Field::at(object, &["spec"]), Field::at(old, &["spec"]));
    if old.annotation(MIRROR).is_some() {
        return faults.forbidden(&nowhere(), "static pods cannot be resized");
    }
    if spec.get("os").get("name").text() == "windows" {
        return faults.forbidden(&nowhere(), "windows pods cannot be resized");
    }
    validate_spec(&spec, &old_spec, faults);
    if super::quality_of_service(object) != super::quality_of_service(old) {
        let class = Field { path: spec.path.clone(), ..Field::at(object, &["status", "qosClass"]) };
        faults.invalid(&class, "Pod QOS Class may not change as a result of resizing");
    }
    let others = |resources: &Field| {
        let mut map = resources.map().cloned().unwrap_or_default();
        for list in ["requests", "limits"] {
            if let Some(amounts) = map.map_at(list) {
                amounts.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
            }
            if map.get(list).is_some_and(|amounts| same(amounts, &Value::Null)) {
                map.remove(list);
            }
        }
        map
    };
    for list in ["containers", "initContainers"] {
        if !has_same_containers(&spec.get(list), &old_spec.get(list), list, faults) {
            continue;
        }
        for (container, before) in spec.get(list).items().zip(old_spec.get(list).items()) {
            let is_once = list == "initContainers" && container.get("restartPolicy").text() != "Always";
            if is_once && !same(container.get("resources").value, before.get("resources").value) {
                let detail = "resources for non-sidecar init containers are immutable";
                faults.forbidden(&container.get("resources"), detail);
                continue;
            }
            let (resources, policy) = (container.get("resources"), container.get("resizePolicy"));
            if !same(policy.value, before.get("resizePolicy").value) {
                faults.forbidden(&spec, "only cpu and memory resources are mutable");
            }
            let before = before.get("resources");
            if others(&resources) != others(&before) {
                faults.forbidden(&spec, "only cpu and memory resources are mutable");
            }
            for amounts in ["requests", "limits"] {
                let (amounts, before, what) = (resources.get(amounts), before.get(amounts), amounts);
                if before.entries().any(|(name, _)| !amounts.entry(name).is_set()) {
                    faults.forbidden(&amounts, format!("resource {what} cannot be removed"));
                }
            }
        }
    }
}

/// The empty path, as upstream prints it.
fn nowhere() -> Field<'static> {
    Field { path: "[]".into(), ..Field::NOTHING }
}

/// A resize neither adds nor removes, renames nor moves containers.
fn has_same_containers(containers: &Field, old: &Field, list: &str, faults: &mut Faults) -> bool {
    if containers.len() != old.len() {
        faults.forbidden(containers, format!("{list} may not be added or removed on resize"));
        return false;
    }
    let before = faults.0.len();
    for (container, old) in containers.items().zip(old.items()) {
        let name = container.get("name");
        if name.value != old.get("name").value {
            faults.forbidden(&name, format!("{list} may not be renamed or reordered on resize"));
        }
    }
    faults.0.len() == before
}

//! Nodes.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::check::{Faults, Field, same};
use super::fill::Fill;
use super::{ports, resources};
use crate::{FieldError, Object, name};

/// Rules of Nodes.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn warnings(&self, object: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        let spec = Field::at(object, &["spec"]);
        if spec.get("configSource").is_set() {
            found.push("spec.configSource: the feature is removed".into());
        }
        if !spec.get("externalID").text().is_empty() {
            found.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
        }
        found
    }

    fn set_defaults(&self, object: &mut Object) {
        let spec = object.map_mut(&["spec"]);
        // The old single field and the first of the list say the same. Who knows the old one only changes it alone, so
        // where they differ it counts.
        let single = spec.text_at("podCIDR").to_string();
        let first = spec.get("podCIDRs").and_then(|list| list.get(0)).and_then(Value::as_str);
        match first {
            Some(first) if single.is_empty() => {
                let first = first.to_string();
                spec.insert("podCIDR".into(), first.into());
            }
            Some(first) if first == single => {}
            _ if single.is_empty() => {}
            _ => drop(spec.insert("podCIDRs".into(), json!([single]))),
        }
        if let Some(status) = object.at(&["status", "capacity"]).cloned() {
            object.set_if_absent(&["status", "allocatable"], status);
        }
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        // Upstream looks for them among the metadata.
        let taints = Field { path: "metadata.taints".into(), value: spec.get("taints").value };
        validate_taints(&taints, &mut faults);
        validate_amounts(object, &mut faults);
        match old {
            None => validate_ranges(&spec.get("podCIDRs"), &mut faults),
            Some(old) => {
                validate_addresses(object, &mut faults);
                validate_change(&spec, &Field::at(old, &["spec"]), &mut faults);
            }
        }
        faults.0
    }

    fn validate_status(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        let mut faults = Faults::new();
        validate_amounts(object, &mut faults);
        validate_addresses(object, &mut faults);
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// What a node has and gives: no less than nothing, and whole where there are no parts.
fn validate_amounts(object: &Object, faults: &mut Faults) {
    for list in ["capacity", "allocatable"] {
        let list = Field::at(object, &["status", list]);
        for (resource, amount) in list.entries() {
            let amount = Field { path: format!("{}.{resource}", list.path), ..amount };
            resources::validate_quantity(&amount, faults);
            resources::validate_whole(resource, &amount, faults);
        }
    }
}

fn validate_addresses(object: &Object, faults: &mut Faults) {
    let mut seen = Vec::new();
    for address in Field::at(object, &["status", "addresses"]).items() {
        if seen.contains(&address.value) {
            faults.duplicate(&address);
        }
        seen.push(address.value);
    }
}

/// The ranges of the node's pods: one of each family.
fn validate_ranges(ranges: &Field, faults: &mut Faults) {
    ranges.items().for_each(|range| ports::validate_cidr(&range, faults));
    let families: Vec<_> = ranges.items().map(|range| ports::is_ipv4_network(range.text())).collect();
    if !ports::differ_in_family(&families) {
        faults.invalid(ranges, "may specify no more than one CIDR for each IP family");
    }
    let mut seen = HashSet::new();
    for range in ranges.items() {
        if !seen.insert(range.text()) {
            faults.duplicate(&range);
        }
    }
}

/// What may change in a node that exists.
fn validate_change(spec: &Field, old: &Field, faults: &mut Faults) {
    for (changed, named) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
        let (new, old) = (spec.get(changed), old.get(changed));
        if !same(old.value, &Value::Null) && new.value != old.value {
            let text = format!("node updates may not change {named} except from \"\" to valid");
            faults.forbidden(&new, text);
        }
    }
    const CHANGEABLE: [&str; 6] =
        ["podCIDR", "podCIDRs", "providerID", "configSource", "unschedulable", "taints"];
    let keys = spec.entries().chain(old.entries()).map(|(key, _)| key);
    let mut others = keys.filter(|key| !CHANGEABLE.contains(key));
    if others.any(|key| !same(spec.get(key).value, old.get(key).value)) {
        let text = "node updates may only change labels, taints, or capacity (or configSource, if the DynamicKubeletConfig feature gate is enabled)";
        faults.forbidden(&Field::NOTHING, text);
    }
}

fn validate_taints(taints: &Field, faults: &mut Faults) {
    let mut seen = HashSet::new();
    for taint in taints.items() {
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        if let Err(message) = name::qualified_name(key.text()) {
            faults.invalid(&key, message);
        }
        faults.keeps(&value, name::label_value);
        faults.must_be_one_of(&effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        if !seen.insert((key.text(), effect.text())) {
            let text = FieldError::new(
                crate::FieldErrorKind::Duplicate,
                &taint.path,
                taint.value.to_string(),
                "taints must be unique by key and effect pair",
            );
            faults.0.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy as _;

    fn node(spec: Value) -> Object {
        let mut node = Object::from_value(json!({"metadata": {"name": "n"}, "spec": spec})).unwrap();
        Strategy.set_defaults(&mut node);
        node
    }

    fn told(node: &Object, old: Option<&Object>) -> Vec<String> {
        Strategy.validate(node, old).iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn the_old_field_of_the_range_counts() {
        let ranges = |spec: Value| {
            let node = node(spec);
            (node.text(&["spec", "podCIDR"]).to_string(), node.at(&["spec", "podCIDRs"]).cloned())
        };
        let both = json!({"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00::/64"]});
        assert_eq!(ranges(both), ("10.0.0.0/24".into(), Some(json!(["10.0.0.0/24"]))));
        let same = json!({"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00::/64"]});
        assert_eq!(ranges(same), ("10.1.0.0/24".into(), Some(json!(["10.1.0.0/24", "fd00::/64"]))));
        assert_eq!(ranges(json!({"podCIDR": "a"})), ("a".into(), Some(json!(["a"]))));
        assert_eq!(ranges(json!({"podCIDRs": ["a", "b"]})), ("a".into(), Some(json!(["a", "b"]))));
        assert_eq!(ranges(json!({})), (String::new(), None));
    }

    #[test]
    fn a_node_has_one_range_of_each_family() {
        let families = "spec.podCIDRs: Invalid value: ";
        let cases: [(&[&str], &[&str]); 7] = [
            (&["10.0.0.0/24"], &[]),
            (&["10.0.0.0/24", "fd00::/64"], &[]),
            (
                &["10.0.0.0/33"],
                &["spec.podCIDRs[0]: Invalid value: \"10.0.0.0/33\": must be a valid CIDR value"],
            ),
            (&["10.0.0.0/24", "10.1.0.0/24"], &[families]),
            (
                &["10.0.0.0/24", "fd00::"],
                &["spec.podCIDRs[1]: Invalid value: \"fd00::\": must be a valid CIDR value", families],
            ),
            (&["10.0.0.0/24", "fd00::/64", "fd01::/64"], &[families]),
            (&["fd00::/64", "fd00::/64"], &[families, "spec.podCIDRs[1]: Duplicate value: \"fd00::/64\""]),
        ];
        for (ranges, expected) in cases {
            let told = told(&node(json!({"podCIDRs": ranges})), None);
            assert_eq!(told.len(), expected.len(), "{ranges:?}: {told:?}");
            assert!(told.iter().zip(expected).all(|(told, start)| told.starts_with(start)), "{told:?}");
        }
    }

    #[test]
    fn of_a_node_that_exists_little_changes() {
        let old = node(json!({"podCIDR": "10.0.0.0/24", "externalID": "a"}));
        let mut new = old.clone();
        new.set(&["spec", "unschedulable"], true);
        assert_eq!(told(&new, Some(&old)), [""; 0]);
        new.set(&["spec", "externalID"], "b");
        new.set(&["spec", "podCIDRs"], json!(["10.0.0.0/24", "fd00::/64"]));
        assert_eq!(
            told(&new, Some(&old)),
            [
                "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
                ": Forbidden: node updates may only change labels, taints, or capacity (or configSource, if the DynamicKubeletConfig feature gate is enabled)",
            ]
        );
    }

    #[test]
    fn what_a_node_has_is_checked_on_every_write() {
        let mut node = node(json!({"taints": [{"key": "a", "effect": "Maybe"}]}));
        let amounts = json!({"cpu": "-1", "example.com/gpu": "500m", "memory": "1Gi"});
        node.set(&["status"], json!({"capacity": amounts}));
        let taint = "metadata.taints[0].effect: Unsupported value: \"Maybe\": supported values: \"NoExecute\", \"NoSchedule\", \"PreferNoSchedule\"";
        let amounts = [
            "status.capacity.cpu: Invalid value: \"-1\": must be greater than or equal to 0",
            "status.capacity.example.com/gpu: Invalid value: \"500m\": must be an integer",
        ];
        assert_eq!(told(&node, None), [taint, amounts[0], amounts[1]]);
        assert_eq!(told(&node, Some(&node)), [taint, amounts[0], amounts[1]]);
        let told: Vec<String> =
            Strategy.validate_status(&node, &node).iter().map(FieldError::to_string).collect();
        assert_eq!(told, amounts);
    }
}

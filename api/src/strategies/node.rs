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
        // The old single field and the first of the list say the same.
        let single = spec.text_at("podCIDR").to_string();
        let first = spec.get("podCIDRs").and_then(|list| list.get(0)).cloned();
        match first {
            Some(first) => drop(spec.insert("podCIDR".into(), first)),
            None if !single.is_empty() => drop(spec.insert("podCIDRs".into(), json!([single]))),
            None => {}
        }
        if let Some(status) = object.at(&["status", "capacity"]).cloned() {
            object.set_if_absent(&["status", "allocatable"], status);
        }
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        validate_taints(&spec.get("taints"), &mut faults);
        for cidr in spec.get("podCIDRs").items() {
            ports::validate_cidr(&cidr, &mut faults);
        }
        if let Some(old) = old {
            let old = Field::at(old, &["spec"]);
            for (changed, named) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
                let (new, old) = (spec.get(changed), old.get(changed));
                if !same(old.value, &Value::Null) && new.value != old.value {
                    let text = format!("node updates may not change {named} except from \"\" to valid");
                    faults.forbidden(&new, text);
                }
            }
        }
        faults.0
    }

    fn validate_status(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let status = Field::at(object, &["status"]);
        for list in ["capacity", "allocatable"] {
            for (_, amount) in status.get(list).entries() {
                resources::validate_quantity(&amount, &mut faults);
            }
        }
        let mut seen = Vec::new();
        for address in status.get("addresses").items() {
            if seen.contains(&address.value) {
                faults.duplicate(&address);
            }
            seen.push(address.value);
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
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

//! PodDisruptionBudgets, PriorityClasses and RuntimeClasses.

use serde_json::json;

use super::check::{Faults, Field};
use super::{label_selector, pod_spec, pod_template, resources, status, warnings};
use crate::{FieldError, Object, name};

/// Rules of PodDisruptionBudgets.
pub struct PodDisruptionBudget;

impl crate::Strategy for PodDisruptionBudget {
    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, object: &mut Object) {
        let nothing =
            json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
        object.set(&["status"], nothing);
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        let (available, unavailable) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
        if available.is_set() && unavailable.is_set() {
            faults.invalid(&spec, "minAvailable and maxUnavailable cannot be both set");
        }
        for share in [&available, &unavailable] {
            pod_template::validate_share(share, &mut faults);
            pod_template::validate_not_above_all(share, &mut faults);
        }
        label_selector::validate(&spec.get("selector"), &mut faults);
        let policy = spec.get("unhealthyPodEvictionPolicy");
        faults.one_of(&policy, &["AlwaysAllow", "IfHealthyBudget"]);
        faults.0
    }

    fn validate_status(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        status::counted(object, &["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"]).0
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        name::path_segment(name)
    }
}

/// Rules of PriorityClasses.
pub struct PriorityClass;

const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

impl crate::Strategy for PriorityClass {
    fn set_defaults(&self, object: &mut Object) {
        object.set_if_absent(&["preemptionPolicy"], "PreemptLowerPriority");
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let value = Field::at(object, &["value"]);
        let is_system = matches!(object.name(), "system-cluster-critical" | "system-node-critical");
        if object.name().starts_with("system-") && !is_system {
            faults.forbidden(&Field::at(object, &["metadata", "name"]), "priority class names with 'system-' prefix are reserved for system use only. error: class name is not a known system priority class");
        }
        if !is_system && value.number().is_some_and(|value| value > HIGHEST_USER_PRIORITY) {
            let text = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
            faults.forbidden(&value, text);
        }
        let policy = Field::at(object, &["preemptionPolicy"]);
        faults.one_of(&policy, &["Never", "PreemptLowerPriority"]);
        if let Some(old) = old {
            let before = old.number(&["value"]).unwrap_or_default();
            if value.number().unwrap_or_default() != before {
                faults.forbidden(&value, "may not be changed in an update.");
            }
            faults.immutable(&policy, &Field::at(old, &["preemptionPolicy"]));
        }
        faults.0
    }
}

/// Rules of RuntimeClasses.
pub struct RuntimeClass;

impl crate::Strategy for RuntimeClass {
    fn warnings(&self, object: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        for (label, _) in Field::at(object, &["scheduling", "nodeSelector"]).entries() {
            if let Some(advice) = warnings::old_node_label(label) {
                found.push(format!("scheduling.nodeSelector: {advice}"));
            }
        }
        found
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let handler = Field::at(object, &["handler"]);
        faults.must_keep(&handler, name::dns_label);
        let fixed = Field::at(object, &["overhead", "podFixed"]);
        resources::validate_overhead("overhead", &fixed, &mut faults);
        label_selector::validate_labels(&Field::at(object, &["scheduling", "nodeSelector"]), &mut faults);
        let mut seen = Vec::new();
        for toleration in Field::at(object, &["scheduling", "tolerations"]).items() {
            pod_spec::validate_toleration(&toleration, &mut faults);
            if seen.contains(&toleration.value) {
                faults.duplicate(&toleration);
            }
            seen.push(toleration.value);
        }
        if let Some(old) = old {
            faults.immutable(&handler, &Field::at(old, &["handler"]));
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

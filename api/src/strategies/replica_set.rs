//! ReplicaSets and ReplicationControllers.

use serde_json::{Value, json};

use super::check::{Faults, Field};
use super::fill::Fill;
use super::{label_selector, pod_template, status, warnings};
use crate::{FieldError, Object};

const TEMPLATE: &[&str] = &["spec", "template"];

/// Rules of ReplicaSets.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn set_defaults(&self, object: &mut Object) {
        pod_template::spec_of(object, TEMPLATE).fill("replicas", 1);
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], json!({"replicas": 0}));
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        faults.not_negative(&spec.get("replicas"));
        faults.not_negative(&spec.get("minReadySeconds"));
        label_selector::validate_needed(&spec.get("selector"), "deployment", &mut faults);
        pod_template::validate_lasting(&spec, "ReplicaSet", &mut faults);
        if let Some(old) = old {
            faults.immutable(&spec.get("selector"), &Field::at(old, &["spec"]).get("selector"));
        }
        faults.0
    }

    fn validate_status(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        validate_status(object)
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::from_iter(warnings::name_of_pods(object, old));
        pod_template::warnings(object, old, TEMPLATE, &mut found);
        found
    }
}

/// Rules of ReplicationControllers, whose selector is a plain map of labels.
pub struct ReplicationController;

impl crate::Strategy for ReplicationController {
    fn set_defaults(&self, object: &mut Object) {
        let labels = object.at(&["spec", "template", "metadata", "labels"]).cloned();
        if let Some(labels @ Value::Object(_)) = labels {
            object.set_if_absent(&["spec", "selector"], labels.clone());
            object.set_if_absent(&["metadata", "labels"], labels);
        }
        pod_template::spec_of(object, TEMPLATE).fill("replicas", 1);
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], json!({"replicas": 0}));
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        faults.not_negative(&spec.get("replicas"));
        faults.not_negative(&spec.get("minReadySeconds"));
        let (selector, template) = (spec.get("selector"), spec.get("template"));
        if selector.is_empty() {
            faults.required(&selector, "");
        }
        if !template.is_set() {
            faults.required(&template, "");
            return faults.0;
        }
        let labels = template.get("metadata").get("labels");
        if selector.entries().any(|(key, value)| labels.entry(key).value != value.value) {
            faults.invalid(&labels, "`selector` does not match template `labels`");
        }
        pod_template::validate(&template, &mut faults);
        let policy = template.get("spec").get("restartPolicy");
        if policy.text() != "Always" {
            faults.not_supported(&policy, &["Always"]);
        }
        faults.0
    }

    fn validate_status(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        validate_status(object)
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::from_iter(warnings::name_of_pods(object, old));
        pod_template::warnings(object, old, TEMPLATE, &mut found);
        found
    }
}

fn validate_status(object: &Object) -> Vec<FieldError> {
    let counts =
        ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];
    let mut faults = status::counted(object, &counts);
    status::not_above(object, &counts[1..4], "status.replicas", &mut faults);
    status::not_above(object, &["availableReplicas"], "readyReplicas", &mut faults);
    faults.0
}

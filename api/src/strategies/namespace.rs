//! Namespaces.

use serde_json::json;

use super::check::{Faults, Field};
use crate::{FieldError, Object, meta, name};

/// Rules of Namespaces.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn set_defaults(&self, object: &mut Object) {
        set_name_label(object);
    }

    fn prepare_for_create(&self, object: &mut Object) {
        // A generated name is known only now.
        set_name_label(object);
        object.set(&["status"], json!({"phase": "Active"}));
        let mut finalizers = object.list(&["spec", "finalizers"]).to_vec();
        if !finalizers.contains(&json!("kubernetes")) {
            finalizers.push("kubernetes".into());
        }
        object.set(&["spec", "finalizers"], finalizers);
    }

    /// The finalizers in the spec change by the `finalize` subresource only.
    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        object.take_over(&["spec"], old);
    }

    fn prepare_for_subresource(&self, _subresource: &str, object: &mut Object, old: &Object) {
        object.take_over(&["status"], old);
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        validate_finalizers(object, &mut faults);
        faults.0
    }

    fn validate_status(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        let mut faults = Faults::new();
        // Upstream writes the field so.
        let phase = Field { path: "status.Phase".into(), ..Field::at(object, &["status", "phase"]) };
        match (object.deletion_timestamp(), phase.text()) {
            (None, "Active") | (Some(_), "Terminating") => {}
            (None, _) => faults.invalid(&phase, "may only be 'Active' if `deletionTimestamp` is empty"),
            (Some(_), _) => {
                faults.invalid(&phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
            }
        }
        faults.0
    }

    fn validate_subresource(&self, _subresource: &str, object: &Object, _old: &Object) -> Vec<FieldError> {
        let mut faults = Faults::new();
        validate_finalizers(object, &mut faults);
        faults.0
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        name::dns_label(name)
    }

    fn has_generation(&self) -> bool {
        false
    }
}

fn set_name_label(object: &mut Object) {
    let name = object.name().to_string();
    if !name.is_empty() {
        object.map_mut(&["metadata", "labels"]).insert("kubernetes.io/metadata.name".into(), name.into());
    }
}

fn validate_finalizers(object: &Object, faults: &mut Faults) {
    for finalizer in Field::at(object, &["spec", "finalizers"]).items() {
        faults.fits(&finalizer, name::qualified_name);
        faults.fits(&finalizer, meta::standard_or_qualified);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy as _;

    #[test]
    fn finalizers_of_the_spec_are_standard_ones_or_have_a_domain() {
        let faults = |finalizers: &[&str]| -> Vec<String> {
            let namespace = json!({"metadata": {"name": "a"}, "spec": {"finalizers": finalizers}});
            let namespace = Object::from_value(namespace).unwrap();
            Strategy.validate(&namespace, None).iter().map(FieldError::to_string).collect()
        };
        assert_eq!(faults(&["kubernetes", "orphan", "foregroundDeletion", "example.com/wait"]), [""; 0]);
        assert_eq!(
            faults(&["wait"]),
            [
                "spec.finalizers[0]: Invalid value: \"wait\": name is neither a standard finalizer name nor is it fully qualified"
            ]
        );
    }
}

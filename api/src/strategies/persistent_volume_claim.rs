//! PersistentVolumeClaims.

use serde_json::{Map, Value, json};

use super::check::{Faults, Field, same};
use super::fill::Fill;
use super::{label_selector, resources, warnings};
use crate::{FieldError, Object, name};

/// How a volume may be mounted.
const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Rules of PersistentVolumeClaims.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn warnings(&self, object: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        warnings::old_class_annotation(object, &mut found);
        warnings::of_claim_spec(&Field::at(object, &["spec"]), &mut found);
        found
    }

    fn set_defaults(&self, object: &mut Object) {
        set_spec_defaults(object.map_mut(&["spec"]));
        object.set_if_absent(&["status", "phase"], "Pending");
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], json!({"phase": "Pending"}));
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        validate_spec(&spec, &mut faults);
        if let Some(old) = old {
            validate_update(&spec, old, &mut faults);
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// Fills in the spec of a claim, also of one in a template.
pub fn set_spec_defaults(spec: &mut Map<String, Value>) {
    spec.fill("volumeMode", "Filesystem");
}

/// The rules of a claim's spec, also of one in a template.
pub fn validate_spec(spec: &Field, faults: &mut Faults) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        faults.required(&modes, "at least 1 access mode is required");
    }
    validate_access_modes(&modes, faults);
    label_selector::validate(&spec.get("selector"), faults);
    let storage = spec.get("resources").get("requests").entry("storage");
    if storage.is_set() {
        resources::validate_quantity(&storage, faults);
        if resources::quantity(storage.value).is_some_and(|quantity| quantity.is_zero()) {
            faults.invalid(&storage, "must be greater than zero");
        }
    } else {
        faults.required(&storage, "");
    }
    faults.keeps(&spec.get("storageClassName"), name::dns_subdomain);
    faults.one_of(&spec.get("volumeMode"), &["Block", "Filesystem"]);
}

/// The ways in which a volume may be mounted; one pod alone means one pod alone.
pub fn validate_access_modes(modes: &Field, faults: &mut Faults) {
    modes.items().for_each(|mode| faults.one_of(&mode, ACCESS_MODES));
    let is_exclusive = modes.items().any(|mode| mode.text() == "ReadWriteOncePod");
    if is_exclusive && modes.items().any(|mode| mode.text() != "ReadWriteOncePod") {
        faults.forbidden(modes, "may not use ReadWriteOncePod with other access modes");
    }
}

/// A claim may be bound and may grow; nothing else changes.
fn validate_update(spec: &Field, old: &Object, faults: &mut Faults) {
    const TEXT: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    let before = Field::at(old, &["spec"]);
    let is_bound = old.text(&["status", "phase"]) == "Bound";
    let fixed = |spec: &Field| {
        let mut map = spec.map().cloned().unwrap_or_default();
        if before.get("volumeName").text().is_empty() {
            map.remove("volumeName");
        }
        if is_bound {
            map.remove("volumeAttributesClassName");
            if let Some(Value::Object(resources)) = map.get_mut("resources") {
                resources.remove("requests");
            }
        }
        // A claim without a class may be given the default one.
        if !before.get("storageClassName").is_set() {
            map.remove("storageClassName");
        }
        map.retain(|_, value| !same(value, &Value::Null));
        map
    };
    if fixed(spec) != fixed(&before) {
        faults.forbidden(spec, TEXT);
    }
    let requested =
        |spec: &Field| resources::quantity(spec.get("resources").get("requests").get("storage").value);
    if let (Some(new), Some(old)) = (requested(spec), requested(&before))
        && new < old
    {
        let field = spec.get("resources").get("requests").get("storage");
        faults.forbidden(&field, "field can not be less than status.capacity");
    }
}

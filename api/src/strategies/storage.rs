//! What storage drivers say of themselves, of nodes and of capacity, and what they are told.

use std::collections::HashSet;

use super::check::{Faults, Field, same};
use super::{label_selector, resources, warnings};
use crate::{FieldError, Object, name};

/// A driver's name is also a label.
const LONGEST_DRIVER: usize = 63;

/// Rules of CSIDrivers.
pub struct CsiDriver;

impl crate::Strategy for CsiDriver {
    fn set_defaults(&self, object: &mut Object) {
        for (name, value) in [
            ("attachRequired", true),
            ("podInfoOnMount", false),
            ("storageCapacity", false),
            ("requiresRepublish", false),
            ("seLinuxMount", false),
        ] {
            object.set_if_absent(&["spec", name], value);
        }
        object.set_if_absent(&["spec", "fsGroupPolicy"], "ReadWriteOnceWithFSType");
        object.set_if_absent(&["spec", "volumeLifecycleModes"], vec!["Persistent"]);
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        if object.name().len() > LONGEST_DRIVER {
            faults.0.push(FieldError::too_long("metadata.name", LONGEST_DRIVER));
        }
        faults.one_of(&spec.get("fsGroupPolicy"), &["File", "None", "ReadWriteOnceWithFSType"]);
        for mode in spec.get("volumeLifecycleModes").items() {
            faults.one_of(&mode, &["Ephemeral", "Persistent"]);
        }
        let mut audiences = HashSet::new();
        for request in spec.get("tokenRequests").items() {
            let (audience, seconds) = (request.get("audience"), request.get("expirationSeconds"));
            if !audiences.insert(audience.text()) {
                faults.duplicate(&audience);
            }
            if seconds.number().is_some_and(|seconds| seconds < 600) {
                faults.invalid(&seconds, "may not specify a duration less than 10 minutes");
            }
        }
        if let Some(old) = old {
            for name in ["attachRequired", "fsGroupPolicy", "volumeLifecycleModes"] {
                faults.immutable(&spec.get(name), &Field::at(old, &["spec"]).get(name));
            }
        }
        faults.0
    }
}

/// Rules of CSINodes, in which kubelets say which drivers a node has.
pub struct CsiNode;

impl crate::Strategy for CsiNode {
    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let drivers = Field::at(object, &["spec", "drivers"]);
        let before = old.map(|old| Field::at(old, &["spec", "drivers"]));
        let mut names = HashSet::new();
        for driver in drivers.items() {
            let (name, node) = (driver.get("name"), driver.get("nodeID"));
            validate_driver(&name, &mut faults);
            if !names.insert(name.text()) {
                faults.duplicate(&name);
            }
            faults.must_be_given(&node);
            faults.not_negative(&driver.get("allocatable").get("count"));
            for key in driver.get("topologyKeys").items() {
                faults.must_keep(&key, name::qualified_name);
            }
            let known = before
                .as_ref()
                .and_then(|before| before.items().find(|known| known.get("name").text() == name.text()));
            if let Some(known) = known
                && !same_driver(&driver, &known)
            {
                let path = driver.get("CSINodeDriver").path;
                faults.invalid(&Field { path, value: driver.value }, "field is immutable");
            }
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// How many volumes fit may be counted anew; the rest of a driver stays.
fn same_driver(one: &Field, other: &Field) -> bool {
    ["name", "nodeID", "topologyKeys"].iter().all(|key| same(one.get(key).value, other.get(key).value))
}

/// Rules of CSIStorageCapacities.
pub struct CsiStorageCapacity;

impl crate::Strategy for CsiStorageCapacity {
    fn warnings(&self, object: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        let topology = Field::at(object, &["nodeTopology"]);
        warnings::old_labels_in(&topology.get("matchExpressions"), &mut found);
        for (label, _) in topology.get("matchLabels").entries() {
            if let Some(advice) = warnings::old_node_label(label) {
                found.push(format!("nodeTopology.matchLabels.{label}: {advice}"));
            }
        }
        found
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let at = |name| Field::at(object, &[name]);
        label_selector::validate(&at("nodeTopology"), &mut faults);
        faults.must_keep(&at("storageClassName"), name::dns_subdomain);
        for name in ["capacity", "maximumVolumeSize"] {
            if at(name).is_set() {
                resources::validate_quantity(&at(name), &mut faults);
            }
        }
        if let Some(old) = old {
            for name in ["nodeTopology", "storageClassName"] {
                faults.immutable(&at(name), &Field::at(old, &[name]));
            }
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// Rules of VolumeAttachments: what is attached where stays.
pub struct VolumeAttachment;

impl crate::Strategy for VolumeAttachment {
    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status", "attached"], false);
    }

    fn status_is_apart(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        if let Some(old) = old {
            faults.immutable(&spec, &Field::at(old, &["spec"]));
            return faults.0;
        }
        validate_driver(&spec.get("attacher"), &mut faults);
        let source = spec.get("source");
        let (inline, named) = (source.get("inlineVolumeSpec"), source.get("persistentVolumeName"));
        match (inline.is_set(), named.is_set()) {
            (false, false) => {
                faults.required(
                    &source,
                    "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
                );
            }
            (true, true) => {
                faults.forbidden(
                    &source,
                    "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
                );
            }
            (false, true) => {
                faults.must_keep(&named, name::dns_subdomain);
            }
            (true, false) => {}
        }
        faults.must_keep(&spec.get("nodeName"), name::dns_subdomain);
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// Rules of VolumeAttributesClasses, which are written once.
pub struct VolumeAttributesClass;

impl crate::Strategy for VolumeAttributesClass {
    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let at = |name| Field::at(object, &[name]);
        if let Some(old) = old {
            for (name, text) in [
                ("driverName", "updates to driverName are forbidden."),
                ("parameters", "updates to parameters are forbidden."),
            ] {
                if !same(at(name).value, Field::at(old, &[name]).value) {
                    faults.forbidden(&at(name), text);
                }
            }
            return faults.0;
        }
        validate_driver(&at("driverName"), &mut faults);
        if at("parameters").is_empty() {
            faults.required(&at("parameters"), "must contain at least one key/value pair");
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// The name of a driver, also where it is referred to.
pub fn validate_driver(driver: &Field, faults: &mut Faults) {
    if !faults.must_be_given(driver) {
        return;
    }
    if driver.text().len() > LONGEST_DRIVER {
        faults.0.push(FieldError::too_long(&driver.path, LONGEST_DRIVER));
    }
    // Case does not matter in a driver's name, which has the form of a domain.
    if let Err(message) = name::dns_subdomain(&driver.text().to_lowercase()) {
        faults.invalid(driver, message);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(strategy: &dyn crate::Strategy, object: Value, old: Option<Value>) -> Vec<String> {
        let [object, old] = [Some(object), old].map(|value| value.and_then(Object::from_value));
        let faults = strategy.validate(&object.unwrap(), old.as_ref());
        faults.iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn an_attachment_is_of_one_volume_and_stays() {
        let one =
            json!({"spec": {"attacher": "d.io", "nodeName": "n", "source": {"persistentVolumeName": "a"}}});
        assert_eq!(told(&VolumeAttachment, one.clone(), None), [""; 0]);
        let none = json!({"spec": {"attacher": "d.io", "nodeName": "n", "source": {}}});
        assert_eq!(told(&VolumeAttachment, none.clone(), None).len(), 1);
        assert!(told(&VolumeAttachment, none, Some(one))[0].ends_with("field is immutable"));
    }

    #[test]
    fn a_driver_on_a_node_stays_what_it_is() {
        let node = |id: &str, count: i64| json!({"spec": {"drivers": [{"name": "d.io", "nodeID": id, "allocatable": {"count": count}}]}});
        assert_eq!(told(&CsiNode, node("a", 2), Some(node("a", 1))), [""; 0]);
        assert_eq!(told(&CsiNode, node("b", 1), Some(node("a", 1))).len(), 1);
        assert_eq!(told(&CsiNode, node("", -1), None).len(), 2);
    }

    #[test]
    fn a_class_of_attributes_is_written_once() {
        let class = |value: &str| json!({"driverName": "d.io", "parameters": {"speed": value}});
        assert_eq!(told(&VolumeAttributesClass, class("1"), None), [""; 0]);
        assert_eq!(
            told(&VolumeAttributesClass, class("2"), Some(class("1"))),
            ["parameters: Forbidden: updates to parameters are forbidden."]
        );
    }
}

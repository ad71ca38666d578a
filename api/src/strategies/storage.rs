//! What storage drivers say of themselves, of nodes and of capacity, and what they are told.

use std::collections::HashSet;

use super::check::{Faults, Field, same};
use super::{label_selector, resources, warnings};
use crate::{FieldError, Object, name};

/// A driver's name is also a label.
const LONGEST_DRIVER: usize = 63;

/// How long a driver's name for a node may be.
const LONGEST_NODE: usize = 256;

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
        let modes = spec.get("volumeLifecycleModes");
        for mode in modes.items() {
            // Upstream names the list.
            faults.one_of(&Field { path: modes.path.clone(), ..mode }, &["Ephemeral", "Persistent"]);
        }
        let mut audiences = HashSet::new();
        for request in spec.get("tokenRequests").items() {
            let (audience, seconds) = (request.get("audience"), request.get("expirationSeconds"));
            if !audiences.insert(audience.text()) {
                faults.duplicate(&audience);
                continue;
            }
            match seconds.number() {
                Some(number) if number < 600 => {
                    faults.invalid(&seconds, "may not specify a duration less than 10 minutes");
                }
                Some(number) if number > 1 << 32 => {
                    faults.invalid(&seconds, "may not specify a duration larger than 2^32 seconds");
                }
                _ => {}
            }
        }
        let period = spec.get("nodeAllocatableUpdatePeriodSeconds");
        if period.number().is_some_and(|seconds| seconds < 10) {
            faults.invalid(&period, "must be greater than or equal to 10 seconds");
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
            if node.text().len() > LONGEST_NODE {
                faults.invalid(&node, format!("must be {LONGEST_NODE} characters or less"));
            }
            faults.not_negative(&driver.get("allocatable").get("count"));
            validate_topology(&driver, &mut faults);
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

/// By which labels the driver tells nodes apart. Upstream names the driver, not the key.
fn validate_topology(driver: &Field, faults: &mut Faults) {
    let mut seen = HashSet::new();
    for key in driver.get("topologyKeys").items() {
        let key = Field { path: driver.path.clone(), ..key };
        faults.must_be_given(&key);
        if !seen.insert(key.text()) {
            faults.duplicate(&key);
        }
        faults.fits(&key, name::qualified_name);
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
        if let Some(old) = old {
            faults.immutable(&spec, &Field::at(old, &["spec"]));
        }
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
        let faults = told(&VolumeAttachment, none, Some(one));
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[1].ends_with("field is immutable"));
    }

    #[test]
    fn a_driver_on_a_node_stays_what_it_is() {
        let node = |id: &str, count: i64| json!({"spec": {"drivers": [{"name": "d.io", "nodeID": id, "allocatable": {"count": count}}]}});
        assert_eq!(told(&CsiNode, node("a", 2), Some(node("a", 1))), [""; 0]);
        assert_eq!(told(&CsiNode, node("b", 1), Some(node("a", 1))).len(), 1);
        assert_eq!(told(&CsiNode, node("", -1), None).len(), 2);
        assert_eq!(
            told(&CsiNode, node(&"a".repeat(257), 1), None)[0].rsplit(": ").next(),
            Some("must be 256 characters or less")
        );
    }

    #[test]
    fn what_a_driver_says_of_a_node_keeps_to_the_rules() {
        let driver = |name: &str, keys: &[&str]| json!({"name": name, "nodeID": "a", "topologyKeys": keys});
        let told = |drivers: Value| told(&CsiNode, json!({"spec": {"drivers": drivers}}), None);
        assert_eq!(told(json!([driver("d.io", &["d.io/zone", "d.io/rack"])])), [""; 0]);
        assert_eq!(
            told(json!([driver("d.io", &["d.io/zone", "d.io/zone"]), driver("d.io", &[])])),
            [
                "spec.drivers[0]: Duplicate value: \"d.io/zone\"",
                "spec.drivers[1].name: Duplicate value: \"d.io\"",
            ]
        );
        let faults = told(json!([driver("d.io", &["", "a b"])]));
        assert_eq!(faults[0], "spec.drivers[0]: Required value");
        assert!(faults[1].starts_with("spec.drivers[0]: Invalid value: \"\": name part must be non-empty"));
        assert!(faults[2].starts_with("spec.drivers[0]: Invalid value: \"a b\": name part must consist of"));
    }

    #[test]
    fn a_driver_wants_tokens_of_a_sensible_age() {
        let faults = |seconds: i64| {
            let requests = json!([{"audience": "a", "expirationSeconds": seconds}, {"audience": "a"}]);
            told(
                &CsiDriver,
                json!({"spec": {"tokenRequests": requests, "nodeAllocatableUpdatePeriodSeconds": 9}}),
                None,
            )
        };
        let others = [
            "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
            "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
        ];
        assert_eq!(faults(600), others);
        assert!(faults(599)[0].ends_with("may not specify a duration less than 10 minutes"));
        assert!(faults((1 << 32) + 1)[0].ends_with("may not specify a duration larger than 2^32 seconds"));
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

//! PersistentVolumes and StorageClasses.

use std::collections::HashSet;

use serde_json::json;

use super::check::{Faults, Field};
use super::fill::Fill;
use super::persistent_volume_claim::validate_access_modes;
use super::pod_spec::source::{self, Place};
use super::{pod_spec, resources, warnings};
use crate::{FieldError, Object, name};

const RECLAIM_POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];
const NOT_SOURCES: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// Rules of PersistentVolumes.
pub struct PersistentVolume;

impl crate::Strategy for PersistentVolume {
    fn warnings(&self, object: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        warnings::old_class_annotation(object, &mut found);
        let options = "volume.beta.kubernetes.io/mount-options";
        if object.annotation(options).is_some() {
            found.push(format!(
                "metadata.annotations[{options}]: deprecated since v1.31; use \"mountOptions\" attribute instead"
            ));
        }
        let spec = Field::at(object, &["spec"]);
        if spec.get("persistentVolumeReclaimPolicy").text() == "Recycle" {
            found.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".into());
        }
        for term in spec.get("nodeAffinity").get("required").get("nodeSelectorTerms").items() {
            warnings::old_labels_in(&term.get("matchExpressions"), &mut found);
        }
        warnings::fractional(&spec.get("capacity"), "storage", &mut found);
        warnings::old_volumes(&spec, &mut found);
        found
    }

    fn set_defaults(&self, object: &mut Object) {
        let spec = object.map_mut(&["spec"]);
        spec.fill("persistentVolumeReclaimPolicy", "Retain");
        spec.fill("volumeMode", "Filesystem");
        pod_spec::source_defaults(spec);
        object.set_if_absent(&["status", "phase"], "Pending");
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], json!({"phase": "Pending"}));
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        let modes = spec.get("accessModes");
        if modes.is_empty() {
            faults.required(&modes, "");
        }
        validate_access_modes(&modes, &mut faults);
        let capacity = spec.get("capacity");
        let storage = capacity.entry("storage");
        if capacity.is_empty() {
            faults.required(&capacity, "");
        } else if !storage.is_set() || capacity.len() > 1 {
            faults.not_supported(&capacity, &["storage"]);
        } else {
            resources::validate_quantity(&storage, &mut faults);
            if resources::quantity(storage.value).is_some_and(|quantity| quantity.signum() <= 0) {
                faults.invalid(&storage, "must be greater than zero");
            }
        }
        faults.one_of(&spec.get("persistentVolumeReclaimPolicy"), RECLAIM_POLICIES);
        faults.one_of(&spec.get("volumeMode"), &["Block", "Filesystem"]);
        faults.keeps(&spec.get("storageClassName"), name::dns_subdomain);
        let affinity = spec.get("nodeAffinity").get("required");
        if affinity.is_set() {
            pod_spec::validate_node_selector(&affinity, &mut faults);
        } else if spec.get("nodeAffinity").is_set() {
            faults.required(&affinity, "must specify required node constraints");
        } else if spec.get("local").is_set() {
            faults.required(&spec.get("nodeAffinity"), "Local volume requires node affinity");
        }
        validate_source(&spec, &mut faults);
        if let Some(old) = old {
            validate_update(&spec, &Field::at(old, &["spec"]), &mut faults);
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

fn sources<'a>(spec: &Field<'a>) -> Vec<(&'a str, Field<'a>)> {
    let entries = spec.map().into_iter().flatten();
    let given = entries.filter(|(key, value)| !NOT_SOURCES.contains(&key.as_str()) && !value.is_null());
    given.map(|(key, _)| (key.as_str(), source::of(spec, key))).collect()
}

fn validate_source(spec: &Field, faults: &mut Faults) {
    let given = sources(spec);
    for (other, _) in given.iter().skip(1) {
        faults.forbidden(&spec.get(other), "may not specify more than 1 volume type");
    }
    match given.first() {
        None => faults.required(spec, "must specify a volume type"),
        Some((kind, source)) => source::validate(kind, source, Place::PersistentVolume, faults),
    }
}

fn validate_update(spec: &Field, old: &Field, faults: &mut Faults) {
    let values = |spec: &Field| {
        sources(spec).iter().map(|(kind, it)| (kind.to_string(), it.value.clone())).collect::<Vec<_>>()
    };
    if values(spec) != values(old) {
        let source = Field { path: "spec.persistentvolumesource".into(), value: spec.value };
        faults.forbidden(&source, "spec.persistentvolumesource is immutable after creation");
    }
    faults.immutable(&spec.get("volumeMode"), &old.get("volumeMode"));
    let (affinity, before) = (spec.get("nodeAffinity"), old.get("nodeAffinity"));
    if before.is_set() && affinity.value != before.value {
        faults.invalid(&affinity, "field is immutable, except for updating from beta label to GA");
    }
}

/// Rules of StorageClasses.
pub struct StorageClass;

impl crate::Strategy for StorageClass {
    fn warnings(&self, object: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        for topology in Field::at(object, &["allowedTopologies"]).items() {
            for requirement in topology.get("matchLabelExpressions").items() {
                let key = requirement.get("key");
                if let Some(advice) = warnings::old_node_label(key.text()) {
                    found.push(format!("{}: {advice}", key.path));
                }
            }
        }
        found
    }

    fn set_defaults(&self, object: &mut Object) {
        object.set_if_absent(&["reclaimPolicy"], "Delete");
        object.set_if_absent(&["volumeBindingMode"], "Immediate");
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let at = |name| Field::at(object, &[name]);
        faults.must_keep(&at("provisioner"), name::qualified_name);
        faults.must_be_one_of(&at("reclaimPolicy"), RECLAIM_POLICIES);
        for (key, value) in at("parameters").entries() {
            if key.is_empty() {
                faults.invalid(&value, "field can not be empty.");
            }
        }
        faults.must_be_one_of(&at("volumeBindingMode"), &["Immediate", "WaitForFirstConsumer"]);
        validate_topologies(&at("allowedTopologies"), &mut faults);
        let Some(old) = old else { return faults.0 };
        for (name, text) in [
            ("parameters", "updates to parameters are forbidden."),
            ("provisioner", "updates to provisioner are forbidden."),
            ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
        ] {
            if !super::check::same(at(name).value, Field::at(old, &[name]).value) {
                faults.forbidden(&at(name), text);
            }
        }
        faults.immutable(&at("volumeBindingMode"), &Field::at(old, &["volumeBindingMode"]));
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// Where volumes may be: terms that differ, of labels that differ, of values that differ.
fn validate_topologies(terms: &Field, faults: &mut Faults) {
    let mut seen = Vec::new();
    for term in terms.items() {
        let expressions = term.get("matchLabelExpressions");
        let mut keys = HashSet::new();
        for expression in expressions.items() {
            let (key, values) = (expression.get("key"), expression.get("values"));
            faults.must_be_given(&values);
            let mut given = HashSet::new();
            for value in values.items().filter(|value| !given.insert(value.text())) {
                faults.duplicate(&value);
            }
            faults.fits(&key, name::qualified_name);
            if !keys.insert(key.text()) {
                faults.duplicate(&key);
            }
        }
        if seen.contains(&expressions.value) {
            faults.duplicate(&Field { path: expressions.path, value: &"".into() });
        }
        seen.push(expressions.value);
    }
}

//! Volumes of pods.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::container::{validate_field_reference, validate_local_path, validate_resource_reference};
use super::source;
use crate::name;
use crate::strategies::check::{Faults, Field};
use crate::strategies::{label_selector, persistent_volume_claim, resources};

/// The volumes of a pod: name and kind of source.
pub type Volumes<'a> = HashMap<&'a str, &'a str>;

/// The source of volumes that are claimed.
pub const CLAIM: &str = "persistentVolumeClaim";

/// What files of downward volumes may hold.
const FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// All volumes of a pod spec; returns what there is.
pub fn validate_all<'a>(volumes: &Field<'a>, faults: &mut Faults) -> Volumes<'a> {
    let mut known = Volumes::new();
    for volume in volumes.items() {
        let name = volume.get("name");
        faults.must_keep(&name, name::dns_label);
        if known.contains_key(name.text()) {
            faults.duplicate(&name);
        }
        let entries = volume.map().into_iter().flatten();
        let given = entries.filter(|(key, value)| *key != "name" && !value.is_null());
        let sources: Vec<&str> = given.map(|(key, _)| key.as_str()).collect();
        if let Some(first) = sources.first().filter(|_| !name.text().is_empty()) {
            known.insert(name.text(), first);
        }
        match sources.as_slice() {
            [] => faults.required(&volume, "must specify a volume type"),
            [kind, others @ ..] => {
                validate_source(kind, &source::of(&volume, kind), faults);
                for other in others {
                    let path = source::of(&volume, other);
                    faults.forbidden(&path, "may not specify more than 1 volume type");
                }
            }
        }
    }
    known
}

fn validate_source(kind: &str, source: &Field, faults: &mut Faults) {
    match kind {
        "emptyDir" if source.get("sizeLimit").is_set() => {
            resources::validate_quantity(&source.get("sizeLimit"), faults);
        }
        "secret" | "configMap" => validate_files(source, faults),
        "downwardAPI" => validate_downward(source, faults),
        "projected" => validate_projected(source, faults),
        "ephemeral" => validate_ephemeral(&source.get("volumeClaimTemplate"), faults),
        "image" => faults.one_of(&source.get("pullPolicy"), &["Always", "IfNotPresent", "Never"]),
        _ => {}
    }
    source::validate(kind, source, source::Place::Pod, faults);
}

fn validate_ephemeral(template: &Field, faults: &mut Faults) {
    if !template.is_set() {
        return faults.required(template, "");
    }
    label_selector::validate_labels(&template.get("metadata").get("labels"), faults);
    persistent_volume_claim::validate_spec(&template.get("spec"), faults);
}

/// The modes and items of volumes made of keys.
fn validate_files(source: &Field, faults: &mut Faults) {
    validate_mode(&source.get("defaultMode"), faults);
    for item in source.get("items").items() {
        faults.must_be_given(&item.get("key"));
        validate_file(&item, faults);
    }
}

fn validate_file(item: &Field, faults: &mut Faults) {
    let path = item.get("path");
    if faults.must_be_given(&path) {
        validate_own_path(&path, faults);
    }
    validate_mode(&item.get("mode"), faults);
}

/// A path inside a volume that is none of the names that updates of it are made with.
fn validate_own_path(path: &Field, faults: &mut Faults) {
    validate_local_path(path, faults);
    if path.text().starts_with("..") && !path.text().starts_with("../") {
        faults.invalid(path, "must not start with '..'");
    }
}

fn validate_mode(mode: &Field, faults: &mut Faults) {
    if mode.number().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        faults.invalid(mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn validate_downward(source: &Field, faults: &mut Faults) {
    validate_mode(&source.get("defaultMode"), faults);
    source.get("items").items().for_each(|item| validate_downward_file(&item, source, faults));
}

/// A file of a downward volume. Upstream names the volume as the place of its faults.
fn validate_downward_file(item: &Field, source: &Field, faults: &mut Faults) {
    let item = Field { path: source.path.clone(), value: item.value };
    validate_file(&item, faults);
    let (field, resource) = (item.get("fieldRef"), item.get("resourceFieldRef"));
    if field.is_set() {
        validate_field_reference(&field, FIELDS, faults);
        if resource.is_set() {
            let text = "fieldRef and resourceFieldRef can not be specified simultaneously";
            faults.invalid(&Field { path: source.path.clone(), value: &Value::from("resource") }, text);
        }
    } else if resource.is_set() {
        if faults.must_be_given(&resource.get("containerName")) {
            validate_resource_reference(&resource, faults);
        }
    } else {
        faults.required(&item, "one of fieldRef and resourceFieldRef is required");
    }
}

/// Several sources in one directory, where each path may be taken once.
fn validate_projected(source: &Field, faults: &mut Faults) {
    validate_mode(&source.get("defaultMode"), faults);
    let mut taken = HashSet::new();
    for projection in source.get("sources").items() {
        let given = ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle"];
        let given = given.map(|kind| (kind, projection.get(kind)));
        let given: Vec<_> = given.into_iter().filter(|(_, part)| part.is_set()).collect();
        for (kind, part) in &given {
            validate_projection(kind, part, source, faults);
            for item in part.get("items").items() {
                let path = item.get("path");
                if !path.text().is_empty() && !taken.insert(path.text()) {
                    let named = if *kind == "downwardAPI" { path } else { part.get("name") };
                    let place = Field { path: source.path.clone(), value: named.value };
                    faults.invalid(&place, "conflicting duplicate paths");
                }
            }
        }
        if given.len() > 1 {
            faults.forbidden(&projection, "may not specify more than 1 volume type per source");
        }
    }
}

fn validate_projection(kind: &str, part: &Field, volume: &Field, faults: &mut Faults) {
    match kind {
        "secret" | "configMap" => {
            faults.must_be_given(&part.get("name"));
            validate_files(part, faults);
        }
        "downwardAPI" => {
            part.get("items").items().for_each(|item| validate_downward_file(&item, part, faults))
        }
        "serviceAccountToken" => validate_token(part, volume, faults),
        _ => {}
    }
}

fn validate_token(token: &Field, volume: &Field, faults: &mut Faults) {
    const SHORTEST: i64 = 600;
    const LONGEST: i64 = 1 << 32;
    let expiration = token.get("expirationSeconds");
    match expiration.number() {
        Some(seconds) if seconds < SHORTEST => {
            faults.invalid(&expiration, "may not specify a duration less than 10 minutes")
        }
        Some(seconds) if seconds > LONGEST => {
            faults.invalid(&expiration, "may not specify a duration larger than 2^32 seconds");
        }
        _ => {}
    }
    // Upstream names the volume here.
    let path = Field { path: volume.get("path").path, value: token.get("path").value };
    if faults.must_be_given(&path) {
        validate_own_path(&path, faults);
    }
}

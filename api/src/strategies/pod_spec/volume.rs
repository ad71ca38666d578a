//! Volumes of pods.

use std::collections::HashSet;

use super::container::validate_local_path;
use crate::name;
use crate::strategies::check::{Faults, Field};
use crate::strategies::{persistent_volume_claim, resources};

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// All volumes of a pod spec; returns their names.
pub fn validate_all<'a>(volumes: &Field<'a>, faults: &mut Faults) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    for volume in volumes.items() {
        let name = volume.get("name");
        faults.must_keep(&name, name::dns_label);
        if !name.text().is_empty() && !names.insert(name.text()) {
            faults.duplicate(&name);
        }
        let given =
            volume.map().into_iter().flatten().filter(|(key, value)| *key != "name" && !value.is_null());
        let sources: Vec<Field> = given.map(|(key, _)| volume.get(key)).collect();
        match sources.as_slice() {
            [] => faults.required(&volume, "must specify a volume type"),
            [source, others @ ..] => {
                validate_source(source, faults);
                for other in others {
                    faults.forbidden(other, "may not specify more than 1 volume type");
                }
            }
        }
    }
    names
}

fn validate_source(source: &Field, faults: &mut Faults) {
    let kind = source.path.rsplit('.').next().unwrap_or_default().to_string();
    match kind.as_str() {
        "emptyDir" if source.get("sizeLimit").is_set() => {
            resources::validate_quantity(&source.get("sizeLimit"), faults);
        }
        "hostPath" => {
            let path = source.get("path");
            faults.must_be_given(&path);
            if path.text().split('/').any(|part| part == "..") {
                faults.invalid(&path, "must not contain '..'");
            }
            faults.one_of(&source.get("type"), HOST_PATH_TYPES);
        }
        "secret" => {
            faults.must_be_given(&source.get("secretName"));
            validate_files(source, faults);
        }
        "configMap" => {
            faults.must_be_given(&source.get("name"));
            validate_files(source, faults);
        }
        "downwardAPI" => validate_downward(source, faults),
        "projected" => validate_projected(source, faults),
        "persistentVolumeClaim" => {
            faults.must_be_given(&source.get("claimName"));
        }
        "nfs" => {
            faults.must_be_given(&source.get("server"));
            let path = source.get("path");
            if faults.must_be_given(&path) && !path.text().starts_with('/') {
                faults.invalid(&path, "must be an absolute path");
            }
        }
        "ephemeral" => {
            let template = source.get("volumeClaimTemplate");
            if template.is_set() {
                persistent_volume_claim::validate_spec(&template.get("spec"), faults);
            } else {
                faults.required(&template, "");
            }
        }
        "csi" => {
            faults.must_be_given(&source.get("driver"));
        }
        "image" => {
            faults.must_be_given(&source.get("reference"));
            faults.one_of(&source.get("pullPolicy"), &["Always", "IfNotPresent", "Never"]);
        }
        _ => {}
    }
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
        validate_local_path(&path, faults);
        if path.text().starts_with("..") && !path.text().starts_with("../") && path.text() != ".." {
            faults.invalid(&path, "must not start with '..'");
        }
    }
    validate_mode(&item.get("mode"), faults);
}

fn validate_mode(mode: &Field, faults: &mut Faults) {
    if mode.number().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        faults.invalid(mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn validate_downward(source: &Field, faults: &mut Faults) {
    validate_mode(&source.get("defaultMode"), faults);
    for item in source.get("items").items() {
        validate_file(&item, faults);
        let (field, resource) = (item.get("fieldRef"), item.get("resourceFieldRef"));
        match (field.is_set(), resource.is_set()) {
            (true, true) => {
                faults.invalid(&item, "fieldRef and resourceFieldRef can not be specified simultaneously")
            }
            (false, false) => faults.required(&item, "one of fieldRef and resourceFieldRef is required"),
            (true, false) => {
                faults.must_be_given(&field.get("fieldPath"));
            }
            (false, true) => {
                faults.must_be_given(&resource.get("containerName"));
                faults.must_be_given(&resource.get("resource"));
            }
        }
    }
}

fn validate_projected(source: &Field, faults: &mut Faults) {
    validate_mode(&source.get("defaultMode"), faults);
    for projection in source.get("sources").items() {
        let kinds = [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ];
        let given: Vec<Field> =
            kinds.map(|kind| projection.get(kind)).into_iter().filter(Field::is_set).collect();
        for other in given.iter().skip(1) {
            faults.forbidden(other, "may not specify more than 1 volume type per source");
        }
        match given.first() {
            None => faults.required(&projection, "must specify a source type"),
            Some(first) if first.path.ends_with("downwardAPI") => validate_downward(first, faults),
            Some(first) if first.path.ends_with("serviceAccountToken") => validate_token(first, faults),
            Some(first) if first.path.ends_with("secret") || first.path.ends_with("configMap") => {
                faults.must_be_given(&first.get("name"));
                validate_files(first, faults);
            }
            Some(_) => {}
        }
    }
}

fn validate_token(token: &Field, faults: &mut Faults) {
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
    if faults.must_be_given(&token.get("path")) {
        validate_local_path(&token.get("path"), faults);
    }
}

//! Volumes of pods.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::container::{validate_field_reference, validate_local_path, validate_resource_reference};
use super::source;
use crate::strategies::check::{Faults, Field};
use crate::strategies::{certificates, label_selector, persistent_volume_claim, resources};
use crate::{FieldError, meta, name};

/// The volumes of a pod: name and kind of source.
pub type Volumes<'a> = HashMap<&'a str, &'a str>;

/// What a directory may be put together of.
const PROJECTIONS: &[&str] =
    &["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];

/// The keys that a kubelet can make for a pod, in the order in which upstream tells them.
const KEY_TYPES: &[&str] = &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];

/// Where the parts of a pod's certificate may be put.
const CERTIFICATE_PATHS: [&str; 3] = ["credentialBundlePath", "keyPath", "certificateChainPath"];

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
                    faults.forbidden(&volume.get(other), "may not specify more than 1 volume type");
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
        let given = PROJECTIONS.iter().map(|kind| (*kind, projection.get(kind)));
        let given: Vec<_> = given.filter(|(_, part)| part.is_set()).collect();
        for (kind, part) in &given {
            validate_projection(kind, part, source, faults);
            for (path, shown) in paths(kind, part) {
                if !path.is_empty() && !taken.insert(path) {
                    let place = Field { path: source.path.clone(), value: shown };
                    faults.invalid(&place, "conflicting duplicate paths");
                }
            }
        }
        if given.len() > 1 {
            faults.forbidden(&projection, "may not specify more than 1 volume type per source");
        }
    }
}

/// The paths that a projection takes, each with the value that upstream shows when it is taken already. Upstream does
/// not count those of tokens.
fn paths<'a>(kind: &str, part: &Field<'a>) -> Vec<(&'a str, &'a Value)> {
    let own = |name: &&str| (part.get(name).text(), part.get(name).value);
    match kind {
        "clusterTrustBundle" => vec![own(&"path")],
        "podCertificate" => CERTIFICATE_PATHS.iter().map(own).collect(),
        _ => {
            let paths = part.get("items").items().map(|item| item.get("path"));
            let shown =
                |path: &Field<'a>| if kind == "downwardAPI" { path.value } else { part.get("name").value };
            paths.map(|path| (path.text(), shown(&path))).collect()
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
        "clusterTrustBundle" => validate_trust(part, faults),
        "podCertificate" => validate_certificate(part, faults),
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

/// Certificates of authorities: one bundle, or those of a signer that a selector chooses.
fn validate_trust(bundle: &Field, faults: &mut Faults) {
    let [name, signer, selector] = ["name", "signerName", "labelSelector"].map(|field| bundle.get(field));
    match (name.is_set(), signer.is_set()) {
        (true, true) => faults.invalid(bundle, "only one of name and signerName may be used"),
        (true, false) => {
            validate_bundle_name(&name, faults);
            if selector.is_set() {
                faults.invalid(&selector, "labelSelector must be unset if name is specified");
            }
        }
        (false, true) => {
            if signer.text().is_empty() {
                faults.required(&signer, "must be a valid signer name");
            }
            certificates::validate_signer(&signer, faults);
            label_selector::validate(&selector, faults);
        }
        (false, false) => faults.required(bundle, "either name or signerName must be specified"),
    }
    if faults.must_be_given(&bundle.get("path")) {
        validate_own_path(&bundle.get("path"), faults);
    }
}

fn validate_bundle_name(name: &Field, faults: &mut Faults) {
    if name.text().is_empty() {
        faults.required(name, "must be a valid object name");
    }
    // A name with colons says which signer's bundle it is.
    let signer = name.text().rsplit_once(':').map(|(signer, _)| signer.replace(':', "/"));
    if let Err(message) = certificates::bundle_name(name.text(), &signer.unwrap_or_default()) {
        faults.invalid(name, format!("not a valid clustertrustbundlename: {message}"));
    }
}

/// A certificate that a signer makes out for the pod, and the key that the kubelet made for it.
fn validate_certificate(certificate: &Field, faults: &mut Faults) {
    let [signer, kind, seconds] =
        ["signerName", "keyType", "maxExpirationSeconds"].map(|field| certificate.get(field));
    certificates::validate_signer(&signer, faults);
    validate_user_annotations(&certificate.get("userAnnotations"), faults);
    if !KEY_TYPES.contains(&kind.text()) {
        faults.0.push(FieldError::not_supported(&kind.path, &kind.text().into(), KEY_TYPES));
    }
    let (shortest, longest) = (certificates::SHORTEST_SECONDS, certificates::longest_seconds(signer.text()));
    match seconds.number() {
        Some(number) if number < shortest => {
            faults.invalid(&seconds, format!("if provided, maxExpirationSeconds must be >= {shortest}"));
        }
        Some(number) if number > longest => {
            faults.invalid(&seconds, format!("if provided, maxExpirationSeconds must be <= {longest}"));
        }
        _ => {}
    }
    let paths = CERTIFICATE_PATHS.map(|name| certificate.get(name));
    let mut given = paths.iter().filter(|path| !path.text().is_empty()).peekable();
    if given.peek().is_none() {
        let text = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        faults.required(certificate, text);
    }
    given.for_each(|path| validate_own_path(path, faults));
}

/// What a pod tells its signer: annotations whose keys all have a domain.
fn validate_user_annotations(annotations: &Field, faults: &mut Faults) {
    let Some(map) = annotations.map() else { return };
    faults.0.extend(meta::validate_annotations(map, &annotations.path));
    for key in map.keys().filter(|key| !key.contains('/')) {
        let detail = "must be a domain-prefixed key (such as \"acme.io/foo\")";
        faults.0.push(FieldError::invalid(&annotations.path, &key.as_str().into(), detail));
    }
}

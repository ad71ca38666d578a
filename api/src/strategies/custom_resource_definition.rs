//! Rules of CustomResourceDefinitions.

#[cfg(test)]
mod tests;
mod version;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::json;

use self::version::{validate_parts, validate_versions};
use super::check::{Faults, Field};
use super::webhook;
use crate::{
    FieldError, Object,
    crd::{self, Props},
    name, time,
};

/// The strategy of CustomResourceDefinitions.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let known = old.map(schema_warnings).unwrap_or_default();
        schema_warnings(object).into_iter().filter(|warning| !known.contains(warning)).collect()
    }

    fn set_defaults(&self, object: &mut Object) {
        let kind = object.text(&["spec", "names", "kind"]).to_string();
        if !kind.is_empty() {
            object.set_if_absent(&["spec", "names", "singular"], kind.to_lowercase());
            object.set_if_absent(&["spec", "names", "listKind"], format!("{kind}List"));
        }
        object.set_if_absent(&["spec", "conversion", "strategy"], "None");
        let client = ["spec", "conversion", "webhook", "clientConfig", "service"];
        if object.at(&client).is_some() {
            object.set_if_absent(&["spec", "conversion", "webhook", "clientConfig", "service", "port"], 443);
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set(
            &["status"],
            json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": [], "storedVersions": []}),
        );
        remember_stored_version(object);
    }

    fn prepare_for_update(&self, object: &mut Object, _old: &Object) {
        remember_stored_version(object);
    }

    fn prepare_for_delete(&self, object: &mut Object, now: Timestamp) {
        // The objects go first: a finalizer of our own holds the definition until then.
        let mut finalizers = object.list(&["metadata", "finalizers"]).to_vec();
        if !finalizers.iter().any(|name| name == crd::CLEANUP) {
            finalizers.push(crd::CLEANUP.into());
        }
        object.set(&["metadata", "finalizers"], finalizers);
        let mut conditions = object.list(&["status", "conditions"]).to_vec();
        let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        crd::set_condition(
            &mut conditions,
            ["Terminating", "True", "InstanceDeletionPending", message],
            &time::format(now),
        );
        object.set(&["status", "conditions"], conditions);
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        validate_name(object, &mut faults);
        validate_approval(object, old, &mut faults);
        let spec = Field::at(object, &["spec"]);
        validate_group(&spec.get("group"), &mut faults);
        faults.must_be_one_of(&spec.get("scope"), &["Cluster", "Namespaced"]);
        validate_versions(&spec, old, &mut faults);
        validate_parts(&spec, old, &mut faults);
        validate_names(&spec.get("names"), &mut faults);
        validate_conversion(&spec.get("conversion"), old, &mut faults);
        let keeps_unknown =
            |object: &Object| object.at(&["spec", "preserveUnknownFields"]) == Some(&true.into());
        if keeps_unknown(object) && !old.is_some_and(keeps_unknown) {
            let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
            faults.invalid(&spec.get("preserveUnknownFields"), detail);
        }
        validate_stored_versions(object, &mut faults);
        if let Some(old) = old {
            validate_update(object, old, &mut faults);
        }
        faults.0
    }

    fn validate_status(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        let mut faults = Faults::new();
        validate_forms(&Field::at(object, &["status", "acceptedNames"]), &mut faults);
        faults.0
    }
}

/// What in the schemas of all versions is understood by nobody: formats first, then sets.
fn schema_warnings(object: &Object) -> Vec<String> {
    let (mut formats, mut sets) = (Vec::new(), BTreeSet::new());
    for version in object.list(&["spec", "versions"]) {
        if let Some(Ok(props)) = version.pointer("/schema/openAPIV3Schema").map(Props::read) {
            props.visit(&mut |props| {
                if !crd::knows_format(&props.kind, &props.format) {
                    formats.push(format!("unrecognized format {:?}", props.format));
                }
                let items = props.item().map_or("", |item| item.kind.as_str());
                if props.list_type.as_deref() == Some("set") && matches!(items, "object" | "array") {
                    sets.insert(format!("x-kubernetes-list-type: set for items of type {items:?} is not supported by server-side apply or CEL validation rules"));
                }
            });
        }
    }
    formats.extend(sets);
    formats
}

/// Versions that objects may be stored in, since the definition was made.
fn remember_stored_version(object: &mut Object) {
    let stored = object.list(&["spec", "versions"]).iter().find(|version| version["storage"] == true);
    let Some(stored) = stored.and_then(|version| version["name"].as_str()).map(str::to_string) else {
        return;
    };
    let mut versions = object.list(&["status", "storedVersions"]).to_vec();
    if !versions.iter().any(|version| *version == stored) {
        versions.push(stored.into());
        object.set(&["status", "storedVersions"], versions);
    }
}

fn validate_name(object: &Object, faults: &mut Faults) {
    let wanted = format!("{}.{}", object.text(&["spec", "names", "plural"]), object.text(&["spec", "group"]));
    if object.name() != wanted {
        faults
            .invalid(&Field::at(object, &["metadata", "name"]), "must be spec.names.plural+\".\"+spec.group");
    }
}

fn validate_approval(object: &Object, old: Option<&Object>, faults: &mut Faults) {
    let is_new = old.is_none_or(|old| old.annotation(crd::APPROVAL).is_some());
    if !crd::is_protected(object.text(&["spec", "group"])) || !is_new {
        return;
    }
    let path = format!("metadata.annotations[{}]", crd::APPROVAL);
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    match object.annotation(crd::APPROVAL) {
        None | Some("") => {
            let detail = format!("protected groups must have approval annotation {:?}, {see}", crd::APPROVAL);
            faults.0.push(FieldError::required(path, detail));
        }
        Some(value) if value.starts_with("unapproved") || value.contains("://") => {}
        Some(value) => {
            let detail = format!(
                "protected groups must have approval annotation {:?} with either a URL or a reason starting with \"unapproved\", {see}",
                crd::APPROVAL
            );
            faults.0.push(FieldError::invalid(path, &value.into(), detail));
        }
    }
}

fn validate_group(group: &Field, faults: &mut Faults) {
    if !faults.must_be_given(group) {
        return;
    }
    match name::dns_subdomain(group.text()) {
        Err(message) => faults.invalid(group, message),
        Ok(()) if !group.text().contains('.') => {
            faults.invalid(group, "should be a domain with at least one dot");
        }
        Ok(()) => {}
    }
}

fn validate_names(names: &Field, faults: &mut Faults) {
    for name in ["plural", "singular", "kind", "listKind"] {
        faults.must_be_given(&names.get(name));
    }
    validate_forms(names, faults);
}

/// The forms of the names that are given.
fn validate_forms(names: &Field, faults: &mut Faults) {
    for name in ["plural", "singular"] {
        faults.keeps(&names.get(name), name::dns_1035_label);
    }
    for name in ["kind", "listKind"] {
        let field = names.get(name);
        if !field.text().is_empty()
            && let Err(message) = name::dns_1035_label(&field.text().to_lowercase())
        {
            faults.invalid(&field, format!("may have mixed case, but should otherwise match: {message}"));
        }
    }
    names.get("shortNames").items().for_each(|name| faults.fits(&name, name::dns_1035_label));
    if names.get("kind").is_set() && names.get("kind").value == names.get("listKind").value {
        faults.invalid(&names.get("listKind"), "kind and listKind may not be the same");
    }
    names.get("categories").items().for_each(|name| faults.fits(&name, name::dns_1035_label));
}

/// Upstream tells the faults of the webhook by the names that its parts had once.
fn validate_conversion(conversion: &Field, old: Option<&Object>, faults: &mut Faults) {
    let hook = conversion.get("webhook");
    let renamed = |part: &str, name: &str| Field { path: conversion.get(name).path, ..hook.get(part) };
    let client = renamed("clientConfig", "webhookClientConfig");
    let versions = renamed("conversionReviewVersions", "conversionReviewVersions");
    faults.must_be_one_of(&conversion.get("strategy"), &["None", "Webhook"]);
    if conversion.get("strategy").text() != "Webhook" {
        let detail = "should not be set when strategy is not set to Webhook";
        if client.is_set() {
            faults.forbidden(&client, detail);
        }
        if !versions.is_empty() {
            faults.forbidden(&versions, detail);
        }
        return;
    }
    match client.is_set() {
        true => webhook::validate_client(&client, faults),
        false => faults.required(&client, "required when strategy is set to Webhook"),
    }
    let stored = old.and_then(|old| old.at(&["spec", "conversion", "webhook", "conversionReviewVersions"]));
    let is_lenient = stored.is_some_and(webhook::knows_no_review);
    webhook::validate_reviews(&versions, is_lenient, "", faults);
}

fn validate_stored_versions(object: &Object, faults: &mut Faults) {
    let versions = Field::at(object, &["spec", "versions"]);
    let stored = Field::at(object, &["status", "storedVersions"]);
    if stored.is_empty() {
        return faults.invalid(&stored, "must have at least one stored version");
    }
    let written = versions.items().find(|version| version.get("storage").is_true());
    if let Some(written) = written
        && !stored.items().any(|name| name.value == written.get("name").value)
    {
        let detail = format!("must have the storage version {}", written.get("name").text());
        faults.invalid(&stored, detail);
    }
    let is_known = |name: &str| versions.items().any(|version| version.get("name").text() == name);
    for name in stored.items().filter(|name| !is_known(name.text())) {
        let detail = format!(
            "missing from spec.versions; {0} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {0} and removes {0} from status.storedVersions",
            name.text()
        );
        faults.invalid(&name, detail);
    }
}

/// What other objects rely on does not change once the definition is established.
fn validate_update(object: &Object, old: &Object, faults: &mut Faults) {
    let is_established = old
        .list(&["status", "conditions"])
        .iter()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
    let immutable: &[&[&str]] =
        &[&["spec", "scope"], &["spec", "names", "kind"], &["spec", "group"], &["spec", "names", "plural"]];
    // Group and plural make the definition's own name.
    for path in if is_established { immutable } else { &immutable[2..] } {
        faults.immutable(&Field::at(object, path), &Field::at(old, path));
    }
}

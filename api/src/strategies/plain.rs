//! Kinds with next to no rules of their own.

use super::check::{Faults, Field};
use super::pod_template;
use crate::{FieldError, Object};

/// Kinds about which nothing is special but that upstream counts no generations for them:
/// CSINodes, VolumeAttachments, ...
pub struct Unnumbered;

impl crate::Strategy for Unnumbered {
    fn has_generation(&self) -> bool {
        false
    }
}

/// Rules of ServiceAccounts.
pub struct ServiceAccount;

impl crate::Strategy for ServiceAccount {
    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
        let is_new =
            object.annotation(ENFORCE).is_some() && old.is_none_or(|old| old.annotation(ENFORCE).is_none());
        let advice = || {
            format!(
                "metadata.annotations[{ENFORCE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
            )
        };
        is_new.then(advice).into_iter().collect()
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// Rules of ControllerRevisions, which are written once.
pub struct ControllerRevision;

impl crate::Strategy for ControllerRevision {
    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        faults.not_negative(&Field::at(object, &["revision"]));
        if let Some(old) = old {
            faults.immutable(&Field::at(object, &["data"]), &Field::at(old, &["data"]));
        } else if !Field::at(object, &["data"]).is_set() {
            faults.required(&Field::at(object, &["data"]), "data is mandatory");
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// Rules of PodTemplates, templates that stand alone.
pub struct PodTemplate;

impl crate::Strategy for PodTemplate {
    fn set_defaults(&self, object: &mut Object) {
        pod_template::set_defaults(object, &["template"]);
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        pod_template::validate(&Field::at(object, &["template"]), &mut faults);
        faults.0
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        pod_template::warnings(object, old, &["template"], &mut found);
        found
    }
}

/// Rules of StorageVersionMigrations: what is migrated stays.
pub struct StorageVersionMigration;

impl crate::Strategy for StorageVersionMigration {
    fn status_is_apart(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let resource = Field::at(object, &["spec", "resource"]);
        faults.must_be_given(&resource.get("resource"));
        if let Some(old) = old {
            faults.immutable(&Field::at(object, &["spec"]), &Field::at(old, &["spec"]));
        }
        faults.0
    }

    fn validate_status(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let (version, before) = (
            Field::at(object, &["status", "resourceVersion"]),
            Field::at(old, &["status", "resourceVersion"]),
        );
        if !before.text().is_empty() {
            faults.immutable(&version, &before);
        }
        faults.0
    }
}

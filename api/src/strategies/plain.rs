//! Kinds with next to no rules of their own.

use super::check::{Faults, Field};
use super::pod_template;
use crate::{FieldError, Object, name};

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

/// Rules of IPAddresses: each is named by the address it stands for.
pub struct IpAddress;

impl crate::Strategy for IpAddress {
    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let parent = Field::at(object, &["spec", "parentRef"]);
        if !parent.is_set() {
            faults.required(&parent, "");
        } else {
            faults.must_be_given(&parent.get("resource"));
            faults.must_be_given(&parent.get("name"));
        }
        if let Some(old) = old {
            faults.immutable(&parent, &Field::at(old, &["spec", "parentRef"]));
        }
        faults.0
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        name::ip_address(name)
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// Rules of ServiceCIDRs.
pub struct ServiceCidr;

impl crate::Strategy for ServiceCidr {
    fn status_is_apart(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let ranges = Field::at(object, &["spec", "cidrs"]);
        if ranges.is_empty() {
            faults.required(&ranges, "at least one CIDR required");
        }
        ranges.items().for_each(|range| super::ports::validate_cidr(&range, &mut faults));
        if let Some(old) = old {
            faults.immutable(&ranges, &Field::at(old, &["spec", "cidrs"]));
        }
        faults.0
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

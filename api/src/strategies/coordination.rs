//! Leases.

use super::check::{Faults, Field};
use crate::{FieldError, Object};

/// Rules of Leases.
pub struct Lease;

impl crate::Strategy for Lease {
    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        let holder = spec.get("holderIdentity");
        if holder.is_set() && holder.text().is_empty() {
            faults.invalid(&holder, "must not be empty");
        }
        let seconds = spec.get("leaseDurationSeconds");
        if seconds.number().is_some_and(|seconds| seconds <= 0) {
            faults.invalid(&seconds, "must be greater than 0");
        }
        faults.not_negative(&spec.get("leaseTransitions"));
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

//! What the statuses of several kinds must keep to.

use std::collections::HashSet;

use super::check::{Faults, Field};
use crate::{FieldError, Object};

/// The faults of a status whose numbers under `counts` must not be negative.
pub fn counted(object: &Object, counts: &[&str]) -> Faults {
    let status = Field::at(object, &["status"]);
    let mut faults = Faults::new();
    counts.iter().for_each(|count| faults.not_negative(&status.get(count)));
    faults
}

/// No part may be greater than the whole, which upstream calls `status.replicas` here and `readyReplicas` there.
pub fn not_above(object: &Object, parts: &[&str], whole: &str, faults: &mut Faults) {
    let status = Field::at(object, &["status"]);
    let number = |name: &str| status.get(name).number().unwrap_or_default();
    let most = number(whole.trim_start_matches("status."));
    for part in parts.iter().filter(|part| number(part) > most) {
        let detail = format!("cannot be greater than {whole}");
        faults.0.push(FieldError::invalid(status.get(part).path, &number(part).into(), detail));
    }
}

/// What counts collisions only grows.
pub fn not_decremented(object: &Object, old: &Object, count: &str, faults: &mut Faults) {
    let number = |object: &Object| object.number(&["status", count]);
    let Some(before) = number(old) else { return };
    let now = number(object).unwrap_or_default();
    if now < before {
        let path = format!("status.{count}");
        faults.0.push(FieldError::invalid(path, &now.into(), "cannot be decremented"));
    }
}

/// Conditions have a type each, and each its own.
pub fn distinct_conditions(object: &Object) -> Vec<FieldError> {
    let mut faults = Faults::new();
    let mut seen = HashSet::new();
    for condition in Field::at(object, &["status", "conditions"]).items() {
        let kind = condition.get("type");
        if !seen.insert(kind.text()) {
            faults.0.push(FieldError::duplicate(&kind.path, &kind.text().into()));
        }
        if kind.text().is_empty() {
            faults.required(&kind, "must not be empty");
        }
    }
    faults.0
}

//! What labels and label selectors inside objects must look like.

use super::check::{Faults, Field};
use crate::meta;
use crate::selector::LabelSelector;

/// The keys and values of a map of labels.
pub fn validate_labels(labels: &Field, faults: &mut Faults) {
    if let Some(map) = labels.map() {
        faults.0.extend(meta::validate_labels(map, &labels.path));
    }
}

/// A `metav1.LabelSelector`.
pub fn validate(selector: &Field, faults: &mut Faults) {
    faults.0.extend(LabelSelector::validate(selector.value, &selector.path));
}

/// A selector that a workload must have: given, well formed and not empty.
/// `whose` ends upstream's sentence `empty selector is invalid for ...`.
pub fn validate_needed(selector: &Field, whose: &str, faults: &mut Faults) {
    if !selector.is_set() {
        faults.required(selector, "");
        return;
    }
    validate(selector, faults);
    if selector.get("matchLabels").is_empty() && selector.get("matchExpressions").is_empty() {
        faults.invalid(selector, format!("empty selector is invalid for {whose}"));
    }
}

/// The pods of a template must be those that the selector chooses; none at all chooses nothing.
pub fn validate_chooses(selector: &Field, template: &Field, faults: &mut Faults) {
    let Ok(parsed) = LabelSelector::from_json(selector.value) else { return };
    let labels = template.get("metadata").get("labels");
    if !selector.is_set() || !parsed.matches_labels(labels.map()) {
        faults.invalid(&labels, "`selector` does not match template `labels`");
    }
}

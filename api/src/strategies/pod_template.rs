//! What all kinds with a pod template have in common.

use serde_json::{Map, Value};

use super::check::{Faults, Field};
use super::fill::Fill;
use super::{label_selector, pod_spec, warnings};
use crate::{Object, name};

/// Fills in the template at a path from the object's root.
pub fn set_defaults(object: &mut Object, path: &[&str]) {
    if object.at(path).is_some_and(Value::is_object) {
        pod_spec::set_defaults(object.map_mut(path).map_made("spec"));
    }
}

/// The template's own rules: metadata and pod spec.
pub fn validate(template: &Field, faults: &mut Faults) {
    validate_mounting(template, &Field::NOTHING, faults);
}

/// The rules of a template whose pods mount the volumes of these claim templates as well.
fn validate_mounting<'a>(template: &Field<'a>, claims: &Field<'a>, faults: &mut Faults) {
    label_selector::validate_labels(&template.get("metadata").get("labels"), faults);
    let spec = template.get("spec");
    pod_spec::validate_mounting(&spec, claims, faults);
    let ephemeral = spec.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        faults.forbidden(&ephemeral, "ephemeral containers not allowed in pod template");
    }
}

/// The template of a controller whose pods run until they are deleted. `whose` is the kind's name.
pub fn validate_lasting(spec: &Field, whose: &str, faults: &mut Faults) {
    let template = spec.get("template");
    if !template.is_set() {
        faults.required(&template, "");
        return;
    }
    label_selector::validate_chooses(&spec.get("selector"), &template, faults);
    validate_mounting(&template, &spec.get("volumeClaimTemplates"), faults);
    let policy = template.get("spec").get("restartPolicy");
    if policy.text() != "Always" {
        faults.not_supported(&policy, &["Always"]);
    }
    let deadline = template.get("spec").get("activeDeadlineSeconds");
    if deadline.is_set() {
        faults.forbidden(&deadline, format!("activeDeadlineSeconds in {whose} is not Supported"));
    }
}

/// Warnings about the template at a path, when it may be another than before.
pub fn warnings(object: &Object, old: Option<&Object>, path: &[&str], found: &mut Vec<String>) {
    if warnings::is_news(object, old) {
        warnings::of_template(&Field::at(object, path), found);
    }
}

/// Fills in the template and returns `spec` for the kind's own defaults.
pub fn spec_of<'a>(object: &'a mut Object, template: &[&str]) -> &'a mut Map<String, Value> {
    set_defaults(object, template);
    object.map_mut(&["spec"])
}

/// A number or a share of replicas: `1` or `25%`.
pub fn validate_share(field: &Field, faults: &mut Faults) {
    match (field.number(), field.value.as_str()) {
        (Some(_), _) => faults.not_negative(field),
        (None, Some(_)) => faults.fits(field, name::percent),
        (None, None) => {}
    }
}

/// A share may not be more than everything.
pub fn validate_not_above_all(field: &Field, faults: &mut Faults) {
    if percentage(field.text()).is_some_and(|share| share > 100) {
        faults.invalid(field, "must not be greater than 100%");
    }
}

/// Whether a number or share is nothing.
pub fn is_nothing(field: &Field) -> bool {
    field.number().or_else(|| percentage(field.text())) == Some(0)
}

fn percentage(text: &str) -> Option<i64> {
    name::percent(text).ok()?;
    text.trim_end_matches('%').parse().ok()
}

//! Jobs.

use serde_json::{Map, Value, json};

use super::check::{Faults, Field};
use super::fill::Fill;
use super::{job_policy, label_selector, pod_template, status, warnings};
use crate::{FieldError, Object};

const TEMPLATE: &[&str] = &["spec", "template"];
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
const LARGEST_INDEXED: i64 = 100_000;

/// Rules of Jobs.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn set_defaults(&self, object: &mut Object) {
        let spec = pod_template::spec_of(object, TEMPLATE);
        set_spec_defaults(spec);
        if object.labels().is_none_or(Map::is_empty) {
            // A job without labels takes those of its template.
            if let Some(labels) = object.at(&["spec", "template", "metadata", "labels"]).cloned() {
                object.set(&["metadata", "labels"], labels);
            }
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], json!({}));
        if object.at(&["spec", "manualSelector"]) != Some(&Value::Bool(true)) {
            generate_selector(object);
        }
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        validate_spec(&spec, &mut faults);
        validate_selector(object, &spec, old.is_none(), &mut faults);
        if let Some(old) = old {
            validate_update(&spec, &Field::at(old, &["spec"]), &mut faults);
        }
        faults.0
    }

    fn validate_status(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        status::counted(object, &["active", "succeeded", "failed", "ready", "terminating"]).0
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::from_iter(warnings::name_of_pods(object, old));
        if warnings::is_news(object, old) {
            spec_warnings(&Field::at(object, &["spec"]), &mut found);
        }
        found
    }
}

/// Warnings about a job's spec, be it a job's own or a CronJob's template.
pub fn spec_warnings(spec: &Field, found: &mut Vec<String>) {
    let number = |field: &str| spec.get(field).number().unwrap_or_default();
    if spec.get("completionMode").text() == "Indexed"
        && number("completions") > 100_000
        && number("parallelism") > 10_000
    {
        found.push(format!("{}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail", spec.path));
    }
    warnings::of_template(&spec.get("template"), found);
}

/// Fills in a job's spec, be it a job's own or a CronJob's template.
pub fn set_spec_defaults(spec: &mut Map<String, Value>) {
    // For a fixed number of completions there must be one; a work queue has a parallelism only.
    if !spec.has("completions") && !spec.has("parallelism") {
        spec.insert("completions".into(), 1.into());
    }
    spec.fill("parallelism", 1);
    spec.fill("completionMode", "NonIndexed");
    spec.fill("suspend", false);
    let per_index = spec.has("backoffLimitPerIndex");
    spec.fill("backoffLimit", if per_index { i64::from(i32::MAX) } else { 6 });
    let has_policy = spec.has("podFailurePolicy");
    spec.fill("podReplacementPolicy", if has_policy { "Failed" } else { "TerminatingOrFailed" });
    if let Some(policy) = spec.map_at("podFailurePolicy") {
        for pattern in policy.maps_at("rules").flat_map(|rule| rule.maps_at("onPodConditions")) {
            pattern.fill("status", "True");
        }
    }
}

/// A job's pods are told from all others by the job's uid.
fn generate_selector(object: &mut Object) {
    let (uid, name) = (object.uid().to_string(), object.name().to_string());
    let labels = object.map_mut(&["spec", "template", "metadata", "labels"]);
    for key in NAME_LABELS {
        labels.insert(key.into(), name.clone().into());
    }
    for key in UID_LABELS {
        labels.insert(key.into(), uid.clone().into());
    }
    object.map_mut(&["spec", "selector", "matchLabels"]).insert(UID_LABELS[0].into(), uid.into());
}

/// The rules of a job's spec; the selector's are apart, as a CronJob's template has none.
pub fn validate_spec(spec: &Field, faults: &mut Faults) {
    let numbers = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    numbers.iter().for_each(|name| faults.not_negative(&spec.get(name)));
    validate_mode(spec, faults);
    job_policy::validate_manager(&spec.get("managedBy"), faults);
    let replacement = spec.get("podReplacementPolicy");
    if spec.get("podFailurePolicy").is_set() {
        faults.one_of(&replacement, &["Failed"]);
    } else {
        faults.one_of(&replacement, &["Failed", "TerminatingOrFailed"]);
    }
    job_policy::validate_failure(spec, faults);
    job_policy::validate_success(spec, faults);
    let template = spec.get("template");
    if !template.is_set() {
        faults.required(&template, "");
        return;
    }
    pod_template::validate(&template, faults);
    let policy = template.get("spec").get("restartPolicy");
    if !matches!(policy.text(), "OnFailure" | "Never") {
        // Upstream fills in Always before it looks, and says that a value is needed.
        if policy.text().is_empty() || policy.text() == "Always" {
            faults.required(&policy, "valid values: \"OnFailure\", \"Never\"");
        } else {
            faults.not_supported(&policy, &["Never", "OnFailure"]);
        }
    }
}

fn validate_mode(spec: &Field, faults: &mut Faults) {
    let mode = spec.get("completionMode");
    faults.one_of(&mode, &["Indexed", "NonIndexed"]);
    let completions = spec.get("completions");
    if mode.text() == "Indexed" {
        if !completions.is_set() {
            faults.required(&completions, "when completion mode is Indexed");
        }
        let parallelism = spec.get("parallelism");
        if parallelism.number().is_some_and(|number| number > LARGEST_INDEXED) {
            faults.invalid(
                &parallelism,
                format!("must be less than or equal to {LARGEST_INDEXED} when completion mode is Indexed"),
            );
        }
    } else if spec.get("backoffLimitPerIndex").is_set() {
        faults.invalid(&spec.get("backoffLimitPerIndex"), "requires indexed completion mode");
    }
    let failed = spec.get("maxFailedIndexes");
    if failed.is_set() && !spec.get("backoffLimitPerIndex").is_set() {
        faults.required(&spec.get("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    } else if failed.number().is_some_and(|number| completions.number().is_some_and(|all| number > all)) {
        faults.invalid(&failed, "must be less than or equal to completions");
    }
}

fn validate_selector(object: &Object, spec: &Field, is_new: bool, faults: &mut Faults) {
    let selector = spec.get("selector");
    if !selector.is_set() {
        faults.required(&selector, "");
        return;
    }
    label_selector::validate(&selector, faults);
    label_selector::validate_chooses(&selector, &spec.get("template"), faults);
    if is_new && !spec.get("manualSelector").is_true() {
        let chosen = selector.get("matchLabels").get(UID_LABELS[0]);
        if chosen.text() != object.uid() || selector.get("matchLabels").len() != 1 {
            faults.invalid(&selector, "`selector` not auto-generated");
        }
    }
}

fn validate_update(spec: &Field, old: &Field, faults: &mut Faults) {
    // An indexed job grows and shrinks with its parallelism.
    let is_elastic = spec.get("completionMode").text() == "Indexed"
        && spec.get("completions").value == spec.get("parallelism").value;
    if !is_elastic {
        faults.immutable(&spec.get("completions"), &old.get("completions"));
    }
    faults.immutable(&spec.get("selector"), &old.get("selector"));
    validate_template_update(spec, old, faults);
    for name in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        faults.immutable(&spec.get(name), &old.get(name));
    }
}

/// Where its pods go may change while a job is suspended; the rest of its template never.
fn validate_template_update(spec: &Field, old: &Field, faults: &mut Faults) {
    let mut compared = spec.get("template").value.clone();
    if old.get("suspend").is_true() {
        let before = old.get("template").value;
        for (part, keys) in [
            ("metadata", &["labels", "annotations"][..]),
            ("spec", &["nodeSelector", "affinity", "tolerations", "schedulingGates"][..]),
        ] {
            let Some(map) = compared.get_mut(part).and_then(Value::as_object_mut) else { continue };
            for key in keys {
                match before.get(part).and_then(|part| part.get(key)) {
                    Some(value) => map.insert((*key).into(), value.clone()),
                    None => map.remove(*key),
                };
            }
        }
    }
    if &compared != old.get("template").value {
        faults.invalid(&spec.get("template"), "field is immutable");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy as _;

    fn job() -> Object {
        let mut object = Object::from_value(json!({
            "metadata": {"name": "sum", "uid": "u-1"},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}}},
        }))
        .unwrap();
        Strategy.set_defaults(&mut object);
        Strategy.prepare_for_create(&mut object);
        object
    }

    #[test]
    fn a_job_knows_its_pods_by_its_uid() {
        let job = job();
        let selector = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}});
        assert_eq!(job.at(&["spec", "selector"]), Some(&selector));
        let labels = json!({
            "batch.kubernetes.io/controller-uid": "u-1", "controller-uid": "u-1",
            "batch.kubernetes.io/job-name": "sum", "job-name": "sum",
        });
        assert_eq!(job.at(&["spec", "template", "metadata", "labels"]), Some(&labels));
        assert_eq!(Strategy.validate(&job, None), []);
    }

    #[test]
    fn the_template_stays_as_it_is() {
        let old = job();
        let mut new = old.clone();
        new.set(&["spec", "template", "spec", "hostNetwork"], true);
        let faults = Strategy.validate(&new, Some(&old));
        assert_eq!(faults.len(), 1);
        assert_eq!(
            (faults[0].field.as_str(), faults[0].detail.as_str()),
            ("spec.template", "field is immutable")
        );
    }

    #[test]
    fn one_completion_unless_it_is_a_work_queue() {
        assert_eq!(job().number(&["spec", "completions"]), Some(1));
        let mut queue = Object::from_value(json!({"spec": {"parallelism": 3}})).unwrap();
        Strategy.set_defaults(&mut queue);
        assert_eq!(queue.at(&["spec", "completions"]), None);
    }
}

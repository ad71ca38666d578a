//! DaemonSets.

use serde_json::json;

use super::check::{Faults, Field};
use super::fill::Fill;
use super::{label_selector, pod_template, status};
use crate::{FieldError, Object};

const TEMPLATE: &[&str] = &["spec", "template"];

/// Rules of DaemonSets.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn set_defaults(&self, object: &mut Object) {
        let spec = pod_template::spec_of(object, TEMPLATE);
        spec.fill("revisionHistoryLimit", 10);
        let strategy = spec.map_made("updateStrategy");
        strategy.fill("type", "RollingUpdate");
        if strategy.text_at("type") == "RollingUpdate" {
            let rolling = strategy.map_made("rollingUpdate");
            rolling.fill("maxUnavailable", 1);
            rolling.fill("maxSurge", 0);
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        let zero = json!({
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
        });
        object.set(&["status"], zero);
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        label_selector::validate_needed(&spec.get("selector"), "daemonset", &mut faults);
        pod_template::validate_lasting(&spec, "DaemonSet", &mut faults);
        faults.not_negative(&spec.get("minReadySeconds"));
        faults.not_negative(&spec.get("revisionHistoryLimit"));
        validate_strategy(&spec.get("updateStrategy"), &mut faults);
        if let Some(old) = old {
            faults.immutable(&spec.get("selector"), &Field::at(old, &["spec"]).get("selector"));
        }
        faults.0
    }

    fn validate_status(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        let counts = [
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ];
        let mut faults = status::counted(object, &counts);
        status::not_decremented(object, old, "collisionCount", &mut faults);
        faults.0
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        pod_template::warnings(object, old, TEMPLATE, &mut found);
        found
    }
}

fn validate_strategy(strategy: &Field, faults: &mut Faults) {
    match strategy.get("type").text() {
        "OnDelete" => {}
        "RollingUpdate" => validate_rolling(&strategy.get("rollingUpdate"), faults),
        _ => faults.not_supported(&strategy.get("type"), &["OnDelete", "RollingUpdate"]),
    }
}

fn validate_rolling(rolling: &Field, faults: &mut Faults) {
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    for share in [&unavailable, &surge] {
        pod_template::validate_share(share, faults);
        pod_template::validate_not_above_all(share, faults);
    }
    match (pod_template::is_nothing(&unavailable), pod_template::is_nothing(&surge)) {
        (true, true) => faults.invalid(&unavailable, "cannot be 0 when maxSurge is 0"),
        (false, false) => faults.invalid(&surge, "may not be set when maxUnavailable is non-zero"),
        _ => {}
    }
}

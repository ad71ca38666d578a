//! Deployments.

use super::check::{Faults, Field};
use super::fill::Fill;
use super::{label_selector, pod_template, status, warnings};
use crate::{FieldError, Object};

const TEMPLATE: &[&str] = &["spec", "template"];

/// Rules of Deployments.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn set_defaults(&self, object: &mut Object) {
        let spec = pod_template::spec_of(object, TEMPLATE);
        spec.fill("replicas", 1);
        spec.fill("revisionHistoryLimit", 10);
        spec.fill("progressDeadlineSeconds", 600);
        let strategy = spec.map_made("strategy");
        strategy.fill("type", "RollingUpdate");
        if strategy.text_at("type") == "RollingUpdate" {
            let rolling = strategy.map_made("rollingUpdate");
            rolling.fill("maxUnavailable", "25%");
            rolling.fill("maxSurge", "25%");
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], serde_json::json!({}));
    }

    /// Annotations count as well: they are copied to the ReplicaSets.
    fn is_new_generation(&self, object: &Object, old: &Object) -> bool {
        let annotations = ["metadata", "annotations"];
        object.without_metadata_and_status() != old.without_metadata_and_status()
            || object.at(&annotations) != old.at(&annotations)
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        for name in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
            faults.not_negative(&spec.get(name));
        }
        label_selector::validate_needed(&spec.get("selector"), "deployment", &mut faults);
        pod_template::validate_lasting(&spec, "ReplicaSet", &mut faults);
        validate_strategy(&spec.get("strategy"), &mut faults);
        let (deadline, ready) = (spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds"));
        if deadline
            .number()
            .is_some_and(|seconds| seconds >= 0 && seconds <= ready.number().unwrap_or_default())
        {
            faults.invalid(&deadline, "must be greater than minReadySeconds");
        }
        if let Some(old) = old {
            faults.immutable(&spec.get("selector"), &Field::at(old, &["spec"]).get("selector"));
        }
        faults.0
    }

    fn validate_status(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        let counts = [
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "collisionCount",
        ];
        let mut faults = status::counted(object, &counts);
        status::not_above(object, &counts[2..5], "status.replicas", &mut faults);
        status::not_above(object, &["availableReplicas"], "readyReplicas", &mut faults);
        status::not_decremented(object, old, "collisionCount", &mut faults);
        faults.0
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::from_iter(warnings::name_of_pods(object, old));
        pod_template::warnings(object, old, TEMPLATE, &mut found);
        found
    }
}

fn validate_strategy(strategy: &Field, faults: &mut Faults) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "Recreate" if rolling.is_set() => {
            faults.forbidden(&rolling, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" if rolling.is_set() => validate_rolling(&rolling, faults),
        "RollingUpdate" => faults.required(&rolling, "this should be defaulted and never be nil"),
        _ => faults.not_supported(&strategy.get("type"), &["Recreate", "RollingUpdate"]),
    }
}

fn validate_rolling(rolling: &Field, faults: &mut Faults) {
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    pod_template::validate_share(&unavailable, faults);
    pod_template::validate_share(&surge, faults);
    if pod_template::is_nothing(&unavailable) && pod_template::is_nothing(&surge) {
        faults.invalid(&unavailable, "may not be 0 when `maxSurge` is 0");
    }
    pod_template::validate_not_above_all(&unavailable, faults);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Strategy as _;

    fn deployment() -> Object {
        let mut object = Object::from_value(json!({"metadata": {"name": "web"}, "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        }}))
        .unwrap();
        Strategy.set_defaults(&mut object);
        object
    }

    fn messages(faults: Vec<FieldError>) -> Vec<String> {
        faults.iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn a_bare_deployment_rolls_one_quarter_at_a_time() {
        let object = deployment();
        assert_eq!(object.number(&["spec", "replicas"]), Some(1));
        assert_eq!(object.number(&["spec", "progressDeadlineSeconds"]), Some(600));
        let strategy =
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}});
        assert_eq!(object.at(&["spec", "strategy"]), Some(&strategy));
        assert_eq!(object.text(&["spec", "template", "spec", "restartPolicy"]), "Always");
        assert_eq!(Strategy.validate(&object, None), []);
    }

    #[test]
    fn the_selector_must_choose_the_template_and_stay() {
        let old = deployment();
        let mut object = deployment();
        object.set(&["spec", "selector", "matchLabels", "app"], "api");
        assert_eq!(
            messages(Strategy.validate(&object, Some(&old))),
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
                "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"api\"}}: field is immutable",
            ]
        );
    }

    #[test]
    fn a_deployment_without_anything_is_told_what_it_needs() {
        let mut object = Object::from_value(json!({"spec": {}})).unwrap();
        Strategy.set_defaults(&mut object);
        assert_eq!(
            messages(Strategy.validate(&object, None)),
            ["spec.selector: Required value", "spec.template: Required value"]
        );
    }

    #[test]
    fn no_selector_chooses_no_template() {
        let mut object = deployment();
        object.remove(&["spec", "selector"]);
        assert_eq!(
            messages(Strategy.validate(&object, None)),
            [
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
            ]
        );
    }

    #[test]
    fn the_numbers_of_a_status_fit_together() {
        let with = |status: serde_json::Value| {
            let mut object = deployment();
            object.set(&["status"], status);
            object
        };
        let old = with(json!({"collisionCount": 2}));
        let faults = |status: serde_json::Value| messages(Strategy.validate_status(&with(status), &old));
        assert_eq!(faults(json!({"replicas": 2, "readyReplicas": 2, "collisionCount": 2})), [""; 0]);
        // What is left out counts as nothing.
        assert_eq!(
            faults(json!({"replicas": 1, "availableReplicas": 1})),
            [
                "status.availableReplicas: Invalid value: 1: cannot be greater than readyReplicas",
                "status.collisionCount: Invalid value: 0: cannot be decremented",
            ]
        );
        assert_eq!(
            faults(json!({"replicas": -1, "updatedReplicas": 0, "collisionCount": 2})),
            [
                "status.replicas: Invalid value: -1: must be greater than or equal to 0",
                "status.updatedReplicas: Invalid value: 0: cannot be greater than status.replicas",
                "status.readyReplicas: Invalid value: 0: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 0: cannot be greater than status.replicas",
            ]
        );
    }

    #[test]
    fn a_rollout_must_be_able_to_move() {
        let mut object = deployment();
        object.set(&["spec", "strategy", "rollingUpdate"], json!({"maxSurge": 0, "maxUnavailable": "0%"}));
        assert_eq!(
            messages(Strategy.validate(&object, None)),
            [
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"
            ]
        );
    }
}

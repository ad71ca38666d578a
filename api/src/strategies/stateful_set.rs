//! StatefulSets.

use serde_json::{Value, json};

use super::check::{Faults, Field, same};
use super::fill::Fill;
use super::{label_selector, persistent_volume_claim, pod_template, status, warnings};
use crate::{FieldError, Object, name};

const TEMPLATE: &[&str] = &["spec", "template"];
const CHANGEABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// Rules of StatefulSets.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn set_defaults(&self, object: &mut Object) {
        let spec = pod_template::spec_of(object, TEMPLATE);
        spec.fill("replicas", 1);
        spec.fill("podManagementPolicy", "OrderedReady");
        spec.fill("revisionHistoryLimit", 10);
        let retention = spec.map_made("persistentVolumeClaimRetentionPolicy");
        retention.fill("whenDeleted", "Retain");
        retention.fill("whenScaled", "Retain");
        let strategy = spec.map_made("updateStrategy");
        strategy.fill("type", "RollingUpdate");
        if strategy.text_at("type") == "RollingUpdate" {
            strategy.map_made("rollingUpdate").fill("partition", 0);
        }
        for claim in spec.maps_at("volumeClaimTemplates") {
            claim.fill("apiVersion", "v1");
            claim.fill("kind", "PersistentVolumeClaim");
            persistent_volume_claim::set_spec_defaults(claim.map_made("spec"));
            claim.insert("status".into(), json!({"phase": "Pending"}));
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], json!({"replicas": 0, "availableReplicas": 0}));
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        let policy = spec.get("podManagementPolicy");
        faults.one_of(&policy, &["OrderedReady", "Parallel"]);
        validate_strategy(&spec.get("updateStrategy"), &mut faults);
        for name in ["whenDeleted", "whenScaled"] {
            let field = spec.get("persistentVolumeClaimRetentionPolicy").get(name);
            faults.one_of(&field, &["Delete", "Retain"]);
        }
        for name in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
            faults.not_negative(&spec.get(name));
        }
        faults.not_negative(&spec.get("ordinals").get("start"));
        label_selector::validate_needed(&spec.get("selector"), "statefulset", &mut faults);
        pod_template::validate_lasting(&spec, "StatefulSet", &mut faults);
        if old.is_none() {
            for claim in spec.get("volumeClaimTemplates").items() {
                persistent_volume_claim::validate_spec(&claim.get("spec"), &mut faults);
            }
        }
        if let Some(old) = old {
            validate_update(&spec, &Field::at(old, &["spec"]), &mut faults);
        }
        faults.0
    }

    fn validate_status(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        let counts = [
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ];
        let mut faults = status::counted(object, &counts);
        status::not_above(object, &counts[1..5], "status.replicas", &mut faults);
        status::not_decremented(object, old, "collisionCount", &mut faults);
        faults.0
    }

    /// The pods carry the name in a label.
    fn validate_name(&self, name: &str) -> Result<(), String> {
        name::dns_label(name)
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        pod_template::warnings(object, old, TEMPLATE, &mut found);
        if !warnings::is_news(object, old) {
            return found;
        }
        for template in Field::at(object, &["spec", "volumeClaimTemplates"]).items() {
            // Upstream's paths: a new set's leaves the claim's spec out, a changed one's has it in capitals.
            let path = if old.is_none() { template.path.clone() } else { format!("{}.Spec", template.path) };
            warnings::of_claim_spec(&Field { path, value: template.get("spec").value }, &mut found);
        }
        if object.number(&["spec", "revisionHistoryLimit"]).is_some_and(|limit| limit < 0) {
            found.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".into());
        }
        found
    }
}

fn validate_strategy(strategy: &Field, faults: &mut Faults) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "" => faults.required(strategy, ""),
        "OnDelete" if rolling.is_set() => {
            let text = "only allowed for updateStrategy 'RollingUpdate'";
            faults.invalid(&rolling, text);
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            faults.not_negative(&rolling.get("partition"));
            let unavailable = rolling.get("maxUnavailable");
            pod_template::validate_share(&unavailable, faults);
            pod_template::validate_not_above_all(&unavailable, faults);
            if pod_template::is_nothing(&unavailable) {
                faults.invalid(&unavailable, "cannot be 0");
            }
        }
        _ => faults.invalid(strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

fn validate_update(spec: &Field, old: &Field, faults: &mut Faults) {
    const TEXT: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
        'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    let fixed = |spec: &Field| {
        let mut map = spec.map().cloned().unwrap_or_default();
        map.retain(|key, value| !CHANGEABLE.contains(&key.as_str()) && !same(value, &Value::Null));
        map
    };
    if fixed(spec) != fixed(old) {
        faults.forbidden(spec, TEXT);
    }
}

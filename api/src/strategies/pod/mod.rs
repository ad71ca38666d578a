//! Pods.

mod quality;
mod status;
mod update;

pub use quality::quality_of_service;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::{Faults, Field};
use super::fill::Fill;
use super::{pod_spec, warnings};
use crate::{FieldError, Object, meta::MIRROR};

/// Rules of pods.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn set_defaults(&self, object: &mut Object) {
        let spec = object.map_mut(&["spec"]);
        pod_spec::set_defaults(spec);
        spec.fill("enableServiceLinks", true);
        pod_spec::host_network_ports(spec);
        pod_spec::requests_from_limits(spec);
        pod_spec::total::set_defaults(spec);
    }

    fn prepare_for_create(&self, object: &mut Object) {
        let class = quality_of_service(object);
        let mut status = json!({"phase": "Pending", "qosClass": class});
        if !object.list(&["spec", "schedulingGates"]).is_empty() {
            status["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
        }
        object.set(&["status"], status);
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        if let Some(old) = old {
            update::validate_spec(&spec, &Field::at(old, &["spec"]), &mut faults);
            update::validate(object, old, &mut faults);
            return faults.0;
        }
        pod_spec::validate(&spec, &mut faults);
        let ephemeral = spec.get("ephemeralContainers");
        if !ephemeral.is_empty() {
            faults.forbidden(&ephemeral, "cannot be set on create");
        }
        if object.annotation(MIRROR).is_some() && spec.get("nodeName").text().is_empty() {
            let text = "must set spec.nodeName if mirror pod annotation is set";
            faults.invalid(&Field::at(object, &["metadata", "annotations"]).entry(MIRROR), text);
        }
        faults.0
    }

    fn complete_status(&self, subresource: &str, object: &mut Object, old: &Object, _now: Timestamp) {
        if subresource == "status" {
            status::complete(object, old);
        }
    }

    fn validate_status(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        status::validate(object, old)
    }

    fn prepare_for_subresource(&self, subresource: &str, object: &mut Object, old: &Object) {
        carry_over_rest(object, old);
        // Each may change its own part of the spec only; the rest stays as it was.
        match subresource {
            "ephemeralcontainers" => {
                let wanted = object.remove(&["spec", "ephemeralContainers"]);
                object.take_over(&["spec"], old);
                if let Some(wanted) = wanted {
                    object.set(&["spec", "ephemeralContainers"], wanted);
                }
            }
            "resize" => {
                // Containers that came, went or moved are for validation to refuse.
                if RESIZABLE.iter().any(|list| names_of(object, list) != names_of(old, list)) {
                    return;
                }
                let wanted = RESIZABLE.map(|list| object.list(&["spec", list]).to_vec());
                object.take_over(&["spec"], old);
                for (list, wanted) in RESIZABLE.into_iter().zip(wanted) {
                    let containers = object.map_mut(&["spec"]).maps_at(list);
                    for (container, wanted) in containers.zip(wanted) {
                        let resources = wanted.get("resources").cloned().unwrap_or_else(|| json!({}));
                        container.insert("resources".into(), resources);
                        match wanted.get("resizePolicy") {
                            Some(policy) => container.insert("resizePolicy".into(), policy.clone()),
                            None => container.remove("resizePolicy"),
                        };
                    }
                }
                pod_spec::requests_from_limits(object.map_mut(&["spec"]));
            }
            _ => {}
        }
    }

    fn validate_subresource(&self, subresource: &str, object: &Object, old: &Object) -> Vec<FieldError> {
        let mut faults = Faults::new();
        match subresource {
            "ephemeralcontainers" => update::validate_ephemeral_containers(object, old, &mut faults),
            "resize" => update::validate_resize(object, old, &mut faults),
            _ => {}
        }
        faults.0
    }

    fn grace_period(&self, object: &Object, requested: Option<i64>) -> Option<i64> {
        let is_unscheduled = object.text(&["spec", "nodeName"]).is_empty();
        let is_finished = matches!(object.text(&["status", "phase"]), "Succeeded" | "Failed");
        if is_unscheduled || is_finished {
            return None;
        }
        let own = object.number(&["spec", "terminationGracePeriodSeconds"]);
        match requested.or(own).unwrap_or_default() {
            0 => None,
            negative if negative < 0 => Some(1),
            seconds => Some(seconds),
        }
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        warnings::of_pod(object, old)
    }
}

/// What runs for as long as its pod does, sidecars included, may be resized.
const RESIZABLE: [&str; 2] = ["containers", "initContainers"];

fn names_of<'a>(object: &'a Object, list: &str) -> Vec<&'a Value> {
    object.list(&["spec", list]).iter().map(|container| &container["name"]).collect()
}

/// Whoever changes a part of the spec changes neither the status nor labels, annotations, finalizers or owners.
fn carry_over_rest(object: &mut Object, old: &Object) {
    for field in ["labels", "annotations", "finalizers", "ownerReferences", "deletionTimestamp"] {
        object.take_over(&["metadata", field], old);
    }
    object.take_over(&["status"], old);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy as _;

    fn pod(spec: Value) -> Object {
        let mut object = Object::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"}, "spec": spec,
        }))
        .unwrap();
        Strategy.set_defaults(&mut object);
        object
    }

    fn messages(faults: Vec<FieldError>) -> Vec<String> {
        faults.iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn a_plain_pod_is_valid() {
        let pod = pod(json!({"containers": [{"name": "web", "image": "web:1"}]}));
        assert_eq!(Strategy.validate(&pod, None), []);
    }

    #[test]
    fn every_fault_is_told_at_its_field() {
        let pod = pod(json!({
            "restartPolicy": "Sometimes",
            "containers": [
                {"name": "Web", "image": "", "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
                {"name": "b", "image": "b", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}},
            ],
        }));
        assert_eq!(
            messages(Strategy.validate(&pod, None)),
            [
                "spec.containers[0].name: Invalid value: \"Web\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                "spec.containers[0].image: Required value",
                "spec.containers[0].volumeMounts[0].name: Not found: \"data\"",
                "spec.containers[1].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"",
            ]
        );
    }

    #[test]
    fn a_resize_changes_amounts_and_takes_none_away() {
        let old = pod(json!({
            "initContainers": [
                {"name": "once", "image": "a", "resources": {"requests": {"cpu": "1"}}},
                {"name": "beside", "image": "a", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
            ],
            "containers": [{"name": "main", "image": "a", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}],
        }));
        let mut new = old.clone();
        for list in RESIZABLE {
            for container in new.map_mut(&["spec"]).maps_at(list) {
                container.insert("resources".into(), json!({"requests": {"cpu": "2"}}));
                container.insert("image".into(), "b".into());
            }
        }
        new.set(&["status", "phase"], "Failed");
        Strategy.prepare_for_subresource("resize", &mut new, &old);
        assert_eq!(new.list(&["spec", "containers"])[0]["image"], "a");
        assert_eq!(new.at(&["status"]), None);
        assert_eq!(
            messages(Strategy.validate_subresource("resize", &new, &old)),
            [
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
                "spec.initContainers[0].resources: Forbidden: resources for non-sidecar init containers are immutable",
            ]
        );
        let mut renamed = old.clone();
        renamed.map_mut(&["spec"]).maps_at("containers").for_each(|it| {
            it.insert("name".into(), "other".into());
        });
        Strategy.prepare_for_subresource("resize", &mut renamed, &old);
        assert_eq!(
            messages(Strategy.validate_subresource("resize", &renamed, &old)),
            ["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"]
        );
    }

    #[test]
    fn pods_that_a_file_declares_are_changed_in_the_file() {
        let mut old = pod(json!({"containers": [{"name": "main", "image": "a"}]}));
        old.set(&["metadata", "annotations"], json!({MIRROR: "hash"}));
        for (subresource, what) in [
            ("resize", "[]: Forbidden: static pods cannot be resized"),
            ("ephemeralcontainers", "[]: Forbidden: static pods do not support ephemeral containers"),
        ] {
            assert_eq!(messages(Strategy.validate_subresource(subresource, &old, &old)), [what]);
        }
    }

    #[test]
    fn a_pod_hands_on_the_devices_that_it_claims() {
        let pod = pod(json!({
            "resourceClaims": [{"name": "gpu", "resourceClaimName": "mine"}, {"name": "nic"}],
            "containers": [{"name": "a", "image": "a", "resources": {"claims": [{"name": "gpu"}, {"name": "disk"}]}}],
        }));
        assert_eq!(
            messages(Strategy.validate(&pod, None)),
            [
                "spec.resourceClaims[1]: Invalid value: {\"name\":\"nic\"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
                "spec.containers[0].resources.claims[1].name: Not found: \"disk\"",
            ]
        );
    }

    #[test]
    fn a_pod_may_set_what_is_its_own() {
        let setting = |name: &str| json!([{"name": name, "value": "1"}]);
        let faults = |spec: Value| {
            let mut whole = json!({"containers": [{"name": "a", "image": "a"}]});
            whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            messages(Strategy.validate(&pod(whole), None))
        };
        assert_eq!(faults(json!({"securityContext": {"sysctls": setting("net.core.somaxconn")}})), [""; 0]);
        assert_eq!(
            faults(
                json!({"hostNetwork": true, "securityContext": {"sysctls": setting("net.core.somaxconn")}})
            ),
            [
                "spec.securityContext.sysctls[0].name: Invalid value: \"net.core.somaxconn\": may not be specified when 'hostNetwork' is true"
            ]
        );
        assert_eq!(faults(json!({"securityContext": {"sysctls": setting("Net..x")}})).len(), 1);
        assert_eq!(
            faults(json!({"hostUsers": false, "hostPID": true})),
            ["spec.hostPID: Forbidden: when `hostUsers` is false"]
        );
    }

    #[test]
    fn a_pod_without_containers_is_told_so() {
        let pod = pod(json!({}));
        assert_eq!(messages(Strategy.validate(&pod, None)), ["spec.containers: Required value"]);
    }

    #[test]
    fn an_update_may_change_images_and_little_else() {
        let old = pod(json!({"containers": [{"name": "web", "image": "web:1"}]}));
        let mut new = old.clone();
        new.map_mut(&["spec"]).maps_at("containers").for_each(|it| {
            it.insert("image".into(), "web:2".into());
        });
        assert_eq!(Strategy.validate(&new, Some(&old)), []);

        // What may change has to keep to the rules, too.
        let mut wrong = new.clone();
        wrong.set(&["spec", "tolerations"], json!([{"key": "a b", "operator": "Perhaps"}]));
        wrong.set(&["spec", "activeDeadlineSeconds"], 0);
        wrong.map_mut(&["spec"]).maps_at("containers").for_each(|it| {
            it.insert("image".into(), " web".into());
        });
        let faults = messages(Strategy.validate(&wrong, Some(&old)));
        let starts = [
            "spec.containers[0].image: Invalid value: \" web\": must not have leading or trailing whitespace",
            "spec.tolerations[0].key: Invalid value: \"a b\"",
            "spec.tolerations[0].operator: Unsupported value: \"Perhaps\"",
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ];
        for start in starts {
            assert!(faults.iter().any(|fault| fault.starts_with(start)), "{start}: {faults:?}");
        }

        new.set(&["spec", "hostNetwork"], true);
        let faults = messages(Strategy.validate(&new, Some(&old)));
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with(
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
        ));
        assert!(faults[0].contains("hostNetwork"));
    }

    #[test]
    fn what_was_stored_once_does_not_stand_in_the_way() {
        let old =
            pod(json!({"containers": [{"name": "web", "image": "web:1", "imagePullPolicy": "Perhaps"}]}));
        assert_eq!(Strategy.validate(&old, None).len(), 1);
        let with = |key: &str, value: &str| {
            let mut new = old.clone();
            new.map_mut(&["spec"]).maps_at("containers").for_each(|it| {
                it.insert(key.into(), value.into());
            });
            new
        };
        assert_eq!(Strategy.validate(&with("image", "web:2"), Some(&old)), []);
        let faults = |new: &Object| messages(Strategy.validate(new, Some(&old)));
        assert_eq!(
            faults(&with("image", " web")),
            [
                "spec.containers[0].image: Invalid value: \" web\": must not have leading or trailing whitespace"
            ]
        );
        // Another wrong value is a fault of its own.
        assert!(
            faults(&with("imagePullPolicy", "Maybe"))[0]
                .starts_with("spec.containers[0].imagePullPolicy: Unsupported value: \"Maybe\"")
        );
        for subresource in ["resize", "ephemeralcontainers"] {
            assert_eq!(Strategy.validate_subresource(subresource, &old, &old), []);
        }
    }

    #[test]
    fn a_mirror_stays_a_mirror() {
        let annotated = |annotations: Value| {
            let mut pod = pod(json!({"nodeName": "n", "containers": [{"name": "a", "image": "a"}]}));
            pod.set(&["metadata", "annotations"], annotations);
            pod
        };
        let [plain, mirror, other] =
            [json!({"x": "y"}), json!({MIRROR: "1"}), json!({MIRROR: "2"})].map(annotated);
        let faults = |new: &Object, old: &Object| messages(Strategy.validate(new, Some(old)));
        assert_eq!(faults(&mirror, &mirror), [""; 0]);
        let place = format!("metadata.annotations[{MIRROR}]: Forbidden: may not");
        assert_eq!(faults(&mirror, &plain), [format!("{place} add mirror pod annotation")]);
        for new in [&plain, &other] {
            assert_eq!(faults(new, &mirror), [format!("{place} remove or update mirror pod annotation")]);
        }
    }

    #[test]
    fn pods_get_the_time_they_ask_for_once_they_have_a_node() {
        let mut pod = pod(json!({"containers": []}));
        assert_eq!(Strategy.grace_period(&pod, None), None);
        pod.set(&["spec", "nodeName"], "a");
        assert_eq!(Strategy.grace_period(&pod, None), Some(30));
        assert_eq!(Strategy.grace_period(&pod, Some(5)), Some(5));
        assert_eq!(Strategy.grace_period(&pod, Some(0)), None);
        pod.set(&["status", "phase"], "Succeeded");
        assert_eq!(Strategy.grace_period(&pod, None), None);
    }

    #[test]
    fn a_new_pod_is_pending_and_classed() {
        let mut pod = pod(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]}));
        Strategy.prepare_for_create(&mut pod);
        assert_eq!(pod.at(&["status"]), Some(&json!({"phase": "Pending", "qosClass": "Burstable"})));
    }
}

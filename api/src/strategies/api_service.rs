//! Rules of APIServices: which server answers for which group and version.

use serde_json::{Value, json};

use super::check::{Faults, Field};
use super::webhook;
use crate::{FieldError, Object, name};

const MOST_GROUP_PRIORITY: i64 = 20_000;
const MOST_VERSION_PRIORITY: i64 = 1000;

/// The strategy of APIServices.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        if object.at(&["spec", "service"]).is_some_and(Value::is_object) {
            object.set_if_absent(&["spec", "service", "port"], 443);
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        if object.at(&["spec", "service"]).is_some_and(Value::is_object) {
            return object.set(&["status"], json!({}));
        }
        let local = json!({
            "type": "Available", "status": "True", "reason": "Local",
            "message": "Local APIServices are always available",
            "lastTransitionTime": object.text(&["metadata", "creationTimestamp"]),
        });
        object.set(&["status"], json!({"conditions": [local]}));
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        let (group, version) = (spec.get("group"), spec.get("version"));
        let wanted = format!("{}.{}", version.text(), group.text());
        if object.name() != wanted {
            let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            faults.invalid(&Field::at(object, &["metadata", "name"]), why);
        }
        if group.text().is_empty() && version.text() != "v1" {
            faults.required(&group, "only v1 may have an empty group and it better be legacy kube");
        }
        faults.keeps(&group, name::dns_subdomain);
        if let Err(why) = name::dns_1035_label(version.text()) {
            faults.invalid(&version, why);
        }
        priority(&spec.get("groupPriorityMinimum"), MOST_GROUP_PRIORITY, &mut faults);
        priority(&spec.get("versionPriority"), MOST_VERSION_PRIORITY, &mut faults);
        validate_service(&spec, &mut faults);
        faults.0
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        name::path_segment(name)
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn status_is_apart(&self) -> bool {
        true
    }
}

fn priority(field: &Field, most: i64, faults: &mut Faults) {
    let number = field.number().unwrap_or_default();
    if !(1..=most).contains(&number) {
        let why = format!("must be positive and less than {most}");
        faults.0.push(FieldError::invalid(&field.path, &json!(number), why));
    }
}

fn validate_service(spec: &Field, faults: &mut Faults) {
    let (service, bundle, insecure) =
        (spec.get("service"), spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    let has_bundle = !bundle.text().is_empty();
    if !service.is_set() {
        if has_bundle {
            faults.invalid(&bundle, "local APIServices may not have a caBundle");
        }
        if insecure.is_true() {
            faults.invalid(&insecure, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    faults.must_be_given(&service.get("namespace"));
    faults.must_be_given(&service.get("name"));
    webhook::validate_port(&service.get("port"), faults);
    if insecure.is_true() && has_bundle {
        faults.invalid(&insecure, "may not be true if caBundle is present");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy as _;

    fn faults(name: &str, spec: Value) -> Vec<String> {
        let object = json!({"metadata": {"name": name}, "spec": spec});
        let mut object = Object::from_value(object).unwrap();
        Strategy.set_defaults(&mut object);
        Strategy.validate(&object, None).iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn an_api_service_is_named_after_what_it_serves() {
        let spec = |priority: i64| {
            json!({
                "group": "example.com", "version": "v1", "groupPriorityMinimum": priority, "versionPriority": 15,
                "service": {"name": "s", "namespace": "n"}, "insecureSkipTLSVerify": true,
            })
        };
        assert_eq!(faults("v1.example.com", spec(1000)), Vec::<String>::new());
        assert_eq!(
            faults("v2.example.com", spec(0)),
            [
                r#"metadata.name: Invalid value: "v2.example.com": must be `spec.version+"."+spec.group`: "v1.example.com""#,
                "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
            ]
        );
    }

    #[test]
    fn who_is_not_checked_needs_no_authority() {
        let spec = json!({
            "group": "example.com", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
            "service": {"name": "s", "namespace": "n"}, "insecureSkipTLSVerify": true, "caBundle": "eA==",
        });
        let wrong = "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present";
        assert_eq!(faults("v1.example.com", spec), [wrong]);
    }
}

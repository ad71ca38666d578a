//! What is special about a custom resource: everything that its definition says.

use serde_json::Value;

use super::{
    Version,
    rules::{self, Verdict},
    validate,
};
use crate::{FieldError, FieldErrorKind, Object, Strategy, meta, name};

/// The strategy of one version of a definition.
pub(super) struct CustomResource(pub(super) &'static Version);

/// Upstream's words when rules were not looked at.
const NOT_CHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

impl Strategy for CustomResource {
    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        self.0.normalize(object);
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        self.judge(object, old).faults
    }

    /// Without what the rules tolerate in an update: [`CustomResource::judge_update`] tells that, as rules are costly.
    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        finalizers(object, old)
    }

    fn judge_update(&self, object: &Object, old: &Object) -> (Vec<FieldError>, Vec<String>) {
        let verdict = self.judge(object, Some(old));
        let mut warnings = self.warnings(object, Some(old));
        warnings.extend(verdict.tolerated.iter().map(FieldError::to_string));
        (verdict.faults, warnings)
    }

    fn validate_status(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        self.validate(object, Some(old))
    }

    fn is_new_generation(&self, object: &Object, old: &Object) -> bool {
        if self.0.has_status {
            return object.without_metadata_and_status() != old.without_metadata_and_status();
        }
        let rest = |object: &Object| {
            let mut object = object.clone();
            object.0.remove("metadata");
            object
        };
        rest(object) != rest(old)
    }
}

impl CustomResource {
    fn judge(&self, object: &Object, old: Option<&Object>) -> Verdict {
        let value = Value::Object(object.0.clone());
        let old = old.map(|old| Value::Object(old.0.clone()));
        let version = self.0;
        let mut faults = validate::validate(&value, old.as_ref(), &version.props);
        faults.extend(self.validate_scale(object));
        faults.extend(validate::validate_structure(&value, old.as_ref(), &version.props));
        let mut tolerated = Vec::new();
        if let Some(rules) = &version.rules {
            if faults.iter().any(|fault| blocks_rules(fault.kind)) {
                faults.push(FieldError::new(FieldErrorKind::Invalid, "<nil>", "null".into(), NOT_CHECKED));
            } else {
                let verdict = rules::judge(&value, old.as_ref(), rules, &version.props);
                faults.extend(verdict.faults);
                tolerated = verdict.tolerated;
            }
        }
        Verdict { faults, tolerated }
    }

    fn validate_scale(&self, object: &Object) -> Option<FieldError> {
        let path = self.0.scale?.spec_replicas;
        let replicas = object.number(path)?;
        let field = path.join(".");
        match replicas {
            ..0 => Some(FieldError::invalid(field, &replicas.into(), "should be a non-negative integer")),
            _ if replicas > i64::from(i32::MAX) => {
                let detail = format!("should be less than or equal to {}", i32::MAX);
                Some(FieldError::invalid(field, &replicas.into(), detail))
            }
            _ => None,
        }
    }
}

/// Finalizers that others might choose, too.
fn finalizers(object: &Object, old: Option<&Object>) -> Vec<String> {
    const PATH: [&str; 2] = ["metadata", "finalizers"];
    let known = old.map_or(&[][..], |old| old.list(&PATH));
    let added = object.list(&PATH).iter().filter(|finalizer| !known.contains(finalizer));
    let mut added: Vec<&str> = added.filter_map(Value::as_str).collect();
    added.sort_unstable();
    added.dedup();
    let mut found = Vec::new();
    for finalizer in added {
        let mut say = |what: &str| found.push(format!("metadata.finalizers: {finalizer:?}: {what}"));
        if let Err(why) = name::qualified_name(finalizer) {
            say(&why);
        }
        if meta::standard_or_qualified(finalizer).is_err() {
            let path = if finalizer.contains('.') { " including a path (/)" } else { "" };
            say(&format!(
                "prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
            ));
        }
    }
    found
}

/// Whether rules could stumble over such a fault.
fn blocks_rules(kind: FieldErrorKind) -> bool {
    use FieldErrorKind::*;
    matches!(kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::crd::Definition;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn one_judgement_of_an_update_tells_faults_and_what_is_tolerated() {
        let small = json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self < 10"}]});
        let spec = json!({"type": "object", "properties": {"a": small, "b": small}});
        let definition = Definition::of(&object(json!({
            "metadata": {"name": "judged.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced", "names": {"plural": "judged", "kind": "Judged"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "properties": {"spec": spec}}}}],
            },
            "status": {"acceptedNames": {"plural": "judged", "kind": "Judged"}},
        })))
        .unwrap();
        let strategy = definition.kinds()[0].strategy;
        let of = |a: i32, b: i32| {
            object(
                json!({"apiVersion": "example.com/v1", "kind": "Judged", "metadata": {"name": "x", "finalizers": ["x"]},
                "spec": {"a": a, "b": b}}),
            )
        };
        let before = of(20, 1);
        let (faults, warnings) = strategy.judge_update(&of(20, 2), &before);
        assert_eq!(faults, []);
        assert_eq!(warnings, ["spec.a: Invalid value: 20: failed rule: self < 10"]);
        let (faults, _) = strategy.judge_update(&of(20, 30), &before);
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].to_string(), "spec.b: Invalid value: 30: failed rule: self < 10");
        // No second judgement.
        assert!(strategy.warnings(&of(20, 2), Some(&before)).is_empty());
    }
}

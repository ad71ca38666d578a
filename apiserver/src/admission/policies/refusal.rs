//! What becomes of the decisions of policies: refusals, warnings, and facts for the audit log. In upstream's words.

use std::collections::BTreeMap;

use api::{Object, Status, policy::Validated};
use serde_json::{Value, json};

use super::{
    Misconfigured,
    definition::{Binding, Definition},
};
use crate::{admission::forbidden, audit, hooks::Attributes};

/// What all policies together have said.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Message and reason of the first refusal, which is the one that is told.
    refusal: Option<(String, String)>,
    warnings: Vec<String>,
    failures: Vec<Value>,
    annotations: BTreeMap<String, Vec<String>>,
}

impl Outcome {
    pub(super) fn misconfigured(&mut self, wrong: &Misconfigured<'_>) {
        if !wrong.definition.policy.is_lenient() {
            self.refuse(wrong.definition, wrong.binding, &wrong.told(), "Invalid");
        }
    }

    /// Does with each denial what the binding says.
    pub(super) fn add(&mut self, definition: &Definition, binding: &Binding, validated: Validated) {
        let (policy, name) = (&definition.name, &binding.name);
        for denial in validated.denials {
            for action in &binding.actions {
                match action.as_str() {
                    "Deny" => self.refuse(definition, Some(binding), &denial.message, &denial.reason),
                    "Warn" => self.warnings.push(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{name}': {}",
                        denial.message
                    )),
                    _ => self.failures.push(json!({
                        "message": denial.message,
                        "policy": policy,
                        "binding": name,
                        "expressionIndex": denial.expression_index.unwrap_or_default(),
                        "validationActions": binding.actions,
                    })),
                }
            }
        }
        for (key, value) in validated.annotations {
            let values = self.annotations.entry(format!("{policy}/{key}")).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }

    fn refuse(&mut self, definition: &Definition, binding: Option<&Binding>, why: &str, reason: &str) {
        let bound = binding.map(|binding| format!(" with binding '{}'", binding.name)).unwrap_or_default();
        let name = &definition.name;
        let message = format!("ValidatingAdmissionPolicy '{name}'{bound} denied request: {why}");
        self.refusal.get_or_insert((message, reason.to_string()));
    }

    /// Tells the audit log.
    pub(super) fn publish(&self) {
        if !self.failures.is_empty() {
            let failures = Value::from(self.failures.clone()).to_string();
            audit::annotate("validation.policy.admission.k8s.io/validation_failure", failures);
        }
        for (key, values) in &self.annotations {
            audit::annotate(key.clone(), values.join(", "));
        }
    }

    /// The warnings, or the refusal.
    pub(super) fn settle(
        self,
        attributes: &Attributes<'_>,
        object: Option<&Object>,
    ) -> Result<Vec<String>, Status> {
        match self.refusal {
            None => Ok(self.warnings),
            Some((message, reason)) => Err(refused(attributes, object, &message, &reason)),
        }
    }
}

/// The refusal of a write that a mutating policy could not be applied to.
pub(super) fn of_mutation(
    attributes: &Attributes<'_>,
    definition: &Definition,
    binding: Option<&Binding>,
    why: &str,
) -> Status {
    let name = &definition.name;
    let message = match binding {
        Some(binding) => format!("policy '{name}' with binding '{}' denied request: {why}", binding.name),
        None => format!("policy {name:?} denied request: {why}"),
    };
    refused(attributes, None, &message, "Invalid")
}

fn refused(attributes: &Attributes<'_>, object: Option<&Object>, message: &str, reason: &str) -> Status {
    let mut status = forbidden(attributes, object, message);
    (status.code, status.reason) = match reason {
        "Unauthorized" => (401, "Unauthorized"),
        "Forbidden" => (403, "Forbidden"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    if let Some(details) = &mut status.details {
        details["causes"] = json!([{"message": message}]);
    }
    status
}

//! NamespaceLifecycle: nothing new in a namespace that is not there or about to go; the first namespaces stay.

use api::{Object, Scope, Status};
use serde_json::json;

use crate::hooks::{Attributes, Operation};

const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// Refuses new objects in missing and terminating namespaces, and the deletion of the first ones.
pub(super) fn validate(
    attributes: &Attributes<'_>,
    namespace: Option<&Object>,
    object: Option<&Object>,
) -> Result<(), Status> {
    if attributes.kind.plural == "namespaces" && attributes.kind.group.is_empty() {
        let is_deletion = attributes.operation == Operation::Delete && attributes.subresource.is_empty();
        return match is_deletion && IMMORTAL.contains(&attributes.name) {
            true => {
                Err(Status::forbidden("", "namespaces", attributes.name, "this namespace may not be deleted"))
            }
            false => Ok(()),
        };
    }
    // Whether a namespace is there is nobody's business who asks what they may do in it.
    if attributes.kind.plural == "localsubjectaccessreviews" {
        return Ok(());
    }
    let is_namespaced = attributes.kind.scope == Scope::Namespaced && !attributes.namespace.is_empty();
    if !is_namespaced || attributes.operation != Operation::Create {
        return Ok(());
    }
    let Some(namespace) = namespace else {
        return Err(Status::not_found("", "namespaces", attributes.namespace));
    };
    let is_terminating =
        namespace.deletion_timestamp().is_some() || namespace.text(&["status", "phase"]) == "Terminating";
    match is_terminating {
        true => Err(terminating(attributes, object)),
        false => Ok(()),
    }
}

fn terminating(attributes: &Attributes<'_>, object: Option<&Object>) -> Status {
    let namespace = attributes.namespace;
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut status = super::forbidden(attributes, object, &why);
    if let Some(details) = &mut status.details {
        details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
    }
    status
}

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
    if (attributes.kind.group, attributes.kind.plural)
        == ("authorization.k8s.io", "localsubjectaccessreviews")
    {
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

#[cfg(test)]
mod tests {
    use api::{Kind, kinds};
    use serde_json::Value;

    use super::*;
    use crate::request::User;

    #[test]
    fn only_upstreams_reviews_may_be_of_a_namespace_that_is_not_there() {
        let review = kinds::built_in("authorization.k8s.io", "localsubjectaccessreviews");
        let namesake: &Kind = Box::leak(Box::new(Kind { group: "example.com", ..*review }));
        let user = User::default();
        let judged = |kind| {
            let attributes = Attributes {
                user: &user,
                operation: Operation::Create,
                kind,
                subresource: "",
                namespace: "gone",
                name: "",
                addressed: "",
                dry_run: false,
                options: &Value::Null,
                deadline: None,
            };
            validate(&attributes, None, None).map_err(|status| status.code)
        };
        assert_eq!((judged(review), judged(namesake)), (Ok(()), Err(404)));
    }
}

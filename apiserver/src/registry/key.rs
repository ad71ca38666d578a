//! Where objects live in the store: upstream's layout.

use api::{Kind, Scope, Status};

use crate::path;

/// The prefix of all of a kind's keys, for example `/registry/pods/`.
pub(crate) fn kind_prefix(kind: &Kind) -> String {
    format!("/registry/{}/", kind.storage)
}

/// The prefix of a namespace's objects of a kind; of all objects without a namespace.
pub(crate) fn prefix(kind: &Kind, namespace: &str) -> String {
    match namespace {
        "" => kind_prefix(kind),
        namespace => format!("/registry/{}/{namespace}/", kind.storage),
    }
}

/// One object's key. A name that would reach another key is refused.
pub(crate) fn key(kind: &Kind, namespace: &str, name: &str) -> Result<String, Status> {
    let is_namespaced = kind.scope == Scope::Namespaced;
    if !path::is_segment(name) || (is_namespaced && !path::is_segment(namespace)) {
        return Err(Status::not_found(kind.group, kind.plural, name));
    }
    Ok(match is_namespaced {
        true => format!("/registry/{}/{namespace}/{name}", kind.storage),
        false => format!("/registry/{}/{name}", kind.storage),
    })
}

/// Namespace and name in what follows a kind's prefix.
pub(crate) fn namespace_and_name(scope: Scope, rest: &str) -> (&str, &str) {
    match (scope, rest.split_once('/')) {
        (Scope::Namespaced, Some((namespace, name))) => (namespace, name),
        _ => ("", rest),
    }
}

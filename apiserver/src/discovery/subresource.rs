//! The subresources of a kind, as discovery describes them.

use api::Kind;

/// One subresource.
pub(super) struct Subresource {
    pub(super) name: &'static str,
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    pub(super) verbs: &'static [&'static str],
}

const READ_WRITE: &[&str] = &["get", "patch", "update"];
const CONNECT: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

/// All subresources of a kind, by name.
pub(super) fn all(kind: &Kind) -> Vec<Subresource> {
    let mut names: Vec<&'static str> = kind.subresources.to_vec();
    names.extend(kind.status.then_some("status"));
    names.extend(kind.scale.map(|_| "scale"));
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| describe(kind, name)).collect()
}

/// Group, version and kind of what travels through a resource or one of its subresources.
pub(crate) fn kind_of(kind: &Kind, subresource: &str) -> (&'static str, &'static str, &'static str) {
    let found = all(kind).into_iter().find(|sub| sub.name == subresource);
    found.map_or((kind.group, kind.version, kind.kind), |sub| (sub.group, sub.version, sub.kind))
}

fn describe(kind: &Kind, name: &'static str) -> Subresource {
    let own = |verbs| Subresource { name, group: kind.group, version: kind.version, kind: kind.kind, verbs };
    let other = |group, version, kind, verbs| Subresource { name, group, version, kind, verbs };
    match name {
        "log" => own(&["get"]),
        "finalize" => own(&["update"]),
        "exec" => other("", "v1", "PodExecOptions", CONNECT),
        "attach" => other("", "v1", "PodAttachOptions", CONNECT),
        "portforward" => other("", "v1", "PodPortForwardOptions", CONNECT),
        "proxy" => other("", "v1", proxy_options(kind), PROXY),
        "binding" => other("", "v1", "Binding", &["create"]),
        "eviction" => other("policy", "v1", "Eviction", &["create"]),
        "scale" => other("autoscaling", "v1", "Scale", READ_WRITE),
        "token" => other("authentication.k8s.io", "v1", "TokenRequest", &["create"]),
        _ => own(READ_WRITE),
    }
}

fn proxy_options(kind: &Kind) -> &'static str {
    match kind.plural {
        "nodes" => "NodeProxyOptions",
        "services" => "ServiceProxyOptions",
        _ => "PodProxyOptions",
    }
}

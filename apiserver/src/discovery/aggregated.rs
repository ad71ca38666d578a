//! Everything at once: `apidiscovery.k8s.io/v2`, one request instead of one for each group and version.

use api::{Kind, Scope};
use serde_json::{Value, json};

use super::{Kinds, group_names, kinds_of, subresource, verbs, versions};

/// How clients tell that they were understood.
pub(crate) const CONTENT_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The groups that are `wanted`.
pub(super) fn list(kinds: &Kinds, wanted: impl Fn(&str) -> bool) -> Value {
    let names = group_names(kinds).into_iter().filter(|group| wanted(group));
    let items: Vec<Value> = names.map(|name| group(kinds, name)).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn group(kinds: &Kinds, name: &str) -> Value {
    let version = |version: &str| {
        let resources: Vec<Value> = kinds_of(kinds, name, version).into_iter().map(resource).collect();
        json!({"version": version, "resources": resources, "freshness": "Current"})
    };
    let versions: Vec<Value> = versions(kinds, name).into_iter().map(version).collect();
    let metadata = match name {
        "" => json!({"creationTimestamp": null}),
        name => json!({"name": name, "creationTimestamp": null}),
    };
    json!({"metadata": metadata, "versions": versions})
}

fn resource(kind: &'static Kind) -> Value {
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if kind.scope == Scope::Namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verbs(kind),
    });
    if !kind.short.is_empty() {
        resource["shortNames"] = kind.short.into();
    }
    if !kind.categories.is_empty() {
        resource["categories"] = kind.categories.into();
    }
    let subresources: Vec<Value> = subresource::all(kind)
        .into_iter()
        .map(|sub| {
            json!({
                "subresource": sub.name,
                "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind},
                "verbs": sub.verbs,
            })
        })
        .collect();
    if !subresources.is_empty() {
        resource["subresources"] = subresources.into();
    }
    resource
}

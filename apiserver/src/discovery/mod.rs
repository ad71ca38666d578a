//! What there is: groups, versions and resources, read off the rows of `api::kinds`.

mod aggregated;
mod subresource;

use api::{Kind, Scope, Verbs, crd};
use http::HeaderMap;
use serde_json::{Value, json};

use crate::answer;

/// The kinds that are served, as they are when somebody asks.
type Kinds = [&'static Kind];

pub(crate) use aggregated::CONTENT_TYPE as AGGREGATED;
pub(crate) use subresource::kind_of;

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const ONE_BY_ONE: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

/// `/api`.
pub(crate) fn core(kinds: &Kinds, headers: &HeaderMap) -> Value {
    if wants_aggregated(headers) {
        return aggregated::list(kinds, |group| group.is_empty());
    }
    json!({
        "kind": "APIVersions",
        "versions": versions(kinds, ""),
        "serverAddressByClientCIDRs": [],
    })
}

/// `/apis`.
pub(crate) fn groups(kinds: &Kinds, headers: &HeaderMap) -> Value {
    if wants_aggregated(headers) {
        return aggregated::list(kinds, |group| !group.is_empty());
    }
    let names = group_names(kinds).into_iter().filter(|group| !group.is_empty());
    let groups: Vec<Value> = names.map(|name| describe_group(kinds, name)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub(crate) fn resources(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let kinds = kinds_of(kinds, group, version);
    if kinds.is_empty() {
        return None;
    }
    let resources: Vec<Value> = kinds.iter().flat_map(|kind| with_subresources(kind)).collect();
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version(group, version),
        "resources": resources,
    }))
}

/// Every path under which there are resources.
pub(crate) fn paths(kinds: &Kinds) -> Vec<String> {
    let mut paths = vec!["/api".to_string(), "/apis".to_string()];
    for group in group_names(kinds) {
        let root = if group.is_empty() { "/api".to_string() } else { format!("/apis/{group}") };
        paths.extend(versions(kinds, group).into_iter().map(|version| format!("{root}/{version}")));
        if !group.is_empty() {
            paths.push(root);
        }
    }
    paths
}

fn wants_aggregated(headers: &HeaderMap) -> bool {
    answer::accepted(headers).iter().any(|range| {
        range.parameter("g") == Some("apidiscovery.k8s.io")
            && range.parameter("v") == Some("v2")
            && range.parameter("as") == Some("APIGroupDiscoveryList")
            && range.includes("application/json")
    })
}

fn describe_group(kinds: &Kinds, name: &str) -> Value {
    let version = |version: &str| json!({"groupVersion": group_version(name, version), "version": version});
    let versions: Vec<Value> = versions(kinds, name).into_iter().map(version).collect();
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

/// The groups, in the rows' order.
fn group_names(kinds: &Kinds) -> Vec<&'static str> {
    let mut names = Vec::new();
    for kind in kinds {
        if !names.contains(&kind.group) {
            names.push(kind.group);
        }
    }
    names
}

/// The versions of a group, the preferred one first.
fn versions(kinds: &Kinds, group: &str) -> Vec<&'static str> {
    let mut versions = Vec::new();
    for kind in kinds.iter().filter(|kind| kind.group == group) {
        if !versions.contains(&kind.version) {
            versions.push(kind.version);
        }
    }
    versions.sort_by(|one, other| crd::by_priority(one, other));
    versions
}

fn kinds_of(kinds: &Kinds, group: &str, version: &str) -> Vec<&'static Kind> {
    let is_meant = |kind: &&Kind| kind.group == group && kind.version == version;
    let mut kinds: Vec<&'static Kind> = kinds.iter().copied().filter(is_meant).collect();
    kinds.sort_by_key(|kind| kind.plural);
    kinds
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_string() } else { format!("{group}/{version}") }
}

fn with_subresources(kind: &'static Kind) -> Vec<Value> {
    let is_namespaced = kind.scope == Scope::Namespaced;
    let mut resource = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": is_namespaced,
        "kind": kind.kind,
        "verbs": verbs(kind),
    });
    if !kind.short.is_empty() {
        resource["shortNames"] = kind.short.into();
    }
    if !kind.categories.is_empty() {
        resource["categories"] = kind.categories.into();
    }
    let mut resources = vec![resource];
    for sub in subresource::all(kind) {
        let mut resource = json!({
            "name": format!("{}/{}", kind.plural, sub.name),
            "singularName": "",
            "namespaced": is_namespaced,
            "kind": sub.kind,
            "verbs": sub.verbs,
        });
        if (sub.group, sub.version) != (kind.group, kind.version) {
            resource["group"] = sub.group.into();
            resource["version"] = sub.version.into();
        }
        resources.push(resource);
    }
    resources
}

fn verbs(kind: &Kind) -> &'static [&'static str] {
    match kind.verbs {
        Verbs::All => ALL,
        Verbs::OneByOne => ONE_BY_ONE,
        Verbs::Create => &["create"],
        Verbs::Read => &["get", "list"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Vec<&'static Kind> {
        api::kinds::KINDS.iter().collect()
    }

    #[test]
    fn pods_are_discovered_with_all_their_subresources() {
        let list = resources(&kinds(), "", "v1").unwrap();
        let find = |name: &str| {
            let resources = list["resources"].as_array().unwrap();
            resources.iter().find(|resource| resource["name"] == name).cloned().unwrap_or_default()
        };
        assert_eq!(find("pods")["shortNames"], json!(["po"]));
        assert_eq!(find("pods")["verbs"].as_array().unwrap().len(), 8);
        assert_eq!(find("pods/status")["verbs"], json!(["get", "patch", "update"]));
        assert_eq!(find("pods/eviction")["group"], "policy");
        assert_eq!(find("serviceaccounts/token")["kind"], "TokenRequest");
        assert_eq!(find("bindings")["verbs"], json!(["create"]));
        assert!(resources(&kinds(), "", "v2").is_none());
    }

    #[test]
    fn groups_have_a_preferred_version() {
        let groups = groups(&kinds(), &HeaderMap::new());
        let apps = groups["groups"].as_array().unwrap().iter().find(|group| group["name"] == "apps").unwrap();
        assert_eq!(apps["preferredVersion"]["groupVersion"], "apps/v1");
        assert!(paths(&kinds()).contains(&"/apis/apps/v1".to_string()));
    }
}

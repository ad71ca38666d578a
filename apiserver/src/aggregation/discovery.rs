//! What all servers offer, in one answer: groups, versions, resources and schemas. All pure.

use std::cmp::Reverse;

use api::{crd, openapi};
use serde_json::{Value, json};

use super::{Remote, local, schemas};

/// Adds the groups of other servers to an `APIGroupList`, the most important group first.
pub(crate) fn merge_groups(list: &mut Value, remotes: &[Remote]) {
    let groups = std::mem::take(&mut list["groups"]);
    let Value::Array(mut groups) = groups else { return };
    for remote in remotes {
        let service = &remote.service;
        let version = json!({
            "groupVersion": format!("{}/{}", service.group, service.version), "version": service.version,
        });
        let group = find_or_add(
            &mut groups,
            "/name",
            &service.group,
            || json!({"name": service.group, "versions": []}),
        );
        let Some(versions) = group["versions"].as_array_mut() else { continue };
        versions.retain(|known| known["version"] != version["version"]);
        versions.push(version);
    }
    for group in &mut groups {
        let name = group["name"].as_str().unwrap_or_default().to_string();
        if let Some(versions) = group["versions"].as_array_mut() {
            sort_versions(versions, &name, remotes);
        }
        group["preferredVersion"] = group["versions"][0].clone();
    }
    groups.sort_by_key(|group| rank(group["name"].as_str().unwrap_or_default(), remotes));
    list["groups"] = groups.into();
}

/// The `APIGroup` of one group out of a merged list.
pub(crate) fn named_group(list: &Value, name: &str) -> Option<Value> {
    let mut group = list["groups"].as_array()?.iter().find(|group| group["name"] == name)?.clone();
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Some(group)
}

/// Adds the groups of other servers to an `APIGroupDiscoveryList`.
pub(crate) fn merge_aggregated(list: &mut Value, remotes: &[Remote]) {
    let items = std::mem::take(&mut list["items"]);
    let Value::Array(mut items) = items else { return };
    for remote in remotes {
        let service = &remote.service;
        let group = find_or_add(
            &mut items,
            "/metadata/name",
            &service.group,
            || json!({"metadata": {"name": service.group, "creationTimestamp": null}, "versions": []}),
        );
        let Some(versions) = group["versions"].as_array_mut() else { continue };
        versions.retain(|known| known["version"] != service.version.as_str());
        versions.push(version_of(remote));
    }
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap_or_default().to_string();
    for item in &mut items {
        let name = name(item);
        if let Some(versions) = item["versions"].as_array_mut() {
            sort_versions(versions, &name, remotes);
        }
    }
    items.sort_by_key(|item| rank(&name(item), remotes));
    list["items"] = items.into();
}

/// Adds the documents of other servers to the index of OpenAPI v3.
pub(crate) fn merge_openapi(index: &mut Value, remotes: &[Remote]) {
    for remote in remotes {
        let Some(offer) = &remote.offer else { continue };
        if offer.schemas.is_object() {
            let root = remote.service.root();
            index["paths"][root.trim_start_matches('/')] = offer.schemas.clone();
        }
    }
}

/// What other servers add to the document of OpenAPI v2.
pub(crate) fn schemas_of_others(remotes: &[Remote]) -> openapi::Part {
    let offers = remotes.iter().filter_map(|remote| remote.offer.as_ref());
    schemas::united(offers.map(|offer| &offer.document.part))
}

/// A version with its resources; what is not known now is said to be stale.
fn version_of(remote: &Remote) -> Value {
    let service = &remote.service;
    let offered = remote.offer.as_ref().filter(|_| service.is_available).map(|offer| &offer.resources);
    let Some(list) = offered.and_then(|resources| resources["resources"].as_array()) else {
        return json!({"version": service.version, "freshness": "Stale"});
    };
    let resources: Vec<Value> = list
        .iter()
        .filter(|resource| !resource["name"].as_str().unwrap_or_default().contains('/'))
        .map(|resource| resource_of(remote, resource, list))
        .collect();
    json!({"version": service.version, "resources": resources, "freshness": "Current"})
}

/// A resource of an `APIResourceList` with its subresources, as aggregated discovery has it.
fn resource_of(remote: &Remote, resource: &Value, all: &[Value]) -> Value {
    let service = &remote.service;
    let response_kind = |resource: &Value| {
        let text = |field: &str, otherwise: &str| {
            resource[field].as_str().filter(|text| !text.is_empty()).unwrap_or(otherwise).to_string()
        };
        json!({
            "group": text("group", &service.group),
            "version": text("version", &service.version),
            "kind": text("kind", ""),
        })
    };
    let name = resource["name"].as_str().unwrap_or_default();
    let mut made = json!({
        "resource": name,
        "responseKind": response_kind(resource),
        "scope": if resource["namespaced"] == true { "Namespaced" } else { "Cluster" },
        "singularResource": resource["singularName"].as_str().unwrap_or_default(),
        "verbs": resource["verbs"].clone(),
    });
    for field in ["shortNames", "categories"] {
        if resource[field].as_array().is_some_and(|list| !list.is_empty()) {
            made[field] = resource[field].clone();
        }
    }
    let prefix = format!("{name}/");
    let parts = all.iter().filter_map(|part| Some((part["name"].as_str()?.strip_prefix(&prefix)?, part)));
    let parts: Vec<Value> = parts
        .map(|(part, resource)| {
            json!({"subresource": part, "responseKind": response_kind(resource), "verbs": resource["verbs"].clone()})
        })
        .collect();
    if !parts.is_empty() {
        made["subresources"] = parts.into();
    }
    made
}

fn find_or_add<'a>(
    list: &'a mut Vec<Value>,
    pointer: &str,
    name: &str,
    make: impl FnOnce() -> Value,
) -> &'a mut Value {
    let found = list.iter().position(|item| item.pointer(pointer).is_some_and(|value| value == name));
    let place = found.unwrap_or_else(|| {
        list.push(make());
        list.len() - 1
    });
    &mut list[place]
}

/// The most important first; of equals, by name.
fn rank(group: &str, remotes: &[Remote]) -> (Reverse<i64>, String) {
    let is_remote = remotes.iter().filter(|remote| remote.service.group == group);
    let foreign = is_remote.map(|remote| remote.service.group_priority).max();
    let known = local::group_priority(group);
    (Reverse(foreign.unwrap_or(known)), group.to_string())
}

fn sort_versions(versions: &mut [Value], group: &str, remotes: &[Remote]) {
    let priority = |version: &str| {
        let found =
            remotes.iter().find(|remote| remote.service.group == group && remote.service.version == version);
        found
            .map_or_else(|| local::version_priority(group, version), |remote| remote.service.version_priority)
    };
    versions.sort_by(|one, other| {
        let [one, other] = [one, other].map(|version| version["version"].as_str().unwrap_or_default());
        priority(other).cmp(&priority(one)).then_with(|| crd::by_priority(one, other))
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::Object;

    use super::*;
    use crate::aggregation::{Service, offer::Offer};

    fn remote(version: &str, priorities: (i64, i64), offer: Option<Value>) -> Remote {
        let object = json!({
            "metadata": {"name": format!("{version}.wardle.example.com")},
            "spec": {
                "group": "wardle.example.com", "version": version, "groupPriorityMinimum": priorities.0,
                "versionPriority": priorities.1, "service": {"name": "s", "namespace": "n"},
            },
            "status": {"conditions": [{"type": "Available", "status": "True"}]},
        });
        let service = Service::read(&Object::from_value(object).unwrap()).unwrap();
        let offer = offer.map(|resources| {
            Arc::new(Offer { resources, schemas: json!({"serverRelativeURL": "/x"}), ..Offer::default() })
        });
        Remote { service: Arc::new(service), offer }
    }

    #[test]
    fn groups_of_others_stand_where_their_priority_puts_them() {
        let mut list = json!({"groups": [
            {"name": "crd.example.com", "versions": [{"groupVersion": "crd.example.com/v1", "version": "v1"}]},
            {"name": "apps", "versions": [{"groupVersion": "apps/v1", "version": "v1"}]},
        ]});
        let remotes = [remote("v1alpha1", (2000, 10), None), remote("v1beta1", (2000, 20), None)];
        merge_groups(&mut list, &remotes);
        let names: Vec<&str> =
            list["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["apps", "wardle.example.com", "crd.example.com"]);
        let group = named_group(&list, "wardle.example.com").unwrap();
        assert_eq!(group["preferredVersion"]["groupVersion"], "wardle.example.com/v1beta1");
        assert!(named_group(&list, "gone").is_none());
    }

    #[test]
    fn resources_of_others_are_told_as_our_own() {
        let offered = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/status", "kind": "Flunder", "verbs": ["get"]},
        ]});
        let mut list = json!({"items": []});
        merge_aggregated(
            &mut list,
            &[remote("v1", (2000, 10), Some(offered)), remote("v2", (2000, 5), None)],
        );
        let versions = &list["items"][0]["versions"];
        assert_eq!(
            versions[0],
            json!({"version": "v1", "freshness": "Current", "resources": [{
                "resource": "flunders", "singularResource": "flunder", "scope": "Namespaced", "verbs": ["get"],
                "shortNames": ["fl"],
                "responseKind": {"group": "wardle.example.com", "version": "v1", "kind": "Flunder"},
                "subresources": [{
                    "subresource": "status", "verbs": ["get"],
                    "responseKind": {"group": "wardle.example.com", "version": "v1", "kind": "Flunder"},
                }],
            }]})
        );
        assert_eq!(versions[1], json!({"version": "v2", "freshness": "Stale"}));
    }

    #[test]
    fn schemas_of_others_are_in_the_index() {
        let mut index = json!({"paths": {"apis/apps/v1": {}}});
        merge_openapi(&mut index, &[remote("v1", (1, 1), Some(json!({}))), remote("v2", (1, 1), None)]);
        assert_eq!(index["paths"]["apis/wardle.example.com/v1"]["serverRelativeURL"], "/x");
        assert!(index["paths"].get("apis/wardle.example.com/v2").is_none());
    }
}

//! The kinds that the server knows, asked of the server: custom ones are no different from built-in ones.

use client::ClientError;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Client, client::APIGroupDiscovery, core::Request};
use serde::Deserialize;

/// One kind, in the version that the server prefers.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Kind in CamelCase.
    pub kind: String,
    /// Plural, as in URLs.
    pub plural: String,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: Vec<String>,
}

/// What controllers that know no kinds need of an object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub resource_version: String,
    pub deletion_timestamp: Option<String>,
    pub finalizers: Vec<String>,
    pub owner_references: Vec<OwnerReference>,
}

/// An object of which only the metadata is read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct MetadataOnly {
    pub metadata: Metadata,
}

impl Resource {
    /// Whether it has this verb.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    /// `deployments.apps`, or `pods.` in the core group, as upstream's messages name it.
    pub fn qualified(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    /// Whether an owner reference means this kind, in whatever version.
    pub fn is_kind_of(&self, owner: &OwnerReference) -> bool {
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        self.kind == owner.kind && self.group == group
    }

    /// Requests for its objects, in one namespace or in all.
    pub fn requests(&self, namespace: Option<&str>) -> Request {
        let root = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        Request::new(match namespace.filter(|namespace| self.namespaced && !namespace.is_empty()) {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        })
    }
}

/// All kinds, each once, in its preferred version.
pub async fn discover(client: &Client) -> Result<Vec<Resource>, ClientError> {
    let (core, groups) =
        futures::try_join!(client.list_core_api_versions_aggregated(), client.list_api_groups_aggregated())?;
    Ok(core.items.into_iter().chain(groups.items).flat_map(resources_of).collect())
}

/// A group's versions come in order of preference: of each kind the first one counts.
fn resources_of(group: APIGroupDiscovery) -> Vec<Resource> {
    let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
    let mut resources: Vec<Resource> = Vec::new();
    for version in group.versions {
        for resource in version.resources {
            let plural = resource.resource.unwrap_or_default();
            if resources.iter().any(|known| known.plural == plural) {
                continue;
            }
            resources.push(Resource {
                group: name.clone(),
                version: version.version.clone().unwrap_or_default(),
                kind: resource.response_kind.and_then(|kind| kind.kind).unwrap_or_default(),
                plural,
                namespaced: resource.scope.as_deref() == Some("Namespaced"),
                verbs: resource.verbs,
            });
        }
    }
    resources
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_preferred_version_of_each_kind_counts() {
        let resource = |plural: &str, kind: &str| json!({"resource": plural, "responseKind": {"kind": kind}, "scope": "Namespaced", "verbs": ["list"]});
        let group: APIGroupDiscovery = serde_json::from_value(json!({
            "metadata": {"name": "apps"},
            "versions": [
                {"version": "v2", "resources": [resource("widgets", "Widget")]},
                {"version": "v1", "resources": [resource("widgets", "Widget"), resource("gears", "Gear")]},
            ],
        }))
        .unwrap();
        let found = resources_of(group);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].version.as_str(), found[1].version.as_str()), ("v2", "v1"));
        assert!(found[1].can("list") && !found[1].can("delete"));
        let owner = OwnerReference {
            api_version: "apps/v1beta1".into(),
            kind: "Gear".into(),
            ..OwnerReference::default()
        };
        assert!(found[1].is_kind_of(&owner) && !found[0].is_kind_of(&owner));
    }
}

use super::*;
use crate::kinds;
use crate::kinds::KINDS;

/// All references in a document must lead somewhere.
fn dangling(document: &Value) -> Vec<String> {
    fn visit(value: &Value, root: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref")
                    && root.pointer(target.trim_start_matches('#')).is_none()
                {
                    found.push(target.clone());
                }
                map.values().for_each(|value| visit(value, root, found));
            }
            Value::Array(items) => items.iter().for_each(|item| visit(item, root, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    visit(document, document, &mut found);
    found
}

#[test]
fn v2_describes_every_kind() {
    let document = v2(KINDS);
    assert_eq!(dangling(&document), Vec::<String>::new());
    for kind in KINDS {
        let definition = &document["definitions"][kind.schema];
        let expected = json!({"group": kind.group, "kind": kind.kind, "version": kind.version});
        let kinds = definition["x-kubernetes-group-version-kind"].as_array();
        assert!(kinds.is_some_and(|kinds| kinds.contains(&expected)), "{}", kind.schema);
    }
    let containers = &document["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let volumes = &document["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
}

#[test]
fn every_operation_has_a_name_of_its_own() {
    let document = v2(KINDS);
    let mut names = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters")
        {
            let name = operation["operationId"].as_str().unwrap_or_default();
            assert!(names.insert(name), "{method} {path}: {name}");
        }
    }
    for name in [
        "listCoreV1NamespacedPod",
        "listCoreV1PodForAllNamespaces",
        "readCoreV1NamespacedPodLog",
        "createCoreV1NamespacedPodEviction",
        "deleteAppsV1CollectionNamespacedDeployment",
        "patchAppsV1NamespacedDeploymentScale",
        "replaceRbacAuthorizationV1ClusterRole",
        "createAuthorizationV1SelfSubjectAccessReview",
    ] {
        assert!(names.contains(name), "{name}");
    }
}

#[test]
fn v3_is_complete_for_every_group_version() {
    let index = v3_index(KINDS);
    for (path, entry) in index["paths"].as_object().unwrap() {
        let address = entry["serverRelativeURL"].as_str().unwrap();
        assert!(address.starts_with(&format!("/openapi/v3/{path}?hash=")), "{address}");
        let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
            ["api", version] => ("", *version),
            ["apis", group, version] => (*group, *version),
            _ => panic!("{path}"),
        };
        let document = v3(KINDS, group, version).unwrap();
        assert_eq!(dangling(&document), Vec::<String>::new(), "{path}");
    }
    assert!(v3(KINDS, "no.such", "v1").is_none());
    let patch = &v3(KINDS, "apps", "v1").unwrap()["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
        ["patch"];
    let names: Vec<&str> = patch["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|parameter| parameter["name"].as_str())
        .collect();
    // By this kubectl knows that the server validates fields itself.
    assert!(names.contains(&"fieldValidation"), "{names:?}");
}

#[test]
fn protobuf_carries_the_same_document() {
    let bytes = v2_protobuf(KINDS, &Part::default());
    assert!(bytes.starts_with(b"\x0a\x032.0"));
    let (mut rest, mut fields) = (bytes.as_slice(), Vec::new());
    while let [tag, after @ ..] = rest {
        let (mut length, mut shift, mut after) = (0usize, 0, after);
        while let [byte, more @ ..] = after {
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            after = more;
            if byte & 0x80 == 0 {
                break;
            }
        }
        fields.push(tag >> 3);
        rest = &after[length..];
    }
    assert_eq!(fields, [1, 2, 8, 9]);
}

#[test]
fn a_small_group_is_as_it_was() {
    let document =
        serde_json::to_string_pretty(&v3(KINDS, "coordination.k8s.io", "v1").unwrap()).unwrap() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/openapi/golden/coordination.k8s.io_v1.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &document).unwrap();
    }
    assert_eq!(
        document,
        std::fs::read_to_string(path).unwrap(),
        "run with UPDATE_GOLDEN=1 when this is meant"
    );
    assert!(kinds::find("coordination.k8s.io", "v1", "leases").is_some());
}

//! managedFields and server-side apply, as clients see them.

use axum::body::Body;
use http::{Method, Request, header};
use serde_json::{Value, json};

use crate::client::*;

const APPLY: &str = "application/apply-patch+yaml";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

impl Server {
    async fn apply(&self, path: &str, manager: &str, config: &Value) -> Answer {
        self.patch(&format!("{path}?fieldManager={manager}"), APPLY, config).await
    }

    async fn as_agent(&self, method: Method, path: &str, agent: &str, body: &Value) -> Answer {
        let request = Request::builder().method(method).uri(path).header(header::USER_AGENT, agent);
        let content_type = if body.is_array() { JSON_PATCH } else { JSON };
        let request = request.header(header::CONTENT_TYPE, content_type);
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

fn replicas(count: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": count}})
}

/// Manager, operation, subresource and fields of every entry.
fn owners(object: &Value) -> Vec<(String, String, String, Value)> {
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_string();
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let entries = entries.iter().map(|entry| {
        let names = (text(entry, "manager"), text(entry, "operation"), text(entry, "subresource"));
        (names.0, names.1, names.2, entry["fieldsV1"].clone())
    });
    entries.collect()
}

fn names(object: &Value) -> Vec<String> {
    owners(object)
        .into_iter()
        .map(|(name, operation, subresource, _)| {
            format!("{name} {operation} {subresource}").trim().to_string()
        })
        .collect()
}

#[tokio::test]
async fn every_write_says_whose_the_fields_are() {
    let server = Server::start().await;
    let path = &format!("{DEPLOYMENTS}/web");
    let created =
        server.as_agent(Method::POST, DEPLOYMENTS, "kubectl/v1.37.0 (linux)", &deployment("web")).await.ok();
    let (name, operation, _, fields) = owners(&created).remove(0);
    assert_eq!((name.as_str(), operation.as_str()), ("kubectl", "Update"));
    // Defaults are the creator's, the server's own fields nobody's.
    assert!(fields["f:spec"]["f:strategy"]["f:rollingUpdate"].is_object(), "{fields}");
    assert!(fields.get("f:metadata").is_none() && fields.get("f:status").is_none(), "{fields}");
    let entry = &created["metadata"]["managedFields"][0];
    assert_eq!((&entry["apiVersion"], &entry["fieldsType"]), (&json!("apps/v1"), &json!("FieldsV1")));
    assert!(entry["time"].is_string());

    let patch = json!([{"op": "replace", "path": "/spec/replicas", "value": 5}]);
    let patched =
        server.as_agent(Method::PATCH, &format!("{path}?fieldManager=me"), "x/1", &patch).await.ok();
    assert_eq!(names(&patched), ["kubectl Update", "me Update"]);
    assert_eq!(owners(&patched)[1].3, json!({"f:spec": {"f:replicas": {}}}));

    let mut reported = patched.clone();
    reported["status"] = json!({"replicas": 5, "observedGeneration": 2});
    reported["spec"]["replicas"] = 9.into();
    let reported = server
        .as_agent(Method::PUT, &format!("{path}/status"), "kube-controller-manager/v1", &reported)
        .await
        .ok();
    assert_eq!(names(&reported), ["kube-controller-manager Update status", "kubectl Update", "me Update"]);
    assert_eq!(owners(&reported)[0].3, json!({"f:status": {"f:observedGeneration": {}, "f:replicas": {}}}));

    let scale = json!([{"op": "replace", "path": "/spec/replicas", "value": 6}]);
    server.as_agent(Method::PATCH, &format!("{path}/scale"), "scaler/1", &scale).await.ok();
    let scaled = server.get(path).await.ok();
    assert_eq!(
        names(&scaled),
        ["kube-controller-manager Update status", "kubectl Update", "scaler Update scale"]
    );
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_none() {
    let server = Server::start().await;
    let path = &format!("{CONFIG_MAPS}/a");
    let created = server.post(CONFIG_MAPS, &config_map(json!({"x": "1"}))).await.ok();
    assert_eq!(names(&created), ["unknown Update"]);
    let same = server.put(&format!("{path}?fieldManager=other"), &config_map(json!({"x": "1"}))).await.ok();
    assert_eq!(same, created);
    let applied = server.apply(path, "one", &config_map(json!({"x": "1"}))).await.ok();
    let again = server.apply(path, "one", &config_map(json!({"x": "1"}))).await.ok();
    assert_eq!(again, applied);
    assert_ne!(version(&applied), version(&created));
}

#[tokio::test]
async fn applying_creates_changes_conflicts_and_prunes() {
    let server = Server::start().await;
    let path = &format!("{CONFIG_MAPS}/a");
    let first = server.apply(path, "one", &config_map(json!({"x": "1", "y": "1"}))).await;
    assert_eq!(first.code, 201);
    assert_eq!(names(&first.ok()), ["one Apply"]);
    let second = server.apply(path, "two", &config_map(json!({"z": "2"}))).await;
    assert_eq!(second.code, 200);
    assert_eq!(second.ok()["data"], json!({"x": "1", "y": "1", "z": "2"}));

    let conflict = server.apply(path, "two", &config_map(json!({"x": "2", "y": "2"}))).await;
    let details = conflict.json()["details"].clone();
    let message = "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.x\n- .data.y";
    assert_eq!(conflict.failure(), (409, "Conflict".into(), message.into()));
    let cause =
        json!({"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.x"});
    assert_eq!(details["causes"][0], cause);

    let forced = format!("{path}?fieldManager=two&force=true");
    let dry = server.patch(&format!("{forced}&dryRun=All"), APPLY, &config_map(json!({"x": "2"}))).await.ok();
    assert_eq!(dry["data"], json!({"x": "2", "y": "1"}));
    assert_eq!(server.get(path).await.ok()["data"]["x"], "1");
    let forced = server.patch(&forced, APPLY, &config_map(json!({"x": "2"}))).await.ok();
    assert_eq!(forced["data"], json!({"x": "2", "y": "1"}));
    let pruned = server.apply(path, "one", &config_map(json!({}))).await.ok();
    assert_eq!(pruned["data"], json!({"x": "2"}));
}

#[tokio::test]
async fn configurations_come_as_yaml_and_are_defaulted() {
    let server = Server::start().await;
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n  containers:\n  - name: c\n    image: busybox:1\n    ports:\n    - containerPort: 80\n    resources:\n      requests:\n        cpu: 1000m\n";
    let path = format!("{PODS}/p?fieldManager=m");
    let created = server.raw(Method::PATCH, &path, APPLY, yaml).await;
    assert_eq!(created.code, 201);
    let created = created.ok();
    assert_eq!(created["spec"]["restartPolicy"], "Always");
    assert_eq!(created["spec"]["containers"][0]["resources"]["requests"]["cpu"], "1");
    let container = json!({
        ".": {}, "f:image": {}, "f:name": {},
        "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
        "f:resources": {"f:requests": {"f:cpu": {}}},
    });
    assert_eq!(owners(&created)[0].3["f:spec"], json!({"f:containers": {"k:{\"name\":\"c\"}": container}}));
    // Another spelling of the same amount is no change.
    let again = server.raw(Method::PATCH, &path, APPLY, yaml.replace("1000m", "1")).await.ok();
    assert_eq!(again, created);
}

#[tokio::test]
async fn subresources_are_applied_to_as_well() {
    let server = Server::start().await;
    let path = &format!("{DEPLOYMENTS}/web");
    server.post(&format!("{DEPLOYMENTS}?fieldManager=creator"), &deployment("web")).await.ok();
    let mut status = replicas(7);
    status["status"] = json!({"replicas": 3});
    let applied = server.apply(&format!("{path}/status"), "reporter", &status).await.ok();
    assert_eq!((&applied["spec"]["replicas"], &applied["status"]["replicas"]), (&json!(2), &json!(3)));
    assert_eq!(owners(&applied)[0].3, json!({"f:status": {"f:replicas": {}}}));
    assert_eq!(names(&applied)[0], "reporter Apply status");

    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 4}});
    let path_of_scale = &format!("{path}/scale");
    let conflict = server.apply(path_of_scale, "scaler", &scale).await.failure();
    assert_eq!(
        conflict.2,
        "Apply failed with 1 conflict: conflict with \"creator\" using autoscaling/v1: .spec.replicas"
    );
    let forced =
        server.patch(&format!("{path_of_scale}?fieldManager=scaler&force=true"), APPLY, &scale).await.ok();
    assert_eq!((&forced["kind"], &forced["spec"]["replicas"]), (&json!("Scale"), &json!(4)));
    let scaled = server.get(path).await.ok();
    assert_eq!(scaled["spec"]["replicas"], 4);
    assert!(names(&scaled).contains(&"scaler Apply scale".to_string()));
    // Who applies a status through the object itself owns none of it and changes none of it.
    let applied = server.apply(path, "whole", &status).await;
    let message =
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\": .spec.replicas";
    assert_eq!(applied.failure().2, message);
}

#[tokio::test]
async fn what_cannot_be_applied_is_answered_as_upstream_does() {
    let server = Server::start().await;
    let path = &format!("{CONFIG_MAPS}/a");
    let refused = async |path: &str, config: Value| server.patch(path, APPLY, &config).await.failure();
    let named = format!("{path}?fieldManager=m");
    let good = config_map(json!({}));
    let table = [
        (
            path.clone(),
            good.clone(),
            422,
            r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#,
        ),
        (
            named.clone(),
            json!([]),
            400,
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (
            named.clone(),
            json!({"apiVersion": "v1", "kind": "Pod"}),
            400,
            "invalid object type: /v1, Kind=Pod",
        ),
        (
            named.clone(),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}}),
            400,
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        (
            named.clone(),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "managedFields": []}}),
            400,
            "metadata.managedFields must be nil",
        ),
        (
            named.clone(),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "dat": 1}),
            500,
            "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .dat: field not declared in schema",
        ),
    ];
    for (path, config, code, message) in table {
        let (actual, _, text) = refused(&path, config).await;
        assert_eq!((actual, text.as_str()), (code, message));
    }
    let uid = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "uid": "1"}});
    let message = "Operation cannot be fulfilled on configmaps \"a\": uid mismatch: the provided object specified uid 1, and no existing object was found";
    assert_eq!(refused(&named, uid).await, (409, "Conflict".into(), message.into()));

    server.post(CONFIG_MAPS, &good).await.ok();
    let forced = server.patch(&format!("{path}?force=true"), MERGE, &json!({})).await.failure();
    assert_eq!(
        forced.2,
        r#"PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch"#
    );
    let long = "x".repeat(129);
    let forced = server.patch(&format!("{path}?fieldManager={long}"), MERGE, &json!({})).await.failure();
    assert_eq!(
        forced.2,
        r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Too long: may not be more than 128 bytes"#
    );
    let twice = "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\"},\"data\":{\"x\":\"1\",\"x\":\"2\"}}";
    let strict =
        server.raw(Method::PATCH, &format!("{named}&fieldValidation=Strict"), APPLY, twice).await.failure();
    let message = "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 1: key \"x\" already set in map";
    assert_eq!((strict.0, strict.2.as_str()), (400, message));
    let absent = named.replace("/a?", "/b?");
    let twice_absent = twice.replace("\"name\":\"a\"", "\"name\":\"b\"");
    let strict = format!("{absent}&fieldValidation=Strict");
    assert_eq!(server.raw(Method::PATCH, &strict, APPLY, twice_absent).await.code, 400);
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/b")).await.code, 404, "what is refused is not stored");
    let warned = server.raw(Method::PATCH, &named, APPLY, twice).await;
    assert!(warned.headers.contains_key(header::WARNING));
}

#[tokio::test]
async fn the_parts_of_the_cluster_go_by_upstreams_names() {
    let cluster = crate::cluster::Cluster::start().await;
    let admin = cluster.admin();
    let role = admin.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/view").await.ok();
    assert_eq!(names(&role), ["kube-apiserver Update"]);
    let node = json!({"metadata": {"name": "n1", "labels": {"a": "b"}}});
    cluster.kubelet("n1").post("/api/v1/nodes", &node).await.ok();
    let status = json!({"status": {"capacity": {"cpu": "1"}}});
    let node = cluster.kubelet("n1").patch("/api/v1/nodes/n1/status", STRATEGIC, &status).await.ok();
    assert_eq!(names(&node), ["kubelet Update", "kubelet Update status"]);

    let pod = admin.post(&format!("{PODS}?fieldManager=me"), &pod("p")).await.ok();
    // What admission adds is nobody's.
    let spec = &owners(&pod)[0].3["f:spec"];
    assert!(pod["spec"]["tolerations"].is_array() && spec.get("f:tolerations").is_none(), "{spec}");
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    admin.post(&format!("{PODS}/p/binding"), &binding).await.ok();
    let bound = admin.get(&format!("{PODS}/p")).await.ok();
    assert_eq!(bound["metadata"]["managedFields"], pod["metadata"]["managedFields"]);
}

#[tokio::test]
async fn who_may_not_create_cannot_by_applying() {
    let cluster = crate::cluster::Cluster::start().await;
    let role = json!({"metadata": {"name": "patcher"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch", "update", "get"]}]});
    let admin = cluster.admin();
    let base = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    admin.post(&format!("{base}/roles"), &role).await.ok();
    let binding = json!({
        "metadata": {"name": "patcher"},
        "subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "Role", "name": "patcher", "apiGroup": "rbac.authorization.k8s.io"},
    });
    admin.post(&format!("{base}/rolebindings"), &binding).await.ok();
    let eve = cluster.user("eve");
    let path = &format!("{CONFIG_MAPS}/a");
    let refused = eve.apply(path, "m", &config_map(json!({"x": "1"}))).await.failure();
    assert_eq!(refused.0, 403);
    assert!(refused.2.contains("cannot create resource \"configmaps\""), "{}", refused.2);
    admin.post(CONFIG_MAPS, &config_map(json!({}))).await.ok();
    assert_eq!(eve.apply(path, "m", &config_map(json!({"x": "1"}))).await.code, 200);
}

#[tokio::test]
async fn custom_resources_are_applied_by_their_schemas() {
    let server = Server::start().await;
    let port = json!({"type": "object", "required": ["port"], "properties": {
        "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "name": {"type": "string"}}});
    let spec = json!({"type": "object", "properties": {
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"], "items": port},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "steps": {"type": "array", "items": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }});
    let version = |name: &str, storage: bool| {
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
        json!({"name": name, "served": true, "storage": storage, "schema": schema})
    };
    let definition = json!({
        "metadata": {"name": "gates.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "gates", "kind": "Gate"},
            "versions": [version("v1", true), version("v1beta1", false)],
        },
    });
    server.define(&definition).await;
    let gate = |version: &str, spec: Value| json!({"apiVersion": format!("example.com/{version}"), "kind": "Gate", "metadata": {"name": "g"}, "spec": spec});
    let path = |version: &str| format!("/apis/example.com/{version}/namespaces/default/gates/g");

    let one = json!({"ports": [{"port": 1}], "tags": ["a"], "steps": ["x"], "free": {"deep": {"x": 1}}});
    server.apply(&path("v1"), "one", &gate("v1", one)).await.ok();
    let two = json!({"ports": [{"port": 1, "protocol": "TCP", "name": "p"}, {"port": 1, "protocol": "UDP"}], "tags": ["b", "a"], "free": {"deep": {"y": 1}}});
    let both = server.apply(&path("v1beta1"), "two", &gate("v1beta1", two)).await.ok();
    assert_eq!(both["spec"]["ports"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&both["spec"]["tags"], &both["spec"]["free"]),
        (&json!(["b", "a"]), &json!({"deep": {"x": 1, "y": 1}}))
    );

    let conflict = server
        .apply(&path("v1beta1"), "two", &gate("v1beta1", json!({"steps": ["y"], "free": {"deep": {"x": 2}}})))
        .await
        .failure();
    assert_eq!(
        conflict.2,
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.steps\n- .spec.free.deep.x"
    );
    let pruned = server.apply(&path("v1"), "one", &gate("v1", json!({}))).await.ok();
    assert_eq!(pruned["spec"]["tags"], json!(["b", "a"]));
    assert_eq!(pruned["spec"]["free"], json!({"deep": {"y": 1}}));
    assert!(pruned["spec"].get("steps").is_none(), "{pruned}");
    let unknown = server.apply(&path("v1"), "one", &gate("v1", json!({"gap": 1}))).await.failure();
    assert_eq!(
        (unknown.0, unknown.2.ends_with(".spec.gap: field not declared in schema")),
        (500, true),
        "{unknown:?}"
    );
}

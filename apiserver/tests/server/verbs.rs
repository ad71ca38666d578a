//! get, create, update and patch of one object.

use http::{Method, StatusCode};
use serde_json::json;

use crate::client::*;

#[tokio::test]
async fn a_created_object_is_answered_and_read_back_the_same() {
    let server = Server::start().await;
    let answer = server.post(CONFIG_MAPS, &json!({"metadata": {"name": "a"}, "data": {"x": "1"}})).await;
    assert_eq!(answer.code, StatusCode::CREATED);
    let created = answer.ok();
    assert_eq!(created["kind"], "ConfigMap");
    assert_eq!(created["apiVersion"], "v1");
    assert_eq!(created["metadata"]["namespace"], "default");
    assert_ne!(version(&created), "");
    assert_eq!(created["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert!(created["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/a")).await.ok(), created);
    let again = server.post(CONFIG_MAPS, &json!({"metadata": {"name": "a"}})).await.failure();
    assert_eq!(again, (409, "AlreadyExists".into(), "configmaps \"a\" already exists".into()));
    let missing = server.get(&format!("{CONFIG_MAPS}/b")).await.failure();
    assert_eq!(missing, (404, "NotFound".into(), "configmaps \"b\" not found".into()));
}

#[tokio::test]
async fn typed_clients_send_protobuf_and_take_json() {
    let server = Server::start().await;
    // The envelope says v1 ConfigMap; the object has a metadata with the name p.
    let body = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x05\x0a\x03\x0a\x01p";
    let protobuf = "application/vnd.kubernetes.protobuf";
    let created = server.raw(Method::POST, CONFIG_MAPS, protobuf, &body[..]).await.ok();
    assert_eq!(created["metadata"]["name"], "p");
    let cut = server.raw(Method::POST, CONFIG_MAPS, protobuf, &body[..20]).await.failure();
    assert_eq!((cut.0, cut.1.as_str()), (400, "BadRequest"));
}

#[tokio::test]
async fn names_are_generated() {
    let server = Server::start().await;
    let object = json!({"metadata": {"generateName": "web-"}});
    let first = server.post(CONFIG_MAPS, &object).await.ok();
    let second = server.post(CONFIG_MAPS, &object).await.ok();
    let name = first["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let server = Server::start().await;
    let object = json!({"metadata": {"name": "a"}, "data": {"x": "1"}});
    let created = server.post(&format!("{CONFIG_MAPS}?dryRun=All"), &object).await.ok();
    assert_ne!(created["metadata"]["uid"], json!(null));
    assert_eq!(version(&created), "");
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/a")).await.code, StatusCode::NOT_FOUND);

    let stored = server.post(CONFIG_MAPS, &object).await.ok();
    let path = format!("{CONFIG_MAPS}/a?dryRun=All");
    let patched = server.patch(&path, MERGE, &json!({"data": {"x": "2"}})).await.ok();
    assert_eq!(patched["data"]["x"], "2");
    server.delete(&path).await.ok();
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/a")).await.ok(), stored);
}

#[tokio::test]
async fn an_update_must_be_of_the_newest_version() {
    let server = Server::start().await;
    let first = server.config_map("a", json!({})).await;
    let path = format!("{CONFIG_MAPS}/a");
    let mut change = first.clone();
    change["data"]["a"] = "2".into();
    let second = server.put(&path, &change).await.ok();
    assert_ne!(version(&first), version(&second));
    assert_eq!(second["metadata"]["uid"], first["metadata"]["uid"]);

    let (code, reason, message) = server.put(&path, &change).await.failure();
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert_eq!(
        message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    // Without a version it is meant whatever is there.
    change["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    change["data"]["a"] = "3".into();
    assert_eq!(server.put(&path, &change).await.ok()["data"]["a"], "3");

    change["metadata"]["uid"] = "somebody-else".into();
    let (code, _, message) = server.put(&path, &change).await.failure();
    assert_eq!(code, 409);
    assert!(message.contains("Precondition failed: UID in precondition: somebody-else"), "{message}");
}

#[tokio::test]
async fn an_update_of_nothing_creates_only_what_upstream_creates() {
    let server = Server::start().await;
    let object = json!({"metadata": {"name": "a"}});
    let missing = server.put(&format!("{CONFIG_MAPS}/a"), &object).await.failure();
    assert_eq!(missing.0, 404);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases/a";
    let created = server.put(leases, &object).await;
    assert_eq!(created.code, StatusCode::CREATED);
    assert_eq!(server.put(leases, &created.ok()).await.code, StatusCode::OK);
}

#[tokio::test]
async fn what_changes_nothing_writes_nothing() {
    let server = Server::start().await;
    let first = server.config_map("a", json!({"l": "1"})).await;
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(server.put(&path, &first).await.ok(), first);
    let same = server.patch(&path, MERGE, &json!({"metadata": {"labels": {"l": "1"}}})).await.ok();
    assert_eq!(same, first);
}

#[tokio::test]
async fn every_sort_of_patch_is_applied() {
    let server = Server::start().await;
    server.post(PODS, &pod("a")).await.ok();
    let path = format!("{PODS}/a");
    let merged =
        server.patch(&path, MERGE, &json!({"metadata": {"labels": {"app": null, "x": "1"}}})).await.ok();
    assert_eq!(merged["metadata"]["labels"], json!({"x": "1"}));
    let operations = json!([
        {"op": "test", "path": "/metadata/labels/x", "value": "1"},
        {"op": "replace", "path": "/metadata/labels/x", "value": "2"},
    ]);
    assert_eq!(server.patch(&path, JSON_PATCH, &operations).await.ok()["metadata"]["labels"]["x"], "2");
    let image = json!({"spec": {"containers": [{"name": "main", "image": "busybox:2"}]}});
    let patched = server.patch(&path, STRATEGIC, &image).await.ok();
    assert_eq!(patched["spec"]["containers"][0]["image"], "busybox:2");
    assert_eq!(patched["spec"]["containers"][0]["terminationMessagePolicy"], "File");
    let unknown = server.raw(Method::PATCH, &path, "application/x-patch", "{}").await.failure();
    assert_eq!((unknown.0, unknown.1.as_str()), (415, "UnsupportedMediaType"));
    let stale = json!({"metadata": {"resourceVersion": "1", "labels": {"x": "3"}}});
    assert_eq!(server.patch(&path, MERGE, &stale).await.failure().0, 409);
    let missing = server.patch(&format!("{PODS}/nobody"), MERGE, &json!({})).await.failure();
    assert_eq!(missing.0, 404);
}

#[tokio::test]
async fn a_new_spec_is_a_new_generation() {
    let server = Server::start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let created = server.post(deployments, &deployment("web")).await.ok();
    assert_eq!(created["metadata"]["generation"], 1);
    let path = format!("{deployments}/web");
    let labelled = server.patch(&path, MERGE, &json!({"metadata": {"labels": {"x": "1"}}})).await.ok();
    assert_eq!(labelled["metadata"]["generation"], 1);
    let scaled = server.patch(&path, MERGE, &json!({"spec": {"replicas": 3}})).await.ok();
    assert_eq!(scaled["metadata"]["generation"], 2);
    let status =
        server.patch(&format!("{path}/status"), MERGE, &json!({"status": {"replicas": 3}})).await.ok();
    assert_eq!(status["metadata"]["generation"], 2);
    assert_eq!(status["status"]["replicas"], 3);
    // The object itself does not carry the status, nor the status the spec.
    let both = json!({"spec": {"replicas": 9}, "status": {"replicas": 9}});
    let status = server.patch(&format!("{path}/status"), MERGE, &both).await.ok();
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(3), &json!(9)));
    let whole = server.patch(&path, MERGE, &json!({"status": {"replicas": 1}})).await.ok();
    assert_eq!(whole["status"]["replicas"], 9);
}

#[tokio::test]
async fn events_are_the_same_object_in_both_groups() {
    let server = Server::start().await;
    let event = json!({
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default"},
        "reason": "Started",
        "message": "hello",
        "type": "Normal",
    });
    server.post("/api/v1/namespaces/default/events", &event).await.ok();
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let same = server.get(&format!("{path}/e")).await.ok();
    assert_eq!((&same["note"], &same["apiVersion"]), (&json!("hello"), &json!("events.k8s.io/v1")));
    let list = server.get(&format!("{path}?fieldSelector=regarding.name%3Dweb")).await.ok();
    assert_eq!(list["items"][0]["regarding"]["name"], "web");
}

#[tokio::test]
async fn many_writers_at_once_lose_nothing() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let path = format!("{CONFIG_MAPS}/a");
    let patches = (0..50).map(|index| {
        let patch = json!({"data": {format!("k{index}"): "1"}});
        let (server, path) = (&server, &path);
        async move { server.patch(path, MERGE, &patch).await.ok() }
    });
    futures::future::join_all(patches).await;
    assert_eq!(server.get(&path).await.ok()["data"].as_object().unwrap().len(), 51);
}

#[tokio::test]
async fn what_is_no_version_or_names_an_owner_twice_is_taken_as_upstream_does() {
    let server = Server::start().await;
    let version = |text: &str| json!({"metadata": {"name": "a", "resourceVersion": text}});
    assert_eq!(server.post(CONFIG_MAPS, &version("5")).await.failure().0, 500);
    assert_eq!(server.post(CONFIG_MAPS, &version("0")).await.code, StatusCode::CREATED);
    let path = format!("{CONFIG_MAPS}/a");
    let (code, _, message) = server.put(&path, &version("x")).await.failure();
    assert_eq!((code, message.as_str()), (500, "strconv.ParseUint: parsing \"x\": invalid syntax"));

    // A version of what is gone does not hinder those who make it anew.
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    assert_eq!(server.put(&format!("{leases}/a"), &version("5")).await.code, StatusCode::CREATED);
    let applied =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b", "resourceVersion": "5"}});
    let path = format!("{CONFIG_MAPS}/b?fieldManager=me");
    assert_eq!(server.patch(&path, "application/apply-patch+yaml", &applied).await.code, StatusCode::CREATED);
    let gone = json!({"metadata": {"name": "c", "uid": "x"}});
    let (code, _, message) = server.put(&format!("{leases}/c"), &gone).await.failure();
    assert_eq!(code, 409, "{message}");

    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"});
    let owned = json!({"metadata": {"name": "d", "ownerReferences": [owner, owner]}});
    let made = server.post(CONFIG_MAPS, &owned).await;
    let warning = made.headers["warning"].to_str().unwrap().to_string();
    assert!(
        warning.contains(".metadata.ownerReferences contains duplicate entries; API server"),
        "{warning}"
    );
    assert_eq!(made.ok()["metadata"]["ownerReferences"], json!([owner]));
}

#[tokio::test]
async fn a_path_ends_where_the_resource_does_and_only_proxies_are_asked_for_heads() {
    let server = Server::start().await;
    server.post(PODS, &pod("a")).await.ok();
    assert_eq!(server.get(&format!("{PODS}/a/status/more")).await.code, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/api/v1/bindings").await.code, StatusCode::NOT_FOUND);
    for path in [PODS.to_string(), format!("{PODS}/a"), format!("{PODS}/a/log")] {
        let answer = server.raw(Method::HEAD, &path, "", "").await;
        assert_eq!(answer.code, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    for document in ["/apis", "/apis/apps/v1", "/api/v1", "/version", "/openapi/v2"] {
        let answer = server.raw(Method::POST, document, "", "").await;
        assert_eq!(answer.code, StatusCode::METHOD_NOT_ALLOWED, "{document}");
    }
    let forwarded = server.raw(Method::PUT, &format!("{PODS}/a/portforward"), "", "").await;
    assert_eq!(forwarded.code, StatusCode::METHOD_NOT_ALLOWED);
}

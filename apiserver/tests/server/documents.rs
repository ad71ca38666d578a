//! What a server says about itself.

use axum::body::Body;
use http::{Request, StatusCode, header};
use serde_json::json;

use crate::client::*;

#[tokio::test]
async fn kubectl_finds_what_there_is() {
    let server = Server::start().await;
    assert_eq!(server.get("/api").await.ok()["versions"], json!(["v1"]));
    let groups = server.get("/apis").await.ok();
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().filter_map(|group| group["name"].as_str()).collect();
    for name in ["apps", "batch", "rbac.authorization.k8s.io", "events.k8s.io"] {
        assert!(names.contains(&name), "{name}");
    }
    let core = server.get("/api/v1").await.ok();
    assert_eq!((&core["kind"], &core["groupVersion"]), (&json!("APIResourceList"), &json!("v1")));
    assert_eq!(server.get("/apis/apps").await.ok()["preferredVersion"]["version"], "v1");
    assert_eq!(server.get("/apis/nobody").await.failure().0, 404);
    assert_eq!(server.get("/apis/apps/v9").await.failure().0, 404);
}

#[tokio::test]
async fn discovery_comes_at_once_and_only_if_it_changed() {
    let server = Server::start().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let answer = server.get_as("/apis", accept).await;
    assert_eq!(
        answer.headers[header::CONTENT_TYPE],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let tag = answer.headers[header::ETAG].clone();
    let list = answer.ok();
    let apps = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|group| group["metadata"]["name"] == "apps")
        .unwrap()
        .clone();
    let resources = apps["versions"][0]["resources"].as_array().unwrap();
    let deployments = resources.iter().find(|resource| resource["resource"] == "deployments").unwrap();
    assert_eq!(deployments["singularResource"], "deployment");
    assert_eq!(deployments["subresources"][0]["responseKind"]["kind"], "Scale");
    let again = Request::get("/apis").header(header::ACCEPT, accept).header(header::IF_NONE_MATCH, tag);
    assert_eq!(server.send(again.body(Body::empty()).unwrap()).await.code, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn schemas_can_be_read() {
    let server = Server::start().await;
    let index = server.get("/openapi/v3").await.ok();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_string();
    let document = server.get(&url).await.ok();
    assert!(document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    let old = server.get("/openapi/v2").await.ok();
    assert!(old["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
}

#[tokio::test]
async fn health_version_and_metrics_are_served() {
    let server = Server::start().await;
    for path in ["/healthz", "/livez", "/readyz", "/livez/ping", "/readyz/etcd"] {
        let answer = server.get(path).await;
        assert_eq!((answer.code, &answer.bytes[..]), (StatusCode::OK, &b"ok"[..]), "{path}");
    }
    let verbose = server.get("/readyz?verbose").await;
    let text = String::from_utf8(verbose.bytes.to_vec()).unwrap();
    assert!(text.contains("[+]ping ok\n") && text.ends_with("readyz check passed\n"), "{text}");
    assert_eq!(server.get("/livez/unicorn").await.code, StatusCode::NOT_FOUND);
    let version = server.get("/version").await.ok();
    assert_eq!(
        (&version["gitVersion"], &version["gitCommit"]),
        (&json!("v1.37.0+coracle"), &json!("c0ffee"))
    );
    let paths = server.get("/").await.ok();
    assert!(paths["paths"].as_array().unwrap().contains(&json!("/apis/apps/v1")));
    server.get(PODS).await.ok();
    let metrics = server.get("/metrics").await;
    let text = String::from_utf8(metrics.bytes.to_vec()).unwrap();
    assert!(text.contains("apiserver_request_total{"), "{text}");
    assert_eq!(server.get("/nowhere").await.code, StatusCode::NOT_FOUND);
}

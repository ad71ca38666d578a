//! Groups of the API behind other servers.

use apiserver::request::User;
use serde_json::{Value, json};

use crate::{client::*, cluster::Cluster, extension::Extension};

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const FLUNDERS: &str = "/apis/wardle.example.com/v1/namespaces/default/flunders";

fn api_service(port: u16, bundle: &str) -> Value {
    json!({
        "metadata": {"name": "v1.wardle.example.com"},
        "spec": {
            "group": "wardle.example.com", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 10,
            "service": {"namespace": "default", "name": "wardle", "port": port}, "caBundle": bundle,
        },
    })
}

/// Waits until the condition says this.
async fn condition(admin: &Server, reason: &str, message: &str) {
    let path = format!("{API_SERVICES}?watch=true&fieldSelector=metadata.name%3Dv1.wardle.example.com");
    let mut watch = admin.watch(&path).await;
    loop {
        let event = watch.event().await.expect("the watch goes on");
        let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|one| one["reason"] == reason && one["message"] == message) {
            return;
        }
    }
}

async fn aggregated(cluster: &Cluster) -> Extension {
    let extension = Extension::start(cluster.pki.front_proxy_ca_certificate()).await;
    let admin = cluster.admin();
    let service = json!({"metadata": {"name": "wardle"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    admin.post("/api/v1/namespaces/default/services", &service).await.ok();
    admin.post(API_SERVICES, &api_service(extension.port, &extension.bundle)).await.ok();
    condition(&admin, "Passed", "all checks passed").await;
    extension
}

#[tokio::test]
async fn requests_reach_the_other_server_in_the_users_name() {
    let cluster = Cluster::start().await;
    let extension = aggregated(&cluster).await;
    let mut user = User::new("jane", &["devs", "system:masters"]);
    user.extra.insert("scope".into(), vec!["read".into()]);
    let jane = cluster.client(user);
    let list = jane.get(FLUNDERS).await.ok();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("FlunderList"), 2));
    let headers = extension.seen.lock().unwrap().last().unwrap().clone();
    assert_eq!(headers["x-remote-user"], "jane");
    let groups: Vec<&str> =
        headers.get_all("x-remote-group").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(groups, ["devs", "system:masters"]);
    assert_eq!(headers["x-remote-extra-scope"], "read");

    let made = jane.post(FLUNDERS, &json!({"kind": "Flunder", "metadata": {"name": "c"}})).await;
    assert_eq!(made.code, 201);
    let mut watch = jane.watch(&format!("{FLUNDERS}?watch=true")).await;
    assert_eq!(watch.next().await, ("ADDED".into(), "a".into()));
    assert_eq!(watch.next().await, ("ADDED".into(), "b".into()));

    let (code, reason, _) = cluster.user("nobody").get(FLUNDERS).await.failure();
    assert_eq!((code, reason.as_str()), (403, "Forbidden"), "authorization comes first");
}

#[tokio::test]
async fn one_discovery_tells_of_all_servers() {
    let cluster = Cluster::start().await;
    let _extension = aggregated(&cluster).await;
    let admin = cluster.admin();
    let groups = admin.get("/apis").await.ok();
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
    let place = |name: &str| names.iter().position(|one| *one == name).unwrap();
    assert!(place("apiregistration.k8s.io") < place("apps") && place("apps") < place("wardle.example.com"));
    let group = admin.get("/apis/wardle.example.com").await.ok();
    assert_eq!(group["preferredVersion"]["groupVersion"], "wardle.example.com/v1");
    let resources = admin.get("/apis/wardle.example.com/v1").await.ok();
    assert_eq!(resources["resources"][0]["name"], "flunders");

    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = admin.get_as("/apis", accept).await.ok();
    let mut items = all["items"].as_array().unwrap().iter();
    let item = items.find(|item| item["metadata"]["name"] == "wardle.example.com").unwrap();
    assert_eq!(item["versions"][0]["resources"][0]["responseKind"]["kind"], "Flunder");

    let index = admin.get("/openapi/v3").await.ok();
    let url = index["paths"]["apis/wardle.example.com/v1"]["serverRelativeURL"].as_str().unwrap();
    assert_eq!(admin.get(url).await.ok()["info"]["title"], "wardle");
    assert!(index["paths"]["apis/apps/v1"].is_object());

    let document = admin.get("/openapi/v2").await.ok();
    let flunders = "/apis/wardle.example.com/v1/namespaces/{namespace}/flunders/{name}";
    let schema = &document["paths"][flunders]["get"]["responses"]["200"]["schema"];
    assert_eq!(schema["$ref"], "#/definitions/wardle.v1.Flunder");
    let definitions = &document["definitions"];
    assert_eq!(definitions["wardle.v1.Flunder"]["description"], "Something that flunds.");
    let metadata = &definitions["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"];
    assert!(metadata["properties"]["labels"].is_object(), "what both have is ours: {metadata}");
    assert!(document["paths"]["/version"].get("get").is_none_or(|get| get["responses"].is_object()));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_so() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.post(API_SERVICES, &api_service(443, "")).await.ok();
    condition(&admin, "ServiceNotFound", r#"service/wardle in "default" is not present"#).await;
    let answer = admin.get(FLUNDERS).await;
    assert_eq!((answer.code.as_u16(), &answer.bytes[..]), (503, &b"service unavailable\n"[..]));
    let service =
        json!({"metadata": {"name": "wardle"}, "spec": {"ports": [{"name": "https", "port": 443}]}});
    admin.post("/api/v1/namespaces/default/services", &service).await.ok();
    let nobody = r#"cannot find endpointslices for service/wardle in "default""#;
    condition(&admin, "EndpointsNotFound", nobody).await;

    admin.delete(&format!("{API_SERVICES}/v1.wardle.example.com")).await.ok();
    assert_eq!(admin.get(FLUNDERS).await.code, 404);
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_not_trusted() {
    let cluster = Cluster::start().await;
    let other = Extension::start(cluster.pki.front_proxy_ca_certificate()).await;
    let extension = Extension::start(cluster.pki.front_proxy_ca_certificate()).await;
    let admin = cluster.admin();
    let service = json!({"metadata": {"name": "wardle"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    admin.post("/api/v1/namespaces/default/services", &service).await.ok();
    admin.post(API_SERVICES, &api_service(extension.port, &other.bundle)).await.ok();
    let url = format!("https://wardle.default.svc:{}/apis/wardle.example.com/v1", extension.port);
    let expected = format!(
        "failing or missing response from {url}: Get \"{url}\": tls: failed to verify certificate: x509: certificate signed by unknown authority"
    );
    condition(&admin, "FailedDiscoveryCheck", &expected).await;
    // A skip of all checks is upstream's way, too.
    let patch = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    admin.patch(&format!("{API_SERVICES}/v1.wardle.example.com"), MERGE, &patch).await.ok();
    condition(&admin, "Passed", "all checks passed").await;
}

#[tokio::test]
async fn local_groups_have_api_services_and_those_of_definitions_come_and_go() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let apps = admin.get(&format!("{API_SERVICES}/v1.apps")).await.ok();
    let condition = &apps["status"]["conditions"][0];
    assert_eq!(
        (&condition["reason"], &condition["message"]),
        (&json!("Local"), &json!("Local APIServices are always available"))
    );
    assert_eq!(apps["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    let mut watch = admin
        .watch(&format!("{API_SERVICES}?watch=true&fieldSelector=metadata.name%3Dv1.stable.example.com"))
        .await;
    let definition = json!({
        "metadata": {"name": "widgets.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    admin.post(definitions, &definition).await.ok();
    assert_eq!(watch.next().await.0, "ADDED");
    admin.delete(&format!("{definitions}/widgets.stable.example.com")).await.ok();
    loop {
        if watch.next().await.0 == "DELETED" {
            break;
        }
    }
}

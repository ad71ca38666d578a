//! Where Services have their addresses from: ServiceCIDRs, and an IPAddress for each.

use std::{collections::HashSet, sync::Arc};

use apiserver::{alloc::repair, bootstrap};
use futures::future::join_all;
use serde_json::{Value, json};
use store::{Store, embedded::Embedded};

use crate::{
    client::*,
    cluster::{Cluster, SERVICES, Setup, bootstrap_config, service},
};

const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";

async fn small() -> Cluster {
    // Two addresses, of which the Service `kubernetes` has one.
    Cluster::start_as(Setup { service_range: Some("10.96.0.0/30"), ..Setup::default() }).await
}

fn address_of(service: &Value) -> String {
    service["spec"]["clusterIP"].as_str().unwrap().to_string()
}

fn address(name: &str, parent: Value) -> Value {
    let labels = json!({
        "ipaddress.kubernetes.io/ip-family": "IPv4",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    });
    json!({"metadata": {"name": name, "labels": labels}, "spec": {"parentRef": parent}})
}

fn cidr(name: &str, range: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"cidrs": [range]}})
}

/// Names of the IPAddresses there are.
async fn names(admin: &Server) -> Vec<String> {
    let list = admin.get(ADDRESSES).await.ok();
    let names = list["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]);
    names.map(|name| name.as_str().unwrap().to_string()).collect()
}

/// Reasons and notes of the events about an object.
async fn told(admin: &Server, name: &str) -> Vec<(String, String)> {
    let list = admin.get("/apis/events.k8s.io/v1/namespaces/default/events").await.ok();
    let about = list["items"].as_array().unwrap().iter().filter(|event| event["regarding"]["name"] == name);
    let text = |value: &Value| value.as_str().unwrap().to_string();
    about.map(|event| (text(&event["reason"]), text(&event["note"]))).collect()
}

#[tokio::test]
async fn every_address_has_an_object_for_as_long_as_its_service() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let kubernetes = admin.get(&format!("{ADDRESSES}/10.96.0.1")).await.ok();
    assert_eq!(kubernetes["spec"]["parentRef"]["name"], "kubernetes");
    let made = admin.post(SERVICES, &service("web", json!({}))).await.ok();
    let path = format!("{ADDRESSES}/{}", address_of(&made));
    let object = admin.get(&path).await.ok();
    assert_eq!(
        object["metadata"]["labels"],
        json!({"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"})
    );
    let parent = json!({"resource": "services", "namespace": "default", "name": "web"});
    assert_eq!(object["spec"]["parentRef"], parent);
    let headless = service("headless", json!({"clusterIP": "None"}));
    admin.post(SERVICES, &headless).await.ok();
    assert_eq!(names(&admin).await.len(), 2);

    // A Service that needs no address any more gives its own back; one that needs one again gets one.
    let web = format!("{SERVICES}/web");
    let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com", "clusterIP": null, "clusterIPs": null}});
    admin.patch(&web, MERGE, &external).await.ok();
    assert_eq!(names(&admin).await, ["10.96.0.1"]);
    let back =
        admin.patch(&web, MERGE, &json!({"spec": {"type": "ClusterIP", "externalName": null}})).await.ok();
    assert!(names(&admin).await.contains(&address_of(&back)));
    admin.delete(&web).await.ok();
    assert_eq!(names(&admin).await, ["10.96.0.1"]);

    // One that has a finalizer keeps it until it is gone.
    let mut held = service("held", json!({"clusterIP": "10.96.0.50"}));
    held["metadata"]["finalizers"] = json!(["example.com/held"]);
    admin.post(SERVICES, &held).await.ok();
    admin.delete(&format!("{SERVICES}/held")).await.ok();
    assert!(names(&admin).await.contains(&"10.96.0.50".to_string()));
    admin.patch(&format!("{SERVICES}/held"), MERGE, &json!({"metadata": {"finalizers": null}})).await.ok();
    assert_eq!(names(&admin).await, ["10.96.0.1"]);
}

#[tokio::test]
async fn a_service_that_is_not_stored_leaves_no_address_behind() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"services": "1"}}});
    admin.post("/api/v1/namespaces/default/resourcequotas", &quota).await.ok();
    let wanted = service("web", json!({"clusterIP": "10.96.0.10"}));
    let (code, _, message) = admin.post(SERVICES, &wanted).await.failure();
    assert_eq!(code, 403, "{message}");
    assert_eq!(names(&admin).await, ["10.96.0.1"]);
    admin.delete("/api/v1/namespaces/default/resourcequotas/none").await.ok();
    let before = cluster.store.revision().await.unwrap();
    let tried = admin.post(&format!("{SERVICES}?dryRun=All"), &wanted).await.ok();
    assert_eq!(address_of(&tried), "10.96.0.10");
    assert_eq!(cluster.store.revision().await.unwrap(), before, "a dry run writes nothing");
    admin.post(SERVICES, &wanted).await.ok();
    let (code, ..) = admin.post(SERVICES, &service("web", json!({}))).await.failure();
    assert_eq!((code, names(&admin).await), (409, vec!["10.96.0.1".into(), "10.96.0.10".into()]));
}

#[tokio::test]
async fn what_somebody_else_has_an_object_for_is_not_handed_out() {
    let cluster = small().await;
    let admin = cluster.admin();
    let gateway = json!({"group": "gateway.networking.k8s.io", "resource": "gateways", "namespace": "default", "name": "g"});
    admin.post(ADDRESSES, &address("10.96.0.2", gateway)).await.ok();
    let asked = service("web", json!({"clusterIP": "10.96.0.2"}));
    let (code, _, message) = admin.post(SERVICES, &asked).await.failure();
    assert_eq!(
        (code, message.as_str()),
        (
            422,
            r#"Service "web" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.2"]: failed to allocate IP 10.96.0.2: provided IP is already allocated"#
        )
    );
    let (code, _, message) = admin.post(SERVICES, &service("web", json!({}))).await.failure();
    assert_eq!(code, 500);
    assert!(message.ends_with("failed to allocate a serviceIP: range is full"), "{message}");
    admin.delete(&format!("{ADDRESSES}/10.96.0.2")).await.ok();
    assert_eq!(address_of(&admin.post(SERVICES, &asked).await.ok()), "10.96.0.2");
}

#[tokio::test]
async fn added_ranges_are_used_when_the_first_is_full_or_an_address_of_theirs_is_wanted() {
    let cluster = small().await;
    let admin = cluster.admin();
    let outside = service("outside", json!({"clusterIP": "192.0.2.9"}));
    let (code, _, message) = admin.post(SERVICES, &outside).await.failure();
    assert_eq!(
        (code, message.as_str()),
        (
            422,
            r#"Service "outside" is invalid: spec.clusterIPs: Invalid value: ["192.0.2.9"]: failed to allocate IP 192.0.2.9: the provided network does not match the current range"#
        )
    );
    admin.post(CIDRS, &cidr("more", "192.0.2.0/29")).await.ok();
    assert_eq!(admin.post(SERVICES, &outside).await.failure().0, 422);
    let inside = service("inside", json!({"clusterIP": "192.0.2.5"}));
    admin.post(SERVICES, &inside).await.ok();
    let make = async |name: &str| admin.post(SERVICES, &service(name, json!({}))).await;
    assert_eq!(address_of(&make("first").await.ok()), "10.96.0.2", "the cluster's own range comes first");
    let second = address_of(&make("second").await.ok());
    assert!(second.starts_with("192.0.2."), "{second}");

    // One that is not ready, or is being deleted, gives no more.
    let ready = |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status, "reason": "", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let status = format!("{CIDRS}/more/status");
    admin.patch(&status, MERGE, &ready("False")).await.ok();
    assert_eq!(make("third").await.failure().0, 500);
    admin.patch(&status, MERGE, &ready("True")).await.ok();
    make("third").await.ok();
    let held = json!({"metadata": {"finalizers": ["networking.k8s.io/service-cidr-finalizer"]}});
    admin.patch(&format!("{CIDRS}/more"), MERGE, &held).await.ok();
    admin.delete(&format!("{CIDRS}/more")).await.ok();
    assert_eq!(make("fourth").await.failure().0, 500);
}

#[tokio::test]
async fn two_servers_on_one_store_hand_no_address_out_twice() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory().unwrap());
    let start = async || {
        let (shared_store, service_range) = (Some(store.clone()), Some("10.96.0.0/26"));
        Cluster::start_as(Setup { shared_store, service_range, ..Setup::default() }).await
    };
    let (one, other) = (start().await, start().await);
    one.service_account("default", "default").await;
    let (one, other) = (one.admin(), other.admin());
    // All but the one that `kubernetes` has.
    let objects: Vec<Value> = (0..61).map(|number| service(&format!("s{number}"), json!({}))).collect();
    let posts = objects.iter().enumerate().map(|(index, object)| {
        let server = if index % 2 == 0 { &one } else { &other };
        server.post(SERVICES, object)
    });
    let made: Vec<Value> = join_all(posts).await.into_iter().map(Answer::ok).collect();
    let addresses: HashSet<String> = made.iter().map(address_of).collect();
    assert_eq!(addresses.len(), 61);
    let full = one.post(SERVICES, &service("one-more", json!({}))).await.failure();
    assert!(full.2.ends_with("range is full"), "{full:?}");
    assert_eq!(names(&one).await.len(), 62);
}

#[tokio::test]
async fn what_a_crash_left_between_two_writes_is_mended_at_the_next_start() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    // An address whose Service was not stored any more, and a Service from before there were IPAddresses.
    let parent = json!({"resource": "services", "namespace": "default", "name": "lost"});
    admin.post(ADDRESSES, &address("10.96.0.66", parent.clone())).await.ok();
    admin.post(SERVICES, &service("old", json!({"clusterIP": "10.96.0.10"}))).await.ok();
    admin.delete(&format!("{ADDRESSES}/10.96.0.10")).await.ok();
    // Somebody else's, which is none of ours.
    let gateway =
        json!({"group": "example.com", "resource": "gateways", "namespace": "default", "name": "g"});
    let mut other = address("10.96.0.77", gateway);
    other["metadata"]["labels"] = json!({});
    admin.post(ADDRESSES, &other).await.ok();

    repair::start(&cluster.registry).await.unwrap();
    assert_eq!(names(&admin).await, ["10.96.0.1", "10.96.0.10", "10.96.0.77"]);
    let old = admin.get(&format!("{ADDRESSES}/10.96.0.10")).await.ok();
    assert_eq!(old["spec"]["parentRef"]["name"], "old");
    let missing =
        ("ClusterIPNotAllocated".into(), "Cluster IP [IPv4]: 10.96.0.10 is not allocated; repairing".into());
    assert_eq!(told(&admin, "old").await, [missing]);
    let leaked = (
        "IPAddressNotAllocated".into(),
        "IPAddress: 10.96.0.66 for Service default/lost appears to have leaked: cleaning up".into(),
    );
    assert_eq!(told(&admin, "10.96.0.66").await, [leaked]);
    let before = cluster.store.revision().await.unwrap();
    repair::start(&cluster.registry).await.unwrap();
    assert_eq!(cluster.store.revision().await.unwrap(), before, "there is nothing left to do");
}

#[tokio::test]
async fn an_object_that_somebody_deletes_or_spoils_comes_back() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    repair::start(&cluster.registry).await.unwrap();
    admin.post(SERVICES, &service("web", json!({"clusterIP": "10.96.0.10"}))).await.ok();
    let path = format!("{ADDRESSES}/10.96.0.10");
    let mut watch =
        admin.watch(&format!("{ADDRESSES}?watch=true&fieldSelector=metadata.name%3D10.96.0.10")).await;
    assert_eq!(watch.next().await.0, "ADDED");
    admin.delete(&path).await.ok();
    assert_eq!((watch.next().await.0, watch.next().await.0), ("DELETED".into(), "ADDED".into()));
    let spoilt = json!({"metadata": {"labels": {"ipaddress.kubernetes.io/managed-by": "me"}}});
    admin.patch(&path, MERGE, &spoilt).await.ok();
    for word in ["MODIFIED", "DELETED", "ADDED"] {
        assert_eq!(watch.next().await.0, word);
    }
    let labels = admin.get(&path).await.ok()["metadata"]["labels"].clone();
    assert_eq!(labels["ipaddress.kubernetes.io/managed-by"], "ipallocator.k8s.io");
    assert_eq!(told(&admin, "web").await.len(), 1, "labels are put right in silence");
}

#[tokio::test]
async fn the_default_range_comes_back_with_the_range_of_the_command_line() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let other = bootstrap_config(&cluster.pki, "10.97.0.0/16");
    bootstrap::run(&cluster.registry, &other).await.unwrap();
    let path = format!("{CIDRS}/kubernetes");
    assert_eq!(admin.get(&path).await.ok()["spec"]["cidrs"], json!(["10.96.0.0/12"]));
    let note = "The default ServiceCIDR [10.96.0.0/12] does not match the controller flag configurations [10.97.0.0/16]";
    let expected = ("KubernetesDefaultServiceCIDRInconsistent".to_string(), note.to_string());
    assert!(told(&admin, "kubernetes").await.contains(&expected));

    bootstrap::keep_range(&cluster.registry, &other.service_range);
    let mut watch = admin.watch(&format!("{CIDRS}?watch=true")).await;
    assert_eq!(watch.next().await.0, "ADDED");
    admin.delete(&path).await.ok();
    assert_eq!(watch.next().await.0, "DELETED");
    let again = watch.event().await.unwrap();
    assert_eq!(
        (&again["type"], &again["object"]["spec"]["cidrs"][0]),
        (&json!("ADDED"), &json!("10.97.0.0/16"))
    );
    let ready = watch.event().await.unwrap();
    assert_eq!(ready["object"]["status"]["conditions"][0]["status"], "True");
}

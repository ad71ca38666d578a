//! Encryption at rest, seen from outside and from the store.

use apiserver::encryption::config::Providers;
use serde_json::json;
use store::Revision;

use crate::{
    client::*,
    cluster::{Cluster, Setup},
};

const CONFIG: &str = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: ["secrets", "widgets.example.com"]
  providers:
  - aesgcm: {keys: [{name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}
  - identity: {}
"#;
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

#[tokio::test]
async fn clients_see_secrets_and_the_store_does_not() {
    let cluster = Cluster::start_as(Setup { encryption: Some(CONFIG.into()), ..Setup::default() }).await;
    let admin = cluster.admin();
    let mut watch = admin.watch(&format!("{SECRETS}?watch=true")).await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "correct horse"}});
    let made = admin.post(SECRETS, &secret).await.ok();
    assert_eq!(made["data"]["password"], "Y29ycmVjdCBob3JzZQ==");
    assert_eq!(watch.event().await.unwrap()["object"], made);
    assert_eq!(admin.get(SECRETS).await.ok()["items"][0]["data"], made["data"]);
    admin.config_map("c", json!({})).await;

    let raw = |key: &'static str| async { cluster.store.get(key, None).await.unwrap().unwrap() };
    let stored = raw("/registry/secrets/default/s").await;
    assert!(stored.value.starts_with(b"k8s:enc:aesgcm:v1:key1:"));
    let holds = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(!holds(&stored.value, "Y29ycmVjdCBob3JzZQ==") && !holds(&stored.value, "correct horse"));
    assert!(raw("/registry/configmaps/default/c").await.value.starts_with(b"{"));
    assert!(stored.mod_revision > Revision(0));

    admin.patch(&format!("{SECRETS}/s"), MERGE, &json!({"stringData": {"password": "new"}})).await.ok();
    assert_eq!(watch.event().await.unwrap()["object"]["data"]["password"], "bmV3");
    admin.delete(&format!("{SECRETS}/s")).await.ok();
    assert_eq!(watch.event().await.unwrap()["type"], "DELETED");
}

#[tokio::test]
async fn writing_an_old_secret_again_encrypts_it() {
    let cluster = Cluster::start_as(Setup { encryption: Some(CONFIG.into()), ..Setup::default() }).await;
    let plain = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "old", "namespace": "default", "uid": "u1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "type": "Opaque",
        "data": {"a": "YQ=="},
    });
    let key = "/registry/secrets/default/old";
    cluster.store.create(key, plain.to_string().into(), None).await.unwrap();
    let admin = cluster.admin();
    let read = admin.get(&format!("{SECRETS}/old")).await.ok();
    assert_eq!(read["data"], json!({"a": "YQ=="}));
    admin.put(&format!("{SECRETS}/old"), &read).await.ok();
    let stored = cluster.store.get(key, None).await.unwrap().unwrap();
    assert!(stored.value.starts_with(b"k8s:enc:aesgcm:v1:key1:"), "the first key writes");
    let again =
        admin.put(&format!("{SECRETS}/old"), &admin.get(&format!("{SECRETS}/old")).await.ok()).await.ok();
    assert_eq!(
        again["metadata"]["resourceVersion"],
        stored.mod_revision.to_string(),
        "idle writes stay idle"
    );
}

#[tokio::test]
async fn keys_are_changed_while_the_server_runs() {
    let old = "aesgcm: {keys: [{name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}";
    let new = "secretbox: {keys: [{name: key2, secret: ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=}]}";
    let config = |providers: &[&str]| {
        let providers: String = providers.iter().map(|one| format!("\n  - {one}")).collect();
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:{providers}\n"
        )
    };
    let cluster = Cluster::start_as(Setup { encryption: Some(config(&[old])), ..Setup::default() }).await;
    let (admin, encrypted) = (cluster.admin(), cluster.encrypted.clone().unwrap());
    let take_over = |providers: &[&str]| encrypted.take_over(Providers::parse(&config(providers)).unwrap());
    let secret = |name: &str| json!({"metadata": {"name": name}, "stringData": {"password": name}});
    let mut watch = admin.watch(&format!("{SECRETS}?watch=true")).await;
    let written_with = async |name: &str| {
        let key = format!("/registry/secrets/default/{name}");
        let stored = cluster.store.get(&key, None).await.unwrap().unwrap().value;
        String::from_utf8_lossy(&stored).split(':').take(5).collect::<Vec<_>>().join(":")
    };
    for name in ["a", "b"] {
        admin.post(SECRETS, &secret(name)).await.ok();
        assert_eq!(watch.next().await, ("ADDED".into(), name.into()));
    }
    assert_eq!(written_with("a").await, "k8s:enc:aesgcm:v1:key1");

    // The new key comes first and writes, the old one still reads.
    take_over(&[new, old]);
    admin.post(SECRETS, &secret("c")).await.ok();
    assert_eq!(watch.next().await, ("ADDED".into(), "c".into()));
    assert_eq!(written_with("c").await, "k8s:enc:secretbox:v1:key2");
    assert_eq!(written_with("a").await, "k8s:enc:aesgcm:v1:key1");
    for item in admin.get(SECRETS).await.ok()["items"].as_array().unwrap() {
        let name = item["metadata"]["name"].as_str().unwrap();
        admin.put(&format!("{SECRETS}/{name}"), item).await.ok();
        assert_eq!(written_with(name).await, "k8s:enc:secretbox:v1:key2", "{name}");
    }
    for name in ["a", "b"] {
        assert_eq!(watch.next().await, ("MODIFIED".into(), name.into()));
    }

    // Nothing needs the old one any more: not this server, nor one that reads everything anew.
    take_over(&[new]);
    admin.delete(&format!("{SECRETS}/b")).await.ok();
    assert_eq!(watch.next().await, ("DELETED".into(), "b".into()));
    let anew = Setup {
        encryption: Some(config(&[new])),
        shared_store: Some(cluster.store.clone()),
        ..Setup::default()
    };
    let other = Cluster::start_as(anew).await;
    let list = other.admin().get(SECRETS).await.ok();
    let read: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|item| &item["data"]["password"]).collect();
    assert_eq!(read, ["YQ==", "Yw=="]);
}

//! Encryption at rest, seen from outside and from the store.

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

//! The audit log: what is written down of a request, and what is not.

use std::sync::Arc;

use apiserver::{
    audit::{Audit, Limits, Settings},
    request::User,
};
use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    client::*,
    cluster::{Cluster, Setup},
};

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, users: ["system:apiserver"]}
- {level: Metadata, resources: [{group: "", resources: ["secrets"]}]}
- {level: Request, resources: [{group: "", resources: ["configmaps"]}], verbs: ["update", "watch"]}
- {level: RequestResponse, resources: [{group: "", resources: ["configmaps", "pods"]}]}
- {level: Metadata, nonResourceURLs: ["/version"]}
"#;

/// A cluster with an audit log.
struct Audited {
    cluster: Cluster,
    audit: Arc<Audit>,
    dir: TempDir,
}

impl Audited {
    async fn start(policy: &str) -> Audited {
        let dir = tempfile::tempdir().unwrap();
        let policy_file = dir.path().join("policy.yaml");
        std::fs::write(&policy_file, policy).unwrap();
        let log_path = dir.path().join("audit.log");
        let settings = Settings { policy_file, log_path, limits: Limits::default() };
        let audit = Audit::open(&settings).unwrap();
        let cluster = Cluster::start_as(Setup { audit: Some(audit.clone()), ..Setup::default() }).await;
        Audited { cluster, audit, dir }
    }

    async fn events(&self) -> Vec<Value> {
        self.audit.flushed().await;
        let text = std::fs::read_to_string(self.dir.path().join("audit.log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The only event about an object.
    async fn event(&self, verb: &str, resource: &str) -> Value {
        let mut events = self.events().await;
        events.retain(|event| event["verb"] == verb && event["objectRef"]["resource"] == resource);
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }
}

#[tokio::test]
async fn the_level_says_how_much_is_written_down() {
    let audited = Audited::start(POLICY).await;
    let admin = audited.cluster.admin();
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "hidden"}});
    admin.post("/api/v1/namespaces/default/secrets", &secret).await.ok();
    let made = admin.config_map("c", json!({})).await;
    admin.put(&format!("{CONFIG_MAPS}/c"), &made).await.ok();
    admin.get("/api/v1/nodes").await.ok();

    let event = audited.event("create", "secrets").await;
    assert_eq!((&event["kind"], &event["apiVersion"]), (&json!("Event"), &json!("audit.k8s.io/v1")));
    assert_eq!((&event["level"], &event["stage"]), (&json!("Metadata"), &json!("ResponseComplete")));
    assert_eq!(event["user"]["username"], "admin");
    assert_eq!(
        event["objectRef"],
        json!({"resource": "secrets", "namespace": "default", "name": "s", "apiVersion": "v1"})
    );
    assert_eq!(event["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");
    assert!(!event.to_string().contains("hidden") && event["requestObject"].is_null());

    let event = audited.event("create", "configmaps").await;
    assert_eq!(event["requestObject"]["metadata"]["name"], "c");
    assert_eq!(event["responseObject"]["metadata"]["uid"], made["metadata"]["uid"]);
    assert!(event["responseObject"]["metadata"]["managedFields"].is_null());
    let event = audited.event("update", "configmaps").await;
    assert!(event["requestObject"].is_object() && event["responseObject"].is_null());
    assert!(!audited.events().await.iter().any(|event| event["objectRef"]["resource"] == "nodes"));
}

#[tokio::test]
async fn a_refusal_is_written_down_with_its_reason() {
    let audited = Audited::start(POLICY).await;
    audited.cluster.user("ann").get("/api/v1/namespaces/default/secrets/s").await.failure();
    let event = audited.event("get", "secrets").await;
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(event["responseStatus"]["code"], 403);
    assert_eq!(event["responseStatus"]["reason"], "Forbidden");
    assert_eq!(event["responseStatus"]["status"], "Failure");
}

#[tokio::test]
async fn the_id_is_the_clients_where_it_gives_one() {
    let audited = Audited::start(POLICY).await;
    let request = Request::get("/version").header("audit-id", "from-the-client").body(Body::empty()).unwrap();
    let answer = audited.cluster.admin().send(request).await;
    assert_eq!(answer.headers["audit-id"], "from-the-client");
    let events = audited.events().await;
    let event = events.iter().find(|event| event["requestURI"] == "/version").unwrap();
    assert_eq!(event["auditID"], "from-the-client");
    let other = Server::start().await.get("/version").await;
    assert!(!other.headers["audit-id"].is_empty(), "also without an audit log");
}

#[tokio::test]
async fn a_watch_is_written_down_when_it_begins_and_when_it_ends() {
    let audited = Audited::start(POLICY).await;
    let watch = audited.cluster.admin().watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    assert_eq!(audited.event("watch", "configmaps").await["stage"], "ResponseStarted");
    drop(watch);
    let stages: Vec<Value> = audited
        .events()
        .await
        .into_iter()
        .filter(|event| event["verb"] == "watch")
        .map(|event| event["stage"].clone())
        .collect();
    assert_eq!(stages, ["ResponseStarted", "ResponseComplete"]);
}

#[tokio::test]
async fn an_impersonated_request_names_both() {
    let audited = Audited::start(POLICY).await;
    let request = Request::builder()
        .method(Method::GET)
        .uri(PODS)
        .header("impersonate-user", "ann")
        .header("user-agent", "a test")
        .body(Body::empty())
        .unwrap();
    let admin = audited.cluster.client(User::new("root", &["system:masters"]));
    assert_eq!(admin.send(request).await.code, 403);
    let event = audited.event("list", "pods").await;
    assert_eq!(event["user"]["username"], "root");
    assert_eq!(event["impersonatedUser"]["username"], "ann");
    assert_eq!((&event["userAgent"], &event["sourceIPs"]), (&json!("a test"), &json!(["127.0.0.1"])));
}

#[tokio::test]
async fn a_policy_without_rules_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let policy_file = dir.path().join("policy.yaml");
    std::fs::write(&policy_file, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []\n").unwrap();
    let settings = Settings { policy_file, log_path: dir.path().join("a.log"), limits: Limits::default() };
    assert!(Audit::open(&settings).err().unwrap().to_string().contains("0 rules"));
}

//! A server with all the rules of a cluster: bootstrap objects, admission, allocation.

use std::{collections::HashSet, net::IpAddr, path::PathBuf, sync::Arc};

use apiserver::{
    ApiServer, Config, Limits,
    audit::Audit,
    authn::{TokenAuthority, front_proxy::FrontProxies},
    bootstrap,
    cluster::{self, ClusterConfig},
    encryption::{Encrypted, config::Providers},
    pki::{ClientAuthority, Names, Pki},
    registry::Registry,
    request::User,
};
use daemon::health::Health;
use futures::future::join_all;
use serde_json::{Value, json};
use store::{Store, embedded::Embedded};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::client::*;

pub const SERVICES: &str = "/api/v1/namespaces/default/services";
const SERVICE_RANGE: &str = "10.96.0.0/12";

/// What is special about a cluster.
#[derive(Default)]
pub struct Setup {
    pub audit: Option<Arc<Audit>>,
    pub token_file: Option<PathBuf>,
    /// Whether those without credentials are refused.
    pub refuses_anonymous: bool,
    /// Whether the network is served with TLS.
    pub tls: bool,
    /// An EncryptionConfiguration.
    pub encryption: Option<String>,
    /// Where Services have their addresses from; 10.96.0.0/12 where nothing is said.
    pub service_range: Option<&'static str>,
    /// A store that others write to as well.
    pub shared_store: Option<Arc<dyn Store>>,
}

/// A cluster without nodes.
pub struct Cluster {
    pub server: ApiServer,
    pub registry: Arc<Registry>,
    pub store: Arc<dyn Store>,
    /// What encrypts on the way there.
    pub encrypted: Option<Arc<Encrypted>>,
    pub pki: Pki,
    stop: CancellationToken,
    pub dir: TempDir,
}

impl Cluster {
    pub async fn start() -> Cluster {
        Cluster::start_as(Setup::default()).await
    }

    pub async fn start_as(setup: Setup) -> Cluster {
        let stop = CancellationToken::new();
        let is_shared = setup.shared_store.is_some();
        let store = setup.shared_store.clone().unwrap_or_else(|| Arc::new(Embedded::in_memory().unwrap()));
        let encrypted = setup
            .encryption
            .as_ref()
            .map(|text| Arc::new(Encrypted::new(store.clone(), Providers::parse(text).unwrap())));
        let behind: Arc<dyn Store> = match &encrypted {
            Some(encrypted) => encrypted.clone(),
            None => store.clone(),
        };
        let registry = ApiServer::registry(behind, is_shared, &stop);
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::load_or_create(dir.path(), &Names::default()).unwrap();
        let config = ClusterConfig {
            tokens: TokenAuthority::of_cluster("cluster.local"),
            node_ports: "30000-32767".parse().unwrap(),
            server_url: "https://192.0.2.7:6443".into(),
            front_proxies: Some(FrontProxies::new(
                ClientAuthority::from_pem(pki.front_proxy_ca_certificate()).unwrap(),
            )),
            token_file: setup.token_file,
            has_anonymous: !setup.refuses_anonymous,
        };
        let (hooks, extra) = cluster::hooks(&registry, &pki, &config).unwrap();
        let first_objects = bootstrap_config(&pki, setup.service_range.unwrap_or(SERVICE_RANGE));
        bootstrap::run(&registry, &first_objects).await.unwrap();
        let clients = ClientAuthority::from_pem(pki.ca_certificate()).unwrap();
        let tls = setup.tls.then(|| Arc::new(pki.server_config(&[clients]).unwrap()));
        let config = Config {
            tls,
            extra: Some(extra),
            audit: setup.audit,
            health: Health::default(),
            commit: "c0ffee",
            front_proxy: Some(pki.front_proxy_client().clone()),
            stop: stop.clone(),
            limits: Limits::default(),
        };
        let server = ApiServer::new(registry.clone(), hooks, config);
        let cluster = Cluster { server, registry, store, encrypted, pki, stop, dir };
        if !is_shared {
            cluster.service_account("default", "default").await;
        }
        cluster
    }

    pub fn client(&self, user: User) -> Server {
        Server { server: self.server.clone(), stop: self.stop.clone(), service: self.server.in_process(user) }
    }

    pub fn admin(&self) -> Server {
        self.client(User::new("admin", &["system:masters", "system:authenticated"]))
    }

    pub fn user(&self, name: &str) -> Server {
        self.client(User::new(name, &["system:authenticated"]))
    }

    pub fn kubelet(&self, node: &str) -> Server {
        self.client(User::new(format!("system:node:{node}"), &["system:nodes", "system:authenticated"]))
    }

    pub async fn service_account(&self, namespace: &str, name: &str) -> Value {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        self.admin().post(&path, &json!({"metadata": {"name": name}})).await.ok()
    }
}

pub fn bootstrap_config(pki: &Pki, service_range: &str) -> bootstrap::Config {
    let network: api::network::Network = service_range.parse().unwrap();
    bootstrap::Config {
        service_address: network.host(0).unwrap(),
        service_range: service_range.into(),
        advertise: "192.0.2.7".parse().unwrap(),
        port: 6443,
        client_ca: pki.ca_certificate().into(),
        server_ca: pki.ca_certificate().into(),
        front_proxy_ca: pki.front_proxy_ca_certificate().into(),
    }
}

pub fn service(name: &str, spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    for (key, value) in spec.as_object().unwrap() {
        service["spec"][key] = value.clone();
    }
    service
}

#[tokio::test]
async fn a_second_start_finds_everything_and_writes_nothing() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let roles = admin.get("/apis/rbac.authorization.k8s.io/v1/clusterroles").await.ok();
    assert!(roles["items"].as_array().unwrap().len() > 60);
    let kubernetes = admin.get(&format!("{SERVICES}/kubernetes")).await.ok();
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.96.0.1");
    let range = admin.get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes").await.ok();
    let ready = &range["status"]["conditions"][0];
    assert_eq!((&ready["type"], &ready["status"]), (&json!("Ready"), &json!("True")));
    let before = cluster.store.revision().await.unwrap();
    bootstrap::run(&cluster.registry, &bootstrap_config(&cluster.pki, SERVICE_RANGE)).await.unwrap();
    assert_eq!(cluster.store.revision().await.unwrap(), before);
}

#[tokio::test]
async fn rules_that_were_taken_away_come_back_at_the_next_start() {
    let cluster = Cluster::start().await;
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:basic-user";
    let patch = json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
    cluster.admin().patch(path, MERGE, &patch).await.ok();
    bootstrap::run(&cluster.registry, &bootstrap_config(&cluster.pki, SERVICE_RANGE)).await.unwrap();
    let rules = cluster.admin().get(path).await.ok()["rules"].clone();
    // What was missing comes in the smallest pieces.
    let resources: Vec<&Value> = rules.as_array().unwrap().iter().map(|rule| &rule["resources"]).collect();
    let reviews = ["selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"];
    assert_eq!(resources.len(), 4);
    assert!(reviews.iter().all(|review| resources.contains(&&json!([review]))), "{rules}");
}

#[tokio::test]
async fn a_pod_gets_what_it_did_not_ask_for() {
    let cluster = Cluster::start().await;
    let pod = cluster.admin().post(PODS, &pod("web")).await.ok();
    let spec = &pod["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["priority"], 0);
    assert_eq!(spec["preemptionPolicy"], "PreemptLowerPriority");
    let keys: Vec<&Value> = spec["tolerations"].as_array().unwrap().iter().map(|one| &one["key"]).collect();
    assert_eq!(keys, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    let mount = &spec["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(mount["name"], spec["volumes"][0]["name"]);
}

#[tokio::test]
async fn a_pod_needs_its_namespace_its_account_and_its_class() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let refused = |fields: Value| {
        let mut pod = pod("web");
        for (key, value) in fields.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        let admin = &admin;
        async move { admin.post(PODS, &pod).await.failure() }
    };
    let (code, _, message) = refused(json!({"serviceAccountName": "gone"})).await;
    assert_eq!(code, 403);
    assert_eq!(
        message,
        r#"pods "web" is forbidden: error looking up service account default/gone: serviceaccount "gone" not found"#
    );
    let (_, _, message) = refused(json!({"priorityClassName": "gone"})).await;
    assert_eq!(message, r#"pods "web" is forbidden: no PriorityClass with name gone was found"#);
    let (code, _, message) = admin.post("/api/v1/namespaces/gone/pods", &pod("web")).await.failure();
    assert_eq!((code, message.as_str()), (404, r#"namespaces "gone" not found"#));
    let (code, _, message) = admin.delete("/api/v1/namespaces/default").await.failure();
    assert_eq!(
        (code, message.as_str()),
        (403, r#"namespaces "default" is forbidden: this namespace may not be deleted"#)
    );
}

#[tokio::test]
async fn no_address_is_handed_out_twice() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let objects: Vec<Value> =
        (0..100).map(|number| service(&format!("s{number}"), json!({"type": "NodePort"}))).collect();
    let made = join_all(objects.iter().map(|object| admin.post(SERVICES, object))).await;
    let made: Vec<Value> = made.into_iter().map(Answer::ok).collect();
    let addresses: HashSet<IpAddr> =
        made.iter().map(|service| service["spec"]["clusterIP"].as_str().unwrap().parse().unwrap()).collect();
    let ports: HashSet<i64> =
        made.iter().map(|service| service["spec"]["ports"][0]["nodePort"].as_i64().unwrap()).collect();
    assert_eq!((addresses.len(), ports.len()), (100, 100));
}

#[tokio::test]
async fn an_address_is_free_again_when_its_service_is_gone() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let wanted =
        json!({"clusterIP": "10.96.0.10", "type": "NodePort", "ports": [{"port": 53, "nodePort": 30053}]});
    admin.post(SERVICES, &service("dns", wanted.clone())).await.ok();
    let (code, _, message) = admin.post(SERVICES, &service("x", wanted.clone())).await.failure();
    assert_eq!(code, 422);
    assert_eq!(
        message,
        r#"Service "x" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.10"]: failed to allocate IP 10.96.0.10: provided IP is already allocated"#
    );
    let port = json!({"type": "NodePort", "ports": [{"port": 53, "nodePort": 30053}]});
    let (_, _, message) = admin.post(SERVICES, &service("x", port)).await.failure();
    assert_eq!(
        message,
        r#"Service "x" is invalid: spec.ports[0].nodePort: Invalid value: 30053: provided port is already allocated"#
    );
    admin.delete(&format!("{SERVICES}/dns")).await.ok();
    admin.post(SERVICES, &service("x", wanted)).await.ok();
}

#[tokio::test]
async fn a_service_may_change_its_type_and_back() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let made = admin.post(SERVICES, &service("web", json!({}))).await.ok();
    let path = format!("{SERVICES}/web");
    let changed = admin.patch(&path, MERGE, &json!({"spec": {"type": "NodePort"}})).await.ok();
    assert_eq!(changed["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    assert!(changed["spec"]["ports"][0]["nodePort"].is_number());
    let back = admin.patch(&path, MERGE, &json!({"spec": {"type": "ClusterIP"}})).await.ok();
    assert!(back["spec"]["ports"][0]["nodePort"].is_null());
}

#[tokio::test]
async fn a_quota_holds_when_many_write_at_once() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let quota = json!({"metadata": {"name": "few"}, "spec": {"hard": {"pods": "5"}}});
    admin.post("/api/v1/namespaces/default/resourcequotas", &quota).await.ok();
    let pods: Vec<Value> = (0..20).map(|number| pod(&format!("p{number}"))).collect();
    let answers = join_all(pods.iter().map(|pod| admin.post(PODS, pod))).await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.code.is_success());
    assert_eq!(made.len(), 5);
    let (code, _, message) = refused.into_iter().next().unwrap().failure();
    assert_eq!(code, 403);
    assert!(
        message
            .ends_with("is forbidden: exceeded quota: few, requested: pods=1, used: pods=5, limited: pods=5"),
        "{message}"
    );
}

#[tokio::test]
async fn a_quota_says_what_is_used() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    tokio::spawn(apiserver::admission::quota::status::run(cluster.registry.clone(), admin.stop.clone()));
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let quota = json!({"metadata": {"name": "few"}, "spec": {"hard": {"pods": "5", "services": "1"}}});
    admin.post(quotas, &quota).await.ok();
    admin.post(PODS, &pod("web")).await.ok();
    let mut watch = admin.watch(&format!("{quotas}?watch=true")).await;
    let wanted = json!({"hard": {"pods": "5", "services": "1"}, "used": {"pods": "1", "services": "1"}});
    while watch.event().await.expect("an event")["object"]["status"] != wanted {}
    admin.delete_with(&format!("{PODS}/web"), &json!({"gracePeriodSeconds": 0})).await.ok();
    let wanted = json!({"hard": {"pods": "5", "services": "1"}, "used": {"pods": "0", "services": "1"}});
    while watch.event().await.expect("an event")["object"]["status"] != wanted {}
}

#[tokio::test]
async fn a_namespace_may_ask_for_restricted_pods() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"}}});
    admin.patch("/api/v1/namespaces/default", MERGE, &labels).await.ok();
    let warned = admin.post(PODS, &pod("plain")).await;
    let warning = warned.headers["warning"].to_str().unwrap().to_string();
    assert!(warning.contains("would violate PodSecurity"), "{warning}");
    let mut privileged = pod("privileged");
    privileged["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    let (code, _, message) = admin.post(PODS, &privileged).await.failure();
    assert_eq!(code, 403);
    assert_eq!(
        message,
        r#"pods "privileged" is forbidden: violates PodSecurity "baseline:latest": privileged (container "main" must not set securityContext.privileged=true)"#
    );
}

#[tokio::test]
async fn a_limit_range_fills_in_and_refuses() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let item = json!({"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "500m"}});
    let range = json!({"metadata": {"name": "limits"}, "spec": {"limits": [item]}});
    admin.post("/api/v1/namespaces/default/limitranges", &range).await.ok();
    let made = admin.post(PODS, &pod("plain")).await.ok();
    assert_eq!(made["spec"]["containers"][0]["resources"]["limits"]["cpu"], "500m");
    let mut hungry = pod("hungry");
    hungry["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    let (_, _, message) = admin.post(PODS, &hungry).await.failure();
    assert!(message.contains("maximum cpu usage per Container is 1, but limit is 2"), "{message}");
}

//! Who gets in from the network, and as whom.

use std::sync::Arc;

use apiserver::pki::TokenKey;
use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    client::*,
    cluster::{Cluster, Setup},
};

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// A cluster on a socket.
pub struct Served {
    pub cluster: Cluster,
    port: u16,
}

impl Served {
    pub async fn start(setup: Setup) -> Served {
        let cluster = Cluster::start_as(Setup { tls: true, ..setup }).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (server, stop) = (cluster.server.clone(), cluster.admin().stop);
        tokio::spawn(async move { server.serve(listener, stop).await });
        Served { cluster, port }
    }

    /// Who a client with these credentials is told that it is.
    async fn who(&self, identity: Option<(String, String)>, headers: &[(&str, &str)]) -> (StatusCode, Value) {
        let mut request = Request::post(WHO).header("host", "localhost").header("content-type", JSON);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(identity, request.body(Body::from("{}")).unwrap()).await
    }

    async fn send(&self, identity: Option<(String, String)>, request: Request<Body>) -> (StatusCode, Value) {
        let stream = self.connect(identity, "http/1.1").await;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let answer = sender.send_request(request).await.unwrap();
        let code = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let object: Value = serde_json::from_slice(&body).unwrap_or_default();
        (code, object["status"]["userInfo"].clone())
    }

    /// A connection in which this protocol is spoken.
    pub async fn connect(&self, identity: Option<(String, String)>, protocol: &str) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.cluster.pki.ca_certificate().as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.into()];
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    async fn who_with_token(&self, token: &str) -> (StatusCode, Value) {
        self.who(None, &[("authorization", &format!("Bearer {token}"))]).await
    }
}

#[tokio::test]
async fn a_certificate_names_its_user_and_a_bad_one_is_refused() {
    let served = Served::start(Setup::default()).await;
    let pki = &served.cluster.pki;
    let (code, who) = served.who(Some(pki.issue_client("ann", &["dev"]).unwrap()), &[]).await;
    assert_eq!((code, &who["username"]), (StatusCode::CREATED, &json!("ann")));
    assert_eq!(who["groups"], json!(["dev", "system:authenticated"]));
    let other = Cluster::start().await;
    let foreign = other.pki.issue_client("ann", &["system:masters"]).unwrap();
    assert_eq!(served.who(Some(foreign), &[]).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(served.who(None, &[]).await.0, StatusCode::FORBIDDEN);
}

/// What nobody in particular gets for each of the paths.
async fn without_credentials(served: &Served, paths: &[&str]) -> Vec<u16> {
    let mut codes = Vec::new();
    for path in paths {
        let request = Request::get(*path).header("host", "localhost").body(Body::empty()).unwrap();
        codes.push(served.send(None, request).await.0.as_u16());
    }
    codes
}

const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

#[tokio::test]
async fn nobody_in_particular_gets_health_version_and_where_the_cluster_is() {
    let served = Served::start(Setup::default()).await;
    let open = ["/livez", "/readyz", "/healthz", "/version", CLUSTER_INFO];
    assert_eq!(without_credentials(&served, &open).await, [200; 5]);
    let maps = "/api/v1/namespaces/kube-public/configmaps";
    let closed =
        ["/", "/api", "/apis", "/openapi/v2", "/metrics", "/livez/ping", "/openid/v1/jwks", PODS, maps];
    assert_eq!(without_credentials(&served, &closed).await, [403; 9]);
    // Until somebody says that they may.
    let binding = json!({
        "metadata": {"name": "open"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:discovery"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:unauthenticated"}],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    served.cluster.admin().post(bindings, &binding).await.ok();
    assert_eq!(without_credentials(&served, &["/apis", PODS]).await, [200, 403]);
}

#[tokio::test]
async fn a_server_may_answer_nobody_in_particular() {
    let served = Served::start(Setup { refuses_anonymous: true, ..Setup::default() }).await;
    assert_eq!(without_credentials(&served, &["/livez", "/version", CLUSTER_INFO]).await, [401; 3]);
}

#[tokio::test]
async fn only_a_front_proxy_may_name_users() {
    let served = Served::start(Setup::default()).await;
    let headers = [("x-remote-user", "ann"), ("x-remote-group", "dev"), ("x-remote-extra-team", "red")];
    let read = |file: &str| std::fs::read_to_string(served.cluster.dir.path().join(file)).unwrap();
    let proxy = (read("front-proxy-client.crt"), read("front-proxy-client.key"));
    let (_, who) = served.who(Some(proxy.clone()), &headers).await;
    assert_eq!(who["username"], "ann");
    assert_eq!(who["groups"], json!(["dev", "system:authenticated"]));
    assert_eq!(who["extra"], json!({"team": ["red"]}));
    assert_eq!(served.who(Some(proxy), &[]).await.0, StatusCode::UNAUTHORIZED);
    // From others the headers mean nothing.
    let masters = [("x-remote-user", "root"), ("x-remote-group", "system:masters")];
    let bob = served.cluster.pki.issue_client("bob", &[]).unwrap();
    assert_eq!(served.who(Some(bob), &masters).await.1["username"], "bob");
    assert_eq!(served.who(None, &masters).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn tokens_by_hand_are_read_from_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.csv");
    std::fs::write(&path, "static-token,ann,7,\"dev,ops\"\n").unwrap();
    let served = Served::start(Setup { token_file: Some(path), ..Setup::default() }).await;
    let (_, who) = served.who_with_token("static-token").await;
    assert_eq!(who, json!({"username": "ann", "uid": "7", "groups": ["dev", "ops", "system:authenticated"]}));
    assert_eq!(served.who_with_token("another").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_bootstrap_token_is_good_as_long_as_its_secret() {
    let served = Served::start(Setup::default()).await;
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let secret = json!({
        "metadata": {"name": "bootstrap-token-abcdef"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:workers",
        },
    });
    served.cluster.admin().post(secrets, &secret).await.ok();
    let (_, who) = served.who_with_token("abcdef.0123456789abcdef").await;
    assert_eq!(who["username"], "system:bootstrap:abcdef");
    assert_eq!(
        who["groups"],
        json!(["system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"])
    );
    assert_eq!(served.who_with_token("abcdef.0123456789abcdee").await.0, StatusCode::UNAUTHORIZED);
    let path = format!("{secrets}/bootstrap-token-abcdef");
    let past = json!({"stringData": {"expiration": "2020-01-01T00:00:00Z"}});
    served.cluster.admin().patch(&path, MERGE, &past).await.ok();
    assert_eq!(served.who_with_token("abcdef.0123456789abcdef").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_token_in_a_secret_is_good_until_the_secret_is_gone() {
    let served = Served::start(Setup::default()).await;
    let admin = served.cluster.admin();
    let account = served.cluster.service_account("default", "old").await;
    let sign = |key: &TokenKey| {
        let claims = json!({
            "iss": "kubernetes/serviceaccount",
            "sub": "system:serviceaccount:default:old",
            "kubernetes.io/serviceaccount/namespace": "default",
            "kubernetes.io/serviceaccount/secret.name": "old-token",
            "kubernetes.io/serviceaccount/service-account.name": "old",
            "kubernetes.io/serviceaccount/service-account.uid": account["metadata"]["uid"],
        });
        key.sign(&claims).unwrap()
    };
    let token = sign(&served.cluster.pki.token_key());
    assert_eq!(served.who_with_token(&token).await.0, StatusCode::UNAUTHORIZED, "no Secret holds it");
    let secret = json!({
        "metadata": {"name": "old-token", "annotations": {"kubernetes.io/service-account.name": "old"}},
        "type": "kubernetes.io/service-account-token",
        "data": {"token": BASE64_STANDARD.encode(&token)},
    });
    admin.post("/api/v1/namespaces/default/secrets", &secret).await.ok();
    let (_, who) = served.who_with_token(&token).await;
    assert_eq!(who["username"], "system:serviceaccount:default:old");
    assert_eq!(who["uid"], account["metadata"]["uid"]);
    let path = "/api/v1/namespaces/default/secrets/old-token";
    let labels = admin.get(path).await.ok()["metadata"]["labels"].clone();
    assert!(labels["kubernetes.io/legacy-token-last-used"].is_string(), "{labels}");
    let other = Cluster::start().await;
    assert_eq!(served.who_with_token(&sign(&other.pki.token_key())).await.0, StatusCode::UNAUTHORIZED);
    admin.delete(path).await.ok();
    assert_eq!(served.who_with_token(&token).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_token_whose_algorithm_was_exchanged_is_refused() {
    let served = Served::start(Setup::default()).await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let answer = served.cluster.admin().post(path, &json!({"spec": {}})).await.ok();
    let token = answer["status"]["token"].as_str().unwrap();
    assert_eq!(served.who_with_token(token).await.0, StatusCode::CREATED);
    let (_, rest) = token.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    let url = base64::prelude::BASE64_URL_SAFE_NO_PAD;
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS256"}"#, r#"{"alg":"ES256","kid":"other"}"#, "{}"] {
        for signature in [signature, ""] {
            let forged = format!("{}.{payload}.{signature}", url.encode(header));
            assert_eq!(served.who_with_token(&forged).await.0, StatusCode::UNAUTHORIZED, "{header}");
        }
    }
}

//! The server as the API server sees it: over TLS, with certificates of a CA of its own.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use bytes::Bytes;
use client::{Selection, informer};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use k8s_openapi::api::core::v1::Service;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

use super::*;
use crate::config::Config;
use crate::context::NodeFacts;
use crate::fake::{FakeApi, FakeRuntime};
use crate::source::Sources;
use crate::volume::VolumeManager;

/// A CA and the files that it has signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    fn sign(&self, name: &str, group: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::from([127, 0, 0, 1]))];
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn write_server_files(&self, directory: &Path) -> TlsFiles {
        let (certificate, key) = self.sign("system:node:node", "system:nodes");
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let ca = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &self.certificate);
        TlsFiles {
            certificate: write("server.crt", certificate.pem()),
            private_key: write("server.key", key.serialize_pem()),
            client_ca: write(
                "ca.crt",
                format!("-----BEGIN CERTIFICATE-----\n{ca}\n-----END CERTIFICATE-----\n"),
            ),
        }
    }
}

struct Served {
    address: SocketAddr,
    authority: Authority,
    root: TempDir,
    stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve_one_pod() -> Served {
    let root = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let tls = authority.write_server_files(root.path());
    let (api, runtime) = (FakeApi::new(), FakeRuntime::new(&[]));
    let pod = json!({ "metadata": { "name": "web", "namespace": "shop", "uid": "u" },
        "spec": { "containers": [{ "name": "a", "image": "i" }] } });
    api.put("/api/v1/namespaces/shop/pods/web", pod);
    let stop = CancellationToken::new();
    let client = api.client();
    let mut config = Config::new("node", IpAddr::from([127, 0, 0, 1]));
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.log_dir = root.path().join("logs");
    let sources = Arc::new(Sources::new(client.clone()));
    let pods = informer::start::<Pod>(client.clone(), Selection::default(), stop.clone());
    let context = Arc::new(Context {
        volumes: VolumeManager::new(client.clone(), sources.clone(), root.path().join("kubelet")),
        events: client::events::Recorder::new(client.clone(), "kubelet", Some("node")),
        services: informer::start::<Service>(client.clone(), Selection::default(), stop.clone()),
        node: NodeFacts::default(),
        client: client.clone(),
        runtime: runtime.clone(),
        images: runtime.clone(),
        pulls: crate::image::Pulls::new(config.pull_limit),
        image_keeper: crate::image::keeper::Images::channel().0,
        user_namespaces: crate::userns::UserNamespaces::default(),
        taken: crate::pod::admission::Taken::default(),
        pods: pods.clone(),
        pressure: tokio::sync::watch::channel(Default::default()).1,
        sources,
        config,
    });
    runtime.add_running("web", "a", "i").await;
    let logs = root.path().join("logs/shop_web_u/a");
    std::fs::create_dir_all(&logs).unwrap();
    std::fs::write(
        logs.join("0.log"),
        "2026-11-21T08:00:00Z stdout F hello\n2026-11-21T08:00:01Z stderr F world\n",
    )
    .unwrap();
    pods.wait_synced().await;
    let server = Server::bind(context, pods, &tls).await.unwrap();
    let address = server.listener.local_addr().unwrap();
    tokio::spawn(server.run(stop.clone()));
    Served { address, authority, root, stop }
}

impl Served {
    /// Status and text of a GET by whoever is named; nobody has no certificate.
    async fn get(&self, who: Option<(&str, &str)>, path: &str) -> (u16, String) {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match who {
            None => builder.with_no_client_auth(),
            Some((name, group)) => {
                let (certificate, key) = self.authority.sign(name, group);
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::from(self.address.ip());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "node").body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

const API_SERVER: Option<(&str, &str)> = Some(("kube-apiserver-kubelet-client", "none"));

#[tokio::test]
async fn only_those_who_may_get_an_answer() {
    let served = serve_one_pod().await;
    assert_eq!(served.get(None, "/pods").await, (401, "Unauthorized\n".into()));
    let (status, text) = served.get(Some(("jane", "devs")), "/pods").await;
    assert_eq!(
        (status, text.as_str()),
        (403, "Forbidden (user=jane, verb=get, resource=nodes, subresource(s)=[pods proxy])\n")
    );
    assert_eq!(served.get(Some(("admin", "system:masters")), "/healthz").await, (200, "ok".into()));
    let (status, text) = served.get(API_SERVER, "/pods").await;
    assert!(status == 200 && text.contains("\"name\":\"web\""), "{text}");
    assert!(served.root.path().exists());
}

#[tokio::test]
async fn logs_are_served_as_asked_for() {
    let served = serve_one_pod().await;
    let logs = async |query: &str| served.get(API_SERVER, &format!("/containerLogs/shop/web/a{query}")).await;
    assert_eq!(logs("").await, (200, "hello\nworld\n".into()));
    assert_eq!(logs("?tailLines=1&timestamps=true").await, (200, "2026-11-21T08:00:01Z world\n".into()));
    assert_eq!(logs("?limitBytes=3").await, (200, "hel".into()));
    let previous = "previous terminated container \"a\" in pod \"web\" not found\n";
    assert_eq!(logs("?previous=true").await, (400, previous.into()));
    assert_eq!(logs("?tailLines=x").await, (400, "invalid value for tailLines: \"x\"\n".into()));
    let (status, text) = served.get(API_SERVER, "/containerLogs/shop/none/a").await;
    assert_eq!((status, text.as_str()), (404, "pod \"none\" not found\n"));
    let (status, text) = served.get(API_SERVER, "/containerLogs/shop/web/b").await;
    assert_eq!((status, text.as_str()), (404, "container b is not valid for pod web\n"));
}

#[tokio::test]
async fn streams_need_a_running_container() {
    let served = serve_one_pod().await;
    let (status, text) = served.get(API_SERVER, "/exec/shop/web/b?command=ls").await;
    assert_eq!((status, text.as_str()), (404, "container not found (\"b\")\n"));
}

//! Requests that go on to a kubelet: a small one, with a certificate of the cluster's CA.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Empty;
use http_body_util::Full;
use hyper::{body::Incoming, client, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{client::*, cluster::Cluster, network::frame};

/// A node whose kubelet answers with what it was asked, and refuses containers called `broken`.
async fn node(cluster: &Cluster, name: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = cluster.pki.kubelet_serving(name, &["127.0.0.1".parse().unwrap()]).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(cluster.pki.server_config_with(&serving).unwrap()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let is_known = stream.get_ref().1.peer_certificates().is_some();
                let answer = service_fn(move |mut request: Request<Incoming>| async move {
                    if request.uri().path().starts_with("/exec/") {
                        tokio::spawn(echo(hyper::upgrade::on(&mut request)));
                        return Ok::<_, Infallible>(switching());
                    }
                    Ok(answer(&request, is_known))
                });
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                connection.with_upgrades().await.unwrap();
            });
        }
    });
    cluster.admin().post("/api/v1/nodes", &json!({"metadata": {"name": name}})).await.ok();
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }});
    cluster.admin().patch(&format!("/api/v1/nodes/{name}/status"), MERGE, &status).await.ok();
}

fn answer(request: &Request<Incoming>, is_known: bool) -> Response<Full<Bytes>> {
    let (code, text) = if request.uri().path() == "/metrics/resource" {
        (StatusCode::OK, used())
    } else if request.uri().path().ends_with("/broken") {
        (
            StatusCode::BAD_REQUEST,
            "container \"broken\" in pod \"web\" is waiting to start: ContainerCreating".into(),
        )
    } else {
        let has_credentials = request.headers().contains_key("authorization");
        (StatusCode::OK, format!("{} certificate={is_known} credentials={has_credentials}", request.uri()))
    };
    Response::builder().status(code).body(Full::from(text)).unwrap()
}

/// A tenth of a processor: each time that somebody asks, ten seconds have gone by.
fn used() -> String {
    static ASKED: AtomicU64 = AtomicU64::new(1);
    let asked = ASKED.fetch_add(1, Ordering::Relaxed);
    let time = 1_700_000_000_000 + asked * 10_000;
    let labels = r#"{container="main",namespace="default",pod="web"}"#;
    format!(
        "node_cpu_usage_seconds_total {asked} {time}\n\
         node_memory_working_set_bytes 2097152 {time}\n\
         container_cpu_usage_seconds_total{labels} {asked} {time}\n\
         container_memory_working_set_bytes{labels} 1048576 {time}\n"
    )
}

fn switching() -> Response<Full<Bytes>> {
    let switching = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    switching.header("connection", "Upgrade").header("upgrade", "SPDY/3.1").body(Full::default()).unwrap()
}

/// Sends back what comes in once all of it is there.
async fn echo(upgrade: OnUpgrade) {
    let mut pipe = TokioIo::new(upgrade.await.unwrap());
    let mut input = String::new();
    pipe.read_to_string(&mut input).await.unwrap();
    pipe.write_all(format!("heard {input}").as_bytes()).await.unwrap();
    pipe.shutdown().await.unwrap();
}

async fn pod_on(cluster: &Cluster, node: &str, containers: Value) {
    let mut pod = pod("web");
    pod["spec"]["nodeName"] = node.into();
    pod["spec"]["containers"] = containers;
    cluster.admin().post(PODS, &pod).await.ok();
}

#[tokio::test]
async fn logs_come_from_the_pods_kubelet() {
    let cluster = Cluster::start().await;
    node(&cluster, "n1").await;
    pod_on(&cluster, "n1", json!([{"name": "main", "image": "a"}, {"name": "broken", "image": "a"}])).await;
    let request = Request::get(format!("{PODS}/web/log?container=main&tailLines=3&follow=true"));
    let request = request.header("authorization", "Bearer secret").body(Body::empty()).unwrap();
    let answer = cluster.admin().send(request).await;
    let text = String::from_utf8_lossy(&answer.bytes);
    assert_eq!(
        text,
        "/containerLogs/default/web/main?follow=true&tailLines=3 certificate=true credentials=false"
    );
    let (code, _, message) = cluster.admin().get(&format!("{PODS}/web/log?container=broken")).await.failure();
    assert_eq!(
        (code, message.as_str()),
        (400, r#"container "broken" in pod "web" is waiting to start: ContainerCreating"#)
    );
    let (code, _, message) = cluster.admin().get(&format!("{PODS}/web/log")).await.failure();
    assert_eq!(
        (code, message.as_str()),
        (400, "a container name must be specified for pod web, choose one of: [main broken]")
    );
}

#[tokio::test]
async fn a_node_is_reached_through_the_server() {
    let cluster = Cluster::start().await;
    node(&cluster, "n1").await;
    let answer = cluster.admin().get("/api/v1/nodes/n1/proxy/pods?a=b").await;
    assert_eq!(String::from_utf8_lossy(&answer.bytes), "/pods?a=b certificate=true credentials=false");
    assert_eq!(cluster.admin().get("/api/v1/nodes/gone/proxy/pods").await.code, 404);
}

#[tokio::test]
async fn exec_needs_a_pod_with_a_node() {
    let cluster = Cluster::start().await;
    cluster.admin().post(PODS, &pod("web")).await.ok();
    let path = format!("{PODS}/web/exec?command=ls&stdout=true");
    let (code, _, message) = cluster.admin().post(&path, &json!({})).await.failure();
    assert_eq!((code, message.as_str()), (400, "pod web does not have a host assigned"));
}

/// A token for the `default` account, which may do everything.
async fn powerful_token(cluster: &Cluster) -> String {
    let binding = json!({
        "metadata": {"name": "powerful"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
    });
    cluster.admin().post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await.ok();
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let answer = cluster.admin().post(path, &json!({"spec": {}})).await.ok();
    answer["status"]["token"].as_str().unwrap().to_string()
}

/// Where the cluster's server can be reached over the network.
async fn serve(cluster: &Cluster) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (server, stop) = (cluster.server.clone(), cluster.admin().stop.clone());
    tokio::spawn(async move { server.serve(listener, stop).await });
    address
}

async fn connect(address: SocketAddr) -> client::conn::http1::SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

#[tokio::test]
async fn a_log_can_be_read_over_a_web_socket() {
    let cluster = Cluster::start().await;
    node(&cluster, "n1").await;
    pod_on(&cluster, "n1", json!([{"name": "main", "image": "a"}, {"name": "broken", "image": "a"}])).await;
    let token = powerful_token(&cluster).await;
    let address = serve(&cluster).await;
    let ask = async |container: &str, protocols: &str| {
        let request = Request::get(format!("{PODS}/web/log?container={container}"))
            .header("host", "test")
            .header("authorization", format!("Bearer {token}"))
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", protocols);
        connect(address).await.send_request(request.body(Empty::new()).unwrap()).await.unwrap()
    };
    let log = "/containerLogs/default/web/main certificate=true credentials=false";
    for (protocol, first, expected) in [
        ("binary.k8s.io", 0x82, log.to_string()),
        ("base64.binary.k8s.io", 0x81, BASE64_STANDARD.encode(log)),
    ] {
        let mut response = ask("main", &format!("unknown, {protocol}")).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
        let mut pipe = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        assert_eq!(frame(&mut pipe).await, (first, Vec::new()), "the greeting");
        assert_eq!(frame(&mut pipe).await, (first, expected.into_bytes()));
        assert_eq!(frame(&mut pipe).await, (0x88, vec![3, 0xe8]));
    }
    assert_eq!(ask("main", "v5.channel.k8s.io").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(ask("broken", "binary.k8s.io").await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_exec_session_runs_over_the_network_from_a_token_to_the_kubelet() {
    let cluster = Cluster::start().await;
    node(&cluster, "n1").await;
    pod_on(&cluster, "n1", json!([{"name": "main", "image": "a"}])).await;
    let token = powerful_token(&cluster).await;
    let address = serve(&cluster).await;
    let request = |token: &str| {
        Request::post(format!("{PODS}/web/exec?command=cat&stdin=true&stdout=true"))
            .header("host", "test")
            .header("authorization", format!("Bearer {token}"))
            .header("connection", "Upgrade")
            .header("upgrade", "SPDY/3.1")
            .body(Empty::<Bytes>::new())
            .unwrap()
    };
    let refused = connect(address).await.send_request(request("nonsense")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let mut response = connect(address).await.send_request(request(&token)).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut pipe = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    pipe.write_all(b"hello").await.unwrap();
    pipe.shutdown().await.unwrap();
    let mut output = String::new();
    pipe.read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "heard hello");
}

#[tokio::test]
async fn what_nodes_and_pods_use_is_measured_at_the_kubelets() {
    let cluster = Cluster::start().await;
    node(&cluster, "n1").await;
    cluster.admin().post("/api/v1/nodes", &json!({"metadata": {"name": "silent"}})).await.ok();
    pod_on(&cluster, "n1", json!([{"name": "main", "image": "a"}])).await;
    let metrics = "/apis/metrics.k8s.io/v1beta1";
    let pods = format!("{metrics}/namespaces/default/pods");
    assert_eq!(cluster.admin().get(&pods).await.ok()["items"], json!([]));
    let running = json!({"status": {"phase": "Running", "containerStatuses": [{"name": "main"}]}});
    cluster.admin().patch(&format!("{PODS}/web/status"), MERGE, &running).await.ok();

    let nodes = cluster.admin().get(&format!("{metrics}/nodes")).await.ok();
    assert_eq!(
        (&nodes["kind"], &nodes["apiVersion"]),
        (&json!("NodeMetricsList"), &json!("metrics.k8s.io/v1beta1"))
    );
    let names: Vec<&Value> =
        nodes["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["n1"], "a node that does not answer is left out");
    assert_eq!(nodes["items"][0]["usage"], json!({"cpu": "100000000n", "memory": "2048Ki"}));
    let protobuf = "application/vnd.kubernetes.protobuf";
    let same = cluster.admin().get_as(&format!("{metrics}/nodes"), protobuf).await;
    assert_eq!((same.headers["content-type"].to_str().unwrap(), &same.bytes[..4]), (protobuf, &b"k8s\0"[..]));
    for text in ["NodeMetricsList", "n1", "100000000n", "2048Ki"] {
        assert!(same.bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
    }
    let web = cluster.admin().get(&format!("{pods}/web")).await.ok();
    assert_eq!(
        web["containers"],
        json!([{"name": "main", "usage": {"cpu": "100000000n", "memory": "1024Ki"}}])
    );
    assert_eq!(web["window"], nodes["items"][0]["window"], "one measurement serves all");
    let chosen = cluster.admin().get(&format!("{metrics}/pods?labelSelector=app%3Dother")).await.ok();
    assert_eq!(chosen["items"], json!([]));
    let missing = cluster.admin().get(&format!("{pods}/nobody")).await.failure();
    assert_eq!(missing, (404, "NotFound".into(), "pods.metrics.k8s.io \"nobody\" not found".into()));
    assert_eq!(
        cluster.admin().raw(Method::DELETE, &format!("{pods}/web"), "", Body::empty()).await.failure().0,
        405
    );
    assert_eq!(cluster.user("ann").get(&pods).await.failure().0, 403);
}

/// Something that listens in a pod: tells the method, links to itself, and sends some elsewhere on itself.
async fn site() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let page = |request: Request<Incoming>| async move {
        let said = request.headers().get("x-forwarded-uri").map(|uri| uri.to_str().unwrap().to_string());
        let page = format!("<a href=\"/{}\">{}</a>", request.method(), said.unwrap_or_default());
        let answer = match request.uri().path() {
            "/moved" => Response::builder().status(StatusCode::FOUND).header("location", "/there"),
            _ => Response::builder().header("content-type", "text/html; charset=utf-8"),
        };
        Ok::<_, Infallible>(answer.body(Full::<Bytes>::from(page)).unwrap())
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(page)));
        }
    });
    port
}

#[tokio::test]
async fn a_pod_is_reached_by_every_method_and_its_links_lead_back() {
    let cluster = Cluster::start().await;
    let port = site().await;
    pod_on(
        &cluster,
        "",
        json!([{"name": "main", "image": "a", "ports": [{"name": "web", "containerPort": port}]}]),
    )
    .await;
    let status =
        json!({"status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
    cluster.admin().patch(&format!("{PODS}/web/status"), MERGE, &status).await.ok();
    let admin = cluster.admin();
    let proxy = format!("{PODS}/web:web/proxy");
    for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        let answer = admin.raw(method.clone(), &format!("{proxy}/a/b?c=d"), JSON, Body::empty()).await;
        let expected = format!("<a href=\"{proxy}/{method}\">{proxy}/a/b</a>");
        assert_eq!((answer.code, &*String::from_utf8_lossy(&answer.bytes)), (StatusCode::OK, &*expected));
    }
    assert_eq!(admin.raw(Method::HEAD, &format!("{proxy}/a"), "", Body::empty()).await.code, StatusCode::OK);
    let moved = admin.get(&format!("{PODS}/web:{port}/proxy/moved")).await;
    assert_eq!(moved.code, StatusCode::FOUND);
    assert_eq!(moved.headers["location"], format!("{PODS}/web:{port}/proxy/there"));
    let root = admin.get(&proxy).await;
    assert_eq!(
        (root.code, root.headers["location"].to_str().unwrap()),
        (StatusCode::MOVED_PERMANENTLY, &*format!("{proxy}/"))
    );
}

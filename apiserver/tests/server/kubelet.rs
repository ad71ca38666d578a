//! Requests that go on to a kubelet: a small one, with a certificate of the cluster's CA.

use std::{convert::Infallible, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{client::*, cluster::Cluster};

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
                let answer = service_fn(move |request: Request<Incoming>| async move {
                    Ok::<_, Infallible>(answer(&request, is_known))
                });
                http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await.unwrap();
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
    let (code, text) = if request.uri().path().ends_with("/broken") {
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

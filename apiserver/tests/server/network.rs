//! The server on a socket: HTTP/1.1 and HTTP/2, who may come in, and how it ends.

use apiserver::request::User;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::ServiceExt;

use crate::{client::*, cluster::Setup, credentials::Served, permissive};

#[tokio::test]
async fn both_versions_of_http_are_spoken_and_connections_end_with_the_server() {
    let server = Server::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn({
        let (server, stop) = (server.server.clone(), server.stop.clone());
        async move { server.serve(listener, stop).await }
    });
    let request =
        || Request::get(format!("http://{address}{CONFIG_MAPS}")).header("host", "test").body(Body::empty());

    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut one, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let first = tokio::spawn(connection);
    let answer = one.send_request(request().unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().collect().await.unwrap();

    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut two, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let second = tokio::spawn(connection);
    let answer = two.send_request(request().unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().collect().await.unwrap();

    server.stop.cancel();
    serving.await.unwrap();
    server.server.stopped().await;
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn long_lists_and_watches_share_a_connection_of_version_2() {
    let served = Served::start(Setup::default()).await;
    let admin = served.cluster.admin();
    let stored = 40;
    for number in 0..stored {
        let metadata = json!({"name": format!("long-{number}")});
        let object = json!({"metadata": metadata, "data": {"text": "x".repeat(50_000)}});
        admin.post(CONFIG_MAPS, &object).await.ok();
    }
    let identity = served.cluster.pki.issue_client("ann", &["system:masters"]).unwrap();
    let stream = served.connect(Some(identity), "h2").await;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let get = |query: &str| {
        let uri = format!("https://localhost{CONFIG_MAPS}{query}");
        let (mut sender, request) = (sender.clone(), Request::get(uri).body(Body::empty()).unwrap());
        async move { sender.send_request(request).await.unwrap().map(Body::new) }
    };
    let mut watch = Watch::of(get("?watch=true&resourceVersion=0&fieldSelector=metadata.name%3Dlate").await);
    let expected = admin.get(CONFIG_MAPS).await.bytes;
    for _ in 0..3 {
        let list = get("").await.into_body().collect().await.unwrap().to_bytes();
        assert!(list == expected, "{} bytes are not the {} expected", list.len(), expected.len());
    }
    // Nothing else happens in the connection that could take the event along.
    admin.config_map("late", json!({})).await;
    assert_eq!(watch.event().await.unwrap()["object"]["metadata"]["name"], "late");
    drop((watch, sender));
    connection.await.unwrap().unwrap();
}

/// A server on a port of its own.
async fn listening() -> (Server, std::net::SocketAddr) {
    let server = Server::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn({
        let (server, stop) = (server.server.clone(), server.stop.clone());
        async move { server.serve(listener, stop).await }
    });
    (server, address)
}

#[tokio::test]
async fn headers_have_a_limit() {
    let (_server, address) = listening().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /version HTTP/1.1\r\nHost: test\r\nX-Long: {}\r\n", "x".repeat(1_000_000));
    // It may be cut off while it still writes.
    let written = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    let is_refused = answer.starts_with(b"HTTP/1.1 431 ");
    assert!(is_refused || (answer.is_empty() && (read.is_err() || written.is_err())), "{answer:?}");
    let mut other = TcpStream::connect(address).await.unwrap();
    other.write_all(b"GET /version HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    other.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_watch_can_be_carried_over_a_web_socket() {
    let (server, address) = listening().await;
    server.config_map("a", serde_json::json!({})).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {CONFIG_MAPS}?watch=true HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    // The answer to this key in the protocol's own description.
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    assert_eq!(message(&mut stream).await["object"]["metadata"]["name"], "a");
    // A ping with a mask of zeros, and its answer.
    stream.write_all(&[0x89, 0x82, 0, 0, 0, 0, b'h', b'i']).await.unwrap();
    assert_eq!(frame(&mut stream).await, (0x8a, b"hi".to_vec()));
    server.config_map("b", serde_json::json!({})).await;
    assert_eq!(message(&mut stream).await["object"]["metadata"]["name"], "b");
    // Closed by the client, closed by the server.
    stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
    assert_eq!(frame(&mut stream).await, (0x88, vec![3, 0xe8]));
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

/// A WebSocket message from the server: its first byte and what it carries.
pub(crate) async fn frame(stream: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let first = stream.read_u8().await.unwrap();
    let length = match stream.read_u8().await.unwrap() {
        126 => usize::from(stream.read_u16().await.unwrap()),
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.unwrap();
    (first, payload)
}

async fn message(stream: &mut TcpStream) -> serde_json::Value {
    let (first, payload) = frame(stream).await;
    assert_eq!(first, 0x81);
    serde_json::from_slice(&payload).unwrap()
}

#[tokio::test]
async fn who_may_not_is_told_so() {
    let server = Server::start().await;
    let nobody = server.server.in_process(User::new(permissive::NOBODY, &[]));
    let answer = nobody.oneshot(Request::get(PODS).body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let message = "pods is forbidden: User \"nobody\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert_eq!(status["message"], message);
}

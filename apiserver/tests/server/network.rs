//! The server on a socket: HTTP/1.1 and HTTP/2, who may come in, and how it ends.

use apiserver::request::User;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use crate::{client::*, permissive};

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

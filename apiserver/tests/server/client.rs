//! A client that says exactly what it wants to say.

use std::{sync::Arc, time::Duration};

use apiserver::{ApiServer, Config, InProcess, Limits, request::User};
use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use daemon::health::Health;
use futures::StreamExt;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store::embedded::Embedded;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::permissive;

pub const JSON: &str = "application/json";
pub const MERGE: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub const JSON_PATCH: &str = "application/json-patch+json";

/// A server of its own for each test.
pub struct Server {
    pub server: ApiServer,
    pub stop: CancellationToken,
    pub service: InProcess,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {:?}", self.bytes))
    }

    /// The object of an answer that is expected to be good.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.code.is_success(), "{}: {}", self.code, String::from_utf8_lossy(&self.bytes));
        self.json()
    }

    /// Code, reason and message of an answer that is expected to be a failure.
    #[track_caller]
    pub fn failure(self) -> (u16, String, String) {
        let status = self.json();
        assert_eq!(status["kind"], "Status", "{status}");
        assert_eq!(status["status"], "Failure", "{status}");
        assert_eq!(status["code"], self.code.as_u16(), "{status}");
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_string();
        (self.code.as_u16(), text("reason"), text("message"))
    }
}

impl Server {
    pub async fn start() -> Server {
        Server::start_with(Limits::default()).await
    }

    pub async fn start_with(limits: Limits) -> Server {
        let stop = CancellationToken::new();
        let store = Arc::new(Embedded::in_memory().unwrap());
        let registry = ApiServer::registry(store, false, &stop);
        let config = Config {
            tls: None,
            extra: None,
            audit: None,
            health: Health::default(),
            commit: "c0ffee",
            front_proxy: None,
            stop: stop.clone(),
            limits,
        };
        let server = ApiServer::new(registry, permissive::hooks(), config);
        let service = server.in_process(User::new("admin", &["system:masters"]));
        Server { server, stop, service }
    }

    /// The same server, asked by another.
    pub fn as_user(&self, user: User) -> Server {
        Server { server: self.server.clone(), stop: self.stop.clone(), service: self.server.in_process(user) }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.service.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { code: parts.status, headers: parts.headers, bytes }
    }

    pub async fn raw(&self, method: Method, path: &str, content_type: &str, body: impl Into<Body>) -> Answer {
        let mut request = Request::new(body.into());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        if !content_type.is_empty() {
            request.headers_mut().insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        }
        self.send(request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.raw(Method::GET, path, "", Body::empty()).await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
        self.send(request).await
    }

    pub async fn post(&self, path: &str, object: &Value) -> Answer {
        self.raw(Method::POST, path, JSON, object.to_string()).await
    }

    pub async fn put(&self, path: &str, object: &Value) -> Answer {
        self.raw(Method::PUT, path, JSON, object.to_string()).await
    }

    pub async fn patch(&self, path: &str, content_type: &str, patch: &Value) -> Answer {
        self.raw(Method::PATCH, path, content_type, patch.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.raw(Method::DELETE, path, "", Body::empty()).await
    }

    pub async fn delete_with(&self, path: &str, options: &Value) -> Answer {
        self.raw(Method::DELETE, path, JSON, options.to_string()).await
    }

    pub async fn config_map(&self, name: &str, labels: Value) -> Value {
        let object = json!({"metadata": {"name": name, "labels": labels}, "data": {"a": "1"}});
        self.post(CONFIG_MAPS, &object).await.ok()
    }

    pub async fn watch(&self, path: &str) -> Watch {
        self.watch_as(path, JSON).await
    }

    pub async fn watch_as(&self, path: &str, accept: &str) -> Watch {
        let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
        let response = self.service.clone().oneshot(request).await.unwrap();
        Watch::of(response)
    }
}

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const PODS: &str = "/api/v1/namespaces/default/pods";

pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "busybox:1"}]},
    })
}

pub fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "busybox:1"}]},
            },
        },
    })
}

pub fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}

/// A running watch.
pub struct Watch {
    body: BodyDataStream,
    rest: BytesMut,
}

impl Watch {
    /// What this answer carries.
    pub fn of(response: Response<Body>) -> Watch {
        assert_eq!(response.status(), StatusCode::OK);
        Watch { body: response.into_body().into_data_stream(), rest: BytesMut::new() }
    }

    /// The next event; `None` at the end.
    pub async fn event(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(end + 1);
                return Some(serde_json::from_slice(&line).unwrap());
            }
            // Longer than any period of the server: with a paused clock this costs nothing.
            let piece = tokio::time::timeout(Duration::from_secs(120), self.body.next()).await;
            match piece.expect("an event within two minutes") {
                Some(piece) => self.rest.extend_from_slice(&piece.unwrap()),
                None => return None,
            }
        }
    }

    /// Type and name of the next event.
    pub async fn next(&mut self) -> (String, String) {
        let event = self.event().await.expect("the watch goes on");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

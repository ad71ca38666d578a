//! A registry that says what a test wants, and remembers what it was asked.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{Parts, digest};

/// What it answers by path, and what it was asked.
#[derive(Default)]
struct Contents {
    answers: HashMap<String, (String, Vec<u8>)>,
    asked: Vec<String>,
    headers: Vec<String>,
    redirections: HashMap<String, String>,
    /// Only with this header, which its token server gives for a name and password.
    token: Option<String>,
    login: Option<String>,
    /// Where what is uploaded goes.
    uploads: Option<String>,
}

/// A registry in this process.
#[derive(Clone)]
pub struct Fake {
    pub address: SocketAddr,
    contents: Arc<Mutex<Contents>>,
}

impl Fake {
    pub async fn start() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Fake { address: listener.local_addr().unwrap(), contents: Arc::default() };
        let serving = fake.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let fake = serving.clone();
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let fake = fake.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        body.collect().await.unwrap();
                        Ok::<_, Infallible>(fake.answer(&Request::from_parts(head, ())))
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move { connection.await.is_ok() });
            }
        });
        fake
    }

    /// The full name of something here.
    pub fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    /// Wants a bearer token, which a name and password give.
    pub fn want_token(&self, login: &str, token: &str) {
        let mut contents = self.contents.lock().unwrap();
        contents.token = Some(format!("Bearer {token}"));
        contents.login = Some(login.to_owned());
    }

    pub fn put(&self, path: &str, kind: &str, content: &[u8]) {
        self.contents.lock().unwrap().answers.insert(path.to_owned(), (kind.to_owned(), content.to_vec()));
    }

    pub fn put_blob(&self, repository: &str, digest: &str, content: &[u8]) {
        self.put(&format!("/v2/{repository}/blobs/{digest}"), "application/octet-stream", content);
    }

    pub fn put_manifest(&self, repository: &str, version: &str, content: &[u8]) {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        for version in [version, &digest(content)] {
            self.put(&format!("/v2/{repository}/manifests/{version}"), kind, content);
        }
    }

    /// Sends whoever asks for this elsewhere.
    pub fn redirect(&self, path: &str, to: &str) {
        self.contents.lock().unwrap().redirections.insert(path.to_owned(), to.to_owned());
    }

    /// Takes uploads, and sends whoever has one here.
    pub fn take_uploads(&self, location: &str) {
        self.contents.lock().unwrap().uploads = Some(location.to_owned());
    }

    /// Whether anybody has sent this header.
    pub fn saw_header(&self, name: &str) -> bool {
        self.contents.lock().unwrap().headers.iter().any(|seen| seen == name)
    }

    /// All of an image.
    pub fn put_image(&self, repository: &str, tag: &str, parts: &Parts) {
        for blob in parts.layers.iter().chain([&parts.config]) {
            self.put_blob(repository, &digest(blob), blob);
        }
        self.put_manifest(repository, tag, &parts.manifest);
    }

    /// How often something was asked for whose path holds this.
    pub fn asked(&self, part: &str) -> usize {
        self.contents.lock().unwrap().asked.iter().filter(|path| path.contains(part)).count()
    }

    fn answer(&self, request: &Request<()>) -> Response<Full<Bytes>> {
        let mut contents = self.contents.lock().unwrap();
        let path = request.uri().path().to_owned();
        contents.asked.push(format!("{} {path}", request.method()));
        contents.headers.extend(request.headers().keys().map(|name| name.to_string()));
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let plain = |status: StatusCode, body: &str| {
            Response::builder().status(status).body(Full::new(Bytes::from(body.to_owned()))).unwrap()
        };
        let authorization = header("authorization");
        if path == "/token" {
            let query = request.uri().query().unwrap_or_default();
            let asks_right = query.contains("service=fake") && query.contains("scope=repository%3A");
            return match (&contents.token, authorization == contents.login && asks_right) {
                (Some(token), true) => {
                    let token = token.strip_prefix("Bearer ").unwrap();
                    plain(StatusCode::OK, &format!(r#"{{"token":"{token}"}}"#))
                }
                _ => plain(StatusCode::UNAUTHORIZED, ""),
            };
        }
        if contents.token.is_some() && authorization != contents.token {
            let challenge = format!(
                r#"Bearer realm="http://{}/token",service="fake",scope="repository:private/web:pull""#,
                self.address
            );
            let mut refusal = plain(
                StatusCode::UNAUTHORIZED,
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
            );
            refusal.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
            return refusal;
        }
        if let Some(to) = contents.redirections.get(&path) {
            let mut redirection = plain(StatusCode::TEMPORARY_REDIRECT, "");
            redirection.headers_mut().insert("location", to.parse().unwrap());
            return redirection;
        }
        if let Some(location) = &contents.uploads
            && matches!(request.method().as_str(), "POST" | "PUT")
        {
            let is_begin = request.method() == "POST";
            let mut answer = plain(if is_begin { StatusCode::ACCEPTED } else { StatusCode::CREATED }, "");
            answer.headers_mut().insert("location", location.parse().unwrap());
            return answer;
        }
        let Some((kind, content)) = contents.answers.get(&path) else {
            return plain(
                StatusCode::NOT_FOUND,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
            );
        };
        Response::builder()
            .header("content-type", kind)
            .header("docker-content-digest", digest(content))
            .body(Full::new(Bytes::from(content.clone())))
            .unwrap()
    }
}

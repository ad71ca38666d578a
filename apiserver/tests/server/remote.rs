//! A server of the users' own, for the tests of those who call one: TLS, JSON in and JSON out.

use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

/// A running server. It remembers what it was asked.
pub struct Remote {
    pub port: u16,
    /// Its certificate as `caBundle` has it.
    pub bundle: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Remote {
    /// A server at 127.0.0.1.
    #[allow(dead_code, reason = "stories have machines of their own")]
    pub async fn start(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Remote {
        Remote::on(TcpListener::bind("127.0.0.1:0").unwrap(), answer).await
    }

    /// A server at a socket that is also `hook.default.svc`. What `answer` makes of a request's JSON is sent back.
    pub async fn on(
        listener: TcpListener,
        answer: impl Fn(&Value) -> Value + Send + Sync + 'static,
    ) -> Remote {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let names = ["127.0.0.1".to_string(), "hook.default.svc".to_string()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (noted, answer) = (asked.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, noted, answer) = (acceptor.clone(), noted.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: http::Request<Incoming>| {
                        let (noted, answer) = (noted.clone(), answer.clone());
                        async move {
                            let body = request.into_body().collect().await.unwrap().to_bytes();
                            let question: Value = serde_json::from_slice(&body).unwrap();
                            let answer = answer(&question);
                            noted.lock().unwrap().push(question);
                            if answer.is_null() {
                                // It has heard, and says nothing.
                                std::future::pending::<()>().await;
                            }
                            let bytes = bytes::Bytes::from(answer.to_string());
                            Ok::<_, hyper::Error>(http::Response::new(Full::new(bytes)))
                        }
                    });
                    let served = hyper::server::conn::http1::Builder::new();
                    // A client that goes away is none of the server's business.
                    drop(served.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        let bundle = BASE64_STANDARD.encode(made.cert.pem());
        Remote { port, bundle, asked }
    }

    /// A `clientConfig` with its address.
    #[allow(dead_code, reason = "stories call it by its Service")]
    pub fn client(&self, path: &str) -> Value {
        json!({"url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": self.bundle})
    }

    /// What it was asked so far, in order.
    #[allow(dead_code, reason = "stories look at the outcome")]
    pub fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }
}

//! Raw connections to an API server: nothing stands between a request and its socket that the server would have to
//! share the machine with.
//!
//! HTTP/1.1 takes a connection for each request that is on its way, and keeps it for the next one; HTTP/2 has one for
//! all, as clients in Go keep to one for each server.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail};
use http::{
    HeaderValue, Request, Response, Uri, Version,
    header::{AUTHORIZATION, HOST},
};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::{Config, client::ConfigExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::ClientConfig};
use tower::{BoxError, ServiceBuilder, ServiceExt};

/// How much may be on its way in one stream and in all of them of HTTP/2; client-go's figures.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 1 << 30;

type Body = Full<Bytes>;

/// The connections to one API server; a clone shares them.
#[derive(Clone)]
pub struct Connections(Arc<Shared>);

struct Shared {
    server: Uri,
    tls: ClientConfig,
    authorization: Option<HeaderValue>,
    way: Way,
}

enum Way {
    /// HTTP/1.1: those on which nothing is on its way.
    Idle(Mutex<Vec<http1::SendRequest<Body>>>),
    /// HTTP/2.
    One(http2::SendRequest<Body>),
}

impl Connections {
    /// Over HTTP/1.1, opened as they are needed.
    pub async fn http1(config: &Config) -> Result<Connections> {
        Ok(Connections(Arc::new(Shared::new(config, b"http/1.1").await?)))
    }

    /// Over HTTP/2, opened now.
    pub async fn http2(config: &Config) -> Result<Connections> {
        let mut shared = Shared::new(config, b"h2").await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(shared.connect().await?))
            .await?;
        tokio::spawn(connection);
        shared.way = Way::One(sender);
        Ok(Connections(Arc::new(shared)))
    }

    /// Sends a request to a path and returns what is answered, once its head is here.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Answer> {
        let Shared { server, authorization, way, .. } = &*self.0;
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        match way {
            Way::Idle(_) => {
                let host = server.authority().context("the cluster's URL has no host")?;
                request.headers_mut().insert(HOST, host.as_str().try_into()?);
                let mut sender = self.0.idle().await?;
                let response = sender.send_request(request).await?;
                Ok(Answer { response, lent: Some((sender, self.clone())) })
            }
            Way::One(sender) => {
                let mut parts = server.clone().into_parts();
                parts.path_and_query = request.uri().path_and_query().cloned();
                *request.uri_mut() = Uri::from_parts(parts)?;
                *request.version_mut() = Version::HTTP_2;
                let mut sender = sender.clone();
                sender.ready().await?;
                Ok(Answer { response: sender.send_request(request).await?, lent: None })
            }
        }
    }
}

impl Shared {
    async fn new(config: &Config, protocol: &[u8]) -> Result<Shared> {
        let mut tls = config.rustls_client_config().context("the kubeconfig's certificates are of no use")?;
        tls.alpn_protocols = vec![protocol.to_vec()];
        let authorization = authorization(config).await?;
        let server = config.cluster_url.clone();
        Ok(Shared { server, tls, authorization, way: Way::Idle(Mutex::default()) })
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let server = self.server.authority().context("the cluster's URL has no host")?;
        let host = server.host().trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, server.port_u16().unwrap_or(443)))
            .await
            .with_context(|| format!("cannot reach {server}"))?;
        stream.set_nodelay(true)?;
        let name = host.to_string().try_into().with_context(|| format!("{host} is no name for a server"))?;
        Ok(TlsConnector::from(Arc::new(self.tls.clone())).connect(name, stream).await?)
    }

    /// A connection of HTTP/1.1 for one request.
    async fn idle(&self) -> Result<http1::SendRequest<Body>> {
        let Way::Idle(idle) = &self.way else { bail!("HTTP/2 has one connection for all") };
        loop {
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut sender) = kept else { break };
            // The server may have closed it meanwhile.
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let (sender, connection) = http1::handshake(TokioIo::new(self.connect().await?)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// What a kubeconfig has a client say of itself in each request, where it has no certificate.
async fn authorization(config: &Config) -> Result<Option<HeaderValue>> {
    // What is kube's to know is asked of it once: a request that goes nowhere.
    let nowhere = ServiceBuilder::new().option_layer(config.auth_layer()?).service_fn(
        |request: Request<Body>| async move {
            Ok::<_, BoxError>(Response::new(request.headers().get(AUTHORIZATION).cloned()))
        },
    );
    let shown = nowhere.oneshot(Request::new(Body::default())).await;
    let shown = shown.map_err(|error| anyhow!("the kubeconfig's credentials are of no use: {error}"))?;
    Ok(shown.into_body())
}

/// An answer whose body is on its way.
pub struct Answer {
    /// Its head, and what is still to come of its body.
    pub response: Response<Incoming>,
    /// The connection it comes on, and where that belongs.
    lent: Option<(http1::SendRequest<Body>, Connections)>,
}

impl Answer {
    /// The next piece of the body, or nothing at its end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>> {
        while let Some(frame) = self.response.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        if let Some((sender, Connections(home))) = self.lent.take()
            && let Way::Idle(idle) = &home.way
        {
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        }
        Ok(None)
    }

    /// The whole body.
    pub async fn whole(mut self) -> Result<Vec<u8>> {
        let mut whole = Vec::new();
        while let Some(piece) = self.piece().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }
}

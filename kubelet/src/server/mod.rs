//! The kubelet's own API: logs, exec, attach, port-forward, and what there is to know about its pods.
//!
//! Who uses it proves who he is with a client certificate of the cluster's CA or with a token that the API server
//! knows, and may do what the API server says that he may do to this node. Streams are passed on to the runtime's streaming server as raw connections.

mod access;
mod figures;
mod identity;
mod logs;
mod stats;
mod streams;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use client::Cache;
use daemon::listen;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::TlsFiles;
use crate::context::Context;
use crate::pod::view::PodView;
use access::Access;
pub use identity::{Identity, TlsError};

/// How long a client may take to say who it is, and what it wants.
const PATIENCE: Duration = Duration::from_secs(30);

/// What every handler needs.
#[derive(Clone)]
pub struct Api {
    context: Arc<Context>,
    pods: Arc<Cache<Pod>>,
    access: Arc<Access>,
}

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificates are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A refusal in upstream's plain text.
pub struct Refusal(pub StatusCode, pub String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{}\n", self.1))
            .into_response()
    }
}

/// A server that listens, so that whoever starts the kubelet learns at once when it cannot.
pub struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    api: Api,
}

impl Server {
    /// Listens on the configured address.
    pub async fn bind(
        context: Arc<Context>,
        pods: Arc<Cache<Pod>>,
        tls: &TlsFiles,
    ) -> Result<Server, ServeError> {
        let address = context.config.listen;
        let acceptor = TlsAcceptor::from(Arc::new(identity::server_config(tls)?));
        let listener =
            TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
        let access = Arc::new(Access::new(context.client.clone(), &context.config.node_name));
        Ok(Server { listener, acceptor, api: Api { context, pods, access } })
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let router = router(self.api);
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => return,
                (stream, _) = listen::accept(&self.listener) => stream,
            };
            let connection = serve(stream, self.acceptor.clone(), router.clone());
            tokio::spawn(stop.clone().run_until_cancelled_owned(connection));
        }
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, router: Router) {
    // Small writes of interactive streams must not wait for each other.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let stream = match timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let identity = identity::of_peer(stream.get_ref().1.peer_certificates());
    let service = router.layer(axum::Extension(identity));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let served =
        builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = served.await {
        tracing::debug!(%error, "connection ended early");
    }
}

fn router(api: Api) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(pods))
        .route("/runningpods/", get(pods))
        .route("/metrics", get(metrics))
        .route("/metrics/probes", get(|| async { text(crate::metrics::render_probes()) }))
        .route("/metrics/resource", get(figures::resource))
        .route("/metrics/cadvisor", get(figures::cadvisor))
        .route("/stats/summary", get(stats::summary))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::container_logs))
        .route("/exec/{namespace}/{pod}/{container}", any(streams::exec))
        .route("/exec/{namespace}/{pod}/{uid}/{container}", any(streams::exec_by_uid))
        .route("/attach/{namespace}/{pod}/{container}", any(streams::attach))
        .route("/attach/{namespace}/{pod}/{uid}/{container}", any(streams::attach_by_uid))
        .route("/portForward/{namespace}/{pod}", any(streams::port_forward))
        .route("/portForward/{namespace}/{pod}/{uid}", any(streams::port_forward_by_uid))
        .layer(middleware::from_fn_with_state(api.clone(), authorize))
        .with_state(api)
}

/// Nobody in particular: 401. One who may not: 403.
async fn authorize(State(api): State<Api>, request: Request, next: Next) -> Response {
    // The body cannot be shared with the question.
    let (parts, body) = request.into_parts();
    match allow(&api, &parts).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn allow(api: &Api, request: &Parts) -> Result<(), Refusal> {
    let unsure = |error: kube::Error| {
        tracing::warn!(%error, "cannot ask who may use the kubelet");
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("Authorization error: {error}"))
    };
    let shown = request.extensions.get::<Option<Identity>>().cloned().flatten();
    let identity = match shown {
        Some(identity) => Some(identity),
        None => api.access.of_token(&request.headers).await.map_err(unsure)?,
    };
    let Some(identity) = identity else {
        return Err(Refusal(StatusCode::UNAUTHORIZED, "Unauthorized".into()));
    };
    if identity.is_trusted(&api.context.config.authorized_users) {
        return Ok(());
    }
    let (verb, subresources) = (access::verb(&request.method), access::subresources(request.uri.path()));
    if api.access.may(&identity, verb, subresources).await.map_err(unsure)? {
        return Ok(());
    }
    let (name, subresources) = (&identity.name, subresources.join(" "));
    let message =
        format!("Forbidden (user={name}, verb={verb}, resource=nodes, subresource(s)=[{subresources}])");
    Err(Refusal(StatusCode::FORBIDDEN, message))
}

async fn pods(State(api): State<Api>) -> Response {
    let items: Vec<_> = api.pods.list().iter().map(|pod| (**pod).clone()).collect();
    let list = serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items });
    json(&list)
}

fn json(value: &serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

async fn metrics() -> Response {
    text(daemon::metrics::render())
}

fn text(metrics: String) -> Response {
    ([(header::CONTENT_TYPE, daemon::metrics::CONTENT_TYPE)], Body::from(metrics)).into_response()
}

impl Api {
    fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, Refusal> {
        let found = self.pods.get(namespace, name);
        found.ok_or_else(|| Refusal(StatusCode::NOT_FOUND, format!("pod \"{name}\" not found")))
    }

    /// What the runtime has of a pod.
    async fn observe(&self, pod: &Pod) -> Result<crate::pod::observed::Observed, Refusal> {
        let logs = self.context.config.log_dir.join(crate::sandbox::log_directory(pod));
        let mut inspector = crate::pod::inspect::Inspector::new(pod.uid(), logs);
        let observed = inspector.look(&*self.context.runtime).await;
        let observed = observed.map(|observed| observed.with_lost(pod.status()));
        observed.map_err(|error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    }
}

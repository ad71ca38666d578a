//! Carries requests on to kubelets (logs, exec, attach, port-forward), to pods, Services and nodes.
//!
//! [`target`] decides where a request goes and how it reads there; the bytes go through
//! [`daemon::proxy`]. Kubelets are spoken to over TLS: they show a certificate of the cluster's CA, we show the
//! kubelet-client certificate. The caller's own credentials stay here.

mod endpoint;
mod rewrite;
mod target;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use api::{Kind, Object, Status, kinds};
use axum::body::Body;
use daemon::{
    proxy::{ForwardError, forward, upgrade_protocol},
    tls,
};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    registry::Registry,
    request::{Query, RequestInfo},
};
use endpoint::Endpoint;
use rewrite::Place;
use target::{NamedTarget, container_of, kubelet_path};

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a kubelet may take to say what is used, and how long its page may be.
const METRICS_PATIENCE: Duration = Duration::from_secs(10);
const MAX_METRICS: usize = 32 << 20;
/// How much of a kubelet's error text is read.
const MAX_ERROR_TEXT: usize = 2048;

/// Where a Service's ready endpoints are, for those who call them without a proxy in between.
pub(crate) fn addresses_of_service(
    service: &Object,
    slices: &[Object],
    port: &str,
) -> Result<Vec<SocketAddr>, Status> {
    let endpoints = Endpoint::of_service(service, slices, port)?;
    Ok(endpoints.iter().map(Endpoint::address).collect())
}

/// The way to kubelets, pods and Services.
pub struct Kubelets {
    tls: TlsConnector,
}

impl Kubelets {
    /// `tls` as [`crate::pki::Pki::kubelet_client_config`] makes it.
    pub fn new(tls: rustls::ClientConfig) -> Kubelets {
        Kubelets { tls: TlsConnector::from(Arc::new(tls)) }
    }

    /// Carries the request on; gives it back when it is about something else.
    pub async fn connect(
        &self,
        registry: &Registry,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Result<Response<Body>, Status>, Request<Body>> {
        if !info.group.is_empty() {
            return Err(request);
        }
        Ok(match (info.resource.as_str(), info.subresource.as_str()) {
            ("pods", "log") => self.log(registry, info, request).await,
            ("pods", "exec" | "attach" | "portforward") => self.stream(registry, info, request).await,
            ("pods", "proxy") => self.pod(registry, info, request).await,
            ("services", "proxy") => self.service(registry, info, request).await,
            ("nodes", "proxy") => self.node(registry, info, request).await,
            _ => return Err(request),
        })
    }

    async fn log(
        &self,
        registry: &Registry,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let query = Query::of(request.uri())?;
        target::check_log_options(&query, &info.name)?;
        let pod = registry.get(core("pods"), &info.namespace, &info.name).await?;
        let container = container_of(&pod, query.get("container"))?;
        let node = pod.text(&["spec", "nodeName"]);
        if node.is_empty() {
            return Ok(status_only(StatusCode::NO_CONTENT));
        }
        let path = kubelet_path("containerLogs", info, Some(container), &target::log_query(&query));
        let kubelet = kubelet_of(registry, node, "pods").await?;
        let response = self.to_kubelet(kubelet, path, request).await?;
        if response.status().is_client_error() || response.status().is_server_error() {
            return Err(kubelet_refused(info, response).await);
        }
        Ok(response.map(Body::new))
    }

    async fn stream(
        &self,
        registry: &Registry,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let query = Query::of(request.uri())?;
        let ports = target::forward_query(&query)?;
        let pod = registry.get(core("pods"), &info.namespace, &info.name).await?;
        let is_forward = info.subresource == "portforward";
        let container = match is_forward {
            true => None,
            false => Some(container_of(&pod, query.get("container"))?),
        };
        let node = pod.text(&["spec", "nodeName"]);
        if node.is_empty() {
            return Err(Status::bad_request(format!("pod {} does not have a host assigned", info.name)));
        }
        let (verb, query) = match info.subresource.as_str() {
            "exec" => ("exec", target::stream_query(&query, true)),
            "attach" => ("attach", target::stream_query(&query, false)),
            _ => ("portForward", ports),
        };
        let path = kubelet_path(verb, info, container, &query);
        let kubelet = kubelet_of(registry, node, "pods").await?;
        let response = self.to_kubelet(kubelet, path, request).await?;
        Ok(response.map(Body::new))
    }

    async fn node(
        &self,
        registry: &Registry,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let target = NamedTarget::parse(&info.name, "node")?;
        let node = registry.get(core("nodes"), "", target.name).await?;
        let endpoint = Endpoint::of_node(&node)?;
        if let Some(redirect) = to_its_root(&request) {
            return Ok(redirect);
        }
        let path = target::rest_of(request.uri(), info);
        let response = match target.port {
            "" | "10250" => self.to_kubelet(endpoint, path, request).await?,
            port => {
                let endpoint = endpoint.with_port(target::number(port)?);
                reach(plain(request, &path, &endpoint)?, endpoint).await?
            }
        };
        Ok(response.map(Body::new))
    }

    async fn pod(
        &self,
        registry: &Registry,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let target = NamedTarget::parse(&info.name, "pod")?;
        let pod = registry.get(core("pods"), &info.namespace, target.name).await?;
        let endpoint = Endpoint::of_pod(&pod, target.port)?;
        let path = target::rest_of(request.uri(), info);
        self.to_endpoint(endpoint, &target, path, request).await
    }

    async fn service(
        &self,
        registry: &Registry,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let target = NamedTarget::parse(&info.name, "service")?;
        let service = registry.get(core("services"), &info.namespace, target.name).await?;
        let kind = kinds::built_in("discovery.k8s.io", "endpointslices");
        let slices = registry.list(kind, Some(&info.namespace)).await?;
        let choices = Endpoint::of_service(&service, &slices, target.port)?;
        let endpoint = choices[fastrand::usize(..choices.len())];
        let path = target::rest_of(request.uri(), info);
        self.to_endpoint(endpoint, &target, path, request).await
    }

    async fn to_endpoint(
        &self,
        endpoint: Endpoint,
        target: &NamedTarget<'_>,
        path: String,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        if let Some(redirect) = to_its_root(&request) {
            return Ok(redirect);
        }
        let place = Place::new(request.uri(), &path, request.headers(), endpoint.to_string());
        let mut request = plain(request, &path, &endpoint)?;
        place.announce(&path, request.headers_mut());
        let response = if target.scheme == "https" {
            // Pods have certificates of their own making; as upstream, nobody can say whom to trust.
            let tls = TlsConnector::from(Arc::new(tls::trusting_client().map_err(Status::internal)?));
            forward(request, connect_tls(tls, endpoint)).await.map_err(unreachable)?
        } else {
            reach(request, endpoint).await?
        };
        Ok(place.seen_through(response))
    }

    /// What a node and its containers have used up, as its kubelet says it to whoever measures.
    pub(crate) async fn resource_metrics(&self, registry: &Registry, node: &str) -> Result<String, Status> {
        let request = Request::new(Body::empty());
        let asked = async {
            let kubelet = kubelet_of(registry, node, "nodes").await?;
            let response = self.to_kubelet(kubelet, "/metrics/resource".into(), request).await?;
            if !response.status().is_success() {
                return Err(Status::internal(format!("the kubelet answered {}", response.status())));
            }
            let page = Limited::new(response.into_body(), MAX_METRICS).collect().await;
            page.map_err(Status::internal)
        };
        let page = timeout(METRICS_PATIENCE, asked).await.map_err(Status::internal)??;
        Ok(String::from_utf8_lossy(&page.to_bytes()).into_owned())
    }

    async fn to_kubelet(
        &self,
        endpoint: Endpoint,
        path: String,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Status> {
        let request = plain(request, &path, &endpoint)?;
        forward(request, connect_tls(self.tls.clone(), endpoint))
            .await
            .map_err(|error| Status::new(500, "InternalError", error.to_string()))
    }
}

/// Where a node's kubelet is. A node that is not there is told of as if it were one of `resource`, which the request
/// is about, as upstream does.
async fn kubelet_of(registry: &Registry, node: &str, resource: &str) -> Result<Endpoint, Status> {
    let found = registry.get(core("nodes"), "", node).await;
    let node = found.map_err(|status| match status.code {
        404 => Status::not_found("", resource, node),
        _ => status,
    })?;
    Endpoint::of_node(&node)
}

/// Whoever looks at a proxy without a path is sent to its root, so that relative addresses lead somewhere.
fn to_its_root(request: &Request<Body>) -> Option<Response<Body>> {
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    let stays = looks && upgrade_protocol(request.headers()).is_none();
    stays.then(|| rewrite::to_its_root(request.uri())).flatten()
}

/// The request with another path and without the caller's credentials.
fn plain(mut request: Request<Body>, path: &str, endpoint: &Endpoint) -> Result<Request<Body>, Status> {
    let wrong =
        |error: &dyn std::fmt::Display| Status::bad_request(format!("invalid path {path:?}: {error}"));
    *request.uri_mut() = path.parse::<Uri>().map_err(|error| wrong(&error))?;
    let headers = request.headers_mut();
    headers.remove(header::AUTHORIZATION);
    let impersonation: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    impersonation.into_iter().for_each(|name| drop(headers.remove(name)));
    let host = HeaderValue::from_str(&endpoint.to_string()).map_err(|error| wrong(&error))?;
    headers.insert(header::HOST, host);
    Ok(request)
}

async fn reach(request: Request<Body>, endpoint: Endpoint) -> Result<Response<Incoming>, Status> {
    forward(request, connect_tcp(endpoint)).await.map_err(unreachable)
}

async fn connect_tcp(endpoint: Endpoint) -> io::Result<TcpStream> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("dial tcp {endpoint}: i/o timeout"));
    let connected = timeout(CONNECT_PATIENCE, TcpStream::connect(endpoint.address())).await.map_err(late)?;
    let stream =
        connected.map_err(|error| io::Error::new(error.kind(), format!("dial tcp {endpoint}: {error}")))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connect_tls(tls: TlsConnector, endpoint: Endpoint) -> io::Result<TlsStream<TcpStream>> {
    let stream = connect_tcp(endpoint).await?;
    let connecting = tls.connect(ServerName::IpAddress(endpoint.address().ip().into()), stream);
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("TLS handshake with {endpoint}: timeout"));
    timeout(CONNECT_PATIENCE, connecting).await.map_err(late)?
}

/// A kubelet's refusal, which is plain text, as a Status.
async fn kubelet_refused(info: &RequestInfo, response: Response<Incoming>) -> Status {
    let code = response.status();
    let body = Limited::new(response.into_body(), MAX_ERROR_TEXT).collect().await;
    let text =
        body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_string()).unwrap_or_default();
    match code {
        StatusCode::BAD_REQUEST => Status::bad_request(text),
        StatusCode::INTERNAL_SERVER_ERROR => Status::internal(text),
        StatusCode::NOT_FOUND => {
            let message = format!(
                "the server could not find the requested resource ({} {} {})",
                info.verb, info.resource, info.name
            );
            let message = if text.is_empty() { message } else { text };
            Status::new(404, "NotFound", message).about("", "pods", &info.name)
        }
        code => Status::new(code.as_u16(), "InternalError", text),
    }
}

fn unreachable(error: ForwardError) -> Status {
    let why = match &error {
        ForwardError::Connect { source } => source.to_string(),
        ForwardError::Exchange { source } => source.to_string(),
    };
    Status::new(503, "ServiceUnavailable", format!("error trying to reach service: {why}"))
}

fn status_only(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

fn core(plural: &str) -> &'static Kind {
    kinds::built_in("", plural)
}

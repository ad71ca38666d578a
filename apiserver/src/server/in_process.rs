//! Requests from inside the process: no sockets, no copies, an identity attached.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use tower::{BoxError, Service};

use super::State;
use crate::request::User;

/// The server as a tower service for one user. Cheap to clone.
#[derive(Clone)]
pub struct InProcess {
    state: Arc<State>,
    user: Arc<User>,
    /// The name of the component that asks, where it is one of the cluster's own.
    agent: Option<HeaderValue>,
}

impl InProcess {
    pub(super) fn new(state: Arc<State>, user: User) -> InProcess {
        let agent = component(&user.name).map(HeaderValue::from_static);
        InProcess { state, user: Arc::new(user), agent }
    }
}

/// The component behind a user: all parts of the cluster live in one process, and each owns what it writes
/// under the name that it has in upstream's clusters.
fn component(user: &str) -> Option<&'static str> {
    match user {
        "system:apiserver" => Some("kube-apiserver"),
        "system:kube-controller-manager" => Some("kube-controller-manager"),
        "system:kube-scheduler" => Some("kube-scheduler"),
        "system:kube-proxy" => Some("kube-proxy"),
        user if user.starts_with("system:serviceaccount:kube-system:") => Some("kube-controller-manager"),
        user if user.starts_with("system:node:") => Some("kubelet"),
        _ => None,
    }
}

impl<B> Service<Request<B>> for InProcess
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.user.clone());
        if let (Some(agent), false) = (&self.agent, request.headers().contains_key(header::USER_AGENT)) {
            request.headers_mut().insert(header::USER_AGENT, agent.clone());
        }
        let state = self.state.clone();
        Box::pin(async move { Ok(state.handle(request).await) })
    }
}

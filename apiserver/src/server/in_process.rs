//! Requests from inside the process: no sockets, no copies, an identity attached.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use tower::{BoxError, Service};

use super::State;
use crate::request::User;

/// The server as a tower service for one user. Cheap to clone.
#[derive(Clone)]
pub struct InProcess {
    state: Arc<State>,
    user: Arc<User>,
}

impl InProcess {
    pub(super) fn new(state: Arc<State>, user: User) -> InProcess {
        InProcess { state, user: Arc::new(user) }
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
        let state = self.state.clone();
        Box::pin(async move { Ok(state.handle(request).await) })
    }
}

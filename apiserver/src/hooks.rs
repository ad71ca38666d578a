//! What the request path asks of others: who is it, may they, shall the object be changed or refused,
//! which address does it get. The server calls these traits and knows no implementation.

use std::net::SocketAddr;

use api::{Kind, Object, Status};
use async_trait::async_trait;
use axum::body::Body;
use http::{HeaderMap, Request, Response, header, request::Parts};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    registry::Registry,
    request::{PeerCertificate, RequestInfo, User},
};

/// Finds out who sent a request.
#[async_trait]
pub trait Authenticate: Send + Sync + 'static {
    /// The user behind a request that came over the network. Whoever shows no credentials is
    /// `system:anonymous`, or refused with 401, as the implementation is configured.
    async fn authenticate(&self, parts: &Parts, peer: Option<&PeerCertificate>) -> Result<User, Status>;

    /// Takes the credentials out of a request that has been authenticated: nothing behind needs them, and where the
    /// request is carried on to, nobody shall see or believe them.
    fn strip(&self, headers: &mut HeaderMap) {
        headers.remove(header::AUTHORIZATION);
    }
}

/// What an authorizer thinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may go on.
    pub allowed: bool,
    /// Why, or why not; shown to the user after a refusal.
    pub reason: String,
}

/// Decides who may do what.
#[async_trait]
pub trait Authorize: Send + Sync + 'static {
    /// Whether `user` may do what `info` says.
    async fn authorize(&self, user: &User, info: &RequestInfo) -> Decision;

    /// The request as it goes on after `Impersonate-*` headers: the same user, or the one impersonated.
    async fn impersonated(&self, user: User, _parts: &Parts) -> Result<User, Status> {
        Ok(user)
    }
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object, or a `create` on a subresource such as `pods/binding`.
    Create,
    /// PUT and PATCH.
    Update,
    /// DELETE, also as part of deletecollection.
    Delete,
    /// exec, attach, portforward, proxy.
    Connect,
}

/// A write on its way to the store, as admission sees it.
#[derive(Clone, Copy)]
pub struct Attributes<'a> {
    /// Who writes.
    pub user: &'a User,
    /// What is done.
    pub operation: Operation,
    /// To which kind.
    pub kind: &'static Kind,
    /// Through which subresource; empty for the object itself.
    pub subresource: &'a str,
    /// In which namespace; empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// To which object; may be empty on create, before the name is generated.
    pub name: &'a str,
    /// The name in the URL: empty where an object is posted to its collection.
    pub addressed: &'a str,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// The options of the request as an object, such as `CreateOptions`; null where there are none.
    pub options: &'a Value,
    /// When the client has to have an answer.
    pub deadline: Option<Instant>,
}

/// The admission chain: built-in plug-ins first, then webhooks.
#[async_trait]
pub trait Admit: Send + Sync + 'static {
    /// Changes what the user left to the cluster (service account, tolerations, priority, ...). Runs
    /// before defaults and validation, again on every retry of an update. Returns warnings for the client.
    async fn mutate(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<Vec<String>, Status>;

    /// Refuses what may not be stored. On delete there is only `old`, and on deletecollection the hook
    /// runs for each object.
    async fn validate(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<Vec<String>, Status>;
}

/// Hands out what only one object may have: Service addresses and node ports.
#[async_trait]
pub trait Allocate: Send + Sync + 'static {
    /// Fills in what `object` needs and reserves it, after defaults and before validation. `None` when
    /// this kind needs nothing. A `dry_run` stores nothing.
    async fn allocate(
        &self,
        kind: &'static Kind,
        object: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
    ) -> Result<Option<Box<dyn Reservation>>, Status>;

    /// Gives back what an object held that is gone from the store.
    async fn release(&self, kind: &'static Kind, object: &Object);
}

/// Something reserved for a write that is under way. One that is dropped is left to the repair: nobody knows whether
/// the write has happened.
#[async_trait]
pub trait Reservation: Send {
    /// The write is durable: what was reserved stays, what the old object alone held is free again.
    async fn commit(self: Box<Self>);

    /// The write has not happened: what was reserved is free again.
    async fn revert(self: Box<Self>);
}

/// Requests about resources that are answered, not stored: reviews, tokens, and everything that is
/// carried on to a kubelet or a pod.
#[async_trait]
pub trait Answer: Send + Sync + 'static {
    /// The answer to a `create` on a kind or subresource that is never stored (TokenReview,
    /// SubjectAccessReview, `serviceaccounts/token`); `None` when this is not one.
    async fn review(
        &self,
        registry: &Registry,
        user: &User,
        info: &RequestInfo,
        object: &Object,
    ) -> Option<Result<Object, Status>>;

    /// The objects of a kind that can be read but is never stored (NodeMetrics, ComponentStatus), as they are now: the
    /// one with this name, or all in the namespace, or all.
    async fn observe(
        &self,
        _registry: &Registry,
        _kind: &'static Kind,
        _namespace: &str,
        _name: Option<&str>,
    ) -> Result<Vec<Object>, Status> {
        Ok(Vec::new())
    }

    /// Carries a request on (`pods/log`, `pods/exec`, `nodes/proxy`, ...); gives it back when it is none of these.
    async fn connect(
        &self,
        registry: &Registry,
        user: &User,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Result<Response<Body>, Status>, Request<Body>>;
}

/// All hooks of a server.
pub struct Hooks {
    /// Who is it?
    pub authenticator: Box<dyn Authenticate>,
    /// May they?
    pub authorizer: Box<dyn Authorize>,
    /// Shall the object be changed or refused?
    pub admission: Box<dyn Admit>,
    /// Which addresses does it get?
    pub allocator: Box<dyn Allocate>,
    /// Who answers what is not stored?
    pub answers: Box<dyn Answer>,
}

/// Where a request came from, as an extension; absent for in-process requests.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub SocketAddr);

//! Hooks that let everything pass: authentication and admission have tests of their own.

use api::{Kind, Object, Status};
use apiserver::{
    hooks::{Admit, Allocate, Answer, Attributes, Authenticate, Authorize, Decision, Hooks, Reservation},
    registry::Registry,
    request::{PeerCertificate, RequestInfo, User},
};
use async_trait::async_trait;
use axum::body::Body;
use http::{Request, Response, request::Parts};

/// An object with this name makes admission panic.
pub const PANICS: &str = "panics";
/// What the user with this name may not do is everything.
pub const NOBODY: &str = "nobody";

pub struct Permissive;

pub fn hooks() -> Hooks {
    Hooks {
        authenticator: Box::new(Permissive),
        authorizer: Box::new(Permissive),
        admission: Box::new(Permissive),
        allocator: Box::new(Permissive),
        answers: Box::new(Permissive),
    }
}

#[async_trait]
impl Authenticate for Permissive {
    async fn authenticate(&self, _parts: &Parts, _peer: Option<&PeerCertificate>) -> Result<User, Status> {
        Ok(User::new("admin", &["system:masters"]))
    }
}

#[async_trait]
impl Authorize for Permissive {
    async fn authorize(&self, user: &User, _info: &RequestInfo) -> Decision {
        Decision { allowed: user.name != NOBODY, reason: String::new() }
    }
}

#[async_trait]
impl Admit for Permissive {
    async fn mutate(
        &self,
        _registry: &Registry,
        attributes: &Attributes<'_>,
        object: &mut Object,
        _old: Option<&Object>,
    ) -> Result<Vec<String>, Status> {
        assert_ne!(object.name(), PANICS);
        let is_pod = attributes.kind.plural == "pods";
        Ok(if is_pod && object.name() == "warned" { vec!["take \"care\"".into()] } else { Vec::new() })
    }

    async fn validate(
        &self,
        _registry: &Registry,
        _attributes: &Attributes<'_>,
        _object: Option<&Object>,
        _old: Option<&Object>,
    ) -> Result<Vec<String>, Status> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Allocate for Permissive {
    async fn allocate(
        &self,
        _kind: &'static Kind,
        _object: &mut Object,
        _old: Option<&Object>,
        _dry_run: bool,
    ) -> Result<Option<Box<dyn Reservation>>, Status> {
        Ok(None)
    }

    async fn release(&self, _kind: &'static Kind, _object: &Object) {}
}

#[async_trait]
impl Answer for Permissive {
    async fn review(
        &self,
        _registry: &Registry,
        _user: &User,
        info: &RequestInfo,
        object: &Object,
    ) -> Option<Result<Object, Status>> {
        (info.resource == "tokenreviews").then(|| Ok(object.clone()))
    }

    async fn connect(
        &self,
        _registry: &Registry,
        _user: &User,
        _info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Result<Response<Body>, Status>, Request<Body>> {
        Err(request)
    }
}

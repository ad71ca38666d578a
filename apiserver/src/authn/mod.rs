//! Who sends a request: a client certificate, a service-account token, or nobody.
//!
//! Certificates were verified against the CA by TLS; here their subject is read. Tokens are verified with the
//! cluster's own key and are good only while what they are bound to (service account, pod, secret, node)
//! still exists. Without credentials only health, version and key discovery can be reached.

mod certificate;
pub mod discovery;
pub(crate) mod impersonation;
pub mod token;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use api::{Kind, Status, kinds};
use async_trait::async_trait;
use http::{HeaderMap, header, request::Parts};
use jiff::Timestamp;

use crate::{
    hooks::Authenticate,
    pki::TokenKey,
    registry::Registry,
    request::{PeerCertificate, User},
};
use token::{Binding, Claims};

/// Paths that answer without credentials.
const PUBLIC: &[&str] =
    &["/healthz", "/livez", "/readyz", "/version", "/.well-known/openid-configuration", "/openid/v1/jwks"];

/// How many verified tokens are remembered.
const REMEMBERED_TOKENS: usize = 4096;

/// Who issues tokens, and for whom they are meant.
#[derive(Clone, Debug)]
pub struct TokenAuthority {
    /// The issuer, such as `https://kubernetes.default.svc.cluster.local`.
    pub issuer: String,
    /// What a token must be meant for to be accepted here; also what it is meant for when nobody says.
    pub audiences: Vec<String>,
}

impl TokenAuthority {
    /// The issuer inside a cluster with this domain, which is also the audience.
    pub fn of_cluster(domain: &str) -> TokenAuthority {
        let issuer = format!("https://kubernetes.default.svc.{domain}");
        TokenAuthority { audiences: vec![issuer.clone()], issuer }
    }
}

/// Authenticates what comes over the network.
pub struct Authenticator {
    registry: Arc<Registry>,
    key: Arc<TokenKey>,
    authority: TokenAuthority,
    /// Claims of tokens whose signature was verified: the signature is the slow part, the rest is looked up anew.
    verified: RwLock<HashMap<String, Arc<Claims>>>,
}

impl Authenticator {
    /// An authenticator of tokens signed with `key`, about objects in `registry`.
    pub fn new(registry: Arc<Registry>, key: Arc<TokenKey>, authority: TokenAuthority) -> Arc<Authenticator> {
        Arc::new(Authenticator { registry, key, authority, verified: RwLock::default() })
    }

    /// Who issues tokens here.
    pub fn authority(&self) -> &TokenAuthority {
        &self.authority
    }

    /// The user behind a token meant for one of `audiences` (empty: for this server), and for which of them it is.
    pub async fn user_of_token(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Option<(User, Vec<String>)>, Status> {
        let Some(claims) = self.claims(token) else { return Ok(None) };
        let wanted = if audiences.is_empty() { &self.authority.audiences } else { audiences };
        let meant_for = claims.audiences_among(wanted);
        if meant_for.is_empty() || claims.issuer != self.authority.issuer || !claims.is_current(now) {
            return Ok(None);
        }
        for binding in claims.bindings() {
            if !self.still_exists(&binding, now).await? {
                return Ok(None);
            }
        }
        Ok(Some((claims.user(), meant_for)))
    }

    /// The claims of a token with a good signature.
    fn claims(&self, token: &str) -> Option<Arc<Claims>> {
        if let Some(claims) = self.verified.read().unwrap_or_else(PoisonError::into_inner).get(token) {
            return Some(claims.clone());
        }
        let claims = Arc::new(Claims::from_json(&self.key.verify(token)?)?);
        let mut verified = self.verified.write().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= REMEMBERED_TOKENS {
            verified.clear();
        }
        verified.insert(token.to_string(), claims.clone());
        Some(claims)
    }

    async fn still_exists(&self, binding: &Binding<'_>, now: Timestamp) -> Result<bool, Status> {
        let found = self.registry.get(kind_of(binding.resource), binding.namespace, binding.name).await;
        match found {
            Ok(object) => Ok(binding.holds(&object, now)),
            Err(status) if status.code == 404 => Ok(false),
            Err(status) => Err(status),
        }
    }
}

#[async_trait]
impl Authenticate for Arc<Authenticator> {
    async fn authenticate(&self, parts: &Parts, peer: Option<&PeerCertificate>) -> Result<User, Status> {
        if let Some(leaf) = peer.and_then(|peer| peer.0.first()) {
            return certificate::user_of(leaf).ok_or_else(Status::unauthorized);
        }
        match bearer_token(&parts.headers) {
            Some(token) => {
                let user = self.user_of_token(token, &[], Timestamp::now()).await?;
                user.map(|(user, _)| user).ok_or_else(Status::unauthorized)
            }
            None if is_public(parts.uri.path()) => Ok(anonymous()),
            None => Err(Status::unauthorized()),
        }
    }
}

/// Whoever shows nothing.
pub fn anonymous() -> User {
    User::new("system:anonymous", &["system:unauthenticated"])
}

fn is_public(path: &str) -> bool {
    let covers =
        |public: &str| path.strip_prefix(public).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    PUBLIC.iter().any(|public| covers(public))
}

/// The token in `Authorization: Bearer`.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn kind_of(resource: &str) -> &'static Kind {
    kinds::find("", "v1", resource).expect("tokens are bound to core kinds")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn public_paths_are_few() {
        for path in ["/healthz", "/readyz/ping", "/version", "/openid/v1/jwks"] {
            assert!(is_public(path), "{path}");
        }
        for path in ["/", "/api", "/metrics", "/healthzz", "/openapi/v2"] {
            assert!(!is_public(path), "{path}");
        }
    }

    #[test]
    fn only_a_bearer_is_a_token() {
        let token = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", HeaderValue::from_static(value));
            bearer_token(&headers).map(str::to_string)
        };
        assert_eq!(token("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token("bearer  abc ").as_deref(), Some("abc"));
        assert_eq!(token("Basic abc"), None);
        assert_eq!(token("Bearer "), None);
    }
}

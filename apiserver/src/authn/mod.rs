//! Who sends a request: a user whom a front proxy names, a client certificate, a token of one of several sorts, or
//! nobody.
//!
//! The first that knows the client decides, in upstream's order. Service accounts' tokens are verified with the
//! cluster's own key and are good only while what they are bound to (service account, pod, secret, node)
//! still exists. Whoever shows no credentials is `system:anonymous`, who may do what RBAC lets them, which
//! is to ask for health and version unless somebody binds more; or they are refused, as `--anonymous-auth` says.

mod bootstrap_token;
mod certificate;
pub mod discovery;
pub mod front_proxy;
pub(crate) mod impersonation;
mod legacy_token;
pub mod token;
pub mod token_file;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use api::{Status, kinds};
use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header, request::Parts};
use jiff::Timestamp;

use crate::{
    hooks::Authenticate,
    pki::{ClientAuthority, TokenKey},
    registry::Registry,
    request::{PeerCertificate, User},
};
pub(crate) use certificate::Verdict;
use front_proxy::FrontProxies;
use legacy_token::LegacyClaims;
use token::{Binding, Claims};
use token_file::TokenFile;

/// What a token begins with that is offered as a protocol of a WebSocket.
const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

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

/// Whom to believe, beside the cluster's own tokens.
pub struct Trust {
    /// Who vouches for clients with certificates.
    pub clients: ClientAuthority,
    /// Proxies that may speak for others, if any.
    pub front_proxies: Option<FrontProxies>,
    /// Tokens that were handed out by hand.
    pub tokens: TokenFile,
    /// Whether those who show nothing are somebody (`--anonymous-auth`).
    pub has_anonymous: bool,
}

/// Authenticates what comes over the network.
pub struct Authenticator {
    registry: Arc<Registry>,
    trust: Trust,
    key: Arc<TokenKey>,
    authority: TokenAuthority,
    /// Claims of tokens whose signature was verified: the signature is the slow part, the rest is looked up anew.
    verified: RwLock<HashMap<String, Arc<AnyClaims>>>,
}

/// The claims of tokens that this cluster has signed.
enum AnyClaims {
    Bound(Box<Claims>),
    Legacy(LegacyClaims),
}

impl Authenticator {
    /// An authenticator that believes `trust`, and tokens signed with `key` about objects in `registry`.
    pub fn new(
        registry: Arc<Registry>,
        key: Arc<TokenKey>,
        authority: TokenAuthority,
        trust: Trust,
    ) -> Arc<Authenticator> {
        Arc::new(Authenticator { registry, trust, key, authority, verified: RwLock::default() })
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
        let own = &self.authority.audiences;
        let wanted = if audiences.is_empty() { own } else { audiences };
        let for_this_server = || wanted.iter().filter(|one| own.contains(one)).cloned().collect::<Vec<_>>();
        let found = match self.trust.tokens.user_of(token) {
            Some(user) => Some((user, for_this_server())),
            None => match self.claims(token).as_deref() {
                Some(AnyClaims::Bound(claims)) => {
                    let user = self.user_of_claims(claims, now).await?;
                    user.map(|user| (user, claims.audiences_among(wanted)))
                }
                Some(AnyClaims::Legacy(claims)) => {
                    let user = legacy_token::user_of(&self.registry, claims, token, now).await?;
                    user.map(|user| (user, for_this_server()))
                }
                None => {
                    let user = bootstrap_token::user_of(&self.registry, token, now).await?;
                    user.map(|user| (user, for_this_server()))
                }
            },
        };
        Ok(found.filter(|(_, meant_for)| !meant_for.is_empty()))
    }

    async fn user_of_claims(&self, claims: &Claims, now: Timestamp) -> Result<Option<User>, Status> {
        if claims.issuer != self.authority.issuer || !claims.is_current(now) {
            return Ok(None);
        }
        for binding in claims.bindings() {
            if !self.still_exists(&binding, now).await? {
                return Ok(None);
            }
        }
        Ok(Some(claims.user()))
    }

    /// The claims of a token with a good signature.
    fn claims(&self, token: &str) -> Option<Arc<AnyClaims>> {
        if let Some(claims) = self.verified.read().unwrap_or_else(PoisonError::into_inner).get(token) {
            return Some(claims.clone());
        }
        let json = self.key.verify(token)?;
        let legacy = || LegacyClaims::from_json(&json).map(AnyClaims::Legacy);
        let claims = Arc::new(
            Claims::from_json(&json).map(|claims| AnyClaims::Bound(Box::new(claims))).or_else(legacy)?,
        );
        let mut verified = self.verified.write().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= REMEMBERED_TOKENS {
            verified.clear();
        }
        verified.insert(token.to_string(), claims.clone());
        Some(claims)
    }

    /// The user of a certificate, or the one whom a front proxy with a certificate names.
    fn user_of_peer(&self, peer: &PeerCertificate, headers: &HeaderMap, now: Timestamp) -> Option<User> {
        let Trust { clients, front_proxies, .. } = &self.trust;
        let proxies = front_proxies.as_ref();
        let find = |chain: &[_]| Verdict::of(chain, clients, proxies.map(|proxies| &proxies.authority), now);
        let verdict = peer.verdict(|verdict| verdict.holds(now), find);
        let named = || proxies?.user_of(verdict.front_proxy.as_deref()?, headers);
        named().or_else(|| verdict.user.clone())
    }

    async fn still_exists(&self, binding: &Binding<'_>, now: Timestamp) -> Result<bool, Status> {
        // Tokens are bound to core kinds.
        let kind = kinds::built_in("", binding.resource);
        let found = self.registry.find(kind, binding.namespace, binding.name).await?;
        Ok(found.is_some_and(|object| binding.holds(&object, now)))
    }
}

#[async_trait]
impl Authenticate for Arc<Authenticator> {
    async fn authenticate(&self, parts: &Parts, peer: Option<&PeerCertificate>) -> Result<User, Status> {
        let now = Timestamp::now();
        if let Some(user) = peer.and_then(|peer| self.user_of_peer(peer, &parts.headers, now)) {
            return Ok(user);
        }
        let of_websocket = websocket_token(&parts.headers);
        match bearer_token(&parts.headers).or(of_websocket.as_deref()) {
            Some(token) => {
                let user = self.user_of_token(token, &[], now).await?;
                user.map(|(user, _)| user).ok_or_else(Status::unauthorized)
            }
            // Whoever shows a bad certificate is not nobody.
            None if peer.is_some() => Err(Status::unauthorized()),
            None if self.trust.has_anonymous => Ok(anonymous()),
            None => Err(Status::unauthorized()),
        }
    }

    fn strip(&self, headers: &mut HeaderMap) {
        headers.remove(header::AUTHORIZATION);
        strip_websocket_token(headers);
        if let Some(proxies) = &self.trust.front_proxies {
            proxies.strip(headers);
        }
    }
}

/// Whoever shows nothing.
pub fn anonymous() -> User {
    User::new("system:anonymous", &["system:unauthenticated"])
}

/// The token in `Authorization: Bearer`.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The token that a browser, which cannot set `Authorization`, offers as a protocol of its WebSocket. As upstream: only
/// beside a real protocol.
fn websocket_token(headers: &HeaderMap) -> Option<String> {
    let (tokens, others): (Vec<&str>, Vec<&str>) =
        protocols(headers).partition(|protocol| protocol.starts_with(WEBSOCKET_TOKEN));
    let [token] = tokens.as_slice() else { return None };
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token.strip_prefix(WEBSOCKET_TOKEN)?).ok()?;
    String::from_utf8(bytes).ok().filter(|token| !token.is_empty() && !others.is_empty())
}

/// Leaves the real protocols: the answer names one of them, and nobody is told the token.
fn strip_websocket_token(headers: &mut HeaderMap) {
    if !protocols(headers).any(|protocol| protocol.starts_with(WEBSOCKET_TOKEN)) {
        return;
    }
    let others: Vec<&str> =
        protocols(headers).filter(|protocol| !protocol.starts_with(WEBSOCKET_TOKEN)).collect();
    match HeaderValue::from_str(&others.join(", ")) {
        Ok(value) if !others.is_empty() => drop(headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value)),
        _ => drop(headers.remove(header::SEC_WEBSOCKET_PROTOCOL)),
    }
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_offers_its_token_as_a_protocol() {
        let mut headers = HeaderMap::new();
        let offered = format!("v5.channel.k8s.io, {WEBSOCKET_TOKEN}{}", BASE64_URL_SAFE_NO_PAD.encode("abc"));
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, offered.parse().unwrap());
        assert_eq!(websocket_token(&headers).as_deref(), Some("abc"));
        strip_websocket_token(&mut headers);
        assert_eq!(headers[header::SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
        assert_eq!(websocket_token(&headers), None);
        let alone = format!("{WEBSOCKET_TOKEN}{}", BASE64_URL_SAFE_NO_PAD.encode("abc"));
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, alone.parse().unwrap());
        assert_eq!(websocket_token(&headers), None);
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

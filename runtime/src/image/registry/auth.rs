//! Answering a registry's challenge: basic authentication, or a token from the server that it names.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde::Deserialize;

use super::hosts::Endpoint;
use super::transport::{Request, read_body};
use super::{Credentials, RegistryError, Repository, credentials};

/// How long a token is good when its server does not say.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);

/// No answer of a token server is larger.
const ANSWER_LIMIT: usize = 1 << 20;

/// A header value that the registry takes, and how long.
#[derive(Clone)]
pub(super) struct Token {
    pub header: String,
    pub until: Instant,
}

/// What a registry wants to see.
#[derive(Debug, PartialEq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

impl Repository<'_> {
    /// A header that was good before.
    pub(super) fn known_token(&self, endpoint: &Endpoint, actions: &str) -> Option<String> {
        let tokens = self.registries.tokens.lock().unwrap_or_else(|poison| poison.into_inner());
        let token = tokens.get(&self.token_key(endpoint, actions))?;
        (token.until > Instant::now()).then(|| token.header.clone())
    }

    /// Answers what the registry has said in `challenges`; none when there is nothing to answer with.
    pub(super) async fn authorize(
        &self,
        endpoint: &Endpoint,
        challenges: &[String],
        actions: &str,
    ) -> Result<Option<String>, RegistryError> {
        let credentials = self.credentials_for(endpoint).await?;
        let parsed: Vec<Challenge> = challenges.iter().filter_map(|text| parse(text)).collect();
        let bearer = parsed.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let token = match bearer {
            Some(Challenge::Bearer { realm, service, scope }) => {
                let repository = format!("repository:{}:{actions}", self.reference.repository());
                let scope = if scope.is_empty() || actions != "pull" { &repository } else { scope };
                Some(self.token(endpoint, realm, service, scope, credentials.as_ref()).await?)
            }
            _ if parsed.contains(&Challenge::Basic) => {
                let header = credentials.and_then(|credentials| credentials.basic_header());
                header.map(|header| Token { header, until: Instant::now() + SHORTEST_LIFE * 60 })
            }
            _ => None,
        };
        let Some(token) = token else { return Ok(None) };
        let header = token.header.clone();
        let mut tokens = self.registries.tokens.lock().unwrap_or_else(|poison| poison.into_inner());
        tokens.retain(|_, token| token.until > Instant::now());
        tokens.insert(self.token_key(endpoint, actions), token);
        Ok(Some(header))
    }

    /// Different callers never share a token.
    fn token_key(&self, endpoint: &Endpoint, actions: &str) -> (String, String) {
        let caller = match self.credentials {
            None => String::new(),
            Some(Credentials::Basic { username, password }) => format!("{username}:{password}"),
            Some(Credentials::IdentityToken(token) | Credentials::RegistryToken(token)) => token.clone(),
        };
        let place = format!("{}://{}", endpoint.scheme, endpoint.authority);
        (format!("{place} {actions} {}", self.reference.repository()), caller)
    }

    /// The caller's own for the registry itself, docker's configuration for the rest.
    async fn credentials_for(&self, endpoint: &Endpoint) -> Result<Option<Credentials>, RegistryError> {
        if endpoint.mirror_of.is_none()
            && let Some(given) = self.credentials
        {
            return Ok(Some(given.clone()));
        }
        let Some(file) = self.registries.settings.docker_config.clone() else { return Ok(None) };
        let host = match endpoint.mirror_of {
            None => self.reference.registry().to_owned(),
            Some(_) => endpoint.authority.clone(),
        };
        credentials::of_docker(&file, &host).await
    }

    async fn token(
        &self,
        endpoint: &Endpoint,
        realm: &str,
        service: &str,
        scope: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Token, RegistryError> {
        if let Some(Credentials::RegistryToken(token)) = credentials {
            return Ok(Token { header: format!("Bearer {token}"), until: Instant::now() + SHORTEST_LIFE });
        }
        let kind = if credentials.is_some() { "oauth" } else { "anonymous" };
        let failed = |source| RegistryError::Authorize { kind, source: Box::new(source) };
        if credentials.is_some() && !may_see_secrets(realm, &endpoint.scheme) {
            let reason = "it wants a password without TLS, and the registry has TLS".to_owned();
            return Err(failed(RegistryError::Invalid { url: realm.to_owned(), reason }));
        }
        let request = match credentials {
            Some(Credentials::IdentityToken(token)) => {
                let form = form(&[
                    ("grant_type", "refresh_token"),
                    ("service", service),
                    ("client_id", "coracle"),
                    ("scope", scope),
                    ("refresh_token", token),
                ]);
                Request::new(Method::POST, realm)
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(form.into_bytes())
            }
            _ => {
                let mut pairs = vec![("scope", scope)];
                if !service.is_empty() {
                    pairs.insert(0, ("service", service));
                }
                let separator = if realm.contains('?') { '&' } else { '?' };
                let request = Request::new(Method::GET, &format!("{realm}{separator}{}", form(&pairs)));
                match credentials.and_then(Credentials::basic_header) {
                    Some(header) => request.header("authorization", &header),
                    None => request,
                }
            }
        };
        let url = request.url.clone();
        let answer = self.registries.transport.send(&endpoint.tls, &request).await.map_err(failed)?;
        let status = answer.status();
        let body = read_body(answer, ANSWER_LIMIT, &url).await.map_err(failed)?;
        if status != StatusCode::OK {
            let (method, url) = (request.method.to_string(), url.split('?').next().unwrap_or("").to_owned());
            return Err(failed(RegistryError::Status { method, url, status, message: String::new() }));
        }
        read_token(&body)
            .ok_or_else(|| failed(RegistryError::Invalid { url, reason: "it holds no token".into() }))
    }
}

/// Whether a token server may be shown a password: what a registry keeps secret on the way, nobody sends in the open.
fn may_see_secrets(realm: &str, scheme_of_registry: &str) -> bool {
    let has_tls = realm
        .parse::<http::Uri>()
        .is_ok_and(|realm| realm.scheme_str().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")));
    has_tls || scheme_of_registry != "https"
}

/// The token in a token server's answer.
fn read_token(body: &[u8]) -> Option<Token> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u64>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty())?;
    // Ten seconds for the way there.
    let life =
        Duration::from_secs(answer.expires_in.unwrap_or(0)).max(SHORTEST_LIFE) - Duration::from_secs(10);
    Some(Token { header: format!("Bearer {token}"), until: Instant::now() + life })
}

/// One `WWW-Authenticate` header.
fn parse(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (String::new(), String::new(), String::new());
    for (key, value) in parameters(rest) {
        match key.to_ascii_lowercase().as_str() {
            "realm" => realm = value,
            "service" => service = value,
            "scope" => scope = value,
            _ => {}
        }
    }
    (!realm.is_empty()).then_some(Challenge::Bearer { realm, service, scope })
}

/// `key="value",key=value`: a quoted value may hold commas.
fn parameters(mut text: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    while let Some((key, rest)) = text.split_once('=') {
        let key = key.trim_matches([' ', ',']);
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (value, rest) = quoted.split_once('"').unwrap_or((quoted, ""));
                (value.to_owned(), rest)
            }
            None => {
                let (value, rest) = rest.split_once(',').unwrap_or((rest, ""));
                (value.trim().to_owned(), rest)
            }
        };
        found.push((key, value));
        text = rest;
    }
    found
}

/// Pairs as they stand in a query or a form.
pub(super) fn form(pairs: &[(&str, &str)]) -> String {
    let encoded: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
    encoded.join("&")
}

fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let bearer = Challenge::Bearer {
            realm: "https://auth.docker.io/token".into(),
            service: "registry.docker.io".into(),
            scope: "repository:a/b:pull,push".into(),
        };
        assert_eq!(parse(header), Some(bearer));
        assert_eq!(parse("basic realm=\"here\""), Some(Challenge::Basic));
        assert_eq!(parse("Negotiate"), None);
        assert_eq!(parse("Bearer service=x"), None, "nobody is named who gives tokens");
    }

    #[test]
    fn a_registry_with_tls_sends_no_password_to_a_place_without() {
        assert!(may_see_secrets("https://auth.local/token", "https"));
        assert!(!may_see_secrets("http://auth.local/token", "https"));
        assert!(!may_see_secrets("auth.local", "https"));
        assert!(may_see_secrets("http://auth.local/token", "http"));
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(
            form(&[("scope", "repository:a/b:pull"), ("x", "a b&c")]),
            "scope=repository%3Aa%2Fb%3Apull&x=a%20b%26c"
        );
    }

    #[test]
    fn tokens_have_either_name_and_a_shortest_life() {
        assert_eq!(read_token(br#"{"access_token":"x"}"#).unwrap().header, "Bearer x");
        let token = read_token(br#"{"token":"y","expires_in":3}"#).unwrap();
        assert!(token.header == "Bearer y" && token.until > Instant::now() + Duration::from_secs(40));
        assert!(read_token(b"{}").is_none());
    }
}

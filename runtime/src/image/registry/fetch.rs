//! Reading from a registry: names, manifests, blobs.

use bytes::Bytes;
use http::{Method, Response, StatusCode, Uri};
use hyper::body::Incoming;

use super::hosts::{Endpoint, TlsSettings};
use super::transport::{Request, read_body};
use super::{RegistryError, Repository};
use crate::image::archive::DOCUMENT_LIMIT;
use crate::image::manifest::ACCEPTED;
use crate::image::reference::is_digest;
use crate::image::store::digest_of;

/// How often a server may send us elsewhere.
const MOST_REDIRECTIONS: usize = 10;

/// No explanation of a refusal is longer.
const MESSAGE_LIMIT: usize = 64 << 10;

/// A manifest or an index as a registry has it, its digest verified.
#[derive(Debug)]
pub(in crate::image) struct Resolved {
    pub digest: String,
    pub content: Bytes,
}

/// The bytes of a blob from somewhere on.
#[derive(Debug)]
pub(in crate::image) struct Opened {
    pub body: Incoming,
    /// Where the bytes begin in the blob: where it was asked for, or at its beginning.
    pub offset: u64,
}

impl Repository<'_> {
    /// The manifest or index that the name leads to: at the first place that has it. What `here` has by its digest
    /// is not fetched again; registries that count only count what is fetched.
    pub(in crate::image) async fn resolve(
        &self,
        here: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Resolved, RegistryError> {
        self.manifest_from(self.reference.version(), |endpoint| endpoint.resolve, here).await
    }

    /// A manifest by its digest.
    pub(in crate::image) async fn manifest(&self, digest: &str) -> Result<Resolved, RegistryError> {
        self.manifest_from(digest, |_| true, |_| None).await
    }

    async fn manifest_from(
        &self,
        version: &str,
        may: impl Fn(&Endpoint) -> bool,
        here: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Resolved, RegistryError> {
        let mut first_failure = None;
        for endpoint in self.endpoints.iter().filter(|endpoint| may(endpoint)) {
            match self.manifest_at(endpoint, version, &here).await {
                Ok(resolved) => return Ok(resolved),
                Err(error) => {
                    tracing::debug!(host = endpoint.authority, %error, "no manifest there");
                    // What the registry itself says counts more than a mirror's lack.
                    let replaces = endpoint.mirror_of.is_none() || first_failure.is_none();
                    first_failure = if replaces { Some(error) } else { first_failure };
                }
            }
        }
        Err(first_failure.unwrap_or_else(|| self.nowhere()))
    }

    async fn manifest_at(
        &self,
        endpoint: &Endpoint,
        version: &str,
        here: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Resolved, RegistryError> {
        if let Some(digest) = self.manifest_digest(endpoint, version).await?
            && let Some(content) = here(&digest)
        {
            return Ok(Resolved { digest, content: content.into() });
        }
        let url = endpoint.url(self.reference.repository(), &format!("manifests/{version}"));
        let request = Request::new(Method::GET, &url).header("accept", ACCEPTED);
        let answer = self.request(endpoint, request, "pull").await?;
        let answer =
            self.expect(answer, (Method::GET, &url), &[StatusCode::OK], &self.reference.to_string()).await?;
        let promised = header(&answer, "docker-content-digest").filter(|digest| is_digest(digest));
        let content = read_body(answer, DOCUMENT_LIMIT as usize, &url).await?;
        let digest = digest_of(&content);
        // The name's digest, or else what the registry says of its own answer.
        let expected = Some(version.to_owned()).filter(|version| is_digest(version)).or(promised);
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            let reason = format!("the manifest is corrupt: its digest is {digest}, not {expected}");
            return Err(RegistryError::Invalid { url, reason });
        }
        Ok(Resolved { digest, content })
    }

    /// The digest of a manifest, where the registry tells it without sending the manifest. Whoever may not have it is
    /// told so in more words with the manifest itself.
    async fn manifest_digest(
        &self,
        endpoint: &Endpoint,
        version: &str,
    ) -> Result<Option<String>, RegistryError> {
        let url = endpoint.url(self.reference.repository(), &format!("manifests/{version}"));
        let request = Request::new(Method::HEAD, &url).header("accept", ACCEPTED);
        let answer = self.request(endpoint, request, "pull").await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Err(RegistryError::NotFound { what: self.reference.to_string() }),
            StatusCode::OK => {
                let digest = header(&answer, "docker-content-digest").filter(|digest| is_digest(digest));
                Ok(digest.filter(|digest| !is_digest(version) || digest == version))
            }
            _ => Ok(None),
        }
    }

    /// A blob from `offset` on, from the first place that gives it.
    pub(in crate::image) async fn blob(&self, digest: &str, offset: u64) -> Result<Opened, RegistryError> {
        let mut failure = None;
        for endpoint in &self.endpoints {
            match self.blob_at(endpoint, digest, offset).await {
                Ok(opened) => return Ok(opened),
                Err(error) => {
                    tracing::debug!(host = endpoint.authority, %error, "no blob there");
                    failure = Some(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| self.nowhere()))
    }

    async fn blob_at(&self, endpoint: &Endpoint, digest: &str, offset: u64) -> Result<Opened, RegistryError> {
        let url = endpoint.url(self.reference.repository(), &format!("blobs/{digest}"));
        let mut request = Request::new(Method::GET, &url);
        if offset > 0 {
            request = request.header("range", &format!("bytes={offset}-"));
        }
        let answer = self.request(endpoint, request, "pull").await?;
        let good = [StatusCode::OK, StatusCode::PARTIAL_CONTENT];
        let answer = self.expect(answer, (Method::GET, &url), &good, digest).await?;
        let from = match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let from = header(&answer, "content-range").and_then(|range| beginning(&range));
                from.filter(|from| *from <= offset).ok_or_else(|| RegistryError::Invalid {
                    url,
                    reason: "it does not say which part of the blob it sends".to_owned(),
                })?
            }
            _ => 0,
        };
        Ok(Opened { body: answer.into_body(), offset: from })
    }

    /// Sends a request with what the registry wants to see of us, and follows where it sends us. Our token and the
    /// registry's own headers and certificates are for the registry alone: no other host gets them, nor anybody
    /// without TLS where the registry is met with it.
    pub(super) async fn request(
        &self,
        endpoint: &Endpoint,
        request: Request,
        actions: &str,
    ) -> Result<Response<Incoming>, RegistryError> {
        let transport = &self.registries.transport;
        let shown = |token: &Option<String>| {
            let headers = endpoint.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let token = token.iter().map(|token| ("authorization", token.as_str()));
            headers.chain(token).fold(request.clone(), |request, (name, value)| request.header(name, value))
        };
        let mut token = self.known_token(endpoint, actions);
        let mut url = request.url.clone();
        for _ in 0..=MOST_REDIRECTIONS {
            let is_home = is_at(&url, endpoint);
            let (onward, tls) = match is_home {
                true => (shown(&token), endpoint.tls.clone()),
                false => (request.clone(), TlsSettings::default()),
            };
            let mut answer = transport.send(&tls, &Request { url: url.clone(), ..onward }).await?;
            if is_home
                && answer.status() == StatusCode::UNAUTHORIZED
                && let Some(header) = self.authorize(endpoint, &challenges(&answer), actions).await?
            {
                token = Some(header);
                answer = transport.send(&tls, &Request { url: url.clone(), ..shown(&token) }).await?;
            }
            let moved = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let follows = moved && matches!(request.method, Method::GET | Method::HEAD);
            let Some(location) = header(&answer, "location").filter(|_| follows) else {
                return Ok(answer);
            };
            url = join(&url, &location).ok_or_else(|| RegistryError::Invalid {
                url: url.clone(),
                reason: format!("it leads to {location:?}"),
            })?;
        }
        Err(RegistryError::Invalid { url, reason: "it leads from one place to the next".to_owned() })
    }

    /// The answer if it is one of these, or else what the registry has against it.
    pub(super) async fn expect(
        &self,
        answer: Response<Incoming>,
        (method, url): (Method, &str),
        good: &[StatusCode],
        what: &str,
    ) -> Result<Response<Incoming>, RegistryError> {
        let status = answer.status();
        if good.contains(&status) {
            return Ok(answer);
        }
        let message = read_body(answer, MESSAGE_LIMIT, url).await.map(|body| explanation(&body));
        let message = message.unwrap_or_default();
        Err(match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound { what: what.to_owned() },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let said = if message.is_empty() { status.to_string() } else { message };
                RegistryError::Denied { message: format!("server message: {said}") }
            }
            status => RegistryError::Status {
                method: method.to_string(),
                url: url.to_owned(),
                status,
                message: if message.is_empty() { message } else { format!(": {message}") },
            },
        })
    }

    fn nowhere(&self) -> RegistryError {
        RegistryError::Hosts {
            path: self.reference.registry().to_owned(),
            reason: "no host may be asked".to_owned(),
        }
    }
}

/// `code: message` of what registries say in JSON.
fn explanation(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Answer {
        errors: Vec<Error>,
    }
    #[derive(serde::Deserialize)]
    struct Error {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return String::new() };
    let words = answer.errors.iter().map(|error| format!("{}: {}", error.code.to_lowercase(), error.message));
    words.collect::<Vec<_>>().join(", ")
}

/// The first byte in `bytes 5-9/10`.
fn beginning(range: &str) -> Option<u64> {
    range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

pub(super) fn header(answer: &Response<Incoming>, name: &str) -> Option<String> {
    answer.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// What the registry has against a request without a token.
fn challenges(answer: &Response<Incoming>) -> Vec<String> {
    let challenges = answer.headers().get_all("www-authenticate").iter();
    challenges.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
}

/// Whether a URL is at the endpoint itself, and met in the same way.
fn is_at(url: &str, endpoint: &Endpoint) -> bool {
    let place = |url: &str| {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Some((uri.host()?.to_ascii_lowercase(), port, scheme))
    };
    let own = place(&format!("{}://{}/", endpoint.scheme, endpoint.authority));
    own.is_some() && own == place(url)
}

/// Where a `Location` leads that was given at `base`.
pub(super) fn join(base: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_owned());
    }
    let base: Uri = base.parse().ok()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    location.starts_with('/').then(|| format!("{scheme}://{authority}{location}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::registry::hosts::own_endpoint;

    #[test]
    fn an_endpoint_is_its_host_its_port_and_whether_it_has_tls() {
        let at = |scheme: &str, authority: &str, url: &str| {
            let endpoint = Endpoint { scheme: scheme.to_owned(), ..own_endpoint(authority) };
            is_at(url, &endpoint)
        };
        assert!(at("https", "a.local", "https://A.local:443/v2/x"));
        assert!(at("http", "a.local:5000", "http://a.local:5000/up?x=y"));
        for elsewhere in [
            "http://a.local/v2/x",
            "http://a.local:443/v2/x",
            "https://a.local:444/",
            "https://b.local/",
            "https://a.local@b.local/",
            "a.local",
        ] {
            assert!(!at("https", "a.local", elsewhere), "{elsewhere}");
        }
        assert!(!at("http", "a.local", "https://a.local/"), "its certificates are not configured");
    }

    #[test]
    fn locations_are_absolute_or_on_the_same_host() {
        let join = |location: &str| join("https://a.local:5000/v2/x?y=z", location);
        assert_eq!(join("/v2/up/1?a=b").as_deref(), Some("https://a.local:5000/v2/up/1?a=b"));
        assert_eq!(join("http://b.local/c").as_deref(), Some("http://b.local/c"));
        assert_eq!(join("//b.local/c").as_deref(), Some("https://b.local/c"));
        assert_eq!(join("file:///etc/passwd"), None);
    }

    #[test]
    fn a_registrys_explanation_is_told() {
        let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[]}]}"#;
        assert_eq!(explanation(body), "unauthorized: authentication required");
        assert_eq!(explanation(b"<html>"), "");
        assert_eq!(beginning("bytes 5-9/10"), Some(5));
        assert_eq!(beginning("lines 5"), None);
    }
}

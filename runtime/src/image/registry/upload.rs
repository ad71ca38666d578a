//! Writing to a registry: blobs that it lacks, and manifests.

use std::path::Path;

use http::{Method, StatusCode};

use super::auth::form;
use super::fetch::{header, join};
use super::hosts::Endpoint;
use super::transport::Request;
use super::{RegistryError, Repository};

/// How a blob came to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::image) enum Mounted {
    /// It was there.
    Existed,
    /// Another repository of the registry had it.
    Linked,
    /// It was sent.
    Sent,
}

const ACTIONS: &str = "pull,push";

impl Repository<'_> {
    /// Brings a blob into the repository; `from` is another repository of this registry that may have it.
    pub(in crate::image) async fn upload(
        &self,
        digest: &str,
        file: &Path,
        size: u64,
        from: Option<&str>,
    ) -> Result<Mounted, RegistryError> {
        let endpoint = self.writable()?;
        let url = endpoint.url(self.reference.repository(), &format!("blobs/{digest}"));
        let answer = self.request(endpoint, Request::new(Method::HEAD, &url), ACTIONS).await?;
        if answer.status() == StatusCode::OK {
            return Ok(Mounted::Existed);
        }
        match self.start(endpoint, digest, from).await? {
            Some(location) => self.send(endpoint, &location, digest, file, size).await,
            None => Ok(Mounted::Linked),
        }
    }

    /// Begins an upload and tells where it goes; none when the registry has linked the blob instead.
    async fn start(
        &self,
        endpoint: &Endpoint,
        digest: &str,
        from: Option<&str>,
    ) -> Result<Option<String>, RegistryError> {
        let query = from.map(|from| format!("?{}", form(&[("mount", digest), ("from", from)])));
        let what = format!("blobs/uploads/{}", query.unwrap_or_default());
        let url = endpoint.url(self.reference.repository(), &what);
        let request = Request::new(Method::POST, &url).header("content-length", "0");
        let answer = self.request(endpoint, request, ACTIONS).await?;
        let good = [StatusCode::ACCEPTED, StatusCode::CREATED];
        let answer = self
            .expect(answer, (Method::POST, &url), &good, self.reference.repository())
            .await
            .map_err(denied)?;
        if answer.status() == StatusCode::CREATED {
            return Ok(None);
        }
        let location = header(&answer, "location").and_then(|location| join(&url, &location));
        let reason = "it does not say where the blob goes".to_owned();
        location.map(Some).ok_or(RegistryError::Invalid { url, reason })
    }

    async fn send(
        &self,
        endpoint: &Endpoint,
        location: &str,
        digest: &str,
        file: &Path,
        size: u64,
    ) -> Result<Mounted, RegistryError> {
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}{}", form(&[("digest", digest)]));
        let request = Request::new(Method::PUT, &url)
            .header("content-type", "application/octet-stream")
            .file(file.to_owned(), size);
        let answer = self.request(endpoint, request, ACTIONS).await?;
        self.expect(answer, (Method::PUT, &url), &[StatusCode::CREATED], digest).await.map_err(denied)?;
        Ok(Mounted::Sent)
    }

    /// Gives a manifest its name.
    pub(in crate::image) async fn put_manifest(
        &self,
        content: Vec<u8>,
        media_type: &str,
    ) -> Result<(), RegistryError> {
        let endpoint = self.writable()?;
        let what = format!("manifests/{}", self.reference.version());
        let url = endpoint.url(self.reference.repository(), &what);
        let request = Request::new(Method::PUT, &url).header("content-type", media_type).body(content);
        let answer = self.request(endpoint, request, ACTIONS).await?;
        let good = [StatusCode::CREATED, StatusCode::OK, StatusCode::ACCEPTED];
        self.expect(answer, (Method::PUT, &url), &good, &self.reference.to_string())
            .await
            .map(drop)
            .map_err(denied)
    }

    /// Where the repository may be written: not at a mirror.
    fn writable(&self) -> Result<&Endpoint, RegistryError> {
        let found = self.endpoints.iter().find(|endpoint| endpoint.push && endpoint.mirror_of.is_none());
        found.ok_or_else(|| RegistryError::Hosts {
            path: self.reference.registry().to_owned(),
            reason: "no host may be pushed to".to_owned(),
        })
    }
}

fn denied(error: RegistryError) -> RegistryError {
    match error {
        RegistryError::Denied { message } => RegistryError::PushDenied { message },
        other => other,
    }
}

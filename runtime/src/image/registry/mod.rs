//! Talking to registries: the distribution protocol of Docker's and OCI's registries.
//!
//! [`hosts`] says where a registry's content may be asked for (mirrors first) and how; [`transport`] carries
//! requests over kept connections, which [`connect`] makes, through a [`proxy`] where there is one; [`auth`] answers challenges with what [`credentials`] finds; [`resolve`]
//! knows addresses. [`Registries::resolve`] finds a manifest by name, [`Registries::blob`] opens a blob from any
//! byte on, and what [`super::push`] needs is in [`upload`].

mod auth;
mod connect;
pub mod credentials;
mod fetch;
pub mod hosts;
mod proxy;
mod tls;
mod transport;
mod upload;

pub use credentials::Credentials;
pub use hosts::{HOSTS_FOLDERS, Options, Settings};
pub use proxy::Proxies;
pub(super) use upload::Mounted;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use http::StatusCode;

use super::reference::Reference;
use auth::Token;
use hosts::Endpoint;
use transport::Transport;

/// A boxed cause.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// How long anything may take that a registry does at once: connecting, the head of an answer, the next bytes.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Why a registry did not give or take something.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There is no such name or content.
    #[error("{what}: not found")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The caller may not have it, or it is not there and the registry does not say.
    #[error("pull access denied, repository does not exist or may require authorization: {message}")]
    Denied {
        /// What the registry said.
        message: String,
    },
    /// The caller may not write there.
    #[error("push access denied, repository does not exist or may require authorization: {message}")]
    PushDenied {
        /// What the registry said.
        message: String,
    },
    /// No token was given out.
    #[error("failed to authorize: failed to fetch {kind} token")]
    Authorize {
        /// `oauth` or `anonymous`.
        kind: &'static str,
        /// Why.
        source: Box<RegistryError>,
    },
    /// No answer came.
    #[error("failed to do request: {method} {url:?}")]
    Request {
        /// The HTTP method.
        method: String,
        /// Where it went.
        url: String,
        /// What went wrong.
        source: Cause,
    },
    /// Another answer came than one that we know to use.
    #[error("unexpected status from {method} request to {url}: {status}{message}")]
    Status {
        /// The HTTP method.
        method: String,
        /// Where it went.
        url: String,
        /// Such as `500 Internal Server Error`.
        status: StatusCode,
        /// What the registry said about it, after a colon and a space.
        message: String,
    },
    /// The answer makes no sense.
    #[error("invalid answer from {url}: {reason}")]
    Invalid {
        /// Who answered.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration of a registry host cannot be used.
    #[error("failed to load the hosts configuration {path}: {reason}")]
    Hosts {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The credentials for a registry cannot be found out.
    #[error("failed to get credentials for {host}: {reason}")]
    Credentials {
        /// The registry.
        host: String,
        /// What went wrong.
        reason: String,
    },
}

impl RegistryError {
    /// Whether nobody answered, in contrast to a refusal.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, RegistryError::Request { .. })
    }

    /// Whether the thing is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, RegistryError::NotFound { .. })
    }

    /// Whether it may go better at the next try.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            RegistryError::Request { .. } => true,
            RegistryError::Status { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            RegistryError::Authorize { source, .. } => source.is_passing(),
            _ => false,
        }
    }
}

/// All registries, with connections and tokens that are used again.
pub struct Registries {
    settings: Settings,
    transport: Transport,
    tokens: Mutex<HashMap<(String, String), Token>>,
}

/// One registry's repository as one caller may use it.
pub(super) struct Repository<'a> {
    registries: &'a Registries,
    reference: &'a Reference,
    endpoints: Vec<Endpoint>,
    credentials: Option<&'a Credentials>,
}

impl Registries {
    /// Nothing is read or asked yet.
    pub fn new(settings: Settings) -> Registries {
        let transport = Transport::new(settings.proxies.clone());
        Registries { settings, transport, tokens: Mutex::default() }
    }

    /// The repository of a name, at all the places where it may be.
    pub(super) fn repository<'a>(
        &'a self,
        reference: &'a Reference,
        options: &'a Options,
    ) -> Result<Repository<'a>, RegistryError> {
        let endpoints = hosts::endpoints(reference.registry(), &self.settings, options)?;
        Ok(Repository { registries: self, reference, endpoints, credentials: options.credentials.as_ref() })
    }
}

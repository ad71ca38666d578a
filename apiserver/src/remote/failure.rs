//! Why a call came to nothing.

use std::{io, net::SocketAddr};

/// Why a webhook gave no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The configuration says nothing that could be called.
    #[error("could not get REST client: {reason}")]
    Configuration {
        /// What is wrong with it.
        reason: String,
    },
    /// There was no answer.
    #[error("failed to call webhook: Post {url:?}: {source}")]
    Exchange {
        /// What was asked for.
        url: String,
        /// Why.
        source: Failure,
    },
    /// The answer is a refusal, or nothing that can be read.
    #[error("failed to call webhook: {reason}")]
    Answer {
        /// What it was.
        reason: String,
    },
}

impl CallError {
    /// The same for those who do not call it a webhook.
    pub(crate) fn plain(&self) -> String {
        let text = self.to_string();
        text.strip_prefix("failed to call webhook: ").map_or_else(|| text.clone(), str::to_string)
    }
}

/// Why there was no conversation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The Service leads nowhere.
    #[error("{reason}")]
    Service {
        /// Which and why.
        reason: String,
    },
    /// Nobody knows the host.
    #[error("dial tcp: lookup {host}: {}", words(source))]
    Lookup {
        /// The host.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// There is no address to try.
    #[error("dial tcp: no addresses")]
    Nowhere,
    /// Nobody answers there.
    #[error("dial tcp {address}: {}", words(source))]
    Dial {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Nobody answers there in time.
    #[error("dial tcp {address}: i/o timeout")]
    DialTimeout {
        /// Where.
        address: SocketAddr,
    },
    /// What the URL says is no name that a certificate can have.
    #[error("invalid host {name:?}")]
    Name {
        /// What it says.
        name: String,
    },
    /// The other side is not who it should be, or speaks no TLS.
    #[error("{reason}")]
    Handshake {
        /// Why.
        reason: String,
    },
    /// The connection broke.
    #[error("{}", broken(source))]
    Broken {
        /// How.
        source: hyper::Error,
    },
    /// The answer could not be read to its end.
    #[error("{reason}")]
    Unreadable {
        /// Why.
        reason: String,
    },
    /// There is not that much time.
    #[error("context deadline exceeded")]
    Late,
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        _ => error.to_string(),
    }
}

fn broken(error: &hyper::Error) -> String {
    match error.is_incomplete_message() || error.is_closed() {
        true => "EOF".into(),
        false => error.to_string(),
    }
}

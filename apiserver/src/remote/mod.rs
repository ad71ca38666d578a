//! Servers of the users' own that the API server calls: webhooks and extension API servers.
//!
//! [`Target`] is where one is, by URL or by Service; [`Trust`] is whose certificate it has to show. [`Remotes`] holds
//! the conversations of webhooks: JSON out, JSON back, over TLS connections that are kept for the next call. What goes
//! wrong is told in the words that Go's client has for it, because that is what people search for.

mod call;
mod failure;
mod target;
mod trust;

pub(crate) use call::Remotes;
pub(crate) use failure::{CallError, Failure};
pub(crate) use target::Target;
pub(crate) use trust::{Trust, client_config};

use std::{net::SocketAddr, time::Duration};

use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How long one address may take to answer; then the next one is tried.
const DIAL_PATIENCE: Duration = Duration::from_secs(10);

/// A TLS connection to the first of `addresses` that answers, which has to be `name`.
pub(crate) async fn connect(
    tls: &TlsConnector,
    name: &str,
    addresses: &[SocketAddr],
) -> Result<TlsStream<TcpStream>, Failure> {
    let stream = dial(addresses).await?;
    let name =
        ServerName::try_from(name.to_string()).map_err(|_| Failure::Name { name: name.to_string() })?;
    let connecting = timeout(DIAL_PATIENCE, tls.connect(name, stream));
    let connected =
        connecting.await.map_err(|_| Failure::Handshake { reason: "TLS handshake timeout".into() })?;
    connected.map_err(|error| Failure::Handshake { reason: trust::in_words(&error) })
}

async fn dial(addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
    let mut failure = Failure::Nowhere;
    for address in addresses {
        let address = *address;
        match timeout(DIAL_PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).map_err(|source| Failure::Dial { address, source })?;
                return Ok(stream);
            }
            Ok(Err(source)) => failure = Failure::Dial { address, source },
            Err(_) => failure = Failure::DialTimeout { address },
        }
    }
    Err(failure)
}

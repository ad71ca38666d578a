//! How a component reaches the API server: in process, or over TLS as a kubeconfig says.
//!
//! Each way gives the same [`kube::Client`]; the code of a component cannot tell which it has. None of them
//! limits the request rate: the server's own flow control is the place for that.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Request, Response};
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tower::{BoxError, Service};

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file is missing, unreadable or not a kubeconfig.
    #[error("failed to read the kubeconfig {path}", path = path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// The addresses or certificates in it make no client.
    #[error("failed to set up the connection to the API server")]
    Setup {
        /// What the client says.
        source: Box<kube::Error>,
    },
}

/// A client whose transport is a service in this process, normally the API server's own router with the
/// component's identity attached: no socket, no TLS. Requests carry paths only, no scheme and no host.
///
/// Must be called within a Tokio runtime.
pub fn in_process<S, B>(service: S) -> Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Client::new(service, "default")
}

/// A client for the current context of a kubeconfig file.
pub async fn kubeconfig(path: impl AsRef<Path>) -> Result<Client, ConnectError> {
    let path = path.as_ref();
    let unreadable = |source: KubeconfigError| ConnectError::Kubeconfig {
        path: path.to_path_buf(),
        source: Box::new(source),
    };
    let file = Kubeconfig::read_from(path).map_err(unreadable)?;
    let settings =
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(unreadable)?;
    config(settings)
}

/// A client for the given settings.
pub fn config(mut settings: Config) -> Result<Client, ConnectError> {
    // An idle watch is silent for as long as nothing changes, which is no reason to hang up.
    settings.read_timeout = None;
    Client::try_from(settings).map_err(|source| ConnectError::Setup { source: Box::new(source) })
}

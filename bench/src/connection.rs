//! One connection that speaks HTTP/2 over TLS, as clients in Go keep to one for each server.

use anyhow::{Context, Result};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::{
    Client, Config,
    client::{Body, ConfigExt},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::{BoxError, ServiceBuilder};

/// How much may be on its way in one stream and in all of them; client-go's figures.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 1 << 30;

/// Connects once; all requests go this way.
pub async fn open(config: &Config) -> Result<Client> {
    let host = config.cluster_url.host().context("the cluster's URL has no host")?;
    let host = host.trim_matches(['[', ']']);
    let port = config.cluster_url.port_u16().unwrap_or(443);
    let stream = TcpStream::connect((host, port)).await.with_context(|| format!("cannot reach {host}"))?;
    stream.set_nodelay(true)?;
    let mut tls = config.rustls_client_config().context("the kubeconfig's certificates are of no use")?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let name = host.to_string().try_into().with_context(|| format!("{host} is no name for a server"))?;
    let stream = TlsConnector::from(std::sync::Arc::new(tls)).connect(name, stream).await?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(connection);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .service_fn(move |request: http::Request<Body>| {
            let mut sender = sender.clone();
            async move {
                sender.ready().await.map_err(BoxError::from)?;
                sender.send_request(request).await.map_err(BoxError::from)
            }
        });
    Ok(Client::new(service, "default"))
}

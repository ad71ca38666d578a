//! Port-forward as clients of WebSocket did it before they carried SPDY: the ports are in the request, and each
//! has two channels, one for its bytes and one on which to tell what went wrong.

use std::sync::Arc;

use futures::future::join_all;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{
    PortForwardRequest,
    backend::Backend,
    pipe::{Reader, Writer},
    port_forward::connect,
    websocket::{Connection, Encoding},
};

/// As many as have numbers for their channels, the one that closes others left out.
const MOST_PORTS: usize = 127;

/// Serves a client until it leaves or all its ports have ended.
pub(super) async fn serve(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
    request: PortForwardRequest,
    encoding: Encoding,
    backend: Arc<dyn Backend>,
) {
    let PortForwardRequest { sandbox_id, ports } = request;
    let ports: Vec<(u8, u16)> = (0..).step_by(2).zip(ports.into_iter().take(MOST_PORTS)).collect();
    let channels: Vec<u8> = ports.iter().map(|(channel, _)| *channel).collect();
    let mut connection = Connection::start(io, &channels, encoding);
    let forwards: Vec<_> = ports
        .into_iter()
        .filter_map(|(channel, port)| {
            let reader = connection.reader(channel)?;
            let (data, errors) = (connection.writer(channel), connection.writer(channel + 1));
            Some(forward(port, reader, data, errors, &sandbox_id, &*backend))
        })
        .collect();
    tokio::select! {
        _ = join_all(forwards) => connection.finish().await,
        () = connection.gone() => {}
    }
}

async fn forward(
    port: u16,
    mut reader: Reader,
    mut data: Writer,
    mut errors: Writer,
    sandbox_id: &str,
    backend: &dyn Backend,
) {
    // Which port a channel belongs to is its first message.
    let number = port.to_le_bytes();
    let introduced = async {
        data.write_all(&number).await?;
        errors.write_all(&number).await
    };
    let forwarded = match introduced.await {
        Ok(()) => connect(&port.to_string(), sandbox_id, backend, &mut reader, &mut data).await,
        Err(error) => Err(error.into()),
    };
    if let Err(reason) = forwarded {
        let text = format!("error forwarding port {port} to pod {sandbox_id}: {reason}");
        if let Err(error) = errors.write_all(text.as_bytes()).await {
            tracing::debug!(%error, text, "the client left before it learnt what failed");
        }
    }
}

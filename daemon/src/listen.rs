//! Taking connections.

use std::{net::SocketAddr, time::Duration};

use tokio::net::{TcpListener, TcpStream};

/// After a failed accept, before the next. Most likely no file descriptor was free, so others must end first;
/// without a pause the same error would come back at once, for ever.
const PAUSE: Duration = Duration::from_millis(50);

/// The next connection and who made it. Nothing is lost when the future is dropped before it is ready.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

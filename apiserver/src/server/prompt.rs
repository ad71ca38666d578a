//! A connection whose client has to say something soon.
//!
//! HTTP has time limits for headers and, in version 2, for answers to pings; before its first bytes it does not
//! yet know which version it is, and would wait for ever.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// As long as the preface of HTTP/2.
const FIRST_BYTES: usize = 24;

/// A stream that fails when its first bytes take too long.
pub(super) struct Prompt<S> {
    stream: S,
    /// Until the first bytes are here, how many are missing.
    awaits: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Prompt<S> {
    /// Gives the client so much time.
    pub(super) fn new(stream: S, patience: Duration) -> Prompt<S> {
        Prompt { stream, awaits: Some((Box::pin(sleep(patience)), FIRST_BYTES)) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prompt<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some((limit, missing)) = &mut self.awaits else { return read };
        if read.is_pending() && limit.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "the client says nothing")));
        }
        *missing = missing.saturating_sub(buffer.filled().len() - before);
        if *missing == 0 {
            self.awaits = None;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prompt<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_given_up() {
        let (mut client, server) = duplex(64);
        let mut server = Prompt::new(server, Duration::from_secs(10));
        client.write_all(b"PRI").await.unwrap();
        let mut bytes = [0; 24];
        let error = server.read_exact(&mut bytes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_begun_has_all_the_time() {
        let (mut client, server) = duplex(64);
        let mut server = Prompt::new(server, Duration::from_secs(10));
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut bytes = [0; 24];
        server.read_exact(&mut bytes).await.unwrap();
        let later = tokio::spawn(async move {
            sleep(Duration::from_secs(3600)).await;
            client.write_all(b"x").await.unwrap();
        });
        assert_eq!(server.read_u8().await.unwrap(), b'x');
        later.await.unwrap();
    }
}

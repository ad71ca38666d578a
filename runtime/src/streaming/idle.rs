//! The end of connections on which nobody has said anything for long: nobody is there any more.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A connection that fails to be read once nothing has passed in either direction for a while.
pub(super) struct Attended<IO> {
    io: IO,
    patience: Duration,
    last_sign: Instant,
    /// Looks after the last sign of life; a sign in between makes it look again, so that signs cost nothing.
    alarm: Pin<Box<Sleep>>,
}

impl<IO> Attended<IO> {
    pub fn new(io: IO, patience: Duration) -> Attended<IO> {
        let alarm = Box::pin(tokio::time::sleep(patience));
        Attended { io, patience, last_sign: Instant::now(), alarm }
    }

    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.alarm.as_mut().poll(context));
            let end = self.last_sign + self.patience;
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(end);
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Attended<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_read(context, buffer) {
            Poll::Ready(read) => {
                self.last_sign = Instant::now();
                Poll::Ready(read)
            }
            Poll::Pending => {
                ready!(self.poll_silence(context));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was said for too long")))
            }
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Attended<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(context, bytes));
        self.last_sign = Instant::now();
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
    use tokio::time::{advance, timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn silence_in_both_directions_ends_a_connection() {
        let (mut client, server) = duplex(100);
        let (mut read, mut write) = split(Attended::new(server, PATIENCE));
        let reading = tokio::spawn(async move {
            let mut bytes = [0; 10];
            loop {
                match read.read(&mut bytes).await {
                    Ok(length) => assert!(length > 0),
                    Err(error) => return (error.kind(), Instant::now()),
                }
            }
        });
        let signs = Instant::now();
        for turn in 0..6 {
            advance(PATIENCE / 2).await;
            // Each direction is a sign of life.
            match turn % 2 {
                0 => client.write_all(b"in").await.unwrap(),
                _ => write.write_all(b"out").await.unwrap(),
            }
            tokio::task::yield_now().await;
        }
        let (kind, at) = timeout(PATIENCE * 2, reading).await.unwrap().unwrap();
        assert_eq!(kind, io::ErrorKind::TimedOut);
        assert_eq!(at.duration_since(signs).as_secs(), 6 * 30 + 60);
    }
}

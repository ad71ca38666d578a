//! A connection that sends once a turn what is written in it.
//!
//! HTTP/2 flushes after every frame of 16 KiB, and a frame with its head is a little longer than a TLS record: a long
//! answer would take two records and a system call for each. So what is written while the connection is polled, a turn
//! of it, is kept here; it leaves as soon as it fills what TLS takes at once, and all of it at the end of the turn.
//! Nothing waits for longer than the turn in which it was written.

use std::{
    future::poll_fn,
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What TLS takes at once: four full records.
const ENOUGH: usize = 64 << 10;

/// A stream that can hold back what is written. Clones are the same stream: one is for the connection, one for
/// [`Corked::turns`] of it.
pub(super) struct Corked<S>(Arc<Mutex<Writer<S>>>);

struct Writer<S> {
    stream: S,
    /// Whether anything is held back at all.
    is_corked: bool,
    held: Vec<u8>,
    /// How much of it has been sent; nothing is added until all of it has.
    sent: usize,
    /// Whether the connection has asked for a flush that it has not had.
    owes_flush: bool,
}

impl<S> Clone for Corked<S> {
    fn clone(&self) -> Corked<S> {
        Corked(self.0.clone())
    }
}

impl<S> Corked<S> {
    /// Holds back what is written, or, where `is_corked` is not true, passes everything on.
    pub(super) fn new(stream: S, is_corked: bool) -> Corked<S> {
        let writer = Writer { stream, is_corked, held: Vec::new(), sent: 0, owes_flush: false };
        Corked(Arc::new(Mutex::new(writer)))
    }

    fn writer(&self) -> MutexGuard<'_, Writer<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncWrite + Unpin> Corked<S> {
    /// Runs a connection over this stream; whatever polls the connection has to do it through this.
    pub(super) async fn turns<T, E>(
        &self,
        mut connection: Pin<&mut impl Future<Output = Result<T, E>>>,
    ) -> Result<T, E>
    where
        E: From<io::Error>,
    {
        poll_fn(|context| {
            let turn = connection.as_mut().poll(context);
            match self.writer().poll_release(context) {
                Poll::Ready(Err(error)) if turn.is_pending() => Poll::Ready(Err(error.into())),
                // Where the stream takes no more now, it wakes the connection, which ends this turn then.
                _ => turn,
            }
        })
        .await
    }
}

impl<S: AsyncWrite + Unpin> Writer<S> {
    /// Sends what is held back, and flushes if that is owed.
    fn poll_release(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        // An idle connection has no need of memory.
        self.held = Vec::new();
        if self.owes_flush {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.owes_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.held.len() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(context, &self.held[self.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        self.held.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Takes as much of these pieces as there is room for; sends what is here when there is none.
    fn poll_hold(&mut self, context: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.held.len() == ENOUGH || self.sent > 0 {
            ready!(self.poll_send(context))?;
        }
        let before = self.held.len();
        for piece in pieces {
            let room = ENOUGH - self.held.len();
            self.held.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        Poll::Ready(Ok(self.held.len() - before))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut writer = self.writer();
        match writer.is_corked {
            true => writer.poll_hold(context, &[IoSlice::new(bytes)]),
            false => Pin::new(&mut writer.stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut writer = self.writer();
        if writer.is_corked {
            writer.owes_flush = true;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut writer.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut writer = self.writer();
        ready!(writer.poll_release(context))?;
        Pin::new(&mut writer.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut writer = self.writer();
        match writer.is_corked {
            true => writer.poll_hold(context, pieces),
            false => Pin::new(&mut writer.stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        let writer = self.writer();
        writer.is_corked || writer.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        sync::oneshot,
    };

    use super::*;

    /// Counts what reaches it, and takes no more than so much.
    #[derive(Default)]
    struct Sink {
        writes: Vec<usize>,
        flushes: usize,
        bytes: Vec<u8>,
        is_broken: bool,
    }

    impl AsyncWrite for Sink {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.is_broken {
                return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
            }
            self.writes.push(bytes.len());
            self.bytes.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// As HTTP/2 does it: a flush after each frame.
    async fn write_frames(stream: &mut (impl AsyncWrite + Unpin), count: usize) -> io::Result<()> {
        for number in 0..count {
            stream.write_all(&vec![number as u8; 16_393]).await?;
            stream.flush().await?;
        }
        Ok(())
    }

    fn frames(count: usize) -> Vec<u8> {
        (0..count).flat_map(|number| vec![number as u8; 16_393]).collect()
    }

    #[tokio::test]
    async fn what_one_turn_writes_leaves_in_full_pieces_and_is_flushed_once() {
        let stream = Corked::new(Sink::default(), true);
        let mut writer = stream.clone();
        stream.turns(pin!(write_frames(&mut writer, 10))).await.unwrap();
        let sink = &stream.writer().stream;
        assert_eq!(sink.writes, [ENOUGH, ENOUGH, 163_930 - 2 * ENOUGH]);
        assert_eq!(sink.flushes, 1);
        assert_eq!(sink.bytes, frames(10));
    }

    #[tokio::test]
    async fn nothing_waits_for_longer_than_its_turn() {
        let stream = Corked::new(Sink::default(), true);
        let mut writer = stream.clone();
        let (_never, waits) = oneshot::channel::<()>();
        let mut connection = pin!(async {
            writer.write_all(b"an event").await?;
            writer.flush().await?;
            waits.await.map_err(io::Error::other)
        });
        let turn = futures::poll!(pin!(stream.turns(connection.as_mut())));
        assert!(turn.is_pending());
        assert_eq!(stream.writer().stream.bytes, b"an event");
        assert_eq!(stream.writer().stream.flushes, 1);
        assert_eq!(stream.writer().held.capacity(), 0);
    }

    #[tokio::test]
    async fn a_reader_that_is_slow_gets_everything_and_is_not_written_to_without_bounds() {
        let (client, mut reader) = duplex(1000);
        let stream = Corked::new(client, true);
        let mut writer = stream.clone();
        let mut connection = pin!(async {
            write_frames(&mut writer, 20).await?;
            writer.shutdown().await
        });
        let turn = futures::poll!(pin!(stream.turns(connection.as_mut())));
        assert!(turn.is_pending());
        assert_eq!(stream.writer().held.len(), ENOUGH);
        let mut read = Vec::new();
        let (served, _) = tokio::join!(stream.turns(connection), async {
            reader.read_to_end(&mut read).await.unwrap();
        });
        served.unwrap();
        assert_eq!(read, frames(20));
    }

    #[tokio::test]
    async fn a_connection_that_cannot_be_written_to_ends() {
        let stream = Corked::new(Sink { is_broken: true, ..Sink::default() }, true);
        let mut writer = stream.clone();
        let (_never, waits) = oneshot::channel::<()>();
        let connection = pin!(async {
            writer.write_all(b"x").await?;
            waits.await.map_err(io::Error::other)
        });
        assert_eq!(stream.turns(connection).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_stream_that_is_not_corked_passes_everything_on() {
        let mut stream = Corked::new(Sink::default(), false);
        write_frames(&mut stream, 3).await.unwrap();
        assert_eq!(stream.writer().stream.writes, [16_393; 3]);
        assert_eq!(stream.writer().stream.flushes, 3);
    }
}

//! A stream inside a connection, as the rest of the program sees it: something to read and something
//! to write. The connection's own tasks hold the other ends.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_util::sync::PollSender;

/// How many frames wait in each direction before whoever makes them has to wait.
pub(super) const QUEUE: usize = 32;

/// The most that one written frame carries.
const CHUNK: usize = 32 << 10;

/// What the client sends on one stream; ends when the client ends it.
pub(super) struct Reader {
    frames: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Reader {
    /// The reader, and where the connection puts what has arrived.
    pub fn new() -> (mpsc::Sender<Bytes>, Reader) {
        let (sender, frames) = mpsc::channel(QUEUE);
        (sender, Reader { frames, current: Bytes::new() })
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            match ready!(self.frames.poll_recv(context)) {
                Some(frame) => self.current = frame,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.current.len().min(buffer.remaining());
        buffer.put_slice(&self.current[..length]);
        self.current.advance(length);
        Poll::Ready(Ok(()))
    }
}

/// Makes the frame that carries some bytes on a certain stream.
pub(super) type Framing = Box<dyn Fn(&[u8]) -> Bytes + Send + Sync>;

/// Sends to the client on one stream, in frames. What has been written is on its way, in order with
/// all else that is written to the connection.
pub(super) struct Writer {
    frames: PollSender<Bytes>,
    framing: Framing,
    /// What tells the client that nothing follows, if shutting down should say so.
    end: Option<Bytes>,
    /// Set when the client does not want more.
    refused: Arc<AtomicBool>,
}

impl Writer {
    pub fn new(frames: mpsc::Sender<Bytes>, framing: Framing, refused: Arc<AtomicBool>) -> Writer {
        Writer { frames: PollSender::new(frames), framing, end: None, refused }
    }

    /// Lets a shutdown tell the client that nothing follows.
    pub fn ending_with(self, end: Bytes) -> Writer {
        Writer { end: Some(end), ..self }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone")
}

impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.refused.load(Ordering::Relaxed) {
            return Poll::Ready(Err(gone()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.frames.poll_reserve(context)).map_err(|_| gone())?;
        let chunk = &bytes[..bytes.len().min(CHUNK)];
        let frame = (self.framing)(chunk);
        self.frames.send_item(frame).map_err(|_| gone())?;
        Poll::Ready(Ok(chunk.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.end.is_some() && !self.refused.load(Ordering::Relaxed) {
            ready!(self.frames.poll_reserve(context)).map_err(|_| gone())?;
            if let Some(end) = self.end.take() {
                self.frames.send_item(end).map_err(|_| gone())?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

//! The sending half of a connection, and its orderly end.

use std::{io, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// How long a client that has been told everything may take to hang up.
const LINGER: Duration = Duration::from_secs(5);

/// A connection's two tasks: one reads and dispatches, the other writes what everybody sends. Dropping
/// it hangs up.
pub(super) struct Link {
    frames: mpsc::Sender<Bytes>,
    writing: JoinHandle<io::Result<()>>,
    _reading: AbortOnDropHandle<()>,
    gone: CancellationToken,
}

impl Link {
    /// Starts to write what is sent to [`Link::frames`], and the task that `reading` makes, which ends
    /// when the client is gone. That task may send too, as long as others can.
    pub fn start(
        write: impl AsyncWrite + Send + Unpin + 'static,
        reading: impl FnOnce(mpsc::WeakSender<Bytes>) -> BoxFuture,
    ) -> Link {
        let (frames, queue) = mpsc::channel(super::pipe::QUEUE);
        let gone = CancellationToken::new();
        let (reading, left) = (reading(frames.downgrade()), gone.clone().drop_guard());
        let reading = tokio::spawn(async move {
            reading.await;
            drop(left);
        });
        let writing = tokio::spawn(write_frames(queue, write));
        Link { frames, writing, _reading: AbortOnDropHandle::new(reading), gone }
    }

    /// Where everything that is sent goes through.
    pub fn frames(&self) -> &mpsc::Sender<Bytes> {
        &self.frames
    }

    /// Resolves when the client has left.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Sends what is left and then `farewell`, and hangs up when the client has, or has had time to:
    /// hanging up at once could cut off what it has not read yet. All who write streams must be gone.
    pub async fn finish(self, farewell: Vec<Bytes>) {
        for frame in farewell {
            if self.frames.send(frame).await.is_err() {
                return; // the client is gone
            }
        }
        drop(self.frames);
        match self.writing.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the client left before it had everything"),
            Err(error) => tracing::error!(%error, "the task that writes to a client ended"),
        }
        // Whether it has left by now or not, the connection ends here.
        tokio::time::timeout(LINGER, self.gone.cancelled()).await.ok();
    }
}

/// A boxed task.
pub(super) type BoxFuture = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn write_frames(
    mut queue: mpsc::Receiver<Bytes>,
    mut write: impl AsyncWrite + Send + Unpin,
) -> io::Result<()> {
    while let Some(frame) = queue.recv().await {
        write.write_all(&frame).await?;
        while let Ok(frame) = queue.try_recv() {
            write.write_all(&frame).await?;
        }
        write.flush().await?;
    }
    write.shutdown().await
}

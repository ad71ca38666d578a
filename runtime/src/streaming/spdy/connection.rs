//! The server's side of a SPDY connection: the client opens streams, we answer on them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::mpsc,
};

use super::{
    frame::{Frame, FrameError, PROTOCOL_ERROR, REFUSED_STREAM, decode, encode_data},
    headers::{Compressor, Decompressor, Headers},
};
use crate::streaming::{
    link::Link,
    pipe::{Reader, Writer},
};

/// How many streams a client may have open.
const MOST_STREAMS: usize = 1024;

/// A SPDY connection with a client.
pub(in crate::streaming) struct Connection {
    link: Link,
    opened: mpsc::Receiver<Stream>,
}

/// A stream that the client has opened.
pub(in crate::streaming) struct Stream {
    id: u32,
    /// What the client says it is for.
    pub headers: Headers,
    pub reader: Reader,
    pub writer: Writer,
}

impl Stream {
    /// The frame that tells the client that nothing follows on this stream.
    pub fn end(&self) -> Bytes {
        encode_data(self.id, true, &[])
    }
}

impl Connection {
    /// Starts to serve a client.
    pub fn start(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Connection {
        let (read, write) = tokio::io::split(io);
        let (accept, opened) = mpsc::channel(MOST_STREAMS);
        let link = Link::start(write, |frames| {
            let reading = Reading {
                frames,
                accept,
                decompressor: Decompressor::new(),
                compressor: Compressor::new(),
                inboxes: HashMap::new(),
                last_stream: 0,
            };
            Box::pin(reading.run(read))
        });
        Connection { link, opened }
    }

    /// The next stream that the client opens; none when it is gone.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.opened.recv().await
    }

    /// Resolves when the client has left.
    pub async fn gone(&self) {
        self.link.gone().await;
    }

    /// Sends the last frames and hangs up.
    pub async fn finish(self, mut farewell: Vec<Bytes>) {
        farewell.push(Frame::GoAway { last_stream: 0, status: 0 }.encode());
        drop(self.opened);
        self.link.finish(farewell).await;
    }
}

/// The reading task's knowledge.
struct Reading {
    frames: mpsc::WeakSender<Bytes>,
    accept: mpsc::Sender<Stream>,
    decompressor: Decompressor,
    compressor: Compressor,
    inboxes: HashMap<u32, Inbox>,
    last_stream: u32,
}

/// The connection's end of a stream.
struct Inbox {
    /// None once the client has said that nothing follows.
    sender: Option<mpsc::Sender<Bytes>>,
    refused: Arc<AtomicBool>,
}

impl Inbox {
    fn is_used(&self) -> bool {
        let is_written = Arc::strong_count(&self.refused) > 1;
        is_written || self.sender.as_ref().is_some_and(|sender| !sender.is_closed())
    }
}

impl Reading {
    async fn run(mut self, mut read: impl AsyncRead + Unpin) {
        let mut buffer = BytesMut::with_capacity(16 << 10);
        loop {
            match decode(&mut buffer) {
                Ok(Some(frame)) => match self.handle(frame).await {
                    Ok(true) => continue,
                    Ok(false) => break,
                    Err(error) => return self.refuse_connection(error).await,
                },
                Ok(None) => {}
                Err(error) => return self.refuse_connection(error).await,
            }
            match read.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        self.refuse_more();
    }

    /// Whether the connection goes on.
    async fn handle(&mut self, frame: Frame) -> Result<bool, FrameError> {
        match frame {
            Frame::Data { stream, fin, data } => {
                if let Some(inbox) = self.inboxes.get_mut(&stream) {
                    if let Some(sender) = &inbox.sender
                        && !data.is_empty()
                    {
                        // Nobody may be reading any more; then it is for nobody.
                        sender.send(data).await.ok();
                    }
                    if fin {
                        inbox.sender = None;
                    }
                }
            }
            Frame::SynStream { stream, fin, headers, .. } => {
                let headers = self.decompressor.decompress(&headers)?;
                return self.open(stream, fin, headers).await;
            }
            Frame::RstStream { stream, .. } => {
                if let Some(inbox) = self.inboxes.remove(&stream) {
                    inbox.refused.store(true, Ordering::Relaxed);
                }
            }
            Frame::Ping { id } => return Ok(self.send(Frame::Ping { id }).await),
            // Both change what the blocks that follow are compressed against.
            Frame::SynReply { headers, .. } | Frame::Headers { headers, .. } => {
                self.decompressor.decompress(&headers)?;
            }
            Frame::GoAway { .. } | Frame::Settings { .. } | Frame::WindowUpdate { .. } => {}
        }
        Ok(true)
    }

    async fn open(&mut self, id: u32, fin: bool, headers: Headers) -> Result<bool, FrameError> {
        // A client's streams have odd numbers that grow.
        if id.is_multiple_of(2) || id <= self.last_stream {
            return Ok(self.send(Frame::RstStream { stream: id, status: PROTOCOL_ERROR }).await);
        }
        self.last_stream = id;
        self.inboxes.retain(|_, inbox| inbox.is_used());
        let Some(frames) = self.frames.upgrade() else { return Ok(false) };
        if self.inboxes.len() == MOST_STREAMS {
            return Ok(self.send(Frame::RstStream { stream: id, status: REFUSED_STREAM }).await);
        }
        let (sender, reader) = Reader::new();
        let refused = Arc::new(AtomicBool::new(false));
        self.inboxes.insert(id, Inbox { sender: (!fin).then_some(sender), refused: refused.clone() });
        let headers_of_reply = self.compressor.compress(&Headers::new());
        let replied = self.send(Frame::SynReply { stream: id, fin: false, headers: headers_of_reply }).await;
        let writer = Writer::new(frames, Box::new(move |data| encode_data(id, false, data)), refused)
            .ending_with(encode_data(id, true, &[]));
        let accepted = self.accept.send(Stream { id, headers, reader, writer }).await;
        // Once nobody accepts streams the session is ending, but what is open goes on.
        Ok(replied && (accepted.is_ok() || self.frames.upgrade().is_some()))
    }

    /// Whether there is still somebody who sends.
    async fn send(&self, frame: Frame) -> bool {
        match self.frames.upgrade() {
            Some(frames) => frames.send(frame.encode()).await.is_ok(),
            None => false,
        }
    }

    async fn refuse_connection(&mut self, error: FrameError) {
        tracing::debug!(%error, "a streaming client broke the protocol");
        self.send(Frame::GoAway { last_stream: self.last_stream, status: PROTOCOL_ERROR }).await;
        self.refuse_more();
    }

    fn refuse_more(&mut self) {
        for inbox in self.inboxes.values() {
            inbox.refused.store(true, Ordering::Relaxed);
        }
    }
}

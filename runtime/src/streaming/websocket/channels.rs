//! Kubernetes' channel protocols: the first byte of each message says which stream it belongs to.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::mpsc,
};

use super::frame::{Frame, FrameError, Opcode, decode, encode};
use crate::streaming::{
    link::Link,
    pipe::{Reader, Writer},
};

/// The channel on which a client says, from v5 on, that nothing follows on another.
const CLOSE: u8 = 255;

/// The longest message of text; binary ones are passed on as they come.
const LONGEST_TEXT: usize = 4 << 20;

/// How a message carries a channel's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::streaming) enum Encoding {
    /// The channel's number, then the bytes.
    Binary,
    /// The channel's digit, then the bytes as base64: for clients that can only send text.
    Base64,
}

impl Encoding {
    fn encode(self, channel: u8, data: &[u8]) -> Bytes {
        match self {
            Encoding::Binary => encode(Opcode::Binary, &[channel], data),
            Encoding::Base64 => encode(Opcode::Text, &[b'0' + channel], STANDARD.encode(data).as_bytes()),
        }
    }
}

/// A connection that carries numbered channels.
pub(in crate::streaming) struct Connection {
    link: Link,
    readers: HashMap<u8, Reader>,
    encoding: Encoding,
}

impl Connection {
    /// Starts to serve a client that may send on the channels `from_client`.
    pub fn start(
        io: impl AsyncRead + AsyncWrite + Send + 'static,
        from_client: &[u8],
        encoding: Encoding,
    ) -> Connection {
        let (read, write) = tokio::io::split(io);
        let (mut readers, mut inboxes) = (HashMap::new(), HashMap::new());
        for &channel in from_client {
            let (sender, reader) = Reader::new();
            readers.insert(channel, reader);
            inboxes.insert(channel, sender);
        }
        let link = Link::start(write, |frames| {
            let reading = Reading { frames, inboxes, encoding, current: None, text: BytesMut::new() };
            Box::pin(reading.run(read))
        });
        Connection { link, readers, encoding }
    }

    /// What the client sends on a channel. Each can be taken once.
    pub fn reader(&mut self, channel: u8) -> Option<Reader> {
        self.readers.remove(&channel)
    }

    /// Sends to the client on a channel.
    pub fn writer(&self, channel: u8) -> Writer {
        let encoding = self.encoding;
        let framing = move |data: &[u8]| encoding.encode(channel, data);
        Writer::new(self.link.frames().clone(), Box::new(framing), Arc::new(AtomicBool::new(false)))
    }

    /// Tells a client, by an empty message, that it is connected.
    pub async fn greet(&self, channel: u8) {
        // If it is gone already, that shows elsewhere.
        self.link.frames().send(self.encoding.encode(channel, &[])).await.ok();
    }

    /// Resolves when the client has left.
    pub async fn gone(&self) {
        self.link.gone().await;
    }

    /// Sends the last messages and hangs up.
    pub async fn finish(self) {
        const NORMAL: [u8; 2] = 1000u16.to_be_bytes();
        drop(self.readers);
        self.link.finish(vec![encode(Opcode::Close, &[], &NORMAL)]).await;
    }
}

/// The reading task's knowledge.
struct Reading {
    frames: mpsc::WeakSender<Bytes>,
    inboxes: HashMap<u8, mpsc::Sender<Bytes>>,
    encoding: Encoding,
    /// The channel of the message whose frames are arriving.
    current: Option<u8>,
    /// What has arrived of a message of text, which can be read only as a whole.
    text: BytesMut,
}

impl Reading {
    async fn run(mut self, mut read: impl AsyncRead + Unpin) {
        let mut buffer = BytesMut::with_capacity(16 << 10);
        loop {
            match next_frame(&mut read, &mut buffer).await {
                Ok(Some(frame)) if frame.opcode == Opcode::Close => {
                    self.send(encode(Opcode::Close, &[], &frame.payload)).await;
                    return;
                }
                Ok(Some(frame)) => self.handle(frame).await,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "a streaming client broke the protocol");
                    const PROTOCOL_ERROR: [u8; 2] = 1002u16.to_be_bytes();
                    self.send(encode(Opcode::Close, &[], &PROTOCOL_ERROR)).await;
                    return;
                }
            }
        }
    }

    async fn handle(&mut self, Frame { last, opcode, mut payload }: Frame) {
        match opcode {
            Opcode::Ping => return self.send(encode(Opcode::Pong, &[], &payload)).await,
            Opcode::Pong | Opcode::Close => return,
            Opcode::Text | Opcode::Binary | Opcode::Continuation if self.encoding == Encoding::Base64 => {
                return self.collect(&payload, last).await;
            }
            Opcode::Text | Opcode::Binary => self.current = payload.try_get_u8().ok(),
            Opcode::Continuation => {}
        }
        if let Some(channel) = self.current {
            self.deliver(channel, payload).await;
        }
        if last {
            self.current = None;
        }
    }

    async fn collect(&mut self, payload: &[u8], last: bool) {
        if self.text.len() + payload.len() <= LONGEST_TEXT {
            self.text.extend_from_slice(payload);
        }
        if !last {
            return;
        }
        let text = self.text.split();
        let decoded =
            text.split_first().map(|(digit, data)| (digit.wrapping_sub(b'0'), STANDARD.decode(data)));
        match decoded {
            Some((channel, Ok(data))) => self.deliver(channel, data.into()).await,
            // As upstream, who passes over what is no base64.
            _ => tracing::debug!("a streaming client sent text that cannot be read"),
        }
    }

    async fn deliver(&mut self, channel: u8, payload: Bytes) {
        if channel == CLOSE {
            for closed in payload {
                self.inboxes.remove(&closed);
            }
        } else if let Some(inbox) = self.inboxes.get(&channel)
            && !payload.is_empty()
        {
            // Nobody may be reading any more; then it is for nobody.
            inbox.send(payload).await.ok();
        }
    }

    async fn send(&self, frame: Bytes) {
        if let Some(frames) = self.frames.upgrade() {
            // If the client is gone, reading will tell.
            frames.send(frame).await.ok();
        }
    }
}

/// The client's next frame; none when it has left.
pub(super) async fn next_frame(
    read: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<Option<Frame>, FrameError> {
    loop {
        if let Some(frame) = decode(buffer)? {
            return Ok(Some(frame));
        }
        match read.read_buf(buffer).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
    }
}

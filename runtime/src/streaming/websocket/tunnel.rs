//! Another protocol's bytes in binary messages: how kubectl forwards ports since 1.31.

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    sync::mpsc,
};

use super::{
    channels::next_frame,
    frame::{Opcode, encode},
};
use crate::streaming::link::Link;

/// How much is on its way in each direction.
const BUFFER: usize = 64 << 10;

/// The connection inside the messages of `io`, and the task that carries it, to be awaited once that
/// connection has ended.
pub(in crate::streaming) fn tunnel(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
) -> (DuplexStream, impl Future<Output = ()> + Send) {
    let (inside, outside) = tokio::io::duplex(BUFFER);
    let (mut from_server, mut to_server) = tokio::io::split(outside);
    let (mut read, write) = tokio::io::split(io);
    let link = Link::start(write, |frames| {
        Box::pin(async move {
            let mut buffer = BytesMut::with_capacity(16 << 10);
            while let Ok(Some(frame)) = next_frame(&mut read, &mut buffer).await {
                let answered = match frame.opcode {
                    Opcode::Close => break,
                    Opcode::Ping => answer(&frames, frame.payload).await,
                    Opcode::Pong => true,
                    Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                        to_server.write_all(&frame.payload).await.is_ok()
                    }
                };
                if !answered {
                    break;
                }
            }
            // The connection inside has ended too if this fails.
            to_server.shutdown().await.ok();
        })
    });
    let carry = async move {
        let mut buffer = BytesMut::with_capacity(16 << 10);
        while from_server.read_buf(&mut buffer).await.is_ok_and(|length| length > 0) {
            let message = encode(Opcode::Binary, &[], &buffer.split());
            if link.frames().send(message).await.is_err() {
                return;
            }
        }
        const NORMAL: [u8; 2] = 1000u16.to_be_bytes();
        link.finish(vec![encode(Opcode::Close, &[], &NORMAL)]).await;
    };
    (inside, carry)
}

async fn answer(frames: &mpsc::WeakSender<bytes::Bytes>, payload: bytes::Bytes) -> bool {
    match frames.upgrade() {
        Some(frames) => frames.send(encode(Opcode::Pong, &[], &payload)).await.is_ok(),
        None => false,
    }
}

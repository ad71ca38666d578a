//! SPDY/3.1, as much of it as Kubernetes clients speak.
//!
//! Its flow control is left out: the Go implementation behind kubectl and the kubelet neither sends
//! nor expects window updates, and would wait forever for a peer that does.

mod connection;
mod frame;
mod headers;

pub(super) use self::connection::{Connection, Stream};
/// Takes whatever a client sends, in pieces.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let mut decompressor = headers::Decompressor::new();
    let mut buffer = bytes::BytesMut::new();
    for piece in bytes.chunks(11) {
        buffer.extend_from_slice(piece);
        loop {
            let headers = match frame::decode(&mut buffer) {
                Ok(Some(
                    frame::Frame::SynStream { headers, .. }
                    | frame::Frame::SynReply { headers, .. }
                    | frame::Frame::Headers { headers, .. },
                )) => headers,
                Ok(Some(_)) => continue,
                Ok(None) => break,
                Err(_) => return,
            };
            if decompressor.decompress(&headers).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
pub(super) use self::{
    frame::{Frame, decode},
    headers::{Compressor, Decompressor},
};

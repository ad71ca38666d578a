//! WebSocket (RFC 6455), the server's side, and what Kubernetes carries over it.

mod channels;
mod frame;
mod tunnel;

use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

#[cfg(test)]
pub(super) use self::frame::{Frame, Opcode, decode_any, encode_masked};
pub(super) use self::{
    channels::{Connection, Encoding},
    tunnel::tunnel,
};

/// Takes whatever a client sends, in pieces.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let mut buffer = bytes::BytesMut::new();
    for piece in bytes.chunks(11) {
        buffer.extend_from_slice(piece);
        loop {
            match frame::decode(&mut buffer) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// The proof that the server has understood the handshake, for the client's key.
pub(super) fn accept_key(key: &str) -> String {
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_key_of_the_specification_is_accepted_as_it_says() {
        assert_eq!(super::accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}

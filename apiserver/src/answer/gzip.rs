//! Answers on their way through gzip, a piece at a time.

use std::{
    fmt::Display,
    io::{self, Write as _},
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, Response, header};
use http_body::Frame;

/// Smaller answers are not worth packing; upstream's limit.
pub(super) const WORTH_PACKING: usize = 128 << 10;
/// How much is put together before it is sent.
const PIECE: usize = 64 << 10;

/// Tells the client that it has to unpack.
pub(super) fn mark(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

/// Pieces of an answer, packed.
pub(super) struct Packed<I> {
    pieces: I,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

/// What can be packed: a piece, or what went wrong.
pub(super) trait Piece {
    fn bytes(self) -> io::Result<Bytes>;
}

impl Piece for Bytes {
    fn bytes(self) -> io::Result<Bytes> {
        Ok(self)
    }
}

impl<E: Display> Piece for Result<Bytes, E> {
    fn bytes(self) -> io::Result<Bytes> {
        self.map_err(|error| io::Error::other(error.to_string()))
    }
}

impl<I: Iterator<Item: Piece>> Packed<I> {
    pub(super) fn new(pieces: I) -> Packed<I> {
        Packed { pieces, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) }
    }

    fn piece(&mut self) -> io::Result<Option<Bytes>> {
        let Some(mut encoder) = self.encoder.take() else { return Ok(None) };
        for piece in self.pieces.by_ref() {
            encoder.write_all(&piece.bytes()?)?;
            if encoder.get_ref().len() >= PIECE {
                let packed = std::mem::take(encoder.get_mut());
                self.encoder = Some(encoder);
                return Ok(Some(packed.into()));
            }
        }
        encoder.finish().map(|packed| Some(packed.into()))
    }
}

impl<I: Iterator<Item: Piece> + Unpin> http_body::Body for Packed<I> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.piece().map(|piece| piece.map(Frame::data)).transpose())
    }
}

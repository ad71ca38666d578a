//! Lists: the kept bytes of every object, one after the other, in pieces of bounded size.
//!
//! However long a list is, beside references it needs one piece of memory at a time. Nothing is decoded.

use std::{
    convert::Infallible,
    io::Write as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use api::Status;
use axum::body::Body;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use serde_json::{Map, Value};
use store::Revision;

use super::{Encoding, View, document, response};
use crate::registry::entry::Entry;

/// How much is put together before it is sent.
const PIECE: usize = 128 << 10;
/// Smaller lists are not worth packing; upstream's limit.
const WORTH_PACKING: u64 = 128 << 10;

/// `metadata` of a list.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListMeta {
    pub(crate) revision: Revision,
    pub(crate) continue_token: Option<String>,
    pub(crate) remaining: Option<u64>,
}

impl ListMeta {
    fn to_json(&self) -> Map<String, Value> {
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".into(), self.revision.to_string().into());
        if let Some(token) = &self.continue_token {
            metadata.insert("continue".into(), token.clone().into());
        }
        if let Some(remaining) = self.remaining {
            metadata.insert("remainingItemCount".into(), remaining.into());
        }
        metadata
    }
}

/// The answer to a list.
pub(crate) fn list(view: &View, entries: Vec<Arc<Entry>>, meta: &ListMeta) -> Result<Response<Body>, Status> {
    let metadata = meta.to_json();
    let can_stream = view.is_plain() && view.wanted.encoding == Encoding::Json && !view.wanted.pretty;
    if !can_stream {
        let value = view.rendered_list(&entries, metadata)?;
        let json = serde_json::to_vec(&value).map_err(Status::internal)?;
        return document(StatusCode::OK, json.into(), &view.wanted);
    }
    let metadata = serde_json::to_string(&metadata).map_err(Status::internal)?;
    let (kind, api_version) = (view.kind.list_kind(), view.kind.api_version());
    let head = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata},"items":["#);
    let body = ListBody::new(head, entries);
    let is_packed = view.wanted.gzip && body.left >= WORTH_PACKING;
    let mut response = match is_packed {
        true => response(StatusCode::OK, "application/json", Body::new(Packed::new(body))),
        false => response(StatusCode::OK, "application/json", Body::new(body)),
    };
    if is_packed {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    Ok(response)
}

/// Head, items with commas between, tail.
struct ListBody {
    head: Option<String>,
    items: std::vec::IntoIter<Arc<Entry>>,
    is_first: bool,
    is_done: bool,
    left: u64,
}

const TAIL: &[u8] = b"]}\n";

impl ListBody {
    fn new(head: String, items: Vec<Arc<Entry>>) -> ListBody {
        let commas = items.len().saturating_sub(1);
        let objects: usize = items.iter().map(|item| item.json().len()).sum();
        let left = (head.len() + objects + commas + TAIL.len()) as u64;
        ListBody { head: Some(head), items: items.into_iter(), is_first: true, is_done: false, left }
    }

    /// The next piece.
    fn piece(&mut self) -> Option<Bytes> {
        if self.is_done {
            return None;
        }
        let capacity = PIECE.min(usize::try_from(self.left).unwrap_or(PIECE));
        let mut piece = Vec::with_capacity(capacity);
        piece.extend_from_slice(self.head.take().unwrap_or_default().as_bytes());
        while piece.len() < PIECE {
            let Some(entry) = self.items.next() else {
                piece.extend_from_slice(TAIL);
                self.is_done = true;
                break;
            };
            if !self.is_first {
                piece.push(b',');
            }
            self.is_first = false;
            piece.extend_from_slice(entry.json());
        }
        self.left = self.left.saturating_sub(piece.len() as u64);
        Some(piece.into())
    }
}

impl http_body::Body for ListBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.piece().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_done
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A list on its way through gzip.
struct Packed {
    body: ListBody,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Packed {
    fn new(body: ListBody) -> Packed {
        Packed { body, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) }
    }

    fn piece(&mut self) -> std::io::Result<Option<Bytes>> {
        let Some(mut encoder) = self.encoder.take() else { return Ok(None) };
        while let Some(piece) = self.body.piece() {
            encoder.write_all(&piece)?;
            if encoder.get_ref().len() >= PIECE {
                let packed = std::mem::take(encoder.get_mut());
                self.encoder = Some(encoder);
                return Ok(Some(packed.into()));
            }
        }
        encoder.finish().map(|packed| Some(packed.into()))
    }
}

impl http_body::Body for Packed {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(self.piece().map(|piece| piece.map(Frame::data)).transpose())
    }
}

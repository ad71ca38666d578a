//! Lists: the kept bytes of every object, one after the other, in pieces of bounded size.
//!
//! However long a list is, beside references it needs one piece of memory at a time, whatever form it has. In the
//! form in which objects are kept nothing is decoded.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use api::{Object, Status, protobuf};
use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};
use serde_json::{Map, Value};
use store::Revision;

use super::{Count, Encoding, Form, View, gzip, layout::Layout, response};
use crate::registry::entry::Entry;

/// How much is put together before it is sent: what TLS takes at once.
const PIECE: usize = 64 << 10;
/// How much the last item of a piece may go beyond it without being moved.
const SLACK: usize = 8 << 10;
/// How many objects are encoded before others have their turn.
const TURN: usize = 64;

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
pub(crate) async fn list(
    view: &View,
    entries: Vec<Arc<Entry>>,
    meta: &ListMeta,
) -> Result<Response<Body>, Status> {
    view.expect(Count::List)?;
    let entries = match view.kind.strategy.row_rank() {
        Some(rank) if view.wanted.form == Form::Table => ranked(view, entries, rank)?,
        _ => entries,
    };
    let items = match view.wanted.encoding {
        Encoding::Protobuf => items_length(view, &entries).await?,
        _ => 0,
    };
    let layout = Layout::new(view, meta.to_json(), entries.is_empty(), items)?;
    let left = match view.wanted.encoding {
        Encoding::Protobuf => Some(layout.head.len() + items + layout.tail.len()),
        Encoding::Json if view.is_plain() && !view.wanted.pretty => {
            let objects: usize = entries.iter().map(|entry| entry.json().len()).sum();
            let commas = entries.len().saturating_sub(1);
            Some(layout.head.len() + objects + commas + layout.tail.len())
        }
        _ => None,
    };
    let mut body = ListBody::new(*view, layout, entries, left);
    let content_type = view.wanted.encoding.media_type();
    let is_packed = view.wanted.gzip && body.is_longer_than(gzip::WORTH_PACKING)?;
    Ok(match is_packed {
        true => gzip::mark(response(StatusCode::OK, content_type, Body::new(gzip::Packed::new(body)))),
        false => response(StatusCode::OK, content_type, Body::new(body)),
    })
}

/// The objects by their rank; those of one rank stay as they are.
fn ranked(
    view: &View,
    entries: Vec<Arc<Entry>>,
    rank: fn(&Object) -> i64,
) -> Result<Vec<Arc<Entry>>, Status> {
    let with_rank = |entry: Arc<Entry>| Ok((rank(&entry.decode_as(view.kind)?), entry));
    let mut ranked = entries.into_iter().map(with_rank).collect::<Result<Vec<_>, Status>>()?;
    ranked.sort_by_key(|(rank, _)| *rank);
    Ok(ranked.into_iter().map(|(_, entry)| entry).collect())
}

/// How many bytes the items take in protobuf, which says so before them.
async fn items_length(view: &View, entries: &[Arc<Entry>]) -> Result<usize, Status> {
    let mut length = 0;
    for turn in entries.chunks(TURN) {
        for entry in turn {
            length += protobuf::item_length(view.frame(entry)?.message().len());
        }
        tokio::task::yield_now().await;
    }
    Ok(length)
}

/// Head, items with separators between, tail.
struct ListBody {
    view: View,
    layout: Layout,
    items: std::vec::IntoIter<Arc<Entry>>,
    /// What is made already.
    first: Option<Bytes>,
    is_first: bool,
    is_done: bool,
    /// How many bytes are to come, where that is known.
    left: Option<usize>,
}

impl ListBody {
    fn new(view: View, layout: Layout, items: Vec<Arc<Entry>>, left: Option<usize>) -> ListBody {
        ListBody { view, layout, items: items.into_iter(), first: None, is_first: true, is_done: false, left }
    }

    fn is_longer_than(&mut self, length: usize) -> Result<bool, Status> {
        if let Some(left) = self.left {
            return Ok(left > length);
        }
        let first = self.make_piece()?;
        let is_longer = first.as_ref().is_some_and(|first| first.len() > length) || !self.is_done;
        self.first = first;
        Ok(is_longer)
    }

    /// The next piece.
    fn piece(&mut self) -> Result<Option<Bytes>, Status> {
        let piece = match self.first.take() {
            Some(first) => Some(first),
            None => self.make_piece()?,
        };
        if let (Some(left), Some(piece)) = (&mut self.left, &piece) {
            *left = left.saturating_sub(piece.len());
        }
        Ok(piece)
    }

    fn make_piece(&mut self) -> Result<Option<Bytes>, Status> {
        if self.is_done {
            return Ok(None);
        }
        let most = PIECE + SLACK;
        let mut piece = Vec::with_capacity(most.min(self.left.unwrap_or(most)));
        piece.append(&mut self.layout.head);
        while piece.len() < PIECE {
            let Some(entry) = self.items.next() else {
                piece.append(&mut self.layout.tail);
                self.is_done = true;
                break;
            };
            if !self.is_first {
                piece.extend_from_slice(self.layout.separator);
            }
            self.is_first = false;
            self.layout.write_item(&self.view, &entry, &mut piece)?;
        }
        Ok(Some(piece.into()))
    }
}

impl Iterator for ListBody {
    type Item = Result<Bytes, Status>;

    fn next(&mut self) -> Option<Result<Bytes, Status>> {
        self.piece().transpose()
    }
}

impl http_body::Body for ListBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = self.piece().map_err(|status| io::Error::other(status.to_string()));
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.is_done && self.first.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, |left| SizeHint::with_exact(left as u64))
    }
}

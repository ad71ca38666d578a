//! SPDY/3.1, as much of it as Kubernetes clients speak.
//!
//! Its flow control is left out: the Go implementation behind kubectl and the kubelet neither sends
//! nor expects window updates, and would wait forever for a peer that does.

mod connection;
mod frame;
mod headers;

pub(super) use self::connection::{Connection, Stream};
#[cfg(test)]
pub(super) use self::{
    frame::{Frame, decode},
    headers::{Compressor, Decompressor},
};

//! Objects in protobuf: encoded once when the first client wants one so, and then shared like the JSON.
//!
//! What is kept is a frame of a watch stream. The document that a get answers and the message that a list holds
//! are slices of it.

use std::{ops::Range, sync::OnceLock};

use api::{
    Status,
    protobuf::{self, Message},
};
use bytes::Bytes;

use super::encode::Happened;

/// One object. A clone shares its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    bytes: Bytes,
    happened: Happened,
    document: Range<usize>,
    message: Range<usize>,
}

/// The frames of one object, made when they are asked for.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Of the object itself.
    pub(crate) whole: OnceLock<Box<Frame>>,
    /// Of its metadata alone.
    pub(crate) metadata: OnceLock<Box<Frame>>,
}

impl Frame {
    /// The object `json`, which may be more than `message` shows of it.
    pub(crate) fn new(
        happened: Happened,
        (api_version, kind): (&str, &str),
        message: &Message,
        json: &[u8],
    ) -> Result<Frame, Status> {
        let mut object = Vec::with_capacity(json.len());
        message.encode(json, &mut object).map_err(Status::internal)?;
        let framed = protobuf::framed(happened.word(), api_version, kind, &object);
        let protobuf::Framed { bytes, document, message } = framed;
        Ok(Frame { bytes: bytes.into(), happened, document, message })
    }

    /// As an answer to a get.
    pub(crate) fn document(&self) -> Bytes {
        self.bytes.slice(self.document.clone())
    }

    /// As an item of a list.
    pub(crate) fn message(&self) -> &[u8] {
        &self.bytes[self.message.clone()]
    }

    /// As an event of a watch; the same allocation where it says so already.
    pub(crate) fn saying(&self, happened: Happened) -> Bytes {
        if happened == self.happened {
            return self.bytes.clone();
        }
        protobuf::event(happened.word(), &self.bytes[self.document.clone()]).into()
    }
}

//! What is around an object's message: the document, the list, the frame of a watch.

use std::ops::Range;

use super::{
    EncodeError, MAGIC, Message,
    read::text_of,
    scan::Scanner,
    wire::{Reader, Wire, Writer, varint_length},
};

/// apiVersion, kind and message of a document.
pub(super) fn open(body: &[u8]) -> Result<(String, String, &[u8]), String> {
    let unknown = body.strip_prefix(MAGIC).ok_or_else(|| {
        format!("provided data does not appear to be a protobuf message, expected prefix {}", go_bytes(MAGIC))
    })?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut envelope = Reader::new(unknown);
    while let Some((number, value)) = envelope.next()? {
        match (number, value) {
            (1, Wire::Bytes(type_meta)) => (api_version, kind) = type_of(type_meta)?,
            (2, Wire::Bytes(object)) => raw = object,
            _ => {}
        }
    }
    Ok((api_version, kind, raw))
}

fn go_bytes(bytes: &[u8]) -> String {
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", numbers.join(" "))
}

fn type_of(bytes: &[u8]) -> Result<(String, String), String> {
    let (mut api_version, mut kind) = (String::new(), String::new());
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            (1, Wire::Bytes(text)) => api_version = text_of(text)?,
            (2, Wire::Bytes(text)) => kind = text_of(text)?,
            _ => {}
        }
    }
    Ok((api_version, kind))
}

/// A JSON document in protobuf; `None` for what has no message. Lists of versions have no apiVersion of their own.
pub fn document(json: &[u8]) -> Result<Option<Vec<u8>>, EncodeError> {
    let (mut api_version, mut kind) = (String::new(), String::new());
    Scanner::new(json).members(|name, json| {
        match name {
            "apiVersion" => api_version = json.text(name)?.into_owned(),
            "kind" => kind = json.text(name)?.into_owned(),
            _ => json.skip()?,
        }
        Ok(())
    })?;
    let Some(message) = Message::of(&api_version, &kind) else { return Ok(None) };
    let api_version = if api_version.is_empty() { "v1" } else { &api_version };
    let mut object = Vec::with_capacity(json.len());
    message.encode(json, &mut object)?;
    Ok(Some(document_of(api_version, &kind, &object)))
}

/// The document around an object's message.
pub fn document_of(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + api_version.len() + kind.len() + 32);
    open_document(&mut out, api_version, kind, message.len());
    out.extend_from_slice(message);
    out.extend_from_slice(DOCUMENT_END);
    out
}

/// `contentEncoding` and `contentType`, which are empty.
const DOCUMENT_END: &[u8] = &[0x1a, 0, 0x22, 0];

/// Everything before the `length` bytes of the message.
fn open_document(out: &mut Vec<u8>, api_version: &str, kind: &str, length: usize) {
    out.extend_from_slice(MAGIC);
    let mut type_meta = Vec::with_capacity(api_version.len() + kind.len() + 4);
    let mut writer = Writer::new(&mut type_meta);
    writer.bytes(1, api_version.as_bytes());
    writer.bytes(2, kind.as_bytes());
    let mut writer = Writer::new(out);
    writer.bytes(1, &type_meta);
    writer.length(2, length);
}

/// An object as an event of a watch, framed by its length.
#[derive(Debug)]
pub struct Framed {
    /// The frame.
    pub bytes: Vec<u8>,
    /// Where in it the object is as a document.
    pub document: Range<usize>,
    /// Where in it the object's message is.
    pub message: Range<usize>,
}

/// An event about an object with this message: `word` is `ADDED` and so on.
pub fn framed(word: &str, api_version: &str, kind: &str, message: &[u8]) -> Framed {
    let document = document_of(api_version, kind, message);
    let bytes = event(word, &document);
    let (start, end) = (bytes.len() - document.len(), bytes.len() - DOCUMENT_END.len());
    Framed { document: start..bytes.len(), message: end - message.len()..end, bytes }
}

/// An event about a document.
pub fn event(word: &str, document: &[u8]) -> Vec<u8> {
    let raw = item_length(document.len());
    let mut bytes = vec![0; LENGTH];
    bytes.reserve_exact(word.len() + raw + 16);
    let mut writer = Writer::new(&mut bytes);
    writer.bytes(1, word.as_bytes());
    // A RawExtension with the document in it.
    writer.length(2, raw);
    writer.bytes(1, document);
    let length = u32::try_from(bytes.len() - LENGTH).unwrap_or(u32::MAX);
    bytes[..LENGTH].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// Bytes of a frame's length.
const LENGTH: usize = 4;

/// What is before and behind the items of a list.
#[derive(Debug)]
pub struct ListParts {
    /// Before them.
    pub head: Vec<u8>,
    /// The number of the field that they are.
    pub item: u32,
    /// Behind them.
    pub tail: &'static [u8],
}

/// A list whose items take `items` bytes altogether, each its [`item_length`].
pub fn list_parts(
    api_version: &str,
    list_kind: &str,
    metadata: &[u8],
    items: usize,
) -> Result<ListParts, EncodeError> {
    let message =
        Message::of("meta/v1", "ListMeta").ok_or_else(|| EncodeError::new("no message of lists"))?;
    let mut list_meta = Vec::new();
    message.encode(metadata, &mut list_meta)?;
    // The same in all lists but the older ones of metadata alone.
    let list = Message::of(api_version, list_kind);
    let number =
        |field: &str, usual| list.and_then(|list| list.named(field)).map_or(usual, |field| field.number);
    let mut opening = Vec::new();
    Writer::new(&mut opening).bytes(number("metadata", 1), &list_meta);
    let mut head = Vec::new();
    open_document(&mut head, api_version, list_kind, opening.len() + items);
    head.extend_from_slice(&opening);
    Ok(ListParts { head, item: number("items", 2), tail: DOCUMENT_END })
}

/// How many bytes an item takes whose message has `length`.
pub fn item_length(length: usize) -> usize {
    1 + varint_length(length as u64) + length
}

/// Appends a list's item, which is the field `number`.
pub fn write_item(number: u32, message: &[u8], out: &mut Vec<u8>) {
    Writer::new(out).bytes(number, message);
}

//! A snapshot: every key as it stood at one revision, in a file that is there as a whole or not at all.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use super::{
    frame::{Blocks, FileHeader, find_frames, new_salt},
    record::{Record, decode_all},
};
use crate::{
    Revision,
    embedded::{
        OpenError,
        directory::write_whole,
        state::{Change, State},
    },
};

/// What the names of snapshots begin with; their revision follows.
pub(super) const PREFIX: &str = "snapshot-";

/// How much goes into one frame.
const FRAME_SIZE: usize = 256 << 10;

/// Writes a snapshot; it is durable when this returns.
pub(super) fn write(directory: &Path, revision: Revision, keys: Vec<Change>) -> io::Result<()> {
    write_whole(directory, &format!("{PREFIX}{:020}", revision.0), |file| {
        let header = FileHeader { salt: new_salt(), first: 0 };
        file.write_all(header.encode().written())?;
        let mut blocks = Blocks::default();
        let mut records = Vec::new();
        let (mut number, mut size) = (0, 0);
        // The mark at the end proves that nothing is missing.
        let end = Record::Compacted(revision);
        for record in keys.into_iter().map(Record::Change).chain([end]) {
            size += record.size_hint();
            let is_last = matches!(record, Record::Compacted(_));
            records.push(record);
            if size >= FRAME_SIZE || is_last {
                blocks.frame(header.salt, number, records.iter());
                file.write_all(blocks.written())?;
                records.clear();
                (number, size) = (number + 1, 0);
            }
        }
        Ok(())
    })
}

/// Puts back what a snapshot holds.
pub(super) fn restore(path: &Path, revision: Revision, state: &mut State) -> Result<(), OpenError> {
    let damaged =
        |offset: usize, what| OpenError::Damaged { path: path.to_owned(), offset: offset as u64, what };
    let read = fs::read(path);
    let bytes = read.map_err(|source| OpenError::Io { what: "read", path: path.to_owned(), source })?;
    let header = FileHeader::decode(&bytes).ok_or_else(|| damaged(0, "the header is not readable"))?;
    let frames = find_frames(&header, &bytes).map_err(|offset| damaged(offset, "the checksum is wrong"))?;
    let mut end = None;
    for payload in frames.payloads {
        let records = decode_all(&bytes[payload.clone()]);
        for record in records.ok_or_else(|| damaged(payload.start, "the record is not readable"))? {
            match record {
                Record::Change(Change { key, version }) => state.restore(key, version),
                Record::Compacted(revision) => end = Some(revision),
            }
        }
    }
    if end != Some(revision) {
        return Err(damaged(frames.end, "the end is missing"));
    }
    state.restored(revision);
    Ok(())
}

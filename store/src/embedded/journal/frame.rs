//! Frames: what is written, and is there after a crash, as a whole.
//!
//! A file starts with one block of header, then frames follow, each starting on a block of its own:
//! writing one never touches a block that holds another, so a torn write cannot damage what was
//! acknowledged. Frames are numbered, and their checksum is seeded with the file's random salt:
//! stray bytes, stored values included, cannot pass for one.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    ops::Range,
};

use super::record::Record;

/// The unit in which files are written.
pub(super) const BLOCK: usize = 4096;

const FILE_MAGIC: &[u8; 16] = b"coracle journal\n";
const FRAME_MAGIC: &[u8; 4] = b"frm1";
/// Magic, checksum, length, number.
const HEADER: usize = 4 + 4 + 8 + 8;

/// What the first block of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub salt: u64,
    /// The number of the first frame.
    pub first: u64,
}

impl FileHeader {
    pub fn encode(&self) -> Blocks {
        let mut blocks = Blocks::with_capacity(BLOCK);
        blocks.bytes.extend(FILE_MAGIC);
        blocks.bytes.extend(self.salt.to_le_bytes());
        blocks.bytes.extend(self.first.to_le_bytes());
        let checksum = crc32fast::hash(blocks.written());
        blocks.bytes.extend(checksum.to_le_bytes());
        blocks.pad();
        blocks
    }

    pub fn decode(bytes: &[u8]) -> Option<FileHeader> {
        let (magic, rest) = bytes.split_first_chunk()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (first, rest) = rest.split_first_chunk()?;
        let (checksum, _) = rest.split_first_chunk()?;
        let sound = magic == FILE_MAGIC && crc32fast::hash(&bytes[..32]) == u32::from_le_bytes(*checksum);
        sound.then(|| FileHeader { salt: u64::from_le_bytes(*salt), first: u64::from_le_bytes(*first) })
    }
}

/// Whole blocks at an address that is a multiple of the block size, as direct I/O demands.
#[derive(Default)]
pub(super) struct Blocks {
    bytes: Vec<u8>,
    start: usize,
}

impl Blocks {
    fn with_capacity(capacity: usize) -> Blocks {
        let mut blocks = Blocks::default();
        blocks.clear(capacity);
        blocks
    }

    /// Empties the buffer and makes room: up to `capacity` bytes can be added without moving it.
    fn clear(&mut self, capacity: usize) {
        self.bytes.clear();
        self.bytes.reserve(capacity.next_multiple_of(BLOCK) + BLOCK);
        self.start = self.bytes.as_ptr().align_offset(BLOCK);
        self.bytes.resize(self.start, 0);
    }

    /// Nothing but zeros.
    pub fn zeros(length: usize) -> Blocks {
        let mut blocks = Blocks::with_capacity(length);
        blocks.bytes.resize(blocks.start + length, 0);
        blocks
    }

    fn pad(&mut self) {
        self.bytes.resize(self.start + (self.bytes.len() - self.start).next_multiple_of(BLOCK), 0);
    }

    /// Makes this the frame number `number` of the file with `salt`.
    pub fn frame<'a>(&mut self, salt: u64, number: u64, records: impl Iterator<Item = &'a Record> + Clone) {
        let room = HEADER + records.clone().map(Record::size_hint).sum::<usize>();
        self.clear(room);
        self.bytes.resize(self.start + HEADER, 0);
        for record in records {
            record.encode(&mut self.bytes);
        }
        let (header, payload) = self.bytes[self.start..].split_at_mut(HEADER);
        let checksum = checksum(salt, number, payload);
        header[..4].copy_from_slice(FRAME_MAGIC);
        header[4..8].copy_from_slice(&checksum.to_le_bytes());
        header[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        header[16..24].copy_from_slice(&number.to_le_bytes());
        self.pad();
    }

    /// What to write.
    pub fn written(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// A number that nobody can guess.
pub(super) fn new_salt() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn checksum(salt: u64, number: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(&(payload.len() as u64).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// The sound frames of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frames {
    /// Where their payloads are.
    pub payloads: Vec<Range<usize>>,
    /// Where they end.
    pub end: usize,
}

/// Finds the frames in a file's bytes. What follows the last sound one is a torn write, or was never
/// written; but if sound frames come after it, something in between was damaged: that is refused,
/// with the offset of the damage.
pub(super) fn find_frames(header: &FileHeader, bytes: &[u8]) -> Result<Frames, usize> {
    let mut frames = Frames { payloads: Vec::new(), end: BLOCK };
    let mut number = header.first;
    while let Some((found, payload)) = frame_at(header.salt, bytes, frames.end)
        && found == number
    {
        frames.end = payload.end.next_multiple_of(BLOCK);
        frames.payloads.push(payload);
        number += 1;
    }
    let damaged = (frames.end..bytes.len())
        .step_by(BLOCK)
        .any(|offset| frame_at(header.salt, bytes, offset).is_some_and(|(found, _)| found >= number));
    if damaged { Err(frames.end) } else { Ok(frames) }
}

/// The number and the payload of the frame at `offset`, if there is a sound one.
fn frame_at(salt: u64, bytes: &[u8], offset: usize) -> Option<(u64, Range<usize>)> {
    let (magic, rest) = bytes.get(offset..)?.split_first_chunk()?;
    let (expected, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    if magic != FRAME_MAGIC {
        return None;
    }
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let number = u64::from_le_bytes(*number);
    let payload = rest.get(..length)?;
    let start = offset + HEADER;
    (checksum(salt, number, payload) == u32::from_le_bytes(*expected))
        .then_some((number, start..start + length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Revision;

    const HEADER: FileHeader = FileHeader { salt: 42, first: 7 };

    /// A file of three frames; the last takes more than one block.
    fn file() -> Vec<u8> {
        let mut bytes = HEADER.encode().written().to_vec();
        let mut blocks = Blocks::default();
        for (number, records) in [(7, 3), (8, 1), (9, 700)] {
            let records: Vec<_> =
                (0..records).map(|revision| Record::Compacted(Revision(revision))).collect();
            blocks.frame(HEADER.salt, number, records.iter());
            bytes.extend(blocks.written());
        }
        bytes
    }

    #[test]
    fn headers_read_back_as_written() {
        assert_eq!(FileHeader::decode(HEADER.encode().written()), Some(HEADER));
        for length in 0..36 {
            assert_eq!(FileHeader::decode(&HEADER.encode().written()[..length]), None);
        }
    }

    #[test]
    fn a_last_frame_torn_at_any_byte_is_left_out() {
        let file = file();
        let all = find_frames(&HEADER, &file).unwrap();
        assert_eq!((all.payloads.len(), all.end), (3, file.len()));
        let last = all.payloads[2].clone();
        let without_last = Frames { payloads: all.payloads[..2].to_vec(), end: 3 * BLOCK };
        for cut in 3 * BLOCK..last.end {
            assert_eq!(find_frames(&HEADER, &file[..cut]).as_ref(), Ok(&without_last), "cut at {cut}");
            for filler in [0, 0xa5] {
                let mut torn = file.clone();
                torn[cut..].fill(filler);
                // The bytes may happen to be what was written.
                let expected = if torn[..last.end] == file[..last.end] { &all } else { &without_last };
                assert_eq!(find_frames(&HEADER, &torn).as_ref(), Ok(expected), "{filler:x} from {cut}");
            }
        }
    }

    #[test]
    fn damage_before_a_sound_frame_is_noticed() {
        let file = file();
        for offset in (BLOCK..BLOCK + 40).chain(2 * BLOCK..2 * BLOCK + 30) {
            let mut damaged = file.clone();
            damaged[offset] ^= 1;
            assert_eq!(find_frames(&HEADER, &damaged), Err(offset / BLOCK * BLOCK));
        }
    }

    #[test]
    fn frames_of_another_file_do_not_count() {
        let other = FileHeader { salt: 43, ..HEADER };
        assert_eq!(find_frames(&other, &file()).unwrap().payloads, []);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_trouble(bytes in prop::collection::vec(any::<u8>(), 0..3 * BLOCK)) {
            FileHeader::decode(&bytes);
            find_frames(&HEADER, &bytes).ok();
        }
    }
}

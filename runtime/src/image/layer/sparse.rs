//! Files with holes, as GNU tar writes them into PAX archives: formats 0.0, 0.1 and 1.0.
//!
//! The older GNU form, which has a header type of its own, is read by the tar crate.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// No honest file has more pieces of content.
const MOST_PIECES: usize = 1 << 20;

/// What an entry's extensions say about holes.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    /// The file's name; the entry's own one says that it is sparse.
    pub name: Option<PathBuf>,
    size: Option<u64>,
    /// Format 1.0: the content begins with the map.
    map_in_content: bool,
    pieces: Vec<(u64, u64)>,
    offset: Option<u64>,
}

impl Sparse {
    /// Takes note of one extension, if it is about holes.
    pub(super) fn note(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        let Some(key) = key.strip_prefix("GNU.sparse.") else { return Ok(()) };
        match key {
            "name" => self.name = Some(PathBuf::from(OsStr::from_bytes(value))),
            "size" | "realsize" => self.size = Some(number(value)?),
            "major" => self.map_in_content = number(value)? >= 1,
            "offset" => self.offset = Some(number(value)?),
            "numbytes" => {
                let offset = self.offset.take().ok_or_else(|| invalid("a piece without a place"))?;
                self.add(offset, number(value)?)?;
            }
            "map" if !value.is_empty() => {
                let numbers: Vec<u64> =
                    value.split(|byte| *byte == b',').map(number).collect::<io::Result<_>>()?;
                if !numbers.len().is_multiple_of(2) {
                    return Err(invalid("a map of an odd length"));
                }
                numbers.chunks_exact(2).try_for_each(|piece| self.add(piece[0], piece[1]))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The file's whole length, if it has holes.
    fn length(&self) -> Option<u64> {
        self.size.filter(|_| self.map_in_content || !self.pieces.is_empty())
    }

    /// Whether the content is more than the file's bytes one after another.
    pub(super) fn applies(&self) -> bool {
        self.length().is_some()
    }

    /// Writes the content into `file`, leaving the holes; tells how much content there was.
    pub(super) fn unpack(mut self, mut content: impl Read, file: &File) -> io::Result<u64> {
        let length = self.length().ok_or_else(|| invalid("no length"))?;
        if self.map_in_content {
            self.read_map(&mut content)?;
        }
        file.set_len(length)?;
        let mut total = 0;
        let mut buffer = vec![0; 64 << 10];
        for (offset, size) in self.pieces {
            let end = offset.checked_add(size).filter(|end| *end <= length);
            let end = end.ok_or_else(|| invalid("a piece behind the file's end"))?;
            let mut at = offset;
            while at < end {
                let wanted = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
                content.read_exact(&mut buffer[..wanted])?;
                file.write_all_at(&buffer[..wanted], at)?;
                at += wanted as u64;
            }
            total += size;
        }
        Ok(total)
    }

    fn add(&mut self, offset: u64, size: u64) -> io::Result<()> {
        if self.pieces.len() == MOST_PIECES {
            return Err(invalid("too many pieces"));
        }
        self.pieces.push((offset, size));
        Ok(())
    }

    /// Numbers, each on a line, filled up to a whole block.
    fn read_map(&mut self, content: &mut impl Read) -> io::Result<()> {
        let mut lines = Lines { content, taken: 0 };
        for _ in 0..lines.number()? {
            let (offset, size) = (lines.number()?, lines.number()?);
            self.add(offset, size)?;
        }
        let rest = (512 - lines.taken % 512) % 512;
        let skipped = io::copy(&mut lines.content.take(rest), &mut io::sink())?;
        if skipped == rest { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

struct Lines<'a, R> {
    content: &'a mut R,
    taken: u64,
}

impl<R: Read> Lines<'_, R> {
    fn number(&mut self) -> io::Result<u64> {
        let mut digits = Vec::new();
        loop {
            let mut byte = [0];
            self.content.read_exact(&mut byte)?;
            self.taken += 1;
            match byte[0] {
                b'\n' => return number(&digits),
                digit if digits.len() < 20 => digits.push(digit),
                _ => return Err(invalid("no number")),
            }
        }
    }
}

fn number(text: &[u8]) -> io::Result<u64> {
    let digits = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    digits.ok_or_else(|| invalid("no number"))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the map of the file's holes is broken: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(notes: &[(&str, &str)], content: &[u8]) -> io::Result<Vec<u8>> {
        let mut sparse = Sparse::default();
        for (key, value) in notes {
            sparse.note(&format!("GNU.sparse.{key}"), value.as_bytes())?;
        }
        assert!(sparse.applies());
        let file = tempfile::NamedTempFile::new()?;
        sparse.unpack(content, file.as_file())?;
        std::fs::read(file.path())
    }

    #[test]
    fn all_three_formats_leave_the_holes() {
        let whole = [vec![0; 4], b"ab".to_vec(), vec![0; 2], b"c".to_vec(), vec![0; 1]].concat();
        let oldest = [("size", "10"), ("offset", "4"), ("numbytes", "2"), ("offset", "8"), ("numbytes", "1")];
        assert_eq!(unpacked(&oldest, b"abc").unwrap(), whole);
        assert_eq!(unpacked(&[("size", "10"), ("map", "4,2,8,1")], b"abc").unwrap(), whole);
        let mut content = b"2\n4\n2\n8\n1\n".to_vec();
        content.resize(512, 0);
        content.extend(b"abc");
        assert_eq!(unpacked(&[("major", "1"), ("realsize", "10")], &content).unwrap(), whole);
    }

    #[test]
    fn broken_maps_are_refused() {
        assert!(unpacked(&[("size", "10"), ("map", "4,2,8,1")], b"a").is_err(), "too short");
        assert!(unpacked(&[("size", "10"), ("map", "9,2")], b"abc").is_err(), "behind the end");
        assert!(unpacked(&[("size", "10"), ("map", "18446744073709551615,2")], b"abc").is_err(), "overflow");
        assert!(unpacked(&[("size", "10"), ("map", "1,2,3")], b"abc").is_err(), "odd");
        assert!(
            unpacked(&[("major", "1"), ("size", "9")], b"99999999999999999999999\n").is_err(),
            "no number"
        );
    }
}

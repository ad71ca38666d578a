//! One record of a log. Pure.

use jiff::Timestamp;

/// A line, or a part of one that was too long for one record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record<'a> {
    /// When it was written, as it stands in the file.
    pub time: &'a str,
    /// Whether the line goes on in the next record.
    pub is_partial: bool,
    /// What the container wrote.
    pub text: &'a [u8],
}

impl Record<'_> {
    /// When it was written.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }

    /// The record as users see it.
    pub fn render(&self, with_time: bool, output: &mut Vec<u8>) {
        if with_time {
            output.extend_from_slice(self.time.as_bytes());
            output.push(b' ');
        }
        output.extend_from_slice(self.text);
        if !self.is_partial {
            output.push(b'\n');
        }
    }
}

/// Reads a record from a line without its newline; `None` when it is not one.
pub fn parse(line: &[u8]) -> Option<Record<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = parts.next()?;
    let tags = parts.next()?;
    let text = parts.next().unwrap_or_default();
    let is_stream = stream == b"stdout" || stream == b"stderr";
    let first_tag = tags.split(|byte| *byte == b':').next()?;
    is_stream.then_some(Record { time, is_partial: first_tag == b"P", text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_time_a_stream_tags_and_text() {
        let record = parse(b"2026-11-21T08:00:00.5Z stdout F hello  world").unwrap();
        assert_eq!((record.is_partial, record.text), (false, &b"hello  world"[..]));
        assert_eq!(record.timestamp().unwrap().subsec_millisecond(), 500);
        assert!(parse(b"2026-11-21T08:00:00Z stderr P:x part").unwrap().is_partial);
        assert_eq!(parse(b"2026-11-21T08:00:00Z stdout F ").unwrap().text, b"");
    }

    #[test]
    fn what_is_no_record_is_none() {
        for line in [&b""[..], b"hello", b"time nostream F text", b"time stdout"] {
            assert_eq!(parse(line), None);
        }
    }

    #[test]
    fn parts_of_a_line_are_put_together_again() {
        let mut output = Vec::new();
        parse(b"T stdout P one,").unwrap().render(false, &mut output);
        parse(b"T stdout F two").unwrap().render(false, &mut output);
        parse(b"T stdout F three").unwrap().render(true, &mut output);
        assert_eq!(output, b"one,two\nT three\n");
    }
}

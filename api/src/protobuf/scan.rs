//! A reader of JSON text that builds nothing: for the bytes that this program has written itself.
//!
//! What serde would have to unpack and to pack again (text without escapes, embedded JSON, whatever is not
//! wanted) is handed out or skipped as it stands. It takes some text that is no JSON; it never panics.

use std::borrow::Cow;

use super::EncodeError;

#[derive(Clone)]
pub(super) struct Scanner<'a> {
    json: &'a [u8],
    at: usize,
}

type Result<T> = std::result::Result<T, EncodeError>;

impl<'a> Scanner<'a> {
    pub(super) fn new(json: &'a [u8]) -> Scanner<'a> {
        Scanner { json, at: 0 }
    }

    /// The first byte of the next value.
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.json.get(self.at) {
            if !byte.is_ascii_whitespace() {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Nothing may follow.
    pub(super) fn end(&mut self) -> Result<()> {
        if self.peek().is_none() { Ok(()) } else { Err(self.broken()) }
    }

    /// Every member of an object; `each` has to consume the value.
    pub(super) fn members(&mut self, mut each: impl FnMut(&str, &mut Self) -> Result<()>) -> Result<()> {
        self.expect(b'{')?;
        if self.accept(b'}') {
            return Ok(());
        }
        loop {
            let name = self.text("a name")?;
            self.expect(b':')?;
            each(&name, self)?;
            if !self.accept(b',') {
                return self.expect(b'}');
            }
        }
    }

    /// Every item of a list; `each` has to consume it.
    pub(super) fn items(&mut self, mut each: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.expect(b'[')?;
        if self.accept(b']') {
            return Ok(());
        }
        loop {
            each(self)?;
            if !self.accept(b',') {
                return self.expect(b']');
            }
        }
    }

    /// Text; borrowed where it has no escapes. `field` is what an error names.
    pub(super) fn text(&mut self, field: &str) -> Result<Cow<'a, str>> {
        if self.peek() != Some(b'"') {
            return Err(EncodeError::new(format!("{field} is no text")));
        }
        let start = self.at + 1;
        let Some(length) = self.json[start..].iter().position(|byte| matches!(byte, b'"' | b'\\')) else {
            return Err(self.broken());
        };
        if self.json[start + length] == b'"' {
            self.at = start + length + 1;
            let text = std::str::from_utf8(&self.json[start..start + length]);
            return text.map(Cow::Borrowed).map_err(|_| self.broken());
        }
        let quoted = self.raw()?;
        serde_json::from_slice(quoted).map(Cow::Owned).map_err(|_| self.broken())
    }

    pub(super) fn flag(&mut self, field: &str) -> Result<bool> {
        match self.raw()? {
            b"true" => Ok(true),
            b"false" => Ok(false),
            _ => Err(EncodeError::new(format!("{field} is neither true nor false"))),
        }
    }

    pub(super) fn integer(&mut self, field: &str) -> Result<i64> {
        let text = self.raw_text()?;
        if let Ok(number) = text.parse() {
            return Ok(number);
        }
        let number = text.parse().ok().filter(|number: &f64| number.fract() == 0.0 && number.abs() < 9e15);
        number
            .map(|number| number as i64)
            .ok_or_else(|| EncodeError::new(format!("{field} is no whole number")))
    }

    pub(super) fn double(&mut self, field: &str) -> Result<f64> {
        self.raw_text()?.parse().map_err(|_| EncodeError::new(format!("{field} is no number")))
    }

    pub(super) fn skip(&mut self) -> Result<()> {
        self.raw().map(drop)
    }

    /// The next value as it stands.
    pub(super) fn raw(&mut self) -> Result<&'a [u8]> {
        let first = self.peek();
        let start = self.at;
        let mut depth = 0usize;
        match first {
            Some(b'{' | b'[' | b'"') => loop {
                match self.json.get(self.at) {
                    Some(b'"') => self.skip_text()?,
                    Some(b'{' | b'[') => (depth, self.at) = (depth + 1, self.at + 1),
                    Some(b'}' | b']') => (depth, self.at) = (depth.saturating_sub(1), self.at + 1),
                    Some(_) => self.at += 1,
                    None => return Err(self.broken()),
                }
                if depth == 0 {
                    break;
                }
            },
            Some(_) => {
                let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
                let rest = &self.json[start..];
                self.at = start + rest.iter().position(is_end).unwrap_or(rest.len());
            }
            None => {}
        }
        let raw = &self.json[start..self.at];
        if raw.is_empty() { Err(self.broken()) } else { Ok(raw) }
    }

    fn raw_text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.raw()?).map_err(|_| self.broken())
    }

    /// Behind the closing quote of the text that starts here.
    fn skip_text(&mut self) -> Result<()> {
        self.at += 1;
        while let Some(rest) = self.json.get(self.at..) {
            match rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
                Some(found) if rest[found] == b'"' => {
                    self.at += found + 1;
                    return Ok(());
                }
                Some(found) => self.at += found + 2,
                None => break,
            }
        }
        Err(self.broken())
    }

    fn accept(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.accept(byte) { Ok(()) } else { Err(self.broken()) }
    }

    fn broken(&self) -> EncodeError {
        EncodeError::new(format!("unexpected JSON at byte {}", self.at))
    }
}

//! What is wrong with a text that is no JSON, in the words of Go's decoder, which upstream passes on.

/// Where Go's decoder gives up.
const MAX_DEPTH: usize = 10_000;

/// The first syntax error; `None` when the text is JSON. Needs no stack however deep the text nests.
pub(super) fn error(text: &[u8]) -> Option<String> {
    Scanner { text, position: 0 }.document().err()
}

struct Scanner<'a> {
    text: &'a [u8],
    position: usize,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    Value,
    /// A value or the end of the list that has just begun.
    FirstItem,
    /// A key or the end of the object that has just begun.
    FirstKey,
    Key,
    /// A comma or the end of what is open.
    Separator,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), String> {
        let mut open: Vec<u8> = Vec::new();
        let mut next = Next::Value;
        loop {
            if next == Next::Separator && open.is_empty() {
                return match self.after_space() {
                    None => Ok(()),
                    Some(_) => Err(self.unexpected("after top-level value")),
                };
            }
            let byte = self.required()?;
            next = match (next, byte) {
                (Next::Value | Next::FirstItem, b'{' | b'[') => {
                    if open.len() >= MAX_DEPTH {
                        return Err("exceeded max depth".into());
                    }
                    open.push(byte);
                    self.position += 1;
                    if byte == b'{' { Next::FirstKey } else { Next::FirstItem }
                }
                (Next::FirstItem, b']') | (Next::FirstKey, b'}') => self.close(&mut open),
                (Next::Value | Next::FirstItem, _) => {
                    self.scalar(byte)?;
                    Next::Separator
                }
                (Next::FirstKey | Next::Key, b'"') => {
                    self.string()?;
                    if self.required()? != b':' {
                        return Err(self.unexpected("after object key"));
                    }
                    self.position += 1;
                    Next::Value
                }
                (Next::FirstKey | Next::Key, _) => {
                    return Err(self.unexpected("looking for beginning of object key string"));
                }
                (Next::Separator, b',') => {
                    self.position += 1;
                    if open.last() == Some(&b'{') { Next::Key } else { Next::Value }
                }
                (Next::Separator, b'}') if open.last() == Some(&b'{') => self.close(&mut open),
                (Next::Separator, b']') if open.last() == Some(&b'[') => self.close(&mut open),
                (Next::Separator, _) if open.last() == Some(&b'{') => {
                    return Err(self.unexpected("after object key:value pair"));
                }
                (Next::Separator, _) => return Err(self.unexpected("after array element")),
            };
        }
    }

    fn close(&mut self, open: &mut Vec<u8>) -> Next {
        self.position += 1;
        open.pop();
        Next::Separator
    }

    fn scalar(&mut self, first: u8) -> Result<(), String> {
        match first {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => Err(self.unexpected("looking for beginning of value")),
        }
    }

    fn string(&mut self) -> Result<(), String> {
        self.position += 1;
        loop {
            match self.byte()? {
                b'"' => {
                    self.position += 1;
                    return Ok(());
                }
                b'\\' => {
                    self.position += 1;
                    self.escape()?;
                }
                0..0x20 => return Err(self.unexpected("in string literal")),
                _ => self.position += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        match self.byte()? {
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => self.position += 1,
            b'u' => {
                self.position += 1;
                for _ in 0..4 {
                    if !self.byte()?.is_ascii_hexdigit() {
                        return Err(self.unexpected("in \\u hexadecimal character escape"));
                    }
                    self.position += 1;
                }
            }
            _ => return Err(self.unexpected("in string escape code")),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        if self.byte()? == b'-' {
            self.position += 1;
        }
        match self.byte()? {
            b'0' => self.position += 1,
            b'1'..=b'9' => self.skip_digits(),
            _ => return Err(self.unexpected("in numeric literal")),
        }
        if self.peek() == Some(b'.') {
            self.position += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.position += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.position += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn digits(&mut self, context: &str) -> Result<(), String> {
        if !self.byte()?.is_ascii_digit() {
            return Err(self.unexpected(context));
        }
        self.skip_digits();
        Ok(())
    }

    fn skip_digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.position += 1;
        }
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        for expected in word.chars() {
            if char::from(self.byte()?) != expected {
                return Err(self.unexpected(&format!("in literal {word} (expecting '{expected}')")));
            }
            self.position += 1;
        }
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.position).copied()
    }

    fn byte(&self) -> Result<u8, String> {
        self.peek().ok_or_else(|| "unexpected end of JSON input".into())
    }

    fn after_space(&mut self) -> Option<u8> {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.position += 1;
        }
        self.peek()
    }

    fn required(&mut self) -> Result<u8, String> {
        self.after_space();
        self.byte()
    }

    /// Go prints the byte as if it were a character.
    fn unexpected(&self, context: &str) -> String {
        let character = match self.peek() {
            None => return "unexpected end of JSON input".into(),
            Some(b'\'') => "'\\''".into(),
            Some(b'"') => "'\"'".into(),
            Some(byte @ (b' '..=b'~' | 0xa1..)) => format!("'{}'", char::from(byte)),
            Some(b'\n') => "'\\n'".into(),
            Some(b'\r') => "'\\r'".into(),
            Some(b'\t') => "'\\t'".into(),
            Some(byte) => format!("'\\x{byte:02x}'"),
        };
        format!("invalid character {character} {context}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn errors_are_those_of_go() {
        let table = [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("apiVersion: v1", "invalid character 'a' looking for beginning of value"),
            ("{a", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\" 1", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\"", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("{\"a\":}", "invalid character '}' looking for beginning of value"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("nul1", "invalid character '1' in literal null (expecting 'l')"),
            ("\"\n\"", "invalid character '\\n' in string literal"),
            ("\"\\q\"", "invalid character 'q' in string escape code"),
            ("\"\\u00g0\"", "invalid character 'g' in \\u hexadecimal character escape"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1ex", "invalid character 'x' in exponent of numeric literal"),
            ("01", "invalid character '1' after top-level value"),
        ];
        for (text, expected) in table {
            assert_eq!(error(text.as_bytes()).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(error("[".repeat(100_000).as_bytes()).as_deref(), Some("exceeded max depth"));
    }

    proptest! {
        #[test]
        fn what_serde_reads_is_json_and_the_reverse(text in "[\\[\\]{}\",:0-9a-eftrulsn \\\\.+-]{0,16}") {
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(error(text.as_bytes()).is_none(), is_json);
        }
    }
}

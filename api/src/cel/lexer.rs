//! Text to tokens.

use super::Mistake;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Ident(String),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// Operators and brackets.
    Symbol(&'static str),
    End,
}

const SYMBOLS: [&str; 27] = [
    "&&", "||", "==", "!=", "<=", ">=", ".?", "[?", "(", ")", "[", "]", "{", "}", ".", ",", ":", "?", "!",
    "<", ">", "+", "-", "*", "/", "%", "=",
];

/// The tokens, each with its offset in characters.
pub(super) fn tokens(source: &str) -> Result<Vec<(usize, Token)>, Mistake> {
    let mut lexer = Lexer { text: source.chars().collect(), at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_space();
        let at = lexer.at;
        let token = lexer.token()?;
        let is_end = token == Token::End;
        tokens.push((at, token));
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer {
    text: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.text.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn mistake<T>(&self, at: usize, what: impl Into<String>) -> Result<T, Mistake> {
        Err(Mistake { at, what: format!("Syntax error: {}", what.into()) })
    }

    fn skip_space(&mut self) {
        loop {
            match self.peek(0) {
                c if c.is_whitespace() => self.at += 1,
                '/' if self.peek(1) == '/' => {
                    while !matches!(self.peek(0), '\n' | '\0') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn token(&mut self) -> Result<Token, Mistake> {
        let start = self.at;
        let c = self.peek(0);
        if start >= self.text.len() {
            return Ok(Token::End);
        }
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_ascii_digit()) {
            return self.number();
        }
        if let Some(token) = self.text_token()? {
            return Ok(token);
        }
        if c.is_ascii_alphabetic() || c == '_' {
            while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == '_' {
                self.at += 1;
            }
            return Ok(Token::Ident(self.text[start..self.at].iter().collect()));
        }
        if c == '`' {
            self.at += 1;
            while !matches!(self.peek(0), '`' | '\0') {
                self.at += 1;
            }
            self.at += 1;
            return Ok(Token::Ident(self.text[start + 1..self.at - 1].iter().collect()));
        }
        let found = SYMBOLS
            .iter()
            .find(|symbol| symbol.chars().enumerate().all(|(ahead, expected)| self.peek(ahead) == expected));
        match found {
            Some(symbol) => {
                self.at += symbol.len();
                Ok(Token::Symbol(symbol))
            }
            None => self.mistake(start, format!("token recognition error at: '{c}'")),
        }
    }

    fn number(&mut self) -> Result<Token, Mistake> {
        let start = self.at;
        if self.peek(0) == '0' && matches!(self.peek(1), 'x' | 'X') {
            self.at += 2;
            while self.peek(0).is_ascii_hexdigit() {
                self.at += 1;
            }
            let digits: String = self.text[start + 2..self.at].iter().collect();
            return self.whole(start, &digits, 16);
        }
        let mut is_double = false;
        while self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            is_double = true;
            self.at += 1;
            while self.peek(0).is_ascii_digit() {
                self.at += 1;
            }
        }
        if matches!(self.peek(0), 'e' | 'E') {
            is_double = true;
            self.at += 1;
            if matches!(self.peek(0), '+' | '-') {
                self.at += 1;
            }
            while self.peek(0).is_ascii_digit() {
                self.at += 1;
            }
        }
        let text: String = self.text[start..self.at].iter().collect();
        if is_double {
            return text
                .parse()
                .map(Token::Double)
                .or_else(|_| self.mistake(start, "invalid double literal"));
        }
        self.whole(start, &text, 10)
    }

    fn whole(&mut self, start: usize, digits: &str, radix: u32) -> Result<Token, Mistake> {
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            return u64::from_str_radix(digits, radix)
                .map(Token::Uint)
                .or_else(|_| self.mistake(start, "invalid uint literal"));
        }
        match i64::from_str_radix(digits, radix) {
            Ok(number) => Ok(Token::Int(number)),
            // The parser joins it with a minus sign.
            Err(_) if digits == "9223372036854775808" => Ok(Token::Int(i64::MIN)),
            Err(_) => self.mistake(start, "invalid int literal"),
        }
    }

    /// Text or bytes, raw or not, in one or three quotes.
    fn text_token(&mut self) -> Result<Option<Token>, Mistake> {
        let start = self.at;
        let (mut is_raw, mut is_bytes, mut ahead) = (false, false, 0);
        while ahead < 2 {
            match self.peek(ahead) {
                'r' | 'R' if !is_raw => is_raw = true,
                'b' | 'B' if !is_bytes => is_bytes = true,
                _ => break,
            }
            ahead += 1;
        }
        let quote = self.peek(ahead);
        if !matches!(quote, '"' | '\'') {
            return Ok(None);
        }
        self.at += ahead;
        let is_long = self.peek(1) == quote && self.peek(2) == quote;
        let width = if is_long { 3 } else { 1 };
        self.at += width;
        let mut bytes = Vec::new();
        loop {
            let c = self.peek(0);
            if self.at >= self.text.len() || (c == '\n' && !is_long) {
                return self.mistake(start, format!("token recognition error at: '{quote}'"));
            }
            if (0..width).all(|ahead| self.peek(ahead) == quote) {
                self.at += width;
                break;
            }
            self.at += 1;
            if c == '\\' && !is_raw {
                self.escape(is_bytes, &mut bytes)?;
            } else {
                bytes.extend(c.to_string().bytes());
            }
        }
        if is_bytes {
            return Ok(Some(Token::Bytes(bytes)));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(Token::Text(text))),
            Err(_) => self.mistake(start, "invalid string literal"),
        }
    }

    fn escape(&mut self, is_bytes: bool, bytes: &mut Vec<u8>) -> Result<(), Mistake> {
        let at = self.at;
        let c = self.peek(0);
        self.at += 1;
        let plain = match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            '\\' | '\'' | '"' | '`' | '?' => c,
            'x' | 'X' | 'u' | 'U' | '0'..='3' => {
                let (length, radix) = match c {
                    'x' | 'X' => (2, 16),
                    'u' => (4, 16),
                    'U' => (8, 16),
                    _ => {
                        self.at -= 1;
                        (3, 8)
                    }
                };
                let digits: String = self.text.iter().skip(self.at).take(length).collect();
                self.at += length;
                let Ok(code) = u32::from_str_radix(&digits, radix) else {
                    return self.mistake(at, "invalid escape sequence");
                };
                if is_bytes && length < 4 {
                    bytes.push(code as u8);
                    return Ok(());
                }
                match char::from_u32(code) {
                    Some(c) => c,
                    None => return self.mistake(at, "invalid escape sequence"),
                }
            }
            _ => return self.mistake(at, "invalid escape sequence"),
        };
        bytes.extend(plain.to_string().bytes());
        Ok(())
    }
}

//! The user's terminal: raw while a container's is joined to it, and the keys that leave.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result, bail};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// The user's terminal in raw mode; as it was when dropped.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Hands every key on as it is.
    pub fn enter() -> Result<Raw> {
        let before = tcgetattr(io::stdin()).context("cannot read the terminal's settings")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw).context("cannot set the terminal to raw mode")?;
        Ok(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no settings.
        tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before).ok();
    }
}

/// The size of the user's terminal, if there is one.
pub fn size() -> Option<(u16, u16)> {
    let size = if io::stdout().is_terminal() {
        runtime::sys::terminal::size(io::stdout())
    } else if io::stdin().is_terminal() {
        runtime::sys::terminal::size(io::stdin())
    } else {
        return None;
    };
    size.ok().filter(|(columns, rows)| *columns > 0 && *rows > 0)
}

/// A container's terminal can only be typed into from one.
pub fn require() -> Result<()> {
    if io::stdin().is_terminal() { Ok(()) } else { bail!("the input device is not a TTY") }
}

/// Finds the keys that leave among those that are typed.
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// `ctrl-p,ctrl-q`, or single characters.
    pub fn parse(text: &str) -> Result<DetachKeys> {
        let key = |name: &str| -> Result<u8> {
            let invalid = || format!("invalid detach keys ({text}): unknown character: '{name}'");
            if let Some(letter) = name.strip_prefix("ctrl-") {
                let letter = letter.bytes().next().filter(|_| letter.len() == 1).with_context(invalid)?;
                return match letter {
                    b'a'..=b'z' => Ok(letter - b'a' + 1),
                    b'@' => Ok(0),
                    b'[' | b'\\' | b']' | b'^' | b'_' => Ok(letter - b'[' + 27),
                    _ => bail!(invalid()),
                };
            }
            name.bytes().next().filter(|_| name.len() == 1).with_context(invalid)
        };
        let keys =
            if text.is_empty() { Vec::new() } else { text.split(',').map(key).collect::<Result<_>>()? };
        Ok(DetachKeys { keys, matched: 0 })
    }

    /// What of the typed bytes is for the container; `true` when the rest means to leave. The beginning of the
    /// keys is held back until it is clear that they are not meant.
    pub fn take(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len() + self.matched);
        for &byte in typed {
            if self.keys.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(self.keys.first() == Some(&byte));
            if self.matched == 0 {
                passed.push(byte);
            } else if self.matched == self.keys.len() {
                return (passed, true);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_that_leave_are_found_however_they_arrive() {
        let mut keys = DetachKeys::parse("ctrl-p,ctrl-q").unwrap();
        assert_eq!(keys.take(b"ls\n"), (b"ls\n".to_vec(), false));
        assert_eq!(keys.take(b"x\x10"), (b"x".to_vec(), false));
        assert_eq!(keys.take(b"y"), (b"\x10y".to_vec(), false));
        assert_eq!(keys.take(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.take(b"\x11rest"), (Vec::new(), true));
    }

    #[test]
    fn keys_are_written_as_docker_writes_them() {
        assert_eq!(DetachKeys::parse("ctrl-a,d").unwrap().keys, [1, b'd']);
        assert_eq!(DetachKeys::parse("ctrl-\\").unwrap().keys, [28]);
        assert!(DetachKeys::parse("").unwrap().keys.is_empty());
        for text in ["ctrl-", "ctrl-pp", "ab", "ctrl-1"] {
            assert!(DetachKeys::parse(text).is_err(), "{text}");
        }
    }
}

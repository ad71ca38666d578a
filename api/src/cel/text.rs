//! Text that is cheap to copy: an evaluation copies values all the time.

use std::{fmt, ops::Deref, sync::Arc};

/// Part of an object that is looked at, or text that was made, which all copies share.
#[derive(Clone)]
pub enum Text<'a> {
    /// Lies in an object.
    Borrowed(&'a str),
    /// Was made.
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

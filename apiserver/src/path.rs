//! What may stand between two slashes of a URL, and of a key in the store.

/// Whether `text` can be one segment; what cannot would reach another object's key.
pub(crate) fn is_segment(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '%'])
}

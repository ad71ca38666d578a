//! (room being built)

pub mod streaming;

//! Container logs: files with one line a record, `<time> <stream> <tags> <text>`, written by the runtime.

mod follow;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod read;
mod record;
pub mod rotate;

pub use follow::LogChange;
pub use read::{LogOptions, last_lines, stream};

//! A stack of its own for what is nested deeply: the threads that serve requests have little, and whoever writes an
//! expression says how deep it goes.

use std::thread;

/// How many levels an ordinary stack is enough for.
pub(super) const SHALLOW: usize = 50;
/// What a stack costs, in units of evaluation.
pub(super) const COST: u64 = 1_000;
/// Enough for as many levels as there may be, many times over.
const SIZE: usize = 32 << 20;

/// Runs `body` where it may go deep; `None` when the system has no thread to spare.
pub(crate) fn deep<R: Send>(body: impl FnOnce() -> R + Send) -> Option<R> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("deep expression".into()).stack_size(SIZE);
        let running = builder.spawn_scoped(scope, body).ok()?;
        match running.join() {
            Ok(result) => Some(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Whether an expression could be nested more than an ordinary stack bears: every level takes one of these at least.
pub(super) fn may_be_deep(source: &str) -> bool {
    const LEVELS: &[u8] = b"([{?!+-*/%.<>=&|";
    let signs = source.bytes().filter(|byte| LEVELS.contains(byte)).count();
    signs + source.matches("in").count() > SHALLOW
}

//! Telling the user how far things are: a line that is finished when its step is, plain lines elsewhere.

use std::{
    io::{IsTerminal, Write},
    time::Instant,
};

/// Steps, told on standard error.
pub(crate) struct Progress {
    is_terminal: bool,
    step: Option<(String, Instant)>,
}

impl Progress {
    /// Nothing told yet.
    pub(crate) fn new() -> Progress {
        Progress { is_terminal: std::io::stderr().is_terminal(), step: None }
    }

    /// The step before is done, this one begins.
    pub(crate) fn step(&mut self, text: &str) {
        self.done();
        self.step = Some((text.to_string(), Instant::now()));
        if self.is_terminal {
            self.write(&format!("  … {text}"));
        }
    }

    /// The present step is done.
    pub(crate) fn done(&mut self) {
        let Some((text, since)) = self.step.take() else { return };
        let seconds = since.elapsed().as_secs_f64();
        let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
        self.write(&format!("{clear}  ✓ {text} ({seconds:.1}s)\n"));
    }

    /// The present step will not be done.
    pub(crate) fn failed(&mut self) {
        let Some((text, _)) = self.step.take() else { return };
        let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
        self.write(&format!("{clear}  ✗ {text}\n"));
    }

    fn write(&self, text: &str) {
        let mut out = std::io::stderr();
        // Nobody can be told that telling has failed.
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
    }
}

//! What end-to-end tests are made of: a machine of one's own, a cluster on it, the real kubectl ([`Kubectl`] where its
//! release matters).
//!
//! [`Machine`] is a network and mount namespace with a network card and an address, so that clusters run side
//! by side and nothing of theirs reaches the host. [`Cluster`] runs the shipped binary there. Tests wait for
//! conditions with [`eventually`], never for time to pass.

pub mod cluster;
pub mod containerd;
pub mod kubectl;
pub mod machine;

use std::{
    process::Output,
    time::{Duration, Instant},
};

pub use cluster::Cluster;
pub use containerd::Containerd;
pub use kubectl::Kubectl;
pub use machine::Machine;

/// What a finished command said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// The output of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "exit code {}\n--- out\n{}\n--- err\n{}", self.code, self.out, self.err);
        self.out
    }

    /// The error text of a command that must have failed.
    #[track_caller]
    pub fn fails(self) -> String {
        assert_ne!(self.code, 0, "succeeded\n--- out\n{}\n--- err\n{}", self.out, self.err);
        self.err
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        use std::os::unix::process::ExitStatusExt;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said {
            code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or_default()),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

/// How long [`eventually`] waits: long enough for a busy machine, short enough to fail.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until the answer is `Ok`; its last `Err` becomes the failure's text.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(last) if Instant::now() > deadline => panic!("waited in vain: {what}\nlast answer: {last}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

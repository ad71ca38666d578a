//! The audit log: who asked for what, when, and what came of it.
//!
//! A request carries a [`Trail`] from its first line to its last byte; the policy says how much of it is written
//! down ([`policy`]), an [`event::Event`] is what is written, [`log`] is where to. Whatever runs for a request can add
//! to its events with [`annotate`], admission plug-ins above all. The way to the log is bounded in bytes and in time:
//! a disk that does not keep up costs events, which are counted, and never the server.

mod event;
mod log;
mod metrics;
pub mod policy;
mod trail;

use std::{path::PathBuf, sync::Arc};

pub use log::{Limits, LogError};
pub use trail::annotate;
pub(crate) use trail::{Foreign, Trail, saw_body};

use event::Event;
use policy::Policy;

/// What is written down, and where.
pub struct Audit {
    policy: Policy,
    log: log::Log,
}

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The policy does not say what it should.
    #[error(transparent)]
    Policy(#[from] policy::PolicyError),
    /// The log cannot be written.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Where the policy is, and where the log goes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--audit-policy-file`.
    pub policy_file: PathBuf,
    /// `--audit-log-path`; `-` for standard output.
    pub log_path: PathBuf,
    /// When a log file is full and which old ones are kept.
    pub limits: Limits,
}

impl Audit {
    /// Reads the policy and opens the log.
    pub fn open(settings: &Settings) -> Result<Arc<Audit>, AuditError> {
        let policy = Policy::read(&settings.policy_file)?;
        let log = log::Log::open(&settings.log_path, settings.limits.clone())?;
        Ok(Arc::new(Audit { policy, log }))
    }

    /// Waits until everything that was told so far has been written.
    pub async fn flushed(&self) {
        self.log.flushed().await;
    }

    /// Writes an event down; waits a little where the log does not keep up.
    async fn write(&self, event: &Event) {
        if let Some(line) = line(event) {
            self.log.write(line).await;
        }
    }

    /// The same where nobody can wait.
    fn write_now(&self, event: &Event) {
        if let Some(line) = line(event) {
            self.log.write_now(line);
        }
    }
}

fn line(event: &Event) -> Option<Vec<u8>> {
    match serde_json::to_vec(event) {
        Ok(mut line) => {
            line.push(b'\n');
            Some(line)
        }
        Err(error) => {
            tracing::error!(%error, "an audit event cannot be written as JSON");
            metrics::LOST.inc();
            None
        }
    }
}

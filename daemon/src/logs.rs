//! Where log lines go and what they look like.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people: one line, fields behind the message.
    #[default]
    Text,
    /// For collectors: one JSON object a line.
    Json,
}

/// Starts logging to standard error. `filter` is a tracing filter such as `info,kubelet=debug`.
///
/// # Errors
/// When the filter cannot be understood, or logging has been started already.
pub fn init(filter: &str, format: Format) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| LogError::Filter { filter: filter.to_string(), message: error.to_string() })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().try_init(),
    };
    started.map_err(|error| LogError::Started { message: error.to_string() })
}

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not one.
    #[error("{filter:?} is not a log filter such as `info` or `info,kubelet=debug`: {message}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        message: String,
    },
    /// Somebody else was first.
    #[error("logging was started already: {message}")]
    Started {
        /// The library's words.
        message: String,
    },
}

//! The streaming server of the CRI: exec, attach and port-forward.

mod backend;

pub use backend::{Backend, BackendError, Connection, Streams, TerminalSize};

/// What a client will be connected to when it redeems the URL made for this request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// The container to run in.
    pub container_id: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Whether the command gets a terminal.
    pub tty: bool,
    /// Whether the client sends input.
    pub stdin: bool,
    /// Whether the client wants the standard output.
    pub stdout: bool,
    /// Whether the client wants the standard error; not together with `tty`.
    pub stderr: bool,
}

/// As [`ExecRequest`], for the main process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// The container to attach to.
    pub container_id: String,
    /// Whether the container's main process has a terminal.
    pub tty: bool,
    /// Whether the client sends input.
    pub stdin: bool,
    /// Whether the client wants the standard output.
    pub stdout: bool,
    /// Whether the client wants the standard error; not together with `tty`.
    pub stderr: bool,
}

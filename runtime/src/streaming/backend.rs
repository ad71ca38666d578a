//! What the streaming server needs from the runtime, and nothing more.

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

/// Carries out what a client asked for over a streaming connection.
///
/// When the client goes away, the future is dropped: what was started for it should end then.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Runs `command` in a running container and returns its exit code (128 + signal when it was killed).
    ///
    /// Output counts as delivered once it is written to the streams; write all of it, the last bytes
    /// included, before returning. The command's standard input ends when [`Streams::stdin`] does.
    /// With a `tty` the output all goes to [`Streams::stdout`].
    async fn exec(
        &self,
        container_id: &str,
        command: &[String],
        tty: bool,
        streams: Streams,
    ) -> Result<i32, BackendError>;

    /// Connects to the streams of the container's main process until that exits or the client leaves.
    async fn attach(&self, container_id: &str, tty: bool, streams: Streams) -> Result<(), BackendError>;

    /// Connects to a TCP port on the loopback of the sandbox's network.
    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Connection>, BackendError>;
}

/// The client's ends of a session. A stream that the client did not ask for is `None`.
pub struct Streams {
    /// What the client types.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Where the standard output goes. Writing fails once the client is gone.
    pub stdout: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Where the standard error goes; never asked for together with a terminal.
    pub stderr: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// The sizes that the client's terminal takes, the newest last. Ends with the session.
    pub resize: mpsc::Receiver<TerminalSize>,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A connection in both directions; shutting down the writing half ends only that direction.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Why a session could not be carried out; the client reads the message.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The container or sandbox is gone, or not running.
    #[error("{what} is not running")]
    NotRunning {
        /// `container ID` or `sandbox ID`.
        what: String,
    },
    /// The command could not be started, the port could not be reached, ...
    #[error("failed to {what}: {source}")]
    Failed {
        /// What was tried, for example `start "sh"`.
        what: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

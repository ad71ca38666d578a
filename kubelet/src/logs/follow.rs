//! Waits until a log file has grown or another one has taken its place.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

use crate::sys::await_readable;

/// Tells of changes in a directory of logs. Watching the directory, not the file, also shows a rotation.
pub struct LogChange {
    inotify: Inotify,
    /// The same descriptor once more, for waiting.
    readiness: AsyncFd<OwnedFd>,
}

impl LogChange {
    /// Changes in `directory` from now on.
    pub fn watch(directory: &Path) -> io::Result<LogChange> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(directory, flags)?;
        let descriptor = inotify.as_fd().try_clone_to_owned()?;
        let readiness = await_readable(descriptor)?;
        Ok(LogChange { inotify, readiness })
    }

    /// Returns when something has changed since the last call.
    pub async fn wait(&self) -> io::Result<()> {
        loop {
            let mut ready = self.readiness.readable().await?;
            let read = ready.try_io(|_| match self.inotify.read_events() {
                Ok(_) => Ok(()),
                Err(Errno::EAGAIN) => Err(io::ErrorKind::WouldBlock.into()),
                Err(error) => Err(error.into()),
            });
            if let Ok(result) = read {
                return result;
            }
        }
    }
}

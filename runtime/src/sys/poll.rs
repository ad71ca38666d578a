//! Waiting for several descriptors at once, for a process without an async runtime.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What is waited for, each with a token that tells the caller what it was.
pub struct Waiting<'a, Token> {
    entries: Vec<PollFd<'a>>,
    tokens: Vec<Token>,
}

impl<'a, Token: Copy> Waiting<'a, Token> {
    /// Waiting for nothing yet.
    pub fn new() -> Waiting<'a, Token> {
        Waiting { entries: Vec::new(), tokens: Vec::new() }
    }

    /// Waits until `descriptor` has something to read, or is at its end.
    pub fn readable(&mut self, descriptor: BorrowedFd<'a>, token: Token) {
        self.add(descriptor, PollFlags::POLLIN, token);
    }

    /// Waits until `descriptor` takes bytes.
    pub fn writable(&mut self, descriptor: BorrowedFd<'a>, token: Token) {
        self.add(descriptor, PollFlags::POLLOUT, token);
    }

    /// Waits only until the other side of `descriptor` is gone.
    pub fn hung_up(&mut self, descriptor: BorrowedFd<'a>, token: Token) {
        self.add(descriptor, PollFlags::empty(), token);
    }

    fn add(&mut self, descriptor: BorrowedFd<'a>, flags: PollFlags, token: Token) {
        self.entries.push(PollFd::new(descriptor, flags));
        self.tokens.push(token);
    }

    /// Sleeps until something is there, or for as long as `limit`; the tokens of all that is.
    pub fn wait(mut self, limit: Option<Duration>) -> io::Result<Vec<Token>> {
        let limit =
            limit.map_or(PollTimeout::NONE, |limit| PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
        loop {
            match poll(&mut self.entries, limit) {
                Ok(_) => break,
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
        }
        let ready = self.entries.iter().zip(&self.tokens);
        Ok(ready.filter(|(entry, _)| entry.any().unwrap_or(true)).map(|(_, token)| *token).collect())
    }
}

impl<Token: Copy> Default for Waiting<'_, Token> {
    fn default() -> Self {
        Waiting::new()
    }
}

/// Signals, as something to wait for: the end of children, and of the machine.
pub struct Notices {
    signals: SignalFd,
}

/// Signals that somebody may send to all processes of our name without meaning those that hold pods.
const REQUESTS_TO_END: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

impl Notices {
    /// From now on the end of a child makes this readable instead of interrupting us, and a request to end
    /// does not end us.
    pub fn watch() -> io::Result<Notices> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        REQUESTS_TO_END.into_iter().for_each(|signal| mask.add(signal));
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Notices { signals })
    }

    /// Takes the notices; who ended is asked with [`super::process::reap`]. Whether the first process of the
    /// machine wants all others to end: it would wait long for one that does not.
    pub fn take(&self) -> io::Result<bool> {
        let mut machine_ends = false;
        while let Some(notice) = self.signals.read_signal()? {
            machine_ends |= notice.ssi_pid == 1 && notice.ssi_signo == Signal::SIGTERM as u32;
        }
        Ok(machine_ends)
    }
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

/// Waits until the kernel has changed a file that tells of its changes since it was last read, or for as long as
/// `limit`.
pub fn wait_for_event(file: impl AsFd, limit: Duration) -> io::Result<()> {
    let mut entry = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
    match poll(&mut entry, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A pipe, both ends close-on-exec: what is read, what is written.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}

/// A descriptor as the async runtime waits for it.
pub fn watched(descriptor: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by what is returned, so that it stays open for as long as it is watched.
    unsafe { tokio::io::unix::AsyncFd::register(descriptor) }.map_err(io::Error::from)
}

//! Asking a container to stop, so that it hears.
//!
//! The first process of a pid namespace gets no signal that it has no handler for, not even SIGTERM, and a process that
//! has only just been started has none yet: what it was asked then, it never hears, and it would be killed when its
//! grace is over. So it is asked again, once, as soon as it has a handler.

use std::time::Duration;

use cri::Error;

use super::Shared;
use super::state::{Container, ContainerState};
use crate::sys::failpoint;

/// When a process without a handler is looked at again, at first and at last; the kernel tells nobody when it gets one.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

impl Shared {
    /// Sends the stop signal of a container, so that it arrives. Ends when it has, which may be never.
    pub(super) async fn ask_to_stop(&self, container: &Container) -> Result<(), Error> {
        let signal = container.record.stop_signal;
        // Looked at before it is asked: in between it may get its handler, and what it was asked is lost all the same.
        // Rather does it hear twice.
        let deaf = match container.state() {
            ContainerState::Running(started) if is_deaf(started.pid, signal) => Some(started.pid),
            _ => None,
        };
        self.signal(container, signal).await?;
        failpoint::reach("stop.asked");
        let Some(pid) = deaf else { return Ok(()) };
        let (mut pause, longest) = LOOK_AGAIN;
        while is_deaf(pid, signal) {
            tokio::time::sleep(pause).await;
            pause = longest.min(pause * 2);
        }
        if container.is_running() { self.signal(container, signal).await } else { Ok(()) }
    }
}

/// Whether a process is the first of its pid namespace and has no handler for this signal.
fn is_deaf(pid: i32, signal: i32) -> bool {
    // One that cannot be read is on its way out.
    std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| misses(&status, signal))
}

/// The same from the content of `/proc/<pid>/status`.
fn misses(status: &str, signal: i32) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let is_first = field("NSpid").is_some_and(|pids| {
        let pids: Vec<&str> = pids.split_whitespace().collect();
        // The first process of the whole machine is not ours.
        pids.len() > 1 && pids.last() == Some(&"1")
    });
    let is_in = |name: &str| {
        let mask = field(name).and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
        mask & (1 << (signal - 1)) != 0
    };
    // One that ignores it does so on purpose; one that blocks it waits for it, or will get it.
    is_first && !is_in("SigCgt") && !is_in("SigIgn") && !is_in("SigBlk")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pids: &str, caught: &str, ignored: &str) -> String {
        format!(
            "Name:\tsh\nNSpid:\t{pids}\nSigBlk:\t0000000000000000\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n"
        )
    }

    const NONE: &str = "0000000000000000";
    const TERM: &str = "0000000000004000";

    #[test]
    fn only_a_first_process_without_a_handler_hears_nothing() {
        assert!(misses(&status("4711\t1", NONE, NONE), libc::SIGTERM));
        assert!(misses(&status("4711\t1", TERM, NONE), libc::SIGINT));
        assert!(!misses(&status("4711\t1", TERM, NONE), libc::SIGTERM));
        assert!(!misses(&status("4711\t1", NONE, TERM), libc::SIGTERM));
        assert!(
            !misses(&status("4711\t7", NONE, NONE), libc::SIGTERM),
            "what others do not handle ends them"
        );
        assert!(!misses(&status("4711", NONE, NONE), libc::SIGTERM));
        assert!(!misses("", libc::SIGTERM), "it is gone");
    }
}

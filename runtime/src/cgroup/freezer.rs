//! Stopping every process of a group for a while.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Cgroup, Controller};
use crate::sys::open::write_kernel_file;
use crate::sys::poll::wait_for_event;

/// How long the kernel may take to stop all processes.
const PATIENCE: Duration = Duration::from_secs(2);

/// Version 1 tells nobody when all have stopped: how often it is asked.
const ASK_AGAIN: Duration = Duration::from_millis(1);

impl Cgroup {
    /// Stops all processes of the group, or lets them go on; comes back when that is so.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        let Some((file, value)) = self.freezer_file(frozen) else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this machine has no freezer control group",
            ));
        };
        let deadline = Instant::now() + PATIENCE;
        let group = self.version_2_freezer();
        let mut events = group.map(|group| File::open(group.join("cgroup.events"))).transpose()?;
        loop {
            // Version 1 wants to be told again while new processes escape it.
            write_kernel_file(&file, value)?;
            let is_frozen = match &mut events {
                Some(events) => is_told_frozen(events)?,
                None => self.is_frozen(),
            };
            if is_frozen == frozen {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "some processes cannot be stopped"));
            }
            match &events {
                Some(events) => wait_for_event(events, left)?,
                None => std::thread::sleep(ASK_AGAIN),
            }
        }
    }

    /// Whether all processes of the group stand still.
    pub fn is_frozen(&self) -> bool {
        if let Some(group) = self.version_2_freezer() {
            return File::open(group.join("cgroup.events"))
                .and_then(|mut events| is_told_frozen(&mut events))
                .unwrap_or_default();
        }
        let Some(group) = self.version_1_freezer() else { return false };
        fs::read_to_string(group.join("freezer.state")).is_ok_and(|state| state.trim() == "FROZEN")
    }

    fn freezer_file(&self, frozen: bool) -> Option<(PathBuf, &'static str)> {
        // A process that version 2 has stopped can still be killed, so it is asked first where both are there.
        if let Some(group) = self.version_2_freezer() {
            return Some((group.join("cgroup.freeze"), if frozen { "1" } else { "0" }));
        }
        let state = if frozen { "FROZEN" } else { "THAWED" };
        Some((self.version_1_freezer()?.join("freezer.state"), state))
    }

    fn version_2_freezer(&self) -> Option<PathBuf> {
        self.unified().filter(|group| group.join("cgroup.freeze").exists())
    }

    fn version_1_freezer(&self) -> Option<PathBuf> {
        Some(self.layout.controllers.get(&Controller::Freezer)?.join(&self.path))
    }
}

/// Whether a version 2 group's `cgroup.events` says that all stand still. What changes after that, it can be
/// [waited](wait_for_event) for with.
fn is_told_frozen(events: &mut File) -> io::Result<bool> {
    let mut text = String::new();
    events.rewind()?;
    events.read_to_string(&mut text)?;
    Ok(text.lines().any(|line| line == "frozen 1"))
}

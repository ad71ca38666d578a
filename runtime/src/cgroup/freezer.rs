//! Stopping every process of a group for a while.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::{Cgroup, Controller};
use crate::sys::open::write_kernel_file;

/// How often the kernel is asked whether all have stopped, a millisecond apart.
const PATIENCE: u32 = 2000;

impl Cgroup {
    /// Stops all processes of the group, or lets them go on; comes back when that is so.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        let Some((file, value)) = self.freezer_file(frozen) else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this machine has no freezer control group",
            ));
        };
        for _ in 0..PATIENCE {
            // Version 1 wants to be told again while new processes escape it.
            write_kernel_file(&file, value)?;
            if self.is_frozen() == frozen {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "some processes cannot be stopped"))
    }

    /// Whether all processes of the group stand still.
    pub fn is_frozen(&self) -> bool {
        if let Some(group) = self.version_2_freezer() {
            let events = fs::read_to_string(group.join("cgroup.events")).unwrap_or_default();
            return events.lines().any(|line| line == "frozen 1");
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

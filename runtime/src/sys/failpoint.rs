//! Places between two steps where a test may end the process as a crash or a lost machine would.
//!
//! Which one, and who ends there, the environment says; release builds hold nothing of it.

/// All places, in the order of a pod's life. Those of the shim's own begin with `shim.`.
pub const POINTS: &[&str] = &[
    "pull.leased",
    "pull.unpacked",
    "pull.published",
    "pull.described",
    "pull.named",
    "sandbox.directory",
    "sandbox.prepared",
    "sandbox.shim",
    "shim.namespaces",
    "sandbox.subscribed",
    "sandbox.network",
    "sandbox.recorded",
    "create.snapshot",
    "create.group",
    "create.directory",
    "create.spec",
    "create.recorded",
    "start.asking",
    "shim.forked",
    "shim.executed",
    "shim.started",
    "start.answered",
    "stop.asked",
    "shim.reaped",
    "shim.ended",
    "stop.killed",
    "remove.snapshot",
    "remove.directory",
    "remove.forgotten",
    "stop-sandbox.recorded",
    "shim.ending",
    "stop-sandbox.ended",
    "release.network",
    "release.group",
    "remove-sandbox.stopped",
    "remove-sandbox.forgotten",
    "remove-sandbox.directory",
];

/// The variable that says where to end: `place=who=mark`. Who ends there is `self`, `other` (at a place of the
/// server its shims, at one of a shim its server), or `both`; the file `mark` is made to tell that it came to it.
pub const VARIABLE: &str = "CORACLE_FAILPOINT";

/// Passes a place; if it is the chosen one, ends who is to end there.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reach(_: &'static str) {}

/// Passes a place; if it is the chosen one, ends who is to end there.
#[cfg(debug_assertions)]
pub fn reach(point: &'static str) {
    assert!(POINTS.contains(&point), "{point} is not in the list");
    let Ok(chosen) = std::env::var(VARIABLE) else { return };
    if let [place, who, mark] = chosen.splitn(3, '=').collect::<Vec<_>>()[..]
        && place == point
        // Whoever comes by for a second time has been here before.
        && std::fs::File::create_new(mark).is_ok()
    {
        armed::end(who, point.starts_with("shim."));
    }
}

/// What a shim is to know of it: nothing in a release build.
pub fn environment() -> Option<(&'static str, std::ffi::OsString)> {
    let chosen = if cfg!(debug_assertions) { std::env::var_os(VARIABLE) } else { None };
    chosen.map(|chosen| (VARIABLE, chosen))
}

#[cfg(debug_assertions)]
mod armed {
    use std::fs;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::{Pid, getppid};

    pub(super) fn end(who: &str, is_shim: bool) {
        if who != "self" {
            let others = if is_shim { vec![getppid()] } else { children() };
            // One that has ended by itself is as dead.
            others.into_iter().for_each(|pid| kill(pid, Signal::SIGKILL).unwrap_or_default());
        }
        if who != "other" {
            kill(Pid::this(), Signal::SIGKILL).unwrap_or_default();
            // The signal may take a moment, in which nothing must happen.
            loop {
                std::thread::park();
            }
        }
    }

    /// The processes that this one has started, whichever of its threads did.
    fn children() -> Vec<Pid> {
        let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let pids = lists.flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect::<Vec<_>>()
        });
        pids.collect()
    }
}

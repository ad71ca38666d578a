//! The shim: one small process a pod, so that the pod outlives everything else of ours.
//!
//! It is our own binary, started again with one argument, single-threaded and without an async runtime.
//! It makes the pod's namespaces and stays in them, forks the containers, writes their logs, keeps
//! their exit codes on disk, and serves whoever connects to its socket: the server that started it, or
//! the next one. It ends when it is told to; the server cleans up after one that was killed.

mod client;
mod clients;
mod connection;
mod containers;
mod ledger;
mod log;
mod namespaces;
pub mod protocol;
mod requests;
mod serve;

pub(crate) use client::listen;
pub use client::{Connection, connect};

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use protocol::PodDirectory;

/// The release of this binary.
const RELEASE: &str = concat!("coracle ", env!("CARGO_PKG_VERSION"));

/// Runs the shim of the pod whose directory is the last argument; its listening socket is standard input.
///
/// To be called first thing in `main`, before any thread is started.
pub fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().next_back().map(PathBuf::from) else {
        return ExitCode::FAILURE;
    };
    match serve::run(PodDirectory(directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Standard error is the shim's log, which the server reads when the shim is gone. Where its disk is full,
/// nothing is said, for `eprintln!` would end the shim over it.
fn say(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).ok();
}

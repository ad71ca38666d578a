//! `coracle`: a whole Kubernetes cluster in one program.

mod checks;
mod cli;
mod containers;
mod down;
mod image;
mod kubeconfig;
mod node_args;
mod progress;
mod runtime_alone;
mod server;
mod settings;
mod status;
mod up;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use tikv_jemallocator::Jemalloc;

/// An object is a tree of hundreds of small maps and strings; see docs/decisions/0003.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// As many arenas as processors: fewer than otherwise, and nobody waits for another.
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATION: &[u8; 20] = b"percpu_arena:percpu\0";

fn main() -> ExitCode {
    // The shim must stay small and single-threaded: it is told apart before anything else happens.
    if std::env::args_os().nth(1).is_some_and(|arg| arg == "shim") {
        return runtime::shim::main();
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misunderstood(&error),
    };
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with the command line, or how it is used. ctr's exit codes are docker's.
fn misunderstood(error: &clap::Error) -> ExitCode {
    // Nobody can be told that telling has failed.
    error.print().ok();
    let is_ctr = std::env::args_os().nth(1).is_some_and(|arg| arg == "ctr");
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if is_ctr => ExitCode::from(ctr::Command::usage_code()),
        _ => ExitCode::from(2),
    }
}

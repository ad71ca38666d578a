//! `coracle`: a whole Kubernetes cluster in one program.

mod checks;
mod cli;
mod down;
mod image;
mod kubeconfig;
mod progress;
mod runtime_alone;
mod server;
mod settings;
mod status;
mod up;
mod watch;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // The shim must stay small and single-threaded: it is told apart before anything else happens.
    if std::env::args_os().nth(1).is_some_and(|arg| arg == "shim") {
        return runtime::shim::main();
    }
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

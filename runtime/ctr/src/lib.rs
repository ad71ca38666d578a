//! `coracle ctr`: containers by hand, without a cluster and without a daemon.
//!
//! Each command opens the runtime's library on a state of ctr's own, does one thing, and goes. What stays with a
//! container that runs is its shim: it writes the log, keeps the exit code, and at the end becomes
//! `coracle ctr cleanup`, which gives back what the container held. A container is a pod of one.
//!
//! [`args`] is what can be said; [`definition`] and [`containers`] are what is kept of a container and where;
//! [`request`] turns it into CRI's words, [`life`] starts and ends it, [`foreground`] joins a terminal to it.
//! Every other module is a command or a few that belong together.
//!
//! Two processes work on the same container in turns, by a lock on its folder that dies with its holder. Whatever
//! a killed command leaves behind, the next one repairs ([`life::repair`]).

mod args;
mod commit;
mod containers;
mod copy;
mod definition;
mod exec;
mod foreground;
mod inspect;
mod life;
mod list;
mod logs;
mod monitor;
mod names;
mod outcome;
mod place;
mod pull;
mod request;
mod root;
mod run;
mod signals;
mod table;
mod terminal;
mod trace;
mod tree;
mod volumes;

use std::process::ExitCode;

pub use args::Command;
pub use outcome::Failure;
pub use place::{DEFAULT_CIDR, Place};

/// Carries out a command, and tells on standard error why it could not. The exit code is docker's: the
/// container's own where it ran in the foreground; 125, 126 or 127 where it could not.
pub fn run(place: &Place, command: &Command) -> ExitCode {
    let begin = trace::Trace::begin(matches!(command, Command::Run(args) if args.trace));
    match carry_out(place, command, begin) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            // Nobody can be told that telling has failed.
            use std::io::Write;
            writeln!(std::io::stderr(), "Error: {:#}", failure.error).ok();
            ExitCode::from(failure.code)
        }
    }
}

fn carry_out(place: &Place, command: &Command, trace: trace::Trace) -> Result<u8, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::new(
            command.failure_code(),
            anyhow::anyhow!("ctr needs root: try `sudo coracle ctr ...`"),
        ));
    }
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(1, error.into()))?;
    executor.block_on(async {
        let outcome = dispatch(place, command, trace).await;
        outcome.map_err(|failure| failure.or_code(command.failure_code()))
    })
}

async fn dispatch(place: &Place, command: &Command, trace: trace::Trace) -> Result<u8, Failure> {
    let done = |result: anyhow::Result<()>| result.map(|()| 0).map_err(Failure::from);
    match command {
        Command::Run(args) => run::run(place, args, trace).await,
        Command::Create(args) => done(run::create(place, args).await),
        Command::Start(args) => run::start(place, args).await,
        Command::Exec(args) => exec::exec(place, args).await,
        Command::Attach(args) => foreground::attach(place, args).await,
        Command::Ps(args) => done(list::ps(place, args)),
        Command::Logs(args) => done(logs::logs(place, args).await),
        Command::Stop(args) => done(signals::stop(place, args).await),
        Command::Kill(args) => done(signals::kill(place, args).await),
        Command::Restart(args) => done(signals::restart(place, args).await),
        Command::Pause(args) => done(signals::pause(place, args, true)),
        Command::Unpause(args) => done(signals::pause(place, args, false)),
        Command::Rm(args) => done(signals::rm(place, args).await),
        Command::Prune(args) => done(signals::prune(place, args).await),
        Command::Wait(args) => done(signals::wait(place, args).await),
        Command::Inspect(args) => done(inspect::inspect(place, args)),
        Command::Port(args) => done(inspect::port(place, args)),
        Command::Rename(args) => done(inspect::rename(place, args)),
        Command::Top(args) => done(monitor::top(place, args)),
        Command::Stats(args) => done(monitor::stats(place, args).await),
        Command::Cp(args) => done(copy::cp(place, args)),
        Command::Export(args) => done(copy::export(place, args)),
        Command::Diff(args) => done(commit::diff(place, args)),
        Command::Commit(args) => done(commit::commit(place, args)),
        Command::Cleanup(args) => done(life::cleanup(place, &args.id).await),
    }
}

/// Takes away every container, its files and its network: processes, mounts, control groups, links, rules.
pub async fn reset(place: &Place) -> anyhow::Result<()> {
    life::reset(place).await
}

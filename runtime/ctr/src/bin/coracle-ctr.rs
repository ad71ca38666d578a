//! ctr alone, for the tests of this crate; everywhere else it is `coracle ctr`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

#[derive(Debug, Parser)]
struct Cli {
    #[arg(long)]
    directory: PathBuf,
    #[arg(long)]
    cgroup_parent: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one, for as long as the program runs")]
enum Command {
    /// Imports an image.
    Import { file: PathBuf },
    /// Removes everything.
    Reset,
    #[command(flatten)]
    Ctr(ctr::Command),
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|arg| arg == "shim") {
        return runtime::shim::main();
    }
    match Cli::try_parse() {
        Ok(cli) => run(cli).unwrap_or_else(|error| {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }),
        Err(error) => {
            eprint!("{error}");
            ExitCode::from(ctr::Command::usage_code())
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { directory, cgroup_parent, command } = cli;
    let program = [
        std::env::current_exe()?.display().to_string(),
        format!("--directory={}", directory.display()),
        format!("--cgroup-parent={cgroup_parent}"),
    ];
    let place = ctr::Place {
        data: directory.join("data"),
        run: directory.join("run"),
        images: directory.join("images"),
        cgroup_parent,
        cidr: ctr::DEFAULT_CIDR.parse()?,
        program: program.into(),
    };
    match command {
        Command::Import { file } => {
            runtime::image::Store::open(&place.images)?.import(std::fs::File::open(file)?, None)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Reset => {
            let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            executor.block_on(ctr::reset(&place))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Ctr(command) => Ok(ctr::run(&place, &command)),
    }
}

//! What can be said: docker's words, as far as they go.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::outcome::OURS;

/// What to do with containers.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Make a container of an image and start it.
    Run(RunArgs),
    /// Make a container without starting it.
    Create(CreateArgs),
    /// Start containers that are made or have ended.
    Start(StartArgs),
    /// Run one more command in a container that runs.
    Exec(ExecArgs),
    /// Join this terminal to a container that runs.
    Attach(AttachArgs),
    /// List containers.
    #[command(visible_alias = "ls")]
    Ps(PsArgs),
    /// Show what a container has written.
    Logs(LogsArgs),
    /// Stop containers: ask them to end, and end them when they do not.
    Stop(StopArgs),
    /// Send a signal to containers, SIGKILL unless told otherwise.
    Kill(KillArgs),
    /// Stop containers and start them again.
    Restart(StopArgs),
    /// Stop all processes of containers for a while.
    Pause(NamesArgs),
    /// Let paused containers go on.
    Unpause(NamesArgs),
    /// Remove containers.
    Rm(RmArgs),
    /// Remove all containers that do not run.
    Prune(PruneArgs),
    /// Wait until containers end, and print their exit codes.
    Wait(NamesArgs),
    /// Show all that is known about containers, as JSON.
    Inspect(InspectArgs),
    /// Show the ports of the machine that lead to a container.
    Port(PortArgs),
    /// Give a container another name.
    Rename(RenameArgs),
    /// Show the processes of a container.
    Top(TopArgs),
    /// Show what containers use: processor, memory, network.
    Stats(StatsArgs),
    /// Copy files out of a container or into it.
    Cp(CpArgs),
    /// Write a container's file tree as a tar.
    Export(ExportArgs),
    /// Show which files a container has changed.
    Diff(DiffArgs),
    /// Make an image of a container.
    Commit(CommitArgs),
    /// Give back what a container held that has ended; its shim says so.
    #[command(hide = true)]
    Cleanup(CleanupArgs),
}

impl Command {
    /// The exit code of a failure that is none of the container's.
    pub fn failure_code(&self) -> u8 {
        if matches!(self, Command::Run(_) | Command::Create(_)) { OURS } else { 1 }
    }

    /// The code for a command line that makes no sense.
    pub fn usage_code() -> u8 {
        OURS
    }
}

/// What a container is to be.
#[derive(Clone, Debug, Default, Args)]
pub struct CreateArgs {
    /// Keep standard input open.
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the container a terminal.
    #[arg(short, long)]
    pub tty: bool,
    /// Remove the container when it has ended.
    #[arg(long)]
    pub rm: bool,
    /// Its name [default: one of our making].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Its host name [default: the beginning of its id].
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Its network: bridge, host, none, or container:NAME.
    #[arg(long, visible_alias = "net", value_name = "NETWORK", default_value = "bridge")]
    pub network: String,
    /// Let a port of the machine lead to one of the container: [[ADDRESS:]PORT:]PORT[/tcp|udp|sctp].
    #[arg(short, long, value_name = "PORTS")]
    pub publish: Vec<String>,
    /// Let free ports of the machine lead to all ports that the image exposes.
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// Show a folder of the machine, or a volume, in the container: [SOURCE:]PATH[:ro].
    #[arg(short, long, value_name = "VOLUME")]
    pub volume: Vec<String>,
    /// Set an environment variable: NAME=VALUE, or NAME for the value that it has here.
    #[arg(short, long, value_name = "VARIABLE")]
    pub env: Vec<String>,
    /// Set the environment variables in a file, one a line.
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Where it starts.
    #[arg(short, long, value_name = "PATH")]
    pub workdir: Option<String>,
    /// Who it is: USER[:GROUP], by name or number.
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// The program in front of the arguments, instead of the image's.
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// The most memory that it may use: 64m, 1g.
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// How many processors it may use: 0.5, 2.
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<String>,
    /// How many processes it may have.
    #[arg(long, value_name = "NUMBER")]
    pub pids_limit: Option<i64>,
    /// Let it write to nothing but its volumes.
    #[arg(long)]
    pub read_only: bool,
    /// Give it one more capability: NET_ADMIN.
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,
    /// Take a capability from it: ALL, CHOWN.
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,
    /// Give it all rights on this machine.
    #[arg(long)]
    pub privileged: bool,
    /// Put a label on it: NAME=VALUE.
    #[arg(short, long, value_name = "LABEL")]
    pub label: Vec<String>,
    /// The signal that asks it to stop.
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// When to pull the image.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Pull::Missing)]
    pub pull: Pull,
    /// The image.
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// What to run in it, instead of what the image says.
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// Before every run.
    Always,
    /// When it is not there.
    #[default]
    Missing,
    /// Not at all.
    Never,
}

/// A container to make and start.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Let it run in the background, and print its id.
    #[arg(short, long)]
    pub detach: bool,
    /// The keys that leave it running in the background.
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: String,
    /// Show on standard error where the time goes.
    #[arg(long)]
    pub trace: bool,
    #[command(flatten)]
    pub create: CreateArgs,
}

/// Containers to start.
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// Join this terminal to its output.
    #[arg(short, long)]
    pub attach: bool,
    /// Join this terminal to its input too.
    #[arg(short, long)]
    pub interactive: bool,
    /// The keys that leave it running in the background.
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: String,
    /// Names or ids.
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// A command to run in a container.
#[derive(Clone, Debug, Args)]
pub struct ExecArgs {
    /// Keep standard input open.
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal.
    #[arg(short, long)]
    pub tty: bool,
    /// Let it run in the background.
    #[arg(short, long)]
    pub detach: bool,
    /// Who it is: USER[:GROUP], by name or number.
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Where it starts.
    #[arg(short, long, value_name = "PATH")]
    pub workdir: Option<String>,
    /// Set an environment variable.
    #[arg(short, long, value_name = "VARIABLE")]
    pub env: Vec<String>,
    /// Give it all capabilities.
    #[arg(long)]
    pub privileged: bool,
    /// Name or id.
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// What to run.
    #[arg(required = true, value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// A container to join.
#[derive(Clone, Debug, Args)]
pub struct AttachArgs {
    /// The keys that leave it.
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: String,
    /// Only look.
    #[arg(long)]
    pub no_stdin: bool,
    /// Name or id.
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// In which form a list is told.
#[derive(Clone, Debug, Default, Args)]
pub struct FormatArgs {
    /// `table`, or `json` for scripts.
    #[arg(short = 'o', long = "output", visible_alias = "format", value_enum, value_name = "FORM", default_value_t = Form::Table)]
    pub form: Form,
}

/// A form of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Which containers to list.
#[derive(Clone, Debug, Default, Args)]
pub struct PsArgs {
    /// Also those that do not run.
    #[arg(short, long)]
    pub all: bool,
    /// Only ids.
    #[arg(short, long)]
    pub quiet: bool,
    /// Only those: name=, id=, status=, label=, ancestor=, exited=, network=, volume=.
    #[arg(short, long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Nothing shortened.
    #[arg(long)]
    pub no_trunc: bool,
    /// The newest alone.
    #[arg(short, long)]
    pub latest: bool,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Which lines of a log.
#[derive(Clone, Debug, Args)]
pub struct LogsArgs {
    /// Go on until the container ends.
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines: a number, or `all`.
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all")]
    pub tail: String,
    /// Only what came after this time: 2026-01-02T03:04:05Z, or 10m for ten minutes ago.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only what came before this time.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// With the time of each line.
    #[arg(short, long)]
    pub timestamps: bool,
    /// Name or id.
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// Containers to stop.
#[derive(Clone, Debug, Args)]
pub struct StopArgs {
    /// How many seconds a container has to end by itself.
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", default_value_t = 10)]
    pub time: u64,
    /// The signal that asks, instead of the image's.
    #[arg(short, long, value_name = "SIGNAL")]
    pub signal: Option<String>,
    /// Names or ids.
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// A signal to send.
#[derive(Clone, Debug, Args)]
pub struct KillArgs {
    /// By name or number.
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    pub signal: String,
    /// Names or ids.
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Some containers.
#[derive(Clone, Debug, Args)]
pub struct NamesArgs {
    /// Names or ids.
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Containers to remove.
#[derive(Clone, Debug, Args)]
pub struct RmArgs {
    /// Also those that run: they are killed.
    #[arg(short, long)]
    pub force: bool,
    /// With their anonymous volumes.
    #[arg(short, long)]
    pub volumes: bool,
    /// Names or ids.
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Whether to ask.
#[derive(Clone, Debug, Args)]
pub struct PruneArgs {
    /// Do not ask.
    #[arg(short, long)]
    pub force: bool,
}

/// Containers to show.
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// Only `json`.
    #[arg(short = 'o', long = "output", visible_alias = "format", value_enum, value_name = "FORM", default_value_t = Form::Json, hide = true)]
    pub form: Form,
    /// Names or ids.
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Whose ports.
#[derive(Clone, Debug, Args)]
pub struct PortArgs {
    /// Name or id.
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// Only this port of the container: PORT[/tcp|udp|sctp].
    #[arg(value_name = "PORT")]
    pub port: Option<String>,
}

/// A new name.
#[derive(Clone, Debug, Args)]
pub struct RenameArgs {
    /// Name or id.
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// The new name.
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Whose processes.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    #[command(flatten)]
    pub format: FormatArgs,
    /// Name or id.
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// Whose use.
#[derive(Clone, Debug, Args)]
pub struct StatsArgs {
    /// Once, instead of again and again.
    #[arg(long)]
    pub no_stream: bool,
    #[command(flatten)]
    pub format: FormatArgs,
    /// Names or ids; all that run when there are none.
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// From where to where.
#[derive(Clone, Debug, Args)]
pub struct CpArgs {
    /// Keep owners when files go into a container.
    #[arg(short, long)]
    pub archive: bool,
    /// Copy what a link in SOURCE leads to.
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// CONTAINER:PATH, a path of this machine, or `-` for a tar on standard input.
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// CONTAINER:PATH, a path of this machine, or `-` for a tar on standard output.
    #[arg(value_name = "TARGET", allow_hyphen_values = true)]
    pub target: String,
}

/// A tree to write.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// Into this file instead of standard output.
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Name or id.
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// Whose changes.
#[derive(Clone, Debug, Args)]
pub struct DiffArgs {
    #[command(flatten)]
    pub format: FormatArgs,
    /// Name or id.
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// An image to make.
#[derive(Clone, Debug, Args)]
pub struct CommitArgs {
    /// Who made it.
    #[arg(short, long, value_name = "AUTHOR", default_value = "")]
    pub author: String,
    /// What it is.
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub message: String,
    /// Change the image's settings: `CMD ["sh"]`, `ENV A=b`, `ENTRYPOINT`, `USER`, `WORKDIR`, `LABEL`, `EXPOSE`.
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// Name or id.
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// The image's name.
    #[arg(value_name = "IMAGE")]
    pub image: Option<String>,
}

/// Whose end.
#[derive(Clone, Debug, Args)]
pub struct CleanupArgs {
    /// The whole id.
    pub id: String,
}

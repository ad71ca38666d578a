//! `coracle up`: the server in the background, told apart from one that is there already.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{
    checks,
    cli::UpArgs,
    down::{Role, Running, terminate},
    kubeconfig,
    progress::Progress,
    settings::Settings,
};

/// Starts the cluster and waits until its node is Ready.
pub(crate) fn up(args: &UpArgs) -> Result<()> {
    checks::root("starting a cluster")?;
    let settings = Settings::new(&args.server)?;
    if let Some(running) = Running::find(&settings.place)? {
        if running.role == Role::Runtime {
            bail!("the container runtime runs here alone (pid {}): stop it first", running.pid);
        }
        println!("The cluster is running already (pid {}).", running.pid);
        return Ok(());
    }
    checks::machine(&settings)?;
    let mut progress = Progress::new();
    progress.step("Starting the cluster");
    let mut started = start(&settings)?;
    let patience = Duration::from_secs(args.timeout);
    if let Err(error) = wait_until_ready(&mut started, patience, &mut progress) {
        progress.failed();
        terminate(started.server.id(), Duration::from_secs(5))?;
        return Err(error
            .context(format!("the cluster did not start; its log is {}", settings.place.log().display())));
    }
    progress.done();
    println!("The cluster is ready: node {}, API server {}.", settings.node_name, settings.server_url());
    println!("  kubeconfig: {}", settings.place.kubeconfig().display());
    if !args.no_merge {
        merge(&settings)?;
    }
    Ok(())
}

fn merge(settings: &Settings) -> Result<()> {
    let own = settings.place.kubeconfig();
    let text = std::fs::read_to_string(&own).with_context(|| format!("cannot read {}", own.display()))?;
    let Some(file) = kubeconfig::user_file() else { return Ok(()) };
    kubeconfig::merge_into(&file, &text)?;
    println!("  context {:?} is now the current one in {}", kubeconfig::CONTEXT, file.display());
    Ok(())
}

struct Started {
    server: Child,
    reports: BufReader<File>,
}

/// Starts `coracle server` with the same flags, detached from this terminal.
fn start(settings: &Settings) -> Result<Started> {
    let place = &settings.place;
    for dir in [&place.data_dir, &place.run_dir] {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let log = std::fs::OpenOptions::new().create(true).append(true).open(place.log());
    let log = log.with_context(|| format!("cannot write {}", place.log().display()))?;
    let (reports, reporter) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let mut command = Command::new(std::env::current_exe().context("cannot find this program's own file")?);
    command
        .arg("server")
        .args(settings.flags())
        .arg(format!("--progress-fd={}", reporter.as_raw_fd()))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let inherit = reporter.as_raw_fd();
    // SAFETY: between fork and exec only calls that are safe after a fork: setsid and fcntl.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            let descriptor = std::os::fd::BorrowedFd::borrow_raw(inherit);
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
            Ok(())
        });
    }
    let server = command.spawn().context("cannot start the server")?;
    drop::<OwnedFd>(reporter);
    Ok(Started { server, reports: BufReader::new(File::from(reports)) })
}

/// Follows the server's reports, one line each: `step TEXT`, `ready`, `failed TEXT`.
fn wait_until_ready(started: &mut Started, patience: Duration, progress: &mut Progress) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if started.reports.buffer().is_empty() && !is_readable(&started.reports, left)? {
            bail!("the node was not Ready after {} seconds", patience.as_secs());
        }
        let mut line = String::new();
        started.reports.read_line(&mut line).context("cannot follow the start")?;
        match line.trim_end().split_once(' ').unwrap_or((line.trim_end(), "")) {
            ("step", text) => progress.step(text),
            ("ready", _) => return Ok(()),
            ("failed", text) => bail!("{text}"),
            _ => bail!("the server ended without a word: {}", started.server.wait()?),
        }
    }
}

fn is_readable(reports: &BufReader<File>, within: Duration) -> Result<bool> {
    use std::os::fd::AsFd;
    let mut descriptors = [PollFd::new(reports.get_ref().as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
    Ok(poll(&mut descriptors, timeout)? > 0)
}

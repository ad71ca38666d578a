//! Commands on many containers: stop, kill, restart, pause, rm, prune, wait.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use runtime::shim::protocol::Request;

use crate::args::{KillArgs, NamesArgs, PruneArgs, RmArgs, StopArgs};
use crate::containers::Container;
use crate::definition::Status;
use crate::foreground::{ask, end, subscribe};
use crate::place::Place;
use crate::request::signal;
use crate::{life, run};

/// How long the kernel may take to end a killed process before we say that it cannot.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Does something to each of these containers and prints its name; goes on after a failure, and fails at the end.
pub async fn each(names: &[String], act: impl AsyncFn(&str) -> Result<()>) -> Result<()> {
    let mut failures = Vec::new();
    for name in names {
        match act(name).await {
            Ok(()) => println!("{name}"),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if failures.is_empty() { Ok(()) } else { bail!(failures.join("\nError: ")) }
}

/// `ctr stop`.
pub async fn stop(place: &Place, args: &StopArgs) -> Result<()> {
    let chosen = args.signal.as_deref().map(signal).transpose()?;
    // All are asked at once, so that the slowest is all that is waited for.
    let asked = args.containers.iter().map(|name| async move {
        let container = Container::find(place, name)?;
        stop_one(place, &container, chosen, Duration::from_secs(args.time)).await
    });
    let outcomes = join_all(asked.collect()).await;
    let mut outcomes = args.containers.iter().zip(outcomes);
    let mut failures = Vec::new();
    for (name, outcome) in &mut outcomes {
        match outcome {
            Ok(()) => println!("{name}"),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if failures.is_empty() { Ok(()) } else { bail!(failures.join("\nError: ")) }
}

async fn join_all<F: Future<Output = Result<()>>>(futures: Vec<F>) -> Vec<Result<()>> {
    let mut running: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outcomes: Vec<Option<Result<()>>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, outcome) in running.iter_mut().zip(&mut outcomes) {
            if outcome.is_none()
                && let std::task::Poll::Ready(result) = future.as_mut().poll(context)
            {
                *outcome = Some(result);
            }
        }
        if outcomes.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    outcomes.into_iter().flatten().collect()
}

/// Asks a container to end, and ends it when it does not.
async fn stop_one(place: &Place, container: &Container, chosen: Option<i32>, grace: Duration) -> Result<()> {
    let Status::Running { paused, .. } = container.status(place)? else {
        return life::settle_in_turn(place, container).await;
    };
    if paused {
        place.cgroup(container.id())?.freeze(false).context("cannot unpause the container")?;
    }
    let mut events = match subscribe(place, container.id()).await {
        Ok(events) => events,
        // It ended by itself meanwhile.
        Err(_) if !container.status(place)?.is_running() => {
            return life::settle_in_turn(place, container).await;
        }
        Err(error) => return Err(error),
    };
    let asking = chosen.unwrap_or(container.definition.stop_signal);
    for (number, patience) in [(asking, grace), (libc::SIGKILL, KILL_PATIENCE)] {
        if patience.is_zero() || !container.status(place)?.is_running() {
            continue;
        }
        let request = Request::Signal { container: container.id().to_owned(), signal: number };
        if let Err(error) = ask(place, container.id(), request).await {
            tracing::debug!(%error, number, "the container could not be asked to end");
        }
        if tokio::time::timeout(patience, end(&mut events)).await.is_ok() {
            break;
        }
    }
    if container.status(place)?.is_running() {
        bail!("cannot stop container: {}: its processes do not end", container.name());
    }
    life::settle_in_turn(place, container).await
}

/// `ctr kill`.
pub async fn kill(place: &Place, args: &KillArgs) -> Result<()> {
    let number = signal(&args.signal)?;
    each(&args.containers, async |name| {
        let container = Container::find(place, name)?;
        let not_running =
            || format!("Cannot kill container: {name}: Container {} is not running", container.id());
        let Status::Running { paused, .. } = container.status(place)? else { bail!(not_running()) };
        let mut events = subscribe(place, container.id()).await?;
        let request = Request::Signal { container: container.id().to_owned(), signal: number };
        ask(place, container.id(), request).await.with_context(not_running)?;
        if number == libc::SIGKILL {
            if paused {
                place.cgroup(container.id())?.freeze(false).context("cannot unpause the container")?;
            }
            let ended = tokio::time::timeout(KILL_PATIENCE, end(&mut events)).await;
            ended.with_context(|| format!("Cannot kill container: {name}: it does not end"))?;
            life::settle_in_turn(place, &container).await?;
        }
        Ok(())
    })
    .await
}

/// `ctr restart`.
pub async fn restart(place: &Place, args: &StopArgs) -> Result<()> {
    let chosen = args.signal.as_deref().map(signal).transpose()?;
    each(&args.containers, async |name| {
        let mut container = Container::find(place, name)?;
        // One that goes with its end is not to go now.
        let goes = std::mem::replace(&mut container.definition.auto_remove, false);
        if goes {
            container.save()?;
        }
        let stopped = stop_one(place, &container, chosen, Duration::from_secs(args.time)).await;
        let turn = container.turn_or_gone()?;
        if goes {
            container.definition.auto_remove = true;
            container.save()?;
        }
        stopped?;
        if container.status(place)?.is_running() {
            return Ok(());
        }
        life::end(place, &container, &turn).await?;
        run::start_detached(place, &container, &turn).await
    })
    .await
}

/// `ctr pause` and `ctr unpause`.
pub fn pause(place: &Place, args: &NamesArgs, paused: bool) -> Result<()> {
    let mut failures = Vec::new();
    for name in &args.containers {
        match pause_one(place, name, paused) {
            Ok(()) => println!("{name}"),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if failures.is_empty() { Ok(()) } else { bail!(failures.join("\nError: ")) }
}

fn pause_one(place: &Place, name: &str, pause: bool) -> Result<()> {
    let container = Container::find(place, name)?;
    let _turn = container.turn_or_gone()?;
    match container.status(place)? {
        Status::Running { paused, .. } if paused == pause => {
            bail!("Container {} is {}", container.id(), if pause { "already paused" } else { "not paused" })
        }
        Status::Running { .. } => {
            let done = place.cgroup(container.id())?.freeze(pause);
            done.with_context(|| {
                format!("cannot {} container {name}", if pause { "pause" } else { "unpause" })
            })
        }
        _ => bail!("Container {} is not running", container.id()),
    }
}

/// `ctr rm`.
pub async fn rm(place: &Place, args: &RmArgs) -> Result<()> {
    life::repair(place).await?;
    each(&args.containers, async |name| {
        let container = match Container::find(place, name) {
            // What is to be gone is gone.
            Err(_) if args.force => return Ok(()),
            found => found?,
        };
        let Some(turn) = container.turn()? else { return Ok(()) };
        if container.status(place)?.is_running() && !args.force {
            let state = container.status(place)?.word();
            bail!(
                "cannot remove container \"/{}\": container is {state}: stop the container before removing or force \
                 remove",
                container.name()
            );
        }
        life::remove(place, &container, &turn, args.volumes).await
    })
    .await
}

/// `ctr prune`.
pub async fn prune(place: &Place, args: &PruneArgs) -> Result<()> {
    life::repair(place).await?;
    if !args.force {
        print!(
            "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] "
        );
        io::stdout().flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
    }
    let mut removed = Vec::new();
    for container in Container::all(place)? {
        let Some(turn) = container.turn()? else { continue };
        if !container.status(place)?.is_running() {
            life::remove(place, &container, &turn, false).await?;
            removed.push(container);
        }
    }
    if !removed.is_empty() {
        println!("Deleted Containers:");
        removed.iter().for_each(|container| println!("{}", container.id()));
    }
    Ok(())
}

/// `ctr wait`.
pub async fn wait(place: &Place, args: &NamesArgs) -> Result<()> {
    let mut failures = Vec::new();
    for name in &args.containers {
        match wait_one(place, name).await {
            Ok(code) => println!("{code}"),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if failures.is_empty() { Ok(()) } else { bail!(failures.join("\nError: ")) }
}

async fn wait_one(place: &Place, name: &str) -> Result<i32> {
    let container = Container::find(place, name)?;
    // Subscribed first and asked then, so that no end falls between.
    let events = subscribe(place, container.id()).await;
    match (container.status(place)?, events) {
        (Status::Running { .. }, Ok(mut events)) => match end(&mut events).await {
            Some(exit) => Ok(exit.code),
            None => Ok(255),
        },
        (Status::Exited(past), _) => Ok(past.exit_code),
        (Status::Created, _) => Ok(0),
        (Status::Running { .. }, Err(error)) => Err(error),
    }
}

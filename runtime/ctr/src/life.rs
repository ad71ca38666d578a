//! Starting a container, ending it, and putting right what a killed command has left.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use runtime::shim::Connection;
use runtime::shim::protocol::{Attached, Reply, Request, Started, read_json};

use crate::containers::{self, Container, Turn, past_of};
use crate::definition::{Network, Past, Status};
use crate::outcome::Failure;
use crate::place::{Place, Plugged};
use crate::request;
use crate::trace::Trace;

/// A container that has just begun.
pub struct Begun {
    /// Tells its end.
    pub events: Connection,
    /// Its streams, as far as they were asked for.
    pub sockets: Vec<OwnedFd>,
}

/// Starts a container whose turn is ours. Whatever fails, nothing of the attempt stays.
pub async fn start(
    place: &Place,
    container: &Container,
    _turn: &Turn,
    attach: Attached,
    trace: &mut Trace,
) -> Result<Begun, Failure> {
    let definition = &container.definition;
    let plugged = plugged(&definition.network);
    let engine = place.engine(plugged).await?;
    trace.done("runtime opened, bridge looked at");
    let starts = container.past()?.map_or(0, |past| past.starts);
    if let Network::Container(id) = &definition.network {
        let target = Container::load(place, id)?.with_context(|| format!("No such container: {id}"))?;
        if !target.status(place)?.is_running() {
            return Err(anyhow::anyhow!("cannot join network of a non running container: {id}").into());
        }
        engine.adopt(id).await.map_err(sentence)?;
    }
    let attempt = begin(place, container, &engine, attach, trace).await;
    match attempt {
        Ok((started, begun)) => {
            let past = Past { started_at: Some(started.at), starts: starts + 1, ..Past::default() };
            container.set_past(&past)?;
            Ok(begun)
        }
        Err(failure) => {
            engine.release(container.id()).await.map_err(sentence)?;
            let past = Past {
                finished_at: Some(jiff::Timestamp::now()),
                exit_code: i32::from(failure.code),
                error: format!("{:#}", failure.error),
                starts,
                ..Past::default()
            };
            container.set_past(&past)?;
            Err(failure)
        }
    }
}

async fn begin(
    place: &Place,
    container: &Container,
    engine: &runtime::Engine,
    attach: Attached,
    trace: &mut Trace,
) -> Result<(Started, Begun), Failure> {
    let (definition, id) = (&container.definition, container.id());
    let image = engine.images().find(&definition.image_id)?;
    let image = image.with_context(|| format!("No such image: {}", definition.image))?;
    for volume in &definition.volumes {
        if !volume.source.exists() {
            fs::create_dir_all(&volume.source)
                .with_context(|| format!("cannot create {}", volume.source.display()))?;
        }
    }
    renew(&engine.images().snapshot_path(id).join("work")).context("cannot prepare the writable layer")?;
    trace.done("image found, writable layer ready");

    let mut sandbox = request::sandbox(definition, container.folder());
    let annotation = (runtime::trace::ANNOTATION.to_owned(), trace.is_wanted().to_string());
    sandbox.annotations.extend([annotation.clone()]);
    // Control groups are made while the shim starts.
    let group = place.cgroup(id)?;
    let making = std::thread::spawn(move || group.create());
    let made = engine.run_sandbox(id, sandbox).await;
    let grouped =
        making.join().map_err(|_| anyhow::anyhow!("the thread that makes control groups panicked"))?;
    if let Err(error) = made.map_err(sentence).and_then(|()| Ok(grouped?)) {
        place.pod_cgroup(id)?.remove().context("cannot remove the container's control groups")?;
        return Err(error.into());
    }
    trace.done("shim started, namespaces made, network plugged in");
    let address = engine.address(id).map(|address| address.ip);
    fs::write(container.hosts(), request::hosts(&definition.hostname, address))
        .context("cannot write the container's /etc/hosts")?;
    let mut config = request::container(definition, &container.hosts());
    config.annotations.extend([annotation]);
    engine.create_container(id, config, &request::image_for(definition, &image)).map_err(sentence)?;
    trace.done("container planned, control groups made");

    // Subscribed before it starts, so that no end is missed; with it the shim stays after the end.
    let mut events = runtime::shim::connect(&place.pod(id)).context("cannot connect to the shim")?;
    events.call(&Request::Subscribe, Vec::new()).await.context("cannot talk to the shim")?;
    let size = definition.terminal.then(crate::terminal::size).flatten();
    let start = Request::Start { container: id.to_owned(), attach, size };
    let mut connection = runtime::shim::connect(&place.pod(id)).context("cannot connect to the shim")?;
    let (reply, sockets) = connection.call(&start, Vec::new()).await.context("cannot talk to the shim")?;
    match reply {
        Reply::Started(started) => {
            trace.done("program executed");
            if trace.is_wanted() {
                let pod = place.pod(id);
                let files = [pod.trace(), pod.container(id).trace()];
                let files = files.each_ref().map(std::path::PathBuf::as_path);
                trace.add(runtime::trace::read(&files).context("cannot read where the time went")?);
            }
            Ok((started, Begun { events, sockets }))
        }
        Reply::Failed { message } => Err(Failure::of_start(&message)),
        other => Err(anyhow::anyhow!("the shim answered {other:?}").into()),
    }
}

/// What overlayfs has left in its working directory forbids it to mount the same layer again.
fn renew(directory: &std::path::Path) -> io::Result<()> {
    if fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none()) {
        return Ok(());
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(directory)
}

/// Gives back what a container held that has ended, and records the end; one that is to go with its end goes.
/// A container that runs is left alone.
pub async fn settle(place: &Place, container: &Container, turn: &Turn) -> Result<()> {
    if container.status(place)?.is_running() {
        return Ok(());
    }
    release(place, container, turn).await?;
    if container.definition.auto_remove { remove(place, container, turn, true).await } else { Ok(()) }
}

/// As [`settle`], with a turn of its own; a container that is gone is settled.
pub async fn settle_in_turn(place: &Place, container: &Container) -> Result<()> {
    match container.turn()? {
        Some(turn) => settle(place, container, &turn).await,
        None => Ok(()),
    }
}

/// Ends what is left of a container's processes and records how it ended.
async fn release(place: &Place, container: &Container, _turn: &Turn) -> Result<()> {
    if !place.pod(container.id()).0.exists() {
        return Ok(());
    }
    let engine = place.engine(plugged(&container.definition.network)).await?;
    let ended = engine.release(container.id()).await.map_err(sentence)?;
    if let Some(ended) = ended {
        let starts = container.past()?.map_or(0, |past| past.starts);
        container.set_past(&past_of(starts, ended.started_at, &ended.exit))?;
    }
    Ok(())
}

/// Removes a container that does not run, with its writable layer, and perhaps its anonymous volumes.
pub async fn remove(place: &Place, container: &Container, turn: &Turn, volumes: bool) -> Result<()> {
    release(place, container, turn).await?;
    let doomed = container.folder().join(if volumes { "removing-all.json" } else { "removing.json" });
    // From here on it is gone for everybody; whoever finds the folder goes on.
    fs::rename(container.folder().join("container.json"), doomed).context("cannot remove the container")?;
    wipe(place, container.id())
}

/// Ends what runs, at once.
pub async fn end(place: &Place, container: &Container, turn: &Turn) -> Result<()> {
    release(place, container, turn).await
}

/// Removes what there is of a container that is not there: not yet, or no more.
fn wipe(place: &Place, id: &str) -> Result<()> {
    let folder = place.containers().join(id);
    for (file, with_volumes) in [("removing.json", false), ("removing-all.json", true)] {
        let definition: Option<crate::definition::Definition> = read_json(&folder.join(file))?;
        let Some(definition) = definition.filter(|_| with_volumes) else { continue };
        for volume in definition.volumes.iter().filter(|volume| volume.anonymous) {
            remove_tree(&volume.source)?;
        }
    }
    place.images()?.remove_snapshot(id)?;
    for name in containers::entries(&place.names())? {
        containers::give_name_back(place, &name, id)?;
    }
    remove_tree(&folder)
}

fn remove_tree(path: &std::path::Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Undoes the making of a container that came to nothing.
pub fn abandon(place: &Place, id: &str, _turn: Turn) -> Result<()> {
    wipe(place, id)
}

/// Puts right what killed commands have left. Containers that somebody is at are left alone.
pub async fn repair(place: &Place) -> Result<()> {
    for id in containers::entries(&place.state().join("pods"))? {
        if is_whole(place, &id)? {
            continue;
        }
        match Container::load(place, &id)? {
            Some(container) => {
                if let Some(turn) = containers::idle_turn(place, &id)? {
                    settle_half(place, &container, &turn).await?;
                }
            }
            None => {
                let folder_is_busy =
                    place.containers().join(&id).exists() && containers::idle_turn(place, &id)?.is_none();
                if !folder_is_busy {
                    let engine = place.engine(Plugged::Bridge).await?;
                    engine.release(&id).await.map_err(sentence)?;
                }
            }
        }
    }
    for id in containers::ids(place)? {
        let is_there = || place.containers().join(&id).join("container.json").exists();
        if !is_there()
            && let Some(_turn) = containers::idle_turn(place, &id)?
            && !is_there()
        {
            wipe(place, &id)?;
        }
    }
    Ok(())
}

/// Whether a pod's container runs, or is yet to be looked at by whoever makes it.
fn is_whole(place: &Place, id: &str) -> Result<bool> {
    let directory = place.pod(id).container(id);
    Ok(directory.started().exists() && !directory.exit().exists() && containers::shim_is_alive(place, id))
}

/// As [`settle`], for one that may be cut off in the midst of its start.
async fn settle_half(place: &Place, container: &Container, turn: &Turn) -> Result<()> {
    if is_whole(place, container.id())? {
        return Ok(());
    }
    release(place, container, turn).await?;
    if container.definition.auto_remove { remove(place, container, turn, true).await } else { Ok(()) }
}

/// What a shim becomes at its container's end.
pub async fn cleanup(place: &Place, id: &str) -> Result<()> {
    match Container::load(place, id)? {
        Some(container) => settle_in_turn(place, &container).await,
        None => Ok(()),
    }
}

/// Removes everything.
pub async fn reset(place: &Place) -> Result<()> {
    let network = place.network()?;
    runtime::reset_pods(&place.config(None)).await.context("cannot end the containers")?;
    network.cleanup().await.context("cannot remove the containers' network")?;
    for container in Container::all(place)? {
        place.images()?.remove_snapshot(container.id())?;
    }
    remove_tree(&place.run)?;
    remove_tree(&place.data)
}

/// A container that must run.
pub fn running(place: &Place, name: &str) -> Result<(Container, i32)> {
    let container = Container::find(place, name)?;
    match container.status(place)? {
        Status::Running { pid, .. } => Ok((container, pid)),
        Status::Created | Status::Exited(_) => bail!("Container {} is not running", container.id()),
    }
}

/// Whether a container with this network has a link of ours.
fn plugged(network: &Network) -> Plugged {
    match network {
        Network::Bridge => Plugged::Bridge,
        Network::Host | Network::None | Network::Container(_) => Plugged::No,
    }
}

/// CRI's refusal as an error of ours.
pub fn sentence(error: cri::Error) -> anyhow::Error {
    anyhow::anyhow!("{}", error.message)
}

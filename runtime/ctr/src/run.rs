//! Making containers of images, and starting them.

use std::env;

use anyhow::{Result, bail};
use runtime::image::Image;
use runtime::shim::protocol::Attached;

use crate::args::{CreateArgs, Pull, RunArgs, StartArgs};
use crate::containers::{self, Container, Turn};
use crate::definition::{Definition, Network};
use crate::foreground::{self, Left};
use crate::outcome::Failure;
use crate::place::Place;
use crate::request::{Known, define};
use crate::terminal::{self, DetachKeys};
use crate::trace::Trace;
use crate::{life, names, volumes};

/// `ctr run`.
pub async fn run(place: &Place, args: &RunArgs, mut trace: Trace) -> Result<u8, Failure> {
    let keys = DetachKeys::parse(&args.detach_keys)?;
    let (tty, interactive) = (args.create.tty, args.create.interactive);
    if tty && interactive && !args.detach {
        terminal::require().map_err(|error| Failure::new(1, error))?;
    }
    trace.done("arguments read");
    let (container, turn) = make(place, &args.create, args.detach).await?;
    trace.done("container recorded");
    let attach = if args.detach { Attached::default() } else { streams(&container.definition, interactive) };
    let begun = match life::start(place, &container, &turn, attach, &mut trace).await {
        Ok(begun) => begun,
        Err(failure) => {
            if args.create.rm {
                life::remove(place, &container, &turn, true).await?;
            }
            return Err(failure);
        }
    };
    drop(turn);
    if args.detach {
        println!("{}", container.id());
        show(trace);
        return Ok(0);
    }
    let (left, _waits) = foreground::join(place, &container, begun, keys, interactive).await?;
    trace.done("program ended, output delivered");
    let code = match left {
        Left::Detached => 0,
        Left::Ended(code) => {
            life::settle_in_turn(place, &container).await?;
            trace.done("everything given back");
            code
        }
    };
    show(trace);
    Ok(code)
}

fn show(trace: Trace) {
    if trace.is_wanted() {
        eprint!("{}", trace.render());
    }
}

/// `ctr create`.
pub async fn create(place: &Place, args: &CreateArgs) -> Result<()> {
    let (container, _turn) = make(place, args, true).await?;
    println!("{}", container.id());
    Ok(())
}

/// `ctr start`.
pub async fn start(place: &Place, args: &StartArgs) -> Result<u8, Failure> {
    let keys = DetachKeys::parse(&args.detach_keys)?;
    life::repair(place).await?;
    if args.attach || args.interactive {
        let [name] = args.containers.as_slice() else {
            return Err(anyhow::anyhow!("you cannot start and attach multiple containers at once").into());
        };
        let container = Container::find(place, name)?;
        if container.status(place)?.is_running() {
            return Err(anyhow::anyhow!(
                "you cannot attach to a container that runs already: use `ctr attach`"
            )
            .into());
        }
        if container.definition.terminal && args.interactive {
            terminal::require()?;
        }
        let turn = container.turn_or_gone()?;
        let attach = streams(&container.definition, args.interactive);
        let begun = life::start(place, &container, &turn, attach, &mut Trace::begin(false)).await?;
        drop(turn);
        let (left, _waits) = foreground::join(place, &container, begun, keys, args.interactive).await?;
        if let Left::Ended(code) = left {
            life::settle_in_turn(place, &container).await?;
            return Ok(code);
        }
        return Ok(0);
    }
    crate::signals::each(&args.containers, async |name| {
        let container = Container::find(place, name)?;
        let turn = container.turn_or_gone()?;
        if !container.status(place)?.is_running() {
            start_detached(place, &container, &turn).await?;
        }
        Ok(())
    })
    .await?;
    Ok(0)
}

/// Starts a container that nobody is to be attached to.
pub async fn start_detached(place: &Place, container: &Container, turn: &Turn) -> Result<()> {
    let begun = life::start(place, container, turn, Attached::default(), &mut Trace::begin(false)).await;
    begun.map(drop).map_err(|failure| failure.error)
}

/// What is wanted of a container in the foreground.
fn streams(definition: &Definition, interactive: bool) -> Attached {
    Attached { stdin: interactive && definition.interactive, stdout: true, stderr: !definition.terminal }
}

/// Makes a container, and keeps its turn.
async fn make(place: &Place, args: &CreateArgs, detached: bool) -> Result<(Container, Turn)> {
    life::repair(place).await?;
    let image = image(place, &args.image, args.pull).await?;
    let network = network(place, &args.network)?;
    let id = new_id();
    let turn = containers::reserve(place, &id)?;
    match record(place, args, &id, &image, network, detached) {
        Ok(container) => match volumes::fill(place, &container, &image) {
            Ok(()) => Ok((container, turn)),
            Err(error) => {
                life::remove(place, &container, &turn, true).await?;
                Err(error)
            }
        },
        Err(error) => {
            life::abandon(place, &id, turn)?;
            Err(error)
        }
    }
}

fn record(
    place: &Place,
    args: &CreateArgs,
    id: &str,
    image: &Image,
    network: Network,
    detached: bool,
) -> Result<Container> {
    let known = Known {
        id: id.to_owned(),
        name: name(place, args.name.as_deref(), id)?,
        image_id: &image.id,
        image: &image.config,
        network,
        volumes: &place.volumes(),
        detached,
        now: jiff::Timestamp::now(),
        environment: &|name| env::var(name).ok(),
    };
    let definition = define(args, known)?;
    place.images()?.create_snapshot(id, image)?;
    Container::create(place, definition)
}

fn name(place: &Place, given: Option<&str>, id: &str) -> Result<String> {
    if let Some(name) = given {
        let name = name.strip_prefix('/').unwrap_or(name);
        containers::take_name(place, name, id)?;
        return Ok(name.to_owned());
    }
    for attempt in 0..100 {
        let name = names::choose(attempt);
        if containers::holder(place, &name)?.is_none() && containers::take_name(place, &name, id).is_ok() {
            return Ok(name);
        }
    }
    bail!("no name is free: give one with --name")
}

fn network(place: &Place, given: &str) -> Result<Network> {
    match given {
        "bridge" | "default" => Ok(Network::Bridge),
        "host" => Ok(Network::Host),
        "none" => Ok(Network::None),
        _ => match given.strip_prefix("container:") {
            Some(name) => Ok(Network::Container(Container::find(place, name)?.definition.id)),
            None => bail!("network {given} not found: there are bridge, host, none and container:NAME"),
        },
    }
}

/// The image of this name, pulled where that is wanted.
async fn image(place: &Place, name: &str, when: Pull) -> Result<Image> {
    let found = place.images()?.find(name)?;
    match (found, when) {
        (Some(image), Pull::Missing | Pull::Never) => Ok(image),
        (None, Pull::Never) => bail!("No such image: {name}"),
        (None, Pull::Missing) => {
            eprintln!("Unable to find image '{name}' locally");
            crate::pull::pull(place, name).await
        }
        (_, Pull::Always) => crate::pull::pull(place, name).await,
    }
}

/// 64 hexadecimal digits that nobody else has.
pub fn new_id() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

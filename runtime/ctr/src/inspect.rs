//! What is known about a container: `ctr inspect`, `port`, and its `rename`.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::args::{InspectArgs, PortArgs, RenameArgs};
use crate::containers::{self, Container};
use crate::definition::{Network, Port, Status};
use crate::place::Place;

/// `ctr inspect`.
pub fn inspect(place: &Place, args: &InspectArgs) -> Result<()> {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in &args.containers {
        match Container::find(place, name).and_then(|container| describe(place, &container)) {
            Ok(value) => found.push(value),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    println!("{}", serde_json::to_string_pretty(&found)?);
    if failures.is_empty() { Ok(()) } else { bail!(failures.join("\nError: ")) }
}

/// A container with docker's names for what is known about it.
fn describe(place: &Place, container: &Container) -> Result<Value> {
    let definition = &container.definition;
    let status = container.status(place)?;
    let past = container.past()?.unwrap_or_default();
    let (pid, paused) = match &status {
        Status::Running { pid, paused, .. } => (*pid, *paused),
        Status::Created | Status::Exited(_) => (0, false),
    };
    let (exit_code, finished_at, error, out_of_memory) = match &status {
        Status::Exited(past) => (past.exit_code, past.finished_at, past.error.clone(), past.out_of_memory),
        Status::Created | Status::Running { .. } => (0, None, String::new(), false),
    };
    let time = |time: Option<jiff::Timestamp>| {
        time.map_or("0001-01-01T00:00:00Z".to_owned(), |time| time.to_string())
    };
    let (program, arguments) = definition.command.split_first().context("the container runs nothing")?;
    let address = if status.is_running() { address(place, container.id())? } else { None };
    let mount = |volume: &crate::definition::Volume| {
        json!({
            "Type": if volume.name.is_some() { "volume" } else { "bind" },
            "Name": volume.name,
            "Source": volume.source,
            "Destination": volume.target,
            "RW": !volume.read_only,
            "Propagation": volume.propagation,
        })
    };
    Ok(json!({
        "Id": definition.id,
        "Created": definition.created_at.to_string(),
        "Path": program,
        "Args": arguments,
        "State": {
            "Status": status.word(),
            "Running": status.is_running(),
            "Paused": paused,
            "OOMKilled": out_of_memory,
            "Pid": pid,
            "ExitCode": exit_code,
            "Error": error,
            "StartedAt": time(past.started_at),
            "FinishedAt": time(finished_at),
        },
        "Image": definition.image_id,
        "Name": format!("/{}", definition.name),
        "RestartCount": past.starts.saturating_sub(1),
        "LogPath": container.log(),
        "HostsPath": container.hosts(),
        "Mounts": definition.volumes.iter().map(mount).collect::<Vec<_>>(),
        "Config": {
            "Hostname": definition.hostname,
            "User": definition.user.clone().unwrap_or_default(),
            "Tty": definition.terminal,
            "OpenStdin": definition.interactive,
            "Env": definition.env,
            "Cmd": definition.args,
            "Entrypoint": definition.entrypoint,
            "WorkingDir": definition.workdir.clone().unwrap_or_default(),
            "Image": definition.image,
            "Labels": definition.labels,
            "StopSignal": definition.stop_signal,
        },
        "HostConfig": {
            "AutoRemove": definition.auto_remove,
            "NetworkMode": definition.network.to_string(),
            "PortBindings": bindings(&definition.ports),
            "Privileged": definition.privileged,
            "ReadonlyRootfs": definition.read_only,
            "CapAdd": definition.cap_add,
            "CapDrop": definition.cap_drop,
            "Memory": definition.memory.unwrap_or_default(),
            "NanoCpus": definition.milli_cpus.unwrap_or_default() * 1_000_000,
            "PidsLimit": definition.pids_limit,
        },
        "NetworkSettings": {
            "IPAddress": address.map(|address| address.ip.to_string()).unwrap_or_default(),
            "Gateway": address.map(|address| address.gateway.to_string()).unwrap_or_default(),
            "Ports": if status.is_running() { bindings(&definition.ports) } else { Map::new() },
        },
        "GraphDriver": {
            "Name": "overlay",
            "Data": { "UpperDir": place.images()?.snapshot_path(container.id()).join("upper") },
        },
    }))
}

fn bindings(ports: &[Port]) -> Map<String, Value> {
    let mut bindings = Map::new();
    for port in ports {
        let binding = json!({
            "HostIp": port.host_ip.map_or("0.0.0.0".to_owned(), |address| address.to_string()),
            "HostPort": port.host_port.to_string(),
        });
        if let Value::Array(list) = bindings.entry(port.inside()).or_insert_with(|| json!([])) {
            list.push(binding);
        }
    }
    bindings
}

/// The address of a container that runs.
fn address(place: &Place, id: &str) -> Result<Option<net::PodAddress>> {
    let record: Option<Value> = runtime::shim::protocol::read_json(&place.pod(id).0.join("record.json"))?;
    let address = record.and_then(|record| record.get("address").cloned()).unwrap_or_default();
    Ok(serde_json::from_value(address)?)
}

/// `ctr port`.
pub fn port(place: &Place, args: &PortArgs) -> Result<()> {
    let container = Container::find(place, &args.container)?;
    let runs = container.status(place)?.is_running() && container.definition.network == Network::Bridge;
    let ports: &[Port] = if runs { &container.definition.ports } else { &[] };
    let Some(wanted) = &args.port else {
        ports.iter().for_each(|port| println!("{} -> {}", port.inside(), port.outside()));
        return Ok(());
    };
    let wanted = if wanted.contains('/') { wanted.clone() } else { format!("{wanted}/tcp") };
    let mut found = ports.iter().filter(|port| port.inside() == wanted).peekable();
    if found.peek().is_none() {
        bail!("No public port '{wanted}' published for {}", args.container);
    }
    found.for_each(|port| println!("{}", port.outside()));
    Ok(())
}

/// `ctr rename`.
pub fn rename(place: &Place, args: &RenameArgs) -> Result<()> {
    let found = Container::find(place, &args.container)?;
    let _turn = found.turn_or_gone()?;
    let name = args.name.strip_prefix('/').unwrap_or(&args.name);
    // Somebody else may have renamed it before it was our turn.
    let mut container = Container::load(place, found.id())?
        .with_context(|| format!("No such container: {}", args.container))?;
    let old = container.definition.name.clone();
    if old == name {
        bail!("Renaming a container with the same name as its current name");
    }
    containers::take_name(place, name, container.id())?;
    container.definition.name = name.to_owned();
    container.save()?;
    containers::give_name_back(place, &old, container.id())
}

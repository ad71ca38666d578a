//! `coracle runtime`: the container runtime without a cluster, for crictl, for critest and for other kubelets.
//!
//! It serves the CRI on a socket and nothing else. Like the server it may be killed at any time: its pods run on, and
//! the next one takes them over.

use std::sync::Arc;

use anyhow::{Context, Result};
use daemon::logs;
use runtime::Runtime;
use tokio::signal::unix::SignalKind;

use crate::{
    checks,
    cli::RuntimeArgs,
    down::{Lock, Role},
    server,
    settings::Place,
};

/// Serves until it is told to stop.
pub(crate) fn run(args: &RuntimeArgs) -> Result<()> {
    checks::root("running containers")?;
    let format = if args.log_json { logs::Format::Json } else { logs::Format::Text };
    logs::init(&args.log, format)?;
    let place = Place::new(&args.place)?;
    let _lock = Lock::take(&place, Role::Runtime)?;
    checks::containers()?;
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = executor.block_on(serve(args, &place));
    // Clients that listen for events never hang up by themselves.
    executor.shutdown_background();
    outcome
}

async fn serve(args: &RuntimeArgs, place: &Place) -> Result<()> {
    let network = Arc::new(server::pod_network(place, args.pod_cidr)?);
    network.set_pod_cidr(args.pod_cidr).await.context("cannot set up the pod network")?;
    let config = runtime::Config {
        streaming_address: args.streaming_address,
        // Its kubelet says how long logs may be, and looks after them.
        log_limit: None,
        archives: Some(args.images.archives(place)),
        registries: args.images.registries(),
        ..server::runtime_config(place, Some(network))
    };
    let runtime = Runtime::start(config).await.context("cannot start the container runtime")?;
    let path = args.cri_socket.clone().unwrap_or_else(|| place.cri_socket());
    let socket =
        cri::Socket::bind(&path).with_context(|| format!("cannot serve the CRI at {}", path.display()))?;
    tracing::info!(
        endpoint = format!("unix://{}", path.display()),
        "serving the container runtime interface"
    );
    let (mut terminate, mut interrupt) =
        (server::signal(SignalKind::terminate())?, server::signal(SignalKind::interrupt())?);
    tokio::select! {
        served = cri::serve(socket, runtime.clone(), runtime, std::future::pending()) => {
            served.context("cannot serve the CRI any longer")?;
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping; pods go on running");
    Ok(())
}

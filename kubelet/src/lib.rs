//! The kubelet: makes the pods that are bound to this node real, and tells the API what becomes of them.
//!
//! - [`node`] registers the Node, keeps its Lease and its status;
//! - [`pod`] has a worker for each pod: [`pod::plan`] decides, the worker acts, [`pod::status`] tells;
//! - [`container`], [`sandbox`], [`image`] say what the runtime is asked for, [`volume`] makes what is mounted;
//! - [`probe`] asks containers how they are; [`logs`] and [`server`] let users look into them.
//!
//! The runtime is known by its CRI traits alone. Nothing here polls: workers wake up on watch events, on
//! the runtime's events, on probe results and at times that their plans name. All state can be lost: a
//! restarted kubelet finds its pods in the API and in the runtime and goes on, no container being touched.

mod cgroup;
pub mod config;
pub mod container;
mod context;
mod events;
pub mod eviction;
#[cfg(test)]
mod fake;
pub mod image;
pub mod logs;
mod metrics;
pub mod node;
pub mod pod;
pub mod probe;
pub mod sandbox;
mod server;
mod source;
mod sys;
mod userns;
pub mod volume;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::events::Recorder;
use client::{Informers, Selection, informer};
use cri::v1::{StatusRequest, VersionRequest};
use cri::{ImageService, RuntimeService};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use config::{Config, PullLimit, TlsFiles};
use context::{Context, RuntimeFeatures, RuntimeName};
use eviction::plan::Pressure;
use image::keeper::Images;
use node::NodeKeeper;
use pod::{Evictions, Pods};
use server::Server;
pub use server::{ServeError, TlsError};

/// Between two attempts to reach a runtime that is not up yet.
const RUNTIME_RETRY: Duration = Duration::from_millis(500);

/// Why a kubelet cannot run.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// Its directory cannot be made.
    #[error("cannot make the directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its server cannot run.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Its health cannot be served.
    #[error("cannot serve health on {address}")]
    Health {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// What the node has cannot be found out.
    #[error("cannot read what this machine has from {path}")]
    Machine {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Runs the kubelet of one node until `stop`. Containers are left running.
///
/// # Errors
/// When it cannot start: a directory, an address or a certificate is of no use.
pub async fn run(
    config: Config,
    client: Client,
    runtime: Arc<dyn RuntimeService>,
    images: Arc<dyn ImageService>,
    stop: CancellationToken,
) -> Result<(), KubeletError> {
    for directory in [&config.root, &config.log_dir] {
        let failed = |source| KubeletError::Directory { path: directory.clone(), source };
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    let Some(runtime_name) = stop.run_until_cancelled(first_answer(&*runtime)).await else { return Ok(()) };
    let machine = node::Machine::inspect(&config, &runtime_name)?;
    let sources = Arc::new(source::Sources::new(client.clone()));
    let services = Informers::new(client.clone(), stop.clone()).cache::<Service>();
    let selection =
        Selection { fields: Some(format!("spec.nodeName={}", config.node_name)), ..Selection::default() };
    let pods = informer::start::<Pod>(client.clone(), selection, stop.clone());
    let pods_directory = config.root.join("pods");
    let user_namespaces = userns::UserNamespaces::load(&pods_directory)
        .map_err(|source| KubeletError::Directory { path: pods_directory, source })?;
    let (image_keeper, desk) = Images::channel();
    let (tell_pressure, pressure) = watch::channel(Pressure::default());
    let (evictions, verdicts) = Evictions::channel();
    let context = Arc::new(Context {
        volumes: volume::VolumeManager::new(client.clone(), sources.clone(), config.root.clone()),
        events: Recorder::new(client.clone(), "kubelet", Some(&config.node_name)),
        node: machine.facts(&config, runtime_name),
        client,
        runtime,
        images,
        pulls: image::Pulls::new(config.pull_limit),
        image_keeper,
        pods: pods.clone(),
        taken: pod::admission::Taken::default(),
        pressure: pressure.clone(),
        user_namespaces,
        sources,
        services,
        config,
    });

    let server = match &context.config.tls {
        Some(tls) => Some(Server::bind(context.clone(), pods.clone(), tls).await?),
        None => None,
    };
    let address = context.config.healthz;
    let health = daemon::health::serve(address, daemon::health::Health::default(), stop.clone());
    let serving = async {
        match server {
            Some(server) => server.run(stop.clone()).await,
            None => stop.cancelled().await,
        }
    };
    let keeper = NodeKeeper::new(context.clone(), machine);
    let everything = async {
        let health = async { health.await.map_err(|source| KubeletError::Health { address, source }) };
        let work = async {
            let rotation = logs::rotate::run(&*context.runtime, &context.config.log_dir, stop.clone());
            let evicting =
                eviction::run(context.clone(), pods.clone(), evictions, tell_pressure, stop.clone());
            let workers = Pods::run(context.clone(), pods, verdicts, stop.clone());
            let images = image::keeper::run(context.clone(), desk, stop.clone());
            tokio::join!(keeper.run(stop.clone()), workers, serving, rotation, images, evicting);
            Ok(())
        };
        tokio::try_join!(health, work).map(drop)
    };
    everything.await
}

async fn runtime_name(runtime: &dyn RuntimeService) -> Result<RuntimeName, cri::Error> {
    let version = runtime.version(VersionRequest::default()).await?;
    let status = runtime.status(StatusRequest::default()).await?;
    // The handler without a name is the one that pods get who name none.
    let handler = status.runtime_handlers.into_iter().find(|handler| handler.name.is_empty());
    let of_handler = handler.and_then(|handler| handler.features).unwrap_or_default();
    let features = RuntimeFeatures {
        recursive_read_only: of_handler.recursive_read_only_mounts,
        user_namespaces: of_handler.user_namespaces,
        supplemental_groups_policy: status
            .features
            .is_some_and(|features| features.supplemental_groups_policy),
    };
    Ok(RuntimeName { name: version.runtime_name, version: version.runtime_version, features })
}

/// Who runs the containers. One in another process may come up after us.
async fn first_answer(runtime: &dyn RuntimeService) -> RuntimeName {
    loop {
        match runtime_name(runtime).await {
            Ok(name) => return name,
            Err(error) => tracing::warn!(%error, "the container runtime does not answer yet"),
        }
        tokio::time::sleep(RUNTIME_RETRY).await;
    }
}

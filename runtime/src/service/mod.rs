//! The runtime as the kubelet sees it: pods and containers, and the calls on them.
//!
//! [`state`] is what is known and where it is kept; [`sandboxes`], [`containers`], [`sessions`],
//! [`statistics`], [`metrics`], [`info`] and [`images`] carry calls out; [`calls`] maps them to CRI's traits;
//! [`adoption`] finds again what an earlier server left running; [`shims`] finds and ends the processes of that.

mod adoption;
mod calls;
mod containers;
mod daemonless;
mod events;
mod executable;
mod images;
mod info;
mod metrics;
mod reset;
mod sandboxes;
mod sessions;
mod shims;
mod state;
mod statistics;
mod stopping;

pub use containers::read_in_layers;
pub use daemonless::{Daemonless, Ended, Engine};
pub use reset::{reset, reset_pods};

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cgroup::{Cgroup, Layout};
use crate::container::spec::LogLimit;
use crate::image::{ImageError, Puller, Store, airgap, registry};
use crate::streaming::{Backend, Server};
use executable::Executable;
use state::Pods;

/// Where the runtime works and with what.
#[derive(Clone)]
pub struct Config {
    /// Images and writable layers; needs a file system that overlayfs can write to.
    pub root: PathBuf,
    /// Pods and containers: what they are, their shims' sockets, their exit codes.
    pub state: PathBuf,
    /// The control group below which the runtime puts what has no other place, such as `/coracle`.
    pub cgroup_parent: String,
    /// How a shim is started.
    pub shim: ShimCommand,
    /// The pod network. Without one only pods of the node's network can run.
    pub network: Option<Arc<net::PodNetwork>>,
    /// Where clients of exec, attach and port-forward connect to; port 0 is any free one. Whoever has got a URL
    /// may use it, so that an address other than the loopback opens containers to whoever can listen on the way.
    pub streaming_address: SocketAddr,
    /// When logs go on in new files; without it that is the kubelet's affair, who looks once in a while.
    pub log_limit: Option<LogLimit>,
    /// How registries are met.
    pub registries: registry::Settings,
    /// A folder whose archives of images are imported at the start.
    pub archives: Option<PathBuf>,
}

impl Config {
    /// Where the streaming server listens unless told otherwise.
    pub const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
}

/// How a shim is started: a program and the arguments before the pod's directory.
#[derive(Clone, Debug)]
pub struct ShimCommand {
    /// The program; this one when absent.
    pub program: Option<PathBuf>,
    /// Such as `shim`.
    pub arguments: Vec<String>,
}

impl Default for ShimCommand {
    fn default() -> ShimCommand {
        ShimCommand { program: None, arguments: vec!["shim".to_owned()] }
    }
}

/// Why the runtime could not start.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The image store cannot be used.
    #[error("failed to open the image store")]
    Images(#[from] ImageError),
    /// The machine lacks something.
    #[error("failed to {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl RuntimeError {
    fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> RuntimeError {
        move |source| RuntimeError::System { what, source }
    }
}

/// The container runtime of this node.
pub struct Runtime {
    shared: Arc<Shared>,
    streaming: Server,
    /// With it end the tasks that watch shims; the shims go on.
    _stop: DropGuard,
}

/// What calls and tasks work on.
pub(crate) struct Shared {
    config: Config,
    layout: Layout,
    images: Store,
    puller: Puller,
    /// Protected when the first shim is started: a mount is no small thing where many processes make one.
    executable: OnceLock<Executable>,
    /// Set where processes come and go and none stays with the pods.
    daemonless: Option<Daemonless>,
    pods: Mutex<Pods>,
    /// Held while groups below a pod's are made, and while an empty pod's group is removed.
    groups: Mutex<()>,
    events: events::Events,
    stop: CancellationToken,
}

impl Runtime {
    /// Starts the runtime: pods that an earlier one left running are adopted, what it left half-done is cleaned up.
    pub async fn start(config: Config) -> Result<Arc<Runtime>, RuntimeError> {
        let stop = CancellationToken::new();
        let shared = Shared::open(config, None, stop.clone())?;
        // Now, not later: the file may be replaced while this server runs.
        shared.executable().map_err(RuntimeError::system("protect the shim's binary"))?;
        adoption::adopt(&shared).await?;
        shared.prepare_images().await?;
        let sessions = Arc::new(sessions::Sessions(shared.clone()));
        let address = shared.config.streaming_address;
        let streaming = Server::start(address, sessions, stop.clone()).await;
        let streaming = streaming.map_err(RuntimeError::system("start the streaming server"))?;
        Ok(Arc::new(Runtime { shared, streaming, _stop: stop.drop_guard() }))
    }

    /// What the streaming server connects its clients to.
    pub fn sessions(&self) -> Arc<dyn Backend> {
        Arc::new(sessions::Sessions(self.shared.clone()))
    }

    /// The images, for importing and listing beside the CRI.
    pub fn images(&self) -> &Store {
        &self.shared.images
    }
}

impl Shared {
    /// Opens what is on disk; no pod is known yet.
    fn open(
        config: Config,
        daemonless: Option<Daemonless>,
        stop: CancellationToken,
    ) -> Result<Arc<Shared>, RuntimeError> {
        let images = Store::open(&config.root)?;
        let images = match &daemonless {
            Some(daemonless) => images.with_snapshots_of(&daemonless.owner)?,
            None => images,
        };
        std::fs::create_dir_all(config.state.join("pods"))
            .map_err(RuntimeError::system("make the state directory"))?;
        let layout = Layout::detect().map_err(RuntimeError::system("find the control groups"))?;
        Ok(Arc::new(Shared {
            puller: Puller::new(images.clone(), config.registries.clone()),
            config,
            layout,
            images,
            executable: OnceLock::new(),
            daemonless,
            pods: Mutex::default(),
            groups: Mutex::default(),
            events: events::Events::default(),
            stop,
        }))
    }

    /// Imports what lies in the folder of archives, and takes away what imports that died have left.
    async fn prepare_images(&self) -> Result<(), RuntimeError> {
        let (store, archives) = (self.images.clone(), self.config.archives.clone());
        let prepare = move || -> Result<(), ImageError> {
            store.collect_garbage()?;
            let Some(folder) = archives else { return Ok(()) };
            for airgap::Outcome { archive, imported } in airgap::import(&store, &folder)? {
                let archive = archive.display();
                match imported {
                    Ok(names) => tracing::info!(%archive, ?names, "imported images"),
                    Err(error) => {
                        tracing::error!(%archive, error = error.chain(), "an archive of images cannot be imported")
                    }
                }
            }
            Ok(())
        };
        let prepared = tokio::task::spawn_blocking(prepare).await;
        prepared
            .map_err(|error| RuntimeError::system("prepare the images")(error.into()))?
            .map_err(RuntimeError::from)
    }

    /// The shim's binary, out of reach of containers.
    fn executable(&self) -> std::io::Result<&Executable> {
        match self.executable.get() {
            Some(executable) => Ok(executable),
            None => {
                let executable = Executable::protect(&self.config.shim)?;
                Ok(self.executable.get_or_init(|| executable))
            }
        }
    }

    /// Pods and containers; never held across an await.
    fn pods(&self) -> MutexGuard<'_, Pods> {
        // A panic elsewhere leaves the tables as true as they were.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn groups(&self) -> MutexGuard<'_, ()> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pods_directory(&self) -> PathBuf {
        pods_directory(&self.config.state)
    }

    /// The group of a pod: the kubelet's, or one of our own.
    fn pod_cgroup(&self, sandbox_id: &str, config: &cri::v1::PodSandboxConfig) -> Cgroup {
        match config.linux.as_ref().map(|linux| linux.cgroup_parent.as_str()) {
            Some(parent) if !parent.is_empty() => Cgroup::new(&self.layout, parent),
            _ => Cgroup::new(&self.layout, &self.config.cgroup_parent).child(sandbox_id),
        }
    }

    /// The group of all shims: they must not die with a pod's memory limit, nor with the server's service.
    fn shims_cgroup(&self) -> Cgroup {
        Cgroup::new(&self.layout, &self.config.cgroup_parent).child("shims")
    }

    fn live_sandboxes(&self) -> HashSet<String> {
        self.pods()
            .sandboxes
            .values()
            .filter(|sandbox| sandbox.is_ready())
            .map(|sandbox| sandbox.id.clone())
            .collect()
    }
}

fn pods_directory(state: &Path) -> PathBuf {
    state.join("pods")
}

/// A new identity, as long and as random as every runtime's.
fn new_id() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

/// Time as CRI tells it.
fn nanoseconds(time: jiff::Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

//! Pods without a server: each process opens the state, does one thing, and goes.
//!
//! What stays with a pod is its shim alone. When its container has ended and nobody listens, the shim becomes
//! the caller's exit command, which gives back what the pod held. An [`Engine`] knows only the pods that it
//! was asked to adopt, touches no other, and leaves writable layers to its caller, for they outlive pods here.
//! That two processes never work on the same pod is the caller's affair.

use std::sync::Arc;

use cri::{Error, v1};
use jiff::Timestamp;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::state::ContainerState;
use super::{Config, RuntimeError, Shared, adoption};
use crate::image::{Image, Store};
use crate::shim::protocol::{Exit, PodDirectory};

/// What a runtime needs to know when no process of it stays.
#[derive(Clone, Debug)]
pub struct Daemonless {
    /// Whose writable layers these are, beside the node's own.
    pub owner: String,
    /// What a shim becomes after its container's end, when nobody listens; the sandbox's id is added.
    pub exit_command: Vec<String>,
}

impl Daemonless {
    pub(super) fn exit_command(&self, sandbox: &str) -> Vec<String> {
        self.exit_command.iter().cloned().chain([sandbox.to_owned()]).collect()
    }
}

/// A runtime that knows the pods it was asked for.
pub struct Engine {
    shared: Arc<Shared>,
    /// With it end the tasks that watch shims; the shims go on.
    _stop: DropGuard,
}

/// How a container went.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// When its program began, if it came to that.
    pub started_at: Option<Timestamp>,
    /// Its end.
    pub exit: Exit,
}

impl Engine {
    /// Opens images and state. No pod is looked at.
    pub fn open(config: Config, daemonless: Daemonless) -> Result<Engine, RuntimeError> {
        let stop = CancellationToken::new();
        let shared = Shared::open(config, Some(daemonless), stop.clone())?;
        Ok(Engine { shared, _stop: stop.drop_guard() })
    }

    /// The images, with this owner's writable layers.
    pub fn images(&self) -> &Store {
        &self.shared.images
    }

    /// The directory of a pod.
    pub fn directory(&self, id: &str) -> PodDirectory {
        PodDirectory(self.shared.pods_directory().join(id))
    }

    /// Makes a pod's namespaces, gives it an address, and leaves a shim with it. For as long as somebody is
    /// subscribed there the shim stays after its container's end.
    pub async fn run_sandbox(&self, id: &str, config: v1::PodSandboxConfig) -> Result<(), Error> {
        self.shared.run_sandbox_as(id.to_owned(), config, String::new()).await.map(drop)
    }

    /// The address of a pod that this engine has made or adopted.
    pub fn address(&self, id: &str) -> Option<net::PodAddress> {
        self.shared.find_sandbox(id).ok()?.record().address
    }

    /// Makes a container on the writable layer of its name. To start it is to ask the shim.
    pub fn create_container(
        &self,
        id: &str,
        config: v1::ContainerConfig,
        image: &Image,
    ) -> Result<(), Error> {
        let sandbox = self.shared.find_sandbox(id)?;
        self.shared.create_container_as(id.to_owned(), &sandbox, config, image).map(drop)
    }

    /// Takes over a pod that another process has made; what was left half-done is removed.
    pub async fn adopt(&self, id: &str) -> Result<(), Error> {
        if self.shared.find_sandbox(id).is_ok() {
            return Ok(());
        }
        let adopted = adoption::adopt_sandbox(&self.shared, id, self.directory(id)).await;
        adopted.map_err(|error| Error::unknown(format!("failed to adopt container {id}: {error}")))
    }

    /// Ends what is left of a pod, gives back what it held, and tells how its container went; `None` when it had
    /// none that began.
    pub async fn release(&self, id: &str) -> Result<Option<Ended>, Error> {
        self.adopt(id).await?;
        let Ok(sandbox) = self.shared.find_sandbox(id) else { return Ok(None) };
        self.shared.stop_sandbox(&sandbox.id).await?;
        let container = self.shared.find_container(id).ok();
        let ended = container.and_then(|container| match container.state() {
            ContainerState::Exited { started_at, exit } => Some(Ended { started_at, exit }),
            ContainerState::Created | ContainerState::Running(_) => None,
        });
        self.shared.remove_sandbox(&sandbox.id).await?;
        Ok(ended)
    }
}

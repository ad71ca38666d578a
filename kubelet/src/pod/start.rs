//! Makes a sandbox, and makes and starts a container in it: the long steps, each one a task beside the worker.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::events::EventType;
use cri::v1::{
    CreateContainerRequest, MountPropagation, PodSandboxConfig, RunPodSandboxRequest, StartContainerRequest,
    StopContainerRequest, UserNamespace,
};
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio_util::sync::CancellationToken;

use super::hook;
use super::view::PodView;
use crate::cgroup;
use crate::container::config::{HostMount, Ingredients, Origin, container_config, volume_mounts};
use crate::container::env::{ConfigError, Place, environment, references};
use crate::container::qos::container_resources;
use crate::context::Context;
use crate::events::container_reference;
use crate::image;
use crate::sandbox::dns::{ClusterDns, pod_dns};
use crate::sandbox::hosts::hosts_file;
use crate::sandbox::{Surroundings, sandbox_config};
use crate::userns;
use crate::volume::PodVolumes;

/// The longest that a postStart hook may keep the containers behind it waiting.
const POST_START_LIMIT: Duration = Duration::from_secs(600);

/// Why a container did not start.
#[derive(Clone, Debug, PartialEq)]
pub enum StartError {
    /// The pod is to end.
    Cancelled,
    /// Something failed; the reason is upstream's.
    Failed {
        /// `ErrImagePull`, `CreateContainerConfigError`, ...
        reason: &'static str,
        /// The words for people.
        message: String,
    },
}

impl StartError {
    fn failed(reason: &'static str, message: impl ToString) -> StartError {
        StartError::Failed { reason, message: message.to_string() }
    }
}

/// The image and its name for each volume that is one.
type ImageVolumes = BTreeMap<String, (String, String)>;

/// One container to start.
pub struct Start {
    /// What all pods share.
    pub context: Arc<Context>,
    /// The pod.
    pub pod: Arc<Pod>,
    /// The container's name in it.
    pub name: String,
    /// How many containers of this name came before it.
    pub attempt: u32,
    /// The container whose processes it is to see, of those that run; `Err` names one that does not.
    pub target: Result<Option<String>, String>,
    /// The sandbox to start it in.
    pub sandbox_id: String,
    /// Which sandbox of the pod that is.
    pub sandbox_attempt: u32,
    /// The pod's addresses.
    pub pod_ips: Vec<String>,
    /// The pod's volumes.
    pub volumes: PodVolumes,
    /// Told when the pod is to end.
    pub cancel: CancellationToken,
}

/// What the runtime is asked for to make the pod's sandbox.
pub fn sandbox_request(context: &Context, pod: &Pod, attempt: u32) -> Result<PodSandboxConfig, String> {
    let config = &context.config;
    let cluster =
        ClusterDns { servers: &config.cluster_dns, domain: &config.cluster_domain, host: &context.node.dns };
    let around = Surroundings {
        cgroup_parent: &config.cgroup_parent,
        log_dir: &config.log_dir,
        root: &config.root,
        cluster_domain: &config.cluster_domain,
        dns: pod_dns(pod, &cluster),
        users: users(context, pod)?,
    };
    Ok(sandbox_config(pod, attempt, around))
}

/// The pod's own users where it asks for some, else the node's.
fn users(context: &Context, pod: &Pod) -> Result<UserNamespace, String> {
    if pod.spec().host_users != Some(false) {
        return Ok(userns::of_the_node());
    }
    if !context.node.runtime.features.user_namespaces {
        return Err("the runtime does not support user namespaces, which hostUsers: false asks for".into());
    }
    let directory = context.volumes.pod_directory(pod.uid());
    let allocated = context.user_namespaces.of(pod.uid(), &directory);
    allocated.map_err(|error| format!("cannot allocate user ids for the pod: {error}"))
}

/// Makes the pod's sandbox.
pub async fn create_sandbox(context: &Context, pod: &Pod, attempt: u32) -> Result<(), String> {
    let config = sandbox_request(context, pod, attempt)?;
    tokio::fs::create_dir_all(&config.log_directory).await.map_err(|error| error.to_string())?;
    if let Some(linux) = config.linux.as_ref().filter(|_| !context.node.runtime.keeps_pod_groups()) {
        let resources = linux.resources.clone().unwrap_or_default();
        cgroup::prepare(&linux.cgroup_parent, &resources)
            .map_err(|error| format!("failed to ensure that the pod's cgroup exists: {error}"))?;
    }
    let request = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
    context.runtime.run_pod_sandbox(request).await.map(drop).map_err(|error| error.message)
}

/// Where a pod runs, for its environment and its downward API volumes.
pub fn place(context: &Context, pod_ips: Vec<String>) -> Place {
    Place {
        node_name: context.config.node_name.clone(),
        host_ip: context.config.node_ip.to_string(),
        pod_ips,
        allocatable: context.node.allocatable.clone(),
    }
}

impl Start {
    /// Pulls, makes and starts the container and runs its postStart hook.
    pub async fn run(self) -> Result<(), StartError> {
        let pod = self.pod.clone();
        let Some(container) = pod.container(&self.name) else {
            return Err(StartError::failed(
                "CreateContainerConfigError",
                "the container is not in the pod's spec",
            ));
        };
        let sandbox = sandbox_request(&self.context, &pod, self.sandbox_attempt);
        let sandbox = sandbox.map_err(|error| self.fail("CreateContainerConfigError", error))?;
        let image = tokio::select! {
            image = image::ensure(&self.context, &pod, &container, &sandbox) => image,
            () = self.cancel.cancelled() => return Err(StartError::Cancelled),
        };
        let image = image.map_err(|failure| self.fail(failure.reason, failure.message))?;
        let volumes = tokio::select! {
            volumes = self.image_volumes(&container, &sandbox) => volumes,
            () = self.cancel.cancelled() => return Err(StartError::Cancelled),
        };
        let volumes = volumes.map_err(|failure| self.fail(failure.reason, failure.message))?;
        let config = self.configure(&container, &image, &volumes).await;
        let config = config.map_err(|error| self.fail("CreateContainerConfigError", error))?;
        if self.cancel.is_cancelled() {
            return Err(StartError::Cancelled);
        }

        let request = CreateContainerRequest {
            pod_sandbox_id: self.sandbox_id.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox),
        };
        let created = self.context.runtime.create_container(request).await;
        let id = created.map_err(|error| self.fail("CreateContainerError", error))?.container_id;
        self.tell(EventType::Normal, "Created", format!("Created container: {}", self.name));
        let request = StartContainerRequest { container_id: id.clone() };
        let started = self.context.runtime.start_container(request).await;
        started.map_err(|error| self.fail("RunContainerError", error))?;
        self.tell(EventType::Normal, "Started", format!("Started container {}", self.name));
        self.post_start(&container, &id).await
    }

    async fn configure(
        &self,
        container: &Container,
        image: &image::LocalImage,
        image_volumes: &ImageVolumes,
    ) -> Result<cri::v1::ContainerConfig, ConfigError> {
        let fetched = self.context.sources.read(self.pod.namespace(), &references(container)).await;
        let fetched = fetched.map_err(|error| ConfigError::Mount(error.to_string()))?;
        self.context.services.wait_synced().await;
        let services = self.context.services.list();
        let target = self.target.clone().map_err(ConfigError::Target)?;
        let place = place(&self.context, self.pod_ips.clone());
        let environment = environment(&self.pod, container, &fetched, &services, &place)?;
        let mounts = self.mounts(container, &environment, image_volumes)?;
        let users = users(&self.context, &self.pod).map_err(ConfigError::Mount)?;
        let ingredients = Ingredients {
            image_ref: &image.id,
            image_user: &image.user,
            resources: container_resources(self.pod.spec(), container, self.context.node.memory),
            attempt: self.attempt,
            environment,
            mounts,
            target,
            users,
        };
        container_config(&self.pod, container, ingredients)
    }

    /// Pulls what the container mounts of images, under each volume's own policy.
    async fn image_volumes(
        &self,
        container: &Container,
        sandbox: &PodSandboxConfig,
    ) -> Result<ImageVolumes, image::ImageFailure> {
        let mounted = container.volume_mounts.iter().flatten().map(|mount| mount.name.as_str());
        let mounted: BTreeSet<&str> = mounted.collect();
        let mut found = ImageVolumes::new();
        for volume in self.pod.spec().volumes.iter().flatten() {
            let Some(source) = volume.image.as_ref().filter(|_| mounted.contains(volume.name.as_str()))
            else {
                continue;
            };
            let wanted = Container {
                name: container.name.clone(),
                image: source.reference.clone(),
                image_pull_policy: source.pull_policy.clone(),
                ..Container::default()
            };
            let image = image::ensure(&self.context, &self.pod, &wanted, sandbox).await?;
            let asked = source.reference.clone().unwrap_or_default();
            found.insert(volume.name.clone(), (image.id, asked));
        }
        Ok(found)
    }

    /// The container's volumes, the pod's hosts file and the file for its last words.
    fn mounts(
        &self,
        container: &Container,
        environment: &[(String, String)],
        images: &ImageVolumes,
    ) -> Result<Vec<HostMount>, ConfigError> {
        let uid = self.pod.uid();
        let volumes = &self.context.volumes;
        let can_recurse = self.context.node.runtime.features.recursive_read_only;
        let mut mounts = volume_mounts(container, environment, can_recurse, |index, name, sub_path| {
            if let Some((id, asked)) = images.get(name) {
                let (id, asked, sub_path) = (id.clone(), asked.clone(), sub_path.to_string());
                return Ok(Origin::Image { id, asked, sub_path });
            }
            let path = self.volumes.path(name).ok_or_else(|| {
                ConfigError::Mount(format!(
                    "cannot find volume \"{name}\" to mount into container \"{}\"",
                    self.name
                ))
            })?;
            if sub_path.is_empty() {
                return Ok(Origin::Path(path.to_path_buf()));
            }
            let mounted = volumes.sub_path(uid, (name, path), &self.name, index, sub_path);
            mounted.map(Origin::Path).map_err(|error| {
                ConfigError::Mount(format!(
                    "failed to prepare subPath for volumeMount \"{name}\" of container \"{}\": {error}",
                    self.name
                ))
            })
        })?;
        let files = self.files(container).map_err(|error| ConfigError::Mount(error.to_string()))?;
        let taken: Vec<String> = mounts.iter().map(|mount| mount.container.clone()).collect();
        mounts.extend(files.into_iter().filter(|file| !taken.contains(&file.container)));
        Ok(mounts)
    }

    fn files(&self, container: &Container) -> std::io::Result<Vec<HostMount>> {
        let directory = self.context.volumes.pod_directory(self.pod.uid());
        let own = directory.join("containers").join(&self.name);
        std::fs::create_dir_all(&own)?;

        let hosts = directory.join("etc-hosts");
        let host_file = match self.pod.is_host_network() {
            true => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
            false => String::new(),
        };
        let domain = &self.context.config.cluster_domain;
        let text = hosts_file(&self.pod, &self.pod_ips, &host_file, domain);
        if std::fs::read_to_string(&hosts).ok().as_ref() != Some(&text) {
            std::fs::write(&hosts, text)?;
        }

        let last_words = own.join(format!("{}.message", self.attempt));
        write_world_writable(&last_words)?;
        let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        Ok(vec![file_mount(hosts, "/etc/hosts"), file_mount(last_words, path)])
    }

    async fn post_start(&self, container: &Container, id: &str) -> Result<(), StartError> {
        let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref())
        else {
            return Ok(());
        };
        let runtime = &*self.context.runtime;
        let running = hook::run(
            runtime,
            hook,
            container,
            id,
            first_ip(&self.context, &self.pod, &self.pod_ips),
            POST_START_LIMIT,
        );
        let result = tokio::select! {
            result = running => result,
            // The container runs and will be stopped like any other.
            () = self.cancel.cancelled() => return Ok(()),
        };
        let Err(error) = result else { return Ok(()) };
        self.tell(EventType::Warning, "FailedPostStartHook", format!("PostStartHook failed: {error}"));
        self.tell(EventType::Normal, "Killing", "FailedPostStartHook".to_string());
        let timeout = i64::try_from(self.pod.grace_period().as_secs()).unwrap_or(i64::MAX);
        let request = StopContainerRequest { container_id: id.to_string(), timeout };
        if let Err(error) = runtime.stop_container(request).await {
            tracing::warn!(container = id, %error, "cannot stop a container whose postStart hook failed");
        }
        Err(StartError::failed("PostStartHookError", format!("PostStartHook failed: {error}")))
    }

    fn fail(&self, reason: &'static str, message: impl ToString) -> StartError {
        let message = message.to_string();
        let event = match reason {
            "ErrImageNeverPull" | "InvalidImageName" => reason.to_string(),
            _ if image::is_pull_failure(reason) => reason.to_string(),
            _ => message.clone(),
        };
        self.tell(EventType::Warning, "Failed", format!("Error: {event}"));
        StartError::failed(reason, message)
    }

    fn tell(&self, kind: EventType, reason: &str, message: String) {
        self.context.events.event(container_reference(&self.pod, &self.name), kind, reason, message);
    }
}

/// Where a pod's containers are asked over the network.
pub fn first_ip(context: &Context, pod: &Pod, pod_ips: &[String]) -> Option<IpAddr> {
    match pod.is_host_network() {
        true => Some(context.config.node_ip),
        false => pod_ips.first()?.parse().ok(),
    }
}

fn file_mount(host: PathBuf, container: &str) -> HostMount {
    HostMount {
        origin: Origin::Path(host),
        container: container.to_string(),
        read_only: false,
        propagation: MountPropagation::PropagationPrivate,
        recursive_read_only: false,
    }
}

/// Whatever user the container runs as must be able to write its last words.
fn write_world_writable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, "")?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
}

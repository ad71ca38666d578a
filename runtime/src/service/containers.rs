//! Containers: making, starting, stopping, removing, telling.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cri::v1::{self, ContainerEventType};
use cri::{Code, Error};
use jiff::Timestamp;

use super::sandboxes::{failed, find, has_labels, membership, sandbox_status, source_of, tell_times};
use super::state::{Container, ContainerRecord, ContainerState, Happened, RECORD, Sandbox};
use super::{Shared, nanoseconds, new_id};
use crate::cgroup::Cgroup;
use crate::container::label::{self, Modules};
use crate::container::plan::{self, Inputs, Planned, Seccomp, cri_user, log_path, plan};
use crate::container::spec::Label;
use crate::container::{cdi, devices, seccomp};
use crate::image::{Image, OrNotFound};
use crate::shim::protocol::{Exit, Reply, Request, write_json};
use crate::sys::failpoint;
use crate::trace::{self, Actor, Recorder};

/// What every process of a container may open.
const OPEN_FILES: u64 = 1 << 20;

/// How long the kernel may take to end a killed process before we say that it cannot.
pub(super) const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How long a process may take from being asked for to its program: as long as a kubelet waits for its runtime.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(120);

impl Shared {
    /// Makes a container: its writable layer, its control group, and the list of what is to be set up.
    pub(super) async fn create_container(
        self: &Arc<Self>,
        sandbox_id: &str,
        config: v1::ContainerConfig,
    ) -> Result<String, Error> {
        let sandbox = self.find_sandbox(sandbox_id)?;
        if !sandbox.is_ready() {
            return Err(Error::failed_precondition(format!(
                "sandbox container {:?} is not running",
                sandbox.id
            )));
        }
        if config.metadata.is_none() {
            return Err(Error::invalid_argument("container config must include metadata"));
        }
        let name = config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
        let image = self.images.find(&name).map_err(|error| Error::unknown(error.to_string()))?;
        let image =
            image.ok_or_else(|| Error::not_found(format!("failed to resolve image {name:?}: not found")))?;
        self.create_container_as(new_id(), &sandbox, config, &image)
    }

    /// As [`Shared::create_container`], with an identity that the caller has chosen.
    pub(super) fn create_container_as(
        self: &Arc<Self>,
        id: String,
        sandbox: &Arc<Sandbox>,
        config: v1::ContainerConfig,
        image: &Image,
    ) -> Result<String, Error> {
        match self.assemble(&id, sandbox, config, image) {
            Ok(container) => {
                failpoint::reach("create.recorded");
                let container = Arc::new(container);
                self.pods().containers.insert(id.clone(), container.clone());
                self.tell(ContainerEventType::ContainerCreatedEvent, &container);
                Ok(id)
            }
            Err(error) => {
                self.disassemble(&id, sandbox);
                Err(error)
            }
        }
    }

    fn assemble(
        &self,
        id: &str,
        sandbox: &Arc<Sandbox>,
        config: v1::ContainerConfig,
        image: &Image,
    ) -> Result<Container, Error> {
        let traced = trace::is_wanted(&config.annotations) || trace::is_wanted(&sandbox.config.annotations);
        let mut recorder = Recorder::start(traced, Actor::Server);
        let layers = self.images.layer_paths(image);
        let group = self.pod_cgroup(&sandbox.id, &sandbox.config).child(id);
        let group_path = group_path(&self.pod_group_path(sandbox), id);
        let snapshot =
            self.images.create_snapshot(id, image).map_err(|error| Error::unknown(error.to_string()))?;
        failpoint::reach("create.snapshot");
        recorder.mark("MakeSnapshot");
        let privileged = security(&config).is_some_and(|security| security.privileged);
        let planned = plan(Inputs {
            sandbox: &sandbox.config,
            container: &config,
            image: &image.config,
            passwd: &read_in_layers(&layers, "etc/passwd").map_err(failed("read the image's /etc/passwd"))?,
            group: &read_in_layers(&layers, "etc/group").map_err(failed("read the image's /etc/group"))?,
            layers,
            snapshot,
            cgroup: membership(&group),
            devices: devices::of_container(&config, privileged)
                .map_err(failed("find the container's devices"))?,
            cdi: cdi::edits(&cdi::names(&config), &cdi::DIRECTORIES.map(Path::new))
                .map_err(Error::unknown)?,
            image_layers: self.volume_layers(id, &config)?,
            pod_files: vec![
                (sandbox.directory.resolv_conf(), "/etc/resolv.conf"),
                (sandbox.directory.hostname(), "/etc/hostname"),
            ],
            modules: Modules::detect(),
            open_files: Some(OPEN_FILES),
        })
        .map_err(|error| {
            Error::invalid_argument(format!("failed to generate container {id:?} spec: {error}"))
        })?;
        let Planned { mut spec, resources, devices, seccomp, stop_signal } = planned;
        spec.log_limit = self.config.log_limit;
        spec.root.is_kept = self.daemonless.is_some();
        if let Some(Label::AppArmor(profile)) = &spec.process.label {
            match label::ensure_loaded(profile) {
                // Nobody asked for ours: a container without it is better than none.
                Err(error) if security(&config).is_none_or(|security| security.apparmor.is_none()) => {
                    tracing::warn!(container = id, profile, %error, "failed to load an apparmor profile");
                    spec.process.label = None;
                }
                loaded => loaded.map_err(failed("load the container's apparmor profile"))?,
            }
        }
        spec.process.seccomp = self.filter(&seccomp, spec.process.capabilities.bounding)?;

        recorder.mark("PlanContainer");

        // Nobody may take the pod's group for an empty one in between.
        let held = self.groups();
        let limited = group
            .create()
            .and_then(|()| group.apply(&resources))
            .and_then(|()| group.allow_devices(&devices));
        limited.map_err(|error| {
            Error::unknown(format!(
                "failed to set up the container's control group: {error}: {}",
                source_of(&error)
            ))
        })?;
        drop(held);
        failpoint::reach("create.group");
        recorder.mark("MakeCgroups");
        let record = ContainerRecord {
            created_at: Timestamp::now(),
            image: image.id.clone(),
            image_reference: image.digests.first().unwrap_or(&image.id).clone(),
            stop_signal,
            user: spec.process.user.clone(),
            log: log_path(&sandbox.config, &config),
            cgroup: group_path,
        };
        let container =
            Container::new(id.to_owned(), sandbox.clone(), config, record, ContainerState::Created);
        let write = || {
            fs::create_dir_all(&container.directory.0)?;
            failpoint::reach("create.directory");
            write_json(&container.directory.spec(), &spec)?;
            failpoint::reach("create.spec");
            container.save()
        };
        write().map_err(failed("record the container"))?;
        recorder.mark("RecordContainer");
        tell_times(&container.directory.trace(), &mut recorder);
        Ok(container)
    }

    /// The layers of the images that a container has as volumes; they stay as long as its own.
    fn volume_layers(
        &self,
        id: &str,
        config: &v1::ContainerConfig,
    ) -> Result<HashMap<String, Vec<PathBuf>>, Error> {
        let mut layers = HashMap::new();
        for image in config.mounts.iter().filter_map(|mount| mount.image.as_ref()) {
            let unreadable = |error: crate::image::ImageError| Error::unknown(error.to_string());
            if let Some(found) = self.images.find(&image.image).map_err(unreadable)? {
                self.images.keep_layers(id, &found).map_err(unreadable)?;
                layers.insert(image.image.clone(), self.images.layer_paths(&found));
            }
        }
        Ok(layers)
    }

    fn disassemble(self: &Arc<Self>, id: &str, sandbox: &Sandbox) {
        let directory = sandbox.directory.container(id).0;
        if let Err(error) = fs::remove_dir_all(&directory).or_not_found() {
            tracing::warn!(container = id, %error, "failed to remove a container that could not be made");
        }
        if self.daemonless.is_none()
            && let Err(error) = self.images.remove_snapshot(id)
        {
            tracing::warn!(container = id, %error, "failed to remove a container that could not be made");
        }
        self.clone().spawn_cgroup_removal(group_path(&self.pod_group_path(sandbox), id));
    }

    /// The path of a pod's group: the kubelet's, or one of our own.
    pub(super) fn pod_group_path(&self, sandbox: &Sandbox) -> String {
        match sandbox.config.linux.as_ref().map(|linux| linux.cgroup_parent.as_str()) {
            Some(parent) if !parent.is_empty() => parent.to_owned(),
            _ => group_path(&self.config.cgroup_parent, &sandbox.id),
        }
    }

    /// The compiled filter as a file: equal filters are one file, written once.
    fn filter(&self, wanted: &Seccomp, capabilities: u64) -> Result<Option<PathBuf>, Error> {
        let filter = match wanted {
            Seccomp::Unconfined => return Ok(None),
            Seccomp::RuntimeDefault => seccomp::default_profile(capabilities),
            Seccomp::Localhost(path) => {
                let what = format!("failed to load seccomp profile {:?}", path.display().to_string());
                let profile = fs::read(path).map_err(|error| Error::unknown(format!("{what}: {error}")))?;
                seccomp::parse_profile(&profile, capabilities)
                    .map_err(|error| Error::invalid_argument(format!("{what}: {error}")))?
            }
        };
        let program = seccomp::compile(&filter).map_err(Error::invalid_argument)?;
        let name = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&program));
        let path = self.config.state.join("seccomp").join(name);
        let write = || {
            if path.exists() {
                return Ok(());
            }
            fs::create_dir_all(self.config.state.join("seccomp"))?;
            // Another start may write the same at this moment: each has a file of its own until it is whole.
            let own = path.with_extension(super::new_id());
            fs::write(&own, &program)?;
            fs::rename(own, &path)
        };
        write().map_err(failed("write the seccomp filter"))?;
        Ok(Some(path))
    }

    /// Starts the first process of a container.
    pub(super) async fn start_container(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let container = self.find_container(id)?;
        let _turn = container.turn.lock().await;
        if container.state() != ContainerState::Created {
            let state = cri_state(&container.state()).as_str_name();
            return Err(Error::failed_precondition(format!(
                "container {:?} is in {state} state",
                container.id
            )));
        }
        let (attach, size) = Default::default();
        let request = Request::Start { container: container.id.clone(), attach, size };
        failpoint::reach("start.asking");
        let annotations = [&container.config.annotations, &container.sandbox.config.annotations];
        let mut recorder = Recorder::start(annotations.into_iter().any(trace::is_wanted), Actor::Server);
        let answer = self.ask(&container.sandbox, request).await?;
        match answer {
            Reply::Started(started) => {
                failpoint::reach("start.answered");
                recorder.mark("StartContainer");
                tell_times(&container.directory.trace(), &mut recorder);
                for warning in &started.warnings {
                    tracing::warn!(
                        container = container.id,
                        warning,
                        "started a container with less than it asked for"
                    );
                }
                container.happened(Happened::Started(started));
                self.tell(ContainerEventType::ContainerStartedEvent, &container);
                Ok(())
            }
            Reply::Failed { message } => {
                // The shim has recorded it, unless it did not come as far as a process.
                container.catch_up().map_err(failed("read what the shim wrote"))?;
                if container.is_running() {
                    // An earlier server's start, which that one did not live to see.
                    return Ok(());
                }
                let exit = Exit::of_failed_start(&message, Timestamp::now());
                if container.happened(Happened::Exited(exit.clone())) {
                    write_json(&container.directory.exit(), &exit)
                        .map_err(failed("record the failed start"))?;
                }
                self.clone().spawn_cgroup_removal(container.record.cgroup.clone());
                Err(Error::unknown(message))
            }
            other => Err(Error::unknown(format!("the pod's shim answered {other:?}"))),
        }
    }

    /// Asks the shim of a pod for something that is answered once, without descriptors.
    pub(super) async fn ask(&self, sandbox: &Sandbox, request: Request) -> Result<Reply, Error> {
        let told = |error: io::Error| match error.kind() {
            io::ErrorKind::TimedOut => Error::new(Code::DeadlineExceeded, error.to_string()),
            _ => failed("talk to the pod's shim")(error),
        };
        let (_, reply, _) = sandbox.ask(&request, Vec::new()).await.map_err(told)?;
        Ok(reply)
    }

    pub(super) async fn signal(&self, container: &Container, signal: i32) -> Result<(), Error> {
        let request = Request::Signal { container: container.id.clone(), signal };
        match self.ask(&container.sandbox, request).await? {
            Reply::Failed { message } => {
                // The shim writes an end down before it says so here; its news to us may be on their way yet.
                container.catch_up().map_err(failed("read what the shim wrote"))?;
                // It has ended by itself meanwhile, which is what was wanted.
                if container.is_running() { Err(Error::unknown(message)) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    /// Asks the container to end; when `grace` is over, ends it.
    pub(super) async fn stop_container(self: &Arc<Self>, id: &str, grace: Duration) -> Result<(), Error> {
        let Ok(container) = self.find_container(id) else { return Ok(()) };
        if !container.is_running() {
            return Ok(());
        }
        if !grace.is_zero() {
            let asking = async {
                match self.ask_to_stop(&container).await {
                    Err(error) if container.is_running() => error,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                has_ended = ended(&container, grace) => if has_ended { return Ok(()) },
                error = asking => {
                    tracing::warn!(container = container.id, %error, "failed to ask a container to stop");
                }
            }
        }
        self.kill(&container).await
    }

    async fn kill(&self, container: &Container) -> Result<(), Error> {
        let group = Cgroup::new(&self.layout, &container.record.cgroup);
        group.kill().map_err(failed("kill the container"))?;
        failpoint::reach("stop.killed");
        // The group may have failed to reach it; the shim can, unless it hangs.
        let (signalled, has_ended) =
            tokio::join!(self.signal(container, libc::SIGKILL), ended(container, KILL_PATIENCE));
        // Whatever went wrong with that, a container that has ended is stopped: its shim may have gone too.
        if has_ended {
            return Ok(());
        }
        signalled?;
        let message = format!("an error occurs during waiting for container {:?} to be killed", container.id);
        Err(Error::new(Code::DeadlineExceeded, message))
    }

    /// Removes a container; one that runs is killed first.
    pub(super) async fn remove_container(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let Ok(container) = self.find_container(id) else { return Ok(()) };
        let _turn = container.turn.lock().await;
        if container.is_running() {
            self.kill(&container).await?;
        }
        let (images, directory, name) =
            (self.images.clone(), container.directory.0.clone(), container.id.clone());
        let is_ours = self.daemonless.is_none();
        let removed = tokio::task::spawn_blocking(move || {
            if is_ours {
                images
                    .remove_snapshot(&name)
                    .map_err(|error| Error::unknown(format!("{error}: {}", source_of(&error))))?;
            }
            failpoint::reach("remove.snapshot");
            // The record goes first: what is left of a container without one is removed at the next start.
            fs::remove_file(directory.join(RECORD))
                .or_not_found()
                .map_err(failed("remove the container's record"))?;
            failpoint::reach("remove.directory");
            fs::remove_dir_all(&directory).or_not_found().map_err(failed("remove the container's directory"))
        });
        removed.await.map_err(|error| Error::unknown(error.to_string()))??;
        failpoint::reach("remove.forgotten");
        if self.pods().containers.remove(&container.id).is_some() {
            self.tell(ContainerEventType::ContainerDeletedEvent, &container);
        }
        self.clone().spawn_cgroup_removal(container.record.cgroup.clone());
        Ok(())
    }

    /// Changes the limits of a container.
    pub(super) fn update_container(
        &self,
        id: &str,
        change: Option<v1::LinuxContainerResources>,
    ) -> Result<(), Error> {
        let container = self.find_container(id)?;
        let Some(change) = change else { return Ok(()) };
        if let ContainerState::Exited { .. } = container.state() {
            let message = format!("container {:?} is in CONTAINER_EXITED state", container.id);
            return Err(Error::failed_precondition(message));
        }
        let group = Cgroup::new(&self.layout, &container.record.cgroup);
        group.apply(&plan::resources(&change)).map_err(|error| {
            Error::unknown(format!("failed to update resources: {error}: {}", source_of(&error)))
        })?;
        container.change_resources(change).map_err(failed("record the container's resources"))
    }

    /// Goes on logging in a new file.
    pub(super) async fn reopen_log(&self, id: &str) -> Result<(), Error> {
        let container = self.find_container(id)?;
        if !container.is_running() {
            return Err(Error::failed_precondition(format!("container {:?} is not running", container.id)));
        }
        match self.ask(&container.sandbox, Request::ReopenLog { container: container.id.clone() }).await? {
            Reply::Failed { message } => Err(Error::unknown(message)),
            _ => Ok(()),
        }
    }

    /// The container with this id, or whose id begins like this.
    pub(super) fn find_container(&self, id: &str) -> Result<Arc<Container>, Error> {
        let found = find(&self.pods().containers, id);
        found.ok_or_else(|| {
            Error::not_found(format!("an error occurred when try to find container {id:?}: not found"))
        })
    }

    pub(super) fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Vec<v1::Container> {
        let filter = filter.unwrap_or_default();
        let pods = self.pods();
        let matching = pods.containers.values().filter(|container| {
            (filter.id.is_empty() || container.id.starts_with(&filter.id))
                && (filter.pod_sandbox_id.is_empty()
                    || container.sandbox.id.starts_with(&filter.pod_sandbox_id))
                && filter
                    .state
                    .as_ref()
                    .is_none_or(|state| state.state == cri_state(&container.state()) as i32)
                && has_labels(&container.config.labels, &filter.label_selector)
        });
        matching
            .map(|container| v1::Container {
                id: container.id.clone(),
                pod_sandbox_id: container.sandbox.id.clone(),
                metadata: container.config.metadata.clone(),
                image: container.config.image.clone(),
                image_ref: container.record.image_reference.clone(),
                state: cri_state(&container.state()) as i32,
                created_at: nanoseconds(container.record.created_at),
                labels: container.config.labels.clone(),
                annotations: container.config.annotations.clone(),
                image_id: container.record.image.clone(),
            })
            .collect()
    }

    /// Tells listeners what happened, with the state of the whole pod as it is now.
    pub(super) fn tell(&self, kind: ContainerEventType, container: &Container) {
        let statuses =
            self.containers_of(&container.sandbox.id).iter().map(|other| container_status(other)).collect();
        self.events.tell(v1::ContainerEventResponse {
            container_id: container.id.clone(),
            container_event_type: kind as i32,
            created_at: nanoseconds(Timestamp::now()),
            pod_sandbox_status: Some(sandbox_status(&container.sandbox)),
            containers_statuses: statuses,
        });
    }
}

/// Waits for the end of a container; `false` when it takes too long.
async fn ended(container: &Container, patience: Duration) -> bool {
    let mut state = container.state.subscribe();
    let end = state.wait_for(|state| matches!(state, ContainerState::Exited { .. }));
    tokio::time::timeout(patience, end).await.is_ok()
}

/// A container as CRI tells it.
pub(super) fn container_status(container: &Container) -> v1::ContainerStatus {
    let (config, record, state) = (&container.config, &container.record, container.state());
    let mut status = v1::ContainerStatus {
        id: container.id.clone(),
        metadata: config.metadata.clone(),
        state: cri_state(&state) as i32,
        created_at: nanoseconds(record.created_at),
        image: config.image.clone(),
        image_ref: record.image_reference.clone(),
        image_id: record.image.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        mounts: config.mounts.clone(),
        log_path: record.log.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        resources: Some(v1::ContainerResources { linux: Some(container.resources()) }),
        user: Some(cri_user(&record.user)),
        stop_signal: config.stop_signal,
        ..Default::default()
    };
    match state {
        ContainerState::Created => {}
        ContainerState::Running(started) => status.started_at = nanoseconds(started.at),
        ContainerState::Exited { started_at, exit } => {
            status.started_at = started_at.map_or(0, nanoseconds);
            status.finished_at = nanoseconds(exit.at);
            status.exit_code = exit.code;
            status.reason = exit.reason;
            status.message = exit.message;
        }
    }
    status
}

fn cri_state(state: &ContainerState) -> v1::ContainerState {
    match state {
        ContainerState::Created => v1::ContainerState::ContainerCreated,
        ContainerState::Running(_) => v1::ContainerState::ContainerRunning,
        ContainerState::Exited { .. } => v1::ContainerState::ContainerExited,
    }
}

fn group_path(parent: &str, name: &str) -> String {
    format!("{}/{name}", parent.trim_end_matches('/'))
}

fn security(config: &v1::ContainerConfig) -> Option<&v1::LinuxContainerSecurityContext> {
    config.linux.as_ref()?.security_context.as_ref()
}

/// A small file of the image as the container will see it: the topmost layer that has it counts.
pub fn read_in_layers(layers: &[PathBuf], path: &str) -> io::Result<String> {
    use crate::sys::open::{Links, directory, open_in};
    use std::io::Read;
    const LIMIT: u64 = 1 << 20;
    for layer in layers {
        match open_in(directory(layer)?, Path::new(path), libc::O_RDONLY | libc::O_NONBLOCK, 0, Links::InRoot)
        {
            Ok(file) => {
                let file = fs::File::from(file);
                if !file.metadata()?.is_file() {
                    return Ok(String::new());
                }
                let mut content = Vec::new();
                file.take(LIMIT).read_to_end(&mut content)?;
                return Ok(String::from_utf8_lossy(&content).into_owned());
            }
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.kind() == io::ErrorKind::NotADirectory => {}
            // A whiteout: the file was deleted by this layer.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Ok(String::new()),
            Err(error) => return Err(error),
        }
    }
    Ok(String::new())
}

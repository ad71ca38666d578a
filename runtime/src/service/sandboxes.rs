//! Pod sandboxes: making, stopping, removing, telling.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use cri::v1;
use cri::{Code, Error};
use jiff::Timestamp;

use super::adoption;
use super::containers::{KILL_PATIENCE, START_PATIENCE};
use super::shims::{end_shim_of, process_of};
use super::state::{RECORD, Sandbox, SandboxRecord};
use super::{Shared, nanoseconds, new_id};
use crate::cgroup::Cgroup;
use crate::container::ids::IdMap;
use crate::container::plan::{is_node, sandbox_namespaces};
use crate::container::spec::Membership;
use crate::container::sysctl::{self, OfTheNode};
use crate::image::OrNotFound;
use crate::shim::protocol::{PodDirectory, Settings, write_json};
use crate::shim::{self, Connection};
use crate::sys::spawn::{self, Program};
use crate::sys::{failpoint, open};
use crate::trace::{self, Actor, Recorder};

impl Shared {
    /// Makes a pod's namespaces, gives it an address, and leaves a shim with it.
    pub(super) async fn run_sandbox(
        self: &Arc<Self>,
        config: v1::PodSandboxConfig,
        runtime_handler: String,
    ) -> Result<String, Error> {
        if config.metadata.is_none() {
            return Err(Error::invalid_argument("sandbox config doesn't contain metadata"));
        }
        if !runtime_handler.is_empty() {
            return Err(Error::invalid_argument(format!("no runtime for {runtime_handler:?} is configured")));
        }
        self.run_sandbox_as(new_id(), config, runtime_handler).await
    }

    /// As [`Shared::run_sandbox`], with an identity that the caller has chosen.
    pub(super) async fn run_sandbox_as(
        self: &Arc<Self>,
        id: String,
        config: v1::PodSandboxConfig,
        runtime_handler: String,
    ) -> Result<String, Error> {
        let directory = PodDirectory(self.pods_directory().join(&id));
        let record = SandboxRecord {
            created_at: Timestamp::now(),
            runtime_handler,
            address: None,
            shim: None,
            stopped: false,
        };
        let sandbox = Arc::new(Sandbox::new(id.clone(), directory, config, record));
        match self.set_up(&sandbox).await {
            Ok(connection) => {
                sandbox.ready.send_replace(true);
                self.pods().sandboxes.insert(id.clone(), sandbox.clone());
                adoption::watch(self, &sandbox, Some(connection));
                Ok(id)
            }
            Err(error) => {
                self.undo(&sandbox).await;
                let name = sandbox
                    .config
                    .metadata
                    .as_ref()
                    .map(|metadata| metadata.name.clone())
                    .unwrap_or_default();
                Err(Error::unknown(format!("failed to create pod sandbox {name:?}: {error}")))
            }
        }
    }

    async fn set_up(&self, sandbox: &Arc<Sandbox>) -> Result<Connection, Error> {
        let mut recorder = Recorder::start(trace::is_wanted(&sandbox.config.annotations), Actor::Server);
        let settings = settings(&sandbox.config, membership(&self.shims_cgroup()));
        let settings = settings.map_err(Error::invalid_argument)?;
        let listener = self.prepare(sandbox, settings).map_err(failed("prepare the pod's directory"))?;
        failpoint::reach("sandbox.prepared");
        recorder.mark("PreparePod");
        let shim = self.start_shim(sandbox, listener).map_err(failed("start the pod's shim"))?;
        failpoint::reach("sandbox.shim");
        recorder.mark("StartShim");
        let mut connection =
            shim::connect(&sandbox.directory).map_err(failed("connect to the pod's shim"))?;
        // Answered when the namespaces are there.
        let answer = tokio::time::timeout(START_PATIENCE, connection.introduce(true)).await;
        let answer = answer.map_err(io::Error::from).flatten();
        if !matches!(answer, Ok(Some(_))) {
            let words = fs::read_to_string(sandbox.directory.shim_log()).unwrap_or_default();
            let reason = answer.err().map_or("the pod's shim is gone".to_owned(), |error| error.to_string());
            let words = words.trim();
            return Err(Error::unknown(if words.is_empty() { reason } else { words.to_owned() }));
        }
        failpoint::reach("sandbox.subscribed");
        recorder.mark("WaitForShim");
        let address = self.attach_network(sandbox, shim).await?;
        failpoint::reach("sandbox.network");
        recorder.mark("AttachNetwork");
        sandbox
            .update(|record| {
                record.address = address;
                record.shim = Some(shim);
            })
            .map_err(failed("record the pod"))?;
        failpoint::reach("sandbox.recorded");
        recorder.mark("RecordPod");
        tell_times(&sandbox.directory.trace(), &mut recorder);
        Ok(connection)
    }

    fn prepare(&self, sandbox: &Sandbox, mut settings: Settings) -> io::Result<std::os::fd::OwnedFd> {
        let (directory, config) = (&sandbox.directory, &sandbox.config);
        fs::create_dir_all(directory.containers())?;
        failpoint::reach("sandbox.directory");
        if !config.log_directory.is_empty() {
            fs::create_dir_all(&config.log_directory)?;
        }
        sandbox.save_config()?;
        fs::write(directory.resolv_conf(), resolv_conf(config)?)?;
        let group = self.shims_cgroup();
        group.create().map_err(|error| io::Error::other(format!("{error}: {}", source_of(&error))))?;
        settings.join_network = self.network_target(sandbox)?;
        if let Some(daemonless) = &self.daemonless {
            settings.exit_command = daemonless.exit_command(&sandbox.id);
        }
        let node_name = || nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
        let hostname = match &settings.hostname {
            Some(hostname) => hostname.clone(),
            None => node_name()?,
        };
        fs::write(directory.hostname(), format!("{hostname}\n"))?;
        write_json(&directory.settings(), &settings)?;
        shim::listen(directory)
    }

    /// The process that holds the network which a sandbox is to share with another one.
    fn network_target(&self, sandbox: &Sandbox) -> io::Result<Option<i32>> {
        let Some(target) = network_of(&sandbox.config) else { return Ok(None) };
        let target = self.find_sandbox(target).map_err(io::Error::other)?;
        let is_there = |pid: &i32| process_of(&target.directory, *pid).is_ok_and(|process| process.is_some());
        let shim = target.record().shim.filter(is_there);
        shim.map(Some).ok_or_else(|| io::Error::other("the pod whose network is to be shared is gone"))
    }

    /// Starts the shim from the protected binary.
    fn start_shim(&self, sandbox: &Sandbox, listener: std::os::fd::OwnedFd) -> io::Result<i32> {
        let log = File::create(sandbox.directory.shim_log())?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let path = spawn::words([self.executable()?.path().as_os_str().as_bytes()])?.remove(0);
        let given = self.config.shim.arguments.iter().map(String::as_bytes);
        let name = path.as_bytes();
        let arguments = [name].into_iter().chain(given).chain([sandbox.directory.0.as_os_str().as_bytes()]);
        let environment: Vec<Vec<u8>> = failpoint::environment()
            .into_iter()
            .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat())
            .collect();
        let group = self.shims_cgroup().unified().as_deref().map(open::readable_directory).transpose()?;
        let child = spawn::spawn(Program {
            path: &path,
            arguments: spawn::words(arguments)?,
            environment: spawn::words(environment.iter().map(Vec::as_slice))?,
            streams: [listener.as_fd(), null.as_fd(), log.as_fd()],
            group,
        })?;
        let (pid, pidfd) = (child.pid, child.pidfd);
        // Whenever it ends, nobody is left a zombie; an adopted shim is buried by init.
        tokio::spawn(async move {
            let Ok(pidfd) = crate::sys::poll::watched(pidfd) else { return };
            if pidfd.readable().await.is_ok()
                && let Err(error) = crate::sys::process::wait_pidfd(pidfd.get_ref())
            {
                tracing::warn!(pid, %error, "failed to bury a shim");
            }
        });
        Ok(pid)
    }

    async fn attach_network(&self, sandbox: &Sandbox, shim: i32) -> Result<Option<net::PodAddress>, Error> {
        if sandbox.host_network() || network_of(&sandbox.config).is_some() {
            return Ok(None);
        }
        let Some(network) = &self.config.network else { return Ok(None) };
        let namespace =
            File::open(format!("/proc/{shim}/ns/net")).map_err(failed("open the pod's network"))?;
        let ports = sandbox.config.port_mappings.iter().filter_map(port_mapping).collect();
        let attached = network.attach(&sandbox.id, namespace, ports).await;
        let chain = |error: net::NetworkError| {
            let causes = std::iter::successors(std::error::Error::source(&error), |error| error.source());
            causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
        };
        attached
            .map(Some)
            .map_err(|error| Error::unknown(format!("failed to set up the pod's network: {}", chain(error))))
    }

    async fn undo(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        if let Err(error) = self.stop(sandbox).await {
            tracing::warn!(sandbox = sandbox.id, %error, "failed to stop a pod that could not be made");
        }
        if let Err(error) = fs::remove_dir_all(&sandbox.directory.0).or_not_found() {
            tracing::warn!(sandbox = sandbox.id, %error, "failed to remove a pod that could not be made");
        }
    }

    /// Ends everything in a pod and gives back what it held; its record stays.
    pub(super) async fn stop_sandbox(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        // One that is not there is stopped.
        let Ok(sandbox) = self.find_sandbox(id) else { return Ok(()) };
        self.stop(&sandbox).await
    }

    async fn stop(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        if let Some(refusal) = sandbox.refusal.get() {
            return Err(Error::failed_precondition(refusal.clone()));
        }
        // A full disk must not keep a pod alive: without the note a later server finds that its shim is gone.
        if let Err(error) = sandbox.update(|record| record.stopped = true) {
            tracing::warn!(sandbox = sandbox.id, %error, "failed to record that a pod is stopped");
        }
        failpoint::reach("stop-sandbox.recorded");
        let ended = end_shim_of(&sandbox.directory, KILL_PATIENCE).await;
        ended.map_err(failed("end the pod's shim"))?;
        failpoint::reach("stop-sandbox.ended");
        self.shim_is_gone(sandbox).await
    }

    /// Gives back what a pod without a shim still holds outside its directory.
    pub(super) async fn release(&self, sandbox: &Sandbox) -> Result<(), Error> {
        let has_own = !sandbox.host_network() && network_of(&sandbox.config).is_none();
        if let Some(network) = self.config.network.as_ref().filter(|_| has_own) {
            let released = match self.daemonless {
                // Nobody will be there to see the link go.
                Some(_) => network.detach(&sandbox.id).await,
                None => network.close_ports(&sandbox.id).await,
            };
            released
                .map_err(|error| Error::unknown(format!("failed to tear down the pod's network: {error}")))?;
            if self.daemonless.is_none() {
                let (network, id) = (network.clone(), sandbox.id.clone());
                // What this server does not live to see, the next one finds as an address without a pod.
                tokio::spawn(async move {
                    if let Err(error) = network.detach_with_namespace(&id).await {
                        tracing::warn!(sandbox = id, %error, "failed to free a pod's address");
                    }
                });
            }
        }
        failpoint::reach("release.network");
        crate::sys::mount::detach(&sandbox.directory.shared_memory())
            .map_err(failed("unmount the pod's /dev/shm"))?;
        // Another sandbox of the same pod may live in the group already: only an empty one goes.
        let _held = self.groups();
        let group = self.pod_cgroup(&sandbox.id, &sandbox.config);
        group.remove_if_empty().map_err(|error| Error::unknown(format!("{error}: {}", source_of(&error))))?;
        failpoint::reach("release.group");
        Ok(())
    }

    /// Forgets a pod, its containers included.
    pub(super) async fn remove_sandbox(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let Ok(sandbox) = self.find_sandbox(id) else { return Ok(()) };
        self.stop(&sandbox).await?;
        failpoint::reach("remove-sandbox.stopped");
        for container in self.containers_of(&sandbox.id) {
            self.remove_container(&container.id).await?;
        }
        // The record goes first: what is left of a pod without one is removed at the next start.
        let record = fs::remove_file(sandbox.directory.0.join(RECORD)).or_not_found();
        record.map_err(failed("remove the pod's record"))?;
        failpoint::reach("remove-sandbox.forgotten");
        let removed = fs::remove_dir_all(&sandbox.directory.0).or_not_found();
        removed.map_err(failed("remove the pod's directory"))?;
        failpoint::reach("remove-sandbox.directory");
        self.pods().sandboxes.remove(&sandbox.id);
        Ok(())
    }

    /// Takes note of limits that the kubelet has given the pod's group; the group is his.
    pub(super) fn update_sandbox(
        &self,
        id: &str,
        overhead: Option<v1::LinuxContainerResources>,
        resources: Option<v1::LinuxContainerResources>,
    ) -> Result<(), Error> {
        let sandbox = self.find_sandbox(id)?;
        sandbox.change_limits(overhead, resources).map_err(failed("record the pod's resources"))
    }

    /// The sandbox with this id, or whose id begins like this.
    pub(super) fn find_sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Error> {
        let pods = self.pods();
        let found = find(&pods.sandboxes, id);
        found.ok_or_else(|| {
            Error::not_found(format!("an error occurred when try to find sandbox: {id:?}: not found"))
        })
    }

    pub(super) fn list_sandboxes(&self, filter: Option<v1::PodSandboxFilter>) -> Vec<v1::PodSandbox> {
        let filter = filter.unwrap_or_default();
        let pods = self.pods();
        let matching = pods.sandboxes.values().filter(|sandbox| {
            (filter.id.is_empty() || sandbox.id.starts_with(&filter.id))
                && filter.state.as_ref().is_none_or(|state| state.state == sandbox_state(sandbox) as i32)
                && has_labels(&sandbox.config.labels, &filter.label_selector)
        });
        matching
            .map(|sandbox| v1::PodSandbox {
                id: sandbox.id.clone(),
                metadata: sandbox.config.metadata.clone(),
                state: sandbox_state(sandbox) as i32,
                created_at: nanoseconds(sandbox.record().created_at),
                labels: sandbox.config.labels.clone(),
                annotations: sandbox.config.annotations.clone(),
                runtime_handler: sandbox.runtime_handler.clone(),
            })
            .collect()
    }
}

/// An entry by its whole id, or by a beginning that no other has.
pub(super) fn find<T: Clone>(entries: &std::collections::BTreeMap<String, T>, id: &str) -> Option<T> {
    if let Some(exact) = entries.get(id) {
        return Some(exact.clone());
    }
    let mut matching =
        entries.range(id.to_owned()..).take_while(|(key, _)| !id.is_empty() && key.starts_with(id));
    let first = matching.next().map(|(_, entry)| entry.clone());
    if matching.next().is_some() { None } else { first }
}

/// Whether all wanted labels are there.
pub(super) fn has_labels(labels: &HashMap<String, String>, wanted: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A pod as CRI tells it.
pub(super) fn sandbox_status(sandbox: &Sandbox) -> v1::PodSandboxStatus {
    let record = sandbox.record();
    let network = v1::PodSandboxNetworkStatus {
        ip: record.address.map(|address| address.ip.to_string()).unwrap_or_default(),
        additional_ips: Vec::new(),
    };
    v1::PodSandboxStatus {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        state: sandbox_state(sandbox) as i32,
        created_at: nanoseconds(record.created_at),
        network: Some(network),
        linux: Some(v1::LinuxPodSandboxStatus {
            namespaces: Some(v1::Namespace { options: sandbox_namespaces(&sandbox.config).cloned() }),
        }),
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: sandbox.runtime_handler.clone(),
    }
}

fn sandbox_state(sandbox: &Sandbox) -> v1::PodSandboxState {
    if sandbox.is_ready() { v1::PodSandboxState::SandboxReady } else { v1::PodSandboxState::SandboxNotready }
}

/// The sandbox whose network another one is to have.
fn network_of(config: &v1::PodSandboxConfig) -> Option<&str> {
    let options = sandbox_namespaces(config)?;
    (options.network() == v1::NamespaceMode::Target).then_some(options.target_id.as_str())
}

/// What the shim is to set up for this pod.
fn settings(config: &v1::PodSandboxConfig, group: Membership) -> Result<Settings, String> {
    let options = sandbox_namespaces(config);
    let host_network = is_node(options.map(|options| options.network));
    let sysctls = config.linux.as_ref().map(|linux| linux.sysctls.clone()).unwrap_or_default();
    let of_the_node = OfTheNode { network: host_network, ipc: is_node(options.map(|options| options.ipc)) };
    let checked = |(name, value): (String, String)| Ok((sysctl::file(&name, of_the_node)?, value));
    Ok(Settings {
        // A pod of the node's network has the node's name.
        hostname: (!host_network && !config.hostname.is_empty()).then(|| config.hostname.clone()),
        host_network,
        join_network: None,
        exit_command: Vec::new(),
        host_ipc: of_the_node.ipc,
        shared_pid: options.is_some_and(|options| options.pid() == v1::NamespaceMode::Pod),
        sysctls: sysctls.into_iter().map(checked).collect::<Result<_, String>>()?,
        ids: IdMap::wanted(options)?,
        trace: trace::is_wanted(&config.annotations),
        group,
    })
}

fn resolv_conf(config: &v1::PodSandboxConfig) -> io::Result<Vec<u8>> {
    match &config.dns_config {
        Some(dns) => Ok(render_resolv_conf(dns).into_bytes()),
        // A node without one has no names to resolve, and neither has the pod.
        None => match fs::read("/etc/resolv.conf") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            result => result,
        },
    }
}

fn render_resolv_conf(dns: &v1::DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    text
}

/// A port of the node that leads into the pod; without one there is nothing to map.
fn port_mapping(mapping: &v1::PortMapping) -> Option<net::PortMapping> {
    let (host_port, container_port) =
        (mapping.host_port.try_into().ok()?, mapping.container_port.try_into().ok()?);
    if host_port == 0 {
        return None;
    }
    let protocol = match mapping.protocol() {
        v1::Protocol::Tcp => net::Protocol::Tcp,
        v1::Protocol::Udp => net::Protocol::Udp,
        v1::Protocol::Sctp => net::Protocol::Sctp,
    };
    Some(net::PortMapping { protocol, host_port, container_port, host_ip: mapping.host_ip.parse().ok() })
}

/// A group as those need it who join it.
pub(super) fn membership(group: &Cgroup) -> Membership {
    let split =
        group.directories().into_iter().map(|(controller, path)| (controller.name().to_owned(), path));
    Membership { split: split.collect(), unified: group.unified() }
}

/// Adds what took how long to the file of whoever is traced; that nobody can read it is no reason to fail.
pub(super) fn tell_times(file: &Path, recorder: &mut Recorder) {
    if let Some(steps) = recorder.take()
        && let Err(error) = trace::append(file, steps)
    {
        tracing::warn!(file = %file.display(), %error, "failed to tell how long steps took");
    }
}

/// What a call failed at, in a sentence.
pub(super) fn failed(what: &str) -> impl FnOnce(io::Error) -> Error {
    let what = what.to_owned();
    move |error| Error::new(Code::Unknown, format!("failed to {what}: {error}"))
}

/// The reason behind an error, for messages that cross the wire.
pub(super) fn source_of(error: &dyn std::error::Error) -> String {
    error.source().map(|source| source.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_says_what_the_kubelet_said() {
        let dns = v1::DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        };
        assert_eq!(
            render_resolv_conf(&dns),
            "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
    }

    #[test]
    fn ids_are_found_by_an_unambiguous_beginning() {
        let entries = [("ab1", 1), ("ab2", 2), ("cd", 3)].map(|(key, value)| (key.to_owned(), value)).into();
        assert_eq!(
            ["ab1", "c", "ab", "", "x"].map(|id| find(&entries, id)),
            [Some(1), Some(3), None, None, None]
        );
    }
}

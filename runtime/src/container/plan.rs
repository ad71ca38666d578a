//! From what CRI and the image say to a [`Spec`]: a plain function.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use cri::v1;

use super::capabilities;
use super::cdi::Edits;
use super::devices::Granted;
use super::ids::IdMap;
use super::label::{Modules, labels};
use super::spec::{
    Access, Capabilities, Membership, PidNamespace, Process, Root, Source, Spec, Stdin, User, Volume,
};
use super::user::{Wanted, resolve};
use crate::cgroup::{DeviceRule, Resources};
use crate::image::ImageConfig;
use crate::sys::mount::Propagation;
use crate::trace;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All that is known when a container is created.
pub struct Inputs<'a> {
    /// The sandbox as CRI describes it.
    pub sandbox: &'a v1::PodSandboxConfig,
    /// The container as CRI describes it.
    pub container: &'a v1::ContainerConfig,
    /// The image as it describes itself.
    pub image: &'a ImageConfig,
    /// The image's layers, topmost first.
    pub layers: Vec<PathBuf>,
    /// Where its writable layer is.
    pub snapshot: PathBuf,
    /// Its control groups.
    pub cgroup: Membership,
    /// The image's `/etc/passwd`.
    pub passwd: &'a str,
    /// The image's `/etc/group`.
    pub group: &'a str,
    /// The devices of the node that it gets.
    pub devices: Vec<Granted>,
    /// What devices that it gets by name add.
    pub cdi: Edits,
    /// The layers of each image that it has as a volume, topmost first, by the image's name.
    pub image_layers: HashMap<String, Vec<PathBuf>>,
    /// The pod's own resolv.conf and hostname files, for where they appear in the container.
    pub pod_files: Vec<(PathBuf, &'static str)>,
    /// The security modules of the kernel.
    pub modules: Modules,
    /// How many files a process may open.
    pub open_files: Option<u64>,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// How to set the container up. Its seccomp filter is for the caller to add, by [`Planned::seccomp`].
    pub spec: Spec,
    /// Its limits.
    pub resources: Resources,
    /// The devices it may use.
    pub devices: Vec<DeviceRule>,
    /// Which system call filter it gets.
    pub seccomp: Seccomp,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
}

/// Which system call filter a container gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Seccomp {
    /// None.
    Unconfined,
    /// Ours.
    RuntimeDefault,
    /// A file of the node.
    Localhost(PathBuf),
}

/// Why a container cannot be made as described.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// Neither pod nor image say what to run.
    #[error("no command specified")]
    NoCommand,
    /// User or group are not there or out of range.
    #[error("{0}")]
    User(String),
    /// A user namespace that cannot be.
    #[error("{0}")]
    Ids(String),
    /// A security module that is not there.
    #[error("{0}")]
    Label(String),
    /// A capability that does not exist.
    #[error("{0}")]
    Capability(String),
    /// A signal that does not exist.
    #[error("unknown stop signal {0:?}")]
    StopSignal(String),
    /// A mount that says nothing sensible.
    #[error("invalid mount at {target:?}: {reason}")]
    Mount {
        /// Where it was to appear.
        target: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// An image volume of an image that is not there.
    #[error("failed to resolve image volume {0:?}: not found")]
    Image(String),
    /// A profile reference that leads nowhere.
    #[error("seccomp profile Localhost needs an absolute path, not {0:?}")]
    Seccomp(String),
}

/// Decides everything about a container.
pub fn plan(mut inputs: Inputs<'_>) -> Result<Planned, PlanError> {
    let container = inputs.container;
    let linux = container.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let given = linux.resources.unwrap_or_default();
    let execution = &inputs.image.config;

    if security.run_as_group.is_some()
        && security.run_as_user.is_none()
        && security.run_as_username.is_empty()
    {
        return Err(PlanError::User("runAsGroup is specified without a runAsUser".to_owned()));
    }
    let ids = IdMap::wanted(sandbox_namespaces(inputs.sandbox)).map_err(PlanError::Ids)?;
    let wanted = Wanted {
        uid: security.run_as_user.as_ref().map(|user| user.value),
        name: &security.run_as_username,
        gid: security.run_as_group.as_ref().map(|group| group.value),
        of_image: &execution.user,
        supplemental: &security.supplemental_groups,
        strict_groups: security.supplemental_groups_policy == v1::SupplementalGroupsPolicy::Strict as i32,
    };
    let labels = labels(&security, inputs.modules).map_err(PlanError::Label)?;
    let mut resolved = resolve(&wanted, inputs.passwd, inputs.group).map_err(PlanError::User)?;
    let mut environment = environment(container, inputs.image, &inputs.sandbox.hostname, &resolved.home);
    environment.append(&mut inputs.cdi.env);
    inputs.devices.append(&mut inputs.cdi.devices);
    let groups = &mut resolved.user.groups;
    inputs.cdi.groups.retain(|gid| !groups.contains(gid));
    groups.append(&mut inputs.cdi.groups);
    let mut volumes = volumes(&mut inputs, ids.is_some())?;
    // A volume inside another must come after it.
    volumes.sort_by_key(|volume| volume.target.components().count());
    let process = Process {
        args: arguments(container, inputs.image)?,
        env: environment,
        working_directory: working_directory(container, inputs.image),
        user: resolved.user,
        capabilities: capabilities_of(&security).map_err(PlanError::Capability)?,
        no_new_privileges: security.no_new_privs,
        seccomp: None,
        oom_score_adj: Some(given.oom_score_adj as i32),
        open_files: inputs.open_files,
        terminal: container.tty,
        terminal_size: None,
        label: labels.process,
    };
    let mut devices = if security.privileged { vec![DeviceRule::all()] } else { DeviceRule::defaults() };
    devices.extend(inputs.devices.iter().map(|(node, access)| DeviceRule {
        kind: node.kind,
        major: Some(node.major),
        minor: Some(node.minor),
        access: access.clone(),
    }));
    let spec = Spec {
        process,
        root: Root {
            layers: inputs.layers,
            snapshot: inputs.snapshot,
            readonly: security.readonly_rootfs,
            label: labels.files,
            is_kept: false,
        },
        volumes,
        devices: inputs.devices.into_iter().map(|(node, _)| node).collect(),
        masked_paths: if security.privileged { Vec::new() } else { paths(&security.masked_paths) },
        readonly_paths: if security.privileged { Vec::new() } else { paths(&security.readonly_paths) },
        pid: pid_namespace(&security),
        host_ipc: is_node(sandbox_namespaces(inputs.sandbox).map(|options| options.ipc)),
        ids,
        privileged: security.privileged,
        cgroup: inputs.cgroup,
        stdin: match (container.stdin, container.stdin_once) {
            (false, _) => Stdin::Null,
            (true, false) => Stdin::Open,
            (true, true) => Stdin::Once,
        },
        log: log_path(inputs.sandbox, container),
        log_limit: None,
        trace: trace::is_wanted(&container.annotations) || trace::is_wanted(&inputs.sandbox.annotations),
    };
    let seccomp = if security.privileged { Seccomp::Unconfined } else { seccomp(security.seccomp.as_ref())? };
    let stop_signal = stop_signal(container, inputs.image)?;
    Ok(Planned { spec, resources: resources(&given), devices, seccomp, stop_signal })
}

/// Where a container logs to; nowhere when the kubelet does not say.
pub fn log_path(sandbox: &v1::PodSandboxConfig, container: &v1::ContainerConfig) -> Option<PathBuf> {
    let wanted = !sandbox.log_directory.is_empty() && !container.log_path.is_empty();
    wanted.then(|| Path::new(&sandbox.log_directory).join(&container.log_path))
}

/// The namespaces that a sandbox asks for.
pub fn sandbox_namespaces(sandbox: &v1::PodSandboxConfig) -> Option<&v1::NamespaceOption> {
    sandbox.linux.as_ref()?.security_context.as_ref()?.namespace_options.as_ref()
}

/// Whether a namespace is the node's.
pub fn is_node(mode: Option<i32>) -> bool {
    mode == Some(v1::NamespaceMode::Node as i32)
}

/// Limits in our words: CRI says zero for what is not given.
pub fn resources(given: &v1::LinuxContainerResources) -> Resources {
    let positive = |value: i64| (value > 0).then_some(value as u64);
    let nonzero = |value: i64| (value != 0).then_some(value);
    let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    Resources {
        cpu_shares: positive(given.cpu_shares),
        cpu_quota: nonzero(given.cpu_quota),
        cpu_period: positive(given.cpu_period),
        memory_limit: nonzero(given.memory_limit_in_bytes),
        memory_and_swap_limit: nonzero(given.memory_swap_limit_in_bytes),
        cpus: text(&given.cpuset_cpus),
        memory_nodes: text(&given.cpuset_mems),
        pids_limit: given.unified.get("pids.max").and_then(|limit| {
            // Version 1 has the file too.
            if limit == "max" { Some(-1) } else { limit.parse().ok() }
        }),
        hugepages: given.hugepage_limits.iter().map(|limit| (limit.page_size.clone(), limit.limit)).collect(),
        unified: given.unified.clone().into_iter().collect(),
    }
}

/// The process of an exec: as the container's first, but for the command and the terminal.
pub fn exec_process(first: &Process, command: &[String], terminal: bool) -> Process {
    let mut process = Process { args: command.to_vec(), terminal, ..first.clone() };
    if terminal && !process.env.iter().any(|entry| entry.starts_with("TERM=")) {
        process.env.push("TERM=xterm".to_owned());
    }
    process
}

fn arguments(container: &v1::ContainerConfig, image: &ImageConfig) -> Result<Vec<String>, PlanError> {
    let own = (&container.command, &container.args);
    let (command, args) = match own {
        (command, args) if !command.is_empty() => (command, args),
        (_, args) if !args.is_empty() => (&image.config.entrypoint, args),
        _ => (&image.config.entrypoint, &image.config.cmd),
    };
    let all: Vec<String> = command.iter().chain(args).cloned().collect();
    if all.is_empty() { Err(PlanError::NoCommand) } else { Ok(all) }
}

fn environment(
    container: &v1::ContainerConfig,
    image: &ImageConfig,
    hostname: &str,
    home: &str,
) -> Vec<String> {
    let mut environment = Environment(vec![DEFAULT_PATH.to_owned()]);
    if container.tty {
        environment.set("TERM=xterm".to_owned());
    }
    if !hostname.is_empty() {
        environment.set(format!("HOSTNAME={hostname}"));
    }
    image.config.env.iter().for_each(|entry| environment.set(entry.clone()));
    container.envs.iter().for_each(|entry| environment.set(format!("{}={}", entry.key, entry.value)));
    if !environment.has("HOME") {
        environment.set(format!("HOME={home}"));
    }
    environment.0
}

struct Environment(Vec<String>);

impl Environment {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|entry| entry.split_once('=').is_some_and(|(known, _)| known == name))
    }

    /// A name is there once, in its first place, with its last value.
    fn set(&mut self, entry: String) {
        let name = entry.split('=').next().unwrap_or_default();
        match self.0.iter_mut().find(|known| known.split('=').next() == Some(name)) {
            Some(known) => *known = entry,
            None => self.0.push(entry),
        }
    }
}

fn working_directory(container: &v1::ContainerConfig, image: &ImageConfig) -> PathBuf {
    let given = [container.working_dir.as_str(), image.config.working_dir.as_str()];
    given.into_iter().find(|path| !path.is_empty()).unwrap_or("/").into()
}

fn capabilities_of(security: &v1::LinuxContainerSecurityContext) -> Result<Capabilities, String> {
    if security.privileged {
        return Ok(Capabilities { bounding: capabilities::all(), ambient: 0 });
    }
    let given = security.capabilities.clone().unwrap_or_default();
    let ambient = capabilities::parse(&given.add_ambient_capabilities)?;
    let bounding =
        capabilities::change(capabilities::default(), &given.add_capabilities, &given.drop_capabilities)?;
    Ok(Capabilities { bounding: bounding | ambient, ambient })
}

fn volumes(inputs: &mut Inputs<'_>, has_own_ids: bool) -> Result<Vec<Volume>, PlanError> {
    let container = inputs.container;
    let mut volumes = std::mem::take(&mut inputs.cdi.volumes);
    for (source, target) in std::mem::take(&mut inputs.pod_files) {
        let is_given =
            container.mounts.iter().any(|mount| Path::new(&mount.container_path) == Path::new(target));
        if !is_given {
            let (access, propagation) = (Access::Write, Propagation::Private);
            let source = Source::Path(source);
            volumes.push(Volume { source, target: target.into(), access, propagation, map_ids: has_own_ids });
        }
    }
    for mount in &container.mounts {
        let map_ids = has_own_ids && !mount.uid_mappings.is_empty();
        volumes.push(Volume { map_ids, ..volume(mount, &inputs.image_layers)? });
    }
    Ok(volumes)
}

fn volume(mount: &v1::Mount, image_layers: &HashMap<String, Vec<PathBuf>>) -> Result<Volume, PlanError> {
    let invalid = |reason| PlanError::Mount { target: mount.container_path.clone(), reason };
    if mount.container_path.is_empty() || Path::new(&mount.container_path) == Path::new("/") {
        return Err(invalid("it would replace the whole container"));
    }
    let target = Path::new("/").join(&mount.container_path);
    if let Some(image) = mount.image.as_ref().filter(|image| !image.image.is_empty()) {
        if !mount.host_path.is_empty() {
            return Err(invalid("it has both an image and a host path"));
        }
        let layers = image_layers.get(&image.image).cloned();
        let layers = layers.ok_or_else(|| PlanError::Image(image.image.clone()))?;
        let source = Source::Image { layers, sub_path: mount.image_sub_path.clone().into() };
        let (access, propagation) = (Access::ReadRecursively, Propagation::Private);
        return Ok(Volume { source, target, access, propagation, map_ids: false });
    }
    if !mount.host_path.starts_with('/') {
        return Err(invalid("the host path is not absolute"));
    }
    let propagation = match mount.propagation() {
        v1::MountPropagation::PropagationPrivate => Propagation::Private,
        v1::MountPropagation::PropagationHostToContainer => Propagation::Slave,
        v1::MountPropagation::PropagationBidirectional => Propagation::Shared,
    };
    let access = match (mount.readonly, mount.recursive_read_only) {
        (false, true) => return Err(invalid("recursive_read_only needs readonly")),
        (true, true) if propagation != Propagation::Private => {
            return Err(invalid("recursive_read_only needs private propagation"));
        }
        (true, true) => Access::ReadRecursively,
        (true, false) => Access::Read,
        (false, false) => Access::Write,
    };
    let source = Source::Path(mount.host_path.clone().into());
    Ok(Volume { source, target, access, propagation, map_ids: false })
}

fn pid_namespace(security: &v1::LinuxContainerSecurityContext) -> PidNamespace {
    let Some(options) = &security.namespace_options else { return PidNamespace::Own };
    match options.pid() {
        v1::NamespaceMode::Pod => PidNamespace::Pod,
        v1::NamespaceMode::Container => PidNamespace::Own,
        v1::NamespaceMode::Node => PidNamespace::Host,
        v1::NamespaceMode::Target => PidNamespace::Container(options.target_id.clone()),
    }
}

fn seccomp(profile: Option<&v1::SecurityProfile>) -> Result<Seccomp, PlanError> {
    use v1::security_profile::ProfileType;
    let Some(profile) = profile else { return Ok(Seccomp::Unconfined) };
    match profile.profile_type() {
        ProfileType::RuntimeDefault => Ok(Seccomp::RuntimeDefault),
        ProfileType::Unconfined => Ok(Seccomp::Unconfined),
        // An empty reference once meant no confinement at all: CVE-2023-2431.
        ProfileType::Localhost if Path::new(&profile.localhost_ref).is_absolute() => {
            Ok(Seccomp::Localhost(profile.localhost_ref.clone().into()))
        }
        ProfileType::Localhost => Err(PlanError::Seccomp(profile.localhost_ref.clone())),
    }
}

fn stop_signal(container: &v1::ContainerConfig, image: &ImageConfig) -> Result<i32, PlanError> {
    let name = match container.stop_signal() {
        v1::Signal::RuntimeDefault => image.config.stop_signal.clone(),
        signal => signal.as_str_name().to_owned(),
    };
    if name.is_empty() {
        return Ok(libc::SIGTERM);
    }
    signal_number(&name).ok_or(PlanError::StopSignal(name))
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, or CRI's `SIGRTMINPLUS3`.
pub fn signal_number(name: &str) -> Option<i32> {
    use std::str::FromStr;
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase().replace("PLUS", "+").replace("MINUS", "-");
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    // The C library keeps 32 and 33 for itself.
    const REAL_TIME: (i32, i32) = (34, 64);
    if let Some(rest) = full.strip_prefix("SIGRTMIN") {
        let offset = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse::<i32>().ok()? };
        return Some(REAL_TIME.0 + offset).filter(|signal| *signal <= REAL_TIME.1);
    }
    if let Some(rest) = full.strip_prefix("SIGRTMAX") {
        let offset = if rest.is_empty() { 0 } else { rest.strip_prefix('-')?.parse::<i32>().ok()? };
        return Some(REAL_TIME.1 - offset).filter(|signal| *signal >= REAL_TIME.0);
    }
    match full.as_str() {
        "SIGCLD" => Some(libc::SIGCHLD),
        "SIGPOLL" => Some(libc::SIGIO),
        "SIGIOT" => Some(libc::SIGABRT),
        name => nix::sys::signal::Signal::from_str(name).ok().map(|signal| signal as i32),
    }
}

fn paths(given: &[String]) -> Vec<PathBuf> {
    given.iter().map(PathBuf::from).collect()
}

/// Numeric user and groups in CRI's words.
pub fn cri_user(user: &User) -> v1::ContainerUser {
    let groups = user.groups.iter().map(|gid| *gid as i64).collect();
    v1::ContainerUser {
        linux: Some(v1::LinuxContainerUser {
            uid: user.uid as i64,
            gid: user.gid as i64,
            supplemental_groups: groups,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(entrypoint: &[&str], cmd: &[&str]) -> ImageConfig {
        let strings = |list: &[&str]| list.iter().map(|text| text.to_string()).collect();
        let mut image = ImageConfig::default();
        image.config.entrypoint = strings(entrypoint);
        image.config.cmd = strings(cmd);
        image
    }

    fn planned(container: &v1::ContainerConfig, image: &ImageConfig) -> Result<Planned, PlanError> {
        plan(Inputs {
            sandbox: &v1::PodSandboxConfig { hostname: "web-0".into(), ..Default::default() },
            container,
            image,
            layers: Vec::new(),
            snapshot: "/snapshot".into(),
            cgroup: Membership::default(),
            passwd: "root:x:0:0::/root:/bin/sh",
            group: "",
            devices: Vec::new(),
            cdi: Edits::default(),
            image_layers: HashMap::new(),
            pod_files: vec![("/pod/resolv.conf".into(), "/etc/resolv.conf")],
            modules: Modules::default(),
            open_files: None,
        })
    }

    #[test]
    fn command_and_args_replace_the_images() {
        let image = image(&["/entry"], &["default"]);
        let args = |command: &[&str], args: &[&str]| {
            let strings = |list: &[&str]| list.iter().map(|text| text.to_string()).collect();
            let container =
                v1::ContainerConfig { command: strings(command), args: strings(args), ..Default::default() };
            planned(&container, &image).unwrap().spec.process.args
        };
        assert_eq!(args(&[], &[]), ["/entry", "default"]);
        assert_eq!(args(&[], &["own"]), ["/entry", "own"]);
        assert_eq!(args(&["/own"], &[]), ["/own"]);
        assert_eq!(
            planned(&v1::ContainerConfig::default(), &ImageConfig::default()),
            Err(PlanError::NoCommand)
        );
    }

    #[test]
    fn later_values_of_a_variable_win() {
        let mut image = image(&["/entry"], &[]);
        image.config.env = vec!["PATH=/image".into(), "COLOR=red".into()];
        let envs = vec![v1::KeyValue { key: "COLOR".into(), value: "blue=green".into() }];
        let container = v1::ContainerConfig { envs, ..Default::default() };
        let env = planned(&container, &image).unwrap().spec.process.env;
        assert_eq!(env, ["PATH=/image", "HOSTNAME=web-0", "COLOR=blue=green", "HOME=/root"]);
    }

    #[test]
    fn volumes_come_after_those_they_are_in() {
        let mount = |path: &str| v1::Mount {
            container_path: path.into(),
            host_path: "/host".into(),
            readonly: true,
            ..Default::default()
        };
        let mounts = vec![mount("/data/deep/er"), mount("/data"), mount("/etc/resolv.conf")];
        let container = v1::ContainerConfig { mounts, ..Default::default() };
        let volumes = planned(&container, &image(&["/entry"], &[])).unwrap().spec.volumes;
        let targets: Vec<_> = volumes.iter().map(|volume| volume.target.to_str().unwrap()).collect();
        assert_eq!(targets, ["/data", "/etc/resolv.conf", "/data/deep/er"]);
        assert!(
            volumes.iter().all(|volume| volume.access == Access::Read),
            "the kubelet's resolv.conf is taken"
        );
    }

    #[test]
    fn a_localhost_profile_without_a_path_is_refused() {
        let profile = v1::SecurityProfile {
            profile_type: v1::security_profile::ProfileType::Localhost as i32,
            localhost_ref: String::new(),
        };
        assert_eq!(seccomp(Some(&profile)), Err(PlanError::Seccomp(String::new())));
    }

    #[test]
    fn stop_signals_have_many_spellings() {
        assert_eq!(["SIGTERM", "TERM", "15", "sigterm"].map(signal_number), [Some(15); 4]);
        assert_eq!(signal_number("SIGRTMIN+3"), Some(37));
        assert_eq!(signal_number("SIGRTMAXMINUS14"), Some(50));
        assert_eq!(signal_number("SIGNOTHING"), None);
    }
}

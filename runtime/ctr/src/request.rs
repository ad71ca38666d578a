//! From what was said to a [`Definition`], and from that to CRI's words: plain functions.

mod limits;
mod ports;
mod volumes;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use cri::v1;
use jiff::Timestamp;
use runtime::container::plan::signal_number;
use runtime::image::{Image, ImageConfig};

use crate::args::CreateArgs;
use crate::definition::{Definition, Network, Spread};

pub use volumes::anonymous;

/// What is known beside the arguments.
pub struct Known<'a> {
    /// A new id.
    pub id: String,
    /// The name, which is taken already.
    pub name: String,
    /// The image's id.
    pub image_id: &'a str,
    /// What the image says about itself.
    pub image: &'a ImageConfig,
    /// The container whose network is wanted.
    pub network: Network,
    /// Where named volumes are.
    pub volumes: &'a Path,
    /// Whether nobody will be attached.
    pub detached: bool,
    /// The time.
    pub now: Timestamp,
    /// An environment variable here.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
}

/// What the container is to be.
pub fn define(args: &CreateArgs, known: Known<'_>) -> Result<Definition> {
    let image = known.image;
    let execution = &image.config;
    let entrypoint = args.entrypoint.clone();
    let command = command(entrypoint.as_deref(), &args.command, image);
    if command.is_empty() {
        bail!("no command specified");
    }
    let mut env = Vec::new();
    for file in &args.env_file {
        let text = std::fs::read_to_string(file).with_context(|| format!("open {}", file.display()))?;
        for line in
            text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            env.extend(variable(line, known.environment)?);
        }
    }
    for given in &args.env {
        env.extend(variable(given, known.environment)?);
    }
    let is_bridge = known.network == Network::Bridge;
    let mut ports = Vec::new();
    if is_bridge {
        for given in &args.publish {
            ports.extend(ports::parse(given)?);
        }
        if args.publish_all {
            for exposed in execution.exposed_ports.keys() {
                ports.extend(ports::parse(exposed)?);
            }
        }
        ports::choose_free(&mut ports)?;
    } else if let Some(given) = args.publish.first() {
        // Docker says so too, and goes on.
        tracing::debug!(given, "published ports are discarded without a network of one's own");
    }
    let mut volumes = Vec::new();
    for given in &args.volume {
        volumes.push(volumes::parse(given, known.volumes)?);
    }
    for target in execution.volumes.keys() {
        if !volumes.iter().any(|volume| Path::new(&volume.target) == Path::new(target)) {
            volumes.push(anonymous(target, known.volumes));
        }
    }
    let stop_signal =
        args.stop_signal.as_deref().or((!execution.stop_signal.is_empty()).then_some(&execution.stop_signal));
    let hostname = args.hostname.clone().unwrap_or_else(|| known.id[..12].to_owned());
    Ok(Definition {
        created_at: known.now,
        image: args.image.clone(),
        image_id: known.image_id.to_owned(),
        entrypoint,
        args: args.command.clone(),
        command,
        env,
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        hostname,
        terminal: args.tty,
        interactive: args.interactive,
        detached: known.detached,
        auto_remove: args.rm,
        network: known.network,
        ports,
        volumes,
        memory: args.memory.as_deref().map(limits::memory).transpose()?,
        milli_cpus: args.cpus.as_deref().map(limits::milli_cpus).transpose()?,
        pids_limit: args.pids_limit.filter(|limit| *limit > 0),
        read_only: args.read_only,
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        privileged: args.privileged,
        labels: labels(&args.label, &execution.labels)?,
        stop_signal: stop_signal.map_or(Ok(libc::SIGTERM), signal)?,
        id: known.id,
        name: known.name,
    })
}

/// A signal by name or number.
pub fn signal(name: &str) -> Result<i32> {
    signal_number(name).with_context(|| format!("Invalid signal: {name}"))
}

/// A variable as it was given: `NAME=value`, or `NAME` for its value here; nothing when it has none here.
pub fn variable(given: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>> {
    let (name, value) = match given.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (given, environment(given)),
    };
    if name.is_empty() {
        bail!("invalid environment variable: {given}");
    }
    Ok(value.map(|value| format!("{name}={value}")))
}

fn labels(given: &[String], of_image: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let mut labels = of_image.clone();
    for label in given {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        if name.is_empty() {
            bail!("invalid label: {label}");
        }
        labels.insert(name.to_owned(), value.to_owned());
    }
    Ok(labels)
}

/// What will run: a program of one's own drops the image's arguments too.
fn command(entrypoint: Option<&str>, args: &[String], image: &ImageConfig) -> Vec<String> {
    let program: Vec<String> = match entrypoint {
        None => image.config.entrypoint.clone(),
        Some("") => Vec::new(),
        Some(program) => vec![program.to_owned()],
    };
    let rest = if args.is_empty() && entrypoint.is_none() { &image.config.cmd } else { args };
    program.into_iter().chain(rest.iter().cloned()).collect()
}

/// The image as this container is to see it: its user and program may be the container's own.
pub fn image_for(definition: &Definition, image: &Image) -> Image {
    let mut image = image.clone();
    if let Some(user) = &definition.user {
        image.config.config.user = user.clone();
    }
    image.config.config.entrypoint = Vec::new();
    image.config.config.cmd = definition.command.clone();
    image
}

/// The pod of a container, in CRI's words.
pub fn sandbox(definition: &Definition, folder: &Path) -> v1::PodSandboxConfig {
    let port = |port: &crate::definition::Port| v1::PortMapping {
        protocol: match port.protocol {
            net::Protocol::Tcp => v1::Protocol::Tcp,
            net::Protocol::Udp => v1::Protocol::Udp,
            net::Protocol::Sctp => v1::Protocol::Sctp,
        } as i32,
        container_port: port.container_port.into(),
        host_port: port.host_port.into(),
        host_ip: port.host_ip.map(|address| address.to_string()).unwrap_or_default(),
    };
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: definition.name.clone(),
            uid: definition.id.clone(),
            namespace: "ctr".to_owned(),
            attempt: 0,
        }),
        hostname: definition.hostname.clone(),
        log_directory: folder.display().to_string(),
        port_mappings: definition.ports.iter().map(port).collect(),
        linux: Some(v1::LinuxPodSandboxConfig {
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(definition)),
                privileged: definition.privileged,
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn namespaces(definition: &Definition) -> v1::NamespaceOption {
    let (network, target) = match &definition.network {
        Network::Bridge | Network::None => (v1::NamespaceMode::Pod, ""),
        Network::Host => (v1::NamespaceMode::Node, ""),
        Network::Container(id) => (v1::NamespaceMode::Target, id.as_str()),
    };
    v1::NamespaceOption {
        network: network as i32,
        pid: v1::NamespaceMode::Container as i32,
        ipc: v1::NamespaceMode::Pod as i32,
        target_id: target.to_owned(),
        ..Default::default()
    }
}

/// The container, in CRI's words. `hosts` is its `/etc/hosts` on the machine.
pub fn container(definition: &Definition, hosts: &Path) -> v1::ContainerConfig {
    let paths = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    let variable = |entry: &String| {
        let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
        v1::KeyValue { key: key.to_owned(), value: value.to_owned() }
    };
    let mut mounts = vec![v1::Mount {
        container_path: "/etc/hosts".to_owned(),
        host_path: hosts.display().to_string(),
        ..Default::default()
    }];
    mounts.retain(|hosts| !definition.volumes.iter().any(|volume| volume.target == hosts.container_path));
    mounts.extend(definition.volumes.iter().map(|volume| v1::Mount {
        container_path: volume.target.clone(),
        host_path: volume.source.display().to_string(),
        readonly: volume.read_only,
        propagation: match volume.propagation {
            Spread::Private => v1::MountPropagation::PropagationPrivate,
            Spread::Slave => v1::MountPropagation::PropagationHostToContainer,
            Spread::Shared => v1::MountPropagation::PropagationBidirectional,
        } as i32,
        ..Default::default()
    }));
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: definition.name.clone(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: definition.image_id.clone(), ..Default::default() }),
        working_dir: definition.workdir.clone().unwrap_or_default(),
        envs: definition.env.iter().map(variable).collect(),
        mounts,
        labels: definition.labels.clone().into_iter().collect(),
        log_path: crate::containers::LOG.to_owned(),
        stdin: definition.interactive,
        // Whoever came to type at its start is the only one; in the background it waits for somebody.
        stdin_once: definition.interactive && !definition.detached,
        tty: definition.terminal,
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(limits::resources(definition)),
            security_context: Some(v1::LinuxContainerSecurityContext {
                capabilities: Some(v1::Capability {
                    add_capabilities: definition.cap_add.clone(),
                    drop_capabilities: definition.cap_drop.clone(),
                    ..Default::default()
                }),
                privileged: definition.privileged,
                namespace_options: Some(namespaces(definition)),
                readonly_rootfs: definition.read_only,
                // The default profile.
                seccomp: Some(v1::SecurityProfile::default()),
                masked_paths: paths(cri::MASKED_PATHS),
                readonly_paths: paths(cri::READONLY_PATHS),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

/// `/etc/hosts` of a container.
pub fn hosts(hostname: &str, address: Option<std::net::Ipv4Addr>) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
                    ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
        .to_owned();
    if let Some(address) = address {
        text.push_str(&format!("{address}\t{hostname}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(entrypoint: &[&str], cmd: &[&str]) -> ImageConfig {
        let words = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let mut config = ImageConfig::default();
        config.config.entrypoint = words(entrypoint);
        config.config.cmd = words(cmd);
        config.config.labels.insert("of".into(), "image".into());
        config
    }

    fn defined(image: &ImageConfig, change: impl FnOnce(&mut CreateArgs)) -> Result<Definition> {
        let mut args = CreateArgs { image: "busybox".into(), ..Default::default() };
        change(&mut args);
        define(
            &args,
            Known {
                id: "0123456789abcdef".repeat(4),
                name: "web".into(),
                image_id: "sha256:1",
                image,
                network: Network::Bridge,
                volumes: Path::new("/volumes"),
                detached: false,
                now: Timestamp::UNIX_EPOCH,
                environment: &|name| (name == "HERE").then(|| "value".to_owned()),
            },
        )
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_program_of_ones_own_drops_the_images_arguments() {
        let image = image(&["/entry"], &["default"]);
        let command = |entrypoint: Option<&str>, args: &[&str]| {
            defined(&image, |given| {
                given.entrypoint = entrypoint.map(str::to_owned);
                given.command = strings(args);
            })
            .map(|definition| definition.command)
        };
        assert_eq!(command(None, &[]).unwrap(), ["/entry", "default"]);
        assert_eq!(command(None, &["own"]).unwrap(), ["/entry", "own"]);
        assert_eq!(command(Some("/own"), &[]).unwrap(), ["/own"]);
        assert_eq!(command(Some(""), &["sh"]).unwrap(), ["sh"]);
        assert_eq!(command(Some(""), &[]).unwrap_err().to_string(), "no command specified");
    }

    #[test]
    fn variables_without_a_value_have_the_one_from_here() {
        let definition = defined(&image(&["/entry"], &[]), |args| {
            args.env = strings(&["A=b=c", "HERE", "ELSEWHERE", "EMPTY="]);
            args.label = strings(&["of=me", "flag"]);
        })
        .unwrap();
        assert_eq!(definition.env, ["A=b=c", "HERE=value", "EMPTY="]);
        let labels: Vec<_> =
            definition.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(labels, ["flag=", "of=me"]);
        assert_eq!(definition.hostname, "0123456789ab");
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_dockers_words() {
        let image = image(&["/entry"], &[]);
        let refused = |change: fn(&mut CreateArgs)| format!("{:#}", defined(&image, change).unwrap_err());
        assert_eq!(
            refused(|args| args.memory = Some("much".into())),
            r#"invalid argument "much" for "-m, --memory" flag: invalid size: 'much'"#
        );
        assert_eq!(refused(|args| args.memory = Some("1m".into())), "Minimum memory limit allowed is 6MB");
        assert_eq!(
            refused(|args| args.stop_signal = Some("SIGNOTHING".into())),
            "Invalid signal: SIGNOTHING"
        );
        assert_eq!(refused(|args| args.env = strings(&["=x"])), "invalid environment variable: =x");
        assert_eq!(refused(|args| args.publish = strings(&["x:80"])), "invalid hostPort: x");
        assert_eq!(
            refused(|args| args.volume = strings(&["a:b:c:d"])),
            "invalid volume specification: 'a:b:c:d'"
        );
    }
}

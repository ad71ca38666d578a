//! A runtime for one test, and short words for what tests do with it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cri::v1::*;
use cri::{EventStream, RuntimeService};
use futures::{FutureExt, StreamExt};
use runtime::{Config, Runtime, ShimCommand};
use sha2::{Digest, Sha256};

use crate::census::{self, Census, Places};

/// Where the pod network of a world remembers its addresses.
pub const ADDRESSES: &str = "state-of-addresses";

/// The image that all tests use.
pub const IMAGE: &str = "docker.io/coracle/test:1";

/// A runtime with directories and a control group of its own.
pub struct World {
    pub runtime: Arc<Runtime>,
    pub config: Config,
    pub directory: Directory,
}

/// Where a test works.
pub struct Directory(PathBuf);

impl Directory {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Runs a test in namespaces of its own, and afterwards looks for what it left. One that fails leaves nothing either.
pub fn in_world<F: Future<Output = World>>(test: impl FnOnce(World) -> F) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let namespaces = nix::sched::CloneFlags::CLONE_NEWNS | nix::sched::CloneFlags::CLONE_NEWNET;
    nix::sched::unshare(namespaces).unwrap();
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    // The streaming server listens on the loopback.
    let raised =
        std::process::Command::new("busybox").args(["ip", "link", "set", "lo", "up"]).status().unwrap();
    assert!(raised.success());
    // Threads made from here on are in these namespaces too.
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    executor.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        // No test before has had this directory's name, while numbers of processes come again: what one left that was
        // killed is none of ours.
        let name = directory.path().file_name().unwrap().to_string_lossy();
        let group = format!("/coracle-test-{}", name.trim_start_matches('.'));
        let before = Census::take(&places(directory.path(), &group));
        let world = World::new(Directory(directory.path().to_owned()), group).await;
        let config = world.config.clone();
        let story = async { test(world).await.assert_nothing_is_left(&before).await };
        if let Err(panic) = AssertUnwindSafe(story).catch_unwind().await {
            if let Err(error) = runtime::reset(&config).await {
                eprintln!("failed to clean up after a failed test: {error}");
            }
            resume_unwind(panic);
        }
    });
}

/// Where a world in this directory may leave something.
fn places(directory: &Path, group: &str) -> Places {
    let directories = ["images", "state", ADDRESSES].map(|name| directory.join(name)).into();
    Places { directories, cgroup_parent: group.to_owned() }
}

/// The shim alone, built like the test; or, where `CORACLE_SHIM` names it, a binary that is shipped (which has no
/// failpoints).
fn shim_command() -> ShimCommand {
    match std::env::var_os("CORACLE_SHIM") {
        Some(coracle) => ShimCommand { program: Some(coracle.into()), ..ShimCommand::default() },
        None => {
            ShimCommand { program: Some(env!("CARGO_BIN_EXE_coracle-shim").into()), arguments: Vec::new() }
        }
    }
}

async fn difference(before: &Census, places: &Places) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let difference = Census::take(places).difference(before);
        if difference.is_empty() || Instant::now() > deadline {
            return difference;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl World {
    async fn new(directory: Directory, group: String) -> World {
        let world = World::with(directory, group).await;
        let archive = busybox_archive(world.directory.path());
        world.runtime.images().import(File::open(archive).unwrap(), None).unwrap();
        world
    }

    /// A second server in the directory of a first.
    pub async fn in_directory(directory: PathBuf, group: String) -> World {
        World::with(Directory(directory), group).await
    }

    async fn with(directory: Directory, cgroup_parent: String) -> World {
        let config = Config {
            root: directory.path().join("images"),
            state: directory.path().join("state"),
            cgroup_parent,
            shim: shim_command(),
            network: None,
            streaming_address: Config::LOOPBACK,
            registries: Default::default(),
            archives: None,
            log_limit: None,
        };
        let runtime = Runtime::start(config.clone()).await.unwrap();
        World { runtime, config, directory }
    }

    /// Ends the server as a crash would, as far as one process can: its tasks stop, its memory is forgotten.
    pub async fn restart(self) -> World {
        self.restart_after(|_| {}).await
    }

    /// The same with a pod network.
    pub async fn with_network(mut self, network: Arc<net::PodNetwork>) -> World {
        self.config.network = Some(network);
        self.restart().await
    }

    /// The same with a network of its own, and addresses for its pods.
    pub async fn with_pod_network(self) -> World {
        let network = pod_network(self.directory.path());
        let world = self.with_network(network).await;
        world.set_pod_cidr().await;
        world
    }

    /// As the kubelet does once its node has a range.
    pub async fn set_pod_cidr(&self) {
        let network_config = Some(NetworkConfig { pod_cidr: "10.244.3.0/24".into() });
        let runtime_config = Some(RuntimeConfig { network_config });
        let request = UpdateRuntimeConfigRequest { runtime_config };
        self.runtime.update_runtime_config(request).await.unwrap();
    }

    /// As [`World::restart`], with something happening while there is no server.
    pub async fn restart_after(mut self, meanwhile: impl FnOnce(&mut Config)) -> World {
        drop(self.runtime);
        meanwhile(&mut self.config);
        self.runtime = Runtime::start(self.config.clone()).await.unwrap();
        self
    }

    /// The control groups that this test made, one in each hierarchy.
    pub fn groups(&self) -> Vec<PathBuf> {
        let name = self.config.cgroup_parent.trim_start_matches('/');
        let all = census::groups(&self.config.cgroup_parent).into_iter().map(PathBuf::from);
        all.filter(|group| group.ends_with(name)).collect()
    }

    /// Where this world may leave something.
    pub fn places(&self) -> Places {
        places(self.directory.path(), &self.config.cgroup_parent)
    }

    /// What is here and was not before, or the other way round. What the kernel is still taking away is waited for.
    pub async fn difference_to(&self, before: &Census) -> Vec<String> {
        difference(before, &self.places()).await
    }

    async fn assert_nothing_is_left(self, before: &Census) {
        let places = self.places();
        let World { runtime, config, directory: _ } = self;
        for sandbox in runtime.list_pod_sandbox(Default::default()).await.unwrap().items {
            runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: sandbox.id }).await.unwrap();
        }
        assert_eq!(fs::read_dir(config.state.join("pods")).unwrap().count(), 0, "pods are left");
        assert_eq!(
            fs::read_dir(config.root.join("snapshots")).unwrap().count(),
            0,
            "writable layers are left"
        );
        drop(runtime);
        runtime::reset(&config).await.unwrap();
        let difference = difference(before, &places).await;
        assert!(difference.is_empty(), "{}", difference.join("\n"));
    }

    /// Imports an archive, as a call that may fail.
    pub fn import(&self, archive: &Path) -> Result<(), cri::Error> {
        let imported = self.runtime.images().import(File::open(archive).unwrap(), None);
        imported.map(drop).map_err(|error| cri::Error::unknown(error.to_string()))
    }

    pub async fn sandbox(&self) -> String {
        self.sandbox_with(|_| {}).await
    }

    pub async fn sandbox_with(&self, change: impl FnOnce(&mut PodSandboxConfig)) -> String {
        let config = self.sandbox_config(change);
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        self.runtime.run_pod_sandbox(request).await.unwrap().pod_sandbox_id
    }

    pub fn sandbox_config(&self, change: impl FnOnce(&mut PodSandboxConfig)) -> PodSandboxConfig {
        let mut config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: "web".into(),
                uid: "uid-1".into(),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: "web-0".into(),
            log_directory: self.directory.path().join("logs").display().to_string(),
            dns_config: Some(DnsConfig { servers: vec!["10.96.0.10".into()], ..Default::default() }),
            labels: HashMap::from([("app".into(), "web".into())]),
            ..Default::default()
        };
        change(&mut config);
        config
    }

    /// A container of a shell script, with what Kubernetes gives by default.
    pub fn script(&self, name: &str, script: &str) -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(ImageSpec { image: IMAGE.into(), ..Default::default() }),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                resources: Some(LinuxContainerResources::default()),
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        pid: NamespaceMode::Container as i32,
                        ..Default::default()
                    }),
                    seccomp: Some(SecurityProfile::default()),
                    masked_paths: ["/proc/keys", "/proc/kcore", "/proc/scsi", "/sys/firmware"]
                        .map(String::from)
                        .into(),
                    readonly_paths: ["/proc/sys", "/proc/irq"].map(String::from).into(),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }
    }

    pub async fn create(&self, sandbox: &str, config: ContainerConfig) -> Result<String, cri::Error> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: None,
        };
        Ok(self.runtime.create_container(request).await?.container_id)
    }

    pub async fn start(&self, container: &str) -> Result<(), cri::Error> {
        let request = StartContainerRequest { container_id: container.to_owned() };
        self.runtime.start_container(request).await.map(drop)
    }

    pub async fn run(&self, sandbox: &str, config: ContainerConfig) -> String {
        let container = self.create(sandbox, config).await.unwrap();
        self.start(&container).await.unwrap();
        container
    }

    /// Runs a script to its end: the exit code, and what it wrote.
    pub async fn outcome(&self, sandbox: &str, config: ContainerConfig) -> (i32, String) {
        let log = config.log_path.clone();
        let events = self.events().await;
        let container = self.run(sandbox, config).await;
        let status = self.end_of(&container, events).await;
        (status.exit_code, self.log(&log))
    }

    pub async fn status(&self, container: &str) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: container.to_owned(), verbose: false };
        self.runtime.container_status(request).await.unwrap().status.unwrap()
    }

    pub async fn events(&self) -> EventStream {
        self.runtime.get_container_events(GetEventsRequest {}).await.unwrap()
    }

    /// Waits until a container has ended, by its event.
    pub async fn end_of(&self, container: &str, mut events: EventStream) -> ContainerStatus {
        let status = self.status(container).await;
        if status.state() == ContainerState::ContainerExited {
            return status;
        }
        let wait = async {
            while let Some(event) = events.next().await {
                let event = event.unwrap();
                if event.container_id == container
                    && event.container_event_type() == ContainerEventType::ContainerStoppedEvent
                {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the container ends");
        self.status(container).await
    }

    /// What a container has written, without times.
    pub fn log(&self, name: &str) -> String {
        let log = fs::read_to_string(self.directory.path().join("logs").join(name)).unwrap_or_default();
        log.lines().map(|line| line.split_once(' ').unwrap().1.to_owned() + "\n").collect()
    }

    pub async fn exec(
        &self,
        container: &str,
        command: &[&str],
        timeout: i64,
    ) -> Result<ExecSyncResponse, cri::Error> {
        let cmd = command.iter().map(|word| word.to_string()).collect();
        self.runtime.exec_sync(ExecSyncRequest { container_id: container.to_owned(), cmd, timeout }).await
    }

    pub async fn stop(&self, container: &str, timeout: i64) {
        let request = StopContainerRequest { container_id: container.to_owned(), timeout };
        self.runtime.stop_container(request).await.unwrap();
    }
}

/// A program that needs no libraries.
pub fn busybox() -> Vec<u8> {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let busybox = std::env::split_paths(&places).find_map(|place| fs::read(place.join("busybox")).ok());
    busybox.expect("busybox-static is installed")
}

/// A docker-archive of an image with busybox and nothing else.
pub fn busybox_archive(directory: &Path) -> PathBuf {
    let busybox = busybox();
    let mut layer = tar::Builder::new(Vec::new());
    for name in ["bin", "etc", "tmp", "home"] {
        append(&mut layer, tar::EntryType::Directory, name, 0o755, b"");
    }
    append(&mut layer, tar::EntryType::Regular, "bin/busybox", 0o755, &busybox);
    let applets = "sh cat echo sleep id hostname ls mount mkdir touch kill ps env head dd grep true false nproc readlink \
                   stat tty stty seq od mknod ip nc test wc tr";
    for applet in applets.split_whitespace() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        own(&mut header);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    append(
        &mut layer,
        tar::EntryType::Regular,
        "etc/passwd",
        0o644,
        b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/home:/bin/sh\n",
    );
    append(&mut layer, tar::EntryType::Regular, "etc/group", 0o644, b"root:x:0:\nwww:x:34:\nssl:x:50:web\n");
    let path = directory.join("busybox.tar");
    write_archive(IMAGE, layer.into_inner().unwrap(), &path);
    path
}

/// A docker-archive of an image with one small file.
pub fn tiny_archive(name: &str, path: &Path) {
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, tar::EntryType::Regular, "file", 0o644, b"tiny");
    write_archive(name, layer.into_inner().unwrap(), path);
}

pub fn write_archive(name: &str, layer: Vec<u8>, path: &Path) {
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Env": ["PATH=/bin", "COLOR=blue"], "Cmd": ["/bin/sh"], "WorkingDir": "/home" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex::encode(Sha256::digest(&layer)))] }
    });
    let manifest =
        serde_json::json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
    let mut archive = tar::Builder::new(File::create(path).unwrap());
    append(
        &mut archive,
        tar::EntryType::Regular,
        "config.json",
        0o644,
        &serde_json::to_vec(&config).unwrap(),
    );
    append(&mut archive, tar::EntryType::Regular, "layer.tar", 0o644, &layer);
    append(
        &mut archive,
        tar::EntryType::Regular,
        "manifest.json",
        0o644,
        &serde_json::to_vec(&manifest).unwrap(),
    );
    archive.into_inner().unwrap();
}

pub fn append<W: std::io::Write>(
    archive: &mut tar::Builder<W>,
    kind: tar::EntryType,
    name: &str,
    mode: u32,
    content: &[u8],
) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    own(&mut header);
    archive.append_data(&mut header, name, content).unwrap();
}

fn own(header: &mut tar::Header) {
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
}

/// The pod network of a world in `directory`.
pub fn pod_network(directory: &Path) -> Arc<net::PodNetwork> {
    let config = net::Config {
        bridge: "coracle0".into(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        state_dir: directory.join(ADDRESSES),
    };
    Arc::new(net::PodNetwork::new(config).unwrap())
}

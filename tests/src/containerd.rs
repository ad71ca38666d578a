//! Debian's containerd on a test's machine: its own configuration, sockets, images and pod network.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{Machine, cluster::IMAGE, eventually};

/// What holds a sandbox: containerd wants an image for it.
const PAUSE: &str = "coracle.test/pause:1";
/// Sockets have to be short; `/run` is the machine's own.
const SOCKET: &str = "/run/containerd.sock";
/// What containerd, its shims and its network plug-ins keep outside of their configuration.
const OWN_FOLDERS: &str = "\
set -e
mount -t tmpfs tmpfs /run
mkdir -p /var/lib/cni
mount -t tmpfs tmpfs /var/lib/cni
";
/// The usual bridge; containerd fills in the node's block when the kubelet tells it.
const NETWORK: &str = r#"{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "{{.PodCIDR}}"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
"#;

/// A running containerd. Its shims, like everything on the machine, end with the machine.
pub struct Containerd {
    daemon: Child,
    config: PathBuf,
}

impl Containerd {
    /// Starts it on `machine`, with the images that tests need; it keeps its data in `dir`.
    pub fn start(machine: &Machine, dir: &Path) -> Containerd {
        machine.sh(OWN_FOLDERS).ok();
        let config = dir.join("config.toml");
        std::fs::create_dir_all(dir.join("cni")).expect("a folder for the network's configuration");
        std::fs::write(dir.join("cni.template"), NETWORK).expect("the network's template is written");
        std::fs::write(&config, configuration(dir)).expect("containerd's configuration is written");
        let mut containerd = Containerd { daemon: run(machine, &config), config };
        containerd.wait(machine);
        for (name, command) in [(PAUSE, r#"["sleep", "2147483647"]"#), (IMAGE, r#"["sh"]"#)] {
            import(machine, dir, name, command);
        }
        containerd
    }

    /// What the kubelet is told.
    pub fn endpoint() -> String {
        format!("unix://{SOCKET}")
    }

    /// Kills the daemon; shims and containers stay.
    pub fn kill(&mut self) {
        self.daemon.kill().expect("containerd is our child");
        self.daemon.wait().expect("containerd is our child");
    }

    /// Starts the daemon again.
    pub fn restart(&mut self, machine: &Machine) {
        self.daemon = run(machine, &self.config);
        self.wait(machine);
    }

    fn wait(&mut self, machine: &Machine) {
        eventually("containerd answers", || {
            let said = machine.sh(&format!("ctr -a {SOCKET} version"));
            if said.code == 0 { Ok(()) } else { Err(said.err) }
        });
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // It may have been killed already; whatever is left ends with the machine.
        self.daemon.kill().ok();
        self.daemon.wait().ok();
    }
}

fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{dir}/cni"
conf_template = "{dir}/cni.template"
"#
    )
}

fn run(machine: &Machine, config: &Path) -> Child {
    let log = std::fs::File::create(config.with_extension("log")).expect("a log for containerd");
    let mut command = machine.command("containerd");
    command.arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("containerd can be run; scripts/setup test installs it")
}

fn import(machine: &Machine, dir: &Path, name: &str, command: &str) {
    let archive = dir.join("image.tar");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/busybox-image");
    let made = Command::new(script).arg(&archive).arg(name).env("COMMAND", command).status();
    assert!(made.expect("scripts/busybox-image runs").success(), "scripts/busybox-image failed");
    machine.sh(&format!("ctr -a {SOCKET} -n k8s.io images import {}", archive.display())).ok();
}

//! The program itself: up, down, reset, status, and its errors.

use e2e::{Cluster, Machine, eventually};

use crate::rollout::web;

#[test]
fn up_twice_down_and_up_again_keeps_what_is_stored() {
    let cluster = Cluster::start();
    assert!(cluster.up().ok().contains("running already"));
    cluster.apply(&web("web", 1));
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    let status = cluster.coracle("status", &[]).ok();
    assert!(status.contains("1 of 1 Running"), "{status}");
    let merged = std::fs::read_to_string(cluster.dir().join(".kube/config")).unwrap();
    assert!(merged.contains("current-context: coracle"), "{merged}");

    cluster.coracle("down", &["--grace=1"]).ok();
    assert_eq!(cluster.processes(), Vec::<String>::new(), "pods included");
    let said = cluster.coracle("status", &[]).fails();
    assert!(said.contains("no cluster runs"), "{said}");
    cluster.up().ok();
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
}

#[test]
fn reset_leaves_the_machine_as_it_was() {
    let machine = Machine::new();
    let before = machine.traces();
    let cluster = Cluster::prepared(machine, &[]);
    cluster.up().ok();
    let image = e2e::cluster::image_file();
    cluster.coracle("image import", &[&image.display().to_string()]).ok();
    cluster.apply(&web("web", 3));
    cluster.kubectl("expose deployment web --port=80 --target-port=http --type=NodePort").ok();
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();

    cluster.coracle("reset", &[]).ok();
    assert_eq!(cluster.machine.traces(), before);
    assert_eq!(cluster.processes(), Vec::<String>::new());
    assert_eq!(cluster.cgroups(), Vec::<std::path::PathBuf>::new());
    assert!(!cluster.data_dir().exists());
    assert!(!std::fs::read_to_string(cluster.dir().join(".kube/config")).unwrap().contains("server:"));
    cluster.coracle("reset", &[]).ok();
}

#[test]
fn what_hinders_the_start_is_named_in_one_sentence_and_nothing_is_left() {
    let cluster = Cluster::prepared(Machine::new(), &[]);
    let mut squatter = cluster.machine.command("busybox").args(["nc", "-l", "-p", "6443"]).spawn().unwrap();
    eventually("the port is taken", || {
        let listening = cluster.machine.sh("ss -ltn").out;
        if listening.contains(":6443") { Ok(()) } else { Err(listening) }
    });
    let said = cluster.up().fails();
    assert!(said.contains("port 6443 of the API server is taken"), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "{said}");
    squatter.kill().unwrap();
    squatter.wait().unwrap();

    cluster.up().ok();
    cluster.coracle("down", &[]).ok();
    let format =
        cluster.machine.sh(&format!("find {}/store -name '*format*' -type f", cluster.data_dir().display()));
    std::fs::write(format.out.trim(), "999\n").unwrap();
    let said = cluster.up().fails();
    assert!(said.contains("format 999"), "{said}");
    assert_eq!(cluster.processes(), Vec::<String>::new());

    let mut as_nobody = cluster.machine.command("setpriv");
    let said: e2e::Said = as_nobody
        .args(["--reuid=65534", "--clear-groups", &e2e::cluster::binary(), "up"])
        .output()
        .unwrap()
        .into();
    assert!(said.fails().contains("needs root"));
}

#[test]
fn every_subcommand_explains_itself() {
    let binary = e2e::cluster::binary();
    for subcommand in
        ["", "up", "down", "reset", "status", "server", "version", "watch", "image", "image import"]
    {
        let words = subcommand.split_whitespace().chain(["--help"]);
        let output = std::process::Command::new(&binary).args(words).output().unwrap();
        assert!(output.status.success(), "{subcommand}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("Usage:"), "{subcommand}");
    }
    let output = std::process::Command::new(&binary).arg("version").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("coracle "));
}

#[test]
fn the_control_loops_can_be_watched() {
    use std::io::{BufRead, BufReader};
    let cluster = Cluster::start();
    cluster.apply(&web("web", 1));
    let mut watch = cluster.coracle_command("watch").stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("default/web")), "the deployment's turns are shown");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn everything_can_be_kept_in_etcd() {
    let machine = Machine::new();
    let dir = tempfile::tempdir().unwrap();
    let etcd = machine
        .command("setpriv")
        .args(["--pdeathsig", "KILL", "etcd"])
        .args(["--data-dir", &dir.path().display().to_string(), "--logger=zap", "--log-level=error"])
        .spawn()
        .unwrap();
    let _etcd = Killed(etcd);
    eventually("etcd answers", || {
        let said = machine.sh("curl -fsS http://127.0.0.1:2379/health");
        if said.out.contains("true") { Ok(()) } else { Err(format!("{said:?}")) }
    });
    let cluster = Cluster::prepared(machine, &["--etcd-servers=http://127.0.0.1:2379"]);
    cluster.up().ok();
    let image = e2e::cluster::image_file();
    cluster.coracle("image import", &[&image.display().to_string()]).ok();
    cluster.apply(&web("web", 2));
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    let key = "ETCDCTL_API=3 etcdctl get --keys-only /registry/deployments/default/web";
    if cluster.machine.sh("command -v etcdctl").code == 0 {
        assert!(cluster.machine.sh(key).ok().contains("/registry/deployments/default/web"));
    }
    cluster.coracle("down", &["--grace=1"]).ok();
}

/// A process that ends with the test, also with one that fails.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

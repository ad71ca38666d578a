//! Programs with client libraries that others wrote.

use std::{path::Path, process::Command};

use e2e::{Cluster, Said};

/// Where a client library is, fetched once.
fn library(language: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/client-library");
    let said: Said = Command::new(script).arg(language).output().unwrap().into();
    said.ok().trim().to_string()
}

/// Runs `tests/clients/<script>` against a cluster of its own.
fn tell(program: &str, script: &str, variable: &str, library: &str) {
    let cluster = Cluster::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let mut command = cluster.machine.command(program);
    command.arg(script).env(variable, library);
    command.env("KUBECONFIG", cluster.data_dir().join("kubeconfig")).env("PYTHONDONTWRITEBYTECODE", "1");
    let said: Said = command.output().unwrap().into();
    assert_eq!(said.ok(), "done\n");
}

#[test]
fn the_python_client_works() {
    tell("python3", "story.py", "PYTHONPATH", &library("python"));
}

#[test]
fn the_javascript_client_works() {
    tell("node", "story.mjs", "NODE_PACKAGES", &library("javascript"));
}

/// kubectl's typed commands speak protobuf both ways: what they print was decoded by Go from our bytes.
#[test]
fn kubectl_speaks_protobuf() {
    let cluster = Cluster::start();
    let created =
        cluster.kubectl("--v=8 create deployment web --image=busybox:1.35 --replicas=2 --port=80 -o json");
    // Once in what was sent and once in what came back.
    let spoken = created.err.matches("Content-Type: application/vnd.kubernetes.protobuf").count();
    assert!(spoken >= 2, "{}", created.err);
    let deployment: serde_json::Value = serde_json::from_str(&created.ok()).unwrap();
    let stored = cluster.get("deployment web");
    let template = |object: &serde_json::Value| object["spec"]["template"]["spec"].clone();
    assert_eq!(template(&deployment), template(&stored));
    assert_eq!(deployment["metadata"]["uid"], stored["metadata"]["uid"]);
    cluster.kubectl("create secret generic s --from-literal=key=value").ok();
    assert_eq!(cluster.get("secret s")["data"]["key"], "dmFsdWU=");
    let again = cluster.kubectl("create secret generic s --from-literal=key=value").fails();
    assert_eq!(again.trim(), "error: failed to create secret secrets \"s\" already exists");
    let described = cluster.kubectl("describe deployment web").ok();
    assert!(described.contains("25% max unavailable, 25% max surge"), "{described}");
    assert_eq!(cluster.kubectl("auth can-i create pods").ok(), "yes\n");
}

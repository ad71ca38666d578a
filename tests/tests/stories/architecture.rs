//! Who may know whom, held against what cargo says.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

/// docs/ARCHITECTURE.md draws this table; a new arrow is a design change and belongs there first.
const ARROWS: [(&str, &[&str]); 17] = [
    ("api", &[]),
    ("store", &[]),
    ("daemon", &[]),
    ("cri", &[]),
    ("net", &[]),
    ("client", &["api", "daemon"]),
    ("apiserver", &["api", "daemon", "store"]),
    ("controller-manager", &["api", "client", "daemon"]),
    ("scheduler", &["api", "client", "daemon"]),
    ("kubelet", &["api", "client", "cri", "daemon"]),
    ("kube-proxy", &["api", "client", "net"]),
    ("dns", &["api", "client", "daemon"]),
    ("runtime", &["cri", "daemon", "net"]),
    ("ctr", &["cri", "net", "runtime"]),
    (
        "coracle",
        &[
            "api",
            "apiserver",
            "client",
            "controller-manager",
            "cri",
            "ctr",
            "daemon",
            "dns",
            "kube-proxy",
            "kubelet",
            "net",
            "runtime",
            "scheduler",
            "store",
        ],
    ),
    ("e2e", &[]),
    ("bench", &["cri"]),
];

#[test]
fn rooms_know_only_whom_they_may_know() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--locked", "--offline"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let rooms: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    assert_eq!(rooms, allowed.keys().copied().collect(), "every room has its line in the table");
    for package in packages {
        let room = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["name"].as_str().unwrap();
            // What only tests use is no arrow of the room itself.
            let is_own = dependency["kind"] != "dev" && rooms.contains(name);
            assert!(!is_own || allowed[room].contains(&name), "{room} must not know {name}");
        }
    }
}

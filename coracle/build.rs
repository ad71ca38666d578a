//! How the binary is linked, and which commit it is made from.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    tell_commit();
    // At a fixed address. One that can be anywhere has to be adjusted to its place at every start, and each of its
    // processes then has a copy of its own of all that was adjusted: 4.5 MB for every pod's shim, and a millisecond.
    if std::env::var("CARGO_CFG_TARGET_FEATURE").is_ok_and(|features| features.contains("crt-static")) {
        println!("cargo:rustc-link-arg-bins=-static");
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}

/// The commit that `kubectl version` shows: CORACLE_COMMIT, or what git says; empty where there is neither.
fn tell_commit() {
    println!("cargo:rerun-if-env-changed=CORACLE_COMMIT");
    let commit = std::env::var("CORACLE_COMMIT").ok().or_else(|| {
        // A source archive that lies in somebody else's repository is not of its commit.
        git(&["rev-parse", "--show-prefix"]).filter(|prefix| prefix == "coracle/")?;
        let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
        println!("cargo:rerun-if-changed={log}");
        git(&["rev-parse", "HEAD"])
    });
    println!("cargo:rustc-env=CORACLE_COMMIT={}", commit.unwrap_or_default());
}

/// What git prints; nothing in a tree that has no history.
fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}

//! What the machine must have, looked at before anything is started: each lack is one sentence.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    path::Path,
};

use anyhow::{Context, Result, bail};

use crate::settings::Settings;

/// The controllers without which pods cannot be kept apart.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Whether the caller may do what a node has to do.
pub(crate) fn root(what: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { bail!("{what} needs root: run it with sudo") }
}

/// Everything that a server needs of the machine.
pub(crate) fn machine(settings: &Settings) -> Result<()> {
    containers()?;
    port(settings.secure_port, "the API server", "--secure-port")?;
    port(settings.kubelet_port, "the kubelet", "--kubelet-port")
}

/// What containers need of the machine.
pub(crate) fn containers() -> Result<()> {
    filesystem("overlay")?;
    controllers()?;
    program("iptables-restore", "iptables")
}

fn filesystem(name: &str) -> Result<()> {
    let is_there = || -> Result<bool> {
        let known = std::fs::read_to_string("/proc/filesystems").context("cannot read /proc/filesystems")?;
        Ok(known.lines().any(|line| line.split_whitespace().last() == Some(name)))
    };
    if is_there()? {
        return Ok(());
    }
    // A module that is not loaded is not listed.
    let loaded = std::process::Command::new("modprobe").arg(name).status();
    if loaded.is_ok_and(|status| status.success()) && is_there()? {
        return Ok(());
    }
    bail!(
        "this kernel has no {name} file system, which images need: load the module {name} or use another kernel"
    )
}

fn controllers() -> Result<()> {
    // Version 2 names its controllers in one file, version 1 all of the kernel's in another.
    let unified = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let own = std::fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
    match missing_controller(&unified, &own) {
        None => Ok(()),
        Some(controller) => bail!(
            "this kernel has no {controller} cgroup controller: enable it (on the kernel's command line: \
             cgroup_enable={controller}) and reboot"
        ),
    }
}

/// The first controller that neither version of cgroups has. `unified` is version 2's `cgroup.controllers`,
/// `own` a process's `/proc/PID/cgroup`.
fn missing_controller(unified: &str, own: &str) -> Option<&'static str> {
    let hierarchies = own.lines().filter_map(|line| line.split(':').nth(1));
    let in_hierarchies: Vec<&str> = hierarchies.flat_map(|names| names.split(',')).collect();
    let is_there = |controller: &str| {
        unified.split_whitespace().any(|name| name == controller) || in_hierarchies.contains(&controller)
    };
    CONTROLLERS.into_iter().find(|controller| !is_there(controller))
}

fn program(name: &str, package: &str) -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(name).is_file());
    if found { Ok(()) } else { bail!("{name} is not installed: install the package {package}") }
}

fn port(port: u16, who: &str, flag: &str) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            bail!("port {port} of {who} is taken by another program: stop it or choose another with {flag}")
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen on port {port} for {who}")),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_may_come_from_either_version_and_a_missing_one_is_named() {
        assert_eq!(missing_controller("cpuset cpu io memory pids", "0::/user.slice"), None);
        assert_eq!(missing_controller("", "5:memory:/\n4:cpu,cpuacct:/\n3:pids:/\n0::/"), None);
        assert_eq!(missing_controller("cpu pids", "0::/"), Some("memory"), "off by default on some boards");
    }
}

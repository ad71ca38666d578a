//! What this machine has.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::NodeSystemInfo;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use nix::sys::statvfs::statvfs;
use nix::sys::utsname::uname;

use crate::KubeletError;
use crate::config::Config;
use crate::context::{NodeFacts, RuntimeFeatures, RuntimeName};
use crate::sandbox::dns::parse_resolv_conf;

const VERSION: &str = "v1.37.0+coracle";
const MEBIBYTE: u64 = 1024 * 1024;
/// Kept free for the node itself, as upstream's hard eviction threshold does.
const MEMORY_RESERVE: u64 = 100 * MEBIBYTE;
/// Of a disk, this share is kept free.
const DISK_RESERVE_PERCENT: u64 = 5;

/// What the machine has, found out once.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    cpus: u64,
    memory: u64,
    disk: u64,
    max_pods: u32,
    /// What the runtime can do.
    pub features: RuntimeFeatures,
    /// `status.nodeInfo` of the Node.
    pub info: NodeSystemInfo,
}

impl Machine {
    /// Finds out what there is.
    pub fn inspect(config: &Config, runtime: &RuntimeName) -> Result<Machine, KubeletError> {
        let meminfo = read("/proc/meminfo")?;
        let disk = statvfs(&config.root)
            .map_err(|errno| KubeletError::Machine { path: config.root.clone(), source: errno.into() })?;
        Ok(Machine {
            cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u64),
            memory: meminfo_bytes(&meminfo, "MemTotal").unwrap_or(0),
            disk: disk.blocks() * disk.fragment_size(),
            max_pods: config.max_pods,
            features: runtime.features,
            info: system_info(runtime),
        })
    }

    /// `status.capacity` of the Node.
    pub fn capacity(&self) -> BTreeMap<String, Quantity> {
        self.amounts(self.memory, self.disk)
    }

    /// `status.allocatable` of the Node: what pods may use.
    pub fn allocatable(&self) -> BTreeMap<String, Quantity> {
        let memory = self.memory.saturating_sub(MEMORY_RESERVE);
        self.amounts(memory, self.disk / 100 * (100 - DISK_RESERVE_PERCENT))
    }

    fn amounts(&self, memory: u64, disk: u64) -> BTreeMap<String, Quantity> {
        let amounts = [
            ("cpu", self.cpus.to_string()),
            ("memory", format!("{}Ki", memory / 1024)),
            ("ephemeral-storage", format!("{}Ki", disk / 1024)),
            ("pods", self.max_pods.to_string()),
        ];
        amounts.into_iter().map(|(name, amount)| (name.to_string(), Quantity(amount))).collect()
    }

    /// What pods have to know.
    pub(crate) fn facts(&self, config: &Config, runtime: RuntimeName) -> NodeFacts {
        let resolv_conf = std::fs::read_to_string(&config.resolv_conf).unwrap_or_else(|error| {
            let path = config.resolv_conf.display();
            tracing::warn!(%path, %error, "cannot read the node's resolver configuration, pods get none of it");
            String::new()
        });
        NodeFacts {
            allocatable: self.allocatable(),
            memory: i64::try_from(self.memory).unwrap_or(i64::MAX),
            dns: parse_resolv_conf(&resolv_conf),
            runtime,
        }
    }
}

fn system_info(runtime: &RuntimeName) -> NodeSystemInfo {
    let line = |path: &str| read(path).map(|text| text.trim().to_string()).unwrap_or_default();
    let kernel = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    NodeSystemInfo {
        architecture: architecture().to_string(),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("{}://{}", runtime.name, runtime.version),
        kernel_version: kernel,
        kube_proxy_version: String::new(),
        kubelet_version: VERSION.to_string(),
        machine_id: line("/etc/machine-id"),
        operating_system: "linux".to_string(),
        os_image: os_name(&read("/etc/os-release").unwrap_or_default()),
        system_uuid: line("/sys/class/dmi/id/product_uuid"),
        ..NodeSystemInfo::default()
    }
}

/// The machine's architecture in Go's words.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn os_name(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_string()
}

/// A field of `/proc/meminfo`.
pub(crate) fn meminfo_bytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn read(path: impl AsRef<Path>) -> Result<String, KubeletError> {
    let path = path.as_ref();
    std::fs::read_to_string(path).map_err(|source| KubeletError::Machine { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_and_the_distributions_files_are_read() {
        let text = "MemTotal:       24576 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\n";
        assert_eq!(meminfo_bytes(text, "MemTotal"), Some(24 * MEBIBYTE));
        assert_eq!(meminfo_bytes(text, "MemAvailable"), Some(MEBIBYTE));
        assert_eq!(meminfo_bytes(text, "Swap"), None);
        assert_eq!(os_name("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
    }

    #[test]
    fn something_is_kept_back_from_pods() {
        let machine = Machine {
            cpus: 2,
            memory: 1024 * MEBIBYTE,
            disk: 1000 * 1024,
            max_pods: 110,
            features: RuntimeFeatures::default(),
            info: NodeSystemInfo::default(),
        };
        assert_eq!(machine.capacity()["memory"].0, "1048576Ki");
        assert_eq!(machine.allocatable()["memory"].0, "946176Ki");
        assert_eq!(machine.allocatable()["ephemeral-storage"].0, "950Ki");
        assert_eq!(
            (machine.capacity()["cpu"].0.as_str(), machine.capacity()["pods"].0.as_str()),
            ("2", "110")
        );
    }
}

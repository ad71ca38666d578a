//! What pods and containers have used.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use cri::Error;
use cri::v1::{self, UInt64Value};
use jiff::Timestamp;

use super::metrics::metrics;
use super::sandboxes::has_labels;
use super::state::{Container, Sandbox};
use super::{Shared, nanoseconds};
use crate::cgroup::{Cgroup, stats};
use crate::image::disk_usage;

impl Shared {
    pub(super) async fn container_stats(
        self: &Arc<Self>,
        container: Arc<Container>,
    ) -> Result<v1::ContainerStats, Error> {
        let shared = self.clone();
        // The writable layer is walked file by file.
        let read = tokio::task::spawn_blocking(move || shared.read_container(&container));
        read.await.map_err(|error| Error::unknown(error.to_string()))
    }

    pub(super) async fn list_container_stats(
        self: &Arc<Self>,
        filter: Option<v1::ContainerStatsFilter>,
    ) -> Result<Vec<v1::ContainerStats>, Error> {
        let filter = filter.unwrap_or_default();
        let wanted: Vec<Arc<Container>> = {
            let pods = self.pods();
            let matching = pods.containers.values().filter(|container| {
                container.is_running()
                    && (filter.id.is_empty() || container.id.starts_with(&filter.id))
                    && (filter.pod_sandbox_id.is_empty() || container.sandbox.id == filter.pod_sandbox_id)
                    && has_labels(&container.config.labels, &filter.label_selector)
            });
            matching.cloned().collect()
        };
        let shared = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            wanted.iter().map(|container| shared.read_container(container)).collect()
        });
        read.await.map_err(|error| Error::unknown(error.to_string()))
    }

    pub(super) async fn sandbox_stats(
        self: &Arc<Self>,
        sandbox: Arc<Sandbox>,
    ) -> Result<v1::PodSandboxStats, Error> {
        let shared = self.clone();
        let read = tokio::task::spawn_blocking(move || shared.read_sandbox(&sandbox));
        read.await.map_err(|error| Error::unknown(error.to_string()))
    }

    pub(super) async fn list_sandbox_stats(
        self: &Arc<Self>,
        filter: Option<v1::PodSandboxStatsFilter>,
    ) -> Result<Vec<v1::PodSandboxStats>, Error> {
        let filter = filter.unwrap_or_default();
        let wanted: Vec<Arc<Sandbox>> = {
            let pods = self.pods();
            let matching = pods.sandboxes.values().filter(|sandbox| {
                sandbox.is_ready()
                    && (filter.id.is_empty() || sandbox.id.starts_with(&filter.id))
                    && has_labels(&sandbox.config.labels, &filter.label_selector)
            });
            matching.cloned().collect()
        };
        let shared = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            wanted.iter().map(|sandbox| shared.read_sandbox(sandbox)).collect()
        });
        read.await.map_err(|error| Error::unknown(error.to_string()))
    }

    /// The metrics of all pods that run.
    pub(super) async fn list_metrics(self: &Arc<Self>) -> Result<Vec<v1::PodSandboxMetrics>, Error> {
        let pods = self.list_sandbox_stats(None).await?;
        let name = |config: &v1::ContainerConfig| {
            let image = config.image.clone().unwrap_or_default();
            if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image }
        };
        let images: HashMap<String, String> = {
            let pods = self.pods();
            pods.containers
                .values()
                .map(|container| (container.id.clone(), name(&container.config)))
                .collect()
        };
        Ok(pods.iter().map(|pod| metrics(pod, &images)).collect())
    }

    fn read_container(&self, container: &Container) -> v1::ContainerStats {
        let used = stats::read(&Cgroup::new(&self.layout, &container.record.cgroup));
        let snapshot = self.images.snapshot_path(&container.id);
        let layer = disk_usage(&snapshot.join("upper")).ok();
        let timestamp = nanoseconds(Timestamp::now());
        v1::ContainerStats {
            attributes: Some(v1::ContainerAttributes {
                id: container.id.clone(),
                metadata: container.config.metadata.clone(),
                labels: container.config.labels.clone(),
                annotations: container.config.annotations.clone(),
            }),
            cpu: Some(cpu(&used, timestamp)),
            memory: Some(memory(&used, timestamp)),
            writable_layer: Some(v1::FilesystemUsage {
                timestamp,
                fs_id: Some(v1::FilesystemIdentifier {
                    mountpoint: self.images.root().display().to_string(),
                }),
                used_bytes: layer.map(|(value, _)| UInt64Value { value }),
                inodes_used: layer.map(|(_, value)| UInt64Value { value }),
            }),
            swap: None,
            io: None,
        }
    }

    fn read_sandbox(&self, sandbox: &Sandbox) -> v1::PodSandboxStats {
        let used = stats::read(&self.pod_cgroup(&sandbox.id, &sandbox.config));
        let timestamp = nanoseconds(Timestamp::now());
        let running: Vec<Arc<Container>> =
            self.containers_of(&sandbox.id).into_iter().filter(|container| container.is_running()).collect();
        let network = sandbox.record().shim.filter(|_| sandbox.is_ready() && !sandbox.host_network());
        v1::PodSandboxStats {
            attributes: Some(v1::PodSandboxAttributes {
                id: sandbox.id.clone(),
                metadata: sandbox.config.metadata.clone(),
                labels: sandbox.config.labels.clone(),
                annotations: sandbox.config.annotations.clone(),
            }),
            linux: Some(v1::LinuxPodSandboxStats {
                cpu: Some(cpu(&used, timestamp)),
                memory: Some(memory(&used, timestamp)),
                network: network.and_then(|shim| network_usage(shim, timestamp)),
                process: Some(v1::ProcessUsage { timestamp, process_count: counted(used.processes) }),
                containers: running.iter().map(|container| self.read_container(container)).collect(),
                io: None,
            }),
        }
    }
}

fn counted(value: Option<u64>) -> Option<UInt64Value> {
    value.map(|value| UInt64Value { value })
}

fn cpu(used: &stats::Stats, timestamp: i64) -> v1::CpuUsage {
    v1::CpuUsage {
        timestamp,
        usage_core_nano_seconds: counted(used.cpu_nanoseconds),
        usage_nano_cores: None,
        psi: None,
    }
}

fn memory(used: &stats::Stats, timestamp: i64) -> v1::MemoryUsage {
    let available =
        used.memory_limit.zip(used.memory_working_set).map(|(limit, set)| limit.saturating_sub(set));
    v1::MemoryUsage {
        timestamp,
        working_set_bytes: counted(used.memory_working_set),
        available_bytes: counted(available),
        usage_bytes: counted(used.memory_usage),
        rss_bytes: counted(used.memory_rss),
        page_faults: counted(used.page_faults),
        major_page_faults: counted(used.major_page_faults),
        psi: None,
    }
}

/// The counters of a pod's interfaces, through its shim, which is in the pod's network.
fn network_usage(shim: i32, timestamp: i64) -> Option<v1::NetworkUsage> {
    let table = fs::read_to_string(Path::new("/proc").join(shim.to_string()).join("net/dev")).ok()?;
    let interfaces = interfaces(&table);
    Some(v1::NetworkUsage {
        timestamp,
        default_interface: interfaces.iter().find(|interface| interface.name == "eth0").cloned(),
        interfaces,
    })
}

/// Reads the content of `/proc/net/dev`; the loopback does not count.
fn interfaces(table: &str) -> Vec<v1::NetworkInterfaceUsage> {
    let parse = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> =
            counters.split_whitespace().filter_map(|counter| counter.parse().ok()).collect();
        let at = |index: usize| counted(counters.get(index).copied());
        Some(v1::NetworkInterfaceUsage {
            name: name.trim().to_owned(),
            rx_bytes: at(0),
            rx_errors: at(2),
            tx_bytes: at(8),
            tx_errors: at(10),
        })
    };
    table.lines().filter_map(parse).filter(|interface| interface.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_counters_are_read_by_position() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes packets errs\n    lo: 1 2 3 4 5 6 7 8 9 10 11\n  \
                     eth0: 100 2 3 4 5 6 7 8 900 10 11 0 0 0 0 0\n";
        let found = interfaces(table);
        assert_eq!(found.len(), 1);
        let value = |counter: &Option<UInt64Value>| counter.as_ref().unwrap().value;
        assert_eq!((value(&found[0].rx_bytes), value(&found[0].tx_bytes)), (100, 900));
        assert_eq!((value(&found[0].rx_errors), value(&found[0].tx_errors)), (3, 11));
    }
}

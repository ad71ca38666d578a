//! Metrics of pods and containers under the names that cAdvisor gave them.
//!
//! The kubelet serves them at `/metrics/cadvisor`, so that dashboards made for any cluster work. Values are whole
//! numbers: what is counted in seconds is cut to seconds.

use std::collections::HashMap;

use cri::v1::{self, Metric, MetricDescriptor, MetricType, UInt64Value};

/// What says whose value it is; every metric has these, some have more.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// A metric's name, what it says, which labels it has of its own, and whether it only grows.
struct Described {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    kind: MetricType,
}

const fn described(
    name: &'static str,
    kind: MetricType,
    labels: &'static [&'static str],
    help: &'static str,
) -> Described {
    Described { name, help, labels, kind }
}

const CPU: Described = described(
    "container_cpu_usage_seconds_total",
    MetricType::Counter,
    &[],
    "Cumulative cpu time consumed in seconds.",
);
const MEMORY: Described = described(
    "container_memory_usage_bytes",
    MetricType::Gauge,
    &[],
    "Current memory usage in bytes, including all memory regardless of when it was accessed.",
);
const WORKING_SET: Described =
    described("container_memory_working_set_bytes", MetricType::Gauge, &[], "Current working set in bytes.");
const RSS: Described = described("container_memory_rss", MetricType::Gauge, &[], "Size of RSS in bytes.");
const FAILURES: Described = described(
    "container_memory_failures_total",
    MetricType::Counter,
    &["failure_type", "scope"],
    "Cumulative count of memory allocation failures.",
);
const PROCESSES: Described = described(
    "container_processes",
    MetricType::Gauge,
    &[],
    "Number of processes and threads running inside the container.",
);
const DISK: Described = described(
    "container_fs_usage_bytes",
    MetricType::Gauge,
    &["device"],
    "Number of bytes that are consumed by the container on this filesystem.",
);
const INODES: Described = described(
    "container_fs_inodes_total",
    MetricType::Gauge,
    &["device"],
    "Number of inodes that are consumed by the container on this filesystem.",
);
const RECEIVED: Described = described(
    "container_network_receive_bytes_total",
    MetricType::Counter,
    &["interface"],
    "Cumulative count of bytes received.",
);
const RECEIVE_ERRORS: Described = described(
    "container_network_receive_errors_total",
    MetricType::Counter,
    &["interface"],
    "Cumulative count of errors encountered while receiving.",
);
const SENT: Described = described(
    "container_network_transmit_bytes_total",
    MetricType::Counter,
    &["interface"],
    "Cumulative count of bytes transmitted.",
);
const SEND_ERRORS: Described = described(
    "container_network_transmit_errors_total",
    MetricType::Counter,
    &["interface"],
    "Cumulative count of errors encountered while transmitting.",
);

const ALL: [&Described; 12] = [
    &CPU,
    &MEMORY,
    &WORKING_SET,
    &RSS,
    &FAILURES,
    &PROCESSES,
    &DISK,
    &INODES,
    &RECEIVED,
    &RECEIVE_ERRORS,
    &SENT,
    &SEND_ERRORS,
];

/// Every metric that there can be, with its labels in the order of the values.
pub(super) fn descriptors() -> Vec<MetricDescriptor> {
    let descriptor = |metric: &&Described| MetricDescriptor {
        name: metric.name.to_owned(),
        help: metric.help.to_owned(),
        label_keys: LABELS.iter().chain(metric.labels).map(|label| label.to_string()).collect(),
    };
    ALL.iter().map(descriptor).collect()
}

/// The metrics of a pod. `images` tells the image of each container by the container's id.
pub(super) fn metrics(pod: &v1::PodSandboxStats, images: &HashMap<String, String>) -> v1::PodSandboxMetrics {
    let attributes = pod.attributes.clone().unwrap_or_default();
    let metadata = attributes.metadata.unwrap_or_default();
    let used = pod.linux.clone().unwrap_or_default();
    let whose = |container: &str, id: &str, image: &str| {
        [container, id, image, id, &metadata.namespace, &metadata.name].map(str::to_owned)
    };
    let mut found = Found::new(whose("", &attributes.id, ""));
    found.add_use(used.cpu.as_ref(), used.memory.as_ref());
    if let Some(processes) = &used.process {
        found.add(&PROCESSES, &[], processes.process_count, processes.timestamp);
    }
    if let Some(network) = &used.network {
        for interface in &network.interfaces {
            let values = [
                (&RECEIVED, interface.rx_bytes),
                (&RECEIVE_ERRORS, interface.rx_errors),
                (&SENT, interface.tx_bytes),
                (&SEND_ERRORS, interface.tx_errors),
            ];
            for (metric, value) in values {
                found.add(metric, &[&interface.name], value, network.timestamp);
            }
        }
    }
    let containers = used.containers.iter().map(|container| {
        let attributes = container.attributes.clone().unwrap_or_default();
        let name = attributes.metadata.unwrap_or_default().name;
        let image = images.get(&attributes.id).map(String::as_str).unwrap_or_default();
        let mut found = Found::new(whose(&name, &attributes.id, image));
        found.add_use(container.cpu.as_ref(), container.memory.as_ref());
        if let Some(layer) = &container.writable_layer {
            let device = layer.fs_id.as_ref().map(|id| id.mountpoint.as_str()).unwrap_or_default();
            found.add(&DISK, &[device], layer.used_bytes, layer.timestamp);
            found.add(&INODES, &[device], layer.inodes_used, layer.timestamp);
        }
        v1::ContainerMetrics { container_id: attributes.id, metrics: found.metrics }
    });
    v1::PodSandboxMetrics {
        pod_sandbox_id: attributes.id,
        metrics: found.metrics,
        container_metrics: containers.collect(),
    }
}

/// The metrics of one pod or container as they are found.
struct Found {
    whose: [String; LABELS.len()],
    metrics: Vec<Metric>,
}

impl Found {
    fn new(whose: [String; LABELS.len()]) -> Found {
        Found { whose, metrics: Vec::new() }
    }

    /// What is not measured has no metric.
    fn add(&mut self, metric: &Described, labels: &[&str], value: Option<UInt64Value>, timestamp: i64) {
        let Some(value) = value else { return };
        let own = labels.iter().map(|label| label.to_string());
        self.metrics.push(Metric {
            name: metric.name.to_owned(),
            timestamp,
            metric_type: metric.kind as i32,
            label_values: self.whose.iter().cloned().chain(own).collect(),
            value: Some(value),
        });
    }

    fn add_use(&mut self, cpu: Option<&v1::CpuUsage>, memory: Option<&v1::MemoryUsage>) {
        if let Some(cpu) = cpu {
            let seconds =
                cpu.usage_core_nano_seconds.map(|used| UInt64Value { value: used.value / 1_000_000_000 });
            self.add(&CPU, &[], seconds, cpu.timestamp);
        }
        let Some(memory) = memory else { return };
        self.add(&MEMORY, &[], memory.usage_bytes, memory.timestamp);
        self.add(&WORKING_SET, &[], memory.working_set_bytes, memory.timestamp);
        self.add(&RSS, &[], memory.rss_bytes, memory.timestamp);
        self.add(&FAILURES, &["pgfault", "container"], memory.page_faults, memory.timestamp);
        self.add(&FAILURES, &["pgmajfault", "container"], memory.major_page_faults, memory.timestamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: u64) -> Option<UInt64Value> {
        Some(UInt64Value { value })
    }

    fn stats() -> v1::PodSandboxStats {
        let interface =
            v1::NetworkInterfaceUsage { name: "eth0".into(), rx_bytes: number(7), ..Default::default() };
        v1::PodSandboxStats {
            attributes: Some(v1::PodSandboxAttributes {
                id: "pod1".into(),
                metadata: Some(v1::PodSandboxMetadata {
                    name: "web".into(),
                    namespace: "default".into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            linux: Some(v1::LinuxPodSandboxStats {
                network: Some(v1::NetworkUsage { interfaces: vec![interface], ..Default::default() }),
                containers: vec![v1::ContainerStats {
                    attributes: Some(v1::ContainerAttributes {
                        id: "c1".into(),
                        metadata: Some(v1::ContainerMetadata { name: "main".into(), attempt: 0 }),
                        ..Default::default()
                    }),
                    cpu: Some(v1::CpuUsage {
                        usage_core_nano_seconds: number(3_900_000_000),
                        ..Default::default()
                    }),
                    ..Default::default()
                }],
                ..Default::default()
            }),
        }
    }

    #[test]
    fn each_value_says_whose_it_is() {
        let images = HashMap::from([("c1".to_owned(), "busybox:1".to_owned())]);
        let metrics = metrics(&stats(), &images);
        let [received] = &metrics.metrics[..] else { panic!("{metrics:?}") };
        assert_eq!(received.name, "container_network_receive_bytes_total");
        assert_eq!(received.label_values, ["", "pod1", "", "pod1", "default", "web", "eth0"]);
        let [cpu] = &metrics.container_metrics[0].metrics[..] else { panic!("{metrics:?}") };
        assert_eq!(cpu.label_values, ["main", "c1", "busybox:1", "c1", "default", "web"]);
        assert_eq!((cpu.value, cpu.metric_type()), (number(3), MetricType::Counter));
    }

    #[test]
    fn every_value_has_as_many_labels_as_its_descriptor() {
        let metrics = metrics(&stats(), &HashMap::new());
        for metric in metrics.metrics.iter().chain(&metrics.container_metrics[0].metrics) {
            let descriptor = descriptors().into_iter().find(|descriptor| descriptor.name == metric.name);
            assert_eq!(descriptor.unwrap().label_keys.len(), metric.label_values.len(), "{}", metric.name);
        }
    }
}

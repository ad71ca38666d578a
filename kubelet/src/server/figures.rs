//! `/metrics/resource` and `/metrics/cadvisor`: what containers, pods and the node use, as the runtime and the
//! kernel count it, under upstream's names.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use cri::v1::{
    Container, ContainerStats, CpuUsage, ListContainerStatsRequest, ListContainersRequest,
    ListPodSandboxStatsRequest, MemoryUsage, NetworkInterfaceUsage, PodSandboxStats, UInt64Value,
};

use super::{Api, Refusal, text};
use crate::container::labels;
use crate::node::meminfo_bytes;

pub(super) async fn resource(State(api): State<Api>) -> Result<Response, Refusal> {
    let (containers, stats, pods) = ask(&api).await?;
    Ok(text(resource_text(&stats, &pods, &containers, node_usage())))
}

pub(super) async fn cadvisor(State(api): State<Api>) -> Result<Response, Refusal> {
    let (containers, stats, pods) = ask(&api).await?;
    Ok(text(cadvisor_text(&stats, &pods, &containers)))
}

async fn ask(api: &Api) -> Result<(Vec<Container>, Vec<ContainerStats>, Vec<PodSandboxStats>), Refusal> {
    let runtime = &api.context.runtime;
    let stats = runtime.list_container_stats(ListContainerStatsRequest::default()).await.map_err(refused)?;
    let pods = runtime.list_pod_sandbox_stats(ListPodSandboxStatsRequest::default()).await;
    let containers = runtime.list_containers(ListContainersRequest::default()).await.map_err(refused)?;
    // containerd has figures of whole pods only from 1.7 on.
    let pods = pods.map(|pods| pods.stats).unwrap_or_default();
    Ok((containers.containers, stats.stats, pods))
}

fn refused(error: cri::Error) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.message)
}

/// What the whole node uses.
#[derive(Clone, Copy, Debug, Default)]
struct NodeUsage {
    cpu_seconds: f64,
    memory: u64,
}

fn node_usage() -> NodeUsage {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let field = |name: &str| meminfo_bytes(&memory, name).unwrap_or(0);
    NodeUsage {
        cpu_seconds: busy_seconds(&read("/proc/stat")),
        memory: field("MemTotal").saturating_sub(field("MemAvailable")),
    }
}

/// The first line of `/proc/stat`, in hundredths of a second: all but idle and waiting for disks; what guests took
/// is in it already.
fn busy_seconds(stat: &str) -> f64 {
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
    let ticks: u64 = fields
        .enumerate()
        .filter(|(index, _)| !matches!(index, 3 | 4))
        .filter_map(|(_, number)| number.parse::<u64>().ok())
        .sum();
    ticks as f64 / 100.0
}

/// Metrics in the order in which they were declared, each with its series.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn declare(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}").unwrap_or_default();
    }

    /// One series; `time` in nanoseconds, 0 for now.
    fn put(&mut self, name: &str, labels: &[(&str, &str)], value: f64, time: i64) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let time = if time > 0 { format!(" {}", time / 1_000_000) } else { String::new() };
        writeln!(self.text, "{name}{labels} {value}{time}").unwrap_or_default();
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn number(value: &Option<UInt64Value>) -> Option<f64> {
    value.as_ref().map(|value| value.value as f64)
}

fn cpu_seconds(cpu: &Option<CpuUsage>) -> Option<(f64, i64)> {
    let cpu = cpu.as_ref()?;
    Some((number(&cpu.usage_core_nano_seconds)? / 1e9, cpu.timestamp))
}

fn memory(memory: &Option<MemoryUsage>, of: fn(&MemoryUsage) -> &Option<UInt64Value>) -> Option<(f64, i64)> {
    let memory = memory.as_ref()?;
    Some((number(of(memory))?, memory.timestamp))
}

/// Who a container is, in labels.
fn names(stats: &ContainerStats) -> [String; 3] {
    let attributes = stats.attributes.clone().unwrap_or_default();
    let label = |name: &str| attributes.labels.get(name).cloned().unwrap_or_default();
    [label(labels::CONTAINER_NAME), label(labels::POD_NAMESPACE), label(labels::POD_NAME)]
}

fn pod_names(stats: &PodSandboxStats) -> [String; 2] {
    let metadata = stats.attributes.clone().and_then(|attributes| attributes.metadata).unwrap_or_default();
    [metadata.namespace, metadata.name]
}

fn resource_text(
    stats: &[ContainerStats],
    pods: &[PodSandboxStats],
    containers: &[Container],
    node: NodeUsage,
) -> String {
    let mut page = Page::default();
    let started: BTreeMap<&str, i64> =
        containers.iter().map(|container| (container.id.as_str(), container.created_at)).collect();
    let mut of_containers =
        |name: &str, kind: &str, help: &str, of: &dyn Fn(&ContainerStats) -> Option<(f64, i64)>| {
            page.declare(name, kind, help);
            for container in stats {
                let [container_name, namespace, pod] = names(container);
                let labels =
                    [("container", container_name.as_str()), ("namespace", &namespace), ("pod", &pod)];
                if let Some((value, time)) = of(container) {
                    page.put(name, &labels, value, time);
                }
            }
        };
    of_containers(
        "container_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        &|container| cpu_seconds(&container.cpu),
    );
    of_containers(
        "container_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the container in bytes",
        &|container| memory(&container.memory, |memory| &memory.working_set_bytes),
    );
    of_containers(
        "container_start_time_seconds",
        "gauge",
        "[STABLE] Start time of the container since unix epoch in seconds",
        &|container| {
            let id = &container.attributes.as_ref()?.id;
            started.get(id.as_str()).map(|created| (*created as f64 / 1e9, 0))
        },
    );
    page.declare(
        "node_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
    );
    page.put("node_cpu_usage_seconds_total", &[], node.cpu_seconds, 0);
    page.declare(
        "node_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the node in bytes",
    );
    page.put("node_memory_working_set_bytes", &[], node.memory as f64, 0);
    type OfPod = fn(&PodSandboxStats) -> Option<(f64, i64)>;
    let of_pods: [(&str, &str, &str, OfPod); 2] = [
        (
            "pod_cpu_usage_seconds_total",
            "counter",
            "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
            |pod| cpu_seconds(&pod.linux.as_ref()?.cpu),
        ),
        (
            "pod_memory_working_set_bytes",
            "gauge",
            "[STABLE] Current working set of the pod in bytes",
            |pod| memory(&pod.linux.as_ref()?.memory, |memory| &memory.working_set_bytes),
        ),
    ];
    for (name, kind, help, of) in of_pods {
        page.declare(name, kind, help);
        for pod in pods {
            let [namespace, pod_name] = pod_names(pod);
            if let Some((value, time)) = of(pod) {
                page.put(name, &[("namespace", &namespace), ("pod", &pod_name)], value, time);
            }
        }
    }
    page.declare(
        "resource_scrape_error",
        "gauge",
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
    );
    page.put("resource_scrape_error", &[], 0.0, 0);
    page.text
}

fn cadvisor_text(stats: &[ContainerStats], pods: &[PodSandboxStats], containers: &[Container]) -> String {
    let mut page = Page::default();
    let known: BTreeMap<&str, &Container> =
        containers.iter().map(|container| (container.id.as_str(), container)).collect();
    type OfContainer = fn(&ContainerStats) -> Option<(f64, i64)>;
    let of_containers: [(&str, &str, &str, OfContainer); 5] = [
        (
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed in seconds.",
            |container| cpu_seconds(&container.cpu),
        ),
        (
            "container_memory_usage_bytes",
            "gauge",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            |container| memory(&container.memory, |memory| &memory.usage_bytes),
        ),
        ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |container| {
            memory(&container.memory, |memory| &memory.working_set_bytes)
        }),
        ("container_memory_rss", "gauge", "Size of RSS in bytes.", |container| {
            memory(&container.memory, |memory| &memory.rss_bytes)
        }),
        (
            "container_fs_usage_bytes",
            "gauge",
            "Number of bytes that are consumed by the container on this filesystem.",
            |container| {
                let layer = container.writable_layer.as_ref()?;
                Some((number(&layer.used_bytes)?, layer.timestamp))
            },
        ),
    ];
    for (name, kind, help, of) in of_containers {
        page.declare(name, kind, help);
        for container in stats {
            let Some((value, time)) = of(container) else { continue };
            let id =
                container.attributes.as_ref().map(|attributes| attributes.id.as_str()).unwrap_or_default();
            let image = known.get(id).and_then(|known| known.image.as_ref()).map(|image| {
                if image.user_specified_image.is_empty() { &image.image } else { &image.user_specified_image }
            });
            let [container_name, namespace, pod] = names(container);
            let labels = [
                ("container", container_name.as_str()),
                ("id", id),
                ("image", image.map(String::as_str).unwrap_or_default()),
                ("name", id),
                ("namespace", &namespace),
                ("pod", &pod),
            ];
            page.put(name, &labels, value, time);
        }
    }
    type OfInterface = fn(&NetworkInterfaceUsage) -> &Option<UInt64Value>;
    let of_networks: [(&str, &str, OfInterface); 4] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |usage| {
            &usage.rx_bytes
        }),
        (
            "container_network_receive_errors_total",
            "Cumulative count of errors encountered while receiving",
            |usage| &usage.rx_errors,
        ),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |usage| {
            &usage.tx_bytes
        }),
        (
            "container_network_transmit_errors_total",
            "Cumulative count of errors encountered while transmitting",
            |usage| &usage.tx_errors,
        ),
    ];
    for (name, help, of) in of_networks {
        page.declare(name, "counter", help);
        for pod in pods {
            let Some(network) = pod.linux.as_ref().and_then(|linux| linux.network.as_ref()) else { continue };
            let [namespace, pod_name] = pod_names(pod);
            let id = pod.attributes.as_ref().map(|attributes| attributes.id.as_str()).unwrap_or_default();
            for interface in network.default_interface.iter().chain(&network.interfaces) {
                let labels = [
                    ("id", id),
                    ("interface", interface.name.as_str()),
                    ("namespace", &namespace),
                    ("pod", &pod_name),
                ];
                if let Some(value) = number(of(interface)) {
                    page.put(name, &labels, value, network.timestamp);
                }
            }
        }
    }
    page.declare("machine_cpu_cores", "gauge", "Number of logical CPU cores.");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    page.put("machine_cpu_cores", &[], cores as f64, 0);
    page.declare("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.");
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    page.put("machine_memory_bytes", &[], meminfo_bytes(&memory, "MemTotal").unwrap_or(0) as f64, 0);
    page.text
}

#[cfg(test)]
mod tests {
    use cri::v1::{
        ContainerAttributes, LinuxPodSandboxStats, NetworkUsage, PodSandboxAttributes, PodSandboxMetadata,
    };

    use super::*;

    fn value(value: u64) -> Option<UInt64Value> {
        Some(UInt64Value { value })
    }

    fn container() -> ContainerStats {
        let labels =
            [(labels::CONTAINER_NAME, "c"), (labels::POD_NAMESPACE, "shop"), (labels::POD_NAME, "web")];
        let labels = labels.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        ContainerStats {
            attributes: Some(ContainerAttributes {
                id: "1".into(),
                labels,
                ..ContainerAttributes::default()
            }),
            cpu: Some(CpuUsage {
                timestamp: 1_700_000_000_123_000_000,
                usage_core_nano_seconds: value(1_500_000_000),
                ..CpuUsage::default()
            }),
            memory: Some(MemoryUsage { working_set_bytes: value(4096), ..MemoryUsage::default() }),
            ..ContainerStats::default()
        }
    }

    fn pod() -> PodSandboxStats {
        let metadata = PodSandboxMetadata {
            name: "web".into(),
            namespace: "shop".into(),
            ..PodSandboxMetadata::default()
        };
        let interface = NetworkInterfaceUsage {
            name: "eth0".into(),
            rx_bytes: value(7),
            ..NetworkInterfaceUsage::default()
        };
        let network = NetworkUsage { default_interface: Some(interface), ..NetworkUsage::default() };
        PodSandboxStats {
            attributes: Some(PodSandboxAttributes {
                metadata: Some(metadata),
                ..PodSandboxAttributes::default()
            }),
            linux: Some(LinuxPodSandboxStats {
                memory: Some(MemoryUsage { working_set_bytes: value(8192), ..MemoryUsage::default() }),
                network: Some(network),
                ..LinuxPodSandboxStats::default()
            }),
        }
    }

    #[test]
    fn resources_are_told_by_container_pod_and_node() {
        let made = Container { id: "1".into(), created_at: 5_000_000_000, ..Container::default() };
        let node = NodeUsage { cpu_seconds: 3.5, memory: 100 };
        let text = resource_text(&[container()], &[pod()], &[made], node);
        for line in [
            "# TYPE container_cpu_usage_seconds_total counter",
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"shop\",pod=\"web\"} 1.5 1700000000123",
            "container_memory_working_set_bytes{container=\"c\",namespace=\"shop\",pod=\"web\"} 4096",
            "container_start_time_seconds{container=\"c\",namespace=\"shop\",pod=\"web\"} 5",
            "node_cpu_usage_seconds_total 3.5",
            "node_memory_working_set_bytes 100",
            "pod_memory_working_set_bytes{namespace=\"shop\",pod=\"web\"} 8192",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn cadvisors_names_carry_image_and_interface() {
        let image = cri::v1::ImageSpec { image: "busybox:1".into(), ..cri::v1::ImageSpec::default() };
        let made = Container { id: "1".into(), image: Some(image), ..Container::default() };
        let text = cadvisor_text(&[container()], &[pod()], &[made]);
        let line = "container_memory_working_set_bytes{container=\"c\",id=\"1\",image=\"busybox:1\",name=\"1\",\
                    namespace=\"shop\",pod=\"web\"} 4096";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("container_network_receive_bytes_total{id=\"\",interface=\"eth0\",namespace=\"shop\",pod=\"web\"} 7"));
    }

    #[test]
    fn the_kernels_ticks_become_seconds_without_idling() {
        assert_eq!(busy_seconds("cpu  100 0 50 9999 77 0 0 50 0 0\ncpu0 1 2 3\n"), 2.0);
        assert_eq!(escaped("a\"b\\c"), "a\\\"b\\\\c");
    }
}

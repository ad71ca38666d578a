//! The pod's sandbox: what the runtime is asked for, from the pod's spec.

pub mod dns;
pub mod hosts;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use cri::v1::{
    DnsConfig, Int64Value, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol, UserNamespace,
};
use k8s_openapi::api::core::v1::Pod;

use crate::container::config::{seccomp_profile, supplemental_groups, supplemental_groups_policy};
use crate::container::labels;
use crate::container::qos::{cgroup_parent, pod_resources, qos_class};
use crate::pod::view::PodView;

/// The kernel's limit for a host name.
const LONGEST_HOSTNAME: usize = 63;

/// What the node adds to a pod's own description.
pub struct Surroundings<'a> {
    /// The cgroup above `kubepods`.
    pub cgroup_parent: &'a str,
    /// The directory of all pods' logs.
    pub log_dir: &'a Path,
    /// The kubelet's own directory.
    pub root: &'a Path,
    /// The cluster's domain.
    pub cluster_domain: &'a str,
    /// The pod's resolver configuration, see [`dns`].
    pub dns: DnsConfig,
    /// The pod's users.
    pub users: UserNamespace,
}

/// The whole description.
pub fn sandbox_config(pod: &Pod, attempt: u32, around: Surroundings<'_>) -> PodSandboxConfig {
    let metadata = PodSandboxMetadata {
        name: pod.name().to_string(),
        uid: pod.uid().to_string(),
        namespace: pod.namespace().to_string(),
        attempt,
    };
    let mut sandbox_labels: HashMap<String, String> =
        pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    sandbox_labels.extend([
        (labels::POD_NAME.to_string(), pod.name().to_string()),
        (labels::POD_NAMESPACE.to_string(), pod.namespace().to_string()),
        (labels::POD_UID.to_string(), pod.uid().to_string()),
    ]);
    let mut annotations: HashMap<String, String> =
        pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect();
    annotations.insert(labels::KUBELET.to_string(), around.root.to_string_lossy().into_owned());
    let class = qos_class(pod.spec());
    PodSandboxConfig {
        metadata: Some(metadata),
        hostname: match pod.is_host_network() {
            true => String::new(),
            false => hostname(pod, around.cluster_domain),
        },
        log_directory: around.log_dir.join(log_directory(pod)).to_string_lossy().into_owned(),
        dns_config: Some(around.dns),
        port_mappings: port_mappings(pod),
        labels: sandbox_labels,
        annotations,
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent(around.cgroup_parent, class, pod.uid()),
            security_context: Some(security_context(pod, around.users)),
            sysctls: sysctls(pod),
            resources: Some(pod_resources(pod.spec())),
            ..LinuxPodSandboxConfig::default()
        }),
    }
}

/// The directory of a pod's logs below that of all pods.
pub fn log_directory(pod: &Pod) -> String {
    format!("{}_{}_{}", pod.namespace(), pod.name(), pod.uid())
}

/// The directories of logs that are there, with the uids of their pods.
pub fn log_directories(logs: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(logs) else { return Vec::new() };
    let uid = |path: &Path| Some(path.file_name()?.to_str()?.rsplit_once('_')?.1.to_string());
    entries.flatten().filter_map(|entry| Some((uid(&entry.path())?, entry.path()))).collect()
}

/// The pod's host name: its own or the pod's name, as long as the kernel allows.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> String {
    let name = short_hostname(pod);
    match fully_qualified(pod, &name, cluster_domain) {
        Some(full) if pod.spec().set_hostname_as_fqdn == Some(true) => full,
        _ => name,
    }
}

/// `<host>.<subdomain>.<namespace>.svc.<domain>`, for pods that have a subdomain.
pub fn fully_qualified(pod: &Pod, hostname: &str, cluster_domain: &str) -> Option<String> {
    let subdomain = pod.spec().subdomain.as_deref().filter(|subdomain| !subdomain.is_empty())?;
    Some(format!("{hostname}.{subdomain}.{}.svc.{cluster_domain}", pod.namespace()))
}

/// The host name without a domain.
pub fn short_hostname(pod: &Pod) -> String {
    if let Some(asked) = pod.spec().hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return asked.to_string();
    }
    let asked = pod.spec().hostname.as_deref().filter(|hostname| !hostname.is_empty());
    let name = asked.unwrap_or(pod.name());
    let cut: String = name.chars().take(LONGEST_HOSTNAME).collect();
    cut.trim_end_matches(['-', '.']).to_string()
}

/// Which namespaces the pod shares with the node or between its containers.
pub fn namespace_options(pod: &Pod, users: UserNamespace) -> NamespaceOption {
    let spec = pod.spec();
    let mode = |is_node: Option<bool>| match is_node {
        Some(true) => NamespaceMode::Node as i32,
        _ => NamespaceMode::Pod as i32,
    };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => NamespaceMode::Node,
        (_, Some(true)) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    NamespaceOption {
        network: mode(spec.host_network),
        pid: pid as i32,
        ipc: mode(spec.host_ipc),
        userns_options: Some(users),
        ..NamespaceOption::default()
    }
}

fn security_context(pod: &Pod, users: UserNamespace) -> LinuxSandboxSecurityContext {
    let context = pod.spec().security_context.as_ref();
    let containers = pod.spec().containers.iter().chain(pod.init_containers());
    let is_privileged = containers
        .filter_map(|container| container.security_context.as_ref())
        .any(|context| context.privileged == Some(true));
    let number = |value: Option<i64>| value.map(|value| Int64Value { value });
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespace_options(pod, users)),
        run_as_user: number(context.and_then(|context| context.run_as_user)),
        run_as_group: number(context.and_then(|context| context.run_as_group)),
        supplemental_groups: supplemental_groups(pod),
        supplemental_groups_policy: supplemental_groups_policy(pod) as i32,
        privileged: is_privileged,
        seccomp: Some(seccomp_profile(None, false)),
        ..LinuxSandboxSecurityContext::default()
    }
}

fn sysctls(pod: &Pod) -> HashMap<String, String> {
    let context = pod.spec().security_context.as_ref();
    let asked = context.and_then(|context| context.sysctls.as_deref()).unwrap_or_default();
    asked.iter().map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect()
}

/// Ports of the node that lead into the pod.
fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    if pod.is_host_network() {
        return Vec::new();
    }
    let containers = pod.spec().containers.iter().chain(pod.init_containers());
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let host_port = port.host_port.filter(|number| *number > 0)?;
            Some(PortMapping {
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                } as i32,
                container_port: port.container_port,
                host_port,
                host_ip: port.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([{ "name": "c", "ports": [
            { "containerPort": 80, "hostPort": 8080 }, { "containerPort": 81 },
            { "containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "192.0.2.1" } ] }]);
        let pod = json!({ "metadata": { "name": "web", "namespace": "shop", "uid": "u" }, "spec": spec });
        serde_json::from_value(pod).unwrap()
    }

    fn config(spec: Value) -> PodSandboxConfig {
        let around = Surroundings {
            cgroup_parent: "/coracle",
            log_dir: Path::new("/var/log/pods"),
            root: Path::new("/var/lib/coracle/kubelet"),
            cluster_domain: "cluster.local",
            dns: DnsConfig::default(),
            users: UserNamespace::default(),
        };
        sandbox_config(&pod(spec), 3, around)
    }

    #[test]
    fn a_sandbox_is_named_after_its_pod() {
        let config = config(json!({}));
        assert_eq!(config.metadata.unwrap().attempt, 3);
        assert_eq!(config.hostname, "web");
        assert_eq!(config.log_directory, "/var/log/pods/shop_web_u");
        assert_eq!(config.labels["io.kubernetes.pod.uid"], "u");
        assert_eq!(config.annotations["io.coracle.kubelet.root"], "/var/lib/coracle/kubelet");
        assert_eq!(config.linux.unwrap().cgroup_parent, "/coracle/kubepods/besteffort/podu");
        let ports: Vec<_> = config.port_mappings.iter().map(|port| (port.host_port, port.protocol)).collect();
        assert_eq!(ports, [(8080, 0), (53, 1)]);
    }

    #[test]
    fn host_network_has_no_name_and_no_port_mappings() {
        let config = config(json!({ "hostNetwork": true }));
        assert_eq!((config.hostname.as_str(), config.port_mappings.len()), ("", 0));
    }

    #[test]
    fn namespaces_are_private_unless_shared() {
        let modes = |spec: Value| {
            let options = namespace_options(&pod(spec), UserNamespace::default());
            (options.network(), options.pid(), options.ipc())
        };
        use NamespaceMode::{Container, Node, Pod};
        assert_eq!(modes(json!({})), (Pod, Container, Pod));
        assert_eq!(modes(json!({ "shareProcessNamespace": true })), (Pod, Pod, Pod));
        assert_eq!(
            modes(json!({ "hostPID": true, "hostIPC": true, "hostNetwork": true })),
            (Node, Node, Node)
        );
    }

    #[test]
    fn names_fit_the_kernel_and_can_be_qualified() {
        let mut long = pod(json!({}));
        long.metadata.name = Some(format!("{}-tail", "a".repeat(62)));
        assert_eq!(hostname(&long, "cluster.local"), "a".repeat(62));
        let full = pod(json!({ "hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true }));
        assert_eq!(hostname(&full, "cluster.local"), "h.s.shop.svc.cluster.local");
    }
}

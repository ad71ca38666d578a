//! The `/etc/hosts` that containers see. Pure.

use k8s_openapi::api::core::v1::Pod;

use super::{fully_qualified, short_hostname};
use crate::pod::view::PodView;

const LOCAL: &str = "127.0.0.1\tlocalhost\n\
                     ::1\tlocalhost ip6-localhost ip6-loopback\n\
                     fe00::0\tip6-localnet\n\
                     fe00::0\tip6-mcastprefix\n\
                     fe00::1\tip6-allnodes\n\
                     fe00::2\tip6-allrouters\n";

/// The file's text: the node's own in its network, a small one with the pod's name elsewhere.
pub fn hosts_file(pod: &Pod, pod_ips: &[String], host_file: &str, cluster_domain: &str) -> String {
    let mut text = if pod.is_host_network() {
        format!("# Kubernetes-managed hosts file (host network).\n{host_file}")
    } else {
        let name = short_hostname(pod);
        let full = fully_qualified(pod, &name, cluster_domain);
        let names = full.map_or(name.clone(), |full| format!("{full}\t{name}"));
        let own: String = pod_ips.iter().map(|ip| format!("{ip}\t{names}\n")).collect();
        format!("# Kubernetes-managed hosts file.\n{LOCAL}{own}")
    };
    let aliases = pod.spec().host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_pod_and_its_aliases_are_listed() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "containers": [], "subdomain": "s", "hostAliases": [{ "ip": "1.2.3.4", "hostnames": ["a", "b"] }] },
        }))
        .unwrap();
        let text = hosts_file(&pod, &["10.244.0.5".into()], "", "cluster.local");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.contains("10.244.0.5\tweb.s.shop.svc.cluster.local\tweb\n"));
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
    }

    #[test]
    fn in_the_nodes_network_the_nodes_file_is_shown() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "web" }, "spec": { "containers": [], "hostNetwork": true },
        }))
        .unwrap();
        let text = hosts_file(&pod, &[], "127.0.0.1 localhost\n", "cluster.local");
        assert_eq!(text, "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n");
    }
}

//! The resolver configuration of a pod, from its dnsPolicy and dnsConfig. Pure.

use std::net::IpAddr;

use cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::Pod;

use crate::pod::view::PodView;

/// How many search domains a resolver takes.
const MOST_SEARCHES: usize = 32;
/// How many servers a resolver asks.
const MOST_SERVERS: usize = 3;

/// The node's side of name resolution.
pub struct ClusterDns<'a> {
    /// The cluster's DNS servers.
    pub servers: &'a [IpAddr],
    /// The cluster's domain.
    pub domain: &'a str,
    /// The node's own resolver configuration.
    pub host: &'a DnsConfig,
}

/// The configuration of one pod.
pub fn pod_dns(pod: &Pod, cluster: &ClusterDns<'_>) -> DnsConfig {
    let policy = pod.spec().dns_policy.as_deref().unwrap_or("ClusterFirst");
    let uses_cluster = match policy {
        "ClusterFirst" => !pod.is_host_network(),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    } && !cluster.servers.is_empty();
    let mut dns = match policy {
        "None" => DnsConfig::default(),
        _ if uses_cluster => cluster_first(pod, cluster),
        _ => cluster.host.clone(),
    };
    if let Some(own) = &pod.spec().dns_config {
        append_new(&mut dns.servers, own.nameservers.iter().flatten());
        append_new(&mut dns.searches, own.searches.iter().flatten());
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            let text = match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.clone(),
            };
            dns.options.retain(|known| known.split(':').next() != Some(name));
            dns.options.push(text);
        }
    }
    dns.servers.truncate(MOST_SERVERS);
    dns.searches.truncate(MOST_SEARCHES);
    dns
}

fn cluster_first(pod: &Pod, cluster: &ClusterDns<'_>) -> DnsConfig {
    let domain = cluster.domain;
    let own = [format!("{}.svc.{domain}", pod.namespace()), format!("svc.{domain}"), domain.to_string()];
    let mut searches = Vec::new();
    append_new(&mut searches, own.iter().chain(&cluster.host.searches));
    DnsConfig {
        servers: cluster.servers.iter().map(IpAddr::to_string).collect(),
        searches,
        options: vec!["ndots:5".into()],
    }
}

fn append_new<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// Reads a resolv.conf.
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_string)),
            Some("search" | "domain") => {
                dns.searches = words.filter(|word| *word != ".").map(str::to_string).collect();
            }
            Some("options") => dns.options.extend(words.map(str::to_string)),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn dns(spec: Value) -> DnsConfig {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "shop" }, "spec": spec,
        }))
        .unwrap();
        let host =
            parse_resolv_conf("# made by hand\nnameserver 192.0.2.53\nsearch example.org .\noptions edns0\n");
        pod_dns(
            &pod,
            &ClusterDns { servers: &[[10, 96, 0, 10].into()], domain: "cluster.local", host: &host },
        )
    }

    #[test]
    fn the_cluster_comes_first_by_default() {
        let dns = dns(json!({ "containers": [] }));
        assert_eq!(dns.servers, ["10.96.0.10"]);
        assert_eq!(
            dns.searches,
            ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"]
        );
        assert_eq!(dns.options, ["ndots:5"]);
    }

    #[test]
    fn pods_in_the_nodes_network_use_the_nodes_resolver_unless_they_ask() {
        let host = dns(json!({ "containers": [], "hostNetwork": true }));
        assert_eq!((host.servers, host.options), (vec!["192.0.2.53".to_string()], vec!["edns0".to_string()]));
        let asked =
            dns(json!({ "containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet" }));
        assert_eq!(asked.servers, ["10.96.0.10"]);
    }

    #[test]
    fn the_pods_own_configuration_is_added_and_its_options_win() {
        let own = json!({
            "nameservers": ["1.1.1.1"], "searches": ["a.b", "cluster.local"],
            "options": [{ "name": "ndots", "value": "2" }, { "name": "rotate" }],
        });
        let both = dns(json!({ "containers": [], "dnsConfig": own.clone() }));
        assert_eq!(both.servers, ["10.96.0.10", "1.1.1.1"]);
        assert_eq!(both.options, ["ndots:2", "rotate"]);
        assert_eq!(both.searches.last().unwrap(), "a.b");
        let alone = dns(json!({ "containers": [], "dnsPolicy": "None", "dnsConfig": own }));
        assert_eq!(
            (alone.servers, alone.searches),
            (vec!["1.1.1.1".into()], vec!["a.b".into(), "cluster.local".into()])
        );
    }
}

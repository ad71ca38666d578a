//! The rules of the pod network, as text for `iptables-restore`.

use std::net::Ipv4Addr;

use crate::Cidr;

/// A port of the node that leads to a pod (`hostPort`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortMapping {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port on the node.
    pub host_port: u16,
    /// The port in the pod.
    pub container_port: u16,
    /// Only on this address of the node; on all of them when unset.
    pub host_ip: Option<Ipv4Addr>,
}

/// A transport protocol, as rules name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The name in rules: `tcp`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// Upstream's chain for traffic that leaves the cluster (ip-masq-agent).
pub const MASQUERADE_CHAIN: &str = "IP-MASQ-AGENT";
/// Upstream's chain of host ports (kubenet).
pub const HOST_PORT_CHAIN: &str = "KUBE-HOSTPORTS";
/// Lets pods through a host whose FORWARD policy is to drop.
pub const FORWARD_CHAIN: &str = "CORACLE-FORWARD";

/// The chains of one network: two on the same machine need chains of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chains {
    /// What leaves the network gets the machine's address.
    pub masquerade: &'static str,
    /// Ports of the machine that lead to a pod.
    pub host_ports: &'static str,
    /// Pods pass through the machine.
    pub forward: &'static str,
}

/// The chains of the cluster's pods.
pub const CLUSTER_CHAINS: Chains =
    Chains { masquerade: MASQUERADE_CHAIN, host_ports: HOST_PORT_CHAIN, forward: FORWARD_CHAIN };

/// The jumps from the kernel's own chains: (table, chain, rule).
pub fn jumps(chains: Chains, bridge: &str) -> Vec<(&'static str, &'static str, String)> {
    let jump = |comment: &str, chain| format!("-m comment --comment \"{comment}\" -j {chain}");
    let local = "-m addrtype --dst-type LOCAL";
    vec![
        ("nat", "POSTROUTING", jump("ip-masq-agent: leaving the cluster", chains.masquerade)),
        ("nat", "PREROUTING", format!("{local} {}", jump("kube hostport portals", chains.host_ports))),
        ("nat", "OUTPUT", format!("{local} {}", jump("kube hostport portals", chains.host_ports))),
        ("filter", "FORWARD", jump("coracle pod network", chains.forward)),
        // The kernel lets the node's loopback reach pods through their host ports; nobody on the bridge may come
        // back the same way by himself (CVE-2020-8558). The chain drops it.
        ("filter", "INPUT", {
            let uninvited = "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT";
            format!("-d 127.0.0.0/8 -i {bridge} {uninvited} {}", jump("coracle pod network", chains.forward))
        }),
    ]
}

/// The chains' contents. `pods` is this node's block, `cluster` holds all pods, `mappings` is sorted by the
/// caller so that the same state renders the same text.
pub fn render(
    chains: Chains,
    pods: Cidr,
    cluster: Cidr,
    bridge: &str,
    mappings: &[(Ipv4Addr, PortMapping)],
) -> String {
    let Chains { masquerade, host_ports, forward } = chains;
    let mut lines =
        vec!["*nat".to_string(), format!(":{masquerade} - [0:0]"), format!(":{host_ports} - [0:0]")];
    for (pod, mapping) in mappings {
        let host = mapping.host_ip.map(|ip| format!("-d {ip}/32 ")).unwrap_or_default();
        let (protocol, port) = (mapping.protocol.name(), mapping.container_port);
        let to_host = format!("{host}-p {protocol} -m {protocol} --dport {}", mapping.host_port);
        let to_pod = format!("-d {pod}/32 -p {protocol} -m {protocol} --dport {port}");
        lines.push(format!("-A {host_ports} {to_host} -j DNAT --to-destination {pod}:{port}"));
        // A pod that reaches itself through the node's address must see another source than its own, and
        // so must one that is reached from the node's loopback.
        lines.push(format!("-A {masquerade} -s {pod}/32 {to_pod} -j MASQUERADE"));
        lines.push(format!("-A {masquerade} -s 127.0.0.1/32 {to_pod} -j MASQUERADE"));
    }
    lines.extend([
        format!("-A {masquerade} -d {cluster} -j RETURN"),
        format!("-A {masquerade} -d 224.0.0.0/4 -j RETURN"),
        format!("-A {masquerade} -s {pods} ! -o {bridge} -j MASQUERADE --random-fully"),
        "COMMIT".to_string(),
        "*filter".to_string(),
        format!(":{forward} - [0:0]"),
        format!("-A {forward} -d 127.0.0.0/8 -j DROP"),
        format!("-A {forward} -s {cluster} -j ACCEPT"),
        format!("-A {forward} -d {cluster} -j ACCEPT"),
        "COMMIT".to_string(),
    ]);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_leave_the_clusters_own_traffic_alone_and_masquerade_the_rest() {
        let mapping =
            PortMapping { protocol: Protocol::Tcp, host_port: 8080, container_port: 80, host_ip: None };
        let pod = Ipv4Addr::new(10, 244, 0, 5);
        let (pods, cluster) = ("10.244.0.0/24".parse().unwrap(), "10.244.0.0/16".parse().unwrap());
        let text = render(CLUSTER_CHAINS, pods, cluster, "coracle0", &[(pod, mapping)]);
        assert_eq!(
            text,
            "\
*nat
:IP-MASQ-AGENT - [0:0]
:KUBE-HOSTPORTS - [0:0]
-A KUBE-HOSTPORTS -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.0.5:80
-A IP-MASQ-AGENT -s 10.244.0.5/32 -d 10.244.0.5/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A IP-MASQ-AGENT -s 127.0.0.1/32 -d 10.244.0.5/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A IP-MASQ-AGENT -d 10.244.0.0/16 -j RETURN
-A IP-MASQ-AGENT -d 224.0.0.0/4 -j RETURN
-A IP-MASQ-AGENT -s 10.244.0.0/24 ! -o coracle0 -j MASQUERADE --random-fully
COMMIT
*filter
:CORACLE-FORWARD - [0:0]
-A CORACLE-FORWARD -d 127.0.0.0/8 -j DROP
-A CORACLE-FORWARD -s 10.244.0.0/16 -j ACCEPT
-A CORACLE-FORWARD -d 10.244.0.0/16 -j ACCEPT
COMMIT
"
        );
    }
}

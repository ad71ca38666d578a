//! Which remembered UDP flows have become wrong.
//!
//! Conntrack remembers where a flow was sent. TCP connections end by themselves; a UDP client that keeps its
//! port would go on reaching an endpoint that is gone, or find a Service dead that has come alive.

use std::{collections::HashSet, net::Ipv4Addr};

use crate::services::{Port, Protocol};

/// Remembered flows that have to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StaleFlows {
    /// To `service`, rewritten to `endpoint`.
    ToEndpoint {
        /// The virtual address.
        service: Ipv4Addr,
        /// The endpoint that is gone.
        endpoint: Ipv4Addr,
    },
    /// To `service`, remembered while it had no endpoint.
    ToService {
        /// The virtual address.
        service: Ipv4Addr,
    },
    /// To the node's port, remembered while it led nowhere or to an endpoint that is gone.
    ToNodePort {
        /// The port.
        port: u16,
    },
}

impl StaleFlows {
    /// The arguments of `conntrack` that forget these flows.
    pub fn arguments(&self) -> Vec<String> {
        let words = |text: String| text.split(' ').map(str::to_string).collect();
        match self {
            StaleFlows::ToEndpoint { service, endpoint } => {
                words(format!("-D --orig-dst {service} --dst-nat {endpoint} -p udp"))
            }
            StaleFlows::ToService { service } => words(format!("-D --orig-dst {service} -p udp")),
            StaleFlows::ToNodePort { port } => words(format!("-D -p udp --dport {port}")),
        }
    }
}

/// What has to be forgotten when `new` takes the place of `old`.
pub fn stale_flows(old: &[Port], new: &[Port]) -> Vec<StaleFlows> {
    let udp = |port: &&Port| port.protocol == Protocol::Udp;
    let mut stale = Vec::new();
    for before in old.iter().filter(udp) {
        let after = new.iter().filter(udp).find(|port| port.name == before.name);
        let kept: HashSet<_> = after.into_iter().flat_map(|port| &port.endpoints).collect();
        let gone: Vec<_> = before.endpoints.iter().filter(|target| !kept.contains(target)).collect();
        stale.extend(
            gone.iter()
                .map(|target| StaleFlows::ToEndpoint { service: before.cluster_ip, endpoint: target.ip }),
        );
        if let (Some(port), false) = (before.node_port, gone.is_empty()) {
            stale.push(StaleFlows::ToNodePort { port });
        }
    }
    for after in new.iter().filter(udp).filter(|port| !port.endpoints.is_empty()) {
        let before = old.iter().filter(udp).find(|port| port.name == after.name);
        if before.is_none_or(|port| port.endpoints.is_empty()) {
            stale.push(StaleFlows::ToService { service: after.cluster_ip });
            stale.extend(after.node_port.map(|port| StaleFlows::ToNodePort { port }));
        }
    }
    stale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::Target;

    fn dns(endpoints: &[u8]) -> Port {
        let target = |last: &u8| Target { ip: Ipv4Addr::new(10, 244, 0, *last), port: 53, is_local: true };
        Port {
            name: "kube-system/kube-dns:dns".into(),
            protocol: Protocol::Udp,
            cluster_ip: Ipv4Addr::new(10, 96, 0, 10),
            port: 53,
            node_port: None,
            external_ips: Vec::new(),
            affinity: None,
            external_local: false,
            internal_local: false,
            endpoints: endpoints.iter().map(target).collect(),
        }
    }

    #[test]
    fn flows_to_an_endpoint_that_is_gone_are_forgotten() {
        let stale = stale_flows(&[dns(&[5, 6])], &[dns(&[6])]);
        let [flow] = stale.as_slice() else { panic!("{stale:?}") };
        assert_eq!(flow.arguments().join(" "), "-D --orig-dst 10.96.0.10 --dst-nat 10.244.0.5 -p udp");
    }

    #[test]
    fn a_service_that_comes_alive_is_looked_for_again() {
        let service = Ipv4Addr::new(10, 96, 0, 10);
        assert_eq!(stale_flows(&[dns(&[])], &[dns(&[6])]), [StaleFlows::ToService { service }]);
        assert_eq!(stale_flows(&[dns(&[6])], &[dns(&[6])]), []);
    }
}

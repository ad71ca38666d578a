//! The rules, as text for `iptables-restore`: upstream's chains, comments and order
//! (kube-proxy's iptables mode).
//!
//! Traffic to a Service meets `KUBE-SERVICES`, goes to the Service's `KUBE-SVC-...` (from outside by way of
//! `KUBE-EXT-...`), there by chance to one endpoint's `KUBE-SEP-...`, which rewrites the destination. What
//! must not keep its source is marked on the way and masqueraded in `KUBE-POSTROUTING`.

use std::{collections::BTreeSet, fmt::Write};

use sha2::{Digest, Sha256};

use crate::services::{Port, Target};

/// The mark of packets that are to be masqueraded.
const MASQUERADE_MARK: &str = "0x4000";

/// Chains of the nat table that are always there.
const NAT_CHAINS: [&str; 5] =
    ["KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"];
/// Chains of the filter table that are always there.
const FILTER_CHAINS: [&str; 5] =
    ["KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-FORWARD", "KUBE-PROXY-FIREWALL"];

/// Everything that the proxy wants to stand in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// The per-service chains of the nat table that `text` fills.
    pub chains: BTreeSet<String>,
    nat: String,
    filter: String,
}

impl Ruleset {
    /// The transaction that loads this rule set. `stale` are per-service chains that stand in the kernel: those
    /// that are no longer wanted are emptied and removed in the same step.
    pub fn restore_input<'a>(&'a self, stale: impl IntoIterator<Item = &'a str>) -> String {
        let stale: Vec<&str> = stale.into_iter().filter(|chain| !self.chains.contains(*chain)).collect();
        let mut text = String::with_capacity(self.nat.len() + self.filter.len() + 256);
        text.push_str("*nat\n");
        for chain in NAT_CHAINS.into_iter().chain(self.chains.iter().map(String::as_str)) {
            declare(&mut text, chain);
        }
        for chain in &stale {
            declare(&mut text, chain);
        }
        text.push_str(&self.nat);
        for chain in &stale {
            text.push_str(&format!("-X {chain}\n"));
        }
        text.push_str("COMMIT\n*filter\n");
        for chain in FILTER_CHAINS {
            declare(&mut text, chain);
        }
        text.push_str(&self.filter);
        text.push_str("COMMIT\n");
        text
    }
}

/// Whether a chain belongs to one Service, so that it goes when the Service goes.
pub fn is_service_chain(chain: &str) -> bool {
    ["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-FW-"]
        .iter()
        .any(|prefix| chain.starts_with(prefix))
}

/// Whether a chain is the proxy's at all.
pub fn is_proxy_chain(chain: &str) -> bool {
    is_service_chain(chain) || NAT_CHAINS.contains(&chain) || FILTER_CHAINS.contains(&chain)
}

/// The jumps from the kernel's own chains, in the order in which they are to be inserted at the top:
/// (table, chain, rule).
pub fn jumps() -> Vec<(&'static str, &'static str, String)> {
    let portals = "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
    let new_portals = format!("-m conntrack --ctstate NEW {portals}");
    let external = "-m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES".to_string();
    let forwarding = "-m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD".to_string();
    let firewall = "-m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL".to_string();
    let postrouting = "-m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING".to_string();
    vec![
        ("filter", "INPUT", firewall.clone()),
        ("filter", "OUTPUT", firewall.clone()),
        ("filter", "FORWARD", firewall),
        ("filter", "INPUT", external.clone()),
        ("filter", "FORWARD", external),
        ("filter", "FORWARD", new_portals.clone()),
        ("filter", "OUTPUT", new_portals),
        ("filter", "FORWARD", forwarding),
        ("nat", "OUTPUT", portals.to_string()),
        ("nat", "PREROUTING", portals.to_string()),
        ("nat", "POSTROUTING", postrouting),
    ]
}

/// The rules for `ports`. `cluster_cidr` holds all pods: what comes from there keeps its source.
pub fn ruleset(ports: &[Port], cluster_cidr: &str) -> Ruleset {
    let mut rules =
        Rules { cluster_cidr, nat: String::new(), filter: String::new(), chains: BTreeSet::new() };
    rules.masquerading();
    for port in ports {
        rules.port(port);
    }
    rules.last_rules();
    Ruleset { chains: rules.chains, nat: rules.nat, filter: rules.filter }
}

struct Rules<'a> {
    cluster_cidr: &'a str,
    nat: String,
    filter: String,
    chains: BTreeSet<String>,
}

impl Rules<'_> {
    fn masquerading(&mut self) {
        let mark = MASQUERADE_MARK;
        self.nat(format!("-A KUBE-POSTROUTING -m mark ! --mark {mark}/{mark} -j RETURN"));
        // The mark is taken off again: a packet that comes by once more (IPsec) must not be masqueraded twice.
        self.nat(format!("-A KUBE-POSTROUTING -j MARK --xor-mark {mark}"));
        self.nat("-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully");
        self.nat(format!("-A KUBE-MARK-MASQ -j MARK --or-mark {mark}"));
        // Packets that conntrack cannot place would reach pods with addresses not translated back.
        self.filter("-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP");
        self.filter(format!("-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark {mark}/{mark} -j ACCEPT"));
        self.filter("-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    }

    fn last_rules(&mut self) {
        self.nat("-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS");
    }

    fn port(&mut self, port: &Port) {
        let local: Vec<Target> = port.endpoints.iter().filter(|each| each.is_local).copied().collect();
        let is_external = port.node_port.is_some() || !port.external_ips.is_empty();
        let cluster_targets = &port.endpoints;
        let internal_targets = if port.internal_local { &local } else { cluster_targets };
        let needs_cluster_chain =
            !cluster_targets.is_empty() && (!port.internal_local || is_external && !port.external_local);
        let needs_local_chain =
            !local.is_empty() && (port.internal_local || is_external && port.external_local);

        let internal_chain = chain(if port.internal_local { "KUBE-SVL-" } else { "KUBE-SVC-" }, port, None);
        self.cluster_ip(port, (!internal_targets.is_empty()).then_some(internal_chain));
        if is_external {
            self.external(port, !local.is_empty());
        }
        if needs_cluster_chain || is_external && port.external_local && !cluster_targets.is_empty() {
            self.balance(port, &chain("KUBE-SVC-", port, None), cluster_targets);
        }
        if needs_local_chain {
            self.balance(port, &chain("KUBE-SVL-", port, None), &local);
        }
        for target in &port.endpoints {
            self.endpoint(port, target);
        }
    }

    /// Traffic to the virtual address, or its rejection when there is nowhere to go.
    fn cluster_ip(&mut self, port: &Port, to: Option<String>) {
        let (name, protocol) = (&port.name, port.protocol);
        let matches = format!("-m {protocol} -p {protocol} -d {}/32 --dport {}", port.cluster_ip, port.port);
        let Some(to) = to else {
            let words = if port.endpoints.is_empty() { "has no endpoints" } else { "has no local endpoints" };
            let verdict = if port.endpoints.is_empty() { "REJECT" } else { "DROP" };
            self.filter(format!(
                "-A KUBE-SERVICES -m comment --comment \"{name} {words}\" {matches} -j {verdict}"
            ));
            return;
        };
        self.nat(format!("-A KUBE-SERVICES -m comment --comment \"{name} cluster IP\" {matches} -j {to}"));
        let cidr = self.cluster_cidr;
        self.nat(format!(
            "-A {to} -m comment --comment \"{name} cluster IP\" {matches} ! -s {cidr} -j KUBE-MARK-MASQ"
        ));
    }

    /// Traffic to the node's port and to external addresses.
    fn external(&mut self, port: &Port, has_local: bool) {
        let (name, protocol) = (&port.name, port.protocol);
        if port.endpoints.is_empty() {
            if let Some(node_port) = port.node_port {
                self.filter(format!("-A KUBE-EXTERNAL-SERVICES -m comment --comment \"{name} has no endpoints\" -m addrtype --dst-type LOCAL -m {protocol} -p {protocol} --dport {node_port} -j REJECT"));
            }
            for external in &port.external_ips {
                self.filter(format!("-A KUBE-EXTERNAL-SERVICES -m comment --comment \"{name} has no endpoints\" -m {protocol} -p {protocol} -d {}/32 --dport {} -j REJECT", external.ip, port.port));
            }
            return;
        }
        let ext = chain("KUBE-EXT-", port, None);
        let svc = chain("KUBE-SVC-", port, None);
        if let Some(node_port) = port.node_port {
            self.nat(format!("-A KUBE-NODEPORTS -m comment --comment \"{name}\" -m {protocol} -p {protocol} --dport {node_port} -j {ext}"));
            if port.external_local && !has_local {
                self.filter(format!("-A KUBE-EXTERNAL-SERVICES -m comment --comment \"{name} has no local endpoints\" -m addrtype --dst-type LOCAL -m {protocol} -p {protocol} --dport {node_port} -j DROP"));
            }
        }
        for external in &port.external_ips {
            let matches = format!("-m {protocol} -p {protocol} -d {}/32 --dport {}", external.ip, port.port);
            self.nat(format!(
                "-A KUBE-SERVICES -m comment --comment \"{name} {}\" {matches} -j {ext}",
                external.kind
            ));
            if !external.source_ranges.is_empty() {
                for range in &external.source_ranges {
                    self.filter(format!("-A KUBE-PROXY-FIREWALL -m comment --comment \"{name} traffic accepted\" {matches} -s {range} -j RETURN"));
                }
                self.filter(format!("-A KUBE-PROXY-FIREWALL -m comment --comment \"{name} traffic not accepted\" {matches} -j DROP"));
            }
        }
        self.chains.insert(ext.clone());
        if !port.external_local {
            self.nat(format!("-A {ext} -m comment --comment \"masquerade traffic for {name} external destinations\" -j KUBE-MARK-MASQ"));
            let to = if port.internal_local { self.ensure_cluster_chain(port) } else { svc };
            self.nat(format!("-A {ext} -j {to}"));
            return;
        }
        // Local policy: pods and the node itself may still use every endpoint; the outside only those here.
        let cidr = self.cluster_cidr;
        self.nat(format!("-A {ext} -m comment --comment \"pod traffic for {name} external destinations\" -s {cidr} -j {svc}"));
        self.nat(format!("-A {ext} -m comment --comment \"masquerade LOCAL traffic for {name} external destinations\" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ"));
        self.nat(format!("-A {ext} -m comment --comment \"route LOCAL traffic for {name} external destinations\" -m addrtype --src-type LOCAL -j {svc}"));
        if has_local {
            self.nat(format!("-A {ext} -j {}", chain("KUBE-SVL-", port, None)));
        }
    }

    fn ensure_cluster_chain(&mut self, port: &Port) -> String {
        let svc = chain("KUBE-SVC-", port, None);
        self.chains.insert(svc.clone());
        svc
    }

    /// One endpoint for each new connection, each as likely as any other; with affinity, the one that the client
    /// had before.
    fn balance(&mut self, port: &Port, chain_name: &str, targets: &[Target]) {
        let name = &port.name;
        self.chains.insert(chain_name.to_string());
        if let Some(timeout) = port.affinity {
            for target in targets {
                let sep = chain("KUBE-SEP-", port, Some(target));
                let seconds = timeout.as_secs();
                self.nat(format!("-A {chain_name} -m comment --comment \"{name} -> {}:{}\" -m recent --name {sep} --rcheck --seconds {seconds} --reap -j {sep}", target.ip, target.port));
            }
        }
        for (index, target) in targets.iter().enumerate() {
            let sep = chain("KUBE-SEP-", port, Some(target));
            let left = targets.len() - index;
            let chance = match left {
                1 => String::new(),
                left => format!(" -m statistic --mode random --probability {:.10}", 1.0 / left as f64),
            };
            self.nat(format!(
                "-A {chain_name} -m comment --comment \"{name} -> {}:{}\"{chance} -j {sep}",
                target.ip, target.port
            ));
        }
    }

    fn endpoint(&mut self, port: &Port, target: &Target) {
        let (name, protocol) = (&port.name, port.protocol);
        let sep = chain("KUBE-SEP-", port, Some(target));
        // A pod that reaches itself must see another source than its own address.
        self.nat(format!("-A {sep} -m comment --comment \"{name}\" -s {}/32 -j KUBE-MARK-MASQ", target.ip));
        let affinity = match port.affinity {
            Some(_) => format!(" -m recent --name {sep} --set"),
            None => String::new(),
        };
        self.nat(format!("-A {sep} -m comment --comment \"{name}\"{affinity} -m {protocol} -p {protocol} -j DNAT --to-destination {}:{}", target.ip, target.port));
        self.chains.insert(sep);
    }

    fn nat(&mut self, rule: impl AsRef<str>) {
        line(&mut self.nat, rule.as_ref());
    }

    fn filter(&mut self, rule: impl AsRef<str>) {
        line(&mut self.filter, rule.as_ref());
    }
}

/// Upstream's name of a chain: the prefix and 16 letters of the base-32 SHA-256 of what it stands for.
fn chain(prefix: &str, port: &Port, target: Option<&Target>) -> String {
    let mut text = format!("{}{}", port.name, port.protocol);
    if let Some(target) = target {
        write!(text, "{}:{}", target.ip, target.port).expect("writing to a string cannot fail");
    }
    let digest = Sha256::digest(text.as_bytes());
    format!("{prefix}{}", base32(&digest[..10]))
}

/// RFC 4648 base 32; ten bytes make the 16 letters that upstream keeps.
fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::new();
    for group in bytes.chunks(5) {
        let bits = group.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        for place in (0..8).rev() {
            text.push(char::from(LETTERS[(bits >> (place * 5) & 31) as usize]));
        }
    }
    text
}

fn declare(text: &mut String, chain: &str) {
    line(text, &format!(":{chain} - [0:0]"));
}

fn line(text: &mut String, rule: &str) {
    text.push_str(rule);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;
    use crate::services::Protocol;

    fn port(endpoints: usize) -> Port {
        let target = |index: usize| Target {
            ip: Ipv4Addr::new(10, 244, 0, index as u8 + 5),
            port: 8080,
            is_local: true,
        };
        Port {
            name: "shop/web:http".into(),
            protocol: Protocol::Tcp,
            cluster_ip: Ipv4Addr::new(10, 96, 0, 20),
            port: 80,
            node_port: None,
            external_ips: Vec::new(),
            affinity: None,
            external_local: false,
            internal_local: false,
            endpoints: (0..endpoints).map(target).collect(),
        }
    }

    fn text(port: Port) -> String {
        ruleset(&[port], "10.244.0.0/16").restore_input([])
    }

    #[test]
    fn chain_names_are_upstreams() {
        // kube-proxy's own test has these for ns1/svc1:p80 tcp.
        let port = Port { name: "ns1/svc1:p80".into(), ..port(0) };
        assert_eq!(chain("KUBE-SVC-", &port, None), "KUBE-SVC-XPGD46QRK7WJZT7O");
    }

    #[test]
    fn a_service_with_two_endpoints_sends_half_of_the_connections_to_each() {
        let text = text(port(2));
        assert!(text.contains("-d 10.96.0.20/32 --dport 80 -j KUBE-SVC-"), "{text}");
        assert_eq!(text.matches("--probability 0.5000000000").count(), 1);
        assert!(text.contains("-j DNAT --to-destination 10.244.0.5:8080"));
        assert!(text.contains("-j DNAT --to-destination 10.244.0.6:8080"));
        assert!(!text.contains("REJECT"));
    }

    #[test]
    fn a_service_without_endpoints_rejects() {
        let text = text(Port { node_port: Some(30080), ..port(0) });
        assert!(text.contains(
            "\"shop/web:http has no endpoints\" -m tcp -p tcp -d 10.96.0.20/32 --dport 80 -j REJECT"
        ));
        assert!(text.contains("--dst-type LOCAL -m tcp -p tcp --dport 30080 -j REJECT"));
        assert!(!text.contains("KUBE-SVC-"));
    }

    #[test]
    fn a_node_port_masquerades_and_joins_the_services_chain() {
        let text = text(Port { node_port: Some(30080), ..port(1) });
        assert!(text.contains("-A KUBE-NODEPORTS -m comment --comment \"shop/web:http\" -m tcp -p tcp --dport 30080 -j KUBE-EXT-"));
        assert!(text.contains("masquerade traffic for shop/web:http external destinations"));
    }

    #[test]
    fn local_policy_keeps_outside_traffic_on_the_node() {
        let text = text(Port { node_port: Some(30080), external_local: true, ..port(1) });
        assert!(text.contains("-j KUBE-SVL-"));
        assert!(!text.contains("masquerade traffic for"));
    }

    #[test]
    fn affinity_remembers_the_client() {
        let text = text(Port { affinity: Some(Duration::from_secs(600)), ..port(1) });
        assert!(text.contains("--rcheck --seconds 600 --reap -j KUBE-SEP-"));
        assert!(text.contains("--set -m tcp -p tcp -j DNAT"));
    }

    #[test]
    fn chains_of_a_service_that_is_gone_are_removed_in_the_same_transaction() {
        let rules = ruleset(&[], "10.244.0.0/16");
        let text = rules.restore_input(["KUBE-SVC-OLD"]);
        assert!(text.contains(":KUBE-SVC-OLD - [0:0]\n"));
        assert!(text.contains("-X KUBE-SVC-OLD\n"));
    }

    #[test]
    fn every_chain_that_is_jumped_to_is_declared() {
        for endpoints in 0..3 {
            for variant in 0..8_u8 {
                let text = text(Port {
                    node_port: (variant & 1 != 0).then_some(30080),
                    external_local: variant & 2 != 0,
                    internal_local: variant & 4 != 0,
                    ..port(endpoints)
                });
                let targets = text.lines().filter_map(|line| line.rsplit_once("-j KUBE-"));
                for (_, target) in targets {
                    assert!(text.contains(&format!(":KUBE-{target} ")), "KUBE-{target} in\n{text}");
                }
            }
        }
    }
}

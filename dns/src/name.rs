//! What a name asks for (upstream's specification "Kubernetes DNS-Based Service Discovery", version 1.1.0).

use std::net::Ipv4Addr;

/// A name inside the cluster's domain, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterName {
    /// The domain itself, or one of its branches `svc` and `pod`.
    Branch,
    /// `dns-version.<domain>`.
    Version,
    /// `<namespace>.svc.<domain>` or `<namespace>.pod.<domain>`.
    Namespace(String),
    /// `<service>.<namespace>.svc.<domain>`.
    Service(ServiceName),
    /// `_<port>._<protocol>.<service>.<namespace>.svc.<domain>`.
    Port {
        /// The Service.
        service: ServiceName,
        /// The port's name.
        port: String,
        /// `tcp`, `udp` or `sctp`.
        protocol: String,
    },
    /// `<hostname>.<service>.<namespace>.svc.<domain>`, one endpoint of a headless Service.
    Endpoint {
        /// The Service.
        service: ServiceName,
        /// The pod's hostname, or its address with dashes.
        hostname: String,
    },
    /// `<a-b-c-d>.<namespace>.pod.<domain>`.
    Pod {
        /// The pod's namespace.
        namespace: String,
        /// The address that the name spells.
        ip: Ipv4Addr,
    },
    /// Anything else below the domain: no such name.
    Unknown,
}

/// A Service by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Takes a name apart. `labels` is the name below the cluster's domain in lower case, leftmost first.
pub fn parse(labels: &[&str]) -> ClusterName {
    let service = |namespace: &str, name: &str| ServiceName {
        namespace: namespace.to_string(),
        name: name.to_string(),
    };
    match labels {
        [] | ["svc"] | ["pod"] => ClusterName::Branch,
        ["dns-version"] => ClusterName::Version,
        [namespace, "svc" | "pod"] => ClusterName::Namespace((*namespace).to_string()),
        [name, namespace, "svc"] => ClusterName::Service(service(namespace, name)),
        [port, protocol, name, namespace, "svc"] => {
            match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                (Some(port), Some(protocol)) => ClusterName::Port {
                    service: service(namespace, name),
                    port: port.to_string(),
                    protocol: protocol.to_string(),
                },
                _ => ClusterName::Unknown,
            }
        }
        [hostname, name, namespace, "svc"] => {
            ClusterName::Endpoint { service: service(namespace, name), hostname: (*hostname).to_string() }
        }
        [address, namespace, "pod"] => match address.replace('-', ".").parse() {
            Ok(ip) => ClusterName::Pod { namespace: (*namespace).to_string(), ip },
            Err(_) => ClusterName::Unknown,
        },
        _ => ClusterName::Unknown,
    }
}

/// The address that a name below `in-addr.arpa` asks about. `labels` is the whole name, leftmost first.
pub fn reverse(labels: &[&str]) -> Option<Ipv4Addr> {
    let [d, c, b, a, "in-addr", "arpa"] = labels else { return None };
    format!("{a}.{b}.{c}.{d}").parse().ok()
}

/// How an endpoint without a hostname is called: its address with dashes.
pub fn dashed(ip: &str) -> String {
    ip.replace(['.', ':'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str) -> ClusterName {
        let labels: Vec<&str> = name.split('.').filter(|label| !label.is_empty()).collect();
        parse(&labels)
    }

    #[test]
    fn every_form_of_the_specification_is_told_apart() {
        let web = || ServiceName { namespace: "shop".into(), name: "web".into() };
        assert_eq!(parsed(""), ClusterName::Branch);
        assert_eq!(parsed("shop.svc"), ClusterName::Namespace("shop".into()));
        assert_eq!(parsed("web.shop.svc"), ClusterName::Service(web()));
        assert_eq!(
            parsed("_http._tcp.web.shop.svc"),
            ClusterName::Port { service: web(), port: "http".into(), protocol: "tcp".into() }
        );
        assert_eq!(
            parsed("web-0.web.shop.svc"),
            ClusterName::Endpoint { service: web(), hostname: "web-0".into() }
        );
        assert_eq!(
            parsed("10-244-0-5.shop.pod"),
            ClusterName::Pod { namespace: "shop".into(), ip: Ipv4Addr::new(10, 244, 0, 5) }
        );
        for unknown in ["web.shop", "x.shop.pod", "http._tcp.web.shop.svc", "a.b.c.d.e.svc"] {
            assert_eq!(parsed(unknown), ClusterName::Unknown, "{unknown}");
        }
    }

    #[test]
    fn a_reverse_name_spells_its_address_backwards() {
        let labels = ["10", "0", "96", "10", "in-addr", "arpa"];
        assert_eq!(reverse(&labels), Some(Ipv4Addr::new(10, 96, 0, 10)));
        assert_eq!(reverse(&labels[1..]), None);
    }
}

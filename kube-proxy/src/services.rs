//! What is to be proxied: Services and EndpointSlices boiled down to ports and endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{Service, ServicePort},
    discovery::v1::{Endpoint, EndpointSlice},
};

/// The label by which an EndpointSlice names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Services with this label are somebody else's to proxy.
const OTHER_PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Services with this label have no virtual address to serve.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// A transport protocol as rules name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    fn parse(text: Option<&str>) -> Option<Protocol> {
        match text.unwrap_or("TCP") {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// One port of one Service, with all that rules need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// `namespace/name:port`, without the colon for a port that has no name.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The virtual address.
    pub cluster_ip: Ipv4Addr,
    /// The port at the virtual address.
    pub port: u16,
    /// The port at every address of the node.
    pub node_port: Option<u16>,
    /// `spec.externalIPs` and the addresses of the load balancer.
    pub external_ips: Vec<ExternalIp>,
    /// For how long a client stays with its endpoint; `None` without affinity.
    pub affinity: Option<Duration>,
    /// `externalTrafficPolicy: Local`: outside traffic stays on this node and keeps its source.
    pub external_local: bool,
    /// `internalTrafficPolicy: Local`: traffic of pods stays on this node.
    pub internal_local: bool,
    /// Where traffic may go, sorted.
    pub endpoints: Vec<Target>,
}

/// An address outside the cluster's ranges at which a Service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalIp {
    /// The address.
    pub ip: Ipv4Addr,
    /// What the rule's comment calls it: `external IP` or `loadbalancer IP`.
    pub kind: &'static str,
    /// `spec.loadBalancerSourceRanges`: who may come in; everybody when empty.
    pub source_ranges: Vec<String>,
}

/// One endpoint of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// The pod's port.
    pub port: u16,
    /// Whether the pod runs on this node.
    pub is_local: bool,
}

/// Everything to be proxied on the node called `node`, in the order of names, so that the same input always
/// gives the same rules.
pub fn ports<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    node: &str,
) -> Vec<Port> {
    let mut by_service: BTreeMap<(String, String), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        if slice.address_type != "IPv4" {
            continue;
        }
        let labels = slice.metadata.labels.as_ref();
        if let Some(service) = labels.and_then(|labels| labels.get(SERVICE_NAME_LABEL)) {
            let namespace = slice.metadata.namespace.clone().unwrap_or_default();
            by_service.entry((namespace, service.clone())).or_default().push(slice);
        }
    }
    let mut ports: Vec<Port> =
        services.into_iter().flat_map(|service| ports_of(service, &by_service, node)).collect();
    ports.sort_by(|a, b| (&a.name, a.protocol).cmp(&(&b.name, b.protocol)));
    ports
}

fn ports_of(
    service: &Service,
    slices: &BTreeMap<(String, String), Vec<&EndpointSlice>>,
    node: &str,
) -> Vec<Port> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let labels = service.metadata.labels.as_ref();
    let has_label = |label: &str| labels.is_some_and(|labels| labels.contains_key(label));
    let address = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
    let is_external_name = spec.type_.as_deref() == Some("ExternalName");
    let (Some(cluster_ip), false) = (address, is_external_name) else { return Vec::new() };
    if has_label(OTHER_PROXY_LABEL) || has_label(HEADLESS_LABEL) {
        return Vec::new();
    }
    let namespace = service.metadata.namespace.clone().unwrap_or_default();
    let name = service.metadata.name.clone().unwrap_or_default();
    let slices = slices.get(&(namespace.clone(), name.clone())).map_or(&[][..], Vec::as_slice);
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let client_ip = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
        let seconds = client_ip.and_then(|client_ip| client_ip.timeout_seconds).unwrap_or(10_800);
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    });
    let port_of = |port: &ServicePort| {
        let port_name = port.name.as_deref().unwrap_or_default();
        let protocol = Protocol::parse(port.protocol.as_deref())?;
        Some(Port {
            name: match port_name {
                "" => format!("{namespace}/{name}"),
                port_name => format!("{namespace}/{name}:{port_name}"),
            },
            protocol,
            cluster_ip,
            port: u16::try_from(port.port).ok()?,
            node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
            external_ips: external_ips(service),
            affinity,
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            endpoints: targets(slices, port_name, protocol, node),
        })
    };
    spec.ports.iter().flatten().filter_map(port_of).collect()
}

fn external_ips(service: &Service) -> Vec<ExternalIp> {
    let spec = service.spec.as_ref();
    let external = spec.and_then(|spec| spec.external_ips.as_ref()).into_iter().flatten();
    let ranges = spec.and_then(|spec| spec.load_balancer_source_ranges.clone()).unwrap_or_default();
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    let parse = |text: &String| text.parse::<Ipv4Addr>().ok();
    let external = external.filter_map(parse).map(|ip| ExternalIp {
        ip,
        kind: "external IP",
        source_ranges: Vec::new(),
    });
    let balancer = ingress
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|ingress| ingress.ip.as_ref().and_then(parse))
        .map(|ip| ExternalIp { ip, kind: "loadbalancer IP", source_ranges: ranges.clone() });
    external.chain(balancer).collect()
}

/// The endpoints of a port: those that are ready; where none is, those that still serve while they end
/// (KEP-1669), so that the last pods of a rollout are not cut off.
fn targets(slices: &[&EndpointSlice], port_name: &str, protocol: Protocol, node: &str) -> Vec<Target> {
    let mut ready = BTreeSet::new();
    let mut ending = BTreeSet::new();
    for slice in slices {
        let wanted = slice.ports.iter().flatten().find(|port| {
            port.name.as_deref().unwrap_or_default() == port_name
                && Protocol::parse(port.protocol.as_deref()) == Some(protocol)
        });
        let number = wanted.and_then(|port| port.port).and_then(|port| u16::try_from(port).ok());
        let Some(port) = number else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(ip) = endpoint.addresses.first().and_then(|ip| ip.parse().ok()) else { continue };
            let target = Target { ip, port, is_local: endpoint.node_name.as_deref() == Some(node) };
            match standing(endpoint) {
                Standing::Ready => _ = ready.insert(target),
                Standing::ServingTerminating => _ = ending.insert(target),
                Standing::Out => {}
            }
        }
    }
    if ready.is_empty() { ending.into_iter().collect() } else { ready.into_iter().collect() }
}

enum Standing {
    Ready,
    ServingTerminating,
    Out,
}

fn standing(endpoint: &Endpoint) -> Standing {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
    match (ready, serving, terminating) {
        (true, _, _) => Standing::Ready,
        (false, true, true) => Standing::ServingTerminating,
        _ => Standing::Out,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}))
            .unwrap()
    }

    fn slice(endpoints: Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {SERVICE_NAME_LABEL: "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn spec() -> Value {
        json!({"clusterIP": "10.96.0.20", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]})
    }

    fn addresses(ports: &[Port]) -> Vec<String> {
        ports[0].endpoints.iter().map(|target| target.ip.to_string()).collect()
    }

    #[test]
    fn only_ready_endpoints_get_traffic() {
        let slice = slice(json!([
            {"addresses": ["10.244.0.5"], "conditions": {"ready": true}, "nodeName": "a"},
            {"addresses": ["10.244.0.6"], "conditions": {"ready": false}, "nodeName": "b"},
        ]));
        let ports = ports([&service(spec())], [&slice], "a");
        assert_eq!(ports[0].name, "shop/web:http");
        assert_eq!(
            ports[0].endpoints,
            [Target { ip: Ipv4Addr::new(10, 244, 0, 5), port: 8080, is_local: true }]
        );
    }

    #[test]
    fn the_last_pods_serve_until_they_are_gone() {
        let slice = slice(json!([
            {"addresses": ["10.244.0.5"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.244.0.6"], "conditions": {"ready": false, "serving": false, "terminating": true}},
        ]));
        assert_eq!(addresses(&ports([&service(spec())], [&slice], "a")), ["10.244.0.5"]);
    }

    #[test]
    fn headless_and_external_name_services_have_nothing_to_proxy() {
        for spec in [
            json!({"clusterIP": "None", "ports": [{"port": 80}]}),
            json!({"type": "ExternalName", "externalName": "example.com"}),
        ] {
            assert_eq!(ports([&service(spec)], [], "a"), []);
        }
    }

    #[test]
    fn a_service_without_endpoints_is_still_there_to_be_rejected() {
        assert_eq!(ports([&service(spec())], [], "a")[0].endpoints, []);
    }
}

//! The cluster's own names: from a question to records, without a copy of the zone.
//!
//! Services and EndpointSlices are looked up as the question comes, in the caches that the process has anyway:
//! a name answers the moment its object is there.

use std::{net::Ipv4Addr, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Service, ServicePort},
    discovery::v1::{Endpoint, EndpointSlice},
};

use crate::name::{self, ClusterName, ServiceName};

/// What the cluster knows; the caches, or a few objects in a test.
pub trait Records {
    /// One Service.
    fn service(&self, name: &ServiceName) -> Option<Arc<Service>>;
    /// The EndpointSlices of a Service.
    fn slices(&self, name: &ServiceName) -> Vec<Arc<EndpointSlice>>;
    /// The Service that has a virtual address.
    fn service_at(&self, ip: Ipv4Addr) -> Option<Arc<Service>>;
    /// The EndpointSlices that name an address.
    fn slices_with(&self, ip: Ipv4Addr) -> Vec<Arc<EndpointSlice>>;
    /// Whether there is a namespace of this name.
    fn has_namespace(&self, name: &str) -> bool;
}

/// The records that a question may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// IPv4 addresses.
    A,
    /// Service locations.
    Srv,
    /// Text.
    Txt,
    /// Everything there is.
    Any,
    /// A type that the cluster has no records of, AAAA for example.
    Other,
}

impl Wanted {
    fn includes(self, kind: Wanted) -> bool {
        self == kind || self == Wanted::Any
    }
}

/// One record, its names relative to the cluster's domain unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An address of the name asked for.
    A(Ipv4Addr),
    /// A port of the name asked for.
    Srv {
        /// The port's number.
        port: u16,
        /// The host, below the cluster's domain.
        target: String,
        /// The host's address, for the additional section.
        address: Option<Ipv4Addr>,
    },
    /// Another name to ask for, absolute.
    Cname(String),
    /// Text.
    Txt(&'static str),
}

/// The outcome of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The name exists; the list is empty when it has no records of the type asked for.
    Found(Vec<Record>),
    /// There is no such name.
    NoSuchName,
}

/// Answers a question about a name in the cluster's domain.
pub fn answer(records: &impl Records, name: &ClusterName, wanted: Wanted) -> Answer {
    match name {
        ClusterName::Branch => Answer::Found(Vec::new()),
        ClusterName::Version => {
            Answer::Found(wanted.includes(Wanted::Txt).then_some(Record::Txt("1.1.0")).into_iter().collect())
        }
        ClusterName::Namespace(namespace) => found(records.has_namespace(namespace).then(Vec::new)),
        ClusterName::Service(name) => found(service(records, name, wanted)),
        ClusterName::Port { service, port, protocol } => {
            found(service_port(records, service, port, protocol, wanted))
        }
        ClusterName::Endpoint { service, hostname } => found(endpoint(records, service, hostname, wanted)),
        ClusterName::Pod { namespace, ip } => {
            let here = records.has_namespace(namespace);
            found(here.then(|| wanted.includes(Wanted::A).then_some(Record::A(*ip)).into_iter().collect()))
        }
        ClusterName::Unknown => Answer::NoSuchName,
    }
}

/// The names, below the cluster's domain, of an address: a Service's, or those of endpoints.
pub fn names_of(records: &impl Records, ip: Ipv4Addr) -> Vec<String> {
    if let Some(service) = records.service_at(ip) {
        return vec![service_host(&name_of(&service))];
    }
    let text = ip.to_string();
    let mut names = Vec::new();
    for slice in records.slices_with(ip) {
        let Some(service) = slice_service(&slice) else { continue };
        let here = slice.endpoints.iter().flatten().filter(|endpoint| endpoint.addresses.contains(&text));
        names.extend(here.map(|endpoint| format!("{}.{}", endpoint_host(endpoint), service_host(&service))));
    }
    names.sort();
    names.dedup();
    names
}

/// The Service that an EndpointSlice belongs to.
pub fn slice_service(slice: &EndpointSlice) -> Option<ServiceName> {
    let name = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?.clone();
    Some(ServiceName { namespace: slice.metadata.namespace.clone().unwrap_or_default(), name })
}

fn found(records: Option<Vec<Record>>) -> Answer {
    records.map_or(Answer::NoSuchName, Answer::Found)
}

fn service(records: &impl Records, name: &ServiceName, wanted: Wanted) -> Option<Vec<Record>> {
    let object = records.service(name)?;
    let shape = shape(&object);
    let addresses: Vec<Ipv4Addr> = match &shape {
        Shape::ExternalName(host) => return Some(vec![Record::Cname(host.clone())]),
        Shape::Virtual(ip) => vec![*ip],
        Shape::Headless => {
            let hosts = hosts(records, name);
            if hosts.is_empty() {
                return None; // as upstream: a headless Service without endpoints has no name
            }
            hosts.into_iter().map(|host| host.ip).collect()
        }
    };
    let mut answer = Vec::new();
    if wanted.includes(Wanted::A) {
        answer.extend(addresses.into_iter().map(Record::A));
    }
    if wanted.includes(Wanted::Srv) {
        let ports = object.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        answer.extend(ports.flat_map(|port| locations(records, name, &shape, port)));
    }
    Some(answer)
}

fn service_port(
    records: &impl Records,
    name: &ServiceName,
    port: &str,
    protocol: &str,
    wanted: Wanted,
) -> Option<Vec<Record>> {
    let object = records.service(name)?;
    let is_asked_for = |each: &&ServicePort| {
        each.name.as_deref().unwrap_or_default().eq_ignore_ascii_case(port)
            && each.protocol.as_deref().unwrap_or("TCP").eq_ignore_ascii_case(protocol)
    };
    let spec = object.spec.as_ref()?;
    let port = spec.ports.iter().flatten().find(is_asked_for)?;
    let locations = locations(records, name, &shape(&object), port);
    if locations.is_empty() {
        return None;
    }
    Some(if wanted.includes(Wanted::Srv) { locations } else { Vec::new() })
}

fn endpoint(
    records: &impl Records,
    name: &ServiceName,
    hostname: &str,
    wanted: Wanted,
) -> Option<Vec<Record>> {
    let object = records.service(name)?;
    if !matches!(shape(&object), Shape::Headless) {
        return None;
    }
    let hosts = hosts(records, name).into_iter().filter(|host| host.hostname == hostname);
    let addresses: Vec<Record> = hosts.map(|host| Record::A(host.ip)).collect();
    if addresses.is_empty() {
        return None;
    }
    Some(if wanted.includes(Wanted::A) { addresses } else { Vec::new() })
}

/// Where a port is: at the Service's own name, or at each endpoint of a headless one.
fn locations(records: &impl Records, name: &ServiceName, shape: &Shape, port: &ServicePort) -> Vec<Record> {
    let host = service_host(name);
    match shape {
        Shape::ExternalName(_) => Vec::new(),
        Shape::Virtual(ip) => match u16::try_from(port.port) {
            Ok(port) => vec![Record::Srv { port, target: host, address: Some(*ip) }],
            Err(_) => Vec::new(),
        },
        Shape::Headless => {
            let mut locations = Vec::new();
            for slice in records.slices(name) {
                let port_name = port.name.as_deref().unwrap_or_default();
                let matching = slice
                    .ports
                    .iter()
                    .flatten()
                    .find(|each| each.name.as_deref().unwrap_or_default() == port_name);
                let number = matching.and_then(|each| each.port).and_then(|port| u16::try_from(port).ok());
                let Some(number) = number else { continue };
                locations.extend(ready_hosts(&slice).map(|each| Record::Srv {
                    port: number,
                    target: format!("{}.{host}", each.hostname),
                    address: Some(each.ip),
                }));
            }
            locations
        }
    }
}

/// One endpoint as DNS sees it.
struct Host {
    hostname: String,
    ip: Ipv4Addr,
}

fn hosts(records: &impl Records, name: &ServiceName) -> Vec<Host> {
    let mut hosts: Vec<Host> =
        records.slices(name).iter().flat_map(|slice| ready_hosts(slice).collect::<Vec<_>>()).collect();
    hosts.sort_by_key(|host| host.ip);
    hosts.dedup_by_key(|host| host.ip);
    hosts
}

fn ready_hosts(slice: &EndpointSlice) -> impl Iterator<Item = Host> {
    let is_ready = |endpoint: &&Endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    let host = |endpoint: &Endpoint| {
        let ip = endpoint.addresses.first()?.parse().ok()?;
        Some(Host { hostname: endpoint_host(endpoint), ip })
    };
    slice.endpoints.iter().flatten().filter(is_ready).filter_map(host)
}

fn endpoint_host(endpoint: &Endpoint) -> String {
    match &endpoint.hostname {
        Some(hostname) => hostname.clone(),
        None => name::dashed(endpoint.addresses.first().map(String::as_str).unwrap_or_default()),
    }
}

enum Shape {
    Virtual(Ipv4Addr),
    Headless,
    ExternalName(String),
}

fn shape(service: &Service) -> Shape {
    let spec = service.spec.as_ref();
    let external = spec.filter(|spec| spec.type_.as_deref() == Some("ExternalName"));
    if let Some(name) = external.and_then(|spec| spec.external_name.clone()) {
        return Shape::ExternalName(name);
    }
    match spec.and_then(|spec| spec.cluster_ip.as_deref()).and_then(|ip| ip.parse().ok()) {
        Some(ip) => Shape::Virtual(ip),
        None => Shape::Headless,
    }
}

fn name_of(service: &Service) -> ServiceName {
    ServiceName {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        name: service.metadata.name.clone().unwrap_or_default(),
    }
}

fn service_host(name: &ServiceName) -> String {
    format!("{}.{}.svc", name.name, name.namespace)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[derive(Default)]
    struct Cluster {
        services: Vec<Arc<Service>>,
        slices: Vec<Arc<EndpointSlice>>,
    }

    impl Records for Cluster {
        fn service(&self, name: &ServiceName) -> Option<Arc<Service>> {
            self.services.iter().find(|service| name_of(service) == *name).cloned()
        }

        fn slices(&self, name: &ServiceName) -> Vec<Arc<EndpointSlice>> {
            let belongs = |slice: &&Arc<EndpointSlice>| slice_service(slice).as_ref() == Some(name);
            self.slices.iter().filter(belongs).cloned().collect()
        }

        fn service_at(&self, ip: Ipv4Addr) -> Option<Arc<Service>> {
            let has = |service: &&Arc<Service>| matches!(shape(service), Shape::Virtual(own) if own == ip);
            self.services.iter().find(has).cloned()
        }

        fn slices_with(&self, ip: Ipv4Addr) -> Vec<Arc<EndpointSlice>> {
            let ip = ip.to_string();
            let has = |slice: &&Arc<EndpointSlice>| {
                slice.endpoints.iter().flatten().any(|endpoint| endpoint.addresses.contains(&ip))
            };
            self.slices.iter().filter(has).cloned().collect()
        }

        fn has_namespace(&self, name: &str) -> bool {
            name == "shop"
        }
    }

    fn cluster(spec: Value) -> Cluster {
        let service = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
        let slice = json!({
            "metadata": {"name": "web-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.244.0.5"], "hostname": "web-0", "conditions": {"ready": true}},
                {"addresses": ["10.244.0.6"], "conditions": {"ready": true}},
                {"addresses": ["10.244.0.7"], "conditions": {"ready": false}},
            ],
        });
        Cluster {
            services: vec![Arc::new(serde_json::from_value(service).unwrap())],
            slices: vec![Arc::new(serde_json::from_value(slice).unwrap())],
        }
    }

    fn ask(cluster: &Cluster, name: &str, wanted: Wanted) -> Answer {
        let labels: Vec<&str> = name.split('.').collect();
        answer(cluster, &name::parse(&labels), wanted)
    }

    fn a(last: u8) -> Record {
        Record::A(Ipv4Addr::new(10, 244, 0, last))
    }

    #[test]
    fn a_service_answers_with_its_virtual_address() {
        let cluster = cluster(json!({"clusterIP": "10.96.0.20", "ports": [{"name": "http", "port": 80}]}));
        let ip = Ipv4Addr::new(10, 96, 0, 20);
        assert_eq!(ask(&cluster, "web.shop.svc", Wanted::A), Answer::Found(vec![Record::A(ip)]));
        assert_eq!(
            ask(&cluster, "web.shop.svc", Wanted::Other),
            Answer::Found(vec![]),
            "no AAAA, but a name"
        );
        assert_eq!(
            ask(&cluster, "_http._tcp.web.shop.svc", Wanted::Srv),
            Answer::Found(vec![Record::Srv { port: 80, target: "web.shop.svc".into(), address: Some(ip) }])
        );
        assert_eq!(names_of(&cluster, ip), ["web.shop.svc"]);
    }

    #[test]
    fn a_headless_service_answers_with_its_ready_endpoints() {
        let cluster = cluster(json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}));
        assert_eq!(ask(&cluster, "web.shop.svc", Wanted::A), Answer::Found(vec![a(5), a(6)]));
        assert_eq!(ask(&cluster, "web-0.web.shop.svc", Wanted::A), Answer::Found(vec![a(5)]));
        assert_eq!(ask(&cluster, "10-244-0-6.web.shop.svc", Wanted::A), Answer::Found(vec![a(6)]));
        assert_eq!(ask(&cluster, "10-244-0-7.web.shop.svc", Wanted::A), Answer::NoSuchName);
        let Answer::Found(locations) = ask(&cluster, "_http._tcp.web.shop.svc", Wanted::Srv) else {
            panic!()
        };
        assert_eq!(locations.len(), 2);
        assert_eq!(names_of(&cluster, Ipv4Addr::new(10, 244, 0, 5)), ["web-0.web.shop.svc"]);
    }

    #[test]
    fn an_external_name_leads_elsewhere() {
        let cluster = cluster(json!({"type": "ExternalName", "externalName": "db.example.com"}));
        let elsewhere = Answer::Found(vec![Record::Cname("db.example.com".into())]);
        assert_eq!(ask(&cluster, "web.shop.svc", Wanted::A), elsewhere);
    }

    #[test]
    fn pods_namespaces_and_strangers() {
        let cluster = cluster(json!({"clusterIP": "10.96.0.20"}));
        assert_eq!(ask(&cluster, "10-244-0-9.shop.pod", Wanted::A), Answer::Found(vec![a(9)]));
        assert_eq!(ask(&cluster, "10-244-0-9.nowhere.pod", Wanted::A), Answer::NoSuchName);
        assert_eq!(ask(&cluster, "shop.svc", Wanted::A), Answer::Found(vec![]));
        assert_eq!(ask(&cluster, "other.shop.svc", Wanted::A), Answer::NoSuchName);
        assert_eq!(ask(&cluster, "dns-version", Wanted::Txt), Answer::Found(vec![Record::Txt("1.1.0")]));
    }
}

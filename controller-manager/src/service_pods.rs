//! Which pods are behind a Service, and on which ports: what EndpointSlices and Endpoints have in common.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use client::{Cache, Change, ObjectKey};
use k8s_openapi::{
    api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{
    ResourceExt,
    core::{Selector, SelectorExt},
};

use crate::pods::PodExt;

/// Tells headless Services' objects from others'.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// One way to reach a pod through a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Name of the service port; empty when it has none.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// The port on the pod.
    pub number: i32,
    /// What is spoken there, as the Service says.
    pub app_protocol: Option<String>,
}

/// A pod behind a Service.
#[derive(Clone, Debug)]
pub struct Backend {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its ports for this Service; a named one that the pod does not have is left out.
    pub ports: Vec<Port>,
    /// Whether it answers.
    pub serving: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether traffic may go there.
    pub ready: bool,
}

/// The selector of a Service; `None` when its endpoints are somebody else's business.
pub fn selector(service: &Service) -> Option<Selector> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let selector = spec.selector.clone().filter(|selector| !selector.is_empty())?;
    Some(selector.into_iter().collect())
}

/// The pods behind a Service, in the order given, terminating ones too.
pub fn backends(service: &Service, pods: &[Arc<Pod>]) -> Vec<Backend> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let publish = spec.publish_not_ready_addresses.unwrap_or_default();
    let candidates = pods.iter().filter(|pod| !pod.is_finished() && address(pod).is_some());
    candidates
        .map(|pod| {
            let (serving, terminating) = (pod.is_ready(), pod.is_terminating());
            let ports = spec.ports.iter().flatten().filter_map(|port| port_on(pod, port)).collect();
            Backend {
                pod: pod.clone(),
                ports,
                serving,
                terminating,
                ready: publish || serving && !terminating,
            }
        })
        .collect()
}

/// The pods of its namespace that a Service selects.
pub fn selected(pods: &Cache<Pod>, namespace: &str, selector: &Selector) -> Vec<Arc<Pod>> {
    pods.in_namespace_where(namespace, |pod| selector.matches(pod.labels()))
}

/// The Services whose endpoints a change of a pod concerns. A change of what no endpoint shows wakes nobody.
pub fn concerned(change: &Change<Pod>, services: &Cache<Service>) -> Vec<ObjectKey> {
    if let Change::Updated { old, new } = change
        && fingerprint(old) == fingerprint(new)
    {
        return Vec::new();
    }
    let states: Vec<&Arc<Pod>> = [change.before(), change.after()].into_iter().flatten().collect();
    let namespace = change.key().namespace;
    let selects = |service: &Service| {
        selector(service).is_some_and(|selector| states.iter().any(|pod| selector.matches(pod.labels())))
    };
    services.in_namespace_where(&namespace, selects).iter().map(|service| ObjectKey::of(&**service)).collect()
}

/// A pod's first address.
pub fn address(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?;
    status.pod_ip.as_deref().filter(|address| !address.is_empty())
}

/// A pod's address of the family `IPv4` or `IPv6`.
pub fn address_of_family<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|address| address.ip.as_str());
    all.chain(status.pod_ip.as_deref()).find(|address| match address.parse() {
        Ok(IpAddr::V4(_)) => family == "IPv4",
        Ok(IpAddr::V6(_)) => family == "IPv6",
        Err(_) => false,
    })
}

/// The address families of a Service.
pub fn families(service: &Service) -> Vec<String> {
    let given = service.spec.as_ref().and_then(|spec| spec.ip_families.clone());
    given.filter(|families| !families.is_empty()).unwrap_or_else(|| vec!["IPv4".into()])
}

/// The name under which DNS knows a pod of this Service, if the pod asks for one.
pub fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|hostname| !hostname.is_empty())?;
    (spec.subdomain.as_deref() == service.metadata.name.as_deref()).then_some(hostname)
}

/// A reference to a pod as endpoints carry it.
pub fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.namespace(),
        name: pod.metadata.name.clone(),
        uid: pod.uid(),
        ..ObjectReference::default()
    }
}

/// Whether a Service has no address of its own.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// The labels that a Service's endpoint objects take over from it, and `extra`.
pub fn labels<const N: usize>(service: &Service, extra: [(&str, &str); N]) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.remove(HEADLESS_LABEL);
    labels.extend(extra.map(|(key, value)| (key.to_string(), value.to_string())));
    if is_headless(service) {
        labels.insert(HEADLESS_LABEL.into(), String::new());
    }
    labels
}

fn port_on(pod: &Pod, port: &ServicePort) -> Option<Port> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => named_port(pod, name, &protocol)?,
    };
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        protocol,
        number,
        app_protocol: port.app_protocol.clone(),
    })
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter(|port| port.name.as_deref() == Some(name))
        .find(|port| port.protocol.as_deref().unwrap_or("TCP") == protocol)
        .map(|port| port.container_port)
}

/// Everything about a pod that endpoints show.
fn fingerprint(pod: &Pod) -> impl PartialEq {
    let spec = pod.spec.as_ref();
    (
        pod.labels().clone(),
        address(pod).map(str::to_owned),
        (pod.is_finished(), pod.is_ready(), pod.is_terminating()),
        pod.node().to_owned(),
        spec.and_then(|spec| spec.hostname.clone()),
        pod.uid(),
    )
}

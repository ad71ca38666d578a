//! Decides what the Endpoints object of a Service holds: its pods, those with the same ports together.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use kube::{ResourceExt, api::ObjectMeta};

use crate::service_pods::{self, Backend, Port};

/// More addresses than this one object does not hold.
const CAPACITY: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

/// The Endpoints of a Service with these pods; `old` is what is there.
pub fn render(service: &Service, backends: &[Backend], old: Option<&Endpoints>) -> Endpoints {
    let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or_default();
    let family = service_pods::families(service).into_iter().next().unwrap_or_default();
    let mut groups: BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    for backend in backends.iter().filter(|backend| publish || !backend.terminating) {
        let Some(ip) = service_pods::address_of_family(&backend.pod, &family) else { continue };
        let address = EndpointAddress {
            ip: ip.into(),
            hostname: service_pods::hostname(&backend.pod, service),
            node_name: backend.pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            target_ref: Some(service_pods::target(&backend.pod)),
        };
        let mut ports = backend.ports.clone();
        ports.sort();
        let headless_without_ports = service_pods::is_headless(service)
            && service.spec.as_ref().is_none_or(|spec| spec.ports.as_deref().unwrap_or_default().is_empty());
        if ports.is_empty() && !headless_without_ports {
            continue;
        }
        let (ready, unready) = groups.entry(ports).or_default();
        if backend.ready { ready.push(address) } else { unready.push(address) }
    }
    let is_over = truncate(&mut groups);
    let subsets: Vec<EndpointSubset> = groups.into_iter().map(subset).collect();

    let mut annotations = old.and_then(|old| old.metadata.annotations.clone()).unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    if is_over {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    }
    let metadata = ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.namespace(),
        labels: Some(service_pods::labels(service, [(MANAGED_BY_LABEL, MANAGER)])),
        annotations: (!annotations.is_empty()).then_some(annotations),
        ..old.map(|old| old.metadata.clone()).unwrap_or_default()
    };
    Endpoints { metadata, subsets: (!subsets.is_empty()).then_some(subsets) }
}

/// How many addresses it holds, ready or not.
pub fn count(endpoints: &Endpoints) -> usize {
    let subsets = endpoints.subsets.iter().flatten();
    subsets.flat_map(|subset| [&subset.addresses, &subset.not_ready_addresses]).flatten().map(Vec::len).sum()
}

/// Whether a rendered object says something else than the present one.
pub fn differs(old: &Endpoints, new: &Endpoints) -> bool {
    old.subsets != new.subsets
        || old.metadata.labels != new.metadata.labels
        || old.metadata.annotations != new.metadata.annotations
}

/// Whether this controller made an Endpoints object, and not a user.
pub fn is_ours(endpoints: &Endpoints) -> bool {
    endpoints.labels().get(MANAGED_BY_LABEL).is_some_and(|manager| manager == MANAGER)
}

/// Drops what is beyond the capacity, unready addresses first; whether there was such.
fn truncate(groups: &mut BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)>) -> bool {
    for (ready, unready) in groups.values_mut() {
        ready.sort_by(|a, b| a.ip.cmp(&b.ip));
        unready.sort_by(|a, b| a.ip.cmp(&b.ip));
    }
    let mut room = CAPACITY;
    let mut is_over = false;
    let mut keep = |addresses: &mut Vec<EndpointAddress>| {
        is_over |= addresses.len() > room;
        addresses.truncate(room);
        room -= addresses.len();
    };
    groups.values_mut().for_each(|(ready, _)| keep(ready));
    groups.values_mut().for_each(|(_, unready)| keep(unready));
    groups.retain(|_, (ready, unready)| !ready.is_empty() || !unready.is_empty());
    is_over
}

fn subset(
    (ports, (ready, unready)): (Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)),
) -> EndpointSubset {
    let port = |port: Port| EndpointPort {
        name: (!port.name.is_empty()).then_some(port.name),
        port: port.number,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    };
    let ports: Vec<EndpointPort> = ports.into_iter().map(port).collect();
    EndpointSubset {
        addresses: (!ready.is_empty()).then_some(ready),
        not_ready_addresses: (!unready.is_empty()).then_some(unready),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{Pod, PodStatus, ServiceSpec};

    use super::*;

    fn backend(index: usize, ready: bool, port: i32) -> Backend {
        let status = PodStatus {
            pod_ip: Some(format!("10.1.{}.{}", index / 200, index % 200)),
            ..PodStatus::default()
        };
        let pod = Pod { status: Some(status), ..Pod::default() };
        let ports =
            vec![Port { name: "http".into(), protocol: "TCP".into(), number: port, app_protocol: None }];
        Backend { pod: Arc::new(pod), ports, serving: ready, terminating: false, ready }
    }

    fn service() -> Service {
        let metadata = ObjectMeta { name: Some("web".into()), ..ObjectMeta::default() };
        Service { metadata, spec: Some(ServiceSpec::default()), status: None }
    }

    #[test]
    fn pods_with_the_same_ports_share_a_subset() {
        let backends = [backend(1, true, 80), backend(2, false, 80), backend(3, true, 81)];
        let subsets = render(&service(), &backends, None).subsets.unwrap();
        assert_eq!(subsets.len(), 2);
        assert_eq!(subsets[0].addresses.as_ref().unwrap().len(), 1);
        assert_eq!(subsets[0].not_ready_addresses.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn terminating_pods_are_left_out_unless_published() {
        let dying = Backend { terminating: true, ..backend(1, true, 80) };
        assert_eq!(render(&service(), std::slice::from_ref(&dying), None).subsets, None);
        let mut publishing = service();
        publishing.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
        assert!(render(&publishing, &[dying], None).subsets.is_some());
    }

    #[test]
    fn over_capacity_unready_addresses_go_first() {
        let mut backends: Vec<_> = (0..990).map(|index| backend(index, true, 80)).collect();
        backends.extend((990..1020).map(|index| backend(index, false, 80)));
        let endpoints = render(&service(), &backends, None);
        let subset = &endpoints.subsets.as_ref().unwrap()[0];
        assert_eq!(subset.addresses.as_ref().unwrap().len(), 990);
        assert_eq!(subset.not_ready_addresses.as_ref().unwrap().len(), 10);
        assert_eq!(endpoints.annotations()[OVER_CAPACITY], "truncated");
        let smaller = render(&service(), &backends[..1], Some(&endpoints));
        assert_eq!(smaller.metadata.annotations, None);
    }
}

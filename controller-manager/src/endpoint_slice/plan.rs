//! Decides how the pods behind a Service are spread over EndpointSlices, with as few writes as can be.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
};
use kube::{ResourceExt, api::ObjectMeta};

use crate::{
    ownership,
    service_pods::{self, Backend, Port},
};

/// Endpoints in one slice (`--max-endpoints-per-slice`).
const CAPACITY: usize = 100;
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpointslice-controller.k8s.io";

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(Arc<EndpointSlice>),
}

/// What a slice holds endpoints for: all in it have the same family and ports.
type Group = (String, Vec<Port>);

/// What makes `slices`, all of this Service and ours, hold exactly `backends`. `zones` are those of nodes.
pub fn plan(
    service: &Service,
    backends: &[Backend],
    slices: &[Arc<EndpointSlice>],
    zones: &HashMap<String, String>,
) -> Vec<Action> {
    let mut wanted: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    let families = service_pods::families(service);
    for family in &families {
        for backend in backends {
            if let Some(endpoint) = endpoint(service, backend, family, zones) {
                let mut ports = backend.ports.clone();
                ports.sort();
                wanted.entry((family.clone(), ports)).or_default().push(endpoint);
            }
        }
        // A Service without pods has one empty slice, so that watchers see it.
        if !wanted.keys().any(|(group_family, _)| group_family == family) {
            wanted.insert((family.clone(), Vec::new()), Vec::new());
        }
    }
    let mut present: BTreeMap<Group, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in slices {
        present.entry(group_of(slice)).or_default().push(slice.clone());
    }
    let mut actions = Vec::new();
    for (group, endpoints) in wanted {
        actions.extend(plan_group(service, &group, endpoints, present.remove(&group).unwrap_or_default()));
    }
    actions.extend(present.into_values().flatten().map(Action::Delete));
    actions
}

/// Endpoints stay in the slice where they are; new ones fill up slices that change anyway, then those with the
/// most room left, then new slices.
fn plan_group(
    service: &Service,
    group: &Group,
    endpoints: Vec<Endpoint>,
    slices: Vec<Arc<EndpointSlice>>,
) -> Vec<Action> {
    let is_placeholder = endpoints.is_empty();
    let mut homeless: BTreeMap<String, Endpoint> =
        endpoints.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
    let mut drafts: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = slices
        .into_iter()
        .map(|slice| {
            let present = slice.endpoints.iter().flatten();
            let kept = present.filter_map(|endpoint| homeless.remove(&identity(endpoint))).collect();
            (slice, kept)
        })
        .collect();
    let changes =
        |slice: &EndpointSlice, kept: &[Endpoint]| slice.endpoints.as_deref().unwrap_or_default() != kept;
    drafts.sort_by_key(|(slice, kept)| (!changes(slice, kept), kept.len()));
    let mut homeless = homeless.into_values();
    for (_, kept) in &mut drafts {
        let room = CAPACITY.saturating_sub(kept.len());
        kept.extend(homeless.by_ref().take(room));
    }
    let mut actions = Vec::new();
    let mut any_kept = false;
    for (slice, kept) in drafts {
        if kept.is_empty() && (any_kept || !is_placeholder) {
            actions.push(Action::Delete(slice));
            continue;
        }
        any_kept = true;
        let labels = labels(service);
        if changes(&slice, &kept) || slice.metadata.labels.as_ref() != Some(&labels) {
            let mut slice = (*slice).clone();
            slice.endpoints = Some(kept);
            slice.metadata.labels = Some(labels);
            actions.push(Action::Update(Box::new(slice)));
        }
    }
    let left: Vec<Endpoint> = homeless.collect();
    for chunk in left.chunks(CAPACITY) {
        actions.push(Action::Create(Box::new(new_slice(service, group, chunk.to_vec()))));
    }
    if is_placeholder && !any_kept {
        actions.push(Action::Create(Box::new(new_slice(service, group, Vec::new()))));
    }
    actions
}

fn endpoint(
    service: &Service,
    backend: &Backend,
    family: &str,
    zones: &HashMap<String, String>,
) -> Option<Endpoint> {
    let address = service_pods::address_of_family(&backend.pod, family)?;
    let node = backend.pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    Some(Endpoint {
        addresses: vec![address.into()],
        conditions: Some(EndpointConditions {
            ready: Some(backend.ready),
            serving: Some(backend.serving),
            terminating: Some(backend.terminating),
        }),
        hostname: service_pods::hostname(&backend.pod, service),
        zone: node.as_ref().and_then(|node| zones.get(node).cloned()),
        node_name: node,
        target_ref: Some(service_pods::target(&backend.pod)),
        ..Endpoint::default()
    })
}

fn new_slice(service: &Service, (family, ports): &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let metadata = ObjectMeta {
        generate_name: Some(format!("{}-", service.name_any())),
        namespace: service.namespace(),
        labels: Some(labels(service)),
        owner_references: Some(vec![ownership::owner_reference(service)]),
        ..ObjectMeta::default()
    };
    let port = |port: &Port| EndpointPort {
        name: Some(port.name.clone()),
        port: Some(port.number),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    };
    EndpointSlice {
        metadata,
        address_type: family.clone(),
        endpoints: Some(endpoints),
        ports: Some(ports.iter().map(port).collect()),
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let name = service.name_any();
    service_pods::labels(service, [(SERVICE_LABEL, &name), (MANAGED_BY_LABEL, MANAGER)])
}

fn group_of(slice: &EndpointSlice) -> Group {
    let port = |port: &EndpointPort| Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
        number: port.port.unwrap_or_default(),
        app_protocol: port.app_protocol.clone(),
    };
    let mut ports: Vec<Port> = slice.ports.iter().flatten().map(port).collect();
    ports.sort();
    (slice.address_type.clone(), ports)
}

/// Two endpoints with the same identity are the same pod at the same address.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or_default();
    format!("{} {uid}", endpoint.addresses.join(","))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::core::v1::{
            Container, ContainerPort, Pod, PodCondition, PodSpec, PodStatus, ServicePort, ServiceSpec,
        },
        apimachinery::pkg::util::intstr::IntOrString,
    };
    use proptest::prelude::*;

    use super::*;

    fn service() -> Service {
        let port = ServicePort {
            port: 80,
            target_port: Some(IntOrString::String("http".into())),
            ..ServicePort::default()
        };
        Service {
            metadata: ObjectMeta {
                name: Some("web".into()),
                namespace: Some("default".into()),
                uid: Some("s".into()),
                labels: Some([("team".to_string(), "a".to_string())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(ServiceSpec { ports: Some(vec![port]), ..ServiceSpec::default() }),
            status: None,
        }
    }

    fn pod(index: usize, port: i32, ready: bool) -> Arc<Pod> {
        let container = Container {
            ports: Some(vec![ContainerPort {
                name: Some("http".into()),
                container_port: port,
                ..ContainerPort::default()
            }]),
            ..Container::default()
        };
        let condition = PodCondition {
            type_: "Ready".into(),
            status: if ready { "True" } else { "False" }.into(),
            ..PodCondition::default()
        };
        Arc::new(Pod {
            metadata: ObjectMeta {
                name: Some(format!("pod-{index}")),
                uid: Some(format!("uid-{index}")),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec {
                containers: vec![container],
                node_name: Some("n".into()),
                ..PodSpec::default()
            }),
            status: Some(PodStatus {
                pod_ip: Some(format!("10.0.{}.{}", index / 250, index % 250)),
                conditions: Some(vec![condition]),
                ..PodStatus::default()
            }),
        })
    }

    fn run(service: &Service, pods: &[Arc<Pod>], slices: &mut Vec<Arc<EndpointSlice>>) -> Vec<Action> {
        let zones = HashMap::from([("n".to_string(), "z1".to_string())]);
        let actions = plan(service, &service_pods::backends(service, pods), slices, &zones);
        for action in actions.clone() {
            match action {
                Action::Create(mut slice) => {
                    slice.metadata.name = Some(format!("web-{}", slices.len() + 1000));
                    slices.push(Arc::new(*slice));
                }
                Action::Update(slice) => {
                    slices.retain(|old| old.metadata.name != slice.metadata.name);
                    slices.push(Arc::new(*slice));
                }
                Action::Delete(slice) => slices.retain(|old| old.metadata.name != slice.metadata.name),
            }
        }
        actions
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice() {
        let mut slices = Vec::new();
        assert_eq!(run(&service(), &[], &mut slices).len(), 1);
        assert_eq!(slices[0].endpoints.as_deref(), Some(&[][..]));
        assert_eq!(slices[0].labels()[SERVICE_LABEL], "web");
        assert_eq!(slices[0].labels()["team"], "a");
        assert_eq!(run(&service(), &[], &mut slices), []);
    }

    #[test]
    fn pods_become_endpoints_with_conditions_and_ports_by_name() {
        let mut slices = Vec::new();
        let mut dying = (*pod(3, 8080, true)).clone();
        dying.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        run(&service(), &[pod(1, 8080, true), pod(2, 9090, false), Arc::new(dying)], &mut slices);
        assert_eq!(slices.len(), 2, "one for each port number");
        let by_port = |number: i32| {
            slices.iter().find(|slice| slice.ports.as_ref().unwrap()[0].port == Some(number)).unwrap()
        };
        let conditions = |endpoint: &Endpoint| {
            let conditions = endpoint.conditions.clone().unwrap();
            [conditions.ready, conditions.serving, conditions.terminating].map(Option::unwrap)
        };
        let endpoints = by_port(8080).endpoints.as_ref().unwrap();
        assert_eq!(conditions(&endpoints[0]), [true, true, false]);
        assert_eq!(conditions(&endpoints[1]), [false, true, true]);
        assert_eq!(endpoints[0].zone.as_deref(), Some("z1"));
        let endpoints = by_port(9090).endpoints.as_ref().unwrap();
        assert_eq!(conditions(&endpoints[0]), [false, false, false]);
    }

    #[test]
    fn unready_pods_are_published_where_the_service_says_so() {
        let mut service = service();
        service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
        let backends = service_pods::backends(&service, &[pod(1, 80, false)]);
        assert!(backends[0].ready && !backends[0].serving);
    }

    #[test]
    fn one_changed_pod_touches_one_slice() {
        let mut slices = Vec::new();
        let mut pods: Vec<_> = (0..250).map(|index| pod(index, 80, true)).collect();
        run(&service(), &pods, &mut slices);
        assert_eq!(slices.len(), 3);
        pods[120] = pod(120, 80, false);
        let actions = run(&service(), &pods, &mut slices);
        assert!(matches!(&actions[..], [Action::Update(_)]), "{} actions", actions.len());
    }

    proptest! {
        /// After one pass there is nothing left to do, every pod is in exactly one slice, and none is too long.
        #[test]
        fn passes_settle(before in proptest::collection::btree_set(0usize..400, 0..300), after in proptest::collection::btree_set(0usize..400, 0..300)) {
            let mut slices = Vec::new();
            for generation in [before, after] {
                let pods: Vec<_> = generation.iter().map(|index| pod(*index, 80, true)).collect();
                run(&service(), &pods, &mut slices);
                prop_assert_eq!(run(&service(), &pods, &mut slices), []);
                let lengths: Vec<usize> = slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).collect();
                prop_assert!(lengths.iter().all(|length| *length <= CAPACITY));
                prop_assert_eq!(lengths.iter().sum::<usize>(), generation.len());
            }
        }
    }
}

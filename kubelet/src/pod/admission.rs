//! Decides whether the node takes a pod that was bound to it. Pure.
//!
//! The scheduler has looked at most of this already; static pods, pods with a nodeName and races have passed it by.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::strategies::resources::is_of_pods;
use k8s_openapi::api::core::v1::{Pod, Toleration};

use super::memory::Verdict;
use super::view::{PodView, is_critical};
use crate::container::qos::{QosClass, parse, qos_class, requested};
use crate::context::{NodeFacts, RuntimeFeatures};
use crate::eviction::plan::Pressure;

const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";

/// The uids of the pods that this kubelet has taken. Who decides about a pod holds it meanwhile: pods that come
/// together see each other, although the API has not heard of either.
#[derive(Default)]
pub struct Taken(Mutex<HashSet<String>>);

impl Taken {
    /// Access for one decision.
    pub fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the node has to say.
pub struct Node<'a> {
    /// What there is.
    pub facts: &'a NodeFacts,
    /// What it is short of.
    pub pressure: Pressure,
    /// The pods that it has taken.
    pub others: &'a [Arc<Pod>],
}

/// Why the node does not take the pod; `None` when it does.
pub fn refusal(pod: &Pod, node: &Node<'_>) -> Option<Verdict> {
    under_pressure(pod, node.pressure)
        .or_else(|| unsupported(pod, node.facts.runtime.features))
        .or_else(|| forbidden_sysctl(pod))
        .or_else(|| out_of_room(pod, node))
        .or_else(|| port_conflict(pod, node.others))
}

fn refused(reason: impl Into<String>, message: String) -> Option<Verdict> {
    Some(Verdict { reason: reason.into(), message, grace: Duration::ZERO, is_disruption: false })
}

fn under_pressure(pod: &Pod, pressure: Pressure) -> Option<Verdict> {
    if pressure == Pressure::default() || is_critical(pod) {
        return None;
    }
    let only_memory = Pressure { memory: true, ..Pressure::default() };
    let has_asked = qos_class(pod.spec()) != QosClass::BestEffort;
    if pressure == only_memory && (has_asked || tolerates(pod, MEMORY_PRESSURE)) {
        return None;
    }
    refused("Evicted", format!("The node had condition: [{}]. ", pressure.conditions().join(" ")))
}

/// Whether the pod bears a NoSchedule taint without a value.
fn tolerates(pod: &Pod, taint: &str) -> bool {
    let fits = |toleration: &Toleration| {
        let key = toleration.key.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        let is_key = key == taint && (exists || toleration.value.as_deref().unwrap_or_default().is_empty());
        let is_effect = matches!(toleration.effect.as_deref(), None | Some("" | "NoSchedule"));
        is_effect && (is_key || key.is_empty() && exists)
    };
    pod.spec().tolerations.iter().flatten().any(fits)
}

fn unsupported(pod: &Pod, features: RuntimeFeatures) -> Option<Verdict> {
    let policy =
        pod.spec().security_context.as_ref().and_then(|own| own.supplemental_groups_policy.as_deref());
    if policy == Some("Strict") && !features.supplemental_groups_policy {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
        return refused("SupplementalGroupsPolicyNotSupported", message.to_string());
    }
    None
}

fn forbidden_sysctl(pod: &Pod) -> Option<Verdict> {
    let context = pod.spec().security_context.as_ref()?;
    let mut names = context.sysctls.iter().flatten().map(|sysctl| sysctl.name.replace('/', "."));
    let wrong = names.find(|name| !api::sysctl::is_safe(name))?;
    refused("SysctlForbidden", format!("forbidden sysctl: \"{wrong}\" not allowlisted"))
}

fn out_of_room(pod: &Pod, node: &Node<'_>) -> Option<Verdict> {
    let room = |resource: &str| node.facts.allocatable.get(resource).and_then(parse);
    let lacks = |resource: &str, asked: i64, used: i64, capacity: i64| {
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {asked}, used: {used}, capacity: {capacity}"
        );
        refused(format!("OutOf{resource}"), message)
    };
    if let Some(capacity) = room("pods").map(|pods| pods.value()) {
        let used = i64::try_from(node.others.len()).unwrap_or(i64::MAX);
        if used >= capacity {
            return lacks("pods", 1, used, capacity);
        }
    }
    for (resource, in_milli) in [("cpu", true), ("memory", false), ("ephemeral-storage", false)] {
        let Some(capacity) = room(resource) else { continue };
        let capacity = if in_milli { capacity.milli() } else { capacity.value() };
        let asked = asked(pod, resource, in_milli);
        let used = node.others.iter().map(|other| self::asked(other, resource, in_milli)).sum::<i64>();
        if asked > 0 && used + asked > capacity {
            return lacks(resource, asked, used, capacity);
        }
    }
    None
}

/// Whether a port of the node that the pod wants belongs to another pod.
fn port_conflict(pod: &Pod, others: &[Arc<Pod>]) -> Option<Verdict> {
    let is_taken = |wanted: &HostPort<'_>| {
        others.iter().any(|other| host_ports(other).any(|taken| taken.conflicts_with(wanted)))
    };
    host_ports(pod).any(|wanted| is_taken(&wanted)).then_some(())?;
    let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
    refused("NodePorts", message.to_string())
}

/// A port of the node.
struct HostPort<'a> {
    ip: &'a str,
    protocol: &'a str,
    port: i32,
}

impl HostPort<'_> {
    fn conflicts_with(&self, other: &HostPort<'_>) -> bool {
        let same_ip = self.ip == other.ip || [self.ip, other.ip].contains(&"0.0.0.0");
        same_ip && self.port == other.port && self.protocol == other.protocol
    }
}

fn host_ports(pod: &Pod) -> impl Iterator<Item = HostPort<'_>> {
    let sidecars = pod.init_containers().iter().filter(|init| super::view::is_sidecar(init));
    let ports =
        pod.spec().containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports.filter_map(|port| {
        Some(HostPort {
            ip: or(port.host_ip.as_deref(), "0.0.0.0"),
            protocol: or(port.protocol.as_deref(), "TCP"),
            port: port.host_port.filter(|port| *port > 0)?,
        })
    })
}

/// What is said, or what is meant when nothing is.
fn or<'a>(said: Option<&'a str>, meant: &'a str) -> &'a str {
    said.filter(|text| !text.is_empty()).unwrap_or(meant)
}

/// What a pod asks for: as a whole where it says so, else its containers together, or the largest init container if
/// that is more; and its overhead. Sidecars count with what comes after them.
pub fn asked(pod: &Pod, resource: &str, in_milli: bool) -> i64 {
    let amount =
        |quantity: api::quantity::Quantity| if in_milli { quantity.milli() } else { quantity.value() };
    let of = |container| requested(container, resource).map_or(0, amount);
    let (mut sidecars, mut largest) = (0, 0);
    for init in pod.init_containers() {
        if super::view::is_sidecar(init) {
            sidecars += of(init);
            largest = largest.max(sidecars);
        } else {
            largest = largest.max(sidecars + of(init));
        }
    }
    let together = pod.spec().containers.iter().map(of).sum::<i64>() + sidecars;
    let own =
        pod.spec().resources.as_ref().and_then(|own| own.requests.as_ref()).filter(|_| is_of_pods(resource));
    let whole = own.and_then(|requests| requests.get(resource)).and_then(parse);
    let overhead = pod.spec().overhead.as_ref().and_then(|overhead| overhead.get(resource)).and_then(parse);
    whole.map_or(together.max(largest), amount) + overhead.map_or(0, amount)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Arc<Pod> {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{ "name": "c", "image": "i" }]);
        }
        Arc::new(serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap())
    }

    fn facts() -> NodeFacts {
        let amounts = [("cpu", "2"), ("memory", "1Gi"), ("pods", "3")];
        let allocatable = amounts.map(|(name, amount)| (name.to_string(), Quantity(amount.to_string())));
        NodeFacts { allocatable: allocatable.into(), ..NodeFacts::default() }
    }

    fn refusal_of(pod: &Pod, pressure: Pressure, others: &[Arc<Pod>]) -> Option<(String, String)> {
        let facts = facts();
        let node = Node { facts: &facts, pressure, others };
        refusal(pod, &node).map(|verdict| (verdict.reason, verdict.message))
    }

    fn asking(cpu: &str) -> Arc<Pod> {
        pod(
            json!({ "containers": [{ "name": "c", "image": "i", "resources": { "requests": { "cpu": cpu } } }] }),
        )
    }

    #[test]
    fn a_node_that_is_full_says_of_what() {
        let none = Pressure::default();
        assert_eq!(refusal_of(&asking("500m"), none, &[asking("1500m")]), None);
        let message = "Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000";
        let expected = Some(("OutOfcpu".to_string(), message.to_string()));
        assert_eq!(refusal_of(&asking("600m"), none, &[asking("1500m")]), expected);
        let three = [pod(json!({})), pod(json!({})), pod(json!({}))];
        assert_eq!(refusal_of(&pod(json!({})), none, &three).unwrap().0, "OutOfpods");
    }

    #[test]
    fn a_port_of_the_node_has_one_pod() {
        let on = |ip: &str, port: u16, protocol: &str| {
            let port = json!({ "containerPort": 80, "hostPort": port, "hostIP": ip, "protocol": protocol });
            pod(json!({ "containers": [{ "name": "c", "image": "i", "ports": [port] }] }))
        };
        let refusal = |wanted: Arc<Pod>| {
            refusal_of(&wanted, Pressure::default(), &[on("", 8080, "TCP"), on("192.0.2.1", 53, "UDP")])
        };
        let message =
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        let refused = Some(("NodePorts".to_string(), message.to_string()));
        assert_eq!(refusal(on("192.0.2.9", 8080, "TCP")), refused);
        assert_eq!(refusal(on("", 53, "UDP")), refused);
        for free in [on("", 8080, "UDP"), on("192.0.2.2", 53, "UDP"), on("", 0, "TCP"), pod(json!({}))] {
            assert_eq!(refusal(free), None);
        }
    }

    #[test]
    fn init_containers_count_where_they_are_larger() {
        let with = |policy: Value| {
            let resources = json!({ "requests": { "cpu": "1" } });
            let init = json!([
                { "name": "a", "image": "i", "resources": resources, "restartPolicy": policy },
                { "name": "b", "image": "i", "resources": resources },
            ]);
            asked(&pod(json!({ "initContainers": init })), "cpu", true)
        };
        assert_eq!((with(json!(null)), with(json!("Always"))), (1000, 2000));
    }

    #[test]
    fn what_a_pod_asks_for_as_a_whole_takes_the_place_of_what_its_containers_ask_for() {
        let requests = |cpu: &str| json!({ "requests": { "cpu": cpu, "ephemeral-storage": "1Ki" } });
        let container = json!({ "name": "c", "image": "i", "resources": requests("1") });
        let overhead = json!({ "cpu": "100m" });
        let pod =
            |own: Value| pod(json!({ "containers": [container], "resources": own, "overhead": overhead }));
        assert_eq!(asked(&pod(json!(null)), "cpu", true), 1100);
        assert_eq!(asked(&pod(requests("1500m")), "cpu", true), 1600);
        assert_eq!(asked(&pod(json!({ "requests": { "memory": "1" } })), "cpu", true), 1100);
        assert_eq!(
            asked(&pod(json!({ "requests": { "ephemeral-storage": "1" } })), "ephemeral-storage", false),
            1024
        );
    }

    #[test]
    fn a_node_under_pressure_takes_what_it_must() {
        let memory = Pressure { memory: true, ..Pressure::default() };
        let message = "The node had condition: [MemoryPressure]. ".to_string();
        assert_eq!(refusal_of(&pod(json!({})), memory, &[]), Some(("Evicted".into(), message)));
        assert_eq!(refusal_of(&asking("1m"), memory, &[]), None);
        let tolerant = pod(json!({ "tolerations": [{ "key": MEMORY_PRESSURE, "operator": "Exists" }] }));
        assert_eq!(refusal_of(&tolerant, memory, &[]), None);
        let critical = pod(json!({ "priority": 2_000_001_000 }));
        let both = Pressure { memory: true, disk: true, pid: false };
        assert_eq!(refusal_of(&critical, both, &[]), None);
        assert_eq!(
            refusal_of(&asking("1m"), both, &[]).unwrap().1,
            "The node had condition: [MemoryPressure DiskPressure]. "
        );
    }

    #[test]
    fn what_the_node_cannot_give_is_refused_before_anything_is_made() {
        let sysctl = |name: &str| {
            let pod = pod(json!({ "securityContext": { "sysctls": [{ "name": name, "value": "1" }] } }));
            refusal_of(&pod, Pressure::default(), &[])
        };
        assert_eq!(sysctl("net/ipv4/tcp_syncookies"), None);
        let message = "forbidden sysctl: \"kernel.msgmax\" not allowlisted".to_string();
        assert_eq!(sysctl("kernel.msgmax"), Some(("SysctlForbidden".into(), message)));
        let strict = pod(json!({ "securityContext": { "supplementalGroupsPolicy": "Strict" } }));
        let refused = refusal_of(&strict, Pressure::default(), &[]).unwrap();
        assert_eq!(refused.0, "SupplementalGroupsPolicyNotSupported");
    }
}

//! Changes what containers may use while they run. Pure.
//!
//! Three amounts are told apart: what the spec asks for, what the node has allocated, and what has been applied to
//! the container that runs. A wish becomes an allocation when it fits; the plan then brings the containers to it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use super::admission::asked;
use super::memory::{Memory, ResizeWait};
use super::observed::ObservedContainer;
use super::plan::Situation;
use super::view::{PodView, is_sidecar};
use crate::container::qos::parse;
use crate::context::NodeFacts;

/// What can be changed while a container runs.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// What is to be done about a container whose applied resources are not the allocated ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The runtime is told.
    InPlace,
    /// It starts anew with them.
    Restart,
}

/// Brings the allocation up to what the spec asks for, if the node has the room. `others` gives the node's other
/// pods; it is asked only when there is something to decide. Answers why not.
pub fn allocate(
    pod: &Pod,
    memory: &mut Memory,
    facts: &NodeFacts,
    others: impl FnOnce() -> Vec<Arc<Pod>>,
) -> Option<ResizeWait> {
    for container in resizable(pod) {
        // What a former kubelet has applied was allocated; a new container gets what it asks for.
        let told = pod.told(&container.name).and_then(|status| status.resources.clone());
        memory
            .allocated
            .entry(container.name.clone())
            .or_insert_with(|| told.unwrap_or_else(|| wanted(container)));
    }
    let is_settled = resizable(pod).all(|container| memory.allocated[&container.name] == wanted(container));
    if is_settled {
        return None;
    }
    let others = others();
    let refused = RESIZABLE.iter().find_map(|resource| lack(pod, resource, facts, &others));
    if refused.is_none() {
        for container in resizable(pod) {
            memory.allocated.insert(container.name.clone(), wanted(container));
        }
    }
    refused
}

/// Why the node has not as much of a resource as the pod asks for now.
fn lack(pod: &Pod, resource: &str, facts: &NodeFacts, others: &[Arc<Pod>]) -> Option<ResizeWait> {
    let in_milli = resource == "cpu";
    let capacity = facts.allocatable.get(resource).and_then(parse)?;
    let capacity = if in_milli { capacity.milli() } else { capacity.value() };
    let requested = asked(pod, resource, in_milli);
    if requested > capacity {
        let message = format!(
            "Node didn't have enough capacity: {resource}, requested: {requested}, capacity: {capacity}"
        );
        return Some(ResizeWait { reason: "Infeasible", message });
    }
    let used: i64 = others.iter().map(|other| asked(&as_allocated(other), resource, in_milli)).sum();
    (requested > 0 && used + requested > capacity).then(|| {
        let figures = format!("requested: {requested}, used: {used}, capacity: {capacity}");
        ResizeWait {
            reason: "Deferred",
            message: format!("Node didn't have enough resource: {resource}, {figures}"),
        }
    })
}

/// Another pod as its kubelet has told of its allocation.
fn as_allocated(pod: &Arc<Pod>) -> Arc<Pod> {
    let allocated = |name: &str| pod.told(name).and_then(|status| status.resources.clone());
    with_resources(pod, allocated)
}

/// The pod as the node has allocated it: what its containers are made from.
pub fn allocated_pod(pod: &Arc<Pod>, memory: &Memory) -> Arc<Pod> {
    with_resources(pod, |name| memory.allocated.get(name).cloned())
}

fn with_resources(pod: &Arc<Pod>, of: impl Fn(&str) -> Option<ResourceRequirements>) -> Arc<Pod> {
    let differs = |container: &Container| of(&container.name).is_some_and(|own| own != wanted(container));
    if !resizable(pod).any(differs) {
        return pod.clone();
    }
    let mut changed = Pod::clone(pod);
    let Some(spec) = &mut changed.spec else { return pod.clone() };
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        if let Some(resources) = of(&container.name) {
            container.resources = Some(resources);
        }
    }
    Arc::new(changed)
}

/// What a running container needs, if its resources are not the allocated ones.
pub fn change(
    situation: &Situation<'_>,
    container: &Container,
    running: &ObservedContainer,
) -> Option<Change> {
    let allocated = situation.memory.allocated.get(&container.name)?;
    let applied = applied(situation.memory, running)?;
    let changed: Vec<&str> = RESIZABLE
        .into_iter()
        .filter(|resource| part(applied, resource) != part(allocated, resource))
        .collect();
    if changed.is_empty() {
        return None;
    }
    let restarts = |resource: &&str| {
        let policies = container.resize_policy.iter().flatten();
        let mut own = policies.filter(|policy| policy.resource_name == *resource);
        own.any(|policy| policy.restart_policy == "RestartContainer")
    };
    Some(if changed.iter().any(restarts) { Change::Restart } else { Change::InPlace })
}

/// What a container runs with: what it was last given, or what it was made with.
pub fn applied<'a>(memory: &'a Memory, running: &'a ObservedContainer) -> Option<&'a ResourceRequirements> {
    let own = memory.containers.get(&running.name).and_then(|memory| memory.applied.as_ref());
    let given = own.filter(|(id, _)| *id == running.id).map(|(_, resources)| resources);
    given.or(running.details.resources.as_ref())
}

/// Whether some running container is not yet what it was allocated.
pub fn is_in_progress(situation: &Situation<'_>) -> bool {
    resizable(situation.pod).any(|container| {
        let running = situation.observed.active(&container.name).filter(|active| active.is_running());
        running.is_some_and(|running| change(situation, container, running).is_some())
    })
}

/// A container's resources, for comparison: none at all is the same as nothing asked for.
pub fn wanted(container: &Container) -> ResourceRequirements {
    container.resources.clone().unwrap_or_default()
}

fn part(resources: &ResourceRequirements, resource: &str) -> [Option<i64>; 2] {
    [&resources.requests, &resources.limits].map(|amounts| {
        let amount = amounts.as_ref().and_then(|amounts| amounts.get(resource)).and_then(parse);
        amount.map(|quantity| quantity.milli())
    })
}

/// The containers that can be resized: those that stay.
fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    let sidecars = pod.init_containers().iter().filter(|container| is_sidecar(container));
    pod.spec().containers.iter().chain(sidecars)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::{Value, json};

    use super::*;

    fn pod(cpu: &str, status: Value) -> Arc<Pod> {
        let pod = json!({
            "metadata": { "name": "p", "uid": "u" },
            "spec": { "containers": [{ "name": "c", "image": "i", "resources": { "requests": { "cpu": cpu } } }] },
            "status": status,
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn facts() -> NodeFacts {
        let allocatable = [("cpu".to_string(), Quantity("2".into()))].into();
        NodeFacts { allocatable, ..NodeFacts::default() }
    }

    fn allocated(memory: &Memory) -> &str {
        &memory.allocated["c"].requests.as_ref().unwrap()["cpu"].0
    }

    #[test]
    fn a_wish_is_granted_when_there_is_room() {
        let mut memory = Memory::new(Timestamp::UNIX_EPOCH);
        assert_eq!(allocate(&pod("1", json!({})), &mut memory, &facts(), Vec::new), None);
        assert_eq!(allocated(&memory), "1");
        let other = [pod("500m", json!({}))];
        let deferred = allocate(&pod("1600m", json!({})), &mut memory, &facts(), || other.to_vec()).unwrap();
        assert_eq!(deferred.reason, "Deferred");
        assert_eq!(
            deferred.message,
            "Node didn't have enough resource: cpu, requested: 1600, used: 500, capacity: 2000"
        );
        assert_eq!(
            allocate(&pod("3", json!({})), &mut memory, &facts(), Vec::new).unwrap().reason,
            "Infeasible"
        );
        assert_eq!(allocated(&memory), "1");
        assert_eq!(allocate(&pod("1600m", json!({})), &mut memory, &facts(), Vec::new), None);
        assert_eq!(allocated(&memory), "1600m");
    }

    #[test]
    fn a_restarted_kubelet_goes_on_with_what_was_told() {
        let mut memory = Memory::new(Timestamp::UNIX_EPOCH);
        let told = json!({ "containerStatuses": [{ "name": "c", "image": "i", "imageID": "", "ready": true,
            "restartCount": 0, "resources": { "requests": { "cpu": "1" } } }] });
        assert_eq!(allocate(&pod("3", told), &mut memory, &facts(), Vec::new).unwrap().reason, "Infeasible");
        assert_eq!(allocated(&memory), "1");
        let made = allocated_pod(&pod("3", json!({})), &memory);
        assert_eq!(wanted(&made.spec().containers[0]), memory.allocated["c"]);
    }
}

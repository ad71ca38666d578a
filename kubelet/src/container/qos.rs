//! How much a pod is promised, and what follows from it: its class, its cgroup, its place in the queue of
//! the kernel's out-of-memory killer.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use cri::v1::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

const CPU_PERIOD: i64 = 100_000;
const SMALLEST_QUOTA: i64 = 1_000;
const SMALLEST_SHARES: i64 = 2;
/// Pods at or above this priority (`system-cluster-critical`) are protected like guaranteed ones.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// The three classes of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    /// Every container has cpu and memory limits that equal its requests.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl QosClass {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }

    /// The directory between `kubepods` and the pods of this class.
    pub fn cgroup(self) -> Option<&'static str> {
        match self {
            QosClass::Guaranteed => None,
            QosClass::Burstable => Some("burstable"),
            QosClass::BestEffort => Some("besteffort"),
        }
    }
}

/// The class of a pod, from the cpu and memory of all its containers.
pub fn qos_class(spec: &PodSpec) -> QosClass {
    let mut has_any = false;
    let mut is_guaranteed = true;
    for container in all_containers(spec) {
        for resource in ["cpu", "memory"] {
            let limit = amount(limits(container), resource);
            let request = amount(requests(container), resource).or(limit);
            has_any |= limit.is_some() || request.is_some();
            is_guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (has_any, is_guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

/// The cgroup of a pod: `<parent>/kubepods[/<class>]/pod<uid>`.
pub fn cgroup_parent(parent: &str, class: QosClass, uid: &str) -> String {
    let parent = parent.trim_end_matches('/');
    match class.cgroup() {
        Some(class) => format!("{parent}/kubepods/{class}/pod{uid}"),
        None => format!("{parent}/kubepods/pod{uid}"),
    }
}

/// What the kernel is told about one container.
pub fn container_resources(
    spec: &PodSpec,
    container: &Container,
    memory_capacity: i64,
) -> LinuxContainerResources {
    let cpu_request = amount(requests(container), "cpu").or(amount(limits(container), "cpu"));
    let memory_limit = amount(limits(container), "memory").map_or(0, Quantity::value);
    LinuxContainerResources {
        cpu_period: CPU_PERIOD,
        cpu_quota: amount(limits(container), "cpu").map_or(0, |cpu| cpu_quota(cpu.milli())),
        cpu_shares: cpu_shares(cpu_request.map_or(0, Quantity::milli)),
        memory_limit_in_bytes: memory_limit,
        oom_score_adj: oom_score_adj(spec, container, memory_capacity),
        memory_swap_limit_in_bytes: memory_limit,
        ..LinuxContainerResources::default()
    }
}

/// What the kernel is told about the pod as a whole: a limit only where every container has one.
pub fn pod_resources(spec: &PodSpec) -> LinuxContainerResources {
    let sum = |resource: &str, of: fn(Quantity) -> i64| -> Option<i64> {
        let amounts: Option<Vec<i64>> =
            spec.containers.iter().map(|container| amount(limits(container), resource).map(of)).collect();
        amounts.filter(|amounts| !amounts.is_empty()).map(|amounts| amounts.iter().sum())
    };
    let requested = spec.containers.iter();
    let cpu: i64 = requested
        .filter_map(|container| amount(requests(container), "cpu").or(amount(limits(container), "cpu")))
        .map(Quantity::milli)
        .sum();
    LinuxContainerResources {
        cpu_period: CPU_PERIOD,
        cpu_quota: sum("cpu", Quantity::milli).map_or(0, cpu_quota),
        cpu_shares: cpu_shares(cpu),
        memory_limit_in_bytes: sum("memory", Quantity::value).unwrap_or(0),
        ..LinuxContainerResources::default()
    }
}

/// A resource of a container for the downward API: limits fall back to what the node can give.
pub fn resource_value(
    container: &Container,
    selector: &str,
    divisor: Option<&ApiQuantity>,
    allocatable: &BTreeMap<String, ApiQuantity>,
) -> Option<i64> {
    let (kind, resource) = selector.split_once('.')?;
    let set = match kind {
        "limits" => amount(limits(container), resource).or_else(|| parse(allocatable.get(resource)?)),
        "requests" => amount(requests(container), resource).or(amount(limits(container), resource)),
        _ => return None,
    };
    let amount = set.unwrap_or_default();
    let divisor = divisor.and_then(parse).filter(|divisor| divisor.milli() > 0);
    Some(match resource {
        "cpu" => {
            let divisor = divisor.map_or(1000, Quantity::milli);
            div_ceil(amount.milli(), divisor)
        }
        _ => div_ceil(amount.value(), divisor.map_or(1, Quantity::value).max(1)),
    })
}

fn div_ceil(amount: i64, divisor: i64) -> i64 {
    amount / divisor + i64::from(amount % divisor > 0)
}

fn cpu_shares(milli: i64) -> i64 {
    (milli * 1024 / 1000).max(SMALLEST_SHARES)
}

fn cpu_quota(milli: i64) -> i64 {
    if milli == 0 { 0 } else { (milli * CPU_PERIOD / 1000).max(SMALLEST_QUOTA) }
}

/// The less of its requested memory share a pod can claim, the sooner it is killed.
fn oom_score_adj(spec: &PodSpec, container: &Container, memory_capacity: i64) -> i64 {
    if spec.priority.is_some_and(|priority| priority >= CRITICAL_PRIORITY) {
        return -997;
    }
    match qos_class(spec) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let requested = amount(requests(container), "memory").or(amount(limits(container), "memory"));
            let requested = requested.map_or(0, Quantity::value);
            (1000 - 1000 * requested / memory_capacity.max(1)).clamp(3, 999)
        }
    }
}

fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten())
}

type Amounts = BTreeMap<String, ApiQuantity>;

fn limits(container: &Container) -> Option<&Amounts> {
    container.resources.as_ref().and_then(|resources: &ResourceRequirements| resources.limits.as_ref())
}

fn requests(container: &Container) -> Option<&Amounts> {
    container.resources.as_ref().and_then(|resources| resources.requests.as_ref())
}

/// An amount that is there and not zero.
fn amount(amounts: Option<&Amounts>, resource: &str) -> Option<Quantity> {
    parse(amounts?.get(resource)?).filter(|quantity| quantity.milli() > 0)
}

/// What a container asks for; a limit alone is a request too.
pub fn requested(container: &Container, resource: &str) -> Option<Quantity> {
    amount(requests(container), resource).or(amount(limits(container), resource))
}

/// A quantity of the API as a number.
pub fn parse(quantity: &ApiQuantity) -> Option<Quantity> {
    Quantity::parse(&quantity.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Container {
        let amounts = |pairs: &[(&str, &str)]| -> Option<Amounts> {
            let pairs = pairs.iter().map(|(name, text)| (name.to_string(), ApiQuantity(text.to_string())));
            Some(pairs.collect())
        };
        Container {
            name: "c".into(),
            resources: Some(ResourceRequirements {
                requests: amounts(requests),
                limits: amounts(limits),
                claims: None,
            }),
            ..Container::default()
        }
    }

    fn spec(containers: Vec<Container>) -> PodSpec {
        PodSpec { containers, ..PodSpec::default() }
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        let full = [("cpu", "1"), ("memory", "1Gi")];
        assert_eq!(qos_class(&spec(vec![container(&[], &[])])), QosClass::BestEffort);
        assert_eq!(qos_class(&spec(vec![container(&full, &full)])), QosClass::Guaranteed);
        assert_eq!(qos_class(&spec(vec![container(&[], &full)])), QosClass::Guaranteed);
        assert_eq!(qos_class(&spec(vec![container(&[("cpu", "100m")], &[])])), QosClass::Burstable);
        let mixed = spec(vec![container(&full, &full), container(&[], &[])]);
        assert_eq!(qos_class(&mixed), QosClass::Burstable);
    }

    #[test]
    fn cgroups_are_laid_out_as_upstream() {
        assert_eq!(cgroup_parent("/coracle", QosClass::Guaranteed, "u"), "/coracle/kubepods/podu");
        assert_eq!(cgroup_parent("/coracle/", QosClass::Burstable, "u"), "/coracle/kubepods/burstable/podu");
    }

    #[test]
    fn kernel_figures_are_upstreams() {
        let half = container(&[("cpu", "250m"), ("memory", "512Mi")], &[("cpu", "500m"), ("memory", "1Gi")]);
        let resources = container_resources(&spec(vec![half.clone()]), &half, 4 << 30);
        assert_eq!((resources.cpu_shares, resources.cpu_quota, resources.cpu_period), (256, 50_000, 100_000));
        assert_eq!(resources.memory_limit_in_bytes, 1 << 30);
        assert_eq!(resources.oom_score_adj, 875);
        let none = container(&[], &[]);
        let resources = container_resources(&spec(vec![none.clone()]), &none, 4 << 30);
        assert_eq!((resources.cpu_shares, resources.cpu_quota, resources.oom_score_adj), (2, 0, 1000));
    }

    #[test]
    fn the_downward_api_rounds_up_and_falls_back_to_the_node() {
        let half = container(&[("cpu", "250m")], &[("memory", "100M")]);
        let node = BTreeMap::from([("cpu".to_string(), ApiQuantity("2".into()))]);
        let value = |selector: &str, divisor: Option<&str>| {
            let divisor = divisor.map(|text| ApiQuantity(text.into()));
            resource_value(&half, selector, divisor.as_ref(), &node)
        };
        assert_eq!(value("requests.cpu", None), Some(1));
        assert_eq!(value("requests.cpu", Some("1m")), Some(250));
        assert_eq!(value("limits.cpu", None), Some(2));
        assert_eq!(value("limits.memory", Some("1Mi")), Some(96));
        assert_eq!(value("nonsense", None), None);
    }
}

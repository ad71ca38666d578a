//! How much of a node a pod asks for.

use std::collections::BTreeMap;

use api::{quantity::Quantity, strategies::resources::is_of_pods};
use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec},
    apimachinery::pkg::api::resource::Quantity as Text,
};

/// Processing time, memory and other countable things, of a pod or a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a processor.
    pub milli_cpu: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of local disk.
    pub ephemeral_storage: i64,
    /// Huge pages, devices and other extended resources by name.
    pub extended: BTreeMap<String, i64>,
}

/// What a container that asks for nothing is counted with when nodes are compared (not when they are filtered),
/// so that a hundred such pods do not all go to one node: upstream's non-zero requests.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

impl Resources {
    /// Reads a list such as `status.allocatable`. What is no quantity counts as nothing: the API server has
    /// checked it.
    pub fn from_list(list: Option<&BTreeMap<String, Text>>) -> Resources {
        let mut resources = Resources::default();
        for (name, text) in list.into_iter().flatten() {
            let Ok(quantity) = Quantity::parse(&text.0) else { continue };
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity.milli(),
                "memory" => resources.memory = quantity.value(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.value(),
                "pods" => {}
                _ => _ = resources.extended.insert(name.clone(), quantity.value()),
            }
        }
        resources
    }

    /// Everything a pod asks for: the sum of its containers and sidecars, or its hungriest init container where
    /// that is more, and its overhead (KEP-753).
    pub fn of_pod(pod: &Pod) -> Resources {
        pod.spec.as_ref().map(|spec| total(spec, requests)).unwrap_or_default()
    }

    /// The same with upstream's defaults for containers that ask for no processor or memory.
    pub fn of_pod_nonzero(pod: &Pod) -> Resources {
        let with_defaults = |container: &Container| {
            let mut resources = requests(container);
            if resources.milli_cpu == 0 {
                resources.milli_cpu = DEFAULT_MILLI_CPU;
            }
            if resources.memory == 0 {
                resources.memory = DEFAULT_MEMORY;
            }
            resources
        };
        pod.spec.as_ref().map(|spec| total(spec, with_defaults)).unwrap_or_default()
    }

    /// Adds another's amounts.
    pub fn add(&mut self, other: &Resources) {
        self.combine(other, |a, b| a.saturating_add(b));
    }

    /// Takes another's amounts away.
    pub fn subtract(&mut self, other: &Resources) {
        self.combine(other, |a, b| a.saturating_sub(b));
    }

    /// Raises each amount to the other's where that is larger.
    pub fn raise_to(&mut self, other: &Resources) {
        self.combine(other, i64::max);
    }

    /// Whether nothing of the other's is more.
    pub fn covers(&self, other: &Resources) -> bool {
        let mut both = self.clone();
        both.raise_to(other);
        both == *self
    }

    fn combine(&mut self, other: &Resources, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.extended {
            let own = self.extended.entry(name.clone()).or_default();
            *own = with(*own, *amount);
        }
    }
}

fn requests(container: &Container) -> Resources {
    let requirements = container.resources.as_ref();
    let mut requests = Resources::from_list(requirements.and_then(|each| each.requests.as_ref()));
    // The API server copies limits to requests; objects written before it did so must count the same.
    let limits = Resources::from_list(requirements.and_then(|each| each.limits.as_ref()));
    let is_requested = |name: &str| {
        requirements.and_then(|each| each.requests.as_ref()).is_some_and(|list| list.contains_key(name))
    };
    if !is_requested("cpu") {
        requests.milli_cpu = limits.milli_cpu;
    }
    if !is_requested("memory") {
        requests.memory = limits.memory;
    }
    requests
}

fn total(spec: &PodSpec, of_container: impl Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    let mut peak = Resources::default();
    let mut sidecars = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let wants = of_container(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&wants);
            peak.raise_to(&sidecars);
        } else {
            let mut at_that_time = sidecars.clone();
            at_that_time.add(&wants);
            peak.raise_to(&at_that_time);
        }
    }
    for container in &spec.containers {
        running.add(&of_container(container));
    }
    running.add(&sidecars);
    running.raise_to(&peak);
    let pod_level = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    if let Some(list) = pod_level {
        // What the pod asks for as a whole takes the place of what its containers ask for (KEP-2837).
        let whole = Resources::from_list(Some(list));
        if list.contains_key("cpu") {
            running.milli_cpu = whole.milli_cpu;
        }
        if list.contains_key("memory") {
            running.memory = whole.memory;
        }
        running.extended.extend(whole.extended.into_iter().filter(|(name, _)| is_of_pods(name)));
    }
    running.add(&Resources::from_list(spec.overhead.as_ref()));
    running
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    fn asks(cpu: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn containers_add_up_and_init_containers_count_only_at_their_peak() {
        let pod = pod(
            json!({"containers": [asks("100m"), asks("1")], "initContainers": [asks("500m"), asks("2")]}),
        );
        assert_eq!(Resources::of_pod(&pod).milli_cpu, 2000);
    }

    #[test]
    fn sidecars_run_beside_everything_that_starts_after_them() {
        let mut sidecar = asks("300m");
        sidecar["restartPolicy"] = "Always".into();
        let pod = pod(json!({"containers": [asks("100m")], "initContainers": [sidecar, asks("500m")]}));
        assert_eq!(Resources::of_pod(&pod).milli_cpu, 800);
    }

    #[test]
    fn what_a_pod_asks_for_as_a_whole_takes_the_place_of_what_its_containers_ask_for() {
        let asks = |cpu: &str, pages: &str, devices: &str| {
            let requests = json!({"cpu": cpu, "hugepages-2Mi": pages, "a.example/b": devices});
            json!({"requests": requests})
        };
        let container = json!({"name": "c", "resources": asks("1", "2Mi", "1")});
        let whole = pod(json!({"containers": [container], "resources": asks("1500m", "8Mi", "7")}));
        let asked = Resources::of_pod(&whole);
        assert_eq!(asked.milli_cpu, 1500);
        let extended = [("a.example/b".to_string(), 1), ("hugepages-2Mi".to_string(), 8 << 20)];
        assert_eq!(asked.extended, BTreeMap::from(extended), "only containers have devices");
    }

    #[test]
    fn a_pod_that_asks_for_nothing_is_still_counted_when_nodes_are_compared() {
        let pod = pod(json!({"containers": [{"name": "c"}]}));
        assert_eq!(Resources::of_pod(&pod), Resources::default());
        assert_eq!(Resources::of_pod_nonzero(&pod).milli_cpu, 100);
    }
}

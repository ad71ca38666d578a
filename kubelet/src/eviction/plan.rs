//! Judges what was measured, and chooses the pod that has to go. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::threshold::{Resource, Signal, Threshold};
use crate::container::qos::requested;
use crate::pod::view::{PodView, is_critical};

/// A pressure is told for at least this long, so that it does not come and go.
const TRANSITION: Duration = Duration::from_secs(300);
/// What containers get to end at a hard threshold; upstream never gives nothing.
const SHORTEST_GRACE: Duration = Duration::from_secs(1);

/// What there is of something, and how much of it is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// What is left.
    pub available: u64,
    /// All there is.
    pub capacity: u64,
}

/// All that could be measured.
pub type Measured = BTreeMap<Signal, Level>;

/// What the node is short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory.
    pub memory: bool,
    /// Room or files on a disk.
    pub disk: bool,
    /// Process ids.
    pub pid: bool,
}

impl Pressure {
    /// The names of the node's conditions that are true.
    pub fn conditions(self) -> Vec<&'static str> {
        let all = [("MemoryPressure", self.memory), ("DiskPressure", self.disk), ("PIDPressure", self.pid)];
        all.into_iter().filter(|(_, is_true)| *is_true).map(|(name, _)| name).collect()
    }
}

/// What one judgement hands to the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Since when each threshold is met; a signal may have a soft one beside the hard one.
    since: BTreeMap<(Signal, Duration), Timestamp>,
    /// When each signal was last too low.
    last: BTreeMap<Signal, Timestamp>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    /// For the next time.
    pub state: State,
    /// For the node's conditions.
    pub pressure: Pressure,
    /// The thresholds that a pod has to go for, memory before the others.
    pub met: Vec<Threshold>,
}

/// Holds what was measured against the thresholds.
pub fn judge(thresholds: &[Threshold], measured: &Measured, before: &State, now: Timestamp) -> Judgement {
    let mut judgement = Judgement { state: State::default(), ..Judgement::default() };
    judgement.state.last = before.last.clone();
    for threshold in thresholds {
        let Some(level) = measured.get(&threshold.signal) else { continue };
        if level.available >= threshold.least.of(level.capacity) {
            continue;
        }
        let identity = (threshold.signal, threshold.patience);
        let since = before.since.get(&identity).copied().unwrap_or(now);
        judgement.state.since.insert(identity, since);
        judgement.state.last.insert(threshold.signal, now);
        if since + threshold.patience <= now {
            judgement.met.push(*threshold);
        }
    }
    judgement.state.last.retain(|_, last| *last + TRANSITION > now);
    for signal in judgement.state.last.keys() {
        match signal.resource() {
            Resource::Memory => judgement.pressure.memory = true,
            Resource::EphemeralStorage | Resource::Inodes => judgement.pressure.disk = true,
            Resource::Pids => judgement.pressure.pid = true,
        }
    }
    judgement.met.sort_by_key(|threshold| (threshold.signal, threshold.patience));
    judgement
}

/// What one container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Bytes of memory that it works with.
    pub memory: u64,
    /// Bytes on the disk: its own layer and its logs.
    pub disk: u64,
    /// Files on the disk.
    pub inodes: u64,
}

/// What one pod uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodUsage {
    /// By container.
    pub containers: BTreeMap<String, ContainerUsage>,
    /// Bytes in its volumes on the node's disk.
    pub volumes: u64,
    /// Files in these.
    pub volume_inodes: u64,
    /// Processes.
    pub processes: u64,
}

impl PodUsage {
    fn of(&self, resource: Resource) -> u64 {
        let sum = |part: fn(&ContainerUsage) -> u64| self.containers.values().map(part).sum::<u64>();
        match resource {
            Resource::Memory => sum(|container| container.memory),
            Resource::EphemeralStorage => sum(|container| container.disk) + self.volumes,
            Resource::Inodes => sum(|container| container.inodes) + self.volume_inodes,
            Resource::Pids => self.processes,
        }
    }
}

/// The pod that has to go.
pub struct Chosen {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Why, for people.
    pub message: String,
    /// How long it gets.
    pub grace: Duration,
}

/// The pod that takes most beyond what it asked for, those of low priority first. Critical pods stay.
pub fn choose(
    threshold: &Threshold,
    measured: &Measured,
    pods: &[Arc<Pod>],
    usage: &BTreeMap<String, PodUsage>,
) -> Option<Chosen> {
    let resource = threshold.signal.resource();
    let none = PodUsage::default();
    let used = |pod: &Pod| usage.get(pod.uid()).unwrap_or(&none);
    let beyond = |pod: &Pod| {
        let asked: u64 = match resource {
            Resource::Memory => asked_by_all(pod, "memory"),
            Resource::EphemeralStorage => asked_by_all(pod, "ephemeral-storage"),
            Resource::Inodes | Resource::Pids => 0,
        };
        i128::from(used(pod).of(resource)) - i128::from(asked)
    };
    let priority = |pod: &Pod| pod.spec().priority.unwrap_or(0);
    let candidates = pods.iter().filter(|pod| !is_critical(pod));
    let chosen = candidates.min_by_key(|pod| (beyond(pod) <= 0, priority(pod), Reverse(beyond(pod))))?;
    Some(Chosen {
        pod: chosen.clone(),
        message: message(threshold, measured, chosen, used(chosen)),
        grace: threshold.grace.min(chosen.grace_period()).max(SHORTEST_GRACE),
    })
}

fn asked_by_all(pod: &Pod, resource: &str) -> u64 {
    pod.spec().containers.iter().map(|container| asked(container, resource)).sum()
}

fn asked(container: &Container, resource: &str) -> u64 {
    requested(container, resource).map_or(0, |quantity| u64::try_from(quantity.value()).unwrap_or(0))
}

/// Upstream's words.
fn message(threshold: &Threshold, measured: &Measured, pod: &Pod, usage: &PodUsage) -> String {
    let resource = threshold.signal.resource();
    let level = measured.get(&threshold.signal).copied().unwrap_or_default();
    let (least, left) = match resource {
        Resource::Inodes | Resource::Pids => {
            (threshold.least.of(level.capacity).to_string(), level.available.to_string())
        }
        _ => (bytes(threshold.least.of(level.capacity)), bytes(level.available)),
    };
    let mut text =
        format!("The node was low on resource: {resource}. Threshold quantity: {least}, available: {left}. ");
    for container in &pod.spec().containers {
        let used = usage.containers.get(&container.name).copied().unwrap_or_default();
        let (used, name) = match resource {
            Resource::Memory => (used.memory, "memory"),
            Resource::EphemeralStorage => (used.disk, "ephemeral-storage"),
            Resource::Inodes | Resource::Pids => continue,
        };
        let asked = asked(container, name);
        if used > asked {
            text += &format!(
                "Container {} was using {}, request is {}, has larger consumption of {resource}. ",
                container.name,
                bytes(used),
                bytes(asked),
            );
        }
    }
    text
}

fn bytes(number: u64) -> String {
    Quantity::from_bytes(i64::try_from(number).unwrap_or(i64::MAX)).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn low_memory() -> (Vec<Threshold>, Measured) {
        let threshold = Threshold::hard("memory.available<100Mi").unwrap();
        let level = Level { available: 50 << 20, capacity: 1 << 30 };
        (vec![threshold], [(Signal::MemoryAvailable, level)].into())
    }

    fn pod(name: &str, priority: i32, request: &str) -> Arc<Pod> {
        let pod: Value = json!({ "metadata": { "name": name, "namespace": "shop", "uid": name }, "spec": {
            "priority": priority,
            "containers": [{ "name": "c", "image": "i", "resources": { "requests": { "memory": request } } }] } });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn uses(memory: u64) -> PodUsage {
        let usage = ContainerUsage { memory: memory << 20, ..ContainerUsage::default() };
        PodUsage { containers: [("c".to_string(), usage)].into(), ..PodUsage::default() }
    }

    #[test]
    fn a_hard_threshold_is_met_at_once_and_pressure_lasts() {
        let (thresholds, measured) = low_memory();
        let first = judge(&thresholds, &measured, &State::default(), at(0));
        assert_eq!((first.met.len(), first.pressure.memory), (1, true));
        let enough: Measured =
            [(Signal::MemoryAvailable, Level { available: 1 << 29, capacity: 1 << 30 })].into();
        let second = judge(&thresholds, &enough, &first.state, at(10));
        assert_eq!((second.met.len(), second.pressure.memory), (0, true));
        let last = judge(&thresholds, &enough, &second.state, at(300));
        assert_eq!(last.pressure, Pressure::default());
    }

    #[test]
    fn a_soft_threshold_has_to_be_met_for_a_while() {
        let (mut thresholds, measured) = low_memory();
        thresholds[0].patience = Duration::from_secs(30);
        let first = judge(&thresholds, &measured, &State::default(), at(0));
        assert_eq!((first.met.len(), first.pressure.memory), (0, true));
        let second = judge(&thresholds, &measured, &first.state, at(29));
        assert_eq!(second.met.len(), 0);
        assert_eq!(judge(&thresholds, &measured, &second.state, at(30)).met.len(), 1);
    }

    #[test]
    fn a_soft_threshold_waits_beside_a_hard_one_that_was_met_before() {
        let hard = Threshold::hard("memory.available<10Mi").unwrap();
        let soft = Threshold {
            patience: Duration::from_secs(30),
            ..Threshold::hard("memory.available<100Mi").unwrap()
        };
        let left = |megabytes: u64| -> Measured {
            [(Signal::MemoryAvailable, Level { available: megabytes << 20, capacity: 1 << 30 })].into()
        };
        let judged = |left: &Measured, before: &State, now| judge(&[soft, hard], left, before, at(now));
        let first = judged(&left(50), &State::default(), 0);
        assert!(first.met.is_empty());
        let low = judged(&left(5), &first.state, 10);
        assert_eq!(low.met, [hard]);
        assert_eq!(judged(&left(5), &low.state, 30).met, [hard, soft], "the hard one first");
        let recovered = judged(&left(500), &low.state, 20);
        assert!(judged(&left(50), &recovered.state, 40).met.is_empty(), "its time begins anew");
    }

    #[test]
    fn a_soft_threshold_gives_time_to_end() {
        let (mut thresholds, measured) = low_memory();
        let mut pod = (*pod("a", 0, "10Mi")).clone();
        let mut grace = |longest: Duration, asked: Option<i64>| {
            thresholds[0].grace = longest;
            pod.spec.as_mut().unwrap().termination_grace_period_seconds = asked;
            let pods = [Arc::new(pod.clone())];
            choose(&thresholds[0], &measured, &pods, &BTreeMap::new()).unwrap().grace.as_secs()
        };
        assert_eq!(grace(Duration::from_secs(60), Some(20)), 20);
        assert_eq!(grace(Duration::from_secs(10), Some(20)), 10);
        assert_eq!((grace(Duration::MAX, Some(300)), grace(Duration::MAX, None)), (300, 30));
        assert_eq!(grace(Duration::ZERO, Some(300)), 1);
    }

    #[test]
    fn who_takes_more_than_asked_for_goes_first_then_low_priority_then_the_largest() {
        let (thresholds, measured) = low_memory();
        let pods = [
            pod("modest", 0, "200Mi"),
            pod("important", 10, "10Mi"),
            pod("greedy", 0, "10Mi"),
            pod("greediest", 0, "10Mi"),
            pod("critical", 2_000_001_000, "0"),
        ];
        let usage: BTreeMap<String, PodUsage> =
            [("modest", 190), ("important", 500), ("greedy", 50), ("greediest", 60), ("critical", 900)]
                .into_iter()
                .map(|(name, memory)| (name.to_string(), uses(memory)))
                .collect();
        let mut left: Vec<Arc<Pod>> = pods.to_vec();
        let mut order = Vec::new();
        while let Some(chosen) = choose(&thresholds[0], &measured, &left, &usage) {
            order.push(chosen.pod.name().to_string());
            left.retain(|pod| pod.name() != chosen.pod.name());
        }
        assert_eq!(order, ["greediest", "greedy", "important", "modest"]);
    }

    #[test]
    fn the_message_is_upstreams() {
        let (thresholds, measured) = low_memory();
        let usage = [("a".to_string(), uses(60))].into();
        let chosen = choose(&thresholds[0], &measured, &[pod("a", 0, "10Mi")], &usage).unwrap();
        assert_eq!(
            chosen.message,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
             Container c was using 60Mi, request is 10Mi, has larger consumption of memory. "
        );
        assert_eq!(chosen.grace, Duration::from_secs(1));
    }
}

//! Works out how many of the pods under a PodDisruptionBudget may be evicted now.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::Pod,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::ResourceExt;

use crate::{
    fraction::{self, Round},
    pods::PodExt,
};

/// An eviction that was granted counts for so long even if the pod does not go.
const GRANTED_FOR_SECONDS: i64 = 120;

/// The status of a budget over these pods. `expected` is how many there should be, as their controllers say.
pub fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: i32,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let old = budget.status.clone().unwrap_or_default();
    let mut granted = old.disrupted_pods.clone().unwrap_or_default();
    granted.retain(|name, at| {
        let is_there = pods.iter().any(|pod| pod.name_any() == *name && !pod.is_terminating());
        is_there && now.duration_since(at.0).as_secs() < GRANTED_FOR_SECONDS
    });
    let spec = budget.spec.as_ref();
    let desired = match spec.map(|spec| (&spec.max_unavailable, &spec.min_available)) {
        Some((Some(most), _)) => (expected - fraction::resolve(Some(most), expected, Round::Up)).max(0),
        Some((None, Some(least))) => fraction::resolve(Some(least), expected, Round::Up),
        _ => 0,
    };
    let is_healthy =
        |pod: &&Arc<Pod>| !pod.is_terminating() && pod.is_ready() && !granted.contains_key(&pod.name_any());
    let healthy = pods.iter().filter(is_healthy).count().try_into().unwrap_or(i32::MAX);
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    PodDisruptionBudgetStatus {
        conditions: Some(vec![condition(&old, allowed > 0, budget.metadata.generation, now)]),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        disrupted_pods: (!granted.is_empty()).then_some(granted),
        observed_generation: budget.metadata.generation,
    }
}

fn condition(
    old: &PodDisruptionBudgetStatus,
    allowed: bool,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let (status, reason) = if allowed { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let before = old.conditions.iter().flatten().find(|condition| condition.status == status);
    Condition {
        type_: "DisruptionAllowed".into(),
        status: status.into(),
        reason: reason.into(),
        message: String::new(),
        last_transition_time: before.map_or(Time(now), |before| before.last_transition_time.clone()),
        observed_generation: generation,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::{
            core::v1::{PodCondition, PodStatus},
            policy::v1::PodDisruptionBudgetSpec,
        },
        apimachinery::pkg::util::intstr::IntOrString,
    };

    use super::*;

    fn pods(ready: usize, unready: usize) -> Vec<Arc<Pod>> {
        let pod = |index: usize| {
            let condition = PodCondition {
                type_: "Ready".into(),
                status: if index < ready { "True" } else { "False" }.into(),
                ..PodCondition::default()
            };
            let mut pod = Pod::default();
            pod.metadata.name = Some(format!("p{index}"));
            pod.status = Some(PodStatus { conditions: Some(vec![condition]), ..PodStatus::default() });
            Arc::new(pod)
        };
        (0..ready + unready).map(pod).collect()
    }

    fn allowed(spec: PodDisruptionBudgetSpec, pods: &[Arc<Pod>], expected: i32) -> Option<i32> {
        let budget = PodDisruptionBudget { spec: Some(spec), ..PodDisruptionBudget::default() };
        status(&budget, pods, expected, Timestamp::UNIX_EPOCH).disruptions_allowed
    }

    #[test]
    fn what_is_healthy_beyond_the_minimum_may_go() {
        let at_least =
            |least: IntOrString| PodDisruptionBudgetSpec { min_available: Some(least), ..Default::default() };
        assert_eq!(allowed(at_least(IntOrString::Int(2)), &pods(3, 0), 3), Some(1));
        assert_eq!(allowed(at_least(IntOrString::Int(2)), &pods(2, 1), 3), Some(0));
        assert_eq!(allowed(at_least(IntOrString::String("50%".into())), &pods(3, 0), 3), Some(1));
        let at_most =
            PodDisruptionBudgetSpec { max_unavailable: Some(IntOrString::Int(1)), ..Default::default() };
        assert_eq!(allowed(at_most, &pods(3, 0), 3), Some(1));
    }

    #[test]
    fn a_granted_eviction_counts_until_the_pod_is_gone() {
        let spec = PodDisruptionBudgetSpec { min_available: Some(IntOrString::Int(1)), ..Default::default() };
        let granted = [("p0".to_string(), Time(Timestamp::UNIX_EPOCH))].into();
        let old = PodDisruptionBudgetStatus { disrupted_pods: Some(granted), ..Default::default() };
        let budget = PodDisruptionBudget { spec: Some(spec), status: Some(old), ..Default::default() };
        let soon = status(&budget, &pods(2, 0), 2, Timestamp::from_second(60).unwrap());
        assert_eq!((soon.disruptions_allowed, soon.disrupted_pods.is_some()), (Some(0), true));
        let later = status(&budget, &pods(2, 0), 2, Timestamp::from_second(121).unwrap());
        assert_eq!((later.disruptions_allowed, later.disrupted_pods), (Some(1), None));
    }
}

//! Init containers: one after the other, sidecars among them staying behind.

use k8s_openapi::api::core::v1::Container;

use super::{PodAction, Situation, plan_container};
use crate::pod::observed::{ContainerState, ObservedContainer};
use crate::pod::view::{PodView, RestartPolicy, init_restart_policy, is_sidecar};

/// The steps for the init containers, and whether the pod's containers may start.
///
/// Once one of the pod's containers has been in this sandbox all init containers have succeeded, even where
/// their records are gone; from then on only the sidecars are looked after.
pub(super) fn plan(situation: &Situation<'_>) -> (Vec<PodAction>, bool) {
    let mut actions = Vec::new();
    let was_initialized = has_been_initialized(situation);
    let mut is_starting = super::is_any_starting(situation, situation.pod.init_containers());
    for container in situation.pod.init_containers() {
        if was_initialized && !is_sidecar(container) {
            continue;
        }
        actions.extend(step(situation, container, &mut is_starting));
        if !was_initialized && !has_done_its_part(situation, container) {
            return (actions, false);
        }
    }
    (actions, true)
}

fn step(situation: &Situation<'_>, container: &Container, is_starting: &mut bool) -> Option<PodAction> {
    if is_sidecar(container) {
        return plan_container(situation, container, RestartPolicy::Always, is_starting);
    }
    let policy = init_restart_policy(situation.pod, container);
    let succeeded =
        situation.observed.active(&container.name).and_then(ObservedContainer::exit_code) == Some(0);
    match situation.observed.active(&container.name) {
        _ if succeeded => None,
        // Init containers run again in every new sandbox, whatever became of them in the last one.
        None => plan_container(situation, container, RestartPolicy::Always, is_starting),
        Some(_) => plan_container(situation, container, policy, is_starting),
    }
}

/// Whether the next init container may start: this one has succeeded, or serves beside it.
pub fn has_done_its_part(situation: &Situation<'_>, container: &Container) -> bool {
    let Some(active) = situation.observed.active(&container.name) else { return false };
    match active.state {
        ContainerState::Exited { code, .. } => !is_sidecar(container) && code == 0,
        ContainerState::Running { .. } if is_sidecar(container) => {
            container.startup_probe.is_none()
                || situation
                    .memory
                    .probes(&container.name, &active.id)
                    .is_some_and(|probes| probes.startup == Some(true))
        }
        _ => false,
    }
}

/// Whether the pod's containers have been reached in this sandbox.
pub fn has_been_initialized(situation: &Situation<'_>) -> bool {
    situation
        .pod
        .spec()
        .containers
        .iter()
        .any(|container| situation.observed.active(&container.name).is_some())
}

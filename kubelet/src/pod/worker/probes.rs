//! Keeps one task for each probe that is due: none before a container runs, only the startup probe until it
//! has come up, liveness and readiness from then on.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::Container;

use super::Worker;
use crate::metrics;
use crate::pod::memory::Memory;
use crate::pod::observed::{ContainerState, Observed};
use crate::pod::start::first_ip;
use crate::pod::view::{PodView, is_sidecar};
use crate::probe::{ProbeKind, Probing, Target, run};

impl Worker {
    pub(super) fn keep_probing(&mut self) {
        let sidecars = self.pod.init_containers().iter().filter(|container| is_sidecar(container));
        let containers = self.pod.spec().containers.iter().chain(sidecars);
        let due: Vec<_> =
            containers.flat_map(|container| due_probes(container, &self.observed, &self.memory)).collect();
        let wanted: HashSet<_> = due.iter().map(|probe| (probe.id.clone(), probe.kind)).collect();
        self.probing.retain(|key, task| {
            let is_wanted = wanted.contains(key);
            if !is_wanted {
                task.abort();
            }
            is_wanted
        });
        let pod_ip = first_ip(&self.context, &self.pod, &self.pod_ips());
        for probe in due {
            let key = (probe.id.clone(), probe.kind);
            if self.probing.contains_key(&key) {
                continue;
            }
            let Some(container) = self.pod.container(&probe.container) else { continue };
            let probing = Probing {
                context: self.context.clone(),
                pod: self.pod.clone(),
                container: container.into_owned(),
                kind: probe.kind,
                target: Target { container_id: probe.id, pod_ip },
                started_at: probe.started_at,
                signals: self.own_signals.clone(),
            };
            self.probing.insert(key, tokio::spawn(run(probing)).abort_handle());
        }
    }

    pub(super) fn end_probes(&mut self) {
        self.probing.drain().for_each(|(_, task)| task.abort());
        for container in self.pod.all_containers() {
            for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
                if kind.of(&container).is_some() {
                    metrics::forget_probe(kind.as_str(), &container.name, &self.pod);
                }
            }
        }
    }
}

struct Due {
    container: String,
    id: String,
    kind: ProbeKind,
    started_at: jiff::Timestamp,
}

fn due_probes(container: &Container, observed: &Observed, memory: &Memory) -> Vec<Due> {
    let Some(active) = observed.latest(&container.name) else { return Vec::new() };
    let ContainerState::Running { started_at } = active.state else { return Vec::new() };
    let results = memory.probes(&container.name, &active.id);
    let startup = results.and_then(|results| results.startup);
    let has_come_up = container.startup_probe.is_none() || startup == Some(true);
    let kinds = match (has_come_up, startup) {
        (true, _) => vec![ProbeKind::Liveness, ProbeKind::Readiness],
        (false, None) => vec![ProbeKind::Startup],
        // It has failed for good and is about to be stopped.
        (false, Some(_)) => Vec::new(),
    };
    let due = kinds.into_iter().filter(|kind| kind.of(container).is_some());
    due.map(|kind| Due { container: container.name.clone(), id: active.id.clone(), kind, started_at })
        .collect()
}

//! Probes: asks containers whether they have come up, live and can serve.
//!
//! [`ProbeState`] decides what a row of answers means; [`check`] gets one answer; [`run`] is the loop of one
//! probe of one container, and ends when nobody wants its results any more.

pub mod check;
mod grpc;
mod http;
mod state;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

pub use check::{Answer, Target};
pub use state::ProbeState;

use crate::context::Context;
use crate::events::container_reference;
use crate::metrics;
use crate::pod::Signal;

/// The three things that can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Has it come up? Until it has, nothing else is asked.
    Startup,
    /// Does it live? If not it is restarted.
    Liveness,
    /// Can it serve? If not it gets no traffic.
    Readiness,
}

impl ProbeKind {
    /// The word that begins the event's message.
    pub fn as_str(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }

    /// The container's probe of this kind.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            ProbeKind::Startup => container.startup_probe.as_ref(),
            ProbeKind::Liveness => container.liveness_probe.as_ref(),
            ProbeKind::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// Whom a probe asks and whom it tells.
pub struct Probing {
    /// What all pods share.
    pub context: Arc<Context>,
    /// The pod, for events.
    pub pod: Arc<Pod>,
    /// The container's spec.
    pub container: Container,
    /// What is asked.
    pub kind: ProbeKind,
    /// Where it is asked.
    pub target: Target,
    /// When the container was started.
    pub started_at: Timestamp,
    /// The pod's worker.
    pub signals: mpsc::Sender<Signal>,
}

/// Asks until the worker is gone or the answer is final: a container that has come up is not asked again,
/// one that has failed for good is about to be replaced.
pub async fn run(probing: Probing) {
    let Some(probe) = probing.kind.of(&probing.container).cloned() else { return };
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(
            value.and_then(|value| u64::try_from(value).ok()).filter(|v| *v > 0).unwrap_or(default),
        )
    };
    let delay =
        Duration::from_secs(probe.initial_delay_seconds.and_then(|v| u64::try_from(v).ok()).unwrap_or(0));
    let first = probing.started_at + delay;
    let wait = Duration::try_from(first.duration_since(Timestamp::now())).unwrap_or_default();
    let timeout = seconds(probe.timeout_seconds, 1);
    let mut ticks = tokio::time::interval_at(Instant::now() + wait, seconds(probe.period_seconds, 10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut state = ProbeState::new(&probe);
    loop {
        ticks.tick().await;
        let runtime = &*probing.context.runtime;
        let asked = Instant::now();
        let answer = check::ask(runtime, &probe, &probing.container, &probing.target, timeout).await;
        tell_users(&probing, &answer);
        metrics::count_probe(&probing, &answer, asked.elapsed());
        let Some(verdict) = state.observe(&answer) else { continue };
        let signal = Signal::Probed {
            container: probing.container.name.clone(),
            id: probing.target.container_id.clone(),
            kind: probing.kind,
            succeeded: verdict,
        };
        let is_final = match probing.kind {
            ProbeKind::Startup => true,
            ProbeKind::Liveness => !verdict,
            ProbeKind::Readiness => false,
        };
        if probing.signals.send(signal).await.is_err() || is_final {
            return;
        }
    }
}

fn tell_users(probing: &Probing, answer: &Answer) {
    let kind = probing.kind.as_str();
    let (reason, message) = match answer {
        Answer::Success => return,
        Answer::Warning(output) => ("ProbeWarning", format!("{kind} probe warning: {output}")),
        Answer::Failure(output) => ("Unhealthy", format!("{kind} probe failed: {output}")),
        Answer::Unknown(error) => ("Unhealthy", format!("{kind} probe errored: {error}")),
    };
    let regarding = container_reference(&probing.pod, &probing.container.name);
    probing.context.events.event(regarding, client::events::EventType::Warning, reason, message);
}

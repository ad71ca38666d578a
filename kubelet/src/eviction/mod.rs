//! Gets rid of pods when the node itself runs short: of memory, of disk, of process ids.
//!
//! [`threshold`] says what is too little, [`plan`] judges what was measured and ranks the pods, both plain
//! functions. The shell measures every ten seconds, as upstream, and asks the chosen pod's worker to end it: one
//! pod at a time, images and what else nobody needs first.

pub mod measure;
pub mod plan;
pub mod threshold;

use std::sync::Arc;
use std::time::Duration;

use client::Cache;
use client::events::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::pod::Evictions;
use crate::pod::memory::Verdict;
use crate::pod::view::PodView;
use measure::Meter;
use plan::{Pressure, State, choose, judge};
use threshold::Threshold;

/// How often the node is measured.
const PERIOD: Duration = Duration::from_secs(10);
/// A pod that was told to go gets this long to be gone before the next one is chosen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Watches the node until `stop`.
pub async fn run(
    context: Arc<Context>,
    pods: Arc<Cache<Pod>>,
    evictions: Evictions,
    pressure: watch::Sender<Pressure>,
    stop: CancellationToken,
) {
    let meter = Meter::new(context.clone());
    let evictor = Evictor { context, pods, evictions, pressure, meter, state: State::default(), going: None };
    stop.run_until_cancelled(evictor.work()).await;
}

struct Evictor {
    context: Arc<Context>,
    pods: Arc<Cache<Pod>>,
    evictions: Evictions,
    pressure: watch::Sender<Pressure>,
    meter: Meter,
    state: State,
    /// The pod that was told to go last, and when.
    going: Option<(String, Timestamp)>,
}

impl Evictor {
    async fn work(mut self) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.round(Timestamp::now()).await;
        }
    }

    async fn round(&mut self, now: Timestamp) {
        let measured = self.meter.measure().await;
        let judgement = judge(&self.context.config.eviction, &measured, &self.state, now);
        self.state = judgement.state;
        self.pressure
            .send_if_modified(|told| std::mem::replace(told, judgement.pressure) != judgement.pressure);
        let Some(threshold) = judgement.met.into_iter().next() else { return };
        if self.is_waiting(now) {
            return;
        }
        let resource = threshold.signal.resource();
        tracing::warn!(%resource, threshold = %threshold, "the node is short of a resource");
        let regarding = crate::events::node_reference(&self.context.config.node_name);
        let message = format!("Attempting to reclaim {resource}");
        self.context.events.event(regarding, EventType::Warning, "EvictionThresholdMet", message);
        if resource.is_taken_by_images() && self.context.image_keeper.free_all().await > 0 {
            // What nobody needs was enough to go on; whether it was enough at all the next look tells.
            return;
        }
        self.evict(&threshold, &measured, now).await;
    }

    fn is_waiting(&self, now: Timestamp) -> bool {
        let Some((uid, since)) = &self.going else { return false };
        let lives = self.pods.list().iter().any(|pod| pod.uid() == uid && !pod.is_finished());
        lives && *since + PATIENCE > now
    }

    async fn evict(&mut self, threshold: &Threshold, measured: &plan::Measured, now: Timestamp) {
        let pods: Vec<Arc<Pod>> = self.pods.list().into_iter().filter(|pod| !pod.is_finished()).collect();
        let usage = match self.meter.usage(&pods).await {
            Ok(usage) => usage,
            Err(error) => return tracing::warn!(%error, "cannot tell what pods use, evicting none"),
        };
        let Some(chosen) = choose(threshold, measured, &pods, &usage) else {
            return tracing::warn!(threshold = %threshold, "there is no pod to evict");
        };
        let pod = chosen.pod;
        tracing::warn!(
            pod = pod.name(),
            namespace = pod.namespace(),
            message = chosen.message,
            "evicting a pod"
        );
        self.context.events.event(pod.object_ref(&()), EventType::Warning, "Evicted", chosen.message.clone());
        self.going = Some((pod.uid().to_string(), now));
        let verdict = Verdict {
            reason: "Evicted".into(),
            message: chosen.message,
            grace: chosen.grace,
            is_disruption: true,
        };
        self.evictions.send(pod.uid().to_string(), verdict).await;
    }
}

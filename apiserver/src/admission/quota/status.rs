//! Keeps the status of ResourceQuotas: how much of what they limit is in use.
//!
//! Nothing is decided from it (admission counts for itself), so it may lag a little. Without quotas it only waits.

use std::{sync::Arc, time::Duration};

use api::{Object, Status};
use futures::future::select_all;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use store::Revision;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Amounts, Usage};
use crate::{admission::kind, registry::Registry};

/// The pause after a pass, in which changes gather; also before another try.
const PAUSE: Duration = Duration::from_millis(200);

/// Writes down what is used whenever it changes, until `stop`.
pub async fn run(registry: Arc<Registry>, stop: CancellationToken) {
    let publisher = Publisher { registry, usage: Usage::new() };
    let forever = async {
        loop {
            match publisher.pass().await {
                Ok((mut changes, until)) => next_change(&mut changes, until).await,
                Err(error) => {
                    tracing::warn!(%error, "cannot write the status of resource quotas, will retry")
                }
            }
            sleep(PAUSE).await;
        }
    };
    stop.run_until_cancelled(forever).await;
}

struct Publisher {
    registry: Arc<Registry>,
    usage: Usage,
}

impl Publisher {
    /// Brings every status up to date; returns what to wait for until the next pass, and how long at the most.
    async fn pass(&self) -> Result<(Vec<watch::Receiver<Revision>>, Option<Timestamp>), Status> {
        let quotas = kind("", "resourcequotas");
        // Subscribed before reading: what changes meanwhile wakes the next pass.
        let mut changes = vec![self.registry.changes(quotas).await?];
        let present = self.registry.list(quotas, None).await?;
        if !present.is_empty() {
            for (kind, _) in &self.usage.kinds {
                changes.push(self.registry.changes(kind).await?);
            }
            for kind in self.usage.others(&self.registry, &present) {
                changes.push(self.registry.changes(kind).await?);
            }
        }
        changes.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let mut until = None;
        for quota in &present {
            until = until.into_iter().chain(self.publish(quota).await?).min();
        }
        Ok((changes, until))
    }

    /// Returns when the status becomes another by itself.
    async fn publish(&self, quota: &Object) -> Result<Option<Timestamp>, Status> {
        let (used, until) = self.usage.used(&self.registry, quota, Timestamp::now()).await?;
        let status = status(quota, &used);
        if quota.at(&["status"]) == Some(&status) {
            return Ok(until);
        }
        let set = |mut quota: Object| {
            quota.set(&["status"], status.clone());
            Ok(quota)
        };
        let (namespace, name) = (quota.namespace(), quota.name());
        let kind = kind("", "resourcequotas");
        match self.registry.update_subresource(kind, "status", namespace, name, set).await {
            Err(status) if status.code != 404 => Err(status),
            _ => Ok(until),
        }
    }
}

fn status(quota: &Object, used: &Amounts) -> Value {
    let hard = quota.at(&["spec", "hard"]).cloned().unwrap_or_else(|| json!({}));
    let used: Map<String, Value> =
        used.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect();
    json!({"hard": hard, "used": used})
}

/// Waits for a change, or until a pod's time is over.
async fn next_change(changes: &mut [watch::Receiver<Revision>], until: Option<Timestamp>) {
    let waits = changes.iter_mut().map(|change| Box::pin(change.changed()));
    let change = async {
        let (ended, _, _) = select_all(waits).await;
        if ended.is_err() {
            // The cache is gone because the server ends.
            std::future::pending::<()>().await;
        }
    };
    match until.map(|until| Timestamp::now().duration_until(until)) {
        None => change.await,
        Some(rest) => {
            // At its last instant the pod still counts.
            let rest = Duration::try_from(rest).unwrap_or_default() + PAUSE;
            // Either way there is something to look at.
            timeout(rest, change).await.unwrap_or_default();
        }
    }
}

//! Writes into the status of validating policies what looks wrong about their expressions.

use std::{convert::Infallible, sync::Arc, time::Duration};

use api::{Kind, Object, Status, policy::type_check::warnings};
use serde_json::{Value, json};

use super::{GROUP, kind};
use crate::registry::Registry;

/// How long to wait after a pass that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Checks policies for as long as the registry lives.
pub(crate) fn start(registry: &Arc<Registry>) {
    let (registry, stop) = (registry.clone(), registry.stop().clone());
    let tasks = registry.tasks().clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(run(&registry)).await;
    });
}

async fn run(registry: &Registry) {
    loop {
        let Err(status) = follow(registry).await;
        tracing::warn!(%status, "cannot check the types of policies, trying again");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow(registry: &Registry) -> Result<Infallible, Status> {
    let mut changes = registry.changes(policies()).await?;
    loop {
        changes.mark_unchanged();
        for policy in registry.list(policies(), None).await? {
            if policy.number(&["status", "observedGeneration"]) != Some(policy.generation()) {
                check(registry, &policy).await?;
            }
        }
        changes.changed().await.map_err(|_| Status::internal("the cache of policies has ended"))?;
    }
}

async fn check(registry: &Registry, policy: &Object) -> Result<(), Status> {
    let spec = policy.at(&["spec"]).cloned().unwrap_or_default();
    let found = warnings(&spec, &|group, version, plural| registry.kinds().find(group, version, plural));
    let checking = match found.is_empty() {
        true => json!({}),
        false => json!({"expressionWarnings": Value::from(found)}),
    };
    let generation = policy.generation();
    let written = registry.update_subresource(policies(), "status", "", policy.name(), |mut newest| {
        // A newer one is looked at in its own turn.
        if newest.generation() == generation {
            newest.set(&["status", "observedGeneration"], generation);
            newest.set(&["status", "typeChecking"], checking.clone());
        }
        Ok(newest)
    });
    match written.await {
        Err(status) if status.code == 404 => Ok(()),
        written => written.map(drop),
    }
}

fn policies() -> &'static Kind {
    kind(GROUP, "validatingadmissionpolicies")
}

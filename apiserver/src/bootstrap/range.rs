//! The default ServiceCIDR: the range that the command line gives, as an object.

use std::{convert::Infallible, sync::Arc, time::Duration};

use api::{Object, Status, time};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    alloc::{DEFAULT_CIDR, service_cidrs},
    events::{Regarding, Warning},
    registry::{Registry, now},
};

/// How long to wait after a try that failed.
const RETRY: Duration = Duration::from_secs(10);

/// The ServiceCIDR with this range.
pub(super) fn service_cidr(range: &str) -> Object {
    let object = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": DEFAULT_CIDR},
        "spec": {"cidrs": [range]},
    });
    Object::from_value(object).unwrap_or_default()
}

/// Says of the default ServiceCIDR that it is ready as long as it is the range of the command line. One that is not
/// stays as it is: Services have addresses of it.
pub(super) async fn serve(registry: &Registry, range: &str) -> Result<(), Status> {
    let present = registry.get(service_cidrs(), "", DEFAULT_CIDR).await?;
    if !is_of(&present, range) {
        inconsistent(&present, range).tell(registry).await;
        return Ok(());
    }
    if is_told(&present) {
        return Ok(());
    }
    let tell = |mut cidr: Object| {
        if is_of(&cidr, range) && !is_told(&cidr) {
            let condition = json!({
                "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
                "lastTransitionTime": time::format(now()),
            });
            cidr.set(&["status", "conditions"], json!([condition]));
        }
        Ok(cidr)
    };
    registry.update_subresource(service_cidrs(), "status", "", DEFAULT_CIDR, tell).await.map(drop)
}

/// Makes the default ServiceCIDR again when it is gone, for as long as the registry lives. That is how the range is
/// changed: a start with another one, and the object deleted.
pub fn keep(registry: &Arc<Registry>, range: &str) {
    let (stop, range, registry_of_task) = (registry.stop().clone(), range.to_string(), registry.clone());
    let forever = async move {
        loop {
            let Err(status) = follow(&registry_of_task, &range).await;
            tracing::warn!(%status, "cannot keep the default ServiceCIDR, will retry");
            sleep(RETRY).await;
        }
    };
    registry.tasks().spawn(async move {
        stop.run_until_cancelled(forever).await.map(|never: Infallible| match never {})
    });
}

async fn follow(registry: &Registry, range: &str) -> Result<Infallible, Status> {
    let mut changes = registry.changes(service_cidrs()).await?;
    loop {
        changes.mark_unchanged();
        if registry.find(service_cidrs(), "", DEFAULT_CIDR).await?.is_none() {
            match registry.create(service_cidrs(), service_cidr(range)).await {
                Err(status) if status.reason != "AlreadyExists" => return Err(status),
                _ => serve(registry, range).await?,
            }
        }
        changes.changed().await.map_err(|_| Status::internal("the cache of ServiceCIDRs has ended"))?;
    }
}

fn is_of(cidr: &Object, range: &str) -> bool {
    cidr.list(&["spec", "cidrs"]) == [json!(range)]
}

fn is_told(cidr: &Object) -> bool {
    cidr.list(&["status", "conditions"]).iter().any(|condition| condition["type"] == "Ready")
}

fn inconsistent(cidr: &Object, range: &str) -> Warning {
    let texts: Vec<&str> = cidr.list(&["spec", "cidrs"]).iter().filter_map(|text| text.as_str()).collect();
    Warning {
        controller: "kubernetes-service-cidr-controller",
        regarding: Regarding::of("networking.k8s.io/v1", "ServiceCIDR", cidr),
        reason: "KubernetesDefaultServiceCIDRInconsistent",
        action: "ServiceCIDRCheck",
        note: format!(
            "The default ServiceCIDR [{}] does not match the controller flag configurations [{range}]",
            texts.join(" ")
        ),
    }
}

//! Says of ServiceCIDRs that they are ready, and keeps those that are being deleted until no Service has an address
//! in them that would be in no other.

mod plan;

use std::sync::Arc;

use client::{Cache, Change, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, turn};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use kube::{ResourceExt, api::Patch};
use plan::{Action, FINALIZER, allocated, networks, plan};
use serde_json::json;

use crate::{Context, finalizers::release};

/// What stands in the way of a deletion; upstream's words.
const BLOCKED: &str =
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";

/// Starts the controller.
pub fn start(context: &mut Context) {
    let (cidrs, addresses) = (context.cache::<ServiceCIDR>(), context.cache::<IPAddress>());
    let controller = ServiceCidrs {
        cidrs: cidrs.clone(),
        addresses: addresses.clone(),
        writer: context.writer("service-cidrs-controller"),
    };
    let (by_cidr, by_address) = (cidrs.clone(), cidrs.clone());
    let runner = Runner::new("service-cidr-controller", controller)
        // One more or less may decide whether another can go.
        .watch_map(&cidrs, move |change| {
            let others = going(&by_cidr).map(|other| ObjectKey::of(&*other));
            [change.key()].into_iter().chain(others).collect()
        })
        .watch_map(&addresses, move |change| concerned(&by_address, change));
    context.run(runner);
}

struct ServiceCidrs {
    cidrs: Arc<Cache<ServiceCIDR>>,
    addresses: Arc<Cache<IPAddress>>,
    writer: Writer,
}

impl Reconcile for ServiceCidrs {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(cidr) = self.cidrs.get_key(key) else { return Ok(Next::OnChange) };
        let actions = plan(&cidr, &self.cidrs.list(), || self.addresses.list(), Timestamp::now());
        let wanted = match cidr.metadata.deletion_timestamp {
            None => "ready, with its finalizer",
            Some(_) => "gone, once no address would be in no range",
        };
        turn::describe(wanted, format!("{actions:?}"));
        for action in actions {
            match action {
                Action::AddFinalizer => self.add_finalizer(&cidr).await?,
                Action::SetReady => {
                    self.set_ready(&cidr, "True", "", "Kubernetes Service CIDR is ready").await?;
                }
                Action::SetTerminating => self.set_ready(&cidr, "False", "Terminating", BLOCKED).await?,
                Action::RemoveFinalizer => release(&self.writer, &*cidr, FINALIZER).await?,
                Action::ComeBack(delay) => return Ok(Next::After(delay)),
            }
        }
        Ok(Next::OnChange)
    }
}

impl ServiceCidrs {
    async fn add_finalizer(&self, cidr: &ServiceCIDR) -> Result<(), ClientError> {
        let patch = Patch::Strategic(json!({"metadata": {"uid": cidr.uid(), "finalizers": [FINALIZER]}}));
        self.writer.patch::<ServiceCIDR, _>(&ObjectKey::of(cidr), &patch).await.or_not_found().map(drop)
    }

    async fn set_ready(
        &self,
        cidr: &ServiceCIDR,
        status: &str,
        reason: &str,
        message: &str,
    ) -> Result<(), ClientError> {
        let condition = json!({
            "type": "Ready", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": api::time::format(Timestamp::now()),
        });
        let patch = json!({"metadata": {"uid": cidr.uid()}, "status": {"conditions": [condition]}});
        let (key, patch) = (ObjectKey::of(cidr), Patch::Strategic(patch));
        let written = self.writer.patch_subresource::<ServiceCIDR, _>("status", &key, &patch).await;
        written.or_not_found().map(drop)
    }
}

fn going(cidrs: &Cache<ServiceCIDR>) -> impl Iterator<Item = Arc<ServiceCIDR>> + use<> {
    cidrs.list().into_iter().filter(|cidr| cidr.metadata.deletion_timestamp.is_some())
}

/// The ServiceCIDRs that are being deleted and have the address in them.
fn concerned(cidrs: &Cache<ServiceCIDR>, change: &Change<IPAddress>) -> Vec<ObjectKey> {
    let Some(address) = allocated(change.object()) else { return Vec::new() };
    let has = |cidr: &Arc<ServiceCIDR>| networks(cidr).iter().any(|network| network.has_host(address));
    going(cidrs).filter(has).map(|cidr| ObjectKey::of(&*cidr)).collect()
}

//! Keeps Services and IPAddresses in step: every address of a Service has its object, and no object outlives its
//! Service.
//!
//! The allocator makes and deletes both in order, so there is something to mend only after a crash between the two
//! writes, in a cluster from before there were IPAddresses, or when somebody changed one by hand. [`plan`] decides
//! for one address at a time, and only addresses that have changed are looked at. An idle cluster wakes nothing.

mod plan;
mod views;

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use api::{Status, network::Network};
use futures::future::select_all;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    claim::{self, Owner, claim},
    ranges::{self, ServiceCidrs},
    service::Held,
    services,
};
use crate::{follow::Follow, registry::Registry};
use plan::{Case, Step, Stray, plan};
use views::{Claims, Holders};

/// No write takes longer, so an IPAddress that has had no Service for so long is a stray.
const GRACE: Duration = Duration::from_secs(60);
/// The pause before a pass, in which changes gather and the two writes of an address come together.
const PAUSE: Duration = Duration::from_millis(200);
/// When what could not be mended is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Mends what the last run of this server left behind, and from then on whatever comes. To be called before requests
/// are answered: on a store of its own nobody can be writing then, and a stray need not be waited for.
pub async fn start(registry: &Arc<Registry>) -> Result<(), Status> {
    let mut repair = Repair::new(registry.clone());
    let grace = if registry.is_shared() { GRACE } else { Duration::ZERO };
    repair.pass(Instant::now(), grace).await?;
    let stop = registry.stop().clone();
    registry.tasks().spawn(async move { stop.run_until_cancelled(repair.run()).await });
    Ok(())
}

struct Repair {
    registry: Arc<Registry>,
    services: Follow<Holders>,
    claims: Follow<Claims>,
    cidrs: Follow<ServiceCidrs>,
    /// As it was at the last pass: what has come into range or gone out of it is looked at again.
    networks: Vec<Network>,
    /// Since when IPAddresses are without a Service.
    strays: HashMap<IpAddr, Instant>,
    /// What could not be mended, and when it is tried again.
    failed: BTreeSet<IpAddr>,
}

impl Repair {
    fn new(registry: Arc<Registry>) -> Repair {
        Repair {
            registry,
            services: Follow::new(services()),
            claims: Follow::new(claim::kind()),
            cidrs: Follow::new(ranges::kind()),
            networks: Vec::new(),
            strays: HashMap::new(),
            failed: BTreeSet::new(),
        }
    }

    async fn run(mut self) {
        loop {
            let Err(status) = self.follow().await;
            tracing::warn!(%status, "cannot compare the addresses of Services with IPAddresses, will retry");
            // What was to be looked at may be lost: all is looked at again.
            self.networks.clear();
            sleep(RETRY).await;
        }
    }

    async fn follow(&mut self) -> Result<Infallible, Status> {
        let mut changes = Vec::new();
        for kind in [services(), claim::kind(), ranges::kind()] {
            changes.push(self.registry.changes(kind).await?);
        }
        loop {
            // Seen before anything is read: what comes after wakes the next pass.
            changes.iter_mut().for_each(|change| change.mark_unchanged());
            let again = self.pass(Instant::now(), GRACE).await?;
            let again = async {
                match again {
                    Some(again) => sleep_until(again).await,
                    None => std::future::pending().await,
                }
            };
            let woken = select_all(changes.iter_mut().map(|change| Box::pin(change.changed())));
            tokio::select! {
                (woken, _, _) = woken => woken.map_err(|_| Status::internal("a cache has ended"))?,
                () = again => {}
            }
            sleep(PAUSE).await;
        }
    }

    /// Looks at every address that has changed; tells when to look again.
    async fn pass(&mut self, now: Instant, grace: Duration) -> Result<Option<Instant>, Status> {
        let mut addresses = self.changed().await?;
        addresses.extend(std::mem::take(&mut self.failed));
        let is_due = |since: &Instant| *since + grace <= now;
        addresses.extend(self.strays.iter().filter(|(_, since)| is_due(since)).map(|(address, _)| *address));
        for address in addresses {
            if let Err(status) = self.mend(address, now, grace).await {
                tracing::warn!(%address, %status, "cannot mend the IPAddress, will retry");
                self.failed.insert(address);
            }
        }
        let retry = (!self.failed.is_empty()).then(|| now + RETRY);
        Ok(self.strays.values().map(|since| *since + grace).chain(retry).min())
    }

    async fn changed(&mut self) -> Result<BTreeSet<IpAddr>, Status> {
        let networks = self.cidrs.ask(&self.registry, |cidrs| cidrs.all()).await?;
        let of_claims = self.claims.ask(&self.registry, |claims| claims.changed.take()).await?;
        let of_services = self.services.ask(&self.registry, |holders| holders.changed.take()).await?;
        if let (true, Some(mut claims), Some(services)) = (networks == self.networks, of_claims, of_services)
        {
            claims.extend(services);
            return Ok(claims);
        }
        self.networks = networks;
        let mut all = self.claims.ask(&self.registry, |claims| claims.addresses()).await?;
        all.extend(self.services.ask(&self.registry, |holders| holders.addresses()).await?);
        all.extend(self.strays.keys());
        Ok(all)
    }

    async fn mend(&mut self, address: IpAddr, now: Instant, grace: Duration) -> Result<(), Status> {
        let holders = self.services.ask(&self.registry, |holders| holders.of(address)).await?;
        let claim = self.claims.ask(&self.registry, |claims| claims.of(address)).await?;
        let since = self.strays.remove(&address).unwrap_or(now);
        let stray = match &claim {
            Some(claim) if holders.is_empty() && since + grace <= now => {
                let (namespace, name) = (&claim.parent.namespace, &claim.parent.name);
                let parent = self.registry.find(services(), namespace, name).await;
                Stray::Ripe { parent_is_there: parent?.is_some() }
            }
            _ => Stray::Fresh,
        };
        let is_in_range = self.networks.iter().any(|network| network.has_host(address));
        let case = Case { address, holders: &holders, claim: claim.as_ref(), is_in_range, stray };
        for step in plan(&case) {
            let registry = &self.registry;
            let told = match step {
                Step::Tell(warning) => Some(warning),
                Step::Delete { uid, told } => claim::delete(registry, address, &uid).await?.then_some(told),
                Step::Claim { owner, instead_of, told } => {
                    let is_made = claim_anew(registry, address, &owner, instead_of.as_deref()).await?;
                    told.filter(|_| is_made)
                }
                Step::Wait => {
                    self.strays.insert(address, since);
                    None
                }
            };
            if let Some(warning) = told {
                warning.tell(registry).await;
            }
        }
        Ok(())
    }
}

/// Makes the IPAddress of a Service, in place of the one with this uid; whether it is made. Services and IPAddresses
/// are not seen at the same moment: where others write to the store, too, the one in the way may be that of whoever
/// has got the address since.
async fn claim_anew(
    registry: &Registry,
    address: IpAddr,
    owner: &Owner,
    instead_of: Option<&str>,
) -> Result<bool, Status> {
    if let Some(uid) = instead_of {
        let service = registry.find(services(), &owner.namespace, &owner.name).await?;
        if !service.is_some_and(|service| Held::by(&service).addresses.contains(&address)) {
            return Ok(false);
        }
        claim::delete(registry, address, uid).await?;
    }
    // One that is there by now has been made by somebody who was faster, and is looked at next.
    claim(registry, address, owner).await
}

#[cfg(test)]
mod tests {
    use store::embedded::Embedded;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn the_claim_of_whoever_has_the_address_by_now_stays() {
        let store = Arc::new(Embedded::in_memory().unwrap());
        let registry = Registry::new(store, false, CancellationToken::new());
        let (address, name) = ("10.96.0.66".parse().unwrap(), "10.96.0.66");
        let [gone, heir] =
            ["gone", "heir"].map(|service| Owner { namespace: "default".into(), name: service.into() });
        assert!(claim(&registry, address, &heir).await.unwrap());
        let uid = registry.get(claim::kind(), "", name).await.unwrap().uid().to_string();
        assert!(!claim_anew(&registry, address, &gone, Some(&uid)).await.unwrap());
        assert_eq!(registry.get(claim::kind(), "", name).await.unwrap().uid(), uid);
    }

    #[tokio::test]
    async fn a_stray_that_appears_later_is_given_time_for_its_service_to_come() {
        let store = Arc::new(Embedded::in_memory().unwrap());
        let registry = Registry::new(store, false, CancellationToken::new());
        let mut repair = Repair::new(registry.clone());
        let begun = Instant::now();
        assert_eq!(repair.pass(begun, GRACE).await.unwrap(), None);
        let (address, name) = ("10.96.0.66".parse().unwrap(), "10.96.0.66");
        let owner = Owner { namespace: "default".into(), name: "web".into() };
        assert!(claim(&registry, address, &owner).await.unwrap());
        assert_eq!(repair.pass(begun, GRACE).await.unwrap(), Some(begun + GRACE));
        let shortly_before = begun + GRACE - Duration::from_secs(1);
        assert_eq!(repair.pass(shortly_before, GRACE).await.unwrap(), Some(begun + GRACE));
        assert!(registry.find(claim::kind(), "", name).await.unwrap().is_some());
        assert_eq!(repair.pass(begun + GRACE, GRACE).await.unwrap(), None);
        assert!(registry.find(claim::kind(), "", name).await.unwrap().is_none());
    }
}

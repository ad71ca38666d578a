//! Addresses and node ports of Services: each belongs to one Service at a time.
//!
//! The Services themselves are the record of what is taken: a [`Follow`] over them, plus what is reserved for
//! writes that are under way. A reservation ends when its Service is stored, which the view has seen before the next
//! question is answered. Addresses come out of every ServiceCIDR that is ready ([`ranges`]), and each is claimed by an
//! IPAddress ([`claim`]) before its Service is stored: the creation of that object is what settles who has it, should
//! others than this server write to the store. Where the two do not fit together, after a crash or because somebody
//! changed one of them, [`repair`] mends it.

mod claim;
mod numbers;
mod ranges;
pub mod repair;
mod service;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::{Kind, Object, Status, kinds, network::Network};
use async_trait::async_trait;

use crate::{
    follow::{Follow, View},
    hooks::{Allocate, Reservation},
    registry::Registry,
};
use claim::{Claimed, Owner, claim, give_back};
pub use numbers::{NotARange, PortRange};
use ranges::ServiceCidrs;
pub(crate) use ranges::{DEFAULT as DEFAULT_CIDR, kind as service_cidrs};
use service::{Held, Ranges, Taken, fill};

/// Hands out Service addresses and node ports.
pub struct Allocator {
    registry: Arc<Registry>,
    ports: PortRange,
    cidrs: Follow<ServiceCidrs>,
    services: Follow<InUse>,
    pending: Arc<Pending>,
}

impl Allocator {
    /// An allocator for the Services in `registry`.
    pub fn new(registry: Arc<Registry>, ports: PortRange) -> Allocator {
        let (cidrs, services) = (Follow::new(ranges::kind()), Follow::new(services()));
        Allocator { registry, ports, cidrs, services, pending: Arc::default() }
    }

    async fn allocate_for(
        &self,
        service: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
    ) -> Result<Option<Box<dyn Reservation>>, Status> {
        let networks = self.cidrs.ask(&self.registry, |cidrs| cidrs.ready()).await?;
        let ranges = Ranges { networks, ports: self.ports };
        let asked = service.clone();
        let mut lost = HashSet::new();
        loop {
            let mut reserved = self.reserve(service, old, &ranges, &lost).await?;
            if dry_run {
                return Ok(Some(Box::new(reserved)));
            }
            match reserved.claim().await {
                Ok(None) => return Ok(Some(Box::new(reserved))),
                Ok(Some(address)) => {
                    lost.insert(address);
                    *service = asked.clone();
                    Box::new(reserved).revert().await;
                }
                Err(status) => {
                    Box::new(reserved).revert().await;
                    return Err(status);
                }
            }
        }
    }

    /// Chooses and reserves what the Service needs. `lost` are addresses that somebody else was given just now.
    async fn reserve(
        &self,
        service: &mut Object,
        old: Option<&Object>,
        ranges: &Ranges,
        lost: &HashSet<IpAddr>,
    ) -> Result<Reserved, Status> {
        let claimed = Claimed::of(&self.registry).await?;
        loop {
            let ended = self.pending.lock().ended;
            let reserved = self.services.ask(&self.registry, |in_use| {
                // Choosing and reserving are one step, under the view's lock and this one.
                let mut pending = self.pending.lock();
                if pending.ended != ended {
                    // What a write held that has ended just now may be neither in the view nor here.
                    return Ok(None);
                }
                let taken = Either { in_use, pending: &pending, claimed: &claimed, lost };
                let wanted = fill(service, old, ranges, &taken)?;
                pending.add(&wanted);
                Ok(Some(Reserved::new(self, service, old, wanted)))
            });
            let reserved: Result<Option<Reserved>, Status> = reserved.await?;
            if let Some(reserved) = reserved? {
                return Ok(reserved);
            }
        }
    }
}

#[async_trait]
impl Allocate for Allocator {
    async fn allocate(
        &self,
        kind: &'static Kind,
        object: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
    ) -> Result<Option<Box<dyn Reservation>>, Status> {
        if !std::ptr::eq(kind, services()) {
            return Ok(None);
        }
        // On the heap, so that the writes of all other kinds do not make room for it.
        Box::pin(self.allocate_for(object, old, dry_run)).await
    }

    async fn release(&self, kind: &'static Kind, object: &Object) {
        if std::ptr::eq(kind, services()) {
            give_back(&self.registry, &Held::by(object).addresses, &Owner::of(object)).await;
        }
    }
}

/// Claims what a Service has that was stored without asking an allocator.
pub(crate) async fn claim_of(registry: &Registry, service: &Object) -> Result<(), Status> {
    for address in Held::by(service).addresses {
        claim(registry, address, &Owner::of(service)).await?;
    }
    Ok(())
}

fn services() -> &'static Kind {
    kinds::built_in("", "services")
}

/// What Services hold, with the number of Services that hold it: old data may have one twice.
#[derive(Default)]
struct InUse {
    addresses: HashMap<IpAddr, usize>,
    ports: HashMap<u16, usize>,
}

impl View for InUse {
    fn add(&mut self, service: &Arc<Object>) {
        let held = Held::by(service);
        held.addresses.iter().for_each(|address| *self.addresses.entry(*address).or_default() += 1);
        held.ports.iter().for_each(|port| *self.ports.entry(*port).or_default() += 1);
    }

    fn remove(&mut self, service: &Object) {
        let held = Held::by(service);
        held.addresses.iter().for_each(|address| take_one(&mut self.addresses, address));
        held.ports.iter().for_each(|port| take_one(&mut self.ports, port));
    }
}

fn take_one<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// What is reserved for writes that are under way.
#[derive(Default)]
struct Pending(Mutex<Holdings>);

#[derive(Default)]
struct Holdings {
    addresses: HashSet<IpAddr>,
    ports: HashSet<u16>,
    /// How many writes have ended.
    ended: u64,
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, Holdings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holdings {
    fn add(&mut self, held: &Held) {
        self.addresses.extend(&held.addresses);
        self.ports.extend(&held.ports);
    }

    fn remove(&mut self, held: &Held) {
        self.ended += 1;
        self.addresses.retain(|address| !held.addresses.contains(address));
        self.ports.retain(|port| !held.ports.contains(port));
    }
}

/// Taken is what a Service holds, what is reserved, and what has an IPAddress, whoever made it.
struct Either<'a> {
    in_use: &'a InUse,
    pending: &'a Holdings,
    claimed: &'a Claimed,
    lost: &'a HashSet<IpAddr>,
}

impl Taken for Either<'_> {
    fn has_address(&self, address: IpAddr) -> bool {
        self.in_use.addresses.contains_key(&address)
            || self.pending.addresses.contains(&address)
            || self.lost.contains(&address)
            || self.claimed.has(address)
    }

    fn has_port(&self, port: u16) -> bool {
        self.in_use.ports.contains_key(&port) || self.pending.ports.contains(&port)
    }

    fn choose_address(&self, network: &Network) -> Option<IpAddr> {
        numbers::free_address(network, |address| !self.has_address(address), |count| fastrand::u64(..count))
    }

    fn choose_port(&self, range: &PortRange, also_taken: &[u16]) -> Option<u16> {
        let is_free = |port| !self.has_port(port) && !also_taken.contains(&port);
        range.free(is_free, |count| fastrand::u64(..count))
    }
}

/// Holds what is new to a Service until its write has ended, one way or the other.
struct Reserved {
    registry: Arc<Registry>,
    owner: Owner,
    wanted: Held,
    /// Whose IPAddresses have been made.
    claimed: Vec<IpAddr>,
    /// What the Service has no more once it is stored.
    freed: Vec<IpAddr>,
    pending: Arc<Pending>,
}

impl Reserved {
    fn new(allocator: &Allocator, service: &Object, old: Option<&Object>, wanted: Held) -> Reserved {
        let held = Held::by(service);
        let before = old.map(Held::by).unwrap_or_default();
        let freed = before.addresses.into_iter().filter(|address| !held.addresses.contains(address));
        Reserved {
            registry: allocator.registry.clone(),
            owner: Owner::of(service),
            wanted,
            claimed: Vec::new(),
            freed: freed.collect(),
            pending: allocator.pending.clone(),
        }
    }

    /// Makes the IPAddresses; returns the one that somebody else has made meanwhile.
    async fn claim(&mut self) -> Result<Option<IpAddr>, Status> {
        for address in &self.wanted.addresses {
            if !claim(&self.registry, *address, &self.owner).await? {
                return Ok(Some(*address));
            }
            self.claimed.push(*address);
        }
        Ok(None)
    }
}

#[async_trait]
impl Reservation for Reserved {
    async fn commit(self: Box<Self>) {
        give_back(&self.registry, &self.freed, &self.owner).await;
    }

    async fn revert(self: Box<Self>) {
        give_back(&self.registry, &self.claimed, &self.owner).await;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.pending.lock().remove(&self.wanted);
    }
}

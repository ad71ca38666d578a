//! Addresses and node ports of Services: each belongs to one Service at a time.
//!
//! The Services themselves are the record of what is taken: a [`Follow`] over them, plus what is reserved for
//! writes that are under way. There is nothing to persist beside them and nothing to repair after a crash. A
//! reservation ends when its Service is stored, which the view has seen before the next question is answered.

mod range;
mod service;

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::{Kind, Object, Status, kinds};
use async_trait::async_trait;

use crate::{
    follow::{Follow, View},
    hooks::{Allocate, Reservation},
    registry::Registry,
};
pub use range::{AddressRange, NotARange, PortRange};
use service::{Held, Taken, fill};

/// What there is to hand out.
#[derive(Clone, Copy, Debug)]
pub struct Ranges {
    /// Service addresses.
    pub addresses: AddressRange,
    /// Node ports.
    pub ports: PortRange,
}

/// Hands out Service addresses and node ports.
pub struct Allocator {
    registry: Arc<Registry>,
    ranges: Ranges,
    services: Follow<InUse>,
    pending: Arc<Pending>,
}

impl Allocator {
    /// An allocator for the Services in `registry`.
    pub fn new(registry: Arc<Registry>, ranges: Ranges) -> Allocator {
        let services = kinds::find("", "v1", "services").expect("Services are built in");
        Allocator { registry, ranges, services: Follow::new(services), pending: Arc::default() }
    }
}

#[async_trait]
impl Allocate for Allocator {
    async fn allocate(
        &self,
        kind: &'static Kind,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<Option<Box<dyn Reservation>>, Status> {
        if kind.kind != "Service" || !kind.group.is_empty() {
            return Ok(None);
        }
        loop {
            let ended = self.pending.lock().ended;
            let reserved = self.services.ask(&self.registry, |in_use| {
                // Choosing and reserving are one step, under the view's lock and this one.
                let mut pending = self.pending.lock();
                if pending.ended != ended {
                    // What a write held that has ended just now may be neither in the view nor here.
                    return Ok(None);
                }
                let taken = Either { in_use, pending: &pending };
                let wanted = fill(object, old, &self.ranges, &taken)?;
                pending.add(&wanted);
                Ok(Some(Reserved { wanted, pending: self.pending.clone() }))
            });
            let reserved: Result<Option<Reserved>, Status> = reserved.await?;
            if let Some(reserved) = reserved? {
                return Ok(Some(Box::new(reserved)));
            }
        }
    }

    /// Nothing to do: what a Service held is free when the Service is gone from the cache.
    fn release(&self, _kind: &'static Kind, _object: &Object) {}
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

/// Taken is what a Service holds and what is reserved.
struct Either<'a> {
    in_use: &'a InUse,
    pending: &'a Holdings,
}

impl Taken for Either<'_> {
    fn has_address(&self, address: IpAddr) -> bool {
        self.in_use.addresses.contains_key(&address) || self.pending.addresses.contains(&address)
    }

    fn has_port(&self, port: u16) -> bool {
        self.in_use.ports.contains_key(&port) || self.pending.ports.contains(&port)
    }

    fn choose_address(&self, range: &AddressRange) -> Option<Ipv4Addr> {
        range.free(|address| !self.has_address(address.into()), |count| fastrand::u64(..count))
    }

    fn choose_port(&self, range: &PortRange, also_taken: &[u16]) -> Option<u16> {
        let is_free = |port| !self.has_port(port) && !also_taken.contains(&port);
        range.free(is_free, |count| fastrand::u64(..count))
    }
}

/// Holds what is new to a Service until its write has ended, one way or the other.
struct Reserved {
    wanted: Held,
    pending: Arc<Pending>,
}

impl Reservation for Reserved {
    fn commit(self: Box<Self>) {
        // The stored Service holds it now; dropping the reservation is all there is to do.
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.pending.lock().remove(&self.wanted);
    }
}

//! What Services and IPAddresses say about each address, and which addresses have changed.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use api::{
    Object,
    network::{MANAGED_BY, MANAGER},
};

use super::plan::{Claim, Holder};
use crate::{
    alloc::{
        claim::{FAMILY, Owner, Parent, family},
        service::Held,
    },
    follow::View,
};

/// Addresses that are to be looked at.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Whether changes have been told before: else everything is to be looked at, also what is not here any more.
    is_begun: bool,
    addresses: BTreeSet<IpAddr>,
}

impl Changed {
    /// What has changed since this was last asked; `None`: anything may have.
    pub(super) fn take(&mut self) -> Option<BTreeSet<IpAddr>> {
        let taken = std::mem::take(&mut self.addresses);
        std::mem::replace(&mut self.is_begun, true).then_some(taken)
    }
}

/// The Services that have each address.
#[derive(Debug, Default)]
pub(super) struct Holders {
    by_address: HashMap<IpAddr, BTreeSet<Holder>>,
    pub(super) changed: Changed,
}

impl Holders {
    pub(super) fn of(&self, address: IpAddr) -> Vec<Holder> {
        self.by_address.get(&address).map(|holders| holders.iter().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.by_address.keys().copied().collect()
    }
}

impl View for Holders {
    fn add(&mut self, service: &Arc<Object>) {
        let holder = holder(service);
        for address in Held::by(service).addresses {
            self.by_address.entry(address).or_default().insert(holder.clone());
            self.changed.addresses.insert(address);
        }
    }

    fn remove(&mut self, service: &Object) {
        let holder = holder(service);
        for address in Held::by(service).addresses {
            self.changed.addresses.insert(address);
            if let Some(holders) = self.by_address.get_mut(&address) {
                holders.remove(&holder);
                if holders.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
    }
}

fn holder(service: &Object) -> Holder {
    Holder { owner: Owner::of(service), uid: service.uid().into() }
}

/// The IPAddress of each address.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_address: HashMap<IpAddr, Claim>,
    pub(super) changed: Changed,
}

impl Claims {
    pub(super) fn of(&self, address: IpAddr) -> Option<Claim> {
        self.by_address.get(&address).cloned()
    }

    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.by_address.keys().copied().collect()
    }
}

impl View for Claims {
    fn add(&mut self, object: &Arc<Object>) {
        // Another spelling of an address is not the allocator's.
        if let Ok(address) = object.name().parse() {
            self.by_address.insert(address, claim(object, address));
            self.changed.addresses.insert(address);
        }
    }

    fn remove(&mut self, object: &Object) {
        if let Ok(address) = object.name().parse() {
            self.by_address.remove(&address);
            self.changed.addresses.insert(address);
        }
    }
}

fn claim(object: &Object, address: IpAddr) -> Claim {
    let label = |name: &str| object.labels().and_then(|labels| labels.get(name)?.as_str());
    let is_managed = label(MANAGED_BY) == Some(MANAGER);
    Claim {
        uid: object.uid().into(),
        parent: Parent::of(object),
        is_managed,
        is_labelled: is_managed && label(FAMILY) == Some(family(address)),
    }
}

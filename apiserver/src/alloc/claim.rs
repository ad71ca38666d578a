//! IPAddresses: an object for each address of a Service, made before the Service and deleted behind it.

use std::{net::IpAddr, sync::Arc};

use api::{
    Kind, Object, Status, kinds,
    network::{MANAGED_BY, MANAGER},
};
use serde_json::json;

use crate::{
    registry::{Registry, cache::Cache, key},
    request::DeleteOptions,
};

/// The label that says which family an address is of.
pub(super) const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";

/// IPAddresses.
pub(super) fn kind() -> &'static Kind {
    kinds::built_in("networking.k8s.io", "ipaddresses")
}

/// The Service that has an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Owner {
    pub(super) fn of(service: &Object) -> Owner {
        Owner { namespace: service.namespace().into(), name: service.name().into() }
    }
}

/// Whose an IPAddress says it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Parent {
    pub(super) group: String,
    pub(super) resource: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Parent {
    pub(super) fn of(claim: &Object) -> Parent {
        let text = |field: &str| claim.text(&["spec", "parentRef", field]).to_string();
        Parent {
            group: text("group"),
            resource: text("resource"),
            namespace: text("namespace"),
            name: text("name"),
        }
    }

    pub(super) fn is_service(&self) -> bool {
        self.group.is_empty() && self.resource == "services"
    }

    /// Whether it is this Service.
    pub(super) fn is(&self, owner: &Owner) -> bool {
        self.is_service() && (&self.namespace, &self.name) == (&owner.namespace, &owner.name)
    }
}

/// Upstream's name of an address's family.
pub(super) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The IPAddress of a Service.
pub(crate) fn ip_address(address: IpAddr, namespace: &str, name: &str) -> Object {
    let object = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(),
            "labels": {FAMILY: family(address), MANAGED_BY: MANAGER},
        },
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
    });
    Object::from_value(object).unwrap_or_default()
}

/// Makes the IPAddress; false when there is one of this name already.
pub(super) async fn claim(registry: &Registry, address: IpAddr, owner: &Owner) -> Result<bool, Status> {
    match registry.create(kind(), ip_address(address, &owner.namespace, &owner.name)).await {
        Ok(_) => Ok(true),
        Err(status) if status.reason == "AlreadyExists" => Ok(false),
        Err(status) => Err(status),
    }
}

/// Deletes the IPAddresses that are still this Service's. What fails is left to the repair.
pub(super) async fn give_back(registry: &Registry, addresses: &[IpAddr], owner: &Owner) {
    for address in addresses {
        if let Err(status) = give_back_one(registry, *address, owner).await {
            tracing::warn!(%address, %status, "cannot delete the IPAddress of a Service that has no use for it");
        }
    }
}

async fn give_back_one(registry: &Registry, address: IpAddr, owner: &Owner) -> Result<(), Status> {
    let found = registry.find(kind(), "", &address.to_string()).await?;
    if let Some(claim) = found.filter(|claim| Parent::of(claim).is(owner)) {
        delete(registry, address, claim.uid()).await?;
    }
    Ok(())
}

/// Deletes the IPAddress with this uid; false when it is not there any more.
pub(super) async fn delete(registry: &Registry, address: IpAddr, uid: &str) -> Result<bool, Status> {
    let options = DeleteOptions { uid: Some(uid.into()), ..DeleteOptions::default() };
    match registry.delete(kind(), "", &address.to_string(), &options).await {
        Ok(()) => Ok(true),
        Err(status) if matches!(status.code, 404 | 409) => Ok(false),
        Err(status) => Err(status),
    }
}

/// Which addresses have an IPAddress, as far as this server has heard.
pub(super) struct Claimed {
    cache: Arc<Cache>,
    prefix: String,
}

impl Claimed {
    pub(super) async fn of(registry: &Registry) -> Result<Claimed, Status> {
        let cache = registry.cache(kind()).await?;
        cache.reach_own_writes().await?;
        Ok(Claimed { cache, prefix: key::kind_prefix(kind()) })
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.cache.get(&format!("{}{address}", self.prefix)).is_some()
    }
}

//! IPAddresses: an object for each address of a Service, made before the Service and deleted behind it.

use std::{net::IpAddr, sync::Arc};

use api::{Kind, Object, Status, kinds};
use serde_json::json;

use crate::{
    registry::{Registry, cache::Cache, key},
    request::DeleteOptions,
};

/// The label that says which family an address is of.
pub(super) const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// The label that says who sees to an IPAddress.
pub(super) const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// What it says of those of Services.
pub(super) const MANAGER: &str = "ipallocator.k8s.io";

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

    fn has(&self, claim: &Object) -> bool {
        let text = |field: &str| claim.text(&["spec", "parentRef", field]);
        (text("group"), text("resource")) == ("", "services")
            && (text("namespace"), text("name")) == (&self.namespace, &self.name)
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
        match delete(registry, *address, owner).await {
            Err(status) if status.code != 404 && status.code != 409 => {
                tracing::warn!(%address, %status, "cannot delete the IPAddress of a Service that has no use for it");
            }
            _ => {}
        }
    }
}

async fn delete(registry: &Registry, address: IpAddr, owner: &Owner) -> Result<(), Status> {
    let name = address.to_string();
    let claim = registry.get(kind(), "", &name).await?;
    if !owner.has(&claim) {
        return Ok(());
    }
    let options = DeleteOptions { uid: Some(claim.uid().into()), ..DeleteOptions::default() };
    registry.delete(kind(), "", &name, &options).await
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

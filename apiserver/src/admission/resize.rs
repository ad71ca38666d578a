//! PersistentVolumeClaimResize: a claim grows only where its class says that it may.

use api::{Object, Status, quantity::Quantity};

use super::{forbidden, kind};
use crate::{hooks::Attributes, registry::Registry};

const SIZE: &[&str] = &["spec", "resources", "requests", "storage"];

/// Refuses a claim that asks for more than its class can give.
pub(super) async fn check(
    registry: &Registry,
    attributes: &Attributes<'_>,
    claim: &Object,
    old: &Object,
) -> Result<(), Status> {
    if size(claim) <= size(old) {
        return Ok(());
    }
    let refuse = |why: &str| Err(forbidden(attributes, Some(claim), why));
    if old.text(&["status", "phase"]) != "Bound" {
        return refuse("Only bound persistent volume claims can be expanded");
    }
    let class = match claim.text(&["spec", "storageClassName"]) {
        "" => None,
        name => registry.find(kind("storage.k8s.io", "storageclasses"), "", name).await?,
    };
    match class.is_some_and(|class| class.at(&["allowVolumeExpansion"]).is_some_and(|allow| allow == true)) {
        true => Ok(()),
        false => refuse(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ),
    }
}

fn size(claim: &Object) -> Quantity {
    claim.at(SIZE).and_then(|size| Quantity::from_json(size).ok()).unwrap_or_default()
}

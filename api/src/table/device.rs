//! What devices that pods claim print, and certificates of pods.

use super::cells::{condition, text_or};
use super::{AGE, Column};
use crate::Object;

/// Columns of ResourceClaims.
pub const RESOURCE_CLAIM: &[Column] = &[
    Column::text("State", "Whether devices are allocated to it and pods use them.", |claim, _| {
        claim_state(claim).into()
    }),
    AGE,
];

fn claim_state(claim: &Object) -> String {
    let is_deleted = claim.deletion_timestamp().is_some();
    let is_allocated = claim.at(&["status", "allocation"]).is_some_and(|allocation| !allocation.is_null());
    let mut words = Vec::new();
    if is_deleted {
        words.push("deleted");
    }
    match is_allocated {
        true => words.push("allocated"),
        false if !is_deleted => words.push("pending"),
        false => {}
    }
    if is_allocated && !claim.list(&["status", "reservedFor"]).is_empty() {
        words.push("reserved");
    }
    words.join(",")
}

/// Columns of ResourceSlices.
pub const RESOURCE_SLICE: &[Column] = &[
    Column::text("Node", "Where the devices are.", |slice, _| text_or(slice, &["spec", "nodeName"], "")),
    Column::text("Driver", "Who tells of them.", |slice, _| text_or(slice, &["spec", "driver"], "")),
    Column::text("Pool", "The pool that they belong to.", |slice, _| {
        text_or(slice, &["spec", "pool", "name"], "")
    }),
    AGE,
];

/// Columns of DeviceClasses, DeviceTaintRules and ResourceClaimTemplates.
pub const DEVICE_CLASS: &[Column] = &[AGE];

/// Columns of ClusterTrustBundles.
pub const CLUSTER_TRUST_BUNDLE: &[Column] =
    &[Column::text("SignerName", "Whose anchors they are.", |bundle, _| {
        text_or(bundle, &["spec", "signerName"], "<none>")
    })];

/// Columns of PodCertificateRequests.
pub const POD_CERTIFICATE_REQUEST: &[Column] = &[
    Column::text("PodName", "Whose certificate it is.", |request, _| {
        text_or(request, &["spec", "podName"], "")
    }),
    Column::text("ServiceAccountName", "As whom the pod runs.", |request, _| {
        text_or(request, &["spec", "serviceAccountName"], "")
    }),
    Column::text("NodeName", "Where the pod runs.", |request, _| text_or(request, &["spec", "nodeName"], "")),
    Column::text("SignerName", "Who shall sign.", |request, _| text_or(request, &["spec", "signerName"], "")),
    Column::text("State", "What became of the request.", |request, _| {
        let states = ["Denied", "Failed", "Issued"];
        states.into_iter().find(|state| condition(request, state).is_some()).unwrap_or("Pending").into()
    }),
];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_claim_is_pending_allocated_or_reserved() {
        let state = |value: Value| claim_state(&Object::from_value(value).unwrap());
        assert_eq!(state(json!({})), "pending");
        assert_eq!(state(json!({"status": {"allocation": {}}})), "allocated");
        let reserved = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"allocation": {}, "reservedFor": [{"uid": "1"}]}});
        assert_eq!(state(reserved), "deleted,allocated,reserved");
    }
}

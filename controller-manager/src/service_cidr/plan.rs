//! Decides what a ServiceCIDR needs: its finalizer, its condition, or to be let go.

use std::{net::IpAddr, sync::Arc, time::Duration};

use api::network::{MANAGED_BY, MANAGER, Network};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};

/// Keeps a ServiceCIDR as long as addresses of Services lie in it.
pub const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// How long after the deletion a ServiceCIDR stays at least: all API servers have heard of it by then and give no
/// more addresses out of it.
const GRACE: SignedDuration = SignedDuration::from_secs(10);

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put the finalizer on.
    AddFinalizer,
    /// Say that Services get addresses of it.
    SetReady,
    /// Say why it is not gone yet.
    SetTerminating,
    /// Let it go.
    RemoveFinalizer,
    /// Look again after so long.
    ComeBack(Duration),
}

/// What is to be done about `cidr`, one of `all`. The addresses are only looked at where it is being deleted.
pub fn plan(
    cidr: &ServiceCIDR,
    all: &[Arc<ServiceCIDR>],
    addresses: impl FnOnce() -> Vec<Arc<IPAddress>>,
    now: Timestamp,
) -> Vec<Action> {
    let has_finalizer = cidr.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    let Some(deleted) = &cidr.metadata.deletion_timestamp else {
        let finalizer = (!has_finalizer).then_some(Action::AddFinalizer);
        let ready = (ready(cidr) != Some(("True", ""))).then_some(Action::SetReady);
        return finalizer.into_iter().chain(ready).collect();
    };
    if !has_finalizer {
        return Vec::new();
    }
    if would_orphan(cidr, all, addresses) {
        let is_told = ready(cidr) == Some(("False", "Terminating"));
        return if is_told { Vec::new() } else { vec![Action::SetTerminating] };
    }
    let left = GRACE - now.duration_since(deleted.0);
    match Duration::try_from(left) {
        Ok(left) if !left.is_zero() => vec![Action::ComeBack(left)],
        _ => vec![Action::RemoveFinalizer],
    }
}

/// Whether an address of a Service would lie in no ServiceCIDR any more.
fn would_orphan(
    cidr: &ServiceCIDR,
    all: &[Arc<ServiceCIDR>],
    addresses: impl FnOnce() -> Vec<Arc<IPAddress>>,
) -> bool {
    let (own, name) = (networks(cidr), &cidr.metadata.name);
    // Those that are going themselves give no hold.
    let stays = |other: &&Arc<ServiceCIDR>| {
        other.metadata.name != *name && other.metadata.deletion_timestamp.is_none()
    };
    let others: Vec<Network> = all.iter().filter(stays).flat_map(|other| networks(other)).collect();
    if own.iter().all(|network| others.iter().any(|other| other.contains(network))) {
        return false;
    }
    let has = |networks: &[Network], address| networks.iter().any(|network| network.has_host(address));
    let is_orphan = |address: IpAddr| has(&own, address) && !has(&others, address);
    addresses().iter().filter_map(|address| allocated(address)).any(is_orphan)
}

/// What lies in a ServiceCIDR.
pub fn networks(cidr: &ServiceCIDR) -> Vec<Network> {
    let ranges = cidr.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    ranges.filter_map(|range| range.parse().ok()).collect()
}

/// The address that an IPAddress stands for, if Services get it.
pub fn allocated(address: &IPAddress) -> Option<IpAddr> {
    let labels = address.metadata.labels.as_ref()?;
    labels.get(MANAGED_BY).filter(|manager| *manager == MANAGER)?;
    address.metadata.name.as_ref()?.parse().ok()
}

/// Status of the condition `Ready` and, where that is not `True`, its reason.
fn ready(cidr: &ServiceCIDR) -> Option<(&str, &str)> {
    let mut conditions = cidr.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.find(|condition| condition.type_ == "Ready")?;
    Some((&ready.status, if ready.status == "True" { "" } else { &ready.reason }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DELETED: &str = "2026-01-01T00:00:00Z";

    fn cidr(name: &str, range: &str) -> ServiceCIDR {
        let condition = json!({
            "type": "Ready", "status": "True", "reason": "", "message": "", "lastTransitionTime": DELETED,
        });
        serde_json::from_value(json!({
            "metadata": {"name": name, "finalizers": [FINALIZER]},
            "spec": {"cidrs": [range]},
            "status": {"conditions": [condition]},
        }))
        .unwrap()
    }

    fn going(cidr: ServiceCIDR) -> ServiceCIDR {
        let mut going = cidr;
        going.metadata.deletion_timestamp = serde_json::from_value(json!(DELETED)).unwrap();
        going
    }

    fn address(name: &str, manager: &str) -> Arc<IPAddress> {
        let metadata = json!({"name": name, "labels": {MANAGED_BY: manager}});
        Arc::new(serde_json::from_value(json!({"metadata": metadata})).unwrap())
    }

    /// What is done `seconds` after the deletion.
    fn after(
        seconds: i64,
        cidr: &ServiceCIDR,
        others: &[ServiceCIDR],
        address: &Arc<IPAddress>,
    ) -> Vec<Action> {
        let all: Vec<Arc<ServiceCIDR>> =
            others.iter().chain([cidr]).map(|cidr| Arc::new(cidr.clone())).collect();
        let now = DELETED.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds);
        plan(cidr, &all, || vec![address.clone()], now)
    }

    #[test]
    fn a_new_range_gets_its_finalizer_and_is_ready() {
        let mut new = cidr("a", "10.0.0.0/24");
        let stranger = address("10.0.0.9", MANAGER);
        assert_eq!(after(0, &new, &[], &stranger), []);
        new.status = None;
        new.metadata.finalizers = None;
        assert_eq!(after(0, &new, &[], &stranger), [Action::AddFinalizer, Action::SetReady]);
    }

    #[test]
    fn a_range_stays_as_long_as_an_address_would_be_in_none() {
        let going_range = going(cidr("a", "10.0.0.0/24"));
        let inside = address("10.0.0.9", MANAGER);
        assert_eq!(after(100, &going_range, &[], &inside), [Action::SetTerminating]);
        let mut told = going_range.clone();
        let condition = &mut told.status.as_mut().unwrap().conditions.as_mut().unwrap()[0];
        (condition.status, condition.reason) = ("False".into(), "Terminating".into());
        assert_eq!(after(100, &told, &[], &inside), []);

        let other = |range: &str| after(100, &told, &[cidr("b", range)], &inside);
        let released = [Action::RemoveFinalizer];
        assert_eq!(other("10.0.0.0/16"), released, "a wider one has it");
        assert_eq!(other("10.0.0.0/24"), released, "the same range again has it");
        assert_eq!(other("10.0.0.8/29"), released, "a narrower one has the address");
        assert_eq!(other("10.0.0.9/32"), [], "nobody has a network's own address");
        assert_eq!(other("10.0.1.0/24"), []);
        let both_go = after(100, &told, &[going(cidr("b", "10.0.0.0/16"))], &inside);
        assert_eq!(both_go, [], "what is going itself gives no hold");
        for elsewhere in [address("10.0.1.9", MANAGER), address("10.0.0.9", "somebody")] {
            assert_eq!(after(100, &told, &[], &elsewhere), released);
        }
    }

    #[test]
    fn a_range_is_let_go_when_all_servers_have_heard_of_it() {
        let range = going(cidr("a", "10.0.0.0/24"));
        let elsewhere = address("10.0.1.9", MANAGER);
        assert_eq!(after(3, &range, &[], &elsewhere), [Action::ComeBack(Duration::from_secs(7))]);
        assert_eq!(after(10, &range, &[], &elsewhere), [Action::RemoveFinalizer]);
        let mut gone = range;
        gone.metadata.finalizers = Some(vec!["somebody.example/else".into()]);
        assert_eq!(after(10, &gone, &[], &elsewhere), []);
    }
}

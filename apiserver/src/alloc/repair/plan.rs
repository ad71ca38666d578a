//! What is wrong with one address, and what mends it. Pure; reasons and notes are upstream's.

use std::net::IpAddr;

use crate::{
    alloc::claim::{Owner, Parent, family},
    events::{Regarding, Warning},
};

const CONTROLLER: &str = "ipallocator-repair-controller";

/// A Service that says it has the address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Holder {
    pub(super) owner: Owner,
    pub(super) uid: String,
}

/// The IPAddress of the address.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Claim {
    pub(super) uid: String,
    pub(super) parent: Parent,
    /// Whether its labels say that this server sees to it.
    pub(super) is_managed: bool,
    /// Whether they name the right family as well.
    pub(super) is_labelled: bool,
}

/// All there is to know about an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case<'a> {
    pub(super) address: IpAddr,
    pub(super) holders: &'a [Holder],
    pub(super) claim: Option<&'a Claim>,
    /// Whether a ServiceCIDR has it.
    pub(super) is_in_range: bool,
    /// What is known of the Service that an IPAddress names which does not say that it has the address.
    pub(super) stray: Stray,
}

/// What is known of an IPAddress that no Service answers for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stray {
    /// A write may be under way.
    Fresh,
    /// It has been so for longer than any write takes, and the Service is there, without the address, or is not.
    Ripe { parent_is_there: bool },
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Only say it.
    Tell(Warning),
    /// Make the IPAddress of this Service, in place of the one with this uid, and say so.
    Claim { owner: Owner, instead_of: Option<String>, told: Option<Warning> },
    /// Delete the IPAddress with this uid and say so.
    Delete { uid: String, told: Warning },
    /// Look again when a write that is under way must have ended.
    Wait,
}

/// What is to be done.
pub(super) fn plan(case: &Case) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut has_owner = case.owner().is_some();
    for holder in case.holders {
        if !case.is_in_range {
            steps.push(Step::Tell(case.out_of_range(holder)));
        } else if case.owner() == Some(holder) {
            steps.extend(case.relabelled(holder));
        } else if has_owner {
            steps.push(Step::Tell(case.taken_twice(holder)));
        } else {
            has_owner = true;
            steps.push(case.claimed(holder));
        }
    }
    if case.holders.is_empty() {
        steps.extend(case.stray());
    }
    steps
}

impl Case<'_> {
    /// The Service that the IPAddress names, if it says the same.
    fn owner(&self) -> Option<&Holder> {
        let parent = &self.claim?.parent;
        self.holders.iter().find(|holder| parent.is(&holder.owner))
    }

    fn claimed(&self, holder: &Holder) -> Step {
        let (family, address) = (family(self.address), self.address);
        let Owner { namespace, name } = &holder.owner;
        let note = match self.claim {
            None => format!("Cluster IP [{family}]: {address} is not allocated; repairing"),
            Some(_) => format!(
                "the ClusterIP [{family}]: {address} for Service {namespace}/{name} has a wrong reference; repairing"
            ),
        };
        Step::Claim {
            owner: holder.owner.clone(),
            instead_of: self.claim.map(|claim| claim.uid.clone()),
            told: Some(of_service(holder, "ClusterIPNotAllocated", note)),
        }
    }

    /// Labels tell the allocator's own from others.
    fn relabelled(&self, holder: &Holder) -> Option<Step> {
        let wrong = self.claim.filter(|claim| !claim.is_labelled)?;
        Some(Step::Claim { owner: holder.owner.clone(), instead_of: Some(wrong.uid.clone()), told: None })
    }

    fn stray(&self) -> Option<Step> {
        let claim = self.claim.filter(|claim| claim.is_managed)?;
        let Parent { group, resource, namespace, name } = &claim.parent;
        let address = self.address;
        let (reason, note) = match self.stray {
            _ if !claim.parent.is_service() => (
                "IPAddressNotAllocated",
                format!(
                    "IPAddress {address} appears to have been modified, not referencing a Service &ParentReference{{Group:{group},Resource:{resource},Namespace:{namespace},Name:{name},}}: cleaning up"
                ),
            ),
            Stray::Fresh => return Some(Step::Wait),
            Stray::Ripe { parent_is_there: false } => (
                "IPAddressNotAllocated",
                format!(
                    "IPAddress: {address} for Service {namespace}/{name} appears to have leaked: cleaning up"
                ),
            ),
            Stray::Ripe { parent_is_there: true } => (
                "IPAddressWrongReference",
                format!(
                    "IPAddress: {address} for Service {namespace}/{name} has a wrong reference; cleaning up"
                ),
            ),
        };
        let regarding = Regarding {
            api_version: "networking.k8s.io/v1",
            kind: "IPAddress",
            namespace: String::new(),
            name: address.to_string(),
            uid: claim.uid.clone(),
        };
        let told = Warning { controller: CONTROLLER, regarding, reason, action: "IPAddressAllocation", note };
        Some(Step::Delete { uid: claim.uid.clone(), told })
    }

    fn out_of_range(&self, holder: &Holder) -> Warning {
        let note = format!(
            "Cluster IP [{}]: {} is not within any configured Service CIDR; please recreate service",
            family(self.address),
            self.address
        );
        of_service(holder, "ClusterIPOutOfRange", note)
    }

    fn taken_twice(&self, holder: &Holder) -> Warning {
        let note = format!(
            "Cluster IP [{}]:{} was assigned to multiple services; please recreate service",
            family(self.address),
            self.address
        );
        of_service(holder, "ClusterIPAlreadyAllocated", note)
    }
}

fn of_service(holder: &Holder, reason: &'static str, note: String) -> Warning {
    let regarding = Regarding {
        api_version: "v1",
        kind: "Service",
        namespace: holder.owner.namespace.clone(),
        name: holder.owner.name.clone(),
        uid: holder.uid.clone(),
    };
    Warning { controller: CONTROLLER, regarding, reason, action: "ClusterIPAllocation", note }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events;

    fn holder(name: &str) -> Holder {
        Holder { owner: Owner { namespace: "a".into(), name: name.into() }, uid: format!("{name}-uid") }
    }

    fn claim(resource: &str, name: &str) -> Claim {
        let parent = Parent {
            resource: resource.into(),
            namespace: "a".into(),
            name: name.into(),
            ..Parent::default()
        };
        Claim { uid: "claim-uid".into(), parent, is_managed: true, is_labelled: true }
    }

    fn steps(holders: &[Holder], claim: Option<&Claim>, stray: Stray) -> Vec<Step> {
        let address = "10.0.0.1".parse().unwrap();
        plan(&Case { address, holders, claim, is_in_range: true, stray })
    }

    /// What is said, which must be fit to be written.
    fn told(step: &Step) -> (&'static str, &'static str, String) {
        let (what, warning) = match step {
            Step::Tell(warning) => ("tell", warning),
            Step::Claim { told: Some(warning), .. } => ("claim", warning),
            Step::Delete { told, .. } => ("delete", told),
            other => panic!("nothing is said: {other:?}"),
        };
        assert_eq!(events::faults(warning.clone()), Vec::<String>::new());
        (what, warning.reason, warning.note.clone())
    }

    #[test]
    fn an_address_whose_service_and_object_agree_is_left_alone() {
        assert_eq!(steps(&[holder("web")], Some(&claim("services", "web")), Stray::Fresh), []);
        assert_eq!(steps(&[], None, Stray::Fresh), []);
        // Somebody else's, who has labelled it as theirs.
        let other = Claim { is_managed: false, is_labelled: false, ..claim("gateways", "x") };
        assert_eq!(steps(&[], Some(&other), Stray::Ripe { parent_is_there: false }), []);
    }

    #[test]
    fn a_missing_object_is_made() {
        let found = steps(&[holder("web")], None, Stray::Fresh);
        let note = "Cluster IP [IPv4]: 10.0.0.1 is not allocated; repairing".to_string();
        assert_eq!(told(&found[0]), ("claim", "ClusterIPNotAllocated", note));
        assert!(matches!(&found[..], [Step::Claim { owner, instead_of: None, .. }] if owner.name == "web"));
    }

    #[test]
    fn an_object_that_names_another_is_made_anew() {
        let note = "the ClusterIP [IPv4]: 10.0.0.1 for Service a/web has a wrong reference; repairing";
        for wrong in [claim("gateways", "web"), claim("services", "gone")] {
            let found = steps(&[holder("web")], Some(&wrong), Stray::Fresh);
            assert_eq!(told(&found[0]), ("claim", "ClusterIPNotAllocated", note.into()));
            assert!(matches!(&found[..], [Step::Claim { instead_of: Some(uid), .. }] if uid == "claim-uid"));
        }
        let unlabelled = Claim { is_labelled: false, ..claim("services", "web") };
        let found = steps(&[holder("web")], Some(&unlabelled), Stray::Fresh);
        assert!(matches!(&found[..], [Step::Claim { told: None, instead_of: Some(_), .. }]), "{found:?}");
    }

    #[test]
    fn only_one_of_two_services_has_an_address() {
        let note = "Cluster IP [IPv4]:10.0.0.1 was assigned to multiple services; please recreate service";
        let both = [holder("a"), holder("b")];
        let found = steps(&both, Some(&claim("services", "a")), Stray::Fresh);
        assert_eq!(found.len(), 1);
        assert_eq!(told(&found[0]), ("tell", "ClusterIPAlreadyAllocated", note.into()));
        assert!(matches!(&found[0], Step::Tell(warning) if warning.regarding.name == "b"));
        let found = steps(&both, None, Stray::Fresh);
        assert_eq!((told(&found[0]).0, told(&found[1]).1), ("claim", "ClusterIPAlreadyAllocated"));
    }

    #[test]
    fn an_object_without_a_service_goes_once_no_write_can_be_under_way() {
        let leaked = claim("services", "web");
        assert_eq!(steps(&[], Some(&leaked), Stray::Fresh), [Step::Wait]);
        let found = steps(&[], Some(&leaked), Stray::Ripe { parent_is_there: false });
        let note = "IPAddress: 10.0.0.1 for Service a/web appears to have leaked: cleaning up".to_string();
        assert_eq!(told(&found[0]), ("delete", "IPAddressNotAllocated", note));
        let found = steps(&[], Some(&leaked), Stray::Ripe { parent_is_there: true });
        let note = "IPAddress: 10.0.0.1 for Service a/web has a wrong reference; cleaning up".to_string();
        assert_eq!(told(&found[0]), ("delete", "IPAddressWrongReference", note));
        let found = steps(&[], Some(&claim("gateways", "web")), Stray::Fresh);
        let note = "IPAddress 10.0.0.1 appears to have been modified, not referencing a Service &ParentReference{Group:,Resource:gateways,Namespace:a,Name:web,}: cleaning up".to_string();
        assert_eq!(told(&found[0]), ("delete", "IPAddressNotAllocated", note));
    }

    #[test]
    fn an_address_out_of_range_is_only_spoken_of() {
        let address = "fd00::1".parse().unwrap();
        let holders = [holder("web")];
        let case = Case { address, holders: &holders, claim: None, is_in_range: false, stray: Stray::Fresh };
        let found = plan(&case);
        let note =
            "Cluster IP [IPv6]: fd00::1 is not within any configured Service CIDR; please recreate service";
        assert_eq!(told(&found[0]), ("tell", "ClusterIPOutOfRange", note.into()));
        assert_eq!(found.len(), 1);
        // Whatever its object says: there is nothing to wait for while a Service has the address.
        let other = claim("services", "other");
        assert_eq!(plan(&Case { claim: Some(&other), ..case }), found);
    }
}

//! The ServiceCIDRs: which addresses Services may have.

use std::{collections::BTreeMap, sync::Arc};

use api::{Kind, Object, kinds, network::Network};
use serde_json::Value;

use crate::follow::View;

/// The name of the range that the command line gives.
pub(crate) const DEFAULT: &str = "kubernetes";

/// ServiceCIDRs.
pub(crate) fn kind() -> &'static Kind {
    kinds::built_in("networking.k8s.io", "servicecidrs")
}

/// All of them.
#[derive(Default)]
pub(super) struct ServiceCidrs(BTreeMap<Place, Row>);

/// In the order in which ranges are used up: the cluster's own, then the oldest.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    is_added: bool,
    created: String,
    name: String,
}

struct Row {
    networks: Vec<Network>,
    is_ready: bool,
}

impl ServiceCidrs {
    /// What addresses may be taken from.
    pub(super) fn ready(&self) -> Vec<Network> {
        self.0.values().filter(|row| row.is_ready).flat_map(|row| row.networks.clone()).collect()
    }

    /// What Services may have addresses in that they have got already.
    pub(super) fn all(&self) -> Vec<Network> {
        self.0.values().flat_map(|row| row.networks.clone()).collect()
    }
}

impl View for ServiceCidrs {
    fn add(&mut self, cidr: &Arc<Object>) {
        let texts = cidr.list(&["spec", "cidrs"]).iter().filter_map(Value::as_str);
        let networks = texts.filter_map(|text| text.parse().ok()).collect();
        self.0.insert(Place::of(cidr), Row { networks, is_ready: is_ready(cidr) });
    }

    fn remove(&mut self, cidr: &Object) {
        self.0.remove(&Place::of(cidr));
    }
}

impl Place {
    fn of(cidr: &Object) -> Place {
        let created = cidr.text(&["metadata", "creationTimestamp"]).to_string();
        Place { is_added: cidr.name() != DEFAULT, created, name: cidr.name().to_string() }
    }
}

/// One that nobody has said anything about is ready: the controllers may not run yet.
fn is_ready(cidr: &Object) -> bool {
    let conditions = cidr.list(&["status", "conditions"]);
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
    cidr.deletion_timestamp().is_none() && ready.is_none_or(|ready| ready["status"] == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cidr(name: &str, created: &str, range: &str) -> Object {
        let metadata = json!({"name": name, "creationTimestamp": created});
        Object::from_value(json!({"metadata": metadata, "spec": {"cidrs": [range, "x"]}})).unwrap()
    }

    fn texts(networks: Vec<Network>) -> Vec<String> {
        networks.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_clusters_own_range_is_used_up_first_and_then_the_oldest() {
        let mut cidrs = ServiceCidrs::default();
        for (name, created, range) in [
            ("a", "2026-01-03T00:00:00Z", "10.3.0.0/24"),
            ("kubernetes", "2026-01-02T00:00:00Z", "10.2.0.0/24"),
            ("z", "2026-01-01T00:00:00Z", "10.1.0.0/24"),
        ] {
            cidrs.add(&Arc::new(cidr(name, created, range)));
        }
        assert_eq!(texts(cidrs.ready()), ["10.2.0.0/24", "10.1.0.0/24", "10.3.0.0/24"]);
        cidrs.remove(&cidr("z", "2026-01-01T00:00:00Z", "10.1.0.0/24"));
        assert_eq!(texts(cidrs.ready()), ["10.2.0.0/24", "10.3.0.0/24"]);
    }

    #[test]
    fn what_is_being_deleted_or_not_ready_gives_no_addresses() {
        let ready = |status: &str| {
            let mut cidr = cidr("a", "", "10.0.0.0/24");
            cidr.set(&["status", "conditions"], json!([{"type": "Ready", "status": status}]));
            cidr
        };
        let mut going = ready("True");
        going.set(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
        for (cidr, expected) in [(ready("True"), 1), (ready("False"), 0), (going, 0)] {
            let mut cidrs = ServiceCidrs::default();
            cidrs.add(&Arc::new(cidr));
            assert_eq!((cidrs.ready().len(), cidrs.all().len()), (expected, 1));
        }
    }
}

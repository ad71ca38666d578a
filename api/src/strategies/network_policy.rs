//! NetworkPolicies.

use super::check::{Faults, Field};
use super::fill::Fill;
use super::{label_selector, ports, warnings};
use crate::{FieldError, Object, network::Network};

/// Rules of NetworkPolicies.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn warnings(&self, object: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        let spec = Field::at(object, &["spec"]);
        for (list, peers) in [("ingress", "from"), ("egress", "to")] {
            for peer in spec.get(list).items().flat_map(|rule| rule.get(peers).items()) {
                let block = peer.get("ipBlock");
                warnings::of_range(&block.get("cidr"), &mut found);
                block.get("except").items().for_each(|range| warnings::of_range(&range, &mut found));
            }
        }
        found
    }

    fn set_defaults(&self, object: &mut Object) {
        let spec = object.map_mut(&["spec"]);
        for list in ["ingress", "egress"] {
            for port in spec.maps_at(list).flat_map(|rule| rule.maps_at("ports")) {
                port.fill("protocol", "TCP");
            }
        }
        if !spec.has("policyTypes") {
            let has_egress = spec.get("egress").and_then(|it| it.as_array()).is_some_and(|it| !it.is_empty());
            let types: &[&str] = if has_egress { &["Ingress", "Egress"] } else { &["Ingress"] };
            spec.insert("policyTypes".into(), types.into());
        }
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        label_selector::validate(&spec.get("podSelector"), &mut faults);
        for (list, peers) in [("ingress", "from"), ("egress", "to")] {
            for rule in spec.get(list).items() {
                rule.get("ports").items().for_each(|port| validate_port(&port, &mut faults));
                rule.get(peers).items().for_each(|peer| validate_peer(&peer, &mut faults));
            }
        }
        let kinds = spec.get("policyTypes");
        if kinds.len() > 2 {
            faults.invalid(&kinds, "may not specify more than two policyTypes");
            return faults.0;
        }
        for kind in kinds.items() {
            faults.one_of(&kind, &["Egress", "Ingress"]);
        }
        faults.0
    }
}

fn validate_port(port: &Field, faults: &mut Faults) {
    faults.one_of(&port.get("protocol"), ports::PROTOCOLS);
    let (first, last) = (port.get("port"), port.get("endPort"));
    if first.is_set() {
        ports::validate_number_or_name(&first, faults);
    }
    if !last.is_set() {
        return;
    }
    match first.number() {
        Some(number) if last.number().is_some_and(|last| last < number) => {
            faults.invalid(&last, "must be greater than or equal to `port`");
        }
        Some(_) => ports::validate_number(&last, faults),
        None if first.is_set() => faults.invalid(&last, "may not be specified when `port` is non-numeric"),
        None => faults.required(&first, "must be specified when `endPort` is specified"),
    }
}

fn validate_peer(peer: &Field, faults: &mut Faults) {
    let [pods, namespaces, block] =
        ["podSelector", "namespaceSelector", "ipBlock"].map(|name| peer.get(name));
    if !pods.is_set() && !namespaces.is_set() && !block.is_set() {
        faults.required(peer, "must specify a peer");
        return;
    }
    if block.is_set() && (pods.is_set() || namespaces.is_set()) {
        faults.forbidden(peer, "may not specify both ipBlock and another peer");
    }
    label_selector::validate(&pods, faults);
    label_selector::validate(&namespaces, faults);
    if block.is_set() {
        validate_block(&block.get("cidr"), &block.get("except"), faults);
    }
}

/// A network, and smaller ones within it.
fn validate_block(whole: &Field, except: &Field, faults: &mut Faults) {
    if faults.must_be_given(whole) {
        ports::validate_cidr(whole, faults);
    }
    for part in except.items() {
        ports::validate_cidr(&part, faults);
        let [outer, inner] = [whole, &part].map(|range| range.text().parse::<Network>());
        if let (Ok(outer), Ok(inner)) = (outer, inner)
            && (inner == outer || !outer.contains(&inner))
        {
            faults.invalid(&part, format!("must be a strict subset of `cidr` {:?}", whole.text()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Strategy as _;

    #[test]
    fn exceptions_lie_within_the_block_and_are_smaller() {
        let faults = |whole: &str, part: &str| -> Vec<String> {
            let peer = json!({"ipBlock": {"cidr": whole, "except": [part]}});
            let policy = Object::from_value(json!({"spec": {"ingress": [{"from": [peer]}]}})).unwrap();
            Strategy.validate(&policy, None).iter().map(FieldError::to_string).collect()
        };
        assert_eq!(faults("10.0.0.0/8", "10.1.0.0/16"), [""; 0]);
        assert_eq!(faults("::/0", "2001:db8::/64"), [""; 0]);
        let place = "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value";
        for (whole, part) in
            [("10.0.0.0/8", "10.0.0.0/8"), ("10.0.0.0/8", "11.1.0.0/16"), ("::/0", "10.0.0.0/8")]
        {
            let told = format!("{place}: {part:?}: must be a strict subset of `cidr` {whole:?}");
            assert_eq!(faults(whole, part), [told]);
        }
        assert!(faults("10.0.0.0/8", "10.1.0.0/+16")[0].contains("must be a valid CIDR value"));
    }
}

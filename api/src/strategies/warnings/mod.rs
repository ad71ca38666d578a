//! What is allowed and still most likely a mistake, in upstream's words: the `Warning` headers of a write.

mod pod;
mod tls;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

pub use pod::{of_pod, of_template, old_volumes};
pub use tls::key_pair;

use super::{check::Field, resources};
use crate::{Object, name, network::Network, quantity::Quantity};

/// Labels of nodes that have other names now.
const OLD_NODE_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// What to say about a label of nodes that has another name now.
pub fn old_node_label(key: &str) -> Option<&'static str> {
    OLD_NODE_LABELS.iter().find(|(label, _)| *label == key).map(|(_, advice)| *advice)
}

/// Requirements (`key`, `operator`, `values`) that name such labels.
pub fn old_labels_in(requirements: &Field, found: &mut Vec<String>) {
    for requirement in requirements.items() {
        let key = requirement.get("key");
        if let Some(advice) = old_node_label(key.text()) {
            found.push(format!("{}: {} is {advice}", key.path, key.text()));
        }
    }
}

/// Whether a write is one that warnings are for: a new object, or one with a new generation.
pub fn is_news(object: &Object, old: Option<&Object>) -> bool {
    old.is_none_or(|old| old.generation() != object.generation())
}

/// A new object whose name becomes part of its pods' names.
pub fn name_of_pods(object: &Object, old: Option<&Object>) -> Option<String> {
    recommend_label(object, old, "this is used in Pod names and hostnames")
}

/// The name of a new object that should be a label, because of what it is used for.
fn recommend_label(object: &Object, old: Option<&Object>, used_for: &str) -> Option<String> {
    let why = name::dns_label(object.name()).err().filter(|_| old.is_none())?;
    Some(format!(
        "metadata.name: {used_for}, which can result in surprising behavior; a DNS label is recommended: [{why}]"
    ))
}

/// An amount of bytes that is no whole number.
pub fn fractional(amounts: &Field, resource: &str, found: &mut Vec<String>) {
    let amount = amounts.entry(resource);
    let Some(quantity) = resources::quantity(amount.value) else { return };
    if quantity != Quantity::from_value(quantity.value()) {
        found.push(format!(
            "{}: fractional byte value \"{quantity}\" is invalid, must be an integer",
            amount.path
        ));
    }
}

/// The annotation that named a class before there was a field.
pub fn old_class_annotation(object: &Object, found: &mut Vec<String>) {
    let annotation = "volume.beta.kubernetes.io/storage-class";
    if object.annotation(annotation).is_some() {
        found.push(format!(
            "metadata.annotations[{annotation}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        ));
    }
}

/// The spec of a claim, also of one in a template.
pub fn of_claim_spec(spec: &Field, found: &mut Vec<String>) {
    for list in ["requests", "limits"] {
        fractional(&spec.get("resources").get(list), "storage", found);
    }
}

/// An address that is written as nobody should.
pub fn of_address(field: &Field, found: &mut Vec<String>) {
    let Ok(IpAddr::V6(address)) = field.text().parse() else { return };
    if let Some(mapped) = address.to_ipv4_mapped() {
        let (path, text) = (&field.path, field.text());
        found.push(format!("{path}: non-standard IP address \"{text}\" is invalid: use \"{mapped}\""));
    } else if address.to_string() != field.text() {
        found.push(format!(
            "{}: IPv6 address \"{}\" should be in RFC 5952 canonical format (\"{address}\")",
            field.path,
            field.text()
        ));
    }
}

/// A range of addresses that is written as nobody should.
pub fn of_range(field: &Field, found: &mut Vec<String>) {
    let (path, text) = (&field.path, field.text());
    let written = text.split_once('/').and_then(|(address, _)| address.parse::<IpAddr>().ok());
    let (Some(address), Ok(network)) = (written, text.parse::<Network>()) else { return };
    if network.first() != address {
        let whole = if network.is_ipv4() { 32 } else { 128 };
        found.push(format!(
            "{path}: CIDR value \"{text}\" is ambiguous in this context (should be \"{network}\" or \"{address}/{whole}\"?)"
        ));
    } else if !network.is_ipv4() && network.to_string() != text {
        found.push(format!(
            "{path}: IPv6 CIDR value \"{text}\" should be in RFC 5952 canonical format (\"{network}\")"
        ));
    }
}

#[cfg(test)]
mod rules {
    use super::*;
    use serde_json::{Value, json};

    fn said(value: Value, rule: fn(&Field, &mut Vec<String>)) -> Vec<String> {
        let mut found = Vec::new();
        rule(&Field { path: "spec.x".into(), value: &value }, &mut found);
        found
    }

    #[test]
    fn addresses_are_written_in_one_way() {
        assert!(said(json!("10.0.0.1"), of_address).is_empty());
        assert!(said(json!("2001:db8::1"), of_address).is_empty());
        assert_eq!(
            said(json!("2001:DB8:0::1"), of_address),
            [
                "spec.x: IPv6 address \"2001:DB8:0::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")"
            ]
        );
        assert_eq!(
            said(json!("::ffff:1.2.3.4"), of_address),
            ["spec.x: non-standard IP address \"::ffff:1.2.3.4\" is invalid: use \"1.2.3.4\""]
        );
    }

    #[test]
    fn ranges_name_networks() {
        assert!(said(json!("10.0.0.0/8"), of_range).is_empty());
        assert!(said(json!("::/0"), of_range).is_empty());
        assert!(said(json!("0.0.0.0/0"), of_range).is_empty());
        assert_eq!(
            said(json!("10.0.0.1/8"), of_range),
            [
                "spec.x: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)"
            ]
        );
        assert_eq!(
            said(json!("2001:DB8::/64"), of_range),
            [
                "spec.x: IPv6 CIDR value \"2001:DB8::/64\" should be in RFC 5952 canonical format (\"2001:db8::/64\")"
            ]
        );
    }

    #[test]
    fn claims_ask_for_whole_bytes() {
        let spec = json!({"resources": {"requests": {"storage": "100m"}, "limits": {"storage": "1Gi"}}});
        assert_eq!(
            said(spec, of_claim_spec),
            [
                "spec.x.resources.requests[storage]: fractional byte value \"100m\" is invalid, must be an integer"
            ]
        );
    }
}

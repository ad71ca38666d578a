//! Rules of IPAddresses and of the ServiceCIDRs that Services get theirs from.

use serde_json::json;

use super::check::{Faults, Field};
use super::ports;
use crate::{FieldError, Object, name, network};

/// Rules of IPAddresses: each is named by the address it stands for.
pub struct IpAddress;

impl crate::Strategy for IpAddress {
    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let parent = Field::at(object, &["spec", "parentRef"]);
        if parent.is_set() {
            faults.keeps(&parent.get("group"), name::dns_subdomain);
            faults.must_keep(&parent.get("resource"), name::path_segment);
            faults.must_keep(&parent.get("name"), name::path_segment);
            faults.keeps(&parent.get("namespace"), name::path_segment);
        } else {
            faults.required(&parent, "");
        }
        if let Some(old) = old {
            faults.immutable(&parent, &Field::at(old, &["spec", "parentRef"]));
        }
        faults.0
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        network::canonical_address(name)
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// Rules of ServiceCIDRs: what is given stays, a second family may be added.
pub struct ServiceCidr;

impl crate::Strategy for ServiceCidr {
    fn status_is_apart(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let ranges = Field::at(object, &["spec", "cidrs"]);
        let Some(old) = old else {
            validate_ranges(&ranges, &mut faults);
            return faults.0;
        };
        let before = Field::at(old, &["spec", "cidrs"]);
        let adds_family = (before.len(), ranges.len()) == (1, 2);
        if ranges.len() != before.len() && !adds_family {
            faults.invalid(&ranges, "field is immutable");
            return faults.0;
        }
        for (range, before) in ranges.items().zip(before.items()) {
            faults.immutable(&range, &before);
        }
        if adds_family {
            validate_ranges(&ranges, &mut faults);
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

fn validate_ranges(ranges: &Field, faults: &mut Faults) {
    if ranges.is_empty() {
        return faults.required(ranges, "at least one CIDR required");
    }
    if ranges.len() > 2 {
        let spec = json!({"CIDRs": ranges.value});
        let fault = FieldError::invalid(&ranges.path, &spec, "may only hold up to 2 values");
        return faults.0.push(fault);
    }
    ranges.items().for_each(|range| faults.fits(&range, network::canonical_network));
    let families: Vec<_> = ranges.items().map(|range| ports::is_ipv4_network(range.text())).collect();
    if !ports::differ_in_family(&families) {
        let detail =
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        faults.invalid(ranges, detail);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::Strategy;

    fn texts(faults: &[FieldError]) -> Vec<String> {
        faults.iter().map(ToString::to_string).collect()
    }

    fn ranges(ranges: Value) -> Object {
        Object::from_value(json!({"metadata": {"name": "x"}, "spec": {"cidrs": ranges}})).unwrap()
    }

    #[test]
    fn a_service_cidr_has_one_range_of_each_family() {
        let faults = |value: Value| texts(&ServiceCidr.validate(&ranges(value), None));
        assert!(faults(json!(["10.0.0.0/24"])).is_empty());
        assert!(faults(json!(["fd00::/64", "10.0.0.0/24"])).is_empty());
        assert_eq!(faults(json!([])), ["spec.cidrs: Required value: at least one CIDR required"]);
        assert_eq!(
            faults(json!(["10.0.0.0/24", "fd00::/64", "10.1.0.0/24"])),
            [
                r#"spec.cidrs: Invalid value: {"CIDRs":["10.0.0.0/24","fd00::/64","10.1.0.0/24"]}: may only hold up to 2 values"#
            ]
        );
        assert_eq!(
            faults(json!(["10.0.0.0/24", "10.1.0.0/24"])),
            [
                r#"spec.cidrs: Invalid value: ["10.0.0.0/24","10.1.0.0/24"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"#
            ]
        );
        assert_eq!(
            faults(json!(["10.0.0.1/24"])),
            [
                r#"spec.cidrs[0]: Invalid value: "10.0.0.1/24": must not have bits set beyond the prefix length"#
            ]
        );
    }

    #[test]
    fn a_service_cidr_may_only_get_a_second_family() {
        let change = |from: Value, to: Value| texts(&ServiceCidr.validate(&ranges(to), Some(&ranges(from))));
        let (one, other) = (json!(["10.0.0.0/24"]), json!(["10.1.0.0/24"]));
        let both = json!(["10.0.0.0/24", "fd00::/64"]);
        assert!(change(one.clone(), one.clone()).is_empty() && change(one.clone(), both.clone()).is_empty());
        // What was stored before the rule stays.
        assert!(change(json!(["10.0.0.1/24"]), json!(["10.0.0.1/24"])).is_empty());
        assert_eq!(
            change(one.clone(), other),
            [r#"spec.cidrs[0]: Invalid value: "10.1.0.0/24": field is immutable"#]
        );
        assert_eq!(
            change(both, one.clone()),
            [r#"spec.cidrs: Invalid value: ["10.0.0.0/24"]: field is immutable"#]
        );
        let twice = change(one, json!(["10.0.0.0/24", "10.0.0.0/25"]));
        assert!(twice[0].contains("no more than one IP for each IP family"), "{twice:?}");
    }

    #[test]
    fn an_ip_address_says_whose_it_is() {
        let address = |parent: Value| {
            Object::from_value(json!({"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": parent}}))
                .unwrap()
        };
        let faults = |parent: Value| texts(&IpAddress.validate(&address(parent), None));
        let whole = json!({"group": "g.example", "resource": "gateways", "namespace": "a", "name": "b"});
        assert!(faults(whole.clone()).is_empty());
        assert_eq!(faults(Value::Null), ["spec.parentRef: Required value"]);
        assert_eq!(faults(json!({"group": "-", "resource": "a/b", "namespace": "..", "name": ""})).len(), 4);
        let moved = json!({"resource": "services", "namespace": "a", "name": "c"});
        let change = texts(&IpAddress.validate(&address(moved), Some(&address(whole))));
        assert!(change[0].ends_with("field is immutable"), "{change:?}");
        assert!(IpAddress.validate_name("10.0.0.01").is_err());
    }
}

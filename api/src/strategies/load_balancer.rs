//! Where a load balancer can be reached, as the status of Services and Ingresses tells.

use super::{
    check::{Faults, Field},
    ports,
};
use crate::name;

/// Of a Service, which has one only when its type says so.
pub(super) fn validate_of_service(ingress: &Field, is_balanced: bool, faults: &mut Faults) {
    if !is_balanced && !ingress.is_empty() {
        return faults.forbidden(ingress, "may only be used when `spec.type` is \"LoadBalancer\"");
    }
    for point in ingress.items() {
        validate_point(&point, faults);
        let (has_address, mode) = (!point.get("ip").text().is_empty(), point.get("ipMode"));
        match (has_address, mode.is_set()) {
            (true, false) => faults.required(&mode, "must be specified when `ip` is set"),
            (false, true) => faults.forbidden(&mode, "may not be specified when `ip` is not set"),
            (true, true) => faults.one_of(&mode, &["Proxy", "VIP"]),
            (false, false) => {}
        }
    }
}

/// Of an Ingress.
pub(super) fn validate(ingress: &Field, faults: &mut Faults) {
    ingress.items().for_each(|point| validate_point(&point, faults));
}

fn validate_point(point: &Field, faults: &mut Faults) {
    let (address, host) = (point.get("ip"), point.get("hostname"));
    if !address.text().is_empty() {
        ports::validate_address(&address, faults);
    }
    faults.keeps(&host, name::dns_subdomain);
    if host.text().parse::<std::net::IpAddr>().is_ok() {
        faults.invalid(&host, "must be a DNS name, not an IP address");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{FieldError, Object};

    fn told(points: Value, validate: impl Fn(&Field, &mut Faults)) -> Vec<String> {
        let object = Object::from_value(json!({"status": {"loadBalancer": {"ingress": points}}})).unwrap();
        let mut faults = Faults::new();
        validate(&Field::at(&object, &["status", "loadBalancer", "ingress"]), &mut faults);
        faults.0.iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn only_a_balanced_service_has_points_of_entry() {
        let points = json!([{"ip": "203.0.113.1", "ipMode": "VIP"}, {"hostname": "lb.example.com"}]);
        let of = |is_balanced: bool| {
            told(points.clone(), |ingress, faults| validate_of_service(ingress, is_balanced, faults))
        };
        assert_eq!(of(true), [""; 0]);
        assert_eq!(
            of(false),
            ["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is \"LoadBalancer\""]
        );
        let wrong = json!([{"ip": "203.0.113.1"}, {"ipMode": "VIP"}, {"ip": "203.0.113.1", "ipMode": "x"}]);
        assert_eq!(
            told(wrong, |ingress, faults| validate_of_service(ingress, true, faults)),
            [
                "status.loadBalancer.ingress[0].ipMode: Required value: must be specified when `ip` is set",
                "status.loadBalancer.ingress[1].ipMode: Forbidden: may not be specified when `ip` is not set",
                "status.loadBalancer.ingress[2].ipMode: Unsupported value: \"x\": supported values: \"Proxy\", \"VIP\"",
            ]
        );
    }

    #[test]
    fn a_point_of_entry_is_an_address_or_a_name() {
        let told = told(json!([{"ip": "x"}, {"hostname": "10.0.0.1"}, {"hostname": "a_b"}]), validate);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[1].ends_with("must be a DNS name, not an IP address"), "{told:?}");
    }
}

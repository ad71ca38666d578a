//! Endpoints and EndpointSlices.

use super::check::{Faults, Field};
use super::fill::Fill;
use super::{ports, warnings};
use crate::{FieldError, Object, name};

const MOST_ENDPOINTS: usize = 1000;
const MOST_ADDRESSES: usize = 100;
const MOST_PORTS: usize = 20_000;

/// Rules of Endpoints.
pub struct Endpoints;

impl crate::Strategy for Endpoints {
    fn set_defaults(&self, object: &mut Object) {
        for subset in object.0.maps_at("subsets") {
            subset.maps_at("ports").for_each(|port| port.fill("protocol", "TCP"));
        }
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        for subset in Field::at(object, &["subsets"]).items() {
            let (ready, others) = (subset.get("addresses"), subset.get("notReadyAddresses"));
            if ready.is_empty() && others.is_empty() {
                faults.required(&subset, "must specify `addresses` or `notReadyAddresses`");
            }
            for address in ready.items().chain(others.items()) {
                ports::validate_address(&address.get("ip"), &mut faults);
                ports::validate_endpoint_address(&address.get("ip"), &mut faults);
                faults.keeps(&address.get("hostname"), name::dns_label);
                faults.fits_when_given(&address.get("nodeName"), name::dns_subdomain);
            }
            let list = subset.get("ports");
            for port in list.items() {
                let name = port.get("name");
                if list.len() > 1 {
                    faults.must_be_given(&name);
                }
                faults.keeps(&name, name::dns_label);
                ports::validate_number_given(&port.get("port"), &mut faults);
                faults.must_be_one_of(&port.get("protocol"), ports::PROTOCOLS);
                faults.fits_when_given(&port.get("appProtocol"), name::qualified_name);
            }
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn warnings(&self, _object: &Object, _old: Option<&Object>) -> Vec<String> {
        vec!["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_string()]
    }
}

/// Rules of EndpointSlices.
pub struct EndpointSlice;

impl crate::Strategy for EndpointSlice {
    fn warnings(&self, object: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        if object.text(&["addressType"]) == "FQDN" {
            found.push("spec.addressType: FQDN endpoints are deprecated".to_string());
        }
        // The controllers write addresses as everybody should.
        let managed_by = object.text(&["metadata", "labels", "endpointslice.kubernetes.io/managed-by"]);
        if !managed_by.ends_with("controller.k8s.io") {
            let endpoints = Field::at(object, &["endpoints"]);
            for address in endpoints.items().flat_map(|endpoint| endpoint.get("addresses").items()) {
                warnings::of_address(&address, &mut found);
            }
        }
        found
    }

    fn set_defaults(&self, object: &mut Object) {
        for port in object.0.maps_at("ports") {
            port.fill("name", "");
            port.fill("protocol", "TCP");
        }
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let kind = Field::at(object, &["addressType"]);
        faults.must_be_one_of(&kind, &["FQDN", "IPv4", "IPv6"]);
        let endpoints = Field::at(object, &["endpoints"]);
        faults.at_most(&endpoints, MOST_ENDPOINTS);
        for endpoint in endpoints.items() {
            validate_endpoint(&endpoint, kind.text(), &mut faults);
        }
        validate_ports(&Field::at(object, &["ports"]), &mut faults);
        if let Some(old) = old {
            faults.immutable(&kind, &Field::at(old, &["addressType"]));
        }
        faults.0
    }
}

fn validate_endpoint(endpoint: &Field, kind: &str, faults: &mut Faults) {
    let addresses = endpoint.get("addresses");
    if addresses.is_empty() {
        faults.required(&addresses, "must contain at least 1 address");
    }
    faults.at_most(&addresses, MOST_ADDRESSES);
    for address in addresses.items() {
        match kind {
            "IPv4" if address.text().parse::<std::net::Ipv4Addr>().is_err() => {
                faults.invalid(&address, "must be an IPv4 address");
            }
            "IPv6" if address.text().parse::<std::net::Ipv6Addr>().is_err() => {
                faults.invalid(&address, "must be an IPv6 address");
            }
            "IPv4" | "IPv6" => ports::validate_endpoint_address(&address, faults),
            "FQDN" => faults.keeps(&address, name::dns_subdomain),
            _ => {}
        }
    }
    faults.fits_when_given(&endpoint.get("hostname"), name::dns_label);
    faults.fits_when_given(&endpoint.get("nodeName"), name::dns_subdomain);
}

fn validate_ports(list: &Field, faults: &mut Faults) {
    faults.at_most(list, MOST_PORTS);
    let mut names = std::collections::HashSet::new();
    for port in list.items() {
        let name = port.get("name");
        faults.keeps(&name, name::dns_label);
        if !names.insert(name.text()) {
            faults.duplicate(&name);
        }
        faults.must_be_one_of(&port.get("protocol"), ports::PROTOCOLS);
        faults.fits_when_given(&port.get("appProtocol"), name::qualified_name);
    }
}

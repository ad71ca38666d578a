//! What port numbers, port names and addresses must look like.

use super::check::{Faults, Field};
use crate::name;

/// Protocols of ports.
pub const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// A port number that is given must be one.
pub fn validate_number(port: &Field, faults: &mut Faults) {
    if let Some(Err(message)) = port.number().map(name::port_number) {
        faults.invalid(port, message);
    }
}

/// A port number or the name of a port.
pub fn validate_number_or_name(port: &Field, faults: &mut Faults) {
    match (port.number(), port.value.as_str()) {
        (Some(_), _) => validate_number(port, faults),
        (None, Some(name)) => {
            if let Err(message) = name::port_name(name) {
                faults.invalid(port, message);
            }
        }
        (None, None) => faults.required(port, ""),
    }
}

/// A text that must be an IP address.
pub fn validate_address(address: &Field, faults: &mut Faults) {
    if let Err(message) = name::ip_address(address.text()) {
        faults.invalid(address, message);
    }
}

/// A text that must be a range of IP addresses, such as `10.0.0.0/8`.
pub fn validate_cidr(cidr: &Field, faults: &mut Faults) {
    if let Err(message) = name::cidr(cidr.text()) {
        faults.invalid(cidr, message);
    }
}

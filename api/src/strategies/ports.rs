//! What port numbers, port names and addresses must look like.

use std::net::IpAddr;

use super::check::{Faults, Field};
use crate::{name, network::Network};

/// Protocols of ports.
pub const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// A port number that is given must be one.
pub fn validate_number(port: &Field, faults: &mut Faults) {
    if let Some(Err(message)) = port.number().map(name::port_number) {
        faults.invalid(port, message);
    }
}

/// A port number that must be given.
pub fn validate_number_given(port: &Field, faults: &mut Faults) {
    match port.is_set() {
        true => validate_number(port, faults),
        false => validate_number(&Field { path: port.path.clone(), value: &0.into() }, faults),
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

/// Whether a network is of IPv4.
pub fn is_ipv4_network(cidr: &str) -> Option<bool> {
    cidr.parse::<Network>().ok().map(|network| network.is_ipv4())
}

/// Whether addresses or networks are at most one of each family; told of each is whether it is of IPv4. What could not
/// be read is of no family.
pub fn differ_in_family(are_ipv4: &[Option<bool>]) -> bool {
    match are_ipv4 {
        [] | [_] => true,
        [Some(one), Some(other)] => one != other,
        _ => false,
    }
}

/// An address of an endpoint: none that means the machine itself, a link or a group.
pub fn validate_endpoint_address(address: &Field, faults: &mut Faults) {
    let Ok(ip) = address.text().parse::<IpAddr>() else { return };
    for (is_special, text) in [
        (ip.is_unspecified(), "may not be unspecified (0.0.0.0 or ::)"),
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (is_link_local(ip), "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (is_link_local_group(ip), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ] {
        if is_special {
            faults.invalid(address, text);
        }
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_link_local_group(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn endpoints_are_elsewhere() {
        let faults = |text: &str| {
            let (value, mut faults) = (Value::from(text), Faults::new());
            validate_endpoint_address(&Field { path: "ip".into(), value: &value }, &mut faults);
            faults.0.len()
        };
        assert_eq!(["10.0.0.1", "2001:db8::1", "224.0.1.1"].map(faults), [0, 0, 0]);
        assert_eq!(
            ["0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.9", "::1", "fe80::1", "ff02::1"].map(faults),
            [1; 7]
        );
    }

    #[test]
    fn there_is_one_of_each_family() {
        let (four, six) = (Some(true), Some(false));
        let good: [&[_]; 5] = [&[], &[four], &[None], &[four, six], &[six, four]];
        let bad: [&[_]; 4] = [&[four, four], &[six, six], &[four, None], &[four, six, six]];
        assert!(good.into_iter().all(differ_in_family) && !bad.into_iter().any(differ_in_family));
    }
}

//! IP networks: which addresses are in them, and which of those a Service may have.

use std::{fmt, net::IpAddr, str::FromStr};

/// The label of an IPAddress that says who made it.
pub const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";

/// The value of that label with which the addresses of Services are told from those of others.
pub const MANAGER: &str = "ipallocator.k8s.io";

/// What an address must be.
pub(crate) const ADDRESS_FORM: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// What a network must be.
pub(crate) const NETWORK_FORM: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// A network such as `10.96.0.0/12` or `fd00::/108`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    first: IpAddr,
    prefix: u32,
}

/// Text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network such as 10.96.0.0/12")]
pub struct NotANetwork(String);

impl Network {
    /// Its first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// How many of their first bits its addresses have in common.
    pub fn prefix(&self) -> u32 {
        self.prefix
    }

    /// Whether its addresses are of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// Whether a Service may have this address: the network's own is nobody's, nor is the last one of IPv4.
    pub fn has_host(&self, address: IpAddr) -> bool {
        self.has(address) && bits(address) != bits(self.first) && bits(address) <= self.last_host()
    }

    /// Whether an address is in this network.
    pub fn has(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4() && bits(address) & !self.host_mask() == bits(self.first)
    }

    /// Whether all addresses of `other` are in this network.
    pub fn contains(&self, other: &Network) -> bool {
        self.prefix <= other.prefix && self.has(other.first)
    }

    /// How many addresses Services may have; `u64::MAX` where there are more.
    pub fn hosts(&self) -> u64 {
        u64::try_from(self.last_host().saturating_sub(bits(self.first))).unwrap_or(u64::MAX)
    }

    /// The address that Services may have with this number, counted from 0.
    pub fn host(&self, number: u64) -> Option<IpAddr> {
        let address = self.address(bits(self.first).checked_add(u128::from(number) + 1)?)?;
        self.has_host(address).then_some(address)
    }

    /// The address of the network's family with these bits.
    fn address(&self, bits: u128) -> Option<IpAddr> {
        match self.first {
            IpAddr::V4(_) => Some(IpAddr::V4(u32::try_from(bits).ok()?.into())),
            IpAddr::V6(_) => Some(IpAddr::V6(bits.into())),
        }
    }

    fn last_host(&self) -> u128 {
        let last = bits(self.first) | self.host_mask();
        if self.is_ipv4() { last.saturating_sub(1) } else { last }
    }

    fn host_mask(&self) -> u128 {
        let width = if self.is_ipv4() { 32 } else { 128 };
        match width - self.prefix {
            128 => u128::MAX,
            free => (1 << free) - 1,
        }
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Network, NotANetwork> {
        let parsed =
            text.split_once('/').and_then(|(address, prefix)| network(address.parse().ok()?, prefix));
        parsed.ok_or_else(|| NotANetwork(text.to_string()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

/// An address as the newer fields want it: as it is written by everybody.
pub fn canonical_address(text: &str) -> Result<(), String> {
    let Some(address) = sloppy_address(text) else {
        return Err(ADDRESS_FORM.into());
    };
    if text.parse::<IpAddr>().is_err() {
        return Err("must not have leading 0s".into());
    }
    if is_mapped(address) {
        return Err("must not be an IPv4-mapped IPv6 address".into());
    }
    is_canonical(text, &address.to_string())
}

/// A network as the newer fields want it.
pub fn canonical_network(text: &str) -> Result<(), String> {
    let sloppy = text.split_once('/').and_then(|(written, prefix)| {
        let address = sloppy_address(written)?;
        Some((written, address, prefix, network(address, prefix)?))
    });
    let Some((written, address, prefix, network)) = sloppy else {
        return Err(NETWORK_FORM.into());
    };
    let has_zeros = prefix.len() > 1 && prefix.starts_with('0');
    if has_zeros || written.parse::<IpAddr>().is_err() {
        return Err("must not have leading 0s in IP or prefix length".into());
    }
    if is_mapped(address) {
        return Err("must not have an IPv4-mapped IPv6 address".into());
    }
    if address != network.first {
        return Err("must not have bits set beyond the prefix length".into());
    }
    is_canonical(text, &network.to_string())
}

fn is_canonical(text: &str, canonical: &str) -> Result<(), String> {
    match text == canonical {
        true => Ok(()),
        false => Err(format!("must be in canonical form ({canonical:?})")),
    }
}

/// Whether this is an address of IPv4 in the clothes of IPv6.
pub(crate) fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

/// An address whose parts may begin with zeros, as Go once read them.
fn sloppy_address(text: &str) -> Option<IpAddr> {
    let without_zeros = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_string(),
        rest => rest.to_string(),
    };
    let sloppy = || text.split('.').map(without_zeros).collect::<Vec<_>>().join(".");
    text.parse().ok().or_else(|| sloppy().parse().ok())
}

/// The network of an address and the length of its prefix.
fn network(address: IpAddr, prefix: &str) -> Option<Network> {
    let is_number = prefix.bytes().all(|byte| byte.is_ascii_digit());
    let prefix: u32 = prefix.parse().ok().filter(|_| is_number)?;
    if prefix > if address.is_ipv4() { 32 } else { 128 } {
        return None;
    }
    let unmasked = Network { first: address, prefix };
    let first = unmasked.address(bits(address) & !unmasked.host_mask())?;
    Some(Network { first, prefix })
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn the_networks_own_address_and_the_last_of_ipv4_are_nobodys() {
        let has = |range: &str, address: &str| network(range).has_host(address.parse().unwrap());
        assert!(has("10.96.0.0/12", "10.96.0.1") && has("10.96.0.0/12", "10.111.255.254"));
        for stranger in ["10.96.0.0", "10.111.255.255", "10.112.0.1", "fd00::1"] {
            assert!(!has("10.96.0.0/12", stranger), "{stranger}");
        }
        assert!(has("fd00::/120", "fd00::ff") && !has("fd00::/120", "fd00::") && !has("fd00::/120", "::1"));
        assert!(!has("10.0.0.0/31", "10.0.0.0") && !has("10.0.0.0/31", "10.0.0.1"));
        assert!(!has("10.0.0.1/32", "10.0.0.1") && has("0.0.0.0/0", "10.0.0.1") && has("::/0", "::1"));
    }

    #[test]
    fn hosts_are_numbered() {
        let hosts = |text: &str| {
            let network = network(text);
            let all: Vec<String> =
                (0..network.hosts()).filter_map(|n| Some(network.host(n)?.to_string())).collect();
            assert_eq!(all.len() as u64, network.hosts());
            assert_eq!(network.host(network.hosts()), None);
            all.join(" ")
        };
        assert_eq!(hosts("10.0.0.0/29"), "10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6");
        assert_eq!(hosts("fd00::4/126"), "fd00::5 fd00::6 fd00::7");
        assert_eq!((hosts("10.0.0.0/31").as_str(), hosts("10.0.0.1/32").as_str()), ("", ""));
        assert_eq!((network("::/0").hosts(), network("0.0.0.0/0").hosts()), (u64::MAX, (1 << 32) - 2));
    }

    #[test]
    fn networks_lie_within_one_another() {
        let contains = |outer: &str, inner: &str| network(outer).contains(&network(inner));
        assert!(contains("10.0.0.0/8", "10.1.0.0/16") && contains("10.0.0.0/8", "10.0.0.0/8"));
        assert!(!contains("10.1.0.0/16", "10.0.0.0/8") && !contains("10.0.0.0/8", "11.0.0.0/16"));
        assert!(!contains("0.0.0.0/0", "::/0") && contains("::/0", "fd00::/8"));
        assert_eq!(network("10.96.4.7/12").to_string(), "10.96.0.0/12");
    }

    #[test]
    fn what_is_not_canonical_is_said() {
        for (text, fault) in [
            ("10.0.0.0/24", ""),
            ("fd00::/64", ""),
            ("0.0.0.0/0", ""),
            ("10.0.0.0", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
            ("10.0.0.0/33", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
            ("10.0.0.0/+8", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
            ("10.00.0.0/24", "must not have leading 0s in IP or prefix length"),
            ("10.0.0.0/024", "must not have leading 0s in IP or prefix length"),
            ("::ffff:10.0.0.0/104", "must not have an IPv4-mapped IPv6 address"),
            ("10.0.0.1/24", "must not have bits set beyond the prefix length"),
            ("FD00::/64", r#"must be in canonical form ("fd00::/64")"#),
        ] {
            assert_eq!(canonical_network(text).err().unwrap_or_default(), fault, "{text}");
        }
        for (text, fault) in [
            ("10.0.0.1", ""),
            ("fe80::1", ""),
            ("x", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            ("10.0.0", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            ("10.0.0.01", "must not have leading 0s"),
            ("::ffff:10.0.0.1", "must not be an IPv4-mapped IPv6 address"),
            ("fe80:0:0::1", r#"must be in canonical form ("fe80::1")"#),
        ] {
            assert_eq!(canonical_address(text).err().unwrap_or_default(), fault, "{text}");
        }
    }
}

//! Ranges of numbers, with upstream's band at the start that is kept for those who ask for a certain one.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

/// The addresses of Services: an IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    network: u32,
    prefix: u32,
}

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// Text that is no range.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct NotARange {
    text: String,
    expected: &'static str,
}

impl AddressRange {
    /// The address at an offset from the network's own.
    pub fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.network.wrapping_add(offset))
    }

    /// Whether a Service may have this address; the network's own and the last one are nobody's.
    pub fn has(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        let offset = u32::from(address).wrapping_sub(self.network);
        (1..self.size().saturating_sub(1)).contains(&u64::from(offset))
    }

    /// A free address, far from those that people choose by hand as long as there are others.
    pub fn free(&self, is_free: impl Fn(Ipv4Addr) -> bool, random: impl Fn(u64) -> u64) -> Option<Ipv4Addr> {
        let usable = self.size().saturating_sub(2);
        let band = match usable {
            ..=16 => 0,
            usable => (usable / 16).clamp(16, 256),
        };
        let address = |offset: u64| u32::try_from(offset + 1).map(|offset| self.at(offset)).ok();
        let found = search(band, usable, |offset| address(offset).is_some_and(&is_free), random);
        found.and_then(address)
    }

    fn size(&self) -> u64 {
        1 << (32 - self.prefix)
    }
}

impl PortRange {
    /// Whether the port is in the range.
    pub fn has(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// A free port, from the upper part as long as there is one.
    pub fn free(&self, is_free: impl Fn(u16) -> bool, random: impl Fn(u64) -> u64) -> Option<u16> {
        let size = u64::from(self.last - self.first) + 1;
        let band = match size {
            ..=16 => 0,
            size => (size / 32).clamp(16, 128),
        };
        let port = |offset: u64| u16::try_from(offset).ok().and_then(|offset| self.first.checked_add(offset));
        let found = search(band, size, |offset| port(offset).is_some_and(&is_free), random);
        found.and_then(port)
    }
}

/// A free offset in `band..size`, from a random one on; when that is full, one in `0..band`.
fn search(band: u64, size: u64, is_free: impl Fn(u64) -> bool, random: impl Fn(u64) -> u64) -> Option<u64> {
    let free_in = |from: u64, to: u64| {
        let count = to.checked_sub(from).filter(|count| *count > 0)?;
        let start = random(count);
        (0..count).map(|step| from + (start + step) % count).find(|offset| is_free(*offset))
    };
    free_in(band, size).or_else(|| free_in(0, band))
}

impl FromStr for AddressRange {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<AddressRange, NotARange> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            let address: Ipv4Addr = address.parse().ok()?;
            let prefix = prefix.parse::<u32>().ok().filter(|prefix| (8..=30).contains(prefix))?;
            let network = u32::from(address) & (u32::MAX << (32 - prefix));
            Some(AddressRange { network, prefix })
        });
        parsed.ok_or_else(|| NotARange {
            text: text.to_string(),
            expected: "an IPv4 network such as 10.96.0.0/12, from /8 to /30",
        })
    }
}

impl FromStr for PortRange {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<PortRange, NotARange> {
        let parsed = text.split_once('-').and_then(|(first, last)| {
            let range = PortRange { first: first.parse().ok()?, last: last.parse().ok()? };
            (range.first > 0 && range.first <= range.last).then_some(range)
        });
        let expected = "a range of ports such as 30000-32767";
        parsed.ok_or_else(|| NotARange { text: text.to_string(), expected })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_network_and_the_last_address_are_nobodys() {
        let range: AddressRange = "10.96.0.0/12".parse().unwrap();
        let has = |text: &str| range.has(text.parse().unwrap());
        assert!(has("10.96.0.1") && has("10.111.255.254"));
        assert!(!has("10.96.0.0") && !has("10.111.255.255") && !has("10.112.0.1") && !has("fd00::1"));
    }

    #[test]
    fn the_static_band_is_used_last() {
        let range: AddressRange = "10.96.0.0/12".parse().unwrap();
        assert_eq!(range.free(|_| true, |_| 0), Some("10.96.1.1".parse().unwrap()));
        let ports: PortRange = "30000-32767".parse().unwrap();
        assert_eq!(ports.free(|_| true, |_| 0), Some(30086));
        assert_eq!(ports.free(|port| port < 30086, |_| 0), Some(30000));
    }

    #[test]
    fn every_address_of_a_small_range_is_handed_out_once() {
        let range: AddressRange = "10.0.0.0/29".parse().unwrap();
        let mut taken: HashSet<Ipv4Addr> = HashSet::new();
        while let Some(address) = range.free(|address| !taken.contains(&address), |count| count / 2) {
            assert!(range.has(address.into()) && taken.insert(address));
        }
        assert_eq!(taken.len(), 6);
    }

    #[test]
    fn what_is_no_range_is_said() {
        assert!("10.96.0.0".parse::<AddressRange>().is_err());
        assert!("10.96.0.0/31".parse::<AddressRange>().is_err());
        assert!("32767-30000".parse::<PortRange>().is_err());
        assert_eq!("10.96.4.7/12".parse::<AddressRange>().unwrap().to_string(), "10.96.0.0/12");
    }
}

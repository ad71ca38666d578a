//! Free numbers in a range, with upstream's band at the start that is kept for those who ask for a certain one.

use std::{fmt, net::IpAddr, str::FromStr};

use api::network::Network;

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

/// A free address, far from those that people choose by hand as long as there are others.
pub(super) fn free_address(
    network: &Network,
    is_free: impl Fn(IpAddr) -> bool,
    random: impl Fn(u64) -> u64,
) -> Option<IpAddr> {
    let hosts = network.hosts();
    let band = match hosts {
        ..=16 => 0,
        hosts => (hosts / 16).clamp(16, 256),
    };
    let found = search(band, hosts, |number| network.host(number).is_some_and(&is_free), random);
    found.and_then(|number| network.host(number))
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
    fn the_static_band_is_used_last() {
        let network: Network = "10.96.0.0/12".parse().unwrap();
        assert_eq!(free_address(&network, |_| true, |_| 0), Some("10.96.1.1".parse().unwrap()));
        let ports: PortRange = "30000-32767".parse().unwrap();
        assert_eq!(ports.free(|_| true, |_| 0), Some(30086));
        assert_eq!(ports.free(|port| port < 30086, |_| 0), Some(30000));
    }

    #[test]
    fn every_address_of_a_small_range_is_handed_out_once() {
        for (range, count) in
            [("10.0.0.0/29", 6), ("10.0.0.0/26", 62), ("fd00::/122", 63), ("10.0.0.0/32", 0)]
        {
            let network: Network = range.parse().unwrap();
            let mut taken: HashSet<IpAddr> = HashSet::new();
            let free = |taken: &HashSet<IpAddr>| {
                free_address(&network, |address| !taken.contains(&address), |count| count / 2)
            };
            while let Some(address) = free(&taken) {
                assert!(network.has_host(address) && taken.insert(address));
            }
            assert_eq!(taken.len(), count, "{range}");
        }
    }

    #[test]
    fn what_is_no_range_is_said() {
        assert!("32767-30000".parse::<PortRange>().is_err());
        assert!("30000".parse::<PortRange>().is_err());
    }
}

//! Decides which part of the cluster's pod addresses a node gets.

use std::{collections::BTreeSet, net::Ipv4Addr};

/// An IPv4 prefix that is handed out in parts of equal size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pool {
    first: u32,
    prefix: u8,
    part_prefix: u8,
}

impl Pool {
    /// A pool from a CIDR; `None` when that is not one, or too small for a part.
    pub fn parse(cidr: &str, part_prefix: u8) -> Option<Pool> {
        let (address, prefix) = cidr.split_once('/')?;
        let (address, prefix): (Ipv4Addr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        let fits = prefix > 0 && prefix <= part_prefix && part_prefix <= 32;
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or_default();
        fits.then_some(Pool { first: address.to_bits() & mask, prefix, part_prefix })
    }

    /// The first part that does not overlap what is taken; `None` when all are.
    pub fn choose<'a>(&self, taken: impl IntoIterator<Item = &'a str>) -> Option<String> {
        let size = 1u64 << (32 - self.part_prefix);
        let taken: BTreeSet<u64> = taken.into_iter().flat_map(|cidr| self.parts_of(cidr, size)).collect();
        let parts = 1u64 << (self.part_prefix - self.prefix);
        let free = (0..parts).find(|part| !taken.contains(part))?;
        let address = Ipv4Addr::from_bits(u32::try_from(u64::from(self.first) + free * size).ok()?);
        Some(format!("{address}/{}", self.part_prefix))
    }

    /// The numbers of the parts that a CIDR overlaps, which may be greater or smaller than a part.
    fn parts_of(&self, cidr: &str, size: u64) -> Vec<u64> {
        let Some((address, prefix)) = cidr.split_once('/') else { return Vec::new() };
        let (Ok(address), Ok(prefix)) = (address.parse::<Ipv4Addr>(), prefix.parse::<u32>()) else {
            return Vec::new();
        };
        let start = u64::from(address.to_bits());
        let end = start + (1u64 << 32u32.saturating_sub(prefix));
        let (first, last) = (u64::from(self.first), u64::from(self.first) + (1u64 << (32 - self.prefix)));
        if end <= first || start >= last {
            return Vec::new();
        }
        ((start.max(first) - first) / size..(end.min(last) - first).div_ceil(size)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_get_the_first_free_part() {
        let pool = Pool::parse("10.244.0.0/16", 24).unwrap();
        assert_eq!(pool.choose([]).unwrap(), "10.244.0.0/24");
        assert_eq!(pool.choose(["10.244.0.0/24", "10.244.2.0/24"]).unwrap(), "10.244.1.0/24");
        assert_eq!(pool.choose(["10.244.0.0/23", "192.168.0.0/16"]).unwrap(), "10.244.2.0/24");
    }

    #[test]
    fn a_pool_runs_dry() {
        let pool = Pool::parse("10.0.0.0/23", 24).unwrap();
        assert_eq!(pool.choose(["10.0.0.0/24", "10.0.1.128/25"]), None);
        assert_eq!(pool.choose(["0.0.0.0/0"]), None);
    }

    #[test]
    fn nonsense_is_no_pool() {
        for (cidr, part) in
            [("10.0.0.0", 24), ("10.0.0.0/25", 24), ("fd00::/64", 80), ("x/8", 24), ("0.0.0.0/0", 24)]
        {
            assert_eq!(Pool::parse(cidr, part), None, "{cidr}");
        }
    }
}

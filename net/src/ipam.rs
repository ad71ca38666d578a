//! Which address a pod gets.

use std::net::Ipv4Addr;

use crate::Cidr;

/// The address of the bridge, every pod's way out: the first after the network's own.
pub fn gateway(cidr: Cidr) -> Option<Ipv4Addr> {
    cidr.nth(1)
}

/// The next free address after `last`, round the block, so that an address that was just given up is the
/// last to be used again: peers may still remember its old owner. `None` when the block is full.
///
/// Network, gateway and broadcast addresses are never handed out.
pub fn choose(cidr: Cidr, is_taken: impl Fn(Ipv4Addr) -> bool, last: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
    let first_pod = 2;
    let pods = u32::try_from(cidr.size().saturating_sub(3)).ok().filter(|pods| *pods > 0)?;
    let start = last
        .filter(|last| cidr.contains(*last))
        .map_or(0, |last| (u32::from(last) - u32::from(cidr.network())).saturating_sub(first_pod) + 1);
    (0..pods)
        .filter_map(|step| cidr.nth(first_pod + (start + step) % pods))
        .find(|address| !is_taken(*address))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_pod_comes_after_the_gateway() {
        assert_eq!(choose(cidr("10.244.0.0/24"), |_| false, None), Some(Ipv4Addr::new(10, 244, 0, 2)));
    }

    #[test]
    fn a_freed_address_is_the_last_to_be_used_again() {
        let last = Some(Ipv4Addr::new(10, 244, 0, 9));
        assert_eq!(choose(cidr("10.244.0.0/24"), |_| false, last), Some(Ipv4Addr::new(10, 244, 0, 10)));
    }

    #[test]
    fn every_address_is_handed_out_once_and_then_none() {
        let (block, mut taken, mut last) = (cidr("10.0.0.0/28"), HashSet::new(), None);
        while let Some(address) = choose(block, |address| taken.contains(&address), last) {
            assert!(taken.insert(address), "{address} twice");
            last = Some(address);
        }
        assert_eq!(taken.len(), 13);
        assert!(!taken.contains(&Ipv4Addr::new(10, 0, 0, 1)));
        assert!(!taken.contains(&Ipv4Addr::new(10, 0, 0, 15)));
    }

    #[test]
    fn a_block_too_small_for_pods_has_none() {
        assert_eq!(choose(cidr("10.0.0.0/31"), |_| false, None), None);
    }
}

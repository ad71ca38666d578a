//! IPv4 address blocks such as `10.244.0.0/24`.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// A block of IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    network: u32,
    prefix: u8,
}

/// The text was not `a.b.c.d/n`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an IPv4 block such as 10.244.0.0/24")]
pub struct NotACidr {
    text: String,
}

impl Cidr {
    /// How many leading bits are fixed.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The first address, that of the network itself.
    pub fn network(self) -> Ipv4Addr {
        self.network.into()
    }

    /// The `n`th address, counted from the network's own.
    pub fn nth(self, n: u32) -> Option<Ipv4Addr> {
        (u64::from(n) < self.size()).then(|| (self.network + n).into())
    }

    /// How many addresses the block holds, network and broadcast included.
    pub fn size(self) -> u64 {
        1 << (32 - self.prefix)
    }

    /// Whether an address lies in the block.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.network
    }
}

impl FromStr for Cidr {
    type Err = NotACidr;

    fn from_str(text: &str) -> Result<Cidr, NotACidr> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let address: Ipv4Addr = address.parse().ok()?;
            let prefix: u8 = prefix.parse().ok().filter(|prefix| (1..=32).contains(prefix))?;
            Some(Cidr { network: u32::from(address) & mask(prefix), prefix })
        };
        parse().ok_or_else(|| NotACidr { text: text.to_string() })
    }
}

impl TryFrom<String> for Cidr {
    type Error = NotACidr;

    fn try_from(text: String) -> Result<Cidr, NotACidr> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX << (32 - u32::from(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_and_printed_by_its_network() {
        let cidr: Cidr = "10.244.3.7/24".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.244.3.0/24");
        assert_eq!(cidr.nth(1), Some(Ipv4Addr::new(10, 244, 3, 1)));
        assert_eq!(cidr.nth(256), None);
        assert!(cidr.contains(Ipv4Addr::new(10, 244, 3, 255)));
        assert!(!cidr.contains(Ipv4Addr::new(10, 244, 4, 0)));
    }

    #[test]
    fn what_is_not_a_block_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/0", "10.0.0/8", "x/8", "10.0.0.0/-1"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}

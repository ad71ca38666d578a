//! What is too little of what: `memory.available<100Mi`.

use std::fmt;
use std::time::Duration;

use api::quantity::Quantity;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Memory that can be had without swapping.
    MemoryAvailable,
    /// Room on the disk of volumes and logs.
    NodeFsAvailable,
    /// Files that this disk can still hold.
    NodeFsInodesFree,
    /// Room on the disk of images.
    ImageFsAvailable,
    /// Files that this disk can still hold.
    ImageFsInodesFree,
    /// Process ids.
    PidAvailable,
}

/// What pods are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Memory.
    Memory,
    /// Disk.
    EphemeralStorage,
    /// Files on a disk.
    Inodes,
    /// Processes.
    Pids,
}

impl fmt::Display for Resource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Resource::Memory => "memory",
            Resource::EphemeralStorage => "ephemeral-storage",
            Resource::Inodes => "inodes",
            Resource::Pids => "pids",
        })
    }
}

const SIGNALS: [(&str, Signal); 6] = [
    ("memory.available", Signal::MemoryAvailable),
    ("nodefs.available", Signal::NodeFsAvailable),
    ("nodefs.inodesFree", Signal::NodeFsInodesFree),
    ("imagefs.available", Signal::ImageFsAvailable),
    ("imagefs.inodesFree", Signal::ImageFsInodesFree),
    ("pid.available", Signal::PidAvailable),
];

impl Signal {
    /// What pods are ranked by when this is too low.
    pub fn resource(self) -> Resource {
        match self {
            Signal::MemoryAvailable => Resource::Memory,
            Signal::NodeFsAvailable | Signal::ImageFsAvailable => Resource::EphemeralStorage,
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree => Resource::Inodes,
            Signal::PidAvailable => Resource::Pids,
        }
    }

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        SIGNALS.iter().find(|(_, signal)| *signal == self).map_or("", |(name, _)| name)
    }
}

/// An amount, or a share of all there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Bytes, files or processes.
    Absolute(u64),
    /// Percent.
    Percent(f64),
}

impl Amount {
    /// In units, of `capacity`.
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Amount::Absolute(amount) => amount,
            Amount::Percent(percent) => (capacity as f64 * percent / 100.0) as u64,
        }
    }
}

/// Too little of something, for some time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Of what.
    pub signal: Signal,
    /// Less than this is too little.
    pub least: Amount,
    /// It may be met for this long before a pod goes; none for a hard threshold.
    pub patience: Duration,
    /// How long pods get to end, at most; none for a hard threshold.
    pub grace: Duration,
}

/// A threshold that cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0:?} is no eviction threshold such as memory.available<100Mi or nodefs.available<10%")]
pub struct NoThreshold(pub String);

impl Threshold {
    /// A hard threshold from `signal<amount`.
    pub fn hard(text: &str) -> Result<Threshold, NoThreshold> {
        Threshold::read(text).ok_or_else(|| NoThreshold(text.to_string()))
    }

    fn read(text: &str) -> Option<Threshold> {
        let (name, amount) = text.split_once('<')?;
        let signal = SIGNALS.iter().find(|(known, _)| *known == name)?.1;
        let least = match amount.strip_suffix('%') {
            Some(percent) => {
                Amount::Percent(percent.parse().ok().filter(|percent| (0.0..=100.0).contains(percent))?)
            }
            None => Amount::Absolute(u64::try_from(Quantity::parse(amount).ok()?.value()).ok()?),
        };
        Some(Threshold { signal, least, patience: Duration::ZERO, grace: Duration::ZERO })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}<", self.signal.name())?;
        match self.least {
            Amount::Absolute(amount) => write!(formatter, "{amount}"),
            Amount::Percent(percent) => write!(formatter, "{percent}%"),
        }
    }
}

/// Upstream's hard thresholds, but for disks: laboratory machines run with little room, so pods go below 5 % and
/// not below 10 and 15.
pub fn defaults() -> Vec<Threshold> {
    let hard = |signal, least| Threshold { signal, least, patience: Duration::ZERO, grace: Duration::ZERO };
    vec![
        hard(Signal::MemoryAvailable, Amount::Absolute(100 << 20)),
        hard(Signal::NodeFsAvailable, Amount::Percent(5.0)),
        hard(Signal::NodeFsInodesFree, Amount::Percent(5.0)),
        hard(Signal::ImageFsAvailable, Amount::Percent(5.0)),
        hard(Signal::ImageFsInodesFree, Amount::Percent(5.0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_and_written() {
        for text in ["memory.available<104857600", "nodefs.inodesFree<5%", "pid.available<1000"] {
            assert_eq!(Threshold::hard(text).unwrap().to_string(), text);
        }
        assert_eq!(Threshold::hard("memory.available<100Mi").unwrap().least, Amount::Absolute(100 << 20));
        for text in ["memory.available", "memory<1", "nodefs.available<200%", "pid.available<much"] {
            assert_eq!(Threshold::hard(text), Err(NoThreshold(text.into())));
        }
    }

    #[test]
    fn shares_are_of_what_there_is() {
        assert_eq!(Amount::Percent(10.0).of(1000), 100);
        assert_eq!(Amount::Absolute(7).of(1000), 7);
    }
}

//! What is too little of what: `memory.available<100Mi`.

use std::fmt;
use std::time::Duration;

use api::quantity::Quantity;

use crate::pod::backoff::{go_duration, parse_go_duration};

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

impl Resource {
    /// Whether images take some of it, so that the removal of those that nobody uses may be enough.
    pub fn is_taken_by_images(self) -> bool {
        matches!(self, Resource::EphemeralStorage | Resource::Inodes)
    }
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
    /// How long pods get to end, at most; nothing for a hard threshold, [`Duration::MAX`] for what they ask for.
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

/// For how long a soft threshold may be met: `memory.available=1m30s`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GracePeriod {
    signal: Signal,
    period: Duration,
}

/// What is wrong with soft thresholds, in upstream's words.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadGracePeriod {
    /// It is not written as it should be.
    #[error("{0:?} is no grace period such as memory.available=1m30s")]
    Unreadable(String),
    /// Nothing of this name is measured.
    #[error("unsupported eviction signal {0}")]
    Unsupported(String),
    /// A threshold without a period is a hard one.
    #[error("grace period must be specified for the soft eviction threshold {0}")]
    Missing(&'static str),
}

impl GracePeriod {
    /// Reads `signal=duration`.
    pub fn parse(text: &str) -> Result<GracePeriod, BadGracePeriod> {
        let unreadable = || BadGracePeriod::Unreadable(text.to_string());
        let (name, period) = text.split_once('=').ok_or_else(unreadable)?;
        let known = SIGNALS.iter().find(|(known, _)| *known == name);
        let signal = known.ok_or_else(|| BadGracePeriod::Unsupported(name.to_string()))?.1;
        let period = parse_go_duration(period).ok_or_else(unreadable)?;
        Ok(GracePeriod { signal, period })
    }
}

impl fmt::Display for GracePeriod {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}", self.signal.name(), go_duration(self.period))
    }
}

/// Makes thresholds soft, each with its period; `longest` is how many seconds pods have to end, less than none for
/// as many as they ask for.
pub fn soft(
    thresholds: &[Threshold],
    periods: &[GracePeriod],
    longest: i32,
) -> Result<Vec<Threshold>, BadGracePeriod> {
    let grace = u64::try_from(longest).map_or(Duration::MAX, Duration::from_secs);
    let soften = |threshold: &Threshold| {
        let period = periods.iter().rev().find(|period| period.signal == threshold.signal);
        let period = period.ok_or(BadGracePeriod::Missing(threshold.signal.name()))?;
        Ok(Threshold { patience: period.period, grace, ..*threshold })
    };
    thresholds.iter().map(soften).collect()
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
    fn soft_thresholds_have_a_period_each() {
        let memory = Threshold::hard("memory.available<300Mi").unwrap();
        let period = GracePeriod::parse("memory.available=1m30s").unwrap();
        assert_eq!(period.to_string(), "memory.available=1m30s");
        let made = |longest| soft(&[memory], &[period], longest).unwrap()[0];
        assert_eq!((made(0).patience, made(0).grace), (Duration::from_secs(90), Duration::ZERO));
        assert_eq!((made(60).grace, made(-1).grace), (Duration::from_secs(60), Duration::MAX));
        let disk = Threshold::hard("nodefs.available<10%").unwrap();
        assert_eq!(
            soft(&[memory, disk], &[period], 0).unwrap_err().to_string(),
            "grace period must be specified for the soft eviction threshold nodefs.available"
        );
        assert_eq!(
            GracePeriod::parse("memory=1s").unwrap_err().to_string(),
            "unsupported eviction signal memory"
        );
        for text in ["memory.available", "memory.available=-1s", "memory.available=90"] {
            assert_eq!(GracePeriod::parse(text), Err(BadGracePeriod::Unreadable(text.into())));
        }
    }

    #[test]
    fn images_take_room_and_files_of_disks() {
        let taken: Vec<&str> = SIGNALS
            .iter()
            .filter(|(_, signal)| signal.resource().is_taken_by_images())
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(
            taken,
            ["nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree"]
        );
    }

    #[test]
    fn shares_are_of_what_there_is() {
        assert_eq!(Amount::Percent(10.0).of(1000), 100);
        assert_eq!(Amount::Absolute(7).of(1000), 7);
    }
}

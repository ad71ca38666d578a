//! Decides which images have to go when their disk fills up. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

/// When images are removed, and which are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Above this share of the disk in use, in percent, images go.
    pub high: u64,
    /// Until this share is reached.
    pub low: u64,
    /// Images younger than this stay: somebody may be about to use them.
    pub minimum_age: Duration,
}

impl Default for Policy {
    /// Upstream's figures.
    fn default() -> Policy {
        Policy { high: 85, low: 80, minimum_age: Duration::from_secs(120) }
    }
}

/// An image and what is known of its use.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// The runtime's name for it.
    pub id: String,
    /// Its bytes on the disk.
    pub size: u64,
    /// Whether the runtime needs it for itself.
    pub pinned: bool,
    /// When it was first seen; an image that was there before the kubelet is as old as can be.
    pub first_seen: Timestamp,
    /// When a container was last seen to use it.
    pub last_used: Timestamp,
}

/// The disk that images are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// All its bytes.
    pub capacity: u64,
    /// Those that are left.
    pub available: u64,
}

/// What the disk asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// There is room.
    Enough,
    /// A disk of no size: what is wrong is not the images.
    NoDisk,
    /// These have to go, one after the other, until so many bytes are free.
    Remove {
        /// The images, the first to go first.
        images: Vec<String>,
        /// How many bytes have to become free.
        wanted: u64,
        /// How many bytes these images have.
        eligible: u64,
    },
}

/// What has to be done about a disk.
pub fn plan(
    policy: &Policy,
    disk: Disk,
    images: &[Known],
    in_use: &BTreeSet<String>,
    now: Timestamp,
) -> Verdict {
    let Disk { capacity, available } = disk;
    if capacity == 0 {
        return Verdict::NoDisk;
    }
    let available = available.min(capacity);
    let used = 100 - available.saturating_mul(100) / capacity;
    if used < policy.high {
        return Verdict::Enough;
    }
    let wanted = (capacity / 100 * (100 - policy.low)).saturating_sub(available);
    let (mut chosen, mut eligible) = (Vec::new(), 0);
    for image in removable(policy, images, in_use, now) {
        if eligible >= wanted {
            break;
        }
        eligible += image.size;
        chosen.push(image.id.clone());
    }
    Verdict::Remove { images: chosen, wanted, eligible }
}

/// Everything that nobody uses, the longest unused first: what a node that is short of disk does without.
pub fn removable<'a>(
    policy: &Policy,
    images: &'a [Known],
    in_use: &BTreeSet<String>,
    now: Timestamp,
) -> Vec<&'a Known> {
    let is_old = |image: &Known| image.first_seen + policy.minimum_age <= now;
    let mut removable: Vec<&Known> =
        images.iter().filter(|image| !image.pinned && !in_use.contains(&image.id) && is_old(image)).collect();
    removable.sort_by_key(|image| (image.last_used, image.first_seen));
    removable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn image(id: &str, size: u64, first_seen: i64, last_used: i64) -> Known {
        Known { id: id.into(), size, pinned: false, first_seen: at(first_seen), last_used: at(last_used) }
    }

    fn planned(available: u64, images: &[Known], in_use: &[&str]) -> Verdict {
        let in_use = in_use.iter().map(|id| id.to_string()).collect();
        plan(&Policy::default(), Disk { capacity: 1000, available }, images, &in_use, at(1000))
    }

    #[test]
    fn images_go_above_the_high_mark_until_the_low_one() {
        let images = [image("new", 60, 500, 700), image("old", 60, 0, 100), image("older", 60, 0, 50)];
        assert_eq!(planned(160, &images, &[]), Verdict::Enough);
        let expected = Verdict::Remove { images: vec!["older".into()], wanted: 50, eligible: 60 };
        assert_eq!(planned(150, &images, &[]), expected);
        let expected =
            Verdict::Remove { images: vec!["older".into(), "old".into()], wanted: 100, eligible: 120 };
        assert_eq!(planned(100, &images, &[]), expected);
    }

    #[test]
    fn what_is_used_young_or_pinned_stays() {
        let pinned = Known { pinned: true, ..image("pinned", 500, 0, 0) };
        let images = [image("used", 500, 0, 0), image("young", 500, 881, 0), pinned];
        let expected = Verdict::Remove { images: vec![], wanted: 200, eligible: 0 };
        assert_eq!(planned(0, &images, &["used"]), expected);
        let images = [image("grown", 500, 880, 0)];
        assert!(matches!(planned(0, &images, &[]), Verdict::Remove { images, .. } if images == ["grown"]));
    }

    #[test]
    fn a_disk_of_no_size_is_told_apart() {
        let verdict = plan(&Policy::default(), Disk::default(), &[], &BTreeSet::new(), at(0));
        assert_eq!(verdict, Verdict::NoDisk);
    }
}

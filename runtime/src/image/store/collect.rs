//! What goes when nobody needs it: images by disk thresholds, content without an image, what died on its way.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use nix::fcntl::FlockArg;

use super::{Image, OrNotFound, Store, Usage, disk_usage, entries, hex_of};
use crate::image::ImageError;

/// A download that nobody has continued for a day is given up.
const DOWNLOAD_AGE: i64 = 24 * 60 * 60;

/// When images are removed to make room, and how many: upstream's kubelet has these three numbers.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Above this use of the disk, in percent, images go.
    pub high_percent: u8,
    /// Until this is reached.
    pub low_percent: u8,
    /// No image goes that was used or came within this time.
    pub minimum_age: SignedDuration,
}

/// How full a disk is.
#[derive(Clone, Copy, Debug)]
pub struct DiskUse {
    /// All its bytes.
    pub capacity: u64,
    /// Those that are free.
    pub available: u64,
}

/// An image as far as its removal is concerned.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its id.
    pub id: String,
    /// Bytes that its removal brings at most.
    pub size: u64,
    /// When the last container was made of it.
    pub last_used_at: Timestamp,
    /// A container is made of it, or it is pinned.
    pub needed: bool,
}

/// What is to be done about a disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Removal {
    /// Images to remove, the longest unused first.
    pub images: Vec<String>,
    /// Bytes that are still wanting when all those are gone.
    pub missing: u64,
}

/// Chooses the images that make room.
pub fn plan(candidates: &[Candidate], disk: DiskUse, policy: &Policy, now: Timestamp) -> Removal {
    let used = disk.capacity.saturating_sub(disk.available);
    let share = |percent: u8| (u128::from(disk.capacity) * u128::from(percent) / 100) as u64;
    if disk.capacity == 0 || used < share(policy.high_percent) {
        return Removal::default();
    }
    let mut wanted = used.saturating_sub(share(policy.low_percent));
    let mut idle: Vec<&Candidate> = candidates
        .iter()
        .filter(|image| !image.needed && now.duration_since(image.last_used_at) >= policy.minimum_age)
        .collect();
    idle.sort_by_key(|image| (image.last_used_at, image.id.clone()));
    let mut removal = Removal::default();
    for image in idle {
        if wanted == 0 {
            break;
        }
        wanted = wanted.saturating_sub(image.size);
        removal.images.push(image.id.clone());
    }
    removal.missing = wanted;
    removal
}

/// What a collection took away.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Names of images, and ids of those without one.
    pub removed: Vec<String>,
    /// Bytes that are free now.
    pub bytes: u64,
}

/// How much of something there is, and how much of it nobody needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// How many there are.
    pub total: usize,
    /// How many are in use.
    pub active: usize,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Bytes that would be free if what is not in use went.
    pub reclaimable: u64,
}

impl Store {
    /// Deletes layers and blobs that no image and no container needs, and what dead imports have left.
    pub fn collect_garbage(&self) -> Result<(), ImageError> {
        self.collect(Timestamp::now(), DOWNLOAD_AGE).map(drop)
    }

    /// Removes images that no container uses: those without a tag, or all; pinned ones stay. Unfinished downloads
    /// go as well.
    pub fn prune(&self, all: bool) -> Result<Collected, ImageError> {
        let users = self.containers_by_image()?;
        let idle = |image: &&Image| !users.contains_key(&image.id) && !image.pinned;
        let images = self.list()?;
        let going: Vec<&Image> =
            images.iter().filter(idle).filter(|image| all || image.tags.is_empty()).collect();
        self.remove_images(&going, 0)
    }

    /// Makes room when the disk is fuller than the policy wants; tells what is still wanting, too.
    pub fn make_room(&self, policy: &Policy, now: Timestamp) -> Result<(Collected, u64), ImageError> {
        let disk = self.disk()?;
        let users = self.containers_by_image()?;
        let images = self.list()?;
        let candidates: Vec<Candidate> = images
            .iter()
            .map(|image| Candidate {
                id: image.id.clone(),
                size: image.size,
                last_used_at: image.last_used_at,
                needed: image.pinned || users.contains_key(&image.id),
            })
            .collect();
        let removal = plan(&candidates, disk, policy, now);
        let going: Vec<&Image> = images.iter().filter(|image| removal.images.contains(&image.id)).collect();
        Ok((self.remove_images(&going, DOWNLOAD_AGE)?, removal.missing))
    }

    /// The disk that the images are on.
    pub fn disk(&self) -> Result<DiskUse, ImageError> {
        let of = nix::sys::statvfs::statvfs(&self.root)
            .map_err(|error| ImageError::storage("measure", &self.root)(error.into()))?;
        let size = of.fragment_size();
        Ok(DiskUse { capacity: of.blocks() * size, available: of.blocks_available() * size })
    }

    /// Images and writable layers: how many, how large, how much of it is needed.
    pub fn shares(&self) -> Result<[(&'static str, Share); 3], ImageError> {
        let users = self.containers_by_image()?;
        let images = self.list()?;
        let mut of_images = Share { total: images.len(), ..Share::default() };
        let (mut active_layers, mut all_layers) = (BTreeSet::new(), BTreeSet::new());
        for image in &images {
            let in_use = users.contains_key(&image.id);
            of_images.active += usize::from(in_use);
            let layers = image.config.rootfs.diff_ids.iter().cloned();
            if in_use { active_layers.extend(layers) } else { all_layers.extend(layers) }
        }
        let measure = |path: PathBuf| disk_usage(&path).map_err(ImageError::storage("measure", path));
        of_images.bytes = self.usage(Usage::Images)?.0;
        for layer in all_layers.difference(&active_layers) {
            of_images.reclaimable += measure(self.layer_path(layer))?.0;
        }
        let mut of_containers = Share::default();
        for snapshot in self.all_snapshots()? {
            of_containers.total += 1;
            of_containers.active += 1;
            of_containers.bytes += measure(snapshot)?.0;
        }
        let blobs = entries(&self.blobs())?.len();
        let of_blobs = Share {
            total: blobs,
            active: blobs,
            bytes: measure(self.blobs())?.0 + measure(self.downloads())?.0,
            reclaimable: measure(self.downloads())?.0,
        };
        Ok([("Images", of_images), ("Containers", of_containers), ("Packed layers", of_blobs)])
    }

    fn remove_images(&self, images: &[&Image], download_age: i64) -> Result<Collected, ImageError> {
        let mut removed = Vec::new();
        for image in images {
            for name in image.names() {
                let path = self.reference_path(name);
                fs::remove_file(&path).or_not_found().map_err(ImageError::storage("remove", path))?;
                removed.push(name.clone());
            }
        }
        let bytes = self.collect(Timestamp::now(), download_age)?;
        Ok(Collected { removed, bytes })
    }

    /// Puts aside under the lock what nobody needs, and deletes it without: that may take long.
    fn collect(&self, now: Timestamp, download_age: i64) -> Result<u64, ImageError> {
        let bin = self.lease()?;
        let mut bytes = 0;
        let mut dead = Vec::new();
        {
            let _alone = self.lock(FlockArg::LockExclusive)?;
            let needed = self.needed(&mut dead)?;
            for path in self.files()? {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if needed.contains(&name) {
                    continue;
                }
                // A layer and its packed form may have the same digest.
                let kind = path.parent().and_then(|parent| parent.file_name()).unwrap_or_default();
                let aside = bin.directory().join(format!("{}-{name}", kind.to_string_lossy()));
                fs::rename(&path, &aside).or_not_found().map_err(ImageError::storage("remove", path))?;
            }
        }
        bytes += disk_usage(bin.directory()).map_err(ImageError::storage("measure", bin.directory()))?.0;
        for directory in dead {
            bytes += disk_usage(&directory).map_err(ImageError::storage("measure", &directory))?.0;
            fs::remove_dir_all(&directory)
                .or_not_found()
                .map_err(ImageError::storage("remove", directory))?;
        }
        drop(bin);
        Ok(bytes + self.remove_downloads(now, download_age)?)
    }

    /// The hexadecimal digests of all that must stay.
    fn needed(&self, dead: &mut Vec<PathBuf>) -> Result<BTreeSet<String>, ImageError> {
        let mut needed = self.leased(dead)?;
        for image in self.list()? {
            needed.insert(hex_of(&image.id).to_owned());
            needed.extend(image.config.rootfs.diff_ids.iter().map(|id| hex_of(id).to_owned()));
            let pinned = image.digests.iter().filter_map(|name| Some(name.split_once('@')?.1));
            needed.extend(pinned.map(|digest| hex_of(digest).to_owned()));
            if let Some(digest) = &image.manifest {
                needed.insert(hex_of(digest).to_owned());
                let layers = self.manifest(&image)?.map(|manifest| manifest.layers).unwrap_or_default();
                needed.extend(layers.iter().map(|layer| hex_of(&layer.digest).to_owned()));
            }
        }
        for snapshot in self.all_snapshots()? {
            let layers = fs::read_to_string(snapshot.join("layers")).unwrap_or_default();
            needed.extend(layers.lines().map(str::to_owned));
        }
        Ok(needed)
    }

    /// All that is kept by its digest, with unfinished files: under the lock nobody is writing them.
    fn files(&self) -> Result<Vec<PathBuf>, ImageError> {
        let mut files = Vec::new();
        for directory in [self.layers(), self.blobs(), self.root.join("used")] {
            files.extend(entries(&directory)?);
        }
        for directory in [self.layers(), self.blobs(), self.references()] {
            let listed = fs::read_dir(&directory).map_err(ImageError::storage("list", directory))?;
            let unfinished =
                listed.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"."));
            files.extend(unfinished.map(|entry| entry.path()));
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy =
        Policy { high_percent: 85, low_percent: 80, minimum_age: SignedDuration::from_secs(120) };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn image(id: &str, size: u64, used: i64) -> Candidate {
        Candidate { id: id.into(), size, last_used_at: at(used), needed: false }
    }

    fn disk(used: u64) -> DiskUse {
        DiskUse { capacity: 100, available: 100 - used }
    }

    #[test]
    fn nothing_goes_while_there_is_room() {
        let images = [image("a", 50, 0)];
        assert_eq!(plan(&images, disk(84), &POLICY, at(1000)), Removal::default());
    }

    #[test]
    fn the_longest_unused_go_first_and_only_as_many_as_needed() {
        let images = [image("new", 5, 500), image("old", 4, 100), image("middle", 4, 200)];
        let removal = plan(&images, disk(88), &POLICY, at(1000));
        assert_eq!(removal, Removal { images: vec!["old".into(), "middle".into()], missing: 0 });
    }

    #[test]
    fn what_is_needed_or_young_stays_and_the_lack_is_told() {
        let images = [
            Candidate { needed: true, ..image("used", 50, 0) },
            image("young", 50, 900),
            image("idle", 3, 0),
        ];
        let removal = plan(&images, disk(90), &POLICY, at(1000));
        assert_eq!(removal, Removal { images: vec!["idle".into()], missing: 7 });
    }

    proptest! {
        #[test]
        fn no_needed_image_is_ever_removed(
            images in prop::collection::vec((0u64..100, 0i64..2000, any::<bool>()), 0..20),
            used in 0u64..=100,
        ) {
            let candidates: Vec<Candidate> = images.iter().enumerate()
                .map(|(number, &(size, used, needed))| Candidate { needed, ..image(&number.to_string(), size, used) })
                .collect();
            let removal = plan(&candidates, disk(used), &POLICY, at(2000));
            for id in &removal.images {
                let image = &candidates[id.parse::<usize>().unwrap()];
                prop_assert!(!image.needed && image.last_used_at <= at(1880));
            }
        }
    }
}

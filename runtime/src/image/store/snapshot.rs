//! Writable layers of containers, and which images they keep.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::FlockArg;

use super::{Image, OrNotFound, SNAPSHOTS, Store, entries, hex_of};
use crate::image::ImageError;

impl Store {
    /// Makes the writable layer of a container on top of an image; until it is removed, so do its layers stay.
    pub fn create_snapshot(&self, container: &str, image: &Image) -> Result<PathBuf, ImageError> {
        let _not_collecting = self.lock(FlockArg::LockShared)?;
        if !self.layer_paths(image).iter().all(|layer| layer.is_dir()) {
            return Err(ImageError::Gone { id: image.id.clone() });
        }
        // The time that the kernel would give the file is too coarse to tell which image was used last.
        let used = self.used_path(&image.id);
        File::create(&used)
            .and_then(|file| file.set_modified(SystemTime::now()))
            .map_err(ImageError::storage("write", used))?;
        let directory = self.snapshot_path(container);
        let create = || {
            fs::create_dir_all(directory.join("upper"))?;
            fs::create_dir_all(directory.join("work"))?;
            let layers: Vec<&str> = image.config.rootfs.diff_ids.iter().map(|id| hex_of(id)).collect();
            fs::write(directory.join("image"), &image.id)?;
            fs::write(directory.join("layers"), layers.join("\n"))
        };
        create().map_err(ImageError::storage("create", &directory))?;
        Ok(directory)
    }

    /// Keeps the layers of one more image, which a container has as a volume, for as long as its writable layer.
    pub fn keep_layers(&self, container: &str, image: &Image) -> Result<(), ImageError> {
        let _not_collecting = self.lock(FlockArg::LockShared)?;
        let snapshot = self.snapshot_path(container);
        let layers: String =
            image.config.rootfs.diff_ids.iter().map(|id| format!("\n{}", hex_of(id))).collect();
        let append = |name: &str, create: bool, text: &str| {
            let path = snapshot.join(name);
            let file = fs::OpenOptions::new().append(true).create(create).open(&path);
            let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
            written.map_err(ImageError::storage("write", path))
        };
        append("layers", false, &layers)?;
        append("volumes", true, &format!("{}\n", image.id))
    }

    /// Deletes the writable layer of a container; that it is gone already is no error.
    pub fn remove_snapshot(&self, container: &str) -> Result<(), ImageError> {
        let directory = self.snapshot_path(container);
        fs::remove_dir_all(&directory).or_not_found().map_err(ImageError::storage("remove", directory))
    }

    /// Containers that have a writable layer.
    pub fn snapshot_names(&self) -> Result<Vec<String>, ImageError> {
        let names = entries(&self.snapshots())?;
        Ok(names.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    /// Where the writable layer of a container is.
    pub fn snapshot_path(&self, container: &str) -> PathBuf {
        self.snapshots().join(container)
    }

    /// Which containers are made of which image, or have it as a volume, by the image's id.
    pub fn containers_by_image(&self) -> Result<BTreeMap<String, Vec<String>>, ImageError> {
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for snapshot in self.all_snapshots()? {
            let container = snapshot.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for image in images_of(&snapshot) {
                users.entry(image).or_default().push(container.clone());
            }
        }
        Ok(users)
    }

    /// The images that another runtime beside this one has containers of.
    pub fn used_by_others(&self) -> Result<BTreeSet<String>, ImageError> {
        let mut used = BTreeSet::new();
        for snapshot in self.all_snapshots()? {
            if snapshot.parent() != Some(&self.snapshots) {
                used.extend(images_of(&snapshot));
            }
        }
        Ok(used)
    }

    /// The writable layers of all runtimes that share these images.
    pub(super) fn all_snapshots(&self) -> Result<Vec<PathBuf>, ImageError> {
        let mut all = Vec::new();
        for directory in entries(&self.root)? {
            let is_one =
                directory.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SNAPSHOTS));
            if is_one {
                all.extend(entries(&directory)?);
            }
        }
        Ok(all)
    }
}

/// The images that a container is made of and has as volumes, each once.
fn images_of(snapshot: &Path) -> BTreeSet<String> {
    let read = |name: &str| fs::read_to_string(snapshot.join(name)).unwrap_or_default();
    [read("image"), read("volumes")].iter().flat_map(|text| text.lines()).map(str::to_owned).collect()
}

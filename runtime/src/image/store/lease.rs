//! What an import or a pull needs until its image has a name.
//!
//! A lease is a directory whose file `needs` is locked while its process lives and lists digests that must not
//! be collected. Unfinished layers are below it. The kernel lets the lock go with the process, however that
//! ends, so that whoever finds a lease without its lock may delete it with all that is in it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::{Image, OrNotFound, Store, entries, hex_of};
use crate::image::ImageError;
use crate::sys::failpoint;

const NEEDS: &str = "needs";

/// Keeps content from being collected, and has a place for what is not finished. Dropped, it is gone.
#[derive(Debug)]
pub(in crate::image) struct Lease {
    store: Store,
    directory: PathBuf,
    needs: Flock<File>,
}

impl Store {
    /// Begins to need content.
    pub(in crate::image) fn lease(&self) -> Result<Lease, ImageError> {
        // No collector may see it before it has its lock.
        let _not_collecting = self.lock(FlockArg::LockShared)?;
        let directory = self.leases().join(uuid::Uuid::new_v4().simple().to_string());
        fs::create_dir(&directory).map_err(ImageError::storage("create", &directory))?;
        let path = directory.join(NEEDS);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(ImageError::storage("create", &path))?;
        let needs = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, error)| ImageError::storage("lock", path)(error.into()))?;
        failpoint::reach("pull.leased");
        Ok(Lease { store: self.clone(), directory, needs })
    }

    /// The hexadecimal digests that running imports and pulls need; what dead ones have left is in `dead`. The
    /// caller holds the store's lock alone.
    pub(super) fn leased(&self, dead: &mut Vec<PathBuf>) -> Result<BTreeSet<String>, ImageError> {
        let mut needed = BTreeSet::new();
        for directory in entries(&self.leases())? {
            let path = directory.join(NEEDS);
            let Ok(file) = File::open(&path) else {
                dead.push(directory);
                continue;
            };
            match Flock::lock(file, FlockArg::LockSharedNonblock) {
                Ok(_) => dead.push(directory),
                Err(_) => match fs::read_to_string(&path) {
                    Ok(listed) => needed.extend(listed.lines().map(str::to_owned)),
                    // Its import has just ended; what it made has names, which are read after this.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(ImageError::storage("read", path)(error)),
                },
            }
        }
        Ok(needed)
    }
}

impl Lease {
    /// From now on this content stays, if it is there.
    pub(in crate::image) fn keep(&self, digest: &str) -> Result<(), ImageError> {
        let _not_collecting = self.store.lock(FlockArg::LockShared)?;
        let line = format!("{}\n", hex_of(digest));
        (&*self.needs)
            .write_all(line.as_bytes())
            .map_err(ImageError::storage("write", self.directory.join(NEEDS)))
    }

    /// From now on all of this image stays.
    pub(in crate::image) fn keep_image(&self, image: &Image) -> Result<(), ImageError> {
        self.keep(&image.id)?;
        image.config.rootfs.diff_ids.iter().try_for_each(|diff_id| self.keep(diff_id))?;
        let Some(manifest) = &image.manifest else { return Ok(()) };
        self.keep(manifest)?;
        let layers = self.store.manifest(image)?.map(|manifest| manifest.layers).unwrap_or_default();
        layers.iter().try_for_each(|layer| self.keep(&layer.digest))
    }

    /// Where unfinished things go.
    pub(in crate::image) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory).or_not_found() {
            tracing::warn!(directory = %self.directory.display(), %error, "an unfinished import is left for the collector");
        }
    }
}

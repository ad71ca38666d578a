//! A packed layer that is on its way: what has come stays, and is continued from where it ended.
//!
//! The file is locked by whoever fetches it. Another that wants the same content waits for the lock, in this
//! process or in any other, and then finds it done.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::{OrNotFound, Store, hex_of, sync_directory};
use crate::image::ImageError;

/// What there is of some content.
#[derive(Debug)]
pub(in crate::image) enum Started {
    /// All of it: a blob.
    Present(PathBuf),
    /// This much; the rest is to be fetched, and nobody else does it.
    Missing(Download),
}

/// Content that is being fetched.
#[derive(Debug)]
pub(in crate::image) struct Download {
    file: Flock<File>,
    path: PathBuf,
}

impl Store {
    /// Begins or continues to fetch content; waits while somebody else does.
    pub(in crate::image) fn start_download(&self, digest: &str) -> Result<Started, ImageError> {
        let path = self.downloads().join(hex_of(digest));
        loop {
            let blob = self.blob_path(digest);
            if blob.exists() {
                return Ok(Started::Present(blob));
            }
            let file = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&path);
            let file = file.map_err(ImageError::storage("open", &path))?;
            let file = Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, error)| ImageError::storage("lock", &path)(error.into()))?;
            // Who had the lock may have finished, or given up and removed it.
            if is_still(&file, &path).map_err(ImageError::storage("open", &path))? && !blob.exists() {
                return Ok(Started::Missing(Download { file, path }));
            }
        }
    }

    /// Removes what nobody fetches any more and is older than `age` seconds; tells how many bytes it was.
    pub(super) fn remove_downloads(&self, now: jiff::Timestamp, age: i64) -> Result<u64, ImageError> {
        let mut bytes = 0;
        for path in super::entries(&self.downloads())? {
            let Ok(file) = File::open(&path) else { continue };
            let Ok(file) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
            let metadata = file.metadata().map_err(ImageError::storage("read", &path))?;
            if now.as_second() - metadata.mtime() >= age {
                fs::remove_file(&path).or_not_found().map_err(ImageError::storage("remove", &path))?;
                bytes += metadata.blocks() * 512;
            }
        }
        Ok(bytes)
    }
}

impl Download {
    /// How many bytes have come.
    pub(in crate::image) fn length(&self) -> Result<u64, ImageError> {
        Ok(self.file.metadata().map_err(ImageError::storage("read", &self.path))?.len())
    }

    /// A handle for reading and writing.
    pub(in crate::image) fn file(&self) -> Result<File, ImageError> {
        self.file.try_clone().map_err(ImageError::storage("open", &self.path))
    }

    /// Throws away what has come: it is not what it should be.
    pub(in crate::image) fn clear(&self) -> Result<(), ImageError> {
        self.file.set_len(0).map_err(ImageError::storage("write", &self.path))
    }

    /// All of it is here and verified: it becomes a blob.
    pub(in crate::image) fn finish(self, store: &Store, digest: &str) -> Result<(), ImageError> {
        let blob = store.blob_path(digest);
        let finish = || {
            self.file.sync_all()?;
            fs::rename(&self.path, &blob)?;
            sync_directory(blob.parent().unwrap_or(Path::new("/")))
        };
        finish().map_err(ImageError::storage("write", &blob))
    }

    /// Removes what has come.
    pub(in crate::image) fn remove(self) -> Result<(), ImageError> {
        fs::remove_file(&self.path).or_not_found().map_err(ImageError::storage("remove", &self.path))
    }
}

/// Whether the path still leads to the open file.
fn is_still(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

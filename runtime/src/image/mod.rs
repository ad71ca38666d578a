//! Images: what containers are made from.
//!
//! A [`Store`] is a directory that any process may open: the server and `coracle image import` work on
//! it side by side. Blobs are named by their digest, layers are unpacked once under the digest of their
//! content, and a reference is one small file; each appears by an atomic rename after it was synced, so
//! that there is never half an image. [`archive`] reads what `docker save` and OCI tools write,
//! [`layer`] unpacks, [`mod@reference`] knows names.

pub mod archive;
mod config;
pub mod layer;
pub mod reference;
mod store;

pub use config::{Execution, ImageConfig};
pub use reference::Reference;
pub use store::{Image, Store, Usage};
pub(crate) use store::{OrNotFound, disk_usage};

use std::io;
use std::path::PathBuf;

/// Why something could not be done with an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name does not follow the rules of references.
    #[error("couldn't parse image name {name:?}: {reason}")]
    InvalidReference {
        /// What was given.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// The file is no image archive, or a broken one.
    #[error("not an image archive: {reason}")]
    InvalidArchive {
        /// What is wrong with it.
        reason: String,
    },
    /// Content differs from what its digest promises.
    #[error("{what} is corrupt: its digest is {actual}, not {expected}")]
    DigestMismatch {
        /// Which part of the archive.
        what: String,
        /// What was promised.
        expected: String,
        /// What was found.
        actual: String,
    },
    /// An entry of a layer cannot be unpacked.
    #[error("failed to unpack {entry:?} of layer {layer}")]
    Unpack {
        /// The layer's name in the archive.
        layer: String,
        /// The entry's path in the layer.
        entry: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store's own files cannot be read or written.
    #[error("failed to {action} {path}")]
    Storage {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The archive's bytes cannot be read.
    #[error("failed to read the archive")]
    Read(#[source] io::Error),
}

impl ImageError {
    pub(crate) fn invalid(reason: impl Into<String>) -> ImageError {
        ImageError::InvalidArchive { reason: reason.into() }
    }

    pub(crate) fn storage(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> ImageError {
        let path = path.into();
        move |source| ImageError::Storage { action, path, source }
    }
}

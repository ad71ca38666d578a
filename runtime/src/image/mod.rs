//! Images: what containers are made from.
//!
//! A [`Store`] is a directory that any process may open: the server and `coracle image` work on it side by
//! side. Blobs are named by their digest, layers are unpacked once under the digest of their content, and a
//! reference is one small file; each appears by an atomic rename after it was synced, so that there is never
//! half an image.
//!
//! Images come from registries ([`pull`] decides the order, [`registry`] talks) and from archives ([`archive`],
//! [`airgap`]); both ways end in [`packed`], which unpacks a [`layer`] and verifies it. They leave by [`push`]
//! and [`export`]. [`mod@reference`] knows names, [`manifest`] the documents in between.

pub mod airgap;
mod archive;
mod commit;
mod config;
mod export;
pub mod layer;
pub mod manifest;
mod packed;
pub mod pull;
pub mod push;
pub mod reference;
pub mod registry;
mod store;

pub use config::{Execution, ImageConfig};
pub use manifest::Platform;
pub use pull::Puller;
pub use reference::Reference;
pub use store::{Candidate, Collected, DiskUse, Image, Policy, Removal, Share, Store, Usage, plan};
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
    /// A layer's bytes cannot be read or are not packed as they should be.
    #[error("failed to read layer {layer}")]
    ReadLayer {
        /// The layer's name.
        layer: String,
        /// What the system or the decoder said.
        source: io::Error,
    },
    /// A manifest or an index is not what it should be.
    #[error("invalid manifest {what}: {reason}")]
    InvalidManifest {
        /// Its digest or file.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An image's configuration is not what it should be.
    #[error("invalid image configuration {what}: {reason}")]
    InvalidConfig {
        /// Its digest or file.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The image is for other machines.
    #[error("no match for platform {machine} in manifest of {what}, which is for {available}: not found")]
    WrongPlatform {
        /// The image.
        what: String,
        /// What this machine is.
        machine: String,
        /// What the image is for.
        available: String,
    },
    /// Somebody has removed the image meanwhile.
    #[error("image {id} was removed: not found")]
    Gone {
        /// Its id.
        id: String,
    },
    /// The layers of the image were not kept as they came.
    #[error("the packed layers of {name} are not here, pull or import it again")]
    NotKept {
        /// The image.
        name: String,
    },
    /// A registry could not be asked, or refused.
    #[error(transparent)]
    Registry(#[from] registry::RegistryError),
    /// The name could not be looked up.
    #[error("failed to resolve reference {reference:?}")]
    Resolve {
        /// The whole name.
        reference: String,
        /// What the registry said.
        source: registry::RegistryError,
    },
    /// A pull failed.
    #[error("failed to pull and unpack image {reference:?}")]
    Pull {
        /// The whole name.
        reference: String,
        /// Why.
        source: Box<ImageError>,
    },
    /// A push failed.
    #[error("failed to push image {reference:?}")]
    Push {
        /// The whole name.
        reference: String,
        /// Why.
        source: Box<ImageError>,
    },
}

impl ImageError {
    /// The error with all its causes on one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let next = error.to_string();
            // Some causes repeat what they are the cause of.
            if !text.ends_with(&next) {
                text = format!("{text}: {next}");
            }
            cause = error.source();
        }
        text
    }

    /// What the registry said, if it was one that refused.
    pub fn registry(&self) -> Option<&registry::RegistryError> {
        match self {
            ImageError::Registry(error) | ImageError::Resolve { source: error, .. } => Some(error),
            ImageError::Pull { source, .. } | ImageError::Push { source, .. } => source.registry(),
            _ => None,
        }
    }

    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let io = error.downcast_ref::<io::Error>();
            if io.is_some_and(|error| matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// Whether content is not what it should be, in contrast to a machine that cannot take it: fetched again it may
    /// be good.
    pub(crate) fn is_corrupt(&self) -> bool {
        match self {
            ImageError::DigestMismatch { .. } | ImageError::InvalidArchive { .. } => true,
            ImageError::ReadLayer { source, .. }
            | ImageError::Read(source)
            | ImageError::Unpack { source, .. } => source.raw_os_error().is_none(),
            _ => false,
        }
    }

    /// Whether a file of the store is not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, ImageError::Storage { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

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

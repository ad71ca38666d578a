//! Images as CRI tells them.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use cri::{Code, Error, v1};
use jiff::Timestamp;
use tokio::sync::watch;

use super::info::image_info;
use super::sandboxes::source_of;
use super::{Shared, nanoseconds};
use crate::image::pull::{self, progress::Progress};
use crate::image::registry::{self, Credentials, RegistryError};
use crate::image::{Image, ImageError, Reference, Usage};

/// How often a long pull is mentioned in the log.
const PROGRESS: Duration = Duration::from_secs(10);

impl Shared {
    pub(super) fn list_images(&self, filter: Option<v1::ImageFilter>) -> Result<Vec<v1::Image>, Error> {
        let name = filter.and_then(|filter| filter.image).map(|image| image.image).unwrap_or_default();
        let images = if name.is_empty() {
            self.images.list().map_err(unreadable)?
        } else {
            self.images.find(&name).map_err(unreadable)?.into_iter().collect()
        };
        let elsewhere = self.images.used_by_others().map_err(unreadable)?;
        Ok(images.iter().map(|image| cri_image(image, &elsewhere)).collect())
    }

    /// An image that is not there is no error: the answer is empty.
    pub(super) fn image_status(
        &self,
        spec: Option<v1::ImageSpec>,
        verbose: bool,
    ) -> Result<v1::ImageStatusResponse, Error> {
        let name = spec.unwrap_or_default().image;
        let image = self.images.find(&name).map_err(unreadable)?;
        let info = image.as_ref().filter(|_| verbose).map(image_info).unwrap_or_default();
        // Who asks for one image wants to use it, not to remove it.
        let image = image.as_ref().map(|image| cri_image(image, &BTreeSet::new()));
        Ok(v1::ImageStatusResponse { image, info })
    }

    /// Asks the registry, also when there is an image of this name: the caller has decided that it may be old.
    /// The answer is the image's id, whatever registry it came from: containers and lists tell the same.
    pub(super) async fn pull_image(
        &self,
        spec: Option<v1::ImageSpec>,
        auth: Option<v1::AuthConfig>,
    ) -> Result<String, Error> {
        let name = spec.unwrap_or_default().image;
        let reference =
            Reference::parse(&name).map_err(|error| Error::invalid_argument(error.to_string()))?;
        let credentials = auth.and_then(|auth| Credentials::of_cri(&auth, reference.registry()));
        let (progress, watched) = watch::channel(Progress::default());
        let options = pull::Options {
            registry: registry::Options { credentials, ..Default::default() },
            progress: Some(progress),
            ..Default::default()
        };
        let pulled = tokio::select! {
            pulled = self.puller.pull(&reference, &options) => pulled,
            never = tell_progress(watched) => match never {},
        };
        match pulled {
            Ok(image) => Ok(image.id),
            Err(error) => match self.imported(&reference, &error)? {
                Some(image) => Ok(image.id),
                None => Err(refusal(&error)),
            },
        }
    }

    /// An image that somebody has imported stands in where its registry does not answer at all: who brings images
    /// by hand has none, and yet the default policy for `latest` is to pull.
    fn imported(&self, reference: &Reference, error: &ImageError) -> Result<Option<Image>, Error> {
        if !error.registry().is_some_and(RegistryError::is_unreachable) {
            return Ok(None);
        }
        let image = self.images.find(&reference.to_string()).map_err(unreadable)?;
        let image = image.filter(|image| image.imported);
        if image.is_some() {
            let (image, error) = (reference.to_string(), error.chain());
            tracing::warn!(image, error, "the registry does not answer, the imported image is used");
        }
        Ok(image)
    }

    pub(super) fn remove_image(&self, spec: Option<v1::ImageSpec>) -> Result<(), Error> {
        let name = spec.unwrap_or_default().image;
        // One that is not there is removed.
        self.images.remove(&name).map_err(unreadable)?;
        self.images.collect_garbage().map_err(unreadable)
    }

    pub(super) fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse, Error> {
        let usage = |of| -> Result<v1::FilesystemUsage, Error> {
            let (bytes, inodes) = self.images.usage(of).map_err(unreadable)?;
            Ok(v1::FilesystemUsage {
                timestamp: nanoseconds(Timestamp::now()),
                fs_id: Some(v1::FilesystemIdentifier {
                    mountpoint: self.images.root().display().to_string(),
                }),
                used_bytes: Some(v1::UInt64Value { value: bytes }),
                inodes_used: Some(v1::UInt64Value { value: inodes }),
            })
        };
        Ok(v1::ImageFsInfoResponse {
            image_filesystems: vec![usage(Usage::Images)?],
            container_filesystems: vec![usage(Usage::Snapshots)?],
        })
    }
}

/// Says once in a while how far a pull is.
async fn tell_progress(watched: watch::Receiver<Progress>) -> Infallible {
    loop {
        tokio::time::sleep(PROGRESS).await;
        let progress = watched.borrow().clone();
        let (received, size) = progress.bytes();
        tracing::info!(image = progress.reference, received, size, "pulling an image");
    }
}

/// Why a pull failed, with the code that containerd gives it.
fn refusal(error: &ImageError) -> Error {
    let is_missing = error.registry().is_some_and(RegistryError::is_not_found);
    let code = if is_missing { Code::NotFound } else { Code::Unknown };
    Error::new(code, error.chain())
}

fn unreadable(error: ImageError) -> Error {
    let source = source_of(&error);
    Error::unknown(if source.is_empty() { error.to_string() } else { format!("{error}: {source}") })
}

/// An image in CRI's words. One that containers `elsewhere` are made of is pinned: no kubelet sees those.
fn cri_image(image: &Image, elsewhere: &BTreeSet<String>) -> v1::Image {
    let (user, _) = image.config.config.user.split_once(':').unwrap_or((&image.config.config.user, ""));
    let uid = if user.is_empty() { Some(0) } else { user.parse().ok() };
    v1::Image {
        id: image.id.clone(),
        repo_tags: image.tags.clone(),
        repo_digests: image.digests.clone(),
        size: image.size,
        uid: uid.map(|value| v1::Int64Value { value }),
        username: if uid.is_some() { String::new() } else { user.to_owned() },
        spec: Some(v1::ImageSpec { image: image.id.clone(), ..Default::default() }),
        pinned: image.pinned || elsewhere.contains(&image.id),
    }
}

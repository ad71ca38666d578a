//! Images as CRI tells them.

use cri::{Code, Error, v1};
use jiff::Timestamp;

use super::info::image_info;
use super::sandboxes::source_of;
use super::{Shared, nanoseconds};
use crate::image::{Image, ImageError, Reference, Usage};

impl Shared {
    pub(super) fn list_images(&self, filter: Option<v1::ImageFilter>) -> Result<Vec<v1::Image>, Error> {
        let name = filter.and_then(|filter| filter.image).map(|image| image.image).unwrap_or_default();
        let images = if name.is_empty() {
            self.images.list().map_err(unreadable)?
        } else {
            self.images.find(&name).map_err(unreadable)?.into_iter().collect()
        };
        Ok(images.iter().map(cri_image).collect())
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
        Ok(v1::ImageStatusResponse { image: image.as_ref().map(cri_image), info })
    }

    /// An image that is there need not be pulled; others have to be imported.
    pub(super) fn pull_image(&self, spec: Option<v1::ImageSpec>) -> Result<String, Error> {
        let name = spec.unwrap_or_default().image;
        if let Some(image) = self.images.find(&name).map_err(unreadable)? {
            return Ok(image.digests.first().unwrap_or(&image.id).clone());
        }
        let reference =
            Reference::parse(&name).map_err(|error| Error::invalid_argument(error.to_string()))?;
        Err(Error::new(
            Code::NotFound,
            format!(
                "failed to pull and unpack image {name:?}: failed to resolve reference {name:?}: {reference}: not found: \
                 this node does not pull from registries, import the image with `coracle image import`",
                name = reference.to_string(),
            ),
        ))
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

fn unreadable(error: ImageError) -> Error {
    let source = source_of(&error);
    Error::unknown(if source.is_empty() { error.to_string() } else { format!("{error}: {source}") })
}

fn cri_image(image: &Image) -> v1::Image {
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
        pinned: false,
    }
}

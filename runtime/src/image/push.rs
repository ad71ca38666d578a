//! Pushing: an image's blobs, as far as the registry lacks them, and then its manifest.

use futures::{FutureExt, StreamExt, TryStreamExt};

use super::manifest::{Descriptor, OCI_MANIFEST};
use super::registry::{Mounted, Options, Repository};
use super::{Image, ImageError, Puller, Reference};

/// How many blobs go side by side.
const SIDE_BY_SIDE: usize = 3;

/// What a push has done.
#[derive(Clone, Debug, Default)]
pub struct Pushed {
    /// The digest of the manifest: how the image is pinned.
    pub digest: String,
    /// How many blobs were sent.
    pub sent: usize,
    /// How many were linked from another repository.
    pub linked: usize,
    /// How many were there.
    pub existed: usize,
}

impl Puller {
    /// Brings an image to where `to` says.
    pub async fn push(&self, image: &Image, to: &Reference, options: &Options) -> Result<Pushed, ImageError> {
        let pushed = self.push_blobs(image, to, options).await;
        pushed.map_err(|source| ImageError::Push { reference: to.to_string(), source: Box::new(source) })
    }

    async fn push_blobs(
        &self,
        image: &Image,
        to: &Reference,
        options: &Options,
    ) -> Result<Pushed, ImageError> {
        let lease = self.store.lease()?;
        lease.keep_image(image)?;
        let not_kept = || ImageError::NotKept { name: to.to_string() };
        let digest = image.manifest.clone().ok_or_else(not_kept)?;
        let manifest = self.store.manifest(image)?.ok_or_else(not_kept)?;
        let blobs: Vec<&Descriptor> = manifest.layers.iter().chain([&manifest.config]).collect();
        if !blobs.iter().all(|blob| self.store.blob_path(&blob.digest).exists()) {
            return Err(not_kept());
        }
        let images = self.store.list()?;
        let repository = self.registries.repository(to, options)?;
        let mut uploads = Vec::new();
        for blob in blobs {
            uploads.push(self.push_blob(&repository, blob, to, &images).boxed());
        }
        let outcomes: Vec<Mounted> =
            futures::stream::iter(uploads).buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
        let content = self.store.read_blob(&digest)?;
        let media_type = if manifest.media_type.is_empty() { OCI_MANIFEST } else { &manifest.media_type };
        repository.put_manifest(content, media_type).await?;
        // Known to be there, it can be linked from there, and pulled by its digest.
        let pinned = Reference::parse(&format!("{}@{digest}", to.name()))?;
        self.store.tag_leased(&lease, image, &pinned)?;
        let count = |which| outcomes.iter().filter(|outcome| **outcome == which).count();
        Ok(Pushed {
            digest,
            sent: count(Mounted::Sent),
            linked: count(Mounted::Linked),
            existed: count(Mounted::Existed),
        })
    }

    async fn push_blob(
        &self,
        repository: &Repository<'_>,
        blob: &Descriptor,
        to: &Reference,
        images: &[Image],
    ) -> Result<Mounted, ImageError> {
        let path = self.store.blob_path(&blob.digest);
        let size = std::fs::metadata(&path).map_err(ImageError::storage("read", &path))?.len();
        let from = self.other_repository(blob, to, images)?;
        Ok(repository.upload(&blob.digest, &path, size, from.as_deref()).await?)
    }

    /// Another repository of the same registry that has the blob, as far as the names here tell.
    fn other_repository(
        &self,
        blob: &Descriptor,
        to: &Reference,
        images: &[Image],
    ) -> Result<Option<String>, ImageError> {
        for image in images {
            let elsewhere = image
                .digests
                .iter()
                .filter_map(|name| Reference::parse(name).ok())
                .find(|name| name.registry() == to.registry() && name.repository() != to.repository());
            let Some(name) = elsewhere else { continue };
            let layers = self.store.manifest(image)?.map(|manifest| manifest.layers).unwrap_or_default();
            if layers.iter().any(|layer| layer.digest == blob.digest) {
                return Ok(Some(name.repository().to_owned()));
            }
        }
        Ok(None)
    }
}

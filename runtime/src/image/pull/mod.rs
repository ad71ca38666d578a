//! Pulling: from a name at a registry to an image in the store.
//!
//! The name leads to a manifest, perhaps through an index by platform; the manifest to a configuration and to
//! layers. Layers come side by side, and each is unpacked while it comes ([`tail`]). What has come of a layer
//! stays when a pull ends early, and the next one, of whatever process, continues there ([`layer`]). The image
//! gets its name when all of it is there, verified and durable.

mod layer;
pub mod progress;
mod tail;

use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use jiff::Timestamp;
use tokio::sync::watch;

use super::archive::DOCUMENT_LIMIT;
use super::manifest::{self, Descriptor, Document, Manifest, Platform};
use super::packed::expect_digest;
use super::registry::{self, PATIENCE, Registries, RegistryError, Repository};
use super::store::{Lease, Named, checked_digest, digest_of};
use super::{Image, ImageConfig, ImageError, Reference, Store};
use layer::Wanted;
use progress::{Progress, Report};

/// How many layers of an image come side by side, as with containerd.
const SIDE_BY_SIDE: usize = 3;

/// How many indexes may lead to each other.
const DEEPEST_INDEX: usize = 2;

/// Brings images from registries into a store, and back.
pub struct Puller {
    pub(super) store: Store,
    pub(super) registries: Registries,
}

/// What a pull wants otherwise than usual.
#[derive(Debug, Default)]
pub struct Options {
    /// How the registry is met.
    pub registry: registry::Options,
    /// Where the image is to run; here unless told.
    pub platform: Option<Platform>,
    /// Is told how far the pull is.
    pub progress: Option<watch::Sender<Progress>>,
}

impl Puller {
    /// Images go into `store`.
    pub fn new(store: Store, settings: registry::Settings) -> Puller {
        Puller { store, registries: Registries::new(settings) }
    }

    /// Where the images go.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Brings an image here, or what is missing of it. Dropped in between, it leaves no half image.
    pub async fn pull(&self, reference: &Reference, options: &Options) -> Result<Image, ImageError> {
        let pulled = self.pull_layers(reference, options).await;
        pulled
            .map_err(|source| ImageError::Pull { reference: reference.to_string(), source: Box::new(source) })
    }

    async fn pull_layers(&self, reference: &Reference, options: &Options) -> Result<Image, ImageError> {
        let machine = options.platform.clone().unwrap_or_else(Platform::host);
        let repository = self.registries.repository(reference, &options.registry)?;
        let resolved = repository
            .resolve(|digest| self.store.read_blob(digest).ok())
            .await
            .map_err(|source| ImageError::Resolve { reference: reference.to_string(), source })?;
        let lease = Arc::new(self.store.lease()?);
        lease.keep(&resolved.digest)?;
        self.store.write_blob(&resolved.digest, &resolved.content)?;
        let (manifest_digest, manifest) =
            self.manifest(&repository, &lease, (&resolved.digest, &resolved.content), &machine).await?;

        let config_digest = &manifest.config.digest;
        let config_bytes = self.document(&repository, &lease, &manifest.config).await?;
        let config = ImageConfig::parse(&config_bytes, config_digest)?;
        manifest::check_platform(&config, &machine, &reference.to_string())?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            let reason =
                format!("it lists {} layers, the manifest {}", diff_ids.len(), manifest.layers.len());
            return Err(ImageError::InvalidConfig { what: config_digest.clone(), reason });
        }

        let report = Report::begin(options.progress.clone(), reference, &manifest.layers);
        let mut wanted = Vec::new();
        for (number, (blob, diff_id)) in manifest.layers.iter().zip(diff_ids).enumerate() {
            let (lease, report) = (lease.clone(), report.layer(number));
            wanted.push(self.layer(Wanted { repository: &repository, lease, blob, diff_id, report }).boxed());
        }
        let layer_sizes: Vec<u64> =
            futures::stream::iter(wanted).buffered(SIDE_BY_SIDE).try_collect().await?;

        let named = Named {
            reference: format!("{}@{}", reference.name(), resolved.digest),
            image: config_digest.clone(),
            size: layer_sizes.iter().sum(),
            imported_at: Timestamp::now(),
            layer_sizes,
            manifest: Some(manifest_digest),
            pinned: false,
            imported: false,
        };
        self.store.write_named(&named)?;
        if reference.digest().is_none() {
            self.store.write_named(&Named { reference: reference.to_string(), ..named })?;
        }
        let image = self.store.find(&reference.to_string())?;
        image.ok_or_else(|| ImageError::Gone { id: config_digest.clone() })
    }

    /// The manifest for this machine, which is the document itself or one that it leads to.
    async fn manifest(
        &self,
        repository: &Repository<'_>,
        lease: &Lease,
        (digest, content): (&str, &[u8]),
        machine: &Platform,
    ) -> Result<(String, Manifest), ImageError> {
        let mut digest = digest.to_owned();
        let mut document = Document::parse(content, &digest)?;
        for _ in 0..=DEEPEST_INDEX {
            let entries = match document {
                Document::Manifest(manifest) => return Ok((digest, manifest)),
                Document::Index(entries) => entries,
            };
            let chosen = manifest::choose(&entries, machine).ok_or_else(|| ImageError::WrongPlatform {
                what: digest.clone(),
                machine: machine.to_string(),
                available: manifest::platforms(&entries),
            })?;
            lease.keep(&chosen.digest)?;
            digest = chosen.digest.clone();
            if !self.store.blob_path(&digest).exists() {
                let found = repository.manifest(&digest).await?;
                self.store.write_blob(&digest, &found.content)?;
            }
            document = Document::parse(&self.store.read_blob(&digest)?, &digest)?;
        }
        let reason = "it is an index in an index in an index".to_owned();
        Err(ImageError::InvalidManifest { what: digest, reason })
    }

    /// A small blob, from here or from the registry.
    async fn document(
        &self,
        repository: &Repository<'_>,
        lease: &Lease,
        wanted: &Descriptor,
    ) -> Result<Vec<u8>, ImageError> {
        let digest = checked_digest(&wanted.digest)?;
        lease.keep(digest)?;
        if self.store.blob_path(digest).exists() {
            return self.store.read_blob(digest);
        }
        let opened = repository.blob(digest, 0).await?;
        let invalid = |reason: String| RegistryError::Invalid { url: digest.to_owned(), reason };
        let body = http_body_util::Limited::new(opened.body, DOCUMENT_LIMIT as usize).collect();
        let body = tokio::time::timeout(PATIENCE, body).await;
        let body = body.map_err(|_| invalid("the configuration does not come".to_owned()))?;
        let content = body.map_err(|error| invalid(error.to_string()))?.to_bytes();
        expect_digest(&format!("configuration {digest}"), Some(digest), &digest_of(&content))?;
        self.store.write_blob(digest, &content)?;
        Ok(content.to_vec())
    }
}

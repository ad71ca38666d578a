//! An image made of another one and one more layer.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::manifest::{self, Descriptor, Manifest};
use super::packed::{self, Expected};
use super::store::{Named, checked_digest, digest_of, hex_of, layer_size};
use super::{Image, ImageError, Reference, Store};

impl Store {
    /// What an image says about itself, byte for byte.
    pub fn configuration(&self, image: &Image) -> Result<Vec<u8>, ImageError> {
        let path = self.root().join("blobs/sha256").join(hex_of(&image.id));
        fs::read(&path).map_err(ImageError::storage("read", path))
    }

    /// Adds an image with one more layer than `base` has. `layer` is a tar with the digest `diff_id`, which the
    /// configuration names last. Tells the new image's id.
    pub fn commit(
        &self,
        base: &Image,
        layer: impl Read,
        diff_id: &str,
        configuration: &[u8],
        name: &str,
    ) -> Result<String, ImageError> {
        let reference = Reference::parse(name)?;
        let lease = self.lease()?;
        lease.keep_image(base)?;
        lease.keep(checked_digest(diff_id)?)?;
        // Asked now that nobody can take them away.
        if !self.layer_paths(base).iter().all(|layer| layer.is_dir()) {
            return Err(ImageError::Gone { id: base.id.clone() });
        }
        let kept = lease.directory().join("packed");
        let packed_size = pack(layer, &kept)?;
        let file = File::open(&kept).map_err(ImageError::storage("read", &kept))?;
        let expected = Expected { name: diff_id, digest: None, diff_id: Some(diff_id) };
        let unpacked = packed::unpack(file, &lease, &expected)?;
        lease.keep(&unpacked.digest)?;
        let blob = self.blob_path(&unpacked.digest);
        fs::rename(&kept, &blob).map_err(ImageError::storage("write", blob))?;
        packed::publish(&unpacked, self)?;

        let id = digest_of(configuration);
        lease.keep(&id)?;
        self.write_blob(&id, configuration)?;
        let packed = Descriptor {
            media_type: manifest::layer_type(&GZIP),
            digest: unpacked.digest.clone(),
            size: packed_size,
            ..Descriptor::default()
        };
        let manifest = self.manifest_above(base, &id, configuration.len() as u64, packed)?;
        if let Some(content) = &manifest {
            lease.keep(&digest_of(content))?;
            self.write_blob(&digest_of(content), content)?;
        }
        let mut layer_sizes = self.sizes_of_layers(base)?;
        layer_sizes.push(unpacked.size);
        self.write_named(&Named {
            reference: reference.to_string(),
            image: id.clone(),
            size: layer_sizes.iter().sum(),
            imported_at: jiff::Timestamp::now(),
            layer_sizes,
            manifest: manifest.map(|content| digest_of(&content)),
            pinned: false,
            imported: true,
        })?;
        Ok(id)
    }

    /// The manifest of an image with the layers of `base` and one more; none when that has none itself.
    fn manifest_above(
        &self,
        base: &Image,
        config: &str,
        config_size: u64,
        layer: Descriptor,
    ) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(below) = self.manifest(base)? else { return Ok(None) };
        let layers = below.layers.into_iter().map(manifest::oci_layer).chain([layer]).collect();
        Ok(Some(Manifest::of(config, config_size, layers).to_bytes()))
    }

    /// Bytes of each layer, lowest first.
    fn sizes_of_layers(&self, image: &Image) -> Result<Vec<u64>, ImageError> {
        let layers = self.layer_paths(image);
        if image.layer_sizes.len() == layers.len() {
            return Ok(image.layer_sizes.clone());
        }
        layers.iter().rev().map(|layer| layer_size(layer)).collect()
    }
}

/// How everything begins that gzip has packed.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Packs a tar as registries want it; tells how many bytes it takes.
fn pack(mut tar: impl Read, to: &Path) -> Result<u64, ImageError> {
    let mut pack = || -> io::Result<u64> {
        let mut packer = GzEncoder::new(File::create(to)?, Compression::default());
        io::copy(&mut tar, &mut packer)?;
        let file = packer.finish()?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    };
    pack().map_err(ImageError::storage("write", to))
}

//! Writing images into an archive that docker, podman, skopeo, containerd and we ourselves can read: an OCI layout
//! with docker's `manifest.json` beside it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;

use serde_json::{Value, json};

use super::manifest::{OCI_INDEX, OCI_MANIFEST};
use super::store::hex_of;
use super::{Image, ImageError, Reference, Store};

impl Store {
    /// As [`Store::export`], packed by gzip.
    pub fn export_gzip(&self, images: &[(Image, Vec<Reference>)], to: impl Write) -> Result<(), ImageError> {
        let mut packer = flate2::write::GzEncoder::new(to, flate2::Compression::default());
        self.export(images, &mut packer)?;
        packer.finish().and_then(|mut out| out.flush()).map_err(written)
    }

    /// As [`Store::export`], packed by zstd.
    pub fn export_zstd(&self, images: &[(Image, Vec<Reference>)], to: impl Write) -> Result<(), ImageError> {
        let mut packer = zstd::stream::write::Encoder::new(to, 0).map_err(written)?;
        self.export(images, &mut packer)?;
        packer.finish().and_then(|mut out| out.flush()).map_err(written)
    }

    /// Writes images under these names into a tar.
    pub fn export(&self, images: &[(Image, Vec<Reference>)], to: impl Write) -> Result<(), ImageError> {
        let lease = self.lease()?;
        let mut archive = Archive { tar: tar::Builder::new(to), written: BTreeSet::new() };
        let (mut entries, mut described) = (Vec::new(), Vec::new());
        for (image, names) in images {
            lease.keep_image(image)?;
            let name = || names.first().map_or_else(|| image.id.clone(), Reference::to_string);
            let not_kept = || ImageError::NotKept { name: name() };
            let digest = image.manifest.clone().ok_or_else(not_kept)?;
            let manifest = self.manifest(image)?.ok_or_else(not_kept)?;
            let contents = manifest.layers.iter().chain([&manifest.config]).map(|blob| blob.digest.as_str());
            for blob in contents.chain([digest.as_str()]) {
                archive
                    .blob(self, blob)
                    .map_err(|error| if error.is_missing() { not_kept() } else { error })?;
            }
            let size = self.read_blob(&digest)?.len();
            let kind = if manifest.media_type.is_empty() { OCI_MANIFEST } else { &manifest.media_type };
            entries.extend(names.iter().map(|name| entry(kind, &digest, size, Some(name))));
            if names.is_empty() {
                entries.push(entry(kind, &digest, size, None));
            }
            described.push(json!({
                "Config": blob_path(&image.id),
                "RepoTags": names.iter().filter(|name| name.digest().is_none()).map(Reference::to_string).collect::<Vec<_>>(),
                "Layers": manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect::<Vec<_>>(),
            }));
        }
        archive.document("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))?;
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
        archive.document("index.json", &index)?;
        archive.document("manifest.json", &Value::Array(described))?;
        let mut out = archive.tar.into_inner().map_err(written)?;
        out.flush().map_err(written)
    }
}

/// One name in the index.
fn entry(kind: &str, digest: &str, size: usize, name: Option<&Reference>) -> Value {
    let mut entry = json!({ "mediaType": kind, "digest": digest, "size": size });
    if let Some(name) = name {
        entry["annotations"] = json!({
            "io.containerd.image.name": name.to_string(),
            "org.opencontainers.image.ref.name": name.version(),
        });
    }
    entry
}

struct Archive<W: Write> {
    tar: tar::Builder<W>,
    written: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// A blob of the store, once.
    fn blob(&mut self, store: &Store, digest: &str) -> Result<(), ImageError> {
        if !self.written.insert(digest.to_owned()) {
            return Ok(());
        }
        let path = store.blob_path(digest);
        let file = File::open(&path).map_err(ImageError::storage("read", &path))?;
        let size = file.metadata().map_err(ImageError::storage("read", &path))?.len();
        self.tar.append_data(&mut header(size), blob_path(digest), file).map_err(written)
    }

    fn document(&mut self, name: &str, content: &Value) -> Result<(), ImageError> {
        let content = content.to_string();
        self.tar.append_data(&mut header(content.len() as u64), name, content.as_bytes()).map_err(written)
    }
}

/// Times and owners are left out, so that equal images make equal archives.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(tar::EntryType::Regular);
    header
}

fn blob_path(digest: &str) -> String {
    format!("blobs/sha256/{}", hex_of(digest))
}

fn written(error: std::io::Error) -> ImageError {
    ImageError::storage("write", "the archive")(error)
}

//! An image made of another one and one more layer.

use std::fs;
use std::io::{self, Read};

use super::store::{Named, checked_digest, digest_of, hex_of, sync_directory};
use super::{Image, ImageError, OrNotFound, Reference, Store, layer};

impl Store {
    /// What an image says about itself, byte for byte.
    pub fn configuration(&self, image: &Image) -> Result<Vec<u8>, ImageError> {
        let path = self.root().join("blobs/sha256").join(hex_of(&image.id));
        fs::read(&path).map_err(ImageError::storage("read", path))
    }

    /// Adds an image whose lower layers are there already. `layer` is a tar with the digest `diff_id`, which its
    /// configuration names last. Tells the new image's id.
    pub fn commit(
        &self,
        layer: impl Read,
        diff_id: &str,
        configuration: &[u8],
        name: &str,
    ) -> Result<String, ImageError> {
        let reference = Reference::parse(name)?;
        let size = self.add_layer(layer, checked_digest(diff_id)?)?;
        let id = digest_of(configuration);
        self.write_blob(&id, configuration)?;
        let named = serde_json::json!({
            "reference": reference.to_string(),
            "image": id,
            "size": size,
            "imported_at": jiff::Timestamp::now(),
        });
        let named: Named =
            serde_json::from_value(named).map_err(|error| ImageError::invalid(error.to_string()))?;
        self.write_named(&named)?;
        Ok(id)
    }

    fn add_layer(&self, tar: impl Read, diff_id: &str) -> Result<u64, ImageError> {
        let target = self.layer_path(diff_id);
        let temporary = target.with_file_name(format!(".{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&temporary).map_err(ImageError::storage("create", &temporary))?;
        let publish = || -> io::Result<()> {
            nix::unistd::syncfs(fs::File::open(&temporary)?)?;
            match fs::rename(&temporary, &target) {
                // The same layer is there already.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => {}
                result => result?,
            }
            sync_directory(target.parent().unwrap_or(std::path::Path::new("/")))
        };
        let added = layer::unpack(tar, &temporary, diff_id)
            .and_then(|size| publish().map(|()| size).map_err(ImageError::storage("write", &target)));
        fs::remove_dir_all(&temporary).or_not_found().map_err(ImageError::storage("remove", temporary))?;
        added
    }
}

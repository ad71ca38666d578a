//! A layer on its way from packed bytes to an unpacked directory, verified twice: as it was sent, and as it
//! was before it was packed.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::store::{Lease, sync_directory};
use super::{ImageError, Store, layer};
use crate::sys::failpoint;

/// The digests that a layer must have.
#[derive(Clone, Debug)]
pub(super) struct Expected<'a> {
    /// What the layer is called in errors.
    pub name: &'a str,
    /// Of the packed bytes, where somebody has said it.
    pub digest: Option<&'a str>,
    /// Of the plain tar; none when it is to be found out.
    pub diff_id: Option<&'a str>,
}

/// A layer whose content is what was promised, in a directory that has no name yet.
pub(super) struct Unpacked {
    pub directory: PathBuf,
    /// Of the packed bytes.
    pub digest: String,
    pub diff_id: String,
    /// Bytes of its files.
    pub size: u64,
}

/// Unpacks what `packed` reads below the lease. On an error nothing is left.
pub(super) fn unpack(packed: impl Read, lease: &Lease, expected: &Expected) -> Result<Unpacked, ImageError> {
    let directory = lease.directory().join(uuid::Uuid::new_v4().simple().to_string());
    fs::create_dir(&directory).map_err(ImageError::storage("create", &directory))?;
    let unpacked = unpack_verified(packed, &directory, expected);
    if unpacked.is_err() {
        fs::remove_dir_all(&directory).map_err(ImageError::storage("remove", &directory))?;
    }
    failpoint::reach("pull.unpacked");
    unpacked
}

fn unpack_verified(packed: impl Read, directory: &Path, expected: &Expected) -> Result<Unpacked, ImageError> {
    let Expected { name, digest, diff_id } = *expected;
    let read = |source| ImageError::ReadLayer { layer: name.to_owned(), source };
    let mut packed = Hashed::new(packed);
    let mut plain = Hashed::new(decompressed(&mut packed).map_err(read)?);
    let size = layer::unpack(&mut plain, directory, name)?;
    // A tar may end before its file does; the digests are those of whole files.
    io::copy(&mut plain, &mut io::sink()).map_err(read)?;
    let actual_diff_id = plain.digest();
    io::copy(&mut packed, &mut io::sink()).map_err(read)?;
    let actual_digest = packed.digest();
    expect_digest(&format!("layer {name}"), digest, &actual_digest)?;
    expect_digest(&format!("the content of layer {name}"), diff_id, &actual_diff_id)?;
    Ok(Unpacked { directory: directory.to_owned(), digest: actual_digest, diff_id: actual_diff_id, size })
}

/// Gives an unpacked layer its name, durably.
pub(super) fn publish(unpacked: &Unpacked, store: &Store) -> Result<(), ImageError> {
    let target = store.layer_path(&unpacked.diff_id);
    let publish = || {
        if target.exists() {
            return fs::remove_dir_all(&unpacked.directory);
        }
        let directory = fs::File::open(&unpacked.directory)?;
        // One call makes the whole unpacked tree durable, whatever the number of files.
        nix::unistd::syncfs(&directory)?;
        match fs::rename(&unpacked.directory, &target) {
            // Another import was faster with the same layer.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => {
                return fs::remove_dir_all(&unpacked.directory);
            }
            result => result?,
        }
        failpoint::reach("pull.published");
        sync_directory(target.parent().unwrap_or(Path::new("/")))
    };
    publish().map_err(ImageError::storage("write", &target))
}

/// Refuses content whose digest is not the promised one.
pub(super) fn expect_digest(what: &str, expected: Option<&str>, actual: &str) -> Result<(), ImageError> {
    match expected {
        Some(expected) if expected != actual => Err(ImageError::DigestMismatch {
            what: what.to_owned(),
            expected: expected.to_owned(),
            actual: actual.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The plain bytes, whether they are packed by gzip, by zstd or not at all.
pub(super) fn decompressed<'a>(mut packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = Vec::with_capacity(4);
    packed.by_ref().take(4).read_to_end(&mut magic)?;
    let whole = io::Cursor::new(magic.clone()).chain(packed);
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(64 << 10, whole))),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::new(whole)?),
        _ => Box::new(whole),
    })
}

/// A reader that knows the digest of what went through it.
pub(super) struct Hashed<R> {
    reader: R,
    hash: Sha256,
}

impl<R: Read> Hashed<R> {
    pub(super) fn new(reader: R) -> Hashed<R> {
        Hashed { reader, hash: Sha256::new() }
    }

    pub(super) fn digest(self) -> String {
        format!("sha256:{}", hex::encode(self.hash.finalize()))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

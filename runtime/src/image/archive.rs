//! Reading the tar files that `docker save`, `podman save`, `skopeo` and `buildah` write.
//!
//! Both formats are a table of files: first the tar is indexed, then `manifest.json` (docker-archive)
//! or `index.json` (OCI layout) says which file is what. Every digest is verified before an image gets
//! its name.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::store::{Named, checked_digest, digest_of, sync_directory};
use super::{ImageConfig, ImageError, Reference, Store, layer};

/// Manifests and configurations are small; nothing larger is read into memory.
const DOCUMENT_LIMIT: u64 = 8 << 20;

/// Imports all images of the archive and tells their names.
pub(super) fn import(
    store: &Store,
    file: impl Read + Seek,
    name: Option<&str>,
) -> Result<Vec<String>, ImageError> {
    let mut archive = Archive::index(file)?;
    let images = archive.images()?;
    if images.is_empty() {
        return Err(ImageError::invalid("it holds no image"));
    }
    if name.is_some() && images.len() > 1 {
        return Err(ImageError::invalid(format!(
            "it holds {} images, so one name cannot stand for them",
            images.len()
        )));
    }
    let mut names = Vec::new();
    for image in images {
        names.extend(import_image(store, &mut archive, image, name)?);
    }
    Ok(names)
}

/// An image as the archive describes it.
struct Described {
    config: String,
    /// Lowest first: the file, and the digest that it must have if the archive says one.
    layers: Vec<(String, Option<String>)>,
    names: Vec<String>,
    manifest: Option<Vec<u8>>,
}

fn import_image(
    store: &Store,
    archive: &mut Archive<impl Read + Seek>,
    image: Described,
    name: Option<&str>,
) -> Result<Vec<String>, ImageError> {
    let config_bytes = archive.document(&image.config)?;
    let id = digest_of(&config_bytes);
    let config: ImageConfig = serde_json::from_slice(&config_bytes)
        .map_err(|error| ImageError::invalid(format!("{}: {error}", image.config)))?;
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != image.layers.len() {
        return Err(ImageError::invalid(format!(
            "{} lists {} layers, the manifest {}",
            image.config,
            diff_ids.len(),
            image.layers.len()
        )));
    }
    let given: Vec<&str> =
        name.map_or_else(|| image.names.iter().map(String::as_str).collect(), |name| vec![name]);
    if given.is_empty() {
        return Err(ImageError::invalid(
            "it does not say what its image is called; give the name with --name",
        ));
    }
    let mut references: Vec<Reference> = given.into_iter().map(Reference::parse).collect::<Result<_, _>>()?;

    let mut size = 0;
    for ((file, digest), diff_id) in image.layers.iter().zip(diff_ids) {
        size += import_layer(store, archive, file, digest.as_deref(), checked_digest(diff_id)?)?;
    }
    store.write_blob(&id, &config_bytes)?;
    if let Some(manifest) = &image.manifest {
        let digest = digest_of(manifest);
        store.write_blob(&digest, manifest)?;
        let pinned: Vec<Reference> = references
            .iter()
            .filter(|reference| reference.digest().is_none())
            .map(|reference| Reference::parse(&format!("{}@{digest}", reference.name())))
            .collect::<Result<_, _>>()?;
        references.extend(pinned);
    }
    let imported_at = jiff::Timestamp::now();
    let names: Vec<String> = references.iter().map(Reference::to_string).collect();
    for reference in &names {
        store.write_named(&Named { reference: reference.clone(), image: id.clone(), size, imported_at })?;
    }
    Ok(names)
}

/// Unpacks a layer under its diff id, unless it is there; tells its size.
fn import_layer(
    store: &Store,
    archive: &mut Archive<impl Read + Seek>,
    file: &str,
    digest: Option<&str>,
    diff_id: &str,
) -> Result<u64, ImageError> {
    let target = store.layer_path(diff_id);
    let temporary = target.with_file_name(format!(".{}", uuid::Uuid::new_v4().simple()));
    fs::create_dir(&temporary).map_err(ImageError::storage("create", &temporary))?;
    let finished = unpack_verified(archive, file, digest, diff_id, &temporary).and_then(|size| {
        publish_layer(&temporary, &target).map_err(ImageError::storage("write", &target))?;
        Ok(size)
    });
    if finished.is_err() {
        fs::remove_dir_all(&temporary).map_err(ImageError::storage("remove", &temporary))?;
    }
    finished
}

fn unpack_verified(
    archive: &mut Archive<impl Read + Seek>,
    file: &str,
    digest: Option<&str>,
    diff_id: &str,
    directory: &Path,
) -> Result<u64, ImageError> {
    let mut packed = Hashed::new(archive.open(file)?);
    let mut plain = Hashed::new(decompressed(&mut packed, file)?);
    let size = layer::unpack(&mut plain, directory, file)?;
    // A tar may end before its file does; the digests are those of whole files.
    io::copy(&mut plain, &mut io::sink()).map_err(ImageError::Read)?;
    let actual = plain.digest();
    io::copy(&mut packed, &mut io::sink()).map_err(ImageError::Read)?;
    expect_digest(file, digest, packed.digest())?;
    expect_digest(file, Some(diff_id), actual)?;
    Ok(size)
}

fn publish_layer(temporary: &Path, target: &Path) -> io::Result<()> {
    if target.exists() {
        return fs::remove_dir_all(temporary);
    }
    let directory = fs::File::open(temporary)?;
    // One call makes the whole unpacked tree durable, whatever the number of files.
    nix::unistd::syncfs(&directory)?;
    match fs::rename(temporary, target) {
        // Another import was faster with the same layer.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => {
            fs::remove_dir_all(temporary)?
        }
        result => result?,
    }
    sync_directory(target.parent().unwrap_or(Path::new("/")))
}

fn expect_digest(what: &str, expected: Option<&str>, actual: String) -> Result<(), ImageError> {
    match expected {
        Some(expected) if expected != actual => {
            Err(ImageError::DigestMismatch { what: what.to_owned(), expected: expected.to_owned(), actual })
        }
        _ => Ok(()),
    }
}

/// The layer's tar, whether it is packed by gzip or not at all.
fn decompressed<'a>(mut packed: impl Read + 'a, file: &str) -> Result<Box<dyn Read + 'a>, ImageError> {
    let mut magic = Vec::with_capacity(4);
    packed.by_ref().take(4).read_to_end(&mut magic).map_err(ImageError::Read)?;
    let whole = io::Cursor::new(magic.clone()).chain(packed);
    match magic.as_slice() {
        [0x1f, 0x8b, ..] => Ok(Box::new(MultiGzDecoder::new(whole))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            Err(ImageError::invalid(format!("layer {file} is packed by zstd; export the image with gzip")))
        }
        _ => Ok(Box::new(whole)),
    }
}

/// A tar file and where its members are.
struct Archive<File> {
    file: File,
    members: HashMap<String, Member>,
}

enum Member {
    Content {
        offset: u64,
        size: u64,
    },
    /// Old docker archives link equal layers to each other.
    Link(String),
}

impl<File: Read + Seek> Archive<File> {
    fn index(mut file: File) -> Result<Archive<File>, ImageError> {
        let mut members = HashMap::new();
        let mut tar = tar::Archive::new(&mut file);
        let broken = |error: io::Error| ImageError::invalid(error.to_string());
        for entry in tar.entries_with_seek().map_err(broken)? {
            let entry = entry.map_err(broken)?;
            let path = entry.path().map_err(broken)?.into_owned();
            let member = match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    Member::Content { offset: entry.raw_file_position(), size: entry.size() }
                }
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let target = entry.link_name().map_err(broken)?.unwrap_or_default().into_owned();
                    let base = path.parent().unwrap_or(Path::new("")).to_owned();
                    Member::Link(normal(&if entry.header().entry_type().is_symlink() {
                        base.join(target)
                    } else {
                        target
                    }))
                }
                _ => continue,
            };
            members.insert(normal(&path), member);
        }
        Ok(Archive { file, members })
    }

    fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    fn open(&mut self, name: &str) -> Result<io::Take<&mut File>, ImageError> {
        let missing = || ImageError::invalid(format!("it lacks {name}"));
        let mut member = self.members.get(name).ok_or_else(missing)?;
        if let Member::Link(target) = member {
            member = self.members.get(target).ok_or_else(missing)?;
        }
        let Member::Content { offset, size } = *member else { return Err(missing()) };
        self.file.seek(SeekFrom::Start(offset)).map_err(ImageError::Read)?;
        Ok(self.file.by_ref().take(size))
    }

    /// The whole content of a small file.
    fn document(&mut self, name: &str) -> Result<Vec<u8>, ImageError> {
        let mut member = self.open(name)?;
        if member.limit() > DOCUMENT_LIMIT {
            return Err(ImageError::invalid(format!("{name} is too large for what it should be")));
        }
        let mut content = Vec::new();
        member.read_to_end(&mut content).map_err(ImageError::Read)?;
        Ok(content)
    }

    fn json<T: for<'de> Deserialize<'de>>(&mut self, name: &str) -> Result<T, ImageError> {
        let content = self.document(name)?;
        serde_json::from_slice(&content).map_err(|error| ImageError::invalid(format!("{name}: {error}")))
    }

    fn images(&mut self) -> Result<Vec<Described>, ImageError> {
        // New archives of docker hold both forms; the OCI one says more (digests, the manifest).
        if self.has("index.json") && self.has("oci-layout") {
            let images = self.oci_images("index.json", None, None)?;
            let named = |image: &Described| !image.names.is_empty();
            if !self.has("manifest.json") || images.iter().all(named) {
                return Ok(images);
            }
        }
        if self.has("manifest.json") {
            return self.docker_images();
        }
        Err(ImageError::invalid("it has neither manifest.json nor index.json"))
    }

    fn docker_images(&mut self) -> Result<Vec<Described>, ImageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entry {
            config: String,
            #[serde(default)]
            repo_tags: Option<Vec<String>>,
            #[serde(default)]
            layers: Vec<String>,
        }
        let entries: Vec<Entry> = self.json("manifest.json")?;
        let described = entries.into_iter().map(|entry| Described {
            config: entry.config,
            layers: entry.layers.into_iter().map(|layer| (layer, None)).collect(),
            names: entry.repo_tags.unwrap_or_default(),
            manifest: None,
        });
        Ok(described.collect())
    }

    /// The images that an index leads to, for this machine's platform.
    fn oci_images(
        &mut self,
        file: &str,
        digest: Option<&str>,
        name: Option<String>,
    ) -> Result<Vec<Described>, ImageError> {
        let content = self.document(file)?;
        expect_digest(file, digest, digest_of(&content))?;
        let document: OciDocument = serde_json::from_slice(&content)
            .map_err(|error| ImageError::invalid(format!("{file}: {error}")))?;
        let mut images = Vec::new();
        for descriptor in document.manifests {
            if !descriptor.is_for_this_machine() {
                continue;
            }
            let name = descriptor.name().or(name.clone());
            let file = blob_path(&descriptor.digest)?;
            images.extend(self.oci_images(&file, Some(&descriptor.digest), name)?);
        }
        if let Some(config) = document.config {
            let config = blob_path(&config.digest).and_then(|file| {
                expect_digest(&file, Some(&config.digest), digest_of(&self.document(&file)?))?;
                Ok(file)
            })?;
            let layers =
                document.layers.into_iter().map(|layer| Ok((blob_path(&layer.digest)?, Some(layer.digest))));
            let layers = layers.collect::<Result<_, ImageError>>()?;
            images.push(Described {
                config,
                layers,
                names: name.into_iter().collect(),
                manifest: Some(content),
            });
        }
        Ok(images)
    }
}

/// An OCI index (which has manifests) or manifest (which has a config and layers).
#[derive(Deserialize)]
struct OciDocument {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

impl Descriptor {
    fn is_for_this_machine(&self) -> bool {
        self.platform
            .as_ref()
            .is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture())
    }

    /// containerd and docker give the whole name; a bare tag, as skopeo writes it, names nothing.
    fn name(&self) -> Option<String> {
        let given = self.annotations.get("io.containerd.image.name");
        let reference = self.annotations.get("org.opencontainers.image.ref.name");
        given.or(reference.filter(|name| name.contains(['/', ':']))).cloned()
    }
}

/// This machine's architecture by Go's name.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn blob_path(digest: &str) -> Result<String, ImageError> {
    Ok(format!("blobs/{}", checked_digest(digest)?.replace(':', "/")))
}

/// A member's path without `./` and with `..` resolved.
fn normal(path: &Path) -> String {
    let mut parts = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::Normal(part) => parts.push(part),
            std::path::Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    parts.to_string_lossy().into_owned()
}

/// A reader that knows the digest of what went through it.
struct Hashed<R> {
    reader: R,
    hash: Sha256,
}

impl<R: Read> Hashed<R> {
    fn new(reader: R) -> Hashed<R> {
        Hashed { reader, hash: Sha256::new() }
    }

    fn digest(self) -> String {
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

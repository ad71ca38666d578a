//! The directory where images live.
//!
//! ```text
//! blobs/sha256/<digest>      manifests, image configurations and packed layers, as they came
//! layers/<diff id>/          unpacked layers, in overlayfs' own form
//! references/<hash>.json     one name each: which image it means
//! used/<image>               touched when a container is made of the image
//! snapshots/<container>/     writable layers; `layers` in it names the layers that it stands on, `image` and
//!                            `volumes` the images that it is made of and has as volumes
//! snapshots-<owner>/         the same of another runtime beside the node's
//! downloads/<digest>         what has come of a packed layer so far; locked while somebody fetches it
//! leases/<random>/           a running import or pull: what it needs, what it has not finished ([`lease`])
//! ```
//!
//! Short changes are made under a shared lock on `lock`; [`collect`] takes it alone to decide what goes.

mod collect;
mod download;
mod lease;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::fcntl::FlockArg;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use collect::{Candidate, Collected, DiskUse, Policy, Removal, Share, plan};
pub(super) use download::{Download, Started};
pub(super) use lease::Lease;

use super::manifest::{Document, Manifest};
use super::{ImageConfig, ImageError, Reference, archive, reference};
use crate::sys::failpoint;

/// Where the writable layers of the node's own containers are.
const SNAPSHOTS: &str = "snapshots";

/// A directory of images.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    snapshots: PathBuf,
}

/// An image that is there, with all its names.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its configuration, `sha256:...`.
    pub id: String,
    /// Names with a tag.
    pub tags: Vec<String>,
    /// Names with a digest.
    pub digests: Vec<String>,
    /// Bytes of its layers, unpacked.
    pub size: u64,
    /// Bytes of each layer, lowest first; empty where an earlier version did not write it down.
    pub layer_sizes: Vec<u64>,
    /// When it was imported or pulled.
    pub imported_at: Timestamp,
    /// When the last container was made of it, or it came here.
    pub last_used_at: Timestamp,
    /// Whether it must stay although nobody uses it: it came from the folder of archives, and no registry may
    /// have it.
    pub pinned: bool,
    /// Whether it came from an archive and not from a registry.
    pub imported: bool,
    /// The digest of its manifest, whose layers are kept as they came.
    pub manifest: Option<String>,
    /// What it says about itself.
    pub config: ImageConfig,
}

/// What one name means.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Named {
    pub reference: String,
    pub image: String,
    pub size: u64,
    pub imported_at: Timestamp,
    #[serde(default)]
    pub layer_sizes: Vec<u64>,
    #[serde(default)]
    pub manifest: Option<String>,
    #[serde(default)]
    pub pinned: bool,
    /// Names from before images could be pulled were all imported.
    #[serde(default = "yes")]
    pub imported: bool,
}

fn yes() -> bool {
    true
}

impl Store {
    /// Opens the store in `root`, making it where it is missing.
    pub fn open(root: impl Into<PathBuf>) -> Result<Store, ImageError> {
        let root = root.into();
        let store = Store { snapshots: root.join(SNAPSHOTS), root };
        let own = ["blobs/sha256", "layers", "references", "used", "downloads", "leases"];
        for directory in own.map(|name| store.root.join(name)).iter().chain([&store.snapshots]) {
            fs::create_dir_all(directory).map_err(ImageError::storage("create", directory))?;
        }
        Ok(store)
    }

    /// The same images for another runtime: its containers' writable layers are apart from the node's.
    pub fn with_snapshots_of(mut self, owner: &str) -> Result<Store, ImageError> {
        self.snapshots = self.root.join(format!("{SNAPSHOTS}-{owner}"));
        fs::create_dir_all(&self.snapshots).map_err(ImageError::storage("create", &self.snapshots))?;
        Ok(self)
    }

    /// Imports every image of a docker-archive or OCI-layout tar, plain or packed by gzip or zstd; `name` replaces
    /// the archive's own names. Tells the images with the names that they have got.
    pub fn import(&self, file: impl Read + Seek, name: Option<&str>) -> Result<Vec<Image>, ImageError> {
        let names = archive::import(self, file, &archive::Options { name, ..Default::default() })?;
        self.images_called(&names)
    }

    /// As [`Store::import`], for what can only be read once, such as a pipe.
    pub fn import_stream(&self, stream: impl Read, name: Option<&str>) -> Result<Vec<Image>, ImageError> {
        let names = archive::import_stream(self, stream, &archive::Options { name, ..Default::default() })?;
        self.images_called(&names)
    }

    /// The images that have one of these names, with these names alone.
    fn images_called(&self, names: &[String]) -> Result<Vec<Image>, ImageError> {
        let mut images = self.list()?;
        for image in &mut images {
            image.tags.retain(|name| names.contains(name));
            image.digests.retain(|name| names.contains(name));
        }
        images.retain(|image| image.names().next().is_some());
        Ok(images)
    }

    /// All images, by id.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let mut by_id: BTreeMap<String, Vec<Named>> = BTreeMap::new();
        for named in self.all_named()? {
            by_id.entry(named.image.clone()).or_default().push(named);
        }
        let mut images = Vec::with_capacity(by_id.len());
        for names in by_id.into_values() {
            match self.image(names) {
                Ok(image) => images.push(image),
                // Removed since its names were read.
                Err(ImageError::Storage { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(images)
    }

    /// The image that a name, an id or an id's beginning means.
    pub fn find(&self, name: &str) -> Result<Option<Image>, ImageError> {
        // The usual question is by name, and one small file answers it.
        let named = Reference::parse(name).ok().map(|reference| self.read_named(&reference.to_string()));
        let image = match named.transpose()?.flatten() {
            Some(named) => named.image,
            None => match self.id_of(name)? {
                Some(id) => id,
                None => return Ok(None),
            },
        };
        self.names_of(&image)?.map(|names| self.image(names)).transpose()
    }

    /// Takes a name from its image, or all names when it is given by id; false when there is no such image.
    /// Layers that nothing needs any more go with the next [`Store::collect_garbage`].
    pub fn remove(&self, name: &str) -> Result<bool, ImageError> {
        let Some(image) = self.find(name)? else { return Ok(false) };
        let by_name = Reference::parse(name).map(|reference| reference.to_string()).unwrap_or_default();
        let all = image.tags.iter().chain(&image.digests);
        let one: Vec<&String> = all.clone().filter(|known| **known == by_name).collect();
        let removed = if one.is_empty() { all.collect() } else { one };
        for reference in removed {
            let path = self.reference_path(reference);
            fs::remove_file(&path).or_not_found().map_err(ImageError::storage("remove", path))?;
        }
        Ok(true)
    }

    /// Gives an image one more name; what the name meant before, it means no longer.
    pub fn tag(&self, image: &Image, reference: &Reference) -> Result<(), ImageError> {
        let lease = self.lease()?;
        self.tag_leased(&lease, image, reference)
    }

    pub(super) fn tag_leased(
        &self,
        lease: &Lease,
        image: &Image,
        reference: &Reference,
    ) -> Result<(), ImageError> {
        lease.keep_image(image)?;
        // Asked again now that nobody can take it away.
        let Some(names) = self.names_of(&image.id)? else {
            return Err(ImageError::Gone { id: image.id.clone() });
        };
        self.write_named(&Named { reference: reference.to_string(), ..names[0].clone() })
    }

    /// The manifest of an image, if it is known.
    pub fn manifest(&self, image: &Image) -> Result<Option<Manifest>, ImageError> {
        let Some(digest) = &image.manifest else { return Ok(None) };
        let content = self.read_blob(digest)?;
        match Document::parse(&content, digest)? {
            Document::Manifest(manifest) => Ok(Some(manifest)),
            Document::Index(_) => Ok(None),
        }
    }

    /// A small blob: a manifest or a configuration.
    pub fn read_blob(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let path = self.blob_path(digest);
        fs::read(&path).map_err(ImageError::storage("read", path))
    }

    /// The unpacked layers of an image as overlayfs wants them: topmost first.
    pub fn layer_paths(&self, image: &Image) -> Vec<PathBuf> {
        image.config.rootfs.diff_ids.iter().rev().map(|id| self.layer_path(id)).collect()
    }

    /// The directory whose file system holds everything here.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Bytes and inodes below the store's layers, or the snapshots' writable layers.
    pub fn usage(&self, of: Usage) -> Result<(u64, u64), ImageError> {
        let directory = match of {
            Usage::Images => self.layers(),
            Usage::Snapshots => self.snapshots(),
        };
        disk_usage(&directory).map_err(ImageError::storage("measure", directory))
    }

    pub(super) fn layer_path(&self, diff_id: &str) -> PathBuf {
        self.layers().join(hex_of(diff_id))
    }

    /// Writes a blob under its digest.
    pub(super) fn write_blob(&self, digest: &str, content: &[u8]) -> Result<(), ImageError> {
        let path = self.blob_path(digest);
        if path.exists() {
            return Ok(());
        }
        let _not_collecting = self.lock(FlockArg::LockShared)?;
        write_atomically(&path, content)
    }

    /// Where a blob is, if it is there.
    pub(super) fn blob_path(&self, digest: &str) -> PathBuf {
        self.blobs().join(hex_of(digest))
    }

    /// Makes a name mean an image.
    pub(super) fn write_named(&self, named: &Named) -> Result<(), ImageError> {
        let path = self.reference_path(&named.reference);
        let content = serde_json::to_vec(named).expect("a reference is always serialisable");
        let _not_collecting = self.lock(FlockArg::LockShared)?;
        failpoint::reach("pull.described");
        write_atomically(&path, &content)?;
        failpoint::reach("pull.named");
        Ok(())
    }

    fn read_named(&self, reference: &str) -> Result<Option<Named>, ImageError> {
        let path = self.reference_path(reference);
        match fs::read(&path) {
            Ok(content) => serde_json::from_slice(&content)
                .map(Some)
                .map_err(|error| ImageError::storage("read", path)(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ImageError::storage("read", path)(error)),
        }
    }

    fn all_named(&self) -> Result<Vec<Named>, ImageError> {
        let mut all = Vec::new();
        for path in entries(&self.references())? {
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match fs::read(&path) {
                Ok(content) => all.push(
                    serde_json::from_slice(&content)
                        .map_err(|error| ImageError::storage("read", path)(error.into()))?,
                ),
                // Removed since the directory was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(ImageError::storage("read", path)(error)),
            }
        }
        Ok(all)
    }

    /// The image with this id, or whose id begins like this and no other's does.
    fn id_of(&self, beginning: &str) -> Result<Option<String>, ImageError> {
        let beginning = hex_of(beginning);
        if beginning.len() < 6 || !beginning.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let ids: BTreeSet<String> = self.all_named()?.into_iter().map(|named| named.image).collect();
        let mut matching = ids.into_iter().filter(|id| hex_of(id).starts_with(beginning));
        let first = matching.next();
        Ok(if matching.next().is_some() { None } else { first })
    }

    fn image(&self, names: Vec<Named>) -> Result<Image, ImageError> {
        let id = names[0].image.clone();
        let path = self.blobs().join(hex_of(&id));
        let content = fs::read(&path).map_err(ImageError::storage("read", &path))?;
        let config = serde_json::from_slice(&content)
            .map_err(|error| ImageError::storage("read", path)(error.into()))?;
        let newest = names.iter().max_by_key(|named| named.imported_at).unwrap_or(&names[0]).clone();
        let used = fs::metadata(self.used_path(&id)).and_then(|file| file.modified()).ok();
        let used = used.and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(newest.imported_at);
        let pinned = names.iter().any(|named| named.pinned);
        let (mut digests, mut tags): (Vec<String>, Vec<String>) =
            names.into_iter().map(|named| named.reference).partition(|name| name.contains('@'));
        digests.sort();
        tags.sort();
        Ok(Image {
            id,
            tags,
            digests,
            size: newest.size,
            layer_sizes: newest.layer_sizes,
            imported_at: newest.imported_at,
            last_used_at: used.max(newest.imported_at),
            pinned,
            imported: newest.imported,
            manifest: newest.manifest,
            config,
        })
    }

    /// All that is written about an image, by its id.
    fn names_of(&self, id: &str) -> Result<Option<Vec<Named>>, ImageError> {
        let names: Vec<Named> = self.all_named()?.into_iter().filter(|named| named.image == id).collect();
        Ok(Some(names).filter(|names| !names.is_empty()))
    }

    fn lock(&self, kind: FlockArg) -> Result<nix::fcntl::Flock<File>, ImageError> {
        let path = self.root.join("lock");
        let file = File::create(&path).map_err(ImageError::storage("open", &path))?;
        nix::fcntl::Flock::lock(file, kind)
            .map_err(|(_, error)| ImageError::storage("lock", path)(error.into()))
    }

    fn reference_path(&self, reference: &str) -> PathBuf {
        self.references().join(format!("{}.json", hex::encode(Sha256::digest(reference))))
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    fn references(&self) -> PathBuf {
        self.root.join("references")
    }

    fn used_path(&self, image: &str) -> PathBuf {
        self.root.join("used").join(hex_of(image))
    }

    fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    fn snapshots(&self) -> PathBuf {
        self.snapshots.clone()
    }
}

impl Image {
    /// All its names.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.tags.iter().chain(&self.digests)
    }
}

/// Whose disk usage is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Usage {
    /// Unpacked layers.
    Images,
    /// Writable layers of containers.
    Snapshots,
}

/// That something is not there is as good as having removed it.
pub(crate) trait OrNotFound {
    fn or_not_found(self) -> io::Result<()>;
}

impl OrNotFound for io::Result<()> {
    fn or_not_found(self) -> io::Result<()> {
        match self {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}

/// The hexadecimal part of a digest.
pub(super) fn hex_of(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

/// `sha256:...` of these bytes.
pub(super) fn digest_of(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

/// A digest that we can verify and name files after.
pub(super) fn checked_digest(digest: &str) -> Result<&str, ImageError> {
    if reference::is_digest(digest) {
        Ok(digest)
    } else {
        Err(ImageError::invalid(format!("{digest:?} is no sha256 digest")))
    }
}

/// Bytes and inodes below a directory; what vanishes meanwhile is not counted.
pub(crate) fn disk_usage(directory: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let (mut bytes, mut inodes) = (0, 0);
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            bytes += metadata.blocks() * 512;
            inodes += 1;
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok((bytes, inodes))
}

/// Bytes of the files below an unpacked layer, each counted once however many names it has.
pub(super) fn layer_size(directory: &Path) -> Result<u64, ImageError> {
    use std::os::unix::fs::MetadataExt;
    let mut linked = BTreeSet::new();
    let mut pending = vec![directory.to_owned()];
    let mut bytes = 0;
    while let Some(directory) = pending.pop() {
        let failed = || ImageError::storage("measure", &directory);
        for entry in fs::read_dir(&directory).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let metadata = entry.metadata().map_err(failed())?;
            if metadata.is_dir() {
                pending.push(entry.path());
            } else if metadata.is_file() && (metadata.nlink() == 1 || linked.insert(metadata.ino())) {
                bytes += metadata.len();
            }
        }
    }
    Ok(bytes)
}

/// The content appears under `path` whole or not at all, also after a power failure.
pub(super) fn write_atomically(path: &Path, content: &[u8]) -> Result<(), ImageError> {
    let temporary = path.with_file_name(format!(".{}", uuid::Uuid::new_v4().simple()));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_directory(path.parent().unwrap_or(Path::new("/")))
    };
    write().map_err(ImageError::storage("write", path))
}

/// Makes renames in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    nix::unistd::fsync(File::open(directory)?.as_fd())?;
    Ok(())
}

/// What is in a directory, our unfinished files left out.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                paths.push(entry.path());
            }
        }
        Ok(paths)
    };
    list().map_err(ImageError::storage("list", directory))
}

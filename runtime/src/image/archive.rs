//! Reading the tar files that `docker save`, `podman save`, `skopeo` and `buildah` write.
//!
//! Both formats are a table of files: first the tar is indexed, then `manifest.json` (docker-archive)
//! or `index.json` (OCI layout) says which file is what. Every digest is verified before an image gets
//! its name. An archive may itself be packed by gzip or zstd.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;

use super::manifest::{self, Descriptor, Document, Manifest, Platform};
use super::packed::{self, Expected, decompressed, expect_digest};
use super::store::{Lease, Named, checked_digest, digest_of};
use super::{ImageConfig, ImageError, Reference, Store};

/// Manifests and configurations are small; nothing larger is read into memory.
pub(super) const DOCUMENT_LIMIT: u64 = 8 << 20;

/// How many indexes may lead to each other.
const DEEPEST_INDEX: usize = 2;

/// How an archive is to be taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Options<'a> {
    /// Stands in for the archive's own names.
    pub name: Option<&'a str>,
    /// The images stay although nobody uses them.
    pub pinned: bool,
    /// Where the images are to run; on this machine unless told.
    pub platform: Option<Platform>,
}

/// Imports all images of the archive and tells their names.
pub(super) fn import(
    store: &Store,
    mut file: impl Read + Seek,
    options: &Options,
) -> Result<Vec<String>, ImageError> {
    let lease = store.lease()?;
    let mut magic = Vec::with_capacity(4);
    file.by_ref().take(4).read_to_end(&mut magic).map_err(ImageError::Read)?;
    file.rewind().map_err(ImageError::Read)?;
    if matches!(magic.as_slice(), [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]) {
        let unpacked = spool(&lease, decompressed(file).map_err(ImageError::Read)?)?;
        return import_all(store, &lease, Archive::index(unpacked)?, options);
    }
    import_all(store, &lease, Archive::index(file)?, options)
}

/// As [`import`], for what can only be read once.
pub(super) fn import_stream(
    store: &Store,
    stream: impl Read,
    options: &Options,
) -> Result<Vec<String>, ImageError> {
    let lease = store.lease()?;
    let spooled = spool(&lease, decompressed(stream).map_err(ImageError::Read)?)?;
    import_all(store, &lease, Archive::index(spooled)?, options)
}

/// The bytes as a file that can be sought in and has no name.
fn spool(lease: &Lease, mut from: impl Read) -> Result<File, ImageError> {
    let path = lease.directory().join("archive");
    let mut file = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(ImageError::storage("create", &path))?;
    fs::remove_file(&path).map_err(ImageError::storage("remove", &path))?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ImageError::Read(error)),
        };
        file.write_all(&buffer[..length]).map_err(ImageError::storage("write", &path))?;
    }
    file.rewind().map_err(ImageError::storage("read", path))?;
    Ok(file)
}

fn import_all(
    store: &Store,
    lease: &Lease,
    mut archive: Archive<impl Read + Seek>,
    options: &Options,
) -> Result<Vec<String>, ImageError> {
    let machine = options.platform.clone().unwrap_or_else(Platform::host);
    let images = archive.images(&machine)?;
    if images.is_empty() {
        return Err(ImageError::invalid("it holds no image"));
    }
    if options.name.is_some() && images.len() > 1 {
        return Err(ImageError::invalid(format!(
            "it holds {} images, so one name cannot stand for them",
            images.len()
        )));
    }
    let mut names = Vec::new();
    for image in images {
        names.extend(import_image(store, lease, &mut archive, image, options, &machine)?);
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
    lease: &Lease,
    archive: &mut Archive<impl Read + Seek>,
    image: Described,
    options: &Options,
    machine: &Platform,
) -> Result<Vec<String>, ImageError> {
    let config_bytes = archive.document(&image.config)?;
    let id = digest_of(&config_bytes);
    let config = ImageConfig::parse(&config_bytes, &image.config)?;
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != image.layers.len() {
        return Err(ImageError::InvalidConfig {
            what: image.config,
            reason: format!("it lists {} layers, the manifest {}", diff_ids.len(), image.layers.len()),
        });
    }
    let given: Vec<&str> =
        options.name.map_or_else(|| image.names.iter().map(String::as_str).collect(), |name| vec![name]);
    if given.is_empty() {
        return Err(ImageError::invalid(
            "it does not say what its image is called; give the name with --name",
        ));
    }
    manifest::check_platform(&config, machine, given[0])?;
    let mut references: Vec<Reference> = given.into_iter().map(Reference::parse).collect::<Result<_, _>>()?;

    let (mut layers, mut layer_sizes) = (Vec::new(), Vec::new());
    for ((file, digest), diff_id) in image.layers.iter().zip(diff_ids) {
        let expected =
            Expected { name: file, digest: digest.as_deref(), diff_id: Some(checked_digest(diff_id)?) };
        let (layer, size) = import_layer(store, lease, archive, &expected)?;
        layers.push(layer);
        layer_sizes.push(size);
    }
    lease.keep(&id)?;
    store.write_blob(&id, &config_bytes)?;
    let manifest_bytes = match image.manifest {
        Some(manifest) => {
            let digest = digest_of(&manifest);
            let pinned: Vec<Reference> = references
                .iter()
                .filter(|reference| reference.digest().is_none())
                .map(|reference| Reference::parse(&format!("{}@{digest}", reference.name())))
                .collect::<Result<_, _>>()?;
            references.splice(0..0, pinned);
            manifest
        }
        // Docker's archives have none; ours says where the layers are.
        None => Manifest::of(&id, config_bytes.len() as u64, layers).to_bytes(),
    };
    let manifest = digest_of(&manifest_bytes);
    lease.keep(&manifest)?;
    store.write_blob(&manifest, &manifest_bytes)?;
    let named = Named {
        reference: String::new(),
        image: id,
        size: layer_sizes.iter().sum(),
        imported_at: Timestamp::now(),
        layer_sizes,
        manifest: Some(manifest),
        pinned: options.pinned,
        imported: true,
    };
    let names: Vec<String> = references.iter().map(Reference::to_string).collect();
    for reference in &names {
        store.write_named(&Named { reference: reference.clone(), ..named.clone() })?;
    }
    Ok(names)
}

/// Unpacks a layer under its diff id and keeps it as it came; tells what it is and how many bytes its files have.
fn import_layer(
    store: &Store,
    lease: &Lease,
    archive: &mut Archive<impl Read + Seek>,
    expected: &Expected,
) -> Result<(Descriptor, u64), ImageError> {
    if let Some(diff_id) = expected.diff_id {
        lease.keep(diff_id)?;
    }
    let kept = lease.directory().join("packed");
    let mut copy = Copied::new(archive.open(expected.name)?, &kept)?;
    let unpacked = packed::unpack(&mut copy, lease, expected)?;
    copy.file.sync_all().map_err(ImageError::storage("write", &kept))?;
    let (size, beginning) = (copy.length, copy.beginning);
    lease.keep(&unpacked.digest)?;
    let blob = store.blob_path(&unpacked.digest);
    fs::rename(&kept, &blob).map_err(ImageError::storage("write", blob))?;
    packed::publish(&unpacked, store)?;
    let media_type = manifest::layer_type(&beginning);
    Ok((Descriptor { media_type, digest: unpacked.digest, size, ..Descriptor::default() }, unpacked.size))
}

/// A reader that writes down what goes through it.
struct Copied<R> {
    reader: R,
    file: File,
    length: u64,
    beginning: Vec<u8>,
}

impl<R: Read> Copied<R> {
    fn new(reader: R, path: &Path) -> Result<Copied<R>, ImageError> {
        let file = File::create(path).map_err(ImageError::storage("create", path))?;
        Ok(Copied { reader, file, length: 0, beginning: Vec::new() })
    }
}

impl<R: Read> Read for Copied<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        let wanted = 4_usize.saturating_sub(self.beginning.len()).min(length);
        self.beginning.extend(&buffer[..wanted]);
        self.file.write_all(&buffer[..length])?;
        self.length += length as u64;
        Ok(length)
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

    fn images(&mut self, machine: &Platform) -> Result<Vec<Described>, ImageError> {
        // New archives of docker hold both forms; the OCI one says more (digests, the manifest).
        if self.has("index.json") && self.has("oci-layout") {
            let images = self.oci_images(machine)?;
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

    /// The images of an OCI layout that run on this machine.
    fn oci_images(&mut self, machine: &Platform) -> Result<Vec<Described>, ImageError> {
        let content = self.document("index.json")?;
        let Document::Index(entries) = Document::parse(&content, "index.json")? else {
            return Err(ImageError::invalid("index.json is no index"));
        };
        let mut images: Vec<Described> = Vec::new();
        for entry in &entries {
            // Entries without a name belong to the image before, such as its signature.
            let runs_here = manifest::choose(std::slice::from_ref(entry), machine).is_some();
            if runs_here && let Some(found) = self.oci_image(entry, machine, 0)? {
                let named_again = images.iter_mut().find(|image| image.manifest == found.manifest);
                match named_again {
                    Some(image) => image.names.extend(found.names),
                    None => images.push(found),
                }
            }
        }
        if images.is_empty() && !entries.is_empty() {
            return Err(ImageError::WrongPlatform {
                what: "the archive".to_owned(),
                machine: machine.to_string(),
                available: manifest::platforms(&entries),
            });
        }
        Ok(images)
    }

    /// The image that an entry leads to, through an index by platform or straight; none for what is no image.
    fn oci_image(
        &mut self,
        entry: &Descriptor,
        machine: &Platform,
        depth: usize,
    ) -> Result<Option<Described>, ImageError> {
        let file = blob_path(&entry.digest)?;
        let content = self.document(&file)?;
        expect_digest(&file, Some(&entry.digest), &digest_of(&content))?;
        let manifest = match Document::parse(&content, &file)? {
            Document::Index(entries) => {
                let Some(chosen) = manifest::choose(&entries, machine) else { return Ok(None) };
                if depth == DEEPEST_INDEX {
                    return Err(ImageError::invalid(format!("{file} is an index in an index in an index")));
                }
                // The name is said at the top.
                let annotations = entry.annotations.clone();
                return self.oci_image(&Descriptor { annotations, ..chosen.clone() }, machine, depth + 1);
            }
            Document::Manifest(manifest) => manifest,
        };
        let config = blob_path(&manifest.config.digest)?;
        expect_digest(&config, Some(&manifest.config.digest), &digest_of(&self.document(&config)?))?;
        let layers = manifest.layers.into_iter();
        let layers = layers.map(|layer| Ok((blob_path(&layer.digest)?, Some(layer.digest))));
        Ok(Some(Described {
            config,
            layers: layers.collect::<Result<_, ImageError>>()?,
            names: name_of(entry).into_iter().collect(),
            manifest: Some(content),
        }))
    }
}

/// containerd and docker give the whole name; a bare tag, as skopeo writes it, names nothing.
fn name_of(entry: &Descriptor) -> Option<String> {
    let given = entry.annotations.get("io.containerd.image.name");
    let reference = entry.annotations.get("org.opencontainers.image.ref.name");
    given.or(reference.filter(|name| name.contains(['/', ':']))).cloned()
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

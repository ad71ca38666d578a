//! Pulling and pushing against Debian's docker-registry, filled and read by skopeo, and against a registry of our
//! own where one has to lie, to hang up, or to count.

mod commit;
mod fake;
mod pull;
mod push;
mod server;
mod ways;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use runtime::image::pull::Options;
use runtime::image::registry::Settings;
use runtime::image::{Image, ImageError, Puller, Reference, Store};
use sha2::{Digest, Sha256};

use crate::world::append;

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layer's tar with one file.
pub fn layer(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, tar::EntryType::Regular, name, 0o644, content);
    archive.into_inner().unwrap()
}

/// Bytes that do not get smaller by packing.
pub fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let next = move |_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    };
    (0..length).map(next).collect()
}

/// An image in pieces: a configuration, packed layers, a manifest.
#[derive(Clone)]
pub struct Parts {
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
    pub manifest: Vec<u8>,
}

/// An image for `architecture` of these plain layers, packed by `pack`.
pub fn parts(architecture: &str, plain: &[Vec<u8>], pack: impl Fn(&[u8]) -> Vec<u8>) -> Parts {
    let layers: Vec<Vec<u8>> = plain.iter().map(|layer| pack(layer)).collect();
    let diff_ids: Vec<String> = plain.iter().map(|layer| digest(layer)).collect();
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": architecture, "os": "linux", "config": { "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids }
    }))
    .unwrap();
    let manifest = manifest(&config, &layers);
    Parts { config, layers, manifest }
}

pub fn manifest(config: &[u8], layers: &[Vec<u8>]) -> Vec<u8> {
    let descriptor = |kind: &str, content: &[u8]| serde_json::json!({ "mediaType": kind, "digest": digest(content), "size": content.len() });
    let layers: Vec<_> =
        layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer)).collect();
    serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config), "layers": layers,
    }))
    .unwrap()
}

/// A CA's certificate, and a certificate and key that it gave to a server of this name: files in a folder.
pub fn authority(folder: &Path, server: &str) -> [std::path::PathBuf; 3] {
    let files = ["ca.crt", "server.crt", "server.key"].map(|name| folder.join(name));
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    fs::write(&files[0], ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let server_key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let server = rcgen::CertificateParams::new(vec![server.to_owned()]).unwrap();
    fs::write(&files[1], server.signed_by(&server_key, &issuer).unwrap().pem()).unwrap();
    fs::write(&files[2], server_key.serialize_pem()).unwrap();
    files
}

/// A folder with the settings of one registry host.
pub fn hosts(registry: &str, toml: &str) -> (tempfile::TempDir, Settings) {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join(registry);
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("hosts.toml"), toml).unwrap();
    let settings = Settings { hosts_directories: vec![folder.path().to_owned()], ..Settings::default() };
    (folder, settings)
}

/// The image as a tar that skopeo reads as `oci-archive:`.
pub fn oci_archive(parts: &Parts, path: &Path) {
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest(&parts.manifest), "size": parts.manifest.len()
    }]});
    let mut archive = tar::Builder::new(fs::File::create(path).unwrap());
    let regular = tar::EntryType::Regular;
    append(&mut archive, regular, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
    append(&mut archive, regular, "index.json", 0o644, &serde_json::to_vec(&index).unwrap());
    for blob in parts.layers.iter().chain([&parts.config, &parts.manifest]) {
        append(&mut archive, regular, &format!("blobs/{}", digest(blob).replace(':', "/")), 0o644, blob);
    }
    archive.into_inner().unwrap();
}

/// Runs a tool to its end and gives what it printed; what it says on failure is the test's failure.
pub fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A store in an own directory, and what brings images there.
pub struct Node {
    pub directory: tempfile::TempDir,
    pub puller: Puller,
}

impl Node {
    pub fn new() -> Node {
        Node::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Node {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("images")).unwrap();
        Node { puller: Puller::new(store, settings), directory }
    }

    pub fn store(&self) -> &Store {
        self.puller.store()
    }

    pub async fn pull(&self, name: &str) -> Result<Image, ImageError> {
        self.pull_with(name, &Options::default()).await
    }

    pub async fn pull_with(&self, name: &str, options: &Options) -> Result<Image, ImageError> {
        self.puller.pull(&Reference::parse(name).unwrap(), options).await
    }

    /// A file of an image, from its topmost layer.
    pub fn file(&self, image: &Image, path: &str) -> Vec<u8> {
        fs::read(self.store().layer_paths(image)[0].join(path)).unwrap()
    }

    /// That there is no image nor anything that might become one, after what nobody needs is gone.
    pub fn assert_empty(&self) {
        assert_eq!(self.store().list().unwrap().len(), 0, "an image is left");
        self.store().prune(true).unwrap();
        for directory in ["layers", "references", "leases", "downloads", "blobs/sha256"] {
            let path = self.store().root().join(directory);
            let left: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(left.is_empty(), "left: {left:?}");
        }
    }
}

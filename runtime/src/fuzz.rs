//! What the runtime reads and strangers write, as targets for a fuzzer: none may panic, hang, or grow without end.

#[cfg(test)]
#[path = "../../fuzz/driver.rs"]
mod driver;

use std::fs;
use std::path::Path;

use crate::image::ImageConfig;
use crate::image::layer;
use crate::image::manifest::{self, Document, Platform};
use crate::shim::protocol::{Inbox, Reply, Request};

/// Unpacks a layer: whatever it says, nothing outside of its directory changes.
pub fn layer(data: &[u8]) {
    let mut tar = data.to_vec();
    correct_checksums(&mut tar);
    let outside = tempfile::tempdir().expect("a directory can be made");
    let canary = outside.path().join("canary");
    let inside = outside.path().join("layer");
    fs::write(&canary, "alive").expect("a file can be written");
    fs::create_dir(&inside).expect("a directory can be made");
    // That it is refused is as good.
    layer::unpack(tar.as_slice(), &inside, "fuzz").ok();
    assert_eq!(fs::read_to_string(&canary).expect("the file is there"), "alive");
    assert_eq!(names(outside.path()), ["canary", "layer"]);
}

/// Without this nearly every change would be refused for the checksum, and nothing else be reached.
fn correct_checksums(tar: &mut [u8]) {
    const BLOCK: usize = 512;
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + BLOCK) {
        if header.iter().any(|byte| *byte != 0) {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
        let size = std::str::from_utf8(&header[124..135]).unwrap_or_default().trim_matches(['\0', ' ']);
        let size = usize::from_str_radix(size, 8).unwrap_or(0);
        at = at.saturating_add(BLOCK).saturating_add(size.div_ceil(BLOCK).saturating_mul(BLOCK));
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("the directory is there").flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Reads a manifest or an index, and writes what was understood.
pub fn manifest(data: &[u8]) {
    match Document::parse(data, "fuzz") {
        Ok(Document::Manifest(manifest)) => {
            let written = manifest.to_bytes();
            let again = Document::parse(&written, "fuzz");
            assert!(matches!(again, Ok(Document::Manifest(same)) if same.to_bytes() == written));
        }
        Ok(Document::Index(manifests)) => {
            manifest::choose(&manifests, &Platform::host());
            manifest::platforms(&manifests);
        }
        Err(_) => {}
    }
}

/// Reads an image's configuration.
pub fn image_config(data: &[u8]) {
    if let Ok(config) = ImageConfig::parse(data, "fuzz") {
        manifest::check_platform(&config, &Platform::host(), "fuzz").ok();
    }
}

/// A connection of a client that speaks SPDY.
pub fn spdy(data: &[u8]) {
    crate::streaming::fuzz_spdy(data);
}

/// A connection of a client that speaks WebSocket.
pub fn websocket(data: &[u8]) {
    crate::streaming::fuzz_websocket(data);
}

/// Both ends of a connection to a shim, the bytes arriving in pieces.
pub fn shim(data: &[u8]) {
    let (mut shim, mut server) = (Inbox::default(), Inbox::default());
    for piece in data.chunks(7) {
        shim.push(piece);
        server.push(piece);
        while let Ok(Some(_)) = shim.take::<Request>() {}
        while let Ok(Some(_)) = server.take::<Reply>() {}
    }
}

#[cfg(test)]
mod tests {
    use super::driver;

    #[test]
    fn layers_stay_where_they_are_unpacked() {
        // Owners, devices and labels are root's.
        if nix::unistd::geteuid().is_root() {
            driver::run("layer", super::layer);
        }
    }

    #[test]
    fn every_manifest_is_read_or_refused() {
        driver::run("manifest", super::manifest);
    }

    #[test]
    fn every_image_configuration_is_read_or_refused() {
        driver::run("image_config", super::image_config);
    }

    #[test]
    fn every_client_of_spdy_is_served_or_refused() {
        driver::run("spdy", super::spdy);
    }

    #[test]
    fn every_client_of_websocket_is_served_or_refused() {
        driver::run("websocket", super::websocket);
    }

    #[test]
    fn every_message_of_a_shim_is_read_or_refused() {
        driver::run("shim", super::shim);
    }
}

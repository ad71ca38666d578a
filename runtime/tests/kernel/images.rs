//! Archives from outside: what is whole comes in, what is not leaves no trace.

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use runtime::image::{Policy, Store, airgap};
use sha2::{Digest, Sha256};

use crate::world::append;

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn layer(entries: &[(tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (kind, name, content) in entries {
        append(&mut archive, *kind, name, 0o755, content);
    }
    archive.into_inner().unwrap()
}

/// An OCI layout with these layers, packed; `spoil` may change a blob after its digest was taken.
fn oci_layout(layers: &[Vec<u8>], name: &str, spoil: impl Fn(&mut Vec<u8>)) -> Cursor<Vec<u8>> {
    let packed: Vec<Vec<u8>> = layers.iter().map(|layer| gzip(layer)).collect();
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": null, "Env": null, "StopSignal": "SIGQUIT" },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>() }
    }))
    .unwrap();
    let descriptors: Vec<_> = packed
        .iter()
        .map(|layer| serde_json::json!({ "digest": digest(layer), "size": layer.len() }))
        .collect();
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "config": { "digest": digest(&config), "size": config.len() }, "layers": descriptors
    }))
    .unwrap();
    let index = serde_json::to_vec(&serde_json::json!({ "schemaVersion": 2, "manifests": [
        { "digest": "sha256:".to_owned() + &"0".repeat(64), "size": 1, "platform": { "os": "linux", "architecture": "mips" } },
        { "digest": digest(&manifest), "size": manifest.len(), "annotations": { "io.containerd.image.name": name } }
    ]}))
    .unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    let regular = tar::EntryType::Regular;
    append(&mut archive, regular, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
    append(&mut archive, regular, "index.json", 0o644, &index);
    for blob in packed.iter().chain([&config, &manifest]) {
        let path = format!("blobs/{}", digest(blob).replace(':', "/"));
        let mut blob = blob.clone();
        spoil(&mut blob);
        append(&mut archive, regular, &path, 0o644, &blob);
    }
    Cursor::new(archive.into_inner().unwrap())
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().count() == 0
}

#[test]
fn an_oci_layout_comes_in_whole() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let lower = layer(&[
        (tar::EntryType::Directory, "etc", b""),
        (tar::EntryType::Regular, "etc/old", b"old"),
        (tar::EntryType::Regular, "etc/kept", b"kept"),
    ]);
    let upper = layer(&[
        (tar::EntryType::Regular, "etc/.wh.old", b""),
        (tar::EntryType::Regular, "fresh/.wh..wh..opq", b""),
        (tar::EntryType::Regular, "fresh/file", b"12345"),
    ]);
    let images = store.import(oci_layout(&[lower, upper], "example.com/web:2", |_| {}), None).unwrap();
    assert_eq!(images.len(), 1);
    let image = store.find("example.com/web:2").unwrap().unwrap();
    assert_eq!(image.tags, ["example.com/web:2"]);
    assert!(image.digests[0].starts_with("example.com/web@sha256:"));
    assert_eq!((image.size, image.config.config.stop_signal.as_str()), (12, "SIGQUIT"));
    assert_eq!(store.find(&image.id[7..19]).unwrap().unwrap().id, image.id);
    let layers = store.layer_paths(&image);
    let whiteout = fs::symlink_metadata(layers[0].join("etc/old")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0, "the upper layer hides the file");
    assert_eq!(fs::read(layers[0].join("fresh/file")).unwrap(), b"12345");
    assert_eq!(fs::read(layers[1].join("etc/kept")).unwrap(), b"kept");
    // Another process sees it, and a removal through it too.
    let other = Store::open(directory.path()).unwrap();
    assert!(other.remove("example.com/web:2").unwrap());
    other.collect_garbage().unwrap();
    assert!(!other.remove("example.com/web:2").unwrap());
    assert!(is_empty(&directory.path().join("layers")) || store.find("example.com/web:2").unwrap().is_none());
}

#[test]
fn images_of_volumes_and_of_other_runtimes_are_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let image = |name: &str| {
        let layers = [layer(&[(tar::EntryType::Regular, name, b"x")])];
        store.import(oci_layout(&layers, &format!("example.com/{name}:1"), |_| {}), None).unwrap().remove(0)
    };
    let [web, data, tools, idle] = ["web", "data", "tools", "idle"].map(image);
    store.create_snapshot("pod", &web).unwrap();
    store.keep_layers("pod", &data).unwrap();
    store.keep_layers("pod", &data).unwrap();
    let ctr = Store::open(directory.path()).unwrap().with_snapshots_of("ctr").unwrap();
    ctr.create_snapshot("hand", &tools).unwrap();
    let users = store.containers_by_image().unwrap();
    let users = |image: &runtime::image::Image| users.get(&image.id).cloned().unwrap_or_default();
    assert_eq!((users(&web), users(&data)), (vec!["pod".to_owned()], vec!["pod".to_owned()]));
    assert_eq!((users(&tools), users(&idle)), (vec!["hand".to_owned()], Vec::new()));
    assert_eq!(store.used_by_others().unwrap(), [tools.id.clone()].into());
    assert_eq!(ctr.used_by_others().unwrap(), [web.id.clone(), data.id.clone()].into());
    store.prune(true).unwrap();
    let left: Vec<String> = store.list().unwrap().into_iter().map(|image| image.id).collect();
    assert!(left.len() == 3 && !left.contains(&idle.id), "{left:?}");
}

#[test]
fn a_kubelet_hears_that_images_of_containers_by_hand_must_stay() {
    crate::world::in_world(|world| async move {
        use cri::ImageService;
        let archive = world.directory.path().join("tiny.tar");
        crate::world::tiny_archive("example.com/tiny:1", &archive);
        let images = world.runtime.images();
        let image = images.import(File::open(archive).unwrap(), None).unwrap().remove(0);
        let is_pinned = async || {
            let listed = world.runtime.list_images(Default::default()).await.unwrap().images;
            listed.into_iter().find(|listed| listed.id == image.id).unwrap().pinned
        };
        assert!(!is_pinned().await);
        let ctr = Store::open(images.root()).unwrap().with_snapshots_of("ctr").unwrap();
        ctr.create_snapshot("hand", &image).unwrap();
        assert!(is_pinned().await);
        ctr.remove_snapshot("hand").unwrap();
        assert!(!is_pinned().await);
        world
    });
}

#[test]
fn corrupt_archives_leave_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let content = layer(&[(tar::EntryType::Regular, "file", &[7; 4096])]);
    let spoiled = oci_layout(&[content], "web", |blob| {
        // Gzip ends with checksum and length: the content stays readable, the digest does not fit.
        if blob.starts_with(&[0x1f, 0x8b]) {
            blob[4] ^= 0xff;
        }
    });
    let error = store.import(spoiled, None).unwrap_err().to_string();
    assert!(error.contains("is corrupt: its digest is sha256:"), "{error}");
    let no_archive = store.import(Cursor::new(b"hello".repeat(300)), None).unwrap_err().to_string();
    assert!(no_archive.starts_with("not an image archive: "), "{no_archive}");
    assert!(store.import(Cursor::new(Vec::new()), None).is_err());
    assert!(is_empty(&directory.path().join("layers")) && is_empty(&directory.path().join("references")));
}

#[test]
fn layers_cannot_write_outside_themselves() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let link = |target: &str| {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        archive.append_link(&mut header, "way", target).unwrap();
        append(&mut archive, tar::EntryType::Regular, "way/file", 0o644, b"caught");
        archive.into_inner().unwrap()
    };
    // An absolute link is followed inside the layer, where it leads to nothing that could be written through.
    for target in [outside.to_str().unwrap(), "../../../../outside"] {
        store.import(oci_layout(&[link(target)], "escape", |_| {}), None).map(drop).unwrap_or(());
        assert!(is_empty(&outside), "{target} leads out of the layer");
    }
}

#[test]
fn a_docker_archive_may_be_given_a_name() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    let archive = crate::world::busybox_archive(directory.path());
    store.import(File::open(&archive).unwrap(), Some("mine:3")).unwrap();
    let image = store.find("mine:3").unwrap().unwrap();
    assert_eq!(image.tags, ["docker.io/library/mine:3"]);
    let busybox = store.layer_paths(&image)[0].join("bin/busybox");
    assert_eq!(fs::metadata(busybox).unwrap().mode() & 0o7777, 0o755);
    assert!(store.import(File::open(&archive).unwrap(), Some("Bad Name")).is_err());
}

fn busybox_at(directory: &Path) -> File {
    File::open(crate::world::busybox_archive(directory)).unwrap()
}

#[test]
fn an_image_in_use_keeps_its_layers_whoever_removes_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    let image = store.import(busybox_at(directory.path()), None).unwrap().remove(0);
    store.create_snapshot("c1", &image).unwrap();
    assert_eq!(store.containers_by_image().unwrap()[&image.id], ["c1"]);
    assert!(store.prune(true).unwrap().removed.is_empty(), "a container is made of it");
    let full = Policy { high_percent: 0, low_percent: 0, minimum_age: Default::default() };
    let (collected, missing) = store.make_room(&full, jiff::Timestamp::now()).unwrap();
    assert!(collected.removed.is_empty() && missing > 0);
    // By force it loses its name, and the container keeps its files.
    assert!(store.remove(&image.tags[0]).unwrap());
    store.collect_garbage().unwrap();
    assert!(store.list().unwrap().is_empty());
    assert!(store.layer_paths(&image).iter().all(|layer| layer.is_dir()));
    store.remove_snapshot("c1").unwrap();
    store.collect_garbage().unwrap();
    assert!(!store.layer_paths(&image).iter().any(|layer| layer.exists()));
    // Whoever comes too late is told so instead of getting a container without files.
    let late = store.create_snapshot("c2", &image).unwrap_err().to_string();
    assert_eq!(late, format!("image {} was removed: not found", image.id));
}

#[test]
fn images_make_room_in_the_order_of_their_last_use() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let content = |name: &str| layer(&[(tar::EntryType::Regular, name, &[7; 9000])]);
    for name in ["a", "b"] {
        store.import(oci_layout(&[content(name)], &format!("example.com/{name}:1"), |_| {}), None).unwrap();
    }
    let a = store.find("example.com/a:1").unwrap().unwrap();
    store.create_snapshot("c", &a).unwrap();
    store.remove_snapshot("c").unwrap();
    let [used, idle] = ["a", "b"].map(|name| store.find(&format!("example.com/{name}:1")).unwrap().unwrap());
    assert!(used.last_used_at > idle.last_used_at, "a container was made of it since");
    let young = Policy { high_percent: 0, low_percent: 0, minimum_age: jiff::SignedDuration::from_hours(1) };
    assert!(store.make_room(&young, jiff::Timestamp::now()).unwrap().0.removed.is_empty());
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2);
    let removed = store.make_room(&young, later).unwrap().0;
    assert!(removed.bytes > 9000);
    let tags: Vec<&String> = removed.removed.iter().filter(|name| !name.contains('@')).collect();
    assert_eq!(tags, ["example.com/b:1", "example.com/a:1"]);
}

#[test]
fn a_folder_of_archives_is_imported_once_and_again_when_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    let folder = directory.path().join("archives");
    assert!(airgap::import(&store, &folder).unwrap().is_empty(), "no folder is no error");
    fs::create_dir(&folder).unwrap();
    let archive = |name: &str| {
        let content = layer(&[(tar::EntryType::Regular, "file", name.as_bytes())]);
        oci_layout(&[content], name, |_| {}).into_inner()
    };
    fs::write(folder.join("a.tar"), archive("example.com/a:1")).unwrap();
    fs::write(folder.join("b.tar.gz"), gzip(&archive("example.com/b:1"))).unwrap();
    fs::write(folder.join("c.tar.zst"), zstd::encode_all(archive("example.com/c:1").as_slice(), 0).unwrap())
        .unwrap();
    fs::write(folder.join("broken.tar"), "no tar").unwrap();
    fs::write(folder.join("notes.txt"), "no archive").unwrap();
    let outcomes = |import: Vec<airgap::Outcome>| -> Vec<(String, bool)> {
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        import.iter().map(|outcome| (name(&outcome.archive), outcome.imported.is_ok())).collect()
    };
    let first = outcomes(airgap::import(&store, &folder).unwrap());
    let expected = [("a.tar", true), ("b.tar.gz", true), ("broken.tar", false), ("c.tar.zst", true)];
    assert_eq!(first, expected.map(|(name, good)| (name.to_owned(), good)));
    assert!(store.list().unwrap().iter().all(|image| image.pinned && image.imported));
    assert!(store.prune(true).unwrap().removed.is_empty(), "no registry may have them");
    fs::remove_file(folder.join("broken.tar")).unwrap();
    assert!(airgap::import(&store, &folder).unwrap().is_empty(), "nothing is new");
    assert!(store.remove("example.com/a:1").unwrap());
    fs::write(folder.join("b.tar.gz"), gzip(&archive("example.com/b:2"))).unwrap();
    let again = outcomes(airgap::import(&store, &folder).unwrap());
    assert_eq!(again, [("a.tar".to_owned(), true), ("b.tar.gz".to_owned(), true)]);
    assert!(store.find("example.com/b:2").unwrap().is_some());
}

#[test]
fn collecting_takes_nothing_from_imports_that_run() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    std::thread::scope(|scope| {
        let importing = scope.spawn(|| {
            for round in 0..40 {
                let content = layer(&[(tar::EntryType::Regular, "file", format!("{round}").as_bytes())]);
                let name = format!("example.com/web:{round}");
                let image = store.import(oci_layout(&[content], &name, |_| {}), None).unwrap().remove(0);
                assert!(store.layer_paths(&image)[0].join("file").exists(), "round {round}");
            }
        });
        while !importing.is_finished() {
            store.collect_garbage().unwrap();
        }
        importing.join().unwrap();
    });
    assert_eq!(store.list().unwrap().len(), 40);
}

#[test]
fn an_image_for_another_machine_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let file = directory.path().join("foreign.tar");
    let parts = crate::registry::parts("s390x", &[layer(&[])], gzip);
    crate::registry::oci_archive(&parts, &file);
    let error = store.import(File::open(&file).unwrap(), Some("web:1")).unwrap_err().to_string();
    let own = runtime::image::Platform::host();
    assert_eq!(
        error,
        format!("no match for platform {own} in manifest of web:1, which is for linux/s390x: not found")
    );
    assert!(store.list().unwrap().is_empty());
}

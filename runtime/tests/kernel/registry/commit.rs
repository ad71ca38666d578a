//! Images made of others and one more layer.

use std::fs::File;
use std::io::{self, Read};

use runtime::image::registry::Options;
use runtime::image::{Reference, Store};

use super::server::Registry;
use super::{Node, digest, gzip, layer, noise, oci_archive, parts, tool};

/// The configuration of an image with one more layer.
fn configuration(base: &[u8], diff_id: &str) -> Vec<u8> {
    let mut config: serde_json::Value = serde_json::from_slice(base).unwrap();
    config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(diff_id.into());
    serde_json::to_vec(&config).unwrap()
}

fn imported(node: &Node, name: &str) -> runtime::image::Image {
    let archive = node.directory.path().join("image.tar");
    oci_archive(&parts("amd64", &[layer("lower", &noise(50_000, 41))], gzip), &archive);
    node.store().import(File::open(archive).unwrap(), Some(name)).unwrap().remove(0)
}

#[tokio::test]
async fn a_committed_image_is_pushed_and_saved_like_any_other() {
    let registry = Registry::open();
    let node = Node::new();
    let base = imported(&node, "base:1");
    let upper = layer("upper", b"written");
    let (diff_id, name) = (digest(&upper), registry.name("made/it:1"));
    let config = configuration(&node.store().configuration(&base).unwrap(), &diff_id);
    let id = node.store().commit(&base, upper.as_slice(), &diff_id, &config, &name).unwrap();
    let image = node.store().find(&name).unwrap().unwrap();
    assert_eq!((image.id.as_str(), image.size), (id.as_str(), 50_007));
    assert_eq!(image.layer_sizes, [50_000, 7]);
    let to = Reference::parse(&name).unwrap();
    let pushed = node.puller.push(&image, &to, &Options::default()).await.unwrap();
    let reported = tool(
        "skopeo",
        &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{to}")],
    );
    assert_eq!(reported.trim(), pushed.digest);
    let other = Node::new();
    let back = other.pull(&name).await.unwrap();
    assert_eq!((back.id.as_str(), other.file(&back, "upper")), (id.as_str(), b"written".to_vec()));
    let mut saved = Vec::new();
    node.store().export(&[(image, vec![to])], &mut saved).unwrap();
    let third = Node::new();
    assert_eq!(third.store().import_stream(saved.as_slice(), None).unwrap()[0].id, id);
}

/// A layer during whose reading somebody removes the image that it is for.
struct Meanwhile<'a> {
    layer: &'a [u8],
    store: &'a Store,
    base: &'a str,
}

impl Read for Meanwhile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.store.remove(self.base).map_err(io::Error::other)?;
        self.store.collect_garbage().map_err(io::Error::other)?;
        self.layer.read(buffer)
    }
}

#[test]
fn nothing_that_a_commit_needs_is_collected_meanwhile() {
    let node = Node::new();
    let base = imported(&node, "base:1");
    let upper = layer("upper", b"written");
    let diff_id = digest(&upper);
    let config = configuration(&node.store().configuration(&base).unwrap(), &diff_id);
    let layer = Meanwhile { layer: &upper, store: node.store(), base: &base.id };
    node.store().commit(&base, layer, &diff_id, &config, "made/it:1").unwrap();
    assert!(node.store().find(&base.id).unwrap().is_none());
    let image = node.store().find("made/it:1").unwrap().unwrap();
    assert!(node.store().layer_paths(&image).iter().all(|layer| layer.is_dir()));
    assert!(node.store().manifest(&image).unwrap().is_some());
    // Of an image that is gone nothing can be made, and nothing is left of the attempt.
    node.store().remove("made/it:1").unwrap();
    node.store().collect_garbage().unwrap();
    assert!(node.store().commit(&base, upper.as_slice(), &diff_id, &config, "made/it:2").is_err());
    node.assert_empty();
}

//! What goes to registries and into archives, read by other people's tools.

use std::fs::{self, File};

use runtime::image::registry::Options;
use runtime::image::{Image, Reference};

use super::server::Registry;
use super::{Node, gzip, layer, noise, oci_archive, parts, tool};

fn imported(node: &Node, name: &str) -> Image {
    let archive = node.directory.path().join("image.tar");
    let layers = [layer("lower", &noise(100_000, 31)), layer("upper", b"upper")];
    oci_archive(&parts("amd64", &layers, gzip), &archive);
    node.store().import(File::open(archive).unwrap(), Some(name)).unwrap().remove(0)
}

#[tokio::test]
async fn a_push_sends_only_what_is_missing_and_links_what_a_neighbour_has() {
    let registry = Registry::open();
    let node = Node::new();
    let name = registry.name("team/web:1");
    let image = imported(&node, &name);
    let to = Reference::parse(&name).unwrap();
    let options = Options::default();
    let first = node.puller.push(&image, &to, &options).await.unwrap();
    assert_eq!((first.sent, first.linked, first.existed), (3, 0, 0));
    let again = node.puller.push(&image, &to, &options).await.unwrap();
    assert_eq!((again.sent, again.linked, again.existed), (0, 0, 3));
    let neighbour = Reference::parse(&registry.name("team/copy:2")).unwrap();
    let linked = node.puller.push(&image, &neighbour, &options).await.unwrap();
    assert_eq!((linked.sent, linked.linked), (1, 2), "only the configuration is sent");
    // skopeo reads what we wrote, and we read it back the same.
    let reported = tool(
        "skopeo",
        &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{neighbour}")],
    );
    assert_eq!(reported.trim(), first.digest);
    let other = Node::new();
    let back = other.pull(&neighbour.to_string()).await.unwrap();
    assert_eq!(
        (back.id, other.file(&other.store().list().unwrap()[0], "upper")),
        (image.id, b"upper".to_vec())
    );
}

#[tokio::test]
async fn who_may_not_push_is_told_so() {
    let registry = Registry::with_password();
    let node = Node::new();
    let name = registry.name("web:1");
    let image = imported(&node, &name);
    let refused = node.puller.push(&image, &Reference::parse(&name).unwrap(), &Options::default()).await;
    let refused = refused.unwrap_err().chain();
    assert!(refused.starts_with(&format!("failed to push image {name:?}: push access denied")), "{refused}");
}

#[test]
fn saved_images_are_read_by_skopeo_and_umoci_and_ourselves() {
    let node = Node::new();
    let image = imported(&node, "example.com/web:1");
    let file = node.directory.path().join("saved.tar");
    let names = ["example.com/web:1", "example.com/other:2"].map(|name| Reference::parse(name).unwrap());
    node.store().export(&[(image.clone(), names.to_vec())], File::create(&file).unwrap()).unwrap();
    let file = file.display().to_string();
    let id = tool("skopeo", &["inspect", "--raw", &format!("docker-archive:{file}")]);
    assert!(id.contains(&image.id), "docker's manifest leads to the same configuration: {id}");
    // umoci works on a directory.
    let layout = node.directory.path().join("layout");
    fs::create_dir(&layout).unwrap();
    tool("tar", &["-xf", &file, "-C", &layout.display().to_string()]);
    let bundle = node.directory.path().join("bundle").display().to_string();
    tool("umoci", &["unpack", "--image", &format!("{}:1", layout.display()), &bundle]);
    assert_eq!(fs::read(format!("{bundle}/rootfs/upper")).unwrap(), b"upper");
    let other = Node::new();
    let packed = gzip(&fs::read(&file).unwrap());
    let back = other.store().import_stream(packed.as_slice(), None).unwrap().remove(0);
    assert_eq!(
        (back.id, back.tags),
        (image.id, vec!["example.com/other:2".to_owned(), "example.com/web:1".to_owned()])
    );
}

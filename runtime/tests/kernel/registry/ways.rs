//! The ways to registries: what others on them get to see, and proxies.

use std::fs;

use base64::Engine;
use runtime::image::pull::Options;
use runtime::image::registry::{self, Credentials, Proxies, Settings};
use runtime::image::{Image, Reference};

use super::fake::Fake;
use super::server::{Registry, Tunnels};
use super::{Node, authority, gzip, hosts, layer, oci_archive, parts};

fn imported(node: &Node, name: &str) -> Image {
    let archive = node.directory.path().join("image.tar");
    oci_archive(&parts("amd64", &[layer("file", b"content")], gzip), &archive);
    node.store().import(fs::File::open(archive).unwrap(), Some(name)).unwrap().remove(0)
}

fn behind(name: &'static str, proxy: String) -> Settings {
    let proxies = Proxies::from_environment(&|asked| (asked == name).then(|| proxy.clone().into()));
    Settings { proxies, ..Settings::default() }
}

#[tokio::test]
async fn secrets_do_not_follow_an_upload_to_another_host() {
    let (fake, storage) = (Fake::start().await, Fake::start().await);
    let basic = base64::engine::general_purpose::STANDARD.encode("me:secret");
    fake.want_token(&format!("Basic {basic}"), "t0k3n");
    let elsewhere = format!("http://{}/upload/1?state=x", storage.address);
    fake.take_uploads(&elsewhere);
    storage.take_uploads(&elsewhere);
    let host = fake.address.to_string();
    let toml = format!("server = \"http://{host}\"\n[header]\nx-secret = \"known\"");
    let (_folder, settings) = hosts(&host, &toml);
    let node = Node::with(settings);
    let name = fake.name("private/web:1");
    let image = imported(&node, &name);
    let credentials = Credentials::parse("me:secret");
    let options = registry::Options { credentials, ..Default::default() };
    let pushed = node.puller.push(&image, &Reference::parse(&name).unwrap(), &options).await.unwrap();
    assert_eq!((pushed.sent, storage.asked("PUT /upload/1")), (2, 2));
    assert!(fake.saw_header("x-secret") && fake.saw_header("authorization"));
    assert!(!storage.saw_header("x-secret") && !storage.saw_header("authorization"));
}

#[tokio::test]
async fn a_proxy_is_asked_for_what_comes_without_tls() {
    let fake = Fake::start().await;
    fake.put_image("web", "1", &parts("amd64", &[layer("file", b"content")], gzip));
    let node = Node::with(behind("http_proxy", format!("http://me:secret@{}", fake.address)));
    let registry = registry::Options { plain_http: true, ..Default::default() };
    let options = Options { registry, ..Default::default() };
    // Nobody knows this host; the proxy need not either.
    let pulled = node.pull_with("registry.invalid/web:1", &options).await.unwrap();
    assert_eq!(node.file(&pulled, "file"), b"content");
    assert!(fake.saw_header("proxy-authorization") && !fake.saw_header("authorization"));
}

#[tokio::test]
async fn tls_goes_through_a_proxy_to_the_registry_itself() {
    let work = tempfile::tempdir().unwrap();
    let [ca, certificate, key] = authority(work.path(), "registry.invalid");
    let registry = Registry::with_tls(&certificate, &key);
    let archive = work.path().join("image.tar");
    oci_archive(&parts("amd64", &[layer("file", b"content")], gzip), &archive);
    registry.fill(&archive, "web:1", &[]);
    let proxy = Tunnels::to(registry.address);
    let host = "registry.invalid:5443";
    let (folder, settings) = hosts(host, &format!("server = \"https://{host}\"\nca = \"own.crt\""));
    fs::copy(&ca, folder.path().join(host).join("own.crt")).unwrap();
    let proxies = behind("HTTPS_PROXY", format!("me:secret@{}", proxy.address)).proxies;
    let node = Node::with(Settings { proxies, ..settings });
    let pulled = node.pull(&format!("{host}/web:1")).await.unwrap();
    assert_eq!(node.file(&pulled, "file"), b"content");
    let asked = proxy.asked.lock().unwrap();
    assert!(asked[0].starts_with(&format!("CONNECT {host} HTTP/1.1\r\n")), "{asked:?}");
    assert!(asked[0].contains("\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n"), "{asked:?}");
}

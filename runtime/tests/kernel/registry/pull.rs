//! What comes from registries, and what must not.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

use base64::Engine;
use futures::FutureExt;
use runtime::image::pull::Options;
use runtime::image::pull::progress::{Progress, State};
use runtime::image::registry::{self, Credentials, Settings};
use runtime::image::{ImageError, Platform};

use super::fake::Fake;
use super::server::{Breaking, Registry};
use super::{Node, Parts, authority, digest, gzip, hosts, layer, manifest, noise, oci_archive, parts, tool};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn two_layers() -> Parts {
    parts("amd64", &[layer("lower", b"lower"), layer("upper", b"upper")], gzip)
}

fn login(user: &str, password: &str) -> Options {
    let credentials = Credentials::parse(&format!("{user}:{password}"));
    let registry = registry::Options { credentials, ..Default::default() };
    Options { registry, ..Default::default() }
}

#[tokio::test]
async fn images_that_skopeo_has_pushed_come_by_tag_and_by_digest_in_all_forms() {
    let registry = Registry::open();
    let work = tempfile::tempdir().unwrap();
    let archive = work.path().join("image.tar");
    let image = two_layers();
    oci_archive(&image, &archive);
    registry.fill(&archive, "library/web:oci", &[]);
    registry.fill(&archive, "library/web:docker", &["--format", "v2s2"]);
    registry.fill(&archive, "library/web:zstd", &["--dest-compress-format", "zstd"]);
    for tag in ["oci", "docker", "zstd"] {
        let node = Node::new();
        let name = registry.name(&format!("library/web:{tag}"));
        let pulled = node.pull(&name).await.unwrap();
        assert_eq!(pulled.tags, [name]);
        assert_eq!(node.file(&pulled, "upper"), b"upper", "{tag}");
        assert_eq!(pulled.config.rootfs.diff_ids[0], digest(&layer("lower", b"lower")));
        assert_eq!((pulled.size, pulled.layer_sizes.as_slice()), (10, [5, 5].as_slice()));
        // What skopeo says the digest is, is what the image is pinned by.
        let reported = tool(
            "skopeo",
            &[
                "inspect",
                "--tls-verify=false",
                "--format",
                "{{.Digest}}",
                &format!("docker://{}", pulled.tags[0]),
            ],
        );
        let pinned = format!("{}@{}", registry.name("library/web"), reported.trim());
        assert_eq!(pulled.digests, [pinned.as_str()]);
        let by_digest = Node::new().pull(&pinned).await.unwrap();
        assert_eq!((by_digest.id, by_digest.tags.len()), (pulled.id, 0));
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_in_containerds_words() {
    let registry = Registry::open();
    let node = Node::new();
    let name = registry.name("library/none:1");
    let error = node.pull(&name).await.unwrap_err();
    assert_eq!(
        error.chain(),
        format!(
            "failed to pull and unpack image {name:?}: failed to resolve reference {name:?}: {name}: not found"
        )
    );
    assert!(error.registry().unwrap().is_not_found());
    let nobody = node.pull("127.0.0.1:1/web:1").await.unwrap_err();
    assert!(nobody.registry().unwrap().is_unreachable());
    let expected = r#"failed to do request: HEAD "http://127.0.0.1:1/v2/web/manifests/1": dial tcp 127.0.0.1:1: connect: Connection refused"#;
    assert!(nobody.chain().contains(expected), "{}", nobody.chain());
    node.assert_empty();
}

#[tokio::test]
async fn a_password_is_asked_for_and_found_where_docker_keeps_it() {
    let registry = Registry::with_password();
    let work = tempfile::tempdir().unwrap();
    let archive = work.path().join("image.tar");
    oci_archive(&two_layers(), &archive);
    registry.fill(&archive, "private/web:1", &["--dest-creds", "me:secret"]);
    let name = registry.name("private/web:1");

    let node = Node::new();
    let refused = node.pull(&name).await.unwrap_err().chain();
    assert!(refused.contains("pull access denied, repository does not exist or may require authorization: server message: unauthorized: authentication required"), "{refused}");
    assert!(node.pull_with(&name, &login("me", "wrong")).await.is_err());
    node.assert_empty();
    assert_eq!(node.pull_with(&name, &login("me", "secret")).await.unwrap().tags, [name.as_str()]);
    // Nobody may use what another has shown.
    assert!(node.pull(&name).await.is_err());

    let config = work.path().join("config.json");
    let auth = base64::engine::general_purpose::STANDARD.encode("me:secret");
    fs::write(&config, format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, registry.address)).unwrap();
    let settings = Settings { docker_config: Some(config), ..Default::default() };
    assert_eq!(Node::with(settings).pull(&name).await.unwrap().tags, [name]);
}

#[tokio::test]
async fn a_token_is_fetched_once_with_the_callers_password() {
    let fake = Fake::start().await;
    fake.put_image("private/web", "1", &two_layers());
    let basic = base64::engine::general_purpose::STANDARD.encode("me:secret");
    fake.want_token(&format!("Basic {basic}"), "t0k3n");
    let name = fake.name("private/web:1");
    let node = Node::new();
    let anonymous = node.pull(&name).await.unwrap_err().chain();
    assert!(
        anonymous.contains(
            "failed to authorize: failed to fetch anonymous token: unexpected status from GET request to"
        ),
        "{anonymous}"
    );
    assert!(anonymous.ends_with("401 Unauthorized"), "{anonymous}");
    node.pull_with(&name, &login("me", "secret")).await.unwrap();
    assert_eq!(fake.asked("/token"), 2, "one token serves the manifest and all blobs");
}

#[tokio::test]
async fn secrets_do_not_follow_to_another_host() {
    let (fake, storage) = (Fake::start().await, Fake::start().await);
    let image = two_layers();
    fake.put_image("private/web", "1", &image);
    for layer in &image.layers {
        let path = format!("/v2/private/web/blobs/{}", digest(layer));
        storage.put(&path, "application/octet-stream", layer);
        fake.redirect(&path, &format!("http://{}{path}", storage.address));
    }
    let basic = base64::engine::general_purpose::STANDARD.encode("me:secret");
    fake.want_token(&format!("Basic {basic}"), "t0k3n");
    let host = fake.address.to_string();
    let toml = format!("server = \"http://{host}\"\n[header]\nx-secret = \"known\"");
    let (_folder, settings) = hosts(&host, &toml);
    let node = Node::with(settings);
    let pulled = node.pull_with(&fake.name("private/web:1"), &login("me", "secret")).await.unwrap();
    assert_eq!(node.file(&pulled, "upper"), b"upper");
    assert!(fake.saw_header("x-secret") && fake.saw_header("authorization"));
    assert!(
        storage.asked("GET ") == 2 && !storage.saw_header("x-secret") && !storage.saw_header("authorization")
    );
}

#[tokio::test]
async fn tls_needs_a_ca_that_is_known() {
    let work = tempfile::tempdir().unwrap();
    let [ca_file, certificate, key] = authority(work.path(), "127.0.0.1");
    let registry = Registry::with_tls(&certificate, &key);
    let archive = work.path().join("image.tar");
    oci_archive(&two_layers(), &archive);
    registry.fill(&archive, "web:1", &[]);
    let name = registry.name("web:1");
    let host = registry.address.to_string();

    let (_folder, unknown) = hosts(&host, &format!("server = \"https://{host}\""));
    let refused = Node::with(unknown).pull(&name).await.unwrap_err().chain();
    assert!(refused.contains("tls: invalid peer certificate: UnknownIssuer"), "{refused}");
    let (folder, known) = hosts(&host, &format!("server = \"https://{host}\"\nca = \"own.crt\""));
    fs::copy(&ca_file, folder.path().join(&host).join("own.crt")).unwrap();
    assert_eq!(Node::with(known).pull(&name).await.unwrap().tags, [name.as_str()]);
    let (_folder, careless) = hosts(&host, &format!("server = \"https://{host}\"\nskip_verify = true"));
    assert_eq!(Node::with(careless).pull(&name).await.unwrap().tags, [name]);
}

#[tokio::test]
async fn a_connection_that_breaks_in_mid_layer_is_continued_where_it_ended() {
    let registry = Registry::open();
    let work = tempfile::tempdir().unwrap();
    let archive = work.path().join("image.tar");
    let content = noise(4 << 20, 7);
    oci_archive(&parts("amd64", &[layer("big", &content)], gzip), &archive);
    registry.fill(&archive, "big:1", &[]);
    let way = Breaking::before(registry.address, 1 << 20);
    let node = Node::new();
    let pulled = node.pull(&format!("{}/big:1", way.address)).await.unwrap();
    assert!(node.file(&pulled, "big") == content, "the content is whole");
    assert!(way.connections.load(Ordering::SeqCst) >= 5, "every connection broke after 1 of 4 MB");
    // Starting anew each time would not even have come to an end.
    assert!(way.bytes.load(Ordering::SeqCst) < 6 << 20, "nothing came twice");
}

#[tokio::test]
async fn a_pull_that_was_given_up_is_continued_by_the_next() {
    let registry = Registry::open();
    let work = tempfile::tempdir().unwrap();
    let archive = work.path().join("image.tar");
    let content = noise(4 << 20, 11);
    oci_archive(&parts("amd64", &[layer("big", &content)], gzip), &archive);
    registry.fill(&archive, "big:1", &[]);
    let way = Breaking::before(registry.address, u64::MAX);
    way.hold_after(2 << 20);
    let name = format!("{}/big:1", way.address);
    let node = Node::new();
    let (sender, mut watched) = tokio::sync::watch::channel(Progress::default());
    let options = Options { progress: Some(sender), ..Default::default() };
    let some = watched.wait_for(|progress| progress.bytes().0 >= 1 << 20).map(|seen| seen.unwrap().bytes().0);
    let came = tokio::select! {
        came = some => came,
        pulled = node.pull_with(&name, &options) => panic!("it came at once: {pulled:?}"),
    };
    assert_eq!(node.store().list().unwrap().len(), 0, "there is no half image");
    let before = way.bytes.load(Ordering::SeqCst);
    way.cut();
    let pulled = node.pull(&name).await.unwrap();
    assert!(node.file(&pulled, "big") == content);
    let after = way.bytes.load(Ordering::SeqCst) - before;
    assert!(after < (5 << 20) - came, "{came} bytes were here, yet {after} came again");
}

#[tokio::test]
async fn what_came_broken_is_fetched_anew_and_never_kept() {
    let fake = Fake::start().await;
    // The break is inside of a file: the packed stream ends there and goes on.
    let plain = layer("big", &noise(300_000, 37));
    let half = gzip(&plain[..100_000]);
    let image = parts("amd64", &[plain], |plain| [half.clone(), gzip(&plain[100_000..])].concat());
    fake.put_image("web", "1", &image);
    let node = Node::new();
    let downloads = node.store().root().join("downloads");
    let promised = digest(&image.layers[0]);
    fs::write(downloads.join(&promised[7..]), [half.as_slice(), b"this is not packed"].concat()).unwrap();
    let pulled = node.pull(&fake.name("web:1")).await.unwrap();
    assert!(node.file(&pulled, "big") == noise(300_000, 37));
    // A registry that sends it like this gets another chance the next time.
    let mut broken = half.clone();
    broken.resize(image.layers[0].len(), b'x');
    let liar = Fake::start().await;
    liar.put_image("web", "1", &image);
    liar.put_blob("web", &promised, &broken);
    let other = Node::new();
    let error = other.pull(&liar.name("web:1")).await.unwrap_err().chain();
    assert!(error.contains("failed to unpack \"big\""), "{error}");
    assert!(is_empty(&other.store().root().join("downloads")), "nothing of it is kept");
}

#[tokio::test]
async fn progress_tells_every_layer_and_what_was_here() {
    let fake = Fake::start().await;
    let lower = layer("lower", &noise(300_000, 3));
    fake.put_image("a", "1", &parts("amd64", std::slice::from_ref(&lower), gzip));
    fake.put_image("a", "2", &parts("amd64", &[lower, layer("upper", b"upper")], gzip));
    let node = Node::new();
    node.pull(&fake.name("a:1")).await.unwrap();
    let (sender, watched) = tokio::sync::watch::channel(Progress::default());
    let options = Options { progress: Some(sender), ..Default::default() };
    node.pull_with(&fake.name("a:2"), &options).await.unwrap();
    let progress = watched.borrow().clone();
    let states: Vec<State> = progress.layers.iter().map(|layer| layer.state).collect();
    assert_eq!(states, [State::Present, State::Done]);
    assert_eq!(progress.bytes().0, progress.bytes().1);
    assert_eq!(progress.reference, fake.name("a:2"));
}

#[tokio::test]
async fn content_that_is_not_what_its_digest_promises_is_refused() {
    let fake = Fake::start().await;
    let honest = two_layers();
    let node = Node::new();
    let pulling = |tag: &'static str| {
        let (node, name) = (&node, fake.name(&format!("liar:{tag}")));
        async move { node.pull(&name).await.unwrap_err().chain() }
    };
    // Another layer under the promised digest.
    fake.put_image("liar", "layer", &honest);
    let evil = gzip(&layer("upper", b"evil!"));
    let promised = digest(&honest.layers[1]);
    let mut padded = evil.clone();
    padded.resize(honest.layers[1].len(), 0);
    fake.put_blob("liar", &promised, &padded);
    let error = pulling("layer").await;
    assert!(error.contains(&promised), "{error}");
    node.assert_empty();
    // More bytes than promised.
    fake.put_blob("liar", &promised, &[honest.layers[1].clone(), vec![0; 64]].concat());
    assert!(pulling("layer").await.contains("it is larger than the"));
    node.assert_empty();
    // Another configuration.
    fake.put_image("liar", "config", &honest);
    fake.put_blob("liar", &digest(&honest.config), b"{}");
    let error = pulling("config").await;
    assert!(error.contains(&format!("configuration {} is corrupt", digest(&honest.config))), "{error}");
    // A configuration that promises another content than the layer has.
    let config = String::from_utf8(honest.config.clone()).unwrap();
    let config = config.replace(&digest(&layer("upper", b"upper"))[7..], &"0".repeat(64)).into_bytes();
    fake.put_image(
        "liar",
        "diff",
        &Parts { manifest: manifest(&config, &honest.layers), config, layers: honest.layers.clone() },
    );
    let error = pulling("diff").await;
    assert!(error.contains("the content of layer sha256:") && error.contains("is corrupt"), "{error}");
    // Another manifest than the one that was asked for.
    let asked = digest(b"something else");
    fake.put_manifest("liar", &asked, &honest.manifest);
    let error = node.pull(&fake.name(&format!("liar@{asked}"))).await.unwrap_err().chain();
    assert!(error.contains("the manifest is corrupt"), "{error}");
    node.assert_empty();
}

#[tokio::test]
async fn bad_images_are_refused_by_name_and_leave_nothing() {
    let fake = Fake::start().await;
    let node = Node::new();
    let refused = |tag: &'static str| {
        let (node, name) = (&node, fake.name(&format!("bad:{tag}")));
        async move { node.pull(&name).await.unwrap_err() }
    };
    fake.put_manifest("bad", "manifest", b"{\"schemaVersion\":2}");
    assert!(refused("manifest").await.chain().contains("it is neither an index nor a manifest"));
    let broken = Parts { config: b"{\"rootfs\":".to_vec(), layers: Vec::new(), manifest: Vec::new() };
    fake.put_image("bad", "config", &Parts { manifest: manifest(&broken.config, &[]), ..broken });
    assert!(refused("config").await.chain().contains("invalid image configuration sha256:"));
    let honest = two_layers();
    let short = manifest(&honest.config, &honest.layers[..1]);
    fake.put_image("bad", "short", &Parts { manifest: short, ..honest.clone() });
    assert!(refused("short").await.chain().contains("it lists 2 layers, the manifest 1"));
    // A layer that is no tar, and one whose gzip stream is broken: both with true digests.
    let config = |plain: &[u8]| parts("amd64", &[plain.to_vec()], gzip);
    let text = b"this is no tar at all".repeat(100);
    fake.put_image("bad", "tar", &config(&text));
    assert!(refused("tar").await.chain().contains("not an image archive: layer sha256:"));
    let cut = parts("amd64", &[layer("a", &noise(50_000, 5))], |plain| gzip(plain)[..20_000].to_vec());
    fake.put_image("bad", "gzip", &cut);
    let error = refused("gzip").await.chain();
    assert!(error.contains(&digest(&cut.layers[0])), "{error}");
    node.assert_empty();
}

#[tokio::test]
async fn the_image_for_this_machine_is_taken_and_no_other() {
    let fake = Fake::start().await;
    let own = Platform::host();
    let (mine, foreign) = (
        parts(&own.architecture, &[layer("for", b"me")], gzip),
        parts("s390x", &[layer("for", b"others")], gzip),
    );
    let entry = |parts: &Parts, architecture: &str| {
        serde_json::json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&parts.manifest),
            "size": parts.manifest.len(), "platform": { "os": "linux", "architecture": architecture } })
    };
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [entry(&foreign, "s390x"), entry(&mine, &own.architecture)] });
    let index = serde_json::to_vec(&index).unwrap();
    fake.put_image("web", "mine", &mine);
    fake.put_image("web", "foreign", &foreign);
    fake.put("/v2/web/manifests/all", INDEX, &index);
    let node = Node::new();
    let pulled = node.pull(&fake.name("web:all")).await.unwrap();
    assert_eq!(node.file(&pulled, "for"), b"me");
    assert_eq!(pulled.digests, [format!("{}@{}", fake.name("web"), digest(&index))], "pinned by the index");
    let only_foreign = serde_json::json!({ "schemaVersion": 2, "manifests": [entry(&foreign, "s390x")] });
    fake.put("/v2/web/manifests/none", INDEX, &serde_json::to_vec(&only_foreign).unwrap());
    for tag in ["none", "foreign"] {
        let error = node.pull(&fake.name(&format!("web:{tag}"))).await.unwrap_err().chain();
        let expected = format!("no match for platform {own} in manifest of");
        assert!(error.contains(&expected) && error.contains("which is for linux/s390x"), "{error}");
    }
    let options = Options { platform: Platform::parse("linux/s390x"), ..Default::default() };
    let pulled = node.pull_with(&fake.name("web:all"), &options).await.unwrap();
    assert_eq!(node.file(&pulled, "for"), b"others");
}

#[tokio::test]
async fn mirrors_are_asked_in_turn_and_the_registry_last() {
    let registry = Registry::open();
    let work = tempfile::tempdir().unwrap();
    let archive = work.path().join("image.tar");
    oci_archive(&two_layers(), &archive);
    registry.fill(&archive, "library/web:1", &[]);
    let empty = Fake::start().await;
    let (_folder, settings) = hosts(
        "docker.io",
        &format!(
            "server = \"http://127.0.0.1:1\"\n[host.\"http://127.0.0.1:2\"]\n[host.\"http://{}\"]\n[host.\"http://{}\"]\n",
            empty.address, registry.address
        ),
    );
    let node = Node::with(settings);
    let pulled = node.pull("web:1").await.unwrap();
    assert_eq!(pulled.tags, ["docker.io/library/web:1"]);
    assert!(empty.asked("/v2/library/web/manifests/1") == 1 && node.file(&pulled, "upper") == b"upper");
    // When nobody has it, the registry's own answer counts.
    let error = node.pull("web:2").await.unwrap_err().chain();
    assert!(error.contains("dial tcp 127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn pulls_at_once_share_their_downloads() {
    let fake = Fake::start().await;
    let shared = layer("shared", &noise(1 << 20, 13));
    let images = [layer("a", b"a"), layer("b", b"b")].map(|top| parts("amd64", &[shared.clone(), top], gzip));
    fake.put_image("web", "a", &images[0]);
    fake.put_image("web", "b", &images[1]);
    let node = Node::new();
    let names = [fake.name("web:a"), fake.name("web:b"), fake.name("web:a")];
    let pulled = futures::future::join_all(names.iter().map(|name| node.pull(name))).await;
    assert!(pulled.iter().all(Result::is_ok), "{pulled:?}");
    assert_eq!(fake.asked(&digest(&images[0].layers[0])), 1, "the layer came once");
}

#[tokio::test]
async fn what_is_here_is_only_asked_about() {
    let fake = Fake::start().await;
    fake.put_image("web", "1", &two_layers());
    let node = Node::new();
    let name = fake.name("web:1");
    node.pull(&name).await.unwrap();
    let fetched = fake.asked("GET ");
    node.pull(&name).await.unwrap();
    // Docker Hub counts manifests that are fetched, and a pod with the policy Always pulls at every start.
    assert_eq!((fake.asked("GET "), fake.asked("HEAD ")), (fetched, 2));
    fake.put_image("web", "1", &parts("amd64", &[layer("new", b"new")], gzip));
    let newer = node.pull(&name).await.unwrap();
    assert_eq!(node.file(&newer, "new"), b"new", "the tag has moved");
    let older = node.store().list().unwrap().into_iter().find(|image| image.id != newer.id).unwrap();
    assert_eq!((older.tags.len(), older.digests.len()), (0, 1), "the old image has lost its tag");
}

#[test]
fn a_full_disk_is_named_and_freed_again() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let flags = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
    // Threads that are made from here on see the small disk.
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    executor.block_on(async {
        let fake = Fake::start().await;
        let content = noise(3 << 20, 17);
        fake.put_image("big", "1", &parts("amd64", &[layer("big", &content)], gzip));
        let node = Node::new();
        let disk = |size: &str, flags| {
            let options = format!("size={size}");
            nix::mount::mount(
                Some("small"),
                node.store().root(),
                Some("tmpfs"),
                flags,
                Some(options.as_str()),
            )
            .unwrap();
        };
        disk("4m", nix::mount::MsFlags::empty());
        for directory in ["blobs/sha256", "layers", "references", "used", "downloads", "leases", "snapshots"]
        {
            fs::create_dir_all(node.store().root().join(directory)).unwrap();
        }
        let error = node.pull(&fake.name("big:1")).await.unwrap_err();
        assert!(
            error.is_disk_full() && error.chain().contains("No space left on device"),
            "{}",
            error.chain()
        );
        node.assert_empty();
        let free = node.store().disk().unwrap();
        assert!(free.capacity - free.available < 1 << 20, "the disk is free again");
        disk("16m", nix::mount::MsFlags::MS_REMOUNT);
        let pulled = node.pull(&fake.name("big:1")).await.unwrap();
        assert!(node.file(&pulled, "big") == content);
        nix::mount::umount(node.store().root()).unwrap();
    });
}

/// Not a test of its own: the process that [`killed_at_any_moment_a_pull_leaves_no_half_image`] kills.
#[tokio::test]
async fn pulls_for_another_process() {
    let Ok(name) = std::env::var("CORACLE_TEST_PULL") else { return };
    let root = std::env::var("CORACLE_TEST_ROOT").unwrap();
    let store = runtime::image::Store::open(root).unwrap();
    let puller = runtime::image::Puller::new(store, Settings::default());
    let reference = runtime::image::Reference::parse(&name).unwrap();
    let pulled: Result<_, ImageError> = puller.pull(&reference, &Options::default()).await;
    pulled.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_a_pull_leaves_no_half_image() {
    let fake = Fake::start().await;
    let contents = [noise(1 << 20, 19), noise(700_000, 23), noise(200_000, 29)];
    let layers: Vec<Vec<u8>> = contents.iter().map(|content| layer("file", content)).collect();
    fake.put_image("web", "1", &parts("amd64", &layers, gzip));
    let size: u64 = 2_000_000;
    // Bytes of answers after which the process is killed: from the manifest to the last layer's end.
    for after in [0, 300, size / 8, size / 3, size / 2, size * 3 / 4, size - 1000] {
        let way = Breaking::before(fake.address, u64::MAX);
        let name = format!("{}/web:1", way.address);
        let node = Node::new();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "registry::pull::pulls_for_another_process", "--nocapture"])
            .env("CORACLE_TEST_PULL", &name)
            .env("CORACLE_TEST_ROOT", node.store().root())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        while way.bytes.load(Ordering::SeqCst) <= after && child.try_wait().unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(!said.contains("panicked"), "{said}");
        for image in node.store().list().unwrap() {
            assert_whole(&node, &image, &contents);
        }
        let pulled = node.pull(&name).await.unwrap();
        assert_whole(&node, &pulled, &contents);
        node.store().collect_garbage().unwrap();
        assert!(is_empty(&node.store().root().join("leases")), "the dead process's lease is gone");
        assert!(is_empty(&node.store().root().join("downloads")));
        assert_whole(&node, &pulled, &contents);
    }
}

fn assert_whole(node: &Node, image: &runtime::image::Image, contents: &[Vec<u8>]) {
    let layers = node.store().layer_paths(image);
    assert_eq!(layers.len(), contents.len());
    for (layer, content) in layers.iter().rev().zip(contents) {
        assert!(fs::read(layer.join("file")).unwrap() == *content, "a layer is not whole");
    }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().count() == 0
}

#[test]
fn the_kubelets_pull_shows_its_password_and_fails_in_containerds_words() {
    crate::world::in_world(|world| async move {
        use cri::ImageService;
        use cri::v1::{AuthConfig, ImageSpec, PullImageRequest};
        let fake = Fake::start().await;
        fake.put_image("private/web", "1", &two_layers());
        let basic = base64::engine::general_purpose::STANDARD.encode("me:secret");
        fake.want_token(&format!("Basic {basic}"), "t0k3n");
        let pull = |name: String, auth: Option<AuthConfig>| {
            let image = Some(ImageSpec { image: name, ..Default::default() });
            world.runtime.pull_image(PullImageRequest { image, auth, sandbox_config: None })
        };
        let name = fake.name("private/web:1");
        let refused = pull(name.clone(), None).await.unwrap_err();
        assert!(
            refused.message.starts_with(&format!(
                "failed to pull and unpack image {name:?}: failed to resolve reference"
            ))
        );
        let auth = AuthConfig { username: "me".into(), password: "secret".into(), ..Default::default() };
        let pulled = pull(name.clone(), Some(auth.clone())).await.unwrap();
        assert_eq!(pulled.image_ref, digest(&two_layers().config), "containerd answers with the id");
        let missing = pull(fake.name("private/web:2"), Some(auth)).await.unwrap_err();
        assert!(
            missing.is_not_found() && missing.message.ends_with("private/web:2: not found"),
            "{}",
            missing.message
        );
        // Where no registry answers, what was brought by hand counts, and only that.
        let tiny = world.directory.path().join("tiny.tar");
        let [by_hand, unknown] = ["127.0.0.1:1/by-hand:latest", "127.0.0.1:1/other:latest"];
        crate::world::tiny_archive(by_hand, &tiny);
        world.runtime.images().import(fs::File::open(tiny).unwrap(), None).unwrap();
        assert!(pull(by_hand.to_owned(), None).await.is_ok());
        assert!(pull(unknown.to_owned(), None).await.unwrap_err().message.contains("dial tcp 127.0.0.1:1"));
        world
    });
}

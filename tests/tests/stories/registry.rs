//! Images from a registry to the pods and back: `coracle image`, a pod's secret, a folder of archives.

use std::process::{Child, Stdio};

use e2e::{
    Cluster, Machine,
    cluster::{IMAGE, image_file},
    eventually,
};

/// Where the registry listens on the test's machine.
const REGISTRY: &str = "127.0.0.1:5000";
const LOGIN: &str = "me:secret";

/// Debian's docker-registry on the test's machine; it ends with the machine.
fn registry(cluster: &Cluster) -> Child {
    let dir = cluster.dir().join("registry");
    std::fs::create_dir(&dir).unwrap();
    let (name, password) = LOGIN.split_once(':').unwrap();
    let passwords = cluster.machine.sh(&format!("htpasswd -nbB {name} {password}")).ok();
    std::fs::write(dir.join("htpasswd"), passwords).unwrap();
    let config = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {dir}/data}}}}\nhttp: {{addr: \"{REGISTRY}\"}}\n\
         auth: {{htpasswd: {{realm: test, path: {dir}/htpasswd}}}}\n",
        dir = dir.display()
    );
    std::fs::write(dir.join("config.yml"), config).unwrap();
    let mut command = cluster.machine.command("docker-registry");
    command.arg("serve").arg(dir.join("config.yml")).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("docker-registry is installed");
    eventually("the registry answers", || {
        let said = cluster.machine.sh(&format!("curl -s -o /dev/null http://{REGISTRY}/v2/"));
        if said.code == 0 { Ok(()) } else { Err(said.err) }
    });
    child
}

fn end(mut registry: Child) {
    registry.kill().unwrap();
    registry.wait().unwrap();
}

#[test]
fn images_are_handled_as_with_docker_without_a_cluster() {
    let cluster = Cluster::prepared(Machine::new(), &[]);
    let registry = registry(&cluster);
    let image = |command: &str| {
        let words: Vec<&str> = command.split(' ').collect();
        cluster.coracle(&format!("image {}", words[0]), &words[1..])
    };
    image(&format!("import {}", image_file().display())).ok();
    let here = format!("{REGISTRY}/team/box:1");
    image(&format!("tag {IMAGE} {here}")).ok();
    let refused = image(&format!("push {here}")).fails();
    assert!(refused.contains("push access denied"), "{refused}");
    let pushed = image(&format!("push {here} --creds {LOGIN}")).ok();
    assert!(pushed.contains(": digest: sha256:") && pushed.contains("2 blobs sent"), "{pushed}");
    assert!(image(&format!("push {here} --creds {LOGIN}")).ok().contains("2 were there"));

    let untagged = image(&format!("rm {here}")).ok();
    assert!(untagged.contains(&format!("Untagged: {here}")) && !untagged.contains("Deleted"), "{untagged}");
    assert!(image(&format!("rm {IMAGE}")).ok().contains("Deleted: sha256:"));
    assert_eq!(image("ls -q").ok(), "");
    let pulled = image(&format!("pull {here} --creds {LOGIN}")).ok();
    assert!(pulled.contains(": Pull complete\nDigest: sha256:"), "{pulled}");
    assert!(pulled.ends_with(&format!("Status: Downloaded newer image for {here}\n{here}\n")), "{pulled}");
    let again = image(&format!("pull {here} --creds {LOGIN}")).ok();
    assert!(
        again.contains(": Already exists\n") && again.contains("Status: Image is up to date for"),
        "{again}"
    );

    let listed = image("ls").ok();
    assert!(listed.starts_with("REPOSITORY ") && listed.contains("127.0.0.1:5000/team/box   1 "), "{listed}");
    let described: serde_json::Value =
        serde_json::from_str(&image(&format!("inspect {here}")).ok()).expect("inspect prints JSON");
    assert_eq!(described[0]["RepoTags"][0], here);
    assert!(image(&format!("history {here}")).ok().contains("static busybox of this system"));
    assert!(image("df").ok().contains("Packed layers"));

    let file = cluster.dir().join("saved.tar.zst").display().to_string();
    image(&format!("save {here} -o {file}")).ok();
    assert!(image("prune -a -f").ok().contains("Total reclaimed space: "));
    assert_eq!(image(&format!("load -i {file}")).ok(), format!("Loaded image: {here}\n"));
    let listed: serde_json::Value = serde_json::from_str(&image("ls -o json").ok()).expect("ls prints JSON");
    assert_eq!(listed[0]["RepoTags"], serde_json::json!([here]));
    let unknown = image("inspect nobody/knows:it").fails();
    assert!(unknown.contains("there is no image nobody/knows:it: see `coracle image ls`"), "{unknown}");
    end(registry);
}

#[test]
fn pods_pull_with_their_secret_and_archives_are_there_from_the_start() {
    let cluster = Cluster::start();
    let registry = registry(&cluster);
    let private = format!("{REGISTRY}/team/box:1");
    cluster.coracle("image push", &[IMAGE, &private, "--creds", LOGIN]).ok();
    let pod = |name: &str, secret: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  {secret}\n  \
             containers: [{{name: c, image: \"{private}\", command: [sleep, \"1000\"]}}]\n"
        )
    };
    cluster.apply(&pod("stranger", ""));
    eventually("the stranger is told why", || {
        let events = cluster.kubectl("get events").out;
        let told =
            events.contains("pull access denied, repository does not exist or may require authorization");
        if told { Ok(()) } else { Err(events) }
    });
    let create = format!(
        "create secret docker-registry login --docker-server={REGISTRY} --docker-username=me --docker-password=secret"
    );
    cluster.kubectl(&create).ok();
    cluster.apply(&pod("friend", "imagePullSecrets: [{name: login}]"));
    cluster.wait_for("pod friend", "{.status.phase}", "Running");
    // All names of one image: its container keeps it.
    let id = cluster.coracle("image ls", &["-q", &private]).ok();
    let refused = cluster.coracle("image rm", &[id.trim()]).fails();
    assert!(refused.contains("a container is made of it"), "{refused}");

    // The next start finds an archive.
    let folder = cluster.data_dir().join("images");
    std::fs::create_dir_all(&folder).unwrap();
    let archive = folder.join("brought.tar");
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/busybox-image");
    let made = std::process::Command::new(script).arg(&archive).arg("coracle.test/brought:1").status();
    assert!(made.unwrap().success());
    cluster.kill_server();
    cluster.up().ok();
    let listed = cluster.coracle("image ls", &[]).ok();
    assert!(listed.contains("coracle.test/brought"), "{listed}");
    assert_eq!(cluster.get("pod friend")["status"]["phase"], "Running", "pods outlive the server");
    end(registry);
}

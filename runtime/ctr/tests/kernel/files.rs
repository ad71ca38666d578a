//! Files in and out: cp, export, diff, commit, volumes.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;

use crate::world::{IMAGE, in_world};

#[test]
fn files_go_both_ways_whether_it_runs_or_not() {
    in_world(|world| {
        let here = |name: &str| world.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir_all(world.path().join("tree/deep")).unwrap();
        fs::write(world.path().join("tree/deep/file"), "content").unwrap();
        std::os::unix::fs::symlink("deep/file", world.path().join("tree/link")).unwrap();
        world.detached(&["--name", "runs"], "sleep 1000");
        world.ok(&["create", "--name", "rests", IMAGE, "true"]);
        for name in ["runs", "rests"] {
            world.ok(&["cp", &here("tree"), &format!("{name}:/tmp")]);
            world.ok(&["cp", &format!("{}/.", here("tree")), &format!("{name}:/tmp/tree/copy")]);
            world.ok(&["cp", &here("tree/deep/file"), &format!("{name}:/home/renamed")]);
            let out = here(&format!("out-{name}"));
            world.ok(&["cp", &format!("{name}:/tmp/tree"), &out]);
            assert_eq!(fs::read_to_string(format!("{out}/copy/deep/file")).unwrap(), "content");
            assert_eq!(fs::read_link(format!("{out}/link")).unwrap().to_str(), Some("deep/file"));
            world.ok(&["cp", "-L", &format!("{name}:/tmp/tree/link"), &here("followed")]);
            assert_eq!(fs::read_to_string(here("followed")).unwrap(), "content");
            let done = world.run(&["cp", &format!("{name}:/nowhere"), &here("x")]);
            assert_eq!(
                (done.code, done.err.contains("Could not find the file /nowhere")),
                (1, true),
                "{done:?}"
            );
        }
        assert_eq!(
            world.ok(&["exec", "runs", "cat", "/home/renamed", "/tmp/tree/copy/deep/file"]),
            "contentcontent"
        );
    });
}

#[test]
fn trees_travel_as_tars() {
    in_world(|world| {
        world.detached(&["--name", "one"], "mkdir /data; echo hello > /data/file; sleep 1000");
        world.until("its file", || world.run(&["exec", "one", "test", "-s", "/data/file"]).code == 0);
        let tar = world.command(&["cp", "one:/data", "-"]).output().unwrap().stdout;
        let mut archive = tar::Archive::new(Cursor::new(&tar));
        let names: Vec<_> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
        assert_eq!(names, [std::path::Path::new("data/"), std::path::Path::new("data/file")]);
        assert_eq!(world.run_with(&["cp", "-", "one:/tmp"], &tar).code, 0);
        assert_eq!(world.ok(&["exec", "one", "cat", "/tmp/data/file"]), "hello\n");
        let whole = world.path().join("whole.tar");
        world.ok(&["export", "-o", whole.to_str().unwrap(), "one"]);
        let mut archive = tar::Archive::new(fs::File::open(whole).unwrap());
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert!(names.iter().any(|name| name == "data/file"), "{names:?}");
        assert!(
            names.iter().any(|name| name == "proc/") && !names.iter().any(|name| name.starts_with("proc/1"))
        );
    });
}

#[test]
fn links_of_a_container_lead_nowhere_else() {
    in_world(|world| {
        let secret = world.path().join("secret");
        fs::write(&secret, "of the machine").unwrap();
        let script = format!("ln -s {} /out; ln -s / /root-link; sleep 1000", secret.display());
        world.detached(&["--name", "sly"], &script);
        world.until("its link", || world.run(&["exec", "sly", "test", "-L", "/root-link"]).code == 0);
        let target = world.path().join("stolen");
        let done = world.run(&["cp", "-L", "sly:/out", target.to_str().unwrap()]);
        assert!(done.code != 0 && !target.exists(), "{done:?}");
        // What is written through it lands in the container.
        world.ok(&["cp", secret.to_str().unwrap(), "sly:/root-link/tmp/inside"]);
        assert_eq!(world.ok(&["exec", "sly", "cat", "/tmp/inside"]), "of the machine");
    });
}

#[test]
fn what_changed_is_told_and_becomes_an_image() {
    in_world(|world| {
        let script =
            "echo new > /etc/new; echo more >> /etc/motd; rm /etc/group; mkdir -p /a/b; touch /a/b/c";
        world.ok(&["run", "--name", "worked", "-e", "MADE=1", IMAGE, "sh", "-c", script]);
        let changes = world.ok(&["diff", "worked"]);
        let expected = "A /a\nA /a/b\nA /a/b/c\nC /etc\nD /etc/group\nC /etc/motd\nA /etc/new\n";
        assert_eq!(changes, expected);
        let change =
            r#"CMD ["sh", "-c", "cat /etc/new /etc/motd; test -e /etc/group || echo gone; echo $MADE"]"#;
        let id = world.ok(&["commit", "-m", "words", "-c", change, "worked", "made/it:2"]);
        assert!(id.starts_with("sha256:"));
        assert_eq!(world.ok(&["run", "--rm", "made/it:2"]), "new\nof the image\nmore\ngone\n1\n");
        assert_eq!(world.ok(&["run", "--rm", "made/it:2", "ls", "/a/b"]), "c\n");
    });
}

#[test]
fn what_a_container_hands_out_has_no_rights_on_the_machine() {
    in_world(|world| {
        let script = "cp /bin/busybox /tmp/rights; chmod 6755 /tmp/rights; mkdir /tmp/nodes; mkfifo /tmp/nodes/pipe; \
                      mknod /tmp/nodes/zero c 1 5; sleep 1000";
        world.detached(&["--name", "sly"], script);
        world.until("its device", || world.run(&["exec", "sly", "test", "-c", "/tmp/nodes/zero"]).code == 0);
        let here = |name: &str| world.path().join(name);
        for options in [&["cp"][..], &["cp", "-a"]] {
            let out = here("rights");
            world.ok(&[options, &["sly:/tmp/rights", out.to_str().unwrap()]].concat());
            assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o7777, 0o755);
            let done = world.run(&[options, &["sly:/tmp/nodes", here("nodes").to_str().unwrap()]].concat());
            assert!(done.code != 0 && done.err.contains("devices are not made on this machine"), "{done:?}");
            assert!(!here("nodes/zero").exists());
        }
        // The other way round a container gets what it is given.
        let given = here("given");
        fs::write(&given, "").unwrap();
        fs::set_permissions(&given, fs::Permissions::from_mode(0o4755)).unwrap();
        world.ok(&["cp", given.to_str().unwrap(), "sly:/tmp/given"]);
        assert_eq!(world.ok(&["exec", "sly", "stat", "-c", "%a", "/tmp/given"]), "4755\n");
    });
}

#[test]
fn capabilities_of_programs_stay_with_them() {
    in_world(|world| {
        let id =
            world.detached(&["--name", "made"], "cp /bin/busybox /tmp/able; touch /tmp/done; sleep 1000");
        world.until("its file", || world.run(&["exec", "made", "test", "-e", "/tmp/done"]).code == 0);
        let file = world.path().join("images/snapshots-ctr").join(&id).join("upper/tmp/able");
        allow_raw_sockets(&file);
        let records = |tar: &[u8]| {
            let mut archive = tar::Archive::new(Cursor::new(tar));
            let mut keys = Vec::new();
            for entry in archive.entries().unwrap() {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                for extension in entry.pax_extensions().unwrap().into_iter().flatten() {
                    keys.push(format!("{path} {}", extension.unwrap().key().unwrap()));
                }
            }
            keys
        };
        let whole = world.command(&["export", "made"]).output().unwrap().stdout;
        assert_eq!(records(&whole), ["tmp/able SCHILY.xattr.security.capability"]);
        world.ok(&["commit", "made", "able:1"]);
        world.ok(&["create", "--name", "again", "able:1", "true"]);
        let again = world.command(&["export", "again"]).output().unwrap().stdout;
        assert_eq!(records(&again), ["tmp/able SCHILY.xattr.security.capability"]);
    });
}

/// What `setcap cap_net_raw+ep` writes.
fn allow_raw_sockets(file: &std::path::Path) {
    let version_2_effective = 0x0200_0001_u32.to_le_bytes();
    let permitted = (1_u32 << 13).to_le_bytes();
    let value = [version_2_effective, permitted, [0; 4], [0; 4], [0; 4]].concat();
    let path = std::ffi::CString::new(file.to_str().unwrap()).unwrap();
    let name = c"security.capability";
    // SAFETY: path, name and value live through the call, the value's length is passed along.
    let done = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn new_volumes_have_what_the_image_has_there() {
    in_world(|world| {
        world.ok(&[
            "run",
            "--name",
            "base",
            IMAGE,
            "sh",
            "-c",
            "mkdir -m 750 /data; echo of image > /data/file",
        ]);
        world.ok(&["commit", "-c", "VOLUME /data", "base", "with-volume:1"]);
        let read = ["sh", "-c", "stat -c %a /data; cat /data/file"];
        let run = |options: &[&str], command: &[&str]| {
            world.run(&[&["run", "--rm"], options, &["with-volume:1"], command].concat())
        };
        assert_eq!(run(&[], &read).out, "750\nof image\n", "one that nobody has named");
        let change = ["sh", "-c", "cat /data/file; echo changed > /data/file"];
        assert_eq!(run(&["-v", "store:/data"], &change).out, "of image\n");
        assert_eq!(run(&["-v", "store:/data"], &read).out, "750\nchanged\n", "it is filled once");
        assert_eq!(run(&["-v", "bare:/data:nocopy"], &["ls", "/data"]).out, "");
        assert_eq!(run(&["-v", "etc:/etc"], &["cat", "/etc/motd"]).out, "of the image\n");
        let host = world.path().join("host");
        let bind = format!("{}:/data", host.display());
        assert_eq!(run(&["-v", &bind], &["ls", "/data"]).out, "", "the machine's folders are its own");
        let left = fs::read_dir(world.path().join("data/volumes")).unwrap().count();
        assert_eq!(left, 3, "anonymous volumes are gone");
    });
}

#[test]
fn volumes_outlive_containers_unless_nobody_named_them() {
    in_world(|world| {
        let host = world.path().join("host");
        let bind = format!("{}:/host", host.display());
        let script = "echo kept > /named/file; echo kept > /host/file; touch /anonymous/file";
        let options = [
            "run",
            "--name",
            "user",
            "-v",
            "store:/named",
            "-v",
            &bind,
            "-v",
            "/anonymous",
            IMAGE,
            "sh",
            "-c",
            script,
        ];
        world.ok(&options);
        assert_eq!(fs::read_to_string(host.join("file")).unwrap(), "kept\n");
        let volumes = || fs::read_dir(world.path().join("data/volumes")).unwrap().count();
        assert_eq!(volumes(), 2);
        world.ok(&["rm", "-v", "user"]);
        assert_eq!(volumes(), 1);
        let read_only = [
            "run",
            "--rm",
            "-v",
            "store:/named:ro",
            IMAGE,
            "sh",
            "-c",
            "cat /named/file; touch /named/x || echo no",
        ];
        assert_eq!(world.ok(&read_only), "kept\nno\n");
    });
}

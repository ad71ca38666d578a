//! Layers of every shape: what a tar can say comes out as it was, and nothing comes out elsewhere.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use runtime::image::layer::unpack;

use crate::registry::tool;
use crate::world::append;

const FILE: tar::EntryType = tar::EntryType::Regular;
const FOLDER: tar::EntryType = tar::EntryType::Directory;

/// A tar in the making.
struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    fn new() -> Tar {
        Tar(tar::Builder::new(Vec::new()))
    }

    fn add(mut self, kind: tar::EntryType, name: &str, content: &[u8]) -> Tar {
        append(&mut self.0, kind, name, 0o755, content);
        self
    }

    /// A name that the tar crate would refuse to write.
    fn raw(mut self, kind: tar::EntryType, name: &str, target: &str, content: &[u8]) -> Tar {
        let mut header = tar::Header::new_gnu();
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn link(self, name: &str, target: &str) -> Tar {
        self.raw(tar::EntryType::Symlink, name, target, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    fn unpack(self, to: &Path) -> Result<u64, String> {
        let bytes = self.bytes();
        unpack(Cursor::new(bytes), to, "test").map_err(|error| error.chain())
    }
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let (path, name) = (CString::new(path.as_os_str().as_bytes()).unwrap(), CString::new(name).unwrap());
    let mut value = vec![0_u8; 256];
    // SAFETY: both strings end with zero, and the length of the buffer is passed along.
    let length =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(length).ok()?);
    Some(value)
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    let (path, name) = (CString::new(path.as_os_str().as_bytes()).unwrap(), CString::new(name).unwrap());
    // SAFETY: both strings end with zero, and the value's length is passed along.
    let result =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// All that can be seen of a tree: by path, what each thing is.
fn described(root: &Path, with_fractions: bool) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let status = fs::symlink_metadata(&path).unwrap();
            if status.is_dir() {
                pending.push(path.clone());
            }
            let links = if status.is_dir() { 0 } else { status.nlink() };
            let size = if status.is_dir() { 0 } else { status.size() };
            let nanoseconds = if with_fractions { status.mtime_nsec() } else { 0 };
            let target = fs::read_link(&path).unwrap_or_default();
            let attributes = ["user.color", "security.capability"].map(|name| attribute(&path, name));
            let what = format!(
                "{:o} {}:{} links {links} size {size} device {} at {}.{nanoseconds} -> {} {attributes:?}",
                status.mode(),
                status.uid(),
                status.gid(),
                status.rdev(),
                status.mtime(),
                target.display(),
            );
            found.insert(path.strip_prefix(root).unwrap().to_owned(), what);
        }
    }
    found
}

#[test]
fn what_gnu_tar_packs_comes_out_as_it_was() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let tree = work.path().join("tree");
    let long = tree.join("d".repeat(120)).join("e".repeat(200));
    fs::create_dir_all(&long).unwrap();
    fs::write(long.join("f".repeat(230)), "deep").unwrap();
    let program = tree.join("program");
    fs::write(&program, "#!").unwrap();
    std::os::unix::fs::chown(&program, Some(70_000), Some(33)).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).unwrap();
    let able = tree.join("able");
    fs::write(&able, "x").unwrap();
    std::os::unix::fs::chown(&able, Some(33), Some(33)).unwrap();
    // cap_net_bind_service, permitted and effective; a change of the owner would take it away.
    set_attribute(
        &able,
        "security.capability",
        &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    set_attribute(&able, "user.color", b"blue");
    fs::hard_link(&able, tree.join("zz-same")).unwrap();
    symlink("../nowhere/ünïcode", tree.join("link")).unwrap();
    for arguments in [["console", "c", "5", "1"], ["disk", "b", "8", "300"]] {
        let [name, rest @ ..] = arguments;
        tool("mknod", &[&[tree.join(name).to_str().unwrap()], &rest[..]].concat());
    }
    tool("mkfifo", &["-m", "640", tree.join("pipe").to_str().unwrap()]);
    let sparse = File::create(tree.join("sparse")).unwrap();
    sparse.write_all_at(b"begin", 1 << 20).unwrap();
    sparse.write_all_at(b"end", 8 << 20).unwrap();
    sparse.set_len(9 << 20).unwrap();
    fs::create_dir(tree.join("sticky")).unwrap();
    fs::set_permissions(tree.join("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();

    let posix =
        ["posix --sparse-version=1.0", "posix --sparse-version=0.1", "posix --sparse-version=0.0", "gnu"];
    for format in posix {
        let archive = work.path().join("layer.tar");
        let attributes = if format == "gnu" { "" } else { "--xattrs --xattrs-include=*" };
        let flags = format!("--format={format} --sparse --numeric-owner {attributes}");
        let (archive_name, tree_name) = (archive.to_str().unwrap(), tree.to_str().unwrap());
        let arguments: Vec<&str> =
            flags.split_whitespace().chain(["-cf", archive_name, "-C", tree_name, "."]).collect();
        tool("tar", &arguments);
        let out = work.path().join(format!("out-{}", format.replace([' ', '='], "")));
        fs::create_dir(&out).unwrap();
        unpack(File::open(&archive).unwrap(), &out, "test").unwrap();
        let is_posix = format != "gnu";
        let (mut expected, mut found) = (described(&tree, is_posix), described(&out, is_posix));
        if !is_posix {
            // The old format knows no attributes.
            for tree in [&mut expected, &mut found] {
                tree.retain(|path, _| !path.ends_with("able") && !path.ends_with("zz-same"));
            }
        }
        assert_eq!(found, expected, "{format}");
        assert_eq!(fs::read(out.join("sparse")).unwrap(), fs::read(tree.join("sparse")).unwrap(), "{format}");
        if is_posix {
            let blocks = fs::metadata(out.join("sparse")).unwrap().blocks();
            assert!(blocks < 1024, "{format}: the holes are filled: {blocks} blocks");
        }
    }
}

#[test]
fn nothing_is_written_outside_the_layer() {
    let attacks: [(&str, fn(&str) -> Tar); 10] = [
        ("a file through a link", |out| Tar::new().link("way", out).raw(FILE, "way/new", "", b"caught")),
        ("a file through a relative link", |_| {
            Tar::new().link("way", "../outside").raw(FILE, "way/new", "", b"caught")
        }),
        ("a file above", |_| Tar::new().raw(FILE, "../outside/new", "", b"caught")),
        ("a file by its absolute name", |out| Tar::new().raw(FILE, &format!("{out}/new"), "", b"caught")),
        ("a hard link to a file outside, then written", |out| {
            let target = format!("{out}/victim");
            Tar::new().raw(tar::EntryType::Link, "mine", &target, b"").raw(FILE, "mine", "", b"caught")
        }),
        ("a hard link through a link", |out| {
            let tar = Tar::new().link("way", out);
            tar.raw(tar::EntryType::Link, "mine", "way/victim", b"").raw(FILE, "way/victim", "", b"caught")
        }),
        ("a hard link above", |_| {
            Tar::new()
                .raw(tar::EntryType::Link, "mine", "../outside/victim", b"")
                .raw(FILE, "mine", "", b"caught")
        }),
        ("a whiteout through a link", |out| {
            Tar::new().link("way", out).raw(FILE, "way/.wh.victim", "", b"").raw(
                FILE,
                "way/.wh..wh..opq",
                "",
                b"",
            )
        }),
        ("a folder in place of a link's target", |out| {
            Tar::new().link("way", out).raw(FOLDER, "way/", "", b"")
        }),
        ("a folder that turns into a link before its time is set", |out| {
            Tar::new()
                .raw(FOLDER, "a/b/", "", b"")
                .raw(FOLDER, "a/", "", b"")
                .link("a", out.rsplit_once('/').unwrap().0)
                .raw(FOLDER, "outside/", "", b"")
        }),
    ];
    for (what, attack) in attacks {
        let work = tempfile::tempdir().unwrap();
        let (root, outside) = (work.path().join("layer"), work.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir_all(outside.join("b")).unwrap();
        fs::write(outside.join("victim"), "alive").unwrap();
        let before = described(work.path(), true).into_iter().filter(|(path, _)| path.starts_with("outside"));
        let before: BTreeMap<_, _> = before.collect();
        // Refused or turned inside, both are well.
        let outcome = attack(outside.to_str().unwrap()).unpack(&root);
        let after = described(work.path(), true).into_iter().filter(|(path, _)| path.starts_with("outside"));
        assert_eq!(after.collect::<BTreeMap<_, _>>(), before, "{what}: {outcome:?}");
        assert_eq!(fs::read(outside.join("victim")).unwrap(), b"alive", "{what}");
    }
}

#[test]
fn a_layer_that_changes_while_it_is_unpacked_leads_nowhere_else() {
    let work = tempfile::tempdir().unwrap();
    let (root, outside) = (work.path().join("layer"), work.path().join("outside"));
    fs::create_dir_all(root.join("d")).unwrap();
    fs::create_dir(&outside).unwrap();
    symlink(&outside, root.join("swap")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Somebody exchanges a folder of the layer for a link out of it, again and again.
        scope.spawn(|| {
            let [folder, link] =
                ["d", "swap"].map(|name| CString::new(root.join(name).to_str().unwrap()).unwrap());
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: both paths end with zero and live through the call.
                unsafe {
                    libc::syscall(
                        libc::SYS_renameat2,
                        -100,
                        folder.as_ptr(),
                        -100,
                        link.as_ptr(),
                        libc::RENAME_EXCHANGE,
                    )
                };
            }
        });
        let mut refused = 0;
        for round in 0..300 {
            let name = format!("d/file{round}");
            let tar = Tar::new().add(FOLDER, "d", b"").add(FILE, &name, b"caught").add(
                FILE,
                &format!("d/sub/{name}"),
                b"x",
            );
            refused += usize::from(tar.unpack(&root).is_err());
        }
        stop.store(true, Ordering::Relaxed);
        assert!(refused < 300, "some come through");
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing came out of the layer");
}

#[test]
fn later_entries_take_the_place_of_earlier_ones() {
    let work = tempfile::tempdir().unwrap();
    let tar = Tar::new()
        .add(FOLDER, "full", b"")
        .add(FILE, "full/deep/file", b"1")
        .add(FILE, "full", b"now a file")
        .add(FILE, "thing", b"a file")
        .add(FOLDER, "thing", b"")
        .add(FILE, "twice", b"first")
        .add(FILE, "twice", b"second");
    tar.unpack(work.path()).unwrap();
    assert_eq!(fs::read(work.path().join("full")).unwrap(), b"now a file");
    assert!(work.path().join("thing").is_dir());
    assert_eq!(fs::read(work.path().join("twice")).unwrap(), b"second");
    let strange = Tar::new().raw(tar::EntryType::new(b'Z'), "odd", "", b"").unpack(work.path()).unwrap_err();
    assert!(strange.contains("\"odd\" of layer test"), "{strange}");
}

#[test]
fn whiteouts_hide_what_lower_layers_have_and_nothing_of_their_own() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let work = tempfile::tempdir().unwrap();
    let [lower, upper, merged] = ["lower", "upper", "merged"].map(|name| {
        let path = work.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    });
    let mut below = Tar::new();
    for name in ["gone", "kept", "folder/a", "opaque/a", "before/a", "after/a", "kind"] {
        below = below.add(FILE, name, b"lower");
    }
    below.unpack(&lower).unwrap();
    let above = Tar::new()
        .add(FILE, ".wh.gone", b"")
        .add(FILE, "folder/b", b"upper")
        .add(FILE, "opaque/b", b"upper")
        .add(FILE, "opaque/.wh..wh..opq", b"")
        // The old folder goes and a new one of the same name comes, in either order.
        .add(FILE, ".wh.before", b"")
        .add(FILE, "before/b", b"upper")
        .add(FILE, "after/b", b"upper")
        .add(FILE, ".wh.after", b"")
        .add(FILE, ".wh.kind", b"")
        .add(FOLDER, "kind", b"");
    above.unpack(&upper).unwrap();
    let options = format!("lowerdir={}:{}", upper.display(), lower.display());
    let mounted =
        Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&merged).status();
    assert!(mounted.unwrap().success());
    let seen: Vec<String> = described(&merged, true)
        .into_keys()
        .filter(|path| !merged.join(path).is_dir())
        .map(|path| path.display().to_string())
        .collect();
    assert_eq!(seen, ["after/b", "before/b", "folder/a", "folder/b", "kept", "opaque/b"]);
    assert!(merged.join("kind").is_dir());
    nix::mount::umount(&merged).unwrap();
    for bad in [".wh.", ".wh..", ".wh..."] {
        assert!(
            Tar::new().add(FILE, bad, b"").unpack(&upper).is_err(),
            "{bad} hides nothing that could be there"
        );
    }
    assert!(fs::symlink_metadata(upper.join("gone")).unwrap().file_type().is_char_device());
}

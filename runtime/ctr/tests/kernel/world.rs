//! A place of its own for a test, and the program run there.

use std::fs::{self, File};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use sha2::{Digest, Sha256};

/// The image that all tests use.
pub const IMAGE: &str = "coracle/test:1";

/// A folder and a control group for the containers of one test.
pub struct World {
    directory: tempfile::TempDir,
    group: String,
}

/// What a command left.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs a test in namespaces of its own, and afterwards looks for what it left. One that fails leaves nothing either.
pub fn in_world(test: impl FnOnce(&World)) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let namespaces = nix::sched::CloneFlags::CLONE_NEWNS | nix::sched::CloneFlags::CLONE_NEWNET;
    nix::sched::unshare(namespaces).unwrap();
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    assert!(Command::new("busybox").args(["ip", "link", "set", "lo", "up"]).status().unwrap().success());
    let mounts = mounts();
    let world =
        World { directory: tempfile::tempdir().unwrap(), group: format!("/ctr-test-{}", std::process::id()) };
    let archive = busybox_archive(world.path());
    world.ok(&["import", archive.to_str().unwrap()]);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(&world))) {
        let reset = world.run(&["reset"]);
        if reset.code != 0 {
            eprintln!("failed to clean up after a failed test: {reset:?}");
        }
        resume_unwind(panic);
    }
    world.ok(&["reset"]);
    assert_eq!(self::mounts(), mounts, "mounts are left");
    let here = world.path().to_str().unwrap();
    assert_eq!(world.processes(here), Vec::<String>::new(), "processes are left");
    assert_eq!(world.groups(), Vec::<PathBuf>::new(), "control groups are left");
    let network = shell("iptables-save; ip link");
    assert!(!network.contains("CTR") && !network.contains("coracle-ctr0"), "{network}");
    let snapshots =
        fs::read_dir(world.path().join("images/snapshots-ctr")).map_or(0, |entries| entries.count());
    assert_eq!(snapshots, 0, "writable layers are left");
}

fn mounts() -> Vec<String> {
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().map(str::to_owned).collect()
}

/// What a shell command of the machine writes.
pub fn shell(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

impl World {
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The program with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle-ctr"));
        command.arg(format!("--directory={}", self.path().display()));
        command.arg(format!("--cgroup-parent={}", self.group)).args(args);
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Done {
        done(self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    /// The same with something on standard input.
    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Done {
        let mut child = self.start(self.command(args).stdin(Stdio::piped()));
        child.stdin.take().unwrap().write_all(input).unwrap();
        done(child.wait_with_output().unwrap())
    }

    /// Starts a command whose output is read later.
    pub fn start(&self, command: &mut Command) -> Child {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs it, which must succeed, and tells what it wrote.
    pub fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, 0, "{args:?}: {done:?}");
        done.out
    }

    /// A detached container of a shell script: its id.
    pub fn detached(&self, options: &[&str], script: &str) -> String {
        let args = [&["run", "-d"], options, &[IMAGE, "sh", "-c", script]].concat();
        self.ok(&args).trim().to_owned()
    }

    /// Waits until a condition holds, for as long as a busy machine may need.
    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begin = std::time::Instant::now();
        while !holds() {
            assert!(begin.elapsed().as_secs() < 30, "{what} does not come");
            std::thread::yield_now();
        }
    }

    /// Command lines that hold a text, beside our own.
    pub fn processes(&self, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
            if line.contains(text) {
                found.push(line.replace('\0', " "));
            }
        }
        found
    }

    /// The pid of a container's shim.
    pub fn shim(&self, id: &str) -> i32 {
        let record = fs::read_to_string(self.pod(id).join("record.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        record["shim"].as_i64().unwrap() as i32
    }

    /// A container's folder in the runtime's state.
    pub fn pod(&self, id: &str) -> PathBuf {
        self.path().join("run/state/pods").join(id)
    }

    fn groups(&self) -> Vec<PathBuf> {
        let name = self.group.trim_start_matches('/');
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        hierarchies
            .chain([PathBuf::from("/sys/fs/cgroup")])
            .map(|path| path.join(name))
            .filter(|path| path.exists())
            .collect()
    }
}

fn done(output: Output) -> Done {
    Done {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A docker-archive of an image with busybox and little else.
fn busybox_archive(directory: &Path) -> PathBuf {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let busybox = std::env::split_paths(&places).find_map(|place| fs::read(place.join("busybox")).ok());
    let busybox = busybox.expect("busybox-static is installed");
    let mut layer = tar::Builder::new(Vec::new());
    for name in ["bin", "etc", "tmp", "home"] {
        append(&mut layer, tar::EntryType::Directory, name, 0o755, b"");
    }
    append(&mut layer, tar::EntryType::Regular, "bin/busybox", 0o755, &busybox);
    let applets = "sh cat echo sleep id hostname ls mount mkdir touch kill ps env head grep true false readlink stat tty \
                   stty nc test wc tr rm ln seq ip pwd wget cp chmod mkfifo mknod";
    for applet in applets.split_whitespace() {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    let passwd = b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/home:/bin/sh\n";
    append(&mut layer, tar::EntryType::Regular, "etc/passwd", 0o644, passwd);
    append(&mut layer, tar::EntryType::Regular, "etc/group", 0o644, b"root:x:0:\nwww:x:34:\n");
    append(&mut layer, tar::EntryType::Regular, "etc/motd", 0o644, b"of the image\n");
    let layer = layer.into_inner().unwrap();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {
            "Env": ["PATH=/bin", "COLOR=blue"], "Cmd": ["/bin/sh"], "WorkingDir": "/home",
            "ExposedPorts": {"80/tcp": {}}, "Labels": {"made": "here"},
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex::encode(Sha256::digest(&layer)))] },
    });
    let manifest =
        serde_json::json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }]);
    let path = directory.join("busybox.tar");
    let mut archive = tar::Builder::new(File::create(&path).unwrap());
    let file = tar::EntryType::Regular;
    append(&mut archive, file, "config.json", 0o644, &serde_json::to_vec(&config).unwrap());
    append(&mut archive, file, "layer.tar", 0o644, &layer);
    append(&mut archive, file, "manifest.json", 0o644, &serde_json::to_vec(&manifest).unwrap());
    archive.into_inner().unwrap();
    path
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    kind: tar::EntryType,
    name: &str,
    mode: u32,
    content: &[u8],
) {
    archive.append_data(&mut header(kind, mode, content.len() as u64), name, content).unwrap();
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

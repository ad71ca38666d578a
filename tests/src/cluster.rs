//! A cluster on a machine of its own, driven as a user would.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Machine, Said, eventually,
    machine::{kill, processes_where},
};

/// The image that every test cluster has: the system's static busybox.
pub const IMAGE: &str = "busybox:1.35";

/// A running cluster. Dropped, it takes its machine with it.
pub struct Cluster {
    /// Where it runs.
    pub machine: Machine,
    dir: tempfile::TempDir,
    cgroup: String,
    flags: Vec<String>,
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster::start()
    }
}

impl Cluster {
    /// A cluster with one ready node and the image [`IMAGE`].
    pub fn start() -> Cluster {
        Cluster::start_with(&[])
    }

    /// The same with further flags of `coracle up`.
    pub fn start_with(flags: &[&str]) -> Cluster {
        let cluster = Cluster::prepared(Machine::new(), flags);
        cluster.up().ok();
        cluster.import_image();
        cluster
    }

    /// Everything laid out, nothing started.
    pub fn prepared(machine: Machine, flags: &[&str]) -> Cluster {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("/coracle-test-{}-{number}", std::process::id());
        Cluster { machine, dir, cgroup, flags: flags.iter().map(|flag| flag.to_string()).collect() }
    }

    /// Runs `coracle up`.
    pub fn up(&self) -> Said {
        self.coracle("up", &self.flags.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs a subcommand of the binary on this cluster's directories.
    pub fn coracle(&self, subcommand: &str, args: &[&str]) -> Said {
        self.coracle_command(subcommand).args(args).output().expect("coracle can be run").into()
    }

    /// A subcommand of the binary, to be given more arguments.
    pub fn coracle_command(&self, subcommand: &str) -> Command {
        let mut command = self.machine.command(&binary());
        command
            .args(subcommand.split(' '))
            .arg(format!("--data-dir={}", self.data_dir().display()))
            .arg(format!("--run-dir={}", self.dir.path().join("run").display()))
            .arg(format!("--cgroup-parent={}", self.cgroup))
            .env("HOME", self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Where the cluster keeps its data.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The test's own folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs kubectl; words are split at blanks.
    pub fn kubectl(&self, words: &str) -> Said {
        self.kubectl_with(&words.split_whitespace().collect::<Vec<_>>(), "")
    }

    /// Runs kubectl with the given arguments and standard input.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Said {
        self.client_with(&kubectl(), args, input)
    }

    /// Runs a client that finds the cluster as kubectl does, with the given arguments and standard input.
    pub(crate) fn client_with(&self, program: &str, args: &[&str], input: &str) -> Said {
        let mut child = self.client_child(program, args);
        let mut stdin = child.stdin.take().expect("standard input is a pipe");
        // kubectl may end without reading it all; what it says then is what counts.
        stdin.write_all(input.as_bytes()).ok();
        drop(stdin);
        child.wait_with_output().expect("the client was started").into()
    }

    /// Starts kubectl with pipes on all three ends.
    pub fn kubectl_child(&self, args: &[&str]) -> Child {
        self.client_child(&kubectl(), args)
    }

    /// Starts a client that finds the cluster as kubectl does.
    pub(crate) fn client_child(&self, program: &str, args: &[&str]) -> Child {
        self.machine
            .command(program)
            .args(args)
            .env("KUBECONFIG", self.data_dir().join("kubeconfig"))
            .env("HOME", self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the client can be run")
    }

    /// `kubectl apply -f -`.
    #[track_caller]
    pub fn apply(&self, yaml: &str) -> String {
        self.kubectl_with(&["apply", "-f", "-"], yaml).ok()
    }

    /// An object as JSON: `get("pod web -n shop")`.
    #[track_caller]
    pub fn get(&self, what: &str) -> Value {
        serde_json::from_str(&self.kubectl(&format!("get {what} -o json")).ok()).expect("kubectl prints JSON")
    }

    /// Waits until a jsonpath of an object has a value.
    #[track_caller]
    pub fn wait_for(&self, what: &str, jsonpath: &str, wanted: &str) {
        eventually(&format!("{what} {jsonpath} = {wanted}"), || {
            let said = self.kubectl(&format!("get {what} -o jsonpath={jsonpath}"));
            if said.out == wanted { Ok(()) } else { Err(format!("{:?} {}", said.out, said.err)) }
        });
    }

    /// Fetches a URL from the node.
    pub fn fetch(&self, url: &str) -> Result<String, String> {
        let said = self.machine.sh(&format!("curl -fsS -m 2 {url}"));
        if said.code == 0 { Ok(said.out) } else { Err(said.err) }
    }

    /// Everything of this cluster that runs, containers included: `pid command line`.
    pub fn processes(&self) -> Vec<String> {
        let mut all = self.machine.processes();
        all.extend(processes_where(|pid| {
            let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            groups.contains(&format!("{}/", self.cgroup))
        }));
        all.sort();
        all.dedup();
        all
    }

    /// Kills the server the hard way and waits until it is gone. Shims and containers stay.
    pub fn kill_server(&self) {
        let servers = || {
            let command = format!(" {} server ", binary());
            let is_server = |line: &String| line.contains(&command);
            self.processes().into_iter().filter(is_server).collect::<Vec<_>>()
        };
        let running = servers();
        assert!(!running.is_empty(), "there is a server to kill");
        for line in running {
            let pid = line.split(' ').next().unwrap_or_default();
            self.machine.sh(&format!("kill -9 {pid}")).ok();
        }
        eventually("the server is gone", || match servers() {
            left if left.is_empty() => Ok(()),
            left => Err(left.join("\n")),
        });
    }

    /// The cgroup directories of this cluster that exist.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let name = self.cgroup.trim_start_matches('/');
        let roots = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let roots = roots.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
        roots.map(|root| root.join(name)).filter(|path| path.exists()).collect()
    }

    /// The control groups of its pods.
    pub fn pod_groups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut unread: Vec<PathBuf> = self.cgroups();
        while let Some(group) = unread.pop() {
            let entries = std::fs::read_dir(&group).into_iter().flatten().flatten();
            let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let (pods, others): (Vec<_>, Vec<_>) = below.map(|entry| entry.path()).partition(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pod"))
            });
            found.extend(pods);
            unread.extend(others);
        }
        found
    }

    /// Imports [`IMAGE`], with a server or without.
    pub fn import_image(&self) {
        let image = image_file();
        self.coracle("image import", &[&image.display().to_string()]).ok();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // After `reset` there is nothing; other tests leave their server, containers and control groups here.
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let processes = self.processes();
            if (processes.is_empty() && self.cgroups().is_empty()) || Instant::now() > deadline {
                return;
            }
            for process in &processes {
                if let Some(Ok(pid)) = process.split(' ').next().map(str::parse) {
                    kill(pid);
                }
            }
            // One that is dying may still make a group where we have just removed one: only after the last has
            // gone does a group that is gone stay so.
            if processes.is_empty() {
                self.cgroups().iter().for_each(|group| remove_groups(group));
            }
        }
    }
}

/// Removes a control group and all below it, as far as they are empty.
fn remove_groups(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    // A process in it may not have ended yet; the caller tries again.
    std::fs::remove_dir(group).ok();
}

/// The image as a file, assembled once for all tests of this run.
pub fn image_file() -> PathBuf {
    let file = std::env::temp_dir().join("coracle-test-busybox.tar");
    if !file.exists() {
        // Tests run side by side: each writes its own and the rename decides.
        let own = file.with_extension(std::process::id().to_string());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/busybox-image");
        let status = Command::new(script).arg(&own).arg(IMAGE).status().expect("scripts/busybox-image runs");
        assert!(status.success(), "scripts/busybox-image failed");
        std::fs::rename(own, &file).expect("the image can be put in place");
    }
    file
}

/// The binary under test: `$CORACLE`, as `make test` sets it.
pub fn binary() -> String {
    std::env::var("CORACLE").expect("CORACLE names the binary under test; `make test` sets it")
}

fn kubectl() -> String {
    std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_string())
}

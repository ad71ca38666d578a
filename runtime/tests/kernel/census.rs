//! Everything that the runtime could leave behind on a machine, counted: the same before and after, or something leaks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is there, by kind, each thing by a name that tells a reader what it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Census(BTreeMap<&'static str, BTreeSet<String>>);

/// Where to look, besides the namespaces that the caller is in.
#[derive(Clone, Debug)]
pub struct Places {
    /// Whatever is below these directories, and whatever process has one of them in its command line.
    pub directories: Vec<PathBuf>,
    /// The control group below which everything is.
    pub cgroup_parent: String,
}

impl Census {
    /// Counts.
    pub fn take(places: &Places) -> Census {
        let mut census = Census::default();
        census.add("mount", mounts());
        census.add("control group", groups(&places.cgroup_parent));
        let processes = processes(places);
        census.add("namespace", namespaces(&processes));
        census.add("process", processes.into_iter().map(|(pid, command)| format!("{pid} {command}")));
        census.add("link", output(&["ip", "-o", "link"]).into_iter().map(|line| first_words(&line, 1)));
        census.add("address", output(&["ip", "-o", "addr"]).into_iter().map(|line| first_words(&line, 4)));
        census.add("rule", rules());
        census.add("file", places.directories.iter().flat_map(|directory| files(directory)));
        census
    }

    /// What is here and was not in `before`, and what was and is no more, a line each.
    pub fn difference(&self, before: &Census) -> Vec<String> {
        let nothing = BTreeSet::new();
        let kinds: BTreeSet<&str> = self.0.keys().chain(before.0.keys()).copied().collect();
        let mut lines = Vec::new();
        for kind in kinds {
            let now = self.0.get(kind).unwrap_or(&nothing);
            let then = before.0.get(kind).unwrap_or(&nothing);
            lines.extend(now.difference(then).map(|thing| format!("a {kind} is left: {thing}")));
            lines.extend(then.difference(now).map(|thing| format!("a {kind} is gone: {thing}")));
        }
        lines
    }

    fn add(&mut self, kind: &'static str, things: impl IntoIterator<Item = String>) {
        self.0.insert(kind, things.into_iter().collect());
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> =
            self.0.iter().map(|(kind, things)| format!("{} {kind}s", things.len())).collect();
        f.write_str(&counts.join(", "))
    }
}

fn mounts() -> Vec<String> {
    // The numbers are the kernel's, and new ones are given for equal mounts.
    let lines = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    lines.lines().map(|line| line.split(' ').skip(2).collect::<Vec<_>>().join(" ")).collect()
}

/// The directories of the parent and everything below, in every hierarchy.
pub fn groups(parent: &str) -> Vec<String> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
    let roots = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]);
    let tops = roots.map(|root| root.join(parent.trim_start_matches('/'))).filter(|top| top.is_dir());
    let mut found = Vec::new();
    let mut unread: Vec<PathBuf> = tops.collect();
    while let Some(group) = unread.pop() {
        let entries = fs::read_dir(&group).into_iter().flatten().flatten();
        unread.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
        found.push(group.display().to_string());
    }
    found
}

/// Processes of ours: in our control groups, or told one of our directories. Dead ones that nobody has buried count.
fn processes(places: &Places) -> Vec<(String, String)> {
    let group = format!("{}/", places.cgroup_parent);
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let pid = process.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) || pid == std::process::id().to_string() {
            continue;
        }
        let command = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        let groups = fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        let has_directory =
            places.directories.iter().any(|directory| command.contains(&*directory.to_string_lossy()));
        let is_child = parent_of(&process.path()) == Some(std::process::id());
        if has_directory || groups.lines().any(|line| format!("{line}/").contains(&group)) || is_child {
            found.push((pid, command.replace('\0', " ")));
        }
    }
    found
}

fn parent_of(process: &Path) -> Option<u32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Namespaces other than our own that our processes are in, or that descriptors of ours hold.
fn namespaces(processes: &[(String, String)]) -> BTreeSet<String> {
    let of = |directory: String| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        let names = targets.map(|target| target.to_string_lossy().into_owned());
        names.filter(|name| name.contains(":[")).collect::<BTreeSet<_>>()
    };
    let is_namespace = |name: &String| {
        ["net", "mnt", "pid", "ipc", "uts", "user", "cgroup", "time"]
            .iter()
            .any(|kind| name.starts_with(&format!("{kind}:[")))
    };
    let own = of("/proc/thread-self/ns".to_owned());
    let theirs = processes.iter().flat_map(|(pid, _)| of(format!("/proc/{pid}/ns")));
    let held = of("/proc/self/fd".to_owned());
    theirs.chain(held).filter(|name| is_namespace(name) && !own.contains(name)).collect()
}

fn rules() -> Vec<String> {
    let saved = Command::new("iptables-save").output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&saved).into_owned();
    // The kernel's own chains come with the first question; rules and further chains are somebody's.
    let is_somebodys =
        |line: &&str| line.starts_with("-A") || (line.starts_with(':') && line.contains(" - "));
    text.lines().filter(is_somebodys).map(str::to_owned).collect()
}

fn output(command: &[&str]) -> Vec<String> {
    let output = Command::new("busybox").args(command).output().expect("busybox can be run");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn first_words(line: &str, count: usize) -> String {
    line.split_whitespace().skip(1).take(count).collect::<Vec<_>>().join(" ")
}

/// Every file below; of unpacked images only how many there are in a layer, for there are thousands.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut unread = vec![directory.to_owned()];
    while let Some(directory) = unread.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let is_layer = directory.file_name().is_some_and(|name| name == "layers");
            if is_directory && !is_layer {
                unread.push(entry.path());
            }
            found.push(entry.path().display().to_string());
        }
    }
    found
}

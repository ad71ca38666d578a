//! Control groups: limits, accounting, and the certain end of every process of a container.
//!
//! [`Layout`] finds out what the machine has (version 1, version 2, or both), [`resources`] decides
//! which file gets which value, [`Cgroup`] is one group in all hierarchies at once, [`stats`] reads.

mod devices;
mod freezer;
mod layout;
pub mod resources;
pub mod stats;

pub use layout::{Controller, Layout, Version};
pub use resources::{DeviceRule, Resources};

use resources::Setting;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::sys::open::write_kernel_file;

/// A group of processes, by its path below the root of every hierarchy.
#[derive(Clone, Debug)]
pub struct Cgroup {
    layout: Layout,
    path: PathBuf,
}

/// Why a group could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} {path}")]
pub struct CgroupError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError { action, path, source }
}

impl Cgroup {
    /// The group at `path`, such as `/coracle/pod1/container1`; it need not exist.
    pub fn new(layout: &Layout, path: &str) -> Cgroup {
        let clean =
            Path::new(path).components().filter(|part| matches!(part, std::path::Component::Normal(_)));
        Cgroup { layout: layout.clone(), path: clean.collect() }
    }

    /// A group below this one.
    pub fn child(&self, name: &str) -> Cgroup {
        Cgroup { layout: self.layout.clone(), path: self.path.join(name) }
    }

    /// Makes the group in every hierarchy, with its parents.
    pub fn create(&self) -> Result<(), CgroupError> {
        for (controller, root) in &self.layout.controllers {
            let directory = root.join(&self.path);
            if directory.is_dir() {
                continue;
            }
            if *controller == Controller::Cpuset {
                self.create_cpuset(root)?;
            } else {
                fs::create_dir_all(&directory).map_err(failed("create", &directory))?;
            }
        }
        if let Some(root) = &self.layout.unified {
            self.create_unified(root)?;
        }
        Ok(())
    }

    /// A new cpuset is empty, and no process may join one without processors and memory.
    fn create_cpuset(&self, root: &Path) -> Result<(), CgroupError> {
        let mut directory = root.to_owned();
        for part in &self.path {
            let parent = directory.clone();
            directory.push(part);
            if let Err(error) = fs::create_dir(&directory)
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(failed("create", &directory)(error));
            }
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let own = fs::read_to_string(directory.join(file))
                    .map_err(failed("read", &directory.join(file)))?;
                if own.trim().is_empty() {
                    let inherited = fs::read_to_string(parent.join(file)).map_err(failed("read", &parent))?;
                    let file = directory.join(file);
                    write_kernel_file(&file, inherited.trim()).map_err(failed("write", &file))?;
                }
            }
        }
        Ok(())
    }

    /// Version 2 gives a group only the controllers that its parent passes on.
    fn create_unified(&self, root: &Path) -> Result<(), CgroupError> {
        let mut directory = root.to_owned();
        for part in &self.path {
            self.pass_controllers_on(&directory)?;
            directory.push(part);
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("create", &directory)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn pass_controllers_on(&self, directory: &Path) -> Result<(), CgroupError> {
        if !self.layout.is_unified() && self.layout.beside.is_empty() {
            return Ok(());
        }
        let read = |file| fs::read_to_string(directory.join(file)).unwrap_or_default();
        let (available, passed) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
        let is_passed = |name: &&str| passed.split_whitespace().any(|there| there == *name);
        let missing = available.split_whitespace().filter(|name| layout::is_used(name) && !is_passed(name));
        for controller in missing {
            let file = directory.join("cgroup.subtree_control");
            let written = write_kernel_file(&file, &format!("+{controller}"));
            // Beside version 1 there may be processes in any group, which then keeps its controllers.
            if self.layout.is_unified() {
                written.map_err(failed("write", &file))?;
            }
        }
        Ok(())
    }

    /// Sets limits; what is not given stays as it is.
    pub fn apply(&self, resources: &Resources) -> Result<(), CgroupError> {
        let settings = resources::settings(resources, |controller| self.layout.version(controller))
            .map_err(|reason| failed("set limits of", &self.path)(io::Error::other(reason)))?;
        let mut pending = settings.as_slice();
        while let [setting, rest @ ..] = pending {
            pending = rest;
            match (self.write(setting), rest) {
                // Version 1 wants the limit of memory never above that of memory and swap together: when both
                // grow, the latter has to go first.
                (Err(error), [both, ..])
                    if error.raw_os_error() == Some(libc::EINVAL) && is_memory_pair(setting, both) =>
                {
                    self.write(both).map_err(failed("write", &self.file(both)))?;
                    self.write(setting).map_err(failed("write", &self.file(setting)))?;
                    pending = &rest[1..];
                }
                (outcome, _) => outcome.map_err(failed("write", &self.file(setting)))?,
            }
        }
        Ok(())
    }

    fn write(&self, setting: &Setting) -> io::Result<()> {
        // A machine without the controller has nothing to limit.
        if self.layout.directory(setting.controller).is_none() {
            return Ok(());
        }
        match write_kernel_file(&self.file(setting), &setting.value) {
            Err(error) if setting.may_be_missing && error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn file(&self, setting: &Setting) -> PathBuf {
        let root = self.layout.directory(setting.controller).unwrap_or(Path::new("/"));
        root.join(&self.path).join(&setting.file)
    }

    /// Allows these devices and no other.
    pub fn allow_devices(&self, rules: &[DeviceRule]) -> Result<(), CgroupError> {
        if let (true, Some(directory)) = (self.layout.is_unified(), self.unified()) {
            let attach = || {
                let group = crate::sys::open::readable_directory(&directory)?;
                crate::sys::bpf::attach_device_program(group, &devices::program(rules))
            };
            return attach().map_err(failed("restrict the devices of", &directory));
        }
        let Some(root) = self.layout.controllers.get(&Controller::Devices) else { return Ok(()) };
        let directory = root.join(&self.path);
        let deny = directory.join("devices.deny");
        write_kernel_file(&deny, "a").map_err(failed("write", &deny))?;
        for rule in rules {
            let allow = directory.join("devices.allow");
            write_kernel_file(&allow, &rule.to_string()).map_err(failed("write", &allow))?;
        }
        Ok(())
    }

    /// The group's version 1 directories by controller.
    pub fn directories(&self) -> Vec<(Controller, PathBuf)> {
        let roots = self.layout.controllers.iter();
        roots.map(|(controller, root)| (*controller, root.join(&self.path))).collect()
    }

    /// The group's directory in the version 2 hierarchy.
    pub fn unified(&self) -> Option<PathBuf> {
        Some(self.layout.unified.as_ref()?.join(&self.path))
    }

    /// Moves a process here, as single-threaded as a shim is.
    pub fn add(&self, pid: i32) -> Result<(), CgroupError> {
        let directories = self.directories().into_iter().map(|(_, directory)| directory);
        for directory in directories.chain(self.unified()) {
            let file = directory.join("cgroup.procs");
            write_kernel_file(&file, &pid.to_string()).map_err(failed("write", &file))?;
        }
        Ok(())
    }

    /// Kills every process of the group and of those below it.
    pub fn kill(&self) -> io::Result<()> {
        if let Some(unified) = self.unified()
            && write_kernel_file(&unified.join("cgroup.kill"), "1").is_ok()
        {
            return Ok(());
        }
        // Before Linux 5.14: until nobody is left who could fork another.
        for _ in 0..64 {
            let processes = self.processes()?;
            if processes.is_empty() {
                break;
            }
            for pid in processes {
                match nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                ) {
                    Ok(()) | Err(nix::Error::ESRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// As [`Cgroup::kill`], for a group that may not be there at all.
    pub fn kill_if_there(&self) -> io::Result<()> {
        match self.kill() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// The processes of the group and of those below it.
    pub fn processes(&self) -> io::Result<BTreeSet<i32>> {
        let mut found = BTreeSet::new();
        let directories = self.directories().into_iter().map(|(_, directory)| directory);
        let mut pending: Vec<PathBuf> = self.unified().into_iter().chain(directories).collect();
        while let Some(directory) = pending.pop() {
            let Ok(list) = fs::read_to_string(directory.join("cgroup.procs")) else { continue };
            found.extend(list.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
            pending.extend(groups_in(&directory)?);
        }
        Ok(found)
    }

    /// Removes the group and those below it from every hierarchy; `false` while processes are in it.
    pub fn remove(&self) -> Result<bool, CgroupError> {
        let mut gone = true;
        for directory in self.directories().into_iter().map(|(_, directory)| directory).chain(self.unified())
        {
            gone &= remove_tree(&directory).map_err(failed("remove", &directory))?;
        }
        Ok(gone)
    }

    /// Removes the group from every hierarchy where neither a process nor another group is in it.
    pub fn remove_if_empty(&self) -> Result<(), CgroupError> {
        for directory in self.directories().into_iter().map(|(_, directory)| directory).chain(self.unified())
        {
            // The kernel refuses to remove one that is in use.
            remove_directory(&directory).map_err(failed("remove", &directory))?;
        }
        Ok(())
    }

    /// The paths of all groups below this one, in whichever hierarchy.
    pub fn descendants(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let roots = self.layout.controllers.values().chain(&self.layout.unified);
        for root in roots {
            let mut pending = vec![self.path.clone()];
            while let Some(path) = pending.pop() {
                let Ok(entries) = fs::read_dir(root.join(&path)) else { continue };
                let below =
                    entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                let below: Vec<PathBuf> = below.map(|entry| path.join(entry.file_name())).collect();
                found.extend(below.iter().cloned());
                pending.extend(below);
            }
        }
        found
    }

    /// How many times the kernel killed a process of the group because memory ran out.
    pub fn out_of_memory_kills(&self) -> u64 {
        let file = match self.layout.controllers.get(&Controller::Memory) {
            Some(root) => root.join(&self.path).join("memory.oom_control"),
            None => match self.unified() {
                Some(directory) => directory.join("memory.events"),
                None => return 0,
            },
        };
        out_of_memory_kills_in(&fs::read_to_string(file).unwrap_or_default())
    }
}

/// The counter in `memory.oom_control` (version 1) or `memory.events` (version 2).
pub fn out_of_memory_kills_in(content: &str) -> u64 {
    let count = content.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    count.unwrap_or(0)
}

fn is_memory_pair(one: &Setting, other: &Setting) -> bool {
    one.file == "memory.limit_in_bytes" && other.file == "memory.memsw.limit_in_bytes"
}

/// `false` when the kernel says that somebody is still in there.
fn remove_tree(directory: &Path) -> io::Result<bool> {
    // Most groups have none below them, and the kernel removes one with all the files that it shows in it.
    if remove_directory(directory)? {
        return Ok(true);
    }
    let mut gone = true;
    for below in groups_in(directory)? {
        gone &= remove_tree(&below)?;
    }
    Ok(gone && remove_directory(directory)?)
}

/// The groups right below one; none when that is not there. The kernel tells with their names which of its many entries
/// they are.
fn groups_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut groups = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(groups),
        entries => entries?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            groups.push(entry.path());
        }
    }
    Ok(groups)
}

/// `false` when something is in it.
fn remove_directory(directory: &Path) -> io::Result<bool> {
    match fs::remove_dir(directory) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Ok(true),
            io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty => Ok(false),
            _ => Err(error),
        },
    }
}

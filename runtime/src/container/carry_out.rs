//! Takes the steps of [`super::setup`], in the process that becomes the container.
//!
//! The process is a fresh fork of the single-threaded shim. Whatever fails is told to the shim in one
//! sentence, and the process ends; when the program is executed, the shim sees the channel close.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, mknodat};

use super::capabilities;
use super::setup::{SetupStep, is_in_proc};
use super::spec::{Access, Capabilities, DeviceNode, Membership, Root, User};
use crate::sys::mount::{self, Filesystem, Propagation, attribute};
use crate::sys::open::{self, Links, place_in, write_kernel_file};
use crate::sys::{process, socket, terminal};

/// What steps hand to each other, and what the shim has prepared for them.
pub struct Stage {
    /// Standard input, output and error for a process without a terminal.
    pub streams: Option<[OwnedFd; 3]>,
    /// The pod's `/dev/shm`.
    pub shared_memory: Option<SharedMemory>,
    /// Where a terminal's other side, or the reason of a failure, is sent.
    pub channel: OwnedFd,
    volumes: Vec<OwnedFd>,
    root: Option<OwnedFd>,
    dev: Option<OwnedFd>,
    filter: Option<(PathBuf, Vec<u8>)>,
}

/// The `/dev/shm` that the containers of a pod share.
pub enum SharedMemory {
    /// A mount that is nowhere in the node's tree.
    Detached(OwnedFd),
    /// On kernels that cannot clone such a one: where it is.
    Attached(PathBuf),
}

impl SharedMemory {
    /// The same memory, for one more container.
    pub fn try_clone(&self) -> io::Result<SharedMemory> {
        match self {
            SharedMemory::Detached(memory) => memory.try_clone().map(SharedMemory::Detached),
            SharedMemory::Attached(place) => Ok(SharedMemory::Attached(place.clone())),
        }
    }
}

impl Stage {
    /// What the shim has prepared.
    pub fn new(
        streams: Option<[OwnedFd; 3]>,
        shared_memory: Option<SharedMemory>,
        channel: OwnedFd,
    ) -> Stage {
        Stage { streams, shared_memory, channel, volumes: Vec::new(), root: None, dev: None, filter: None }
    }

    /// Reads files of the node that a later step needs when the node is out of sight.
    pub fn prepare(&mut self, steps: &[SetupStep]) -> Result<(), Failure> {
        for step in steps {
            if let SetupStep::Filter(path) = step {
                let program = std::fs::read(path)
                    .map_err(failed(format!("read the seccomp filter {}", path.display())))?;
                self.filter = Some((path.clone(), program));
            }
        }
        Ok(())
    }

    fn root(&self) -> io::Result<BorrowedFd<'_>> {
        let missing = || io::Error::other("the root is not mounted yet");
        self.root.as_ref().map(AsFd::as_fd).ok_or_else(missing)
    }
}

/// Why a container could not be set up: one sentence for its user.
#[derive(Debug)]
pub struct Failure {
    what: String,
    source: Option<io::Error>,
}

impl Failure {
    /// A failure that says all itself.
    pub fn new(what: impl Into<String>) -> Failure {
        Failure { what: what.into(), source: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{}: {}", self.what, describe(source)),
            None => f.write_str(&self.what),
        }
    }
}

/// The system's words as other runtimes print them: lower case, without the number.
pub fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

/// Turns an error of the system into a failure of what was tried.
pub fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    move |source| Failure { what: format!("failed to {}", what.into()), source: Some(source) }
}

/// Takes all steps; comes back only when one fails, for the last becomes another program.
pub fn carry_out(steps: Vec<SetupStep>, stage: &mut Stage) -> Result<(), Failure> {
    steps.into_iter().try_for_each(|step| take(step, stage))
}

fn take(step: SetupStep, stage: &mut Stage) -> Result<(), Failure> {
    use SetupStep::*;
    match step {
        JoinCgroups(directories) => join_cgroups(&directories),
        SetOomScore(score) => set_oom_score(score).map_err(failed("set oom_score_adj")),
        OpenVolume { source, access, propagation } => {
            let volume = open_volume(&source, access, propagation)
                .map_err(failed(format!("mount {:?}", source.display().to_string())))?;
            stage.volumes.push(volume);
            Ok(())
        }
        IsolateMounts => mount::isolate_all().map_err(failed("isolate the mount namespace")),
        NewCgroupNamespace => {
            process::unshare(libc::CLONE_NEWCGROUP).map_err(failed("make a cgroup namespace"))
        }
        MountRoot(root) => {
            stage.root = Some(mount_root(&root).map_err(failed("mount the root file system"))?);
            Ok(())
        }
        MountProc => mount_kernel(stage, c"proc", "proc", PROTECTED).map_err(failed("mount /proc")),
        MountSys { writable } => {
            let attributes = PROTECTED | if writable { 0 } else { attribute::READ_ONLY };
            mount_kernel(stage, c"sysfs", "sys", attributes).map_err(failed("mount /sys"))
        }
        MountCgroups { groups, writable } => {
            mount_cgroups(stage, &groups, writable).map_err(failed("mount /sys/fs/cgroup"))
        }
        MountDev(devices) => mount_dev(stage, &devices).map_err(failed("mount /dev")),
        MountSharedMemory { of_host } => {
            mount_shared_memory(stage, of_host).map_err(failed("mount /dev/shm"))
        }
        MountMessageQueues => mount_message_queues(stage).map_err(failed("mount /dev/mqueue")),
        AttachVolume { index, target } => attach_volume(stage, index, &target),
        Mask(path) => mask(stage, &path).map_err(failed(format!("mask {}", path.display()))),
        Protect(path) => protect(stage, &path).map_err(failed(format!("protect {}", path.display()))),
        ProtectRoot => stage
            .root()
            .and_then(|root| mount::set_attributes(root, attribute::READ_ONLY, None, false))
            .map_err(failed("make the root file system read-only")),
        EnterRoot => stage.root().and_then(mount::pivot_into).map_err(failed("enter the root file system")),
        NewSession => nix::unistd::setsid().map(drop).map_err(|error| failed("make a session")(error.into())),
        OpenTerminal { console, owner, size } => {
            open_terminal(stage, console, &owner, size).map_err(failed("open a terminal"))
        }
        ConnectStreams { owner } => {
            connect_streams(stage, &owner).map_err(failed("connect the standard streams"))
        }
        LimitFiles(limit) => limit_files(limit).map_err(failed("limit the number of open files")),
        EnterDirectory(path) => enter_directory(&path),
        LimitCapabilities(capabilities) => {
            limit_capabilities(&capabilities).map_err(failed("limit the capabilities"))
        }
        Filter(path) => load_filter(stage, &path).map_err(failed("load the seccomp filter")),
        BecomeUser(user) => become_user(&user).map_err(failed(format!("become user {}", user.uid))),
        SetCapabilities { capabilities, user } => {
            set_capabilities(&capabilities, user).map_err(failed("set the capabilities"))
        }
        NoNewPrivileges => process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(failed("set no_new_privs")),
        ResetSignals => process::reset_signals().map_err(failed("reset signals")),
        CloseDescriptors => process::close_on_exec_from(3).map_err(failed("close descriptors")),
        Execute { args, env } => Err(execute(&args, &env)),
    }
}

/// What procfs and the like are mounted with everywhere.
const PROTECTED: u64 = attribute::NO_SUID | attribute::NO_DEVICES | attribute::NO_EXEC;

fn join_cgroups(directories: &[PathBuf]) -> Result<(), Failure> {
    for directory in directories {
        // `tasks` with 0 moves only the caller, for which the kernel need not stop the whole machine's
        // forks and exits; this process has a single thread, so that it is all of it.
        write_kernel_file(&directory.join("tasks"), "0")
            .map_err(failed(format!("join {}", directory.display())))?;
    }
    Ok(())
}

/// Without CAP_SYS_RESOURCE the score can only grow: it then stays the shim's, which is the nearest allowed.
fn set_oom_score(score: i32) -> io::Result<()> {
    match write_kernel_file(Path::new("/proc/self/oom_score_adj"), &score.clamp(-1000, 1000).to_string()) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => Ok(()),
        result => result,
    }
}

fn open_volume(source: &Path, access: Access, propagation: Propagation) -> io::Result<OwnedFd> {
    let volume = mount::clone_tree(source, true)?;
    match access {
        Access::Write => {}
        Access::Read => mount::set_attributes(&volume, attribute::READ_ONLY, None, false)?,
        Access::ReadRecursively => mount::set_attributes(&volume, attribute::READ_ONLY, None, true)?,
    }
    // A clone of a shared mount is shared: the other two have to be said.
    if propagation != Propagation::Shared {
        mount::set_attributes(&volume, 0, Some(propagation), true)?;
    }
    Ok(volume)
}

fn mount_root(root: &Root) -> io::Result<OwnedFd> {
    let (upper, work) = (root.snapshot.join("upper"), root.snapshot.join("work"));
    let overlay = mount::overlay(&root.layers, &upper, &work, &root.snapshot)?;
    mount::set_attributes(&overlay, 0, Some(Propagation::Private), false)?;
    // It has to be somewhere in this namespace to be entered; nobody else sees this namespace.
    mount::attach(&overlay, open::directory(&root.snapshot)?)?;
    Ok(overlay)
}

/// Mounts a kernel file system at a directory of the root that is no link.
fn mount_kernel(stage: &Stage, kind: &std::ffi::CStr, at: &str, attributes: u64) -> io::Result<()> {
    let filesystem = Filesystem::open(kind)?.mount(attributes)?;
    let place = open::make_directories_in(stage.root()?, Path::new(at), 0o755, Links::Refused)?;
    mount::attach(filesystem, place)
}

fn mount_cgroups(stage: &Stage, groups: &Membership, writable: bool) -> io::Result<()> {
    let attributes = PROTECTED | if writable { 0 } else { attribute::READ_ONLY };
    let at = |path: &str| place_in(stage.root()?, Path::new(path), Links::Refused);
    if groups.split.is_empty() {
        let filesystem = Filesystem::open(c"cgroup2")?.mount(attributes)?;
        return mount::attach(filesystem, at("sys/fs/cgroup")?);
    }
    let directory = Filesystem::open(c"tmpfs")?;
    directory.set(c"mode", Path::new("755"))?.set(c"size", Path::new("64k"))?;
    let directory = directory.mount(PROTECTED)?;
    mount::attach(&directory, at("sys/fs/cgroup")?)?;
    for (controller, group) in &groups.split {
        open::make_directory_at(&directory, controller.as_ref(), 0o755)?;
        let group = mount::clone_tree(group, false)?;
        mount::set_attributes(&group, attributes, Some(Propagation::Private), false)?;
        mount::attach(group, place_in(&directory, Path::new(controller), Links::Refused)?)?;
    }
    mount::set_attributes(&directory, attribute::READ_ONLY, None, false)
}

/// Name, driver and device of what every container has.
const DEVICES: &[(&str, u64, u64)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const DEVICE_LINKS: &[(&str, &str)] = &[
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// The image has no say in `/dev`: it is filled while nobody can see it, and then appears as a whole.
fn mount_dev(stage: &mut Stage, devices: &[DeviceNode]) -> io::Result<()> {
    let filesystem = Filesystem::open(c"tmpfs")?;
    filesystem.set(c"mode", Path::new("755"))?.set(c"size", Path::new("65536k"))?;
    let dev = filesystem.mount(attribute::NO_SUID | attribute::NO_EXEC)?;
    for (name, major, minor) in DEVICES {
        make_device(&dev, Path::new(name), SFlag::S_IFCHR, *major, *minor, 0o666)?;
    }
    for device in devices {
        let Ok(name) = device.path.strip_prefix("/dev") else { continue };
        if let Some(parent) = name.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            open::make_directories_in(&dev, parent, 0o755, Links::Refused)?;
        }
        let kind = if device.kind == 'b' { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
        make_device(&dev, name, kind, device.major, device.minor, device.mode)?;
    }
    for (name, target) in DEVICE_LINKS {
        nix::unistd::symlinkat(*target, &dev, *name)?;
    }
    for directory in ["pts", "shm", "mqueue"] {
        open::make_directory_at(&dev, directory.as_ref(), 0o755)?;
    }
    let place = open::make_directories_in(stage.root()?, Path::new("dev"), 0o755, Links::Refused)?;
    mount::attach(&dev, place)?;

    let terminals = Filesystem::open(c"devpts")?;
    terminals.flag(c"newinstance")?.set(c"ptmxmode", Path::new("0666"))?;
    terminals.set(c"mode", Path::new("0620"))?.set(c"gid", Path::new("5"))?;
    let terminals = terminals.mount(attribute::NO_SUID | attribute::NO_EXEC)?;
    mount::attach(terminals, place_in(&dev, Path::new("pts"), Links::Refused)?)?;
    stage.dev = Some(dev);
    Ok(())
}

fn make_device(dev: &OwnedFd, name: &Path, kind: SFlag, major: u64, minor: u64, mode: u32) -> io::Result<()> {
    let number = libc::makedev(major as u32, minor as u32);
    match mknodat(dev, name, kind, Mode::from_bits_truncate(mode), number) {
        Ok(()) | Err(nix::Error::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    // Past the umask.
    let flags = nix::sys::stat::FchmodatFlags::FollowSymlink;
    Ok(nix::sys::stat::fchmodat(dev, name, Mode::from_bits_truncate(mode), flags)?)
}

fn dev(stage: &Stage) -> io::Result<&OwnedFd> {
    stage.dev.as_ref().ok_or_else(|| io::Error::other("/dev is not mounted yet"))
}

fn mount_shared_memory(stage: &Stage, of_host: bool) -> io::Result<()> {
    let memory = match &stage.shared_memory {
        Some(SharedMemory::Detached(memory)) if !of_host => mount::clone_tree_at(memory, false)?,
        Some(SharedMemory::Attached(place)) if !of_host => mount::clone_tree(place, false)?,
        _ => mount::clone_tree(Path::new("/dev/shm"), false)?,
    };
    mount::set_attributes(&memory, PROTECTED, Some(Propagation::Private), false)?;
    mount::attach(memory, place_in(dev(stage)?, Path::new("shm"), Links::Refused)?)
}

fn mount_message_queues(stage: &Stage) -> io::Result<()> {
    let queues = match Filesystem::open(c"mqueue").and_then(|filesystem| filesystem.mount(PROTECTED)) {
        // A kernel without message queues.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
        result => result?,
    };
    mount::attach(queues, place_in(dev(stage)?, Path::new("mqueue"), Links::Refused)?)
}

fn attach_volume(stage: &Stage, index: usize, target: &Path) -> Result<(), Failure> {
    let what = || format!("mount at {:?}", target.display().to_string());
    if is_in_proc(target) {
        return Err(Failure::new(format!("failed to {}: it is inside /proc", what())));
    }
    let attach = || -> io::Result<()> {
        let volume = &stage.volumes[index];
        let place = if open::is_directory(volume)? {
            open::make_directories_in(stage.root()?, target, 0o755, Links::InRoot)?
        } else {
            open::make_file_in(stage.root()?, target, Links::InRoot)?
        };
        // A link of the image may have led there after all.
        if is_procfs(&place)? {
            return Err(io::Error::other("it is inside /proc"));
        }
        mount::attach(volume, place)
    };
    attach().map_err(failed(what()))
}

fn is_procfs(place: &OwnedFd) -> io::Result<bool> {
    Ok(nix::sys::statfs::fstatfs(place)?.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC)
}

/// A path that the kernel does not have needs no hiding.
fn existing(stage: &Stage, path: &Path) -> io::Result<Option<OwnedFd>> {
    match place_in(stage.root()?, path, Links::InRoot) {
        Ok(place) => Ok(Some(place)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn mask(stage: &Stage, path: &Path) -> io::Result<()> {
    let Some(place) = existing(stage, path)? else { return Ok(()) };
    if open::is_directory(&place)? {
        let nothing = Filesystem::open(c"tmpfs")?;
        nothing.set(c"size", Path::new("4k"))?;
        return mount::attach(nothing.mount(PROTECTED | attribute::READ_ONLY)?, place);
    }
    // Our own null device, made a moment ago where no image could touch it.
    let null = place_in(dev(stage)?, Path::new("null"), Links::Refused)?;
    let nothing = mount::clone_tree_at(null, false)?;
    mount::attach(nothing, place)
}

fn protect(stage: &Stage, path: &Path) -> io::Result<()> {
    let Some(place) = existing(stage, path)? else { return Ok(()) };
    let copy = mount::clone_tree_at(&place, true)?;
    mount::set_attributes(&copy, attribute::READ_ONLY | PROTECTED, None, false)?;
    mount::attach(copy, place)
}

fn open_terminal(
    stage: &mut Stage,
    console: bool,
    owner: &User,
    size: Option<(u16, u16)>,
) -> io::Result<()> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = nix::fcntl::open("/dev/pts/ptmx", flags, Mode::empty())?;
    let peer = terminal::open_peer(&master)?;
    if let Some((columns, rows)) = size {
        terminal::resize(&master, columns, rows)?;
    }
    own(&peer, owner)?;
    if console {
        let place =
            open::make_file_in(open::directory(Path::new("/dev"))?, Path::new("console"), Links::Refused)?;
        mount::attach(mount::clone_tree_at(&peer, false)?, place)?;
    }
    terminal::take_control(&peer)?;
    socket::send(&stage.channel, b"T", &[master])?;
    let streams = [peer.try_clone()?, peer.try_clone()?, peer];
    connect(&streams)
}

fn connect_streams(stage: &mut Stage, owner: &User) -> io::Result<()> {
    let Some(streams) = stage.streams.take() else {
        return Err(io::Error::other("no streams were prepared"));
    };
    for stream in &streams {
        // A program may open /dev/stdout again, which asks for the pipe's permissions.
        own(stream, owner)?;
    }
    connect(&streams)
}

fn own(stream: &OwnedFd, owner: &User) -> io::Result<()> {
    // /dev/null belongs to everybody already.
    let status = nix::sys::stat::fstat(stream)?;
    if status.st_mode & libc::S_IFMT == libc::S_IFCHR && status.st_rdev == libc::makedev(1, 3) {
        return Ok(());
    }
    Ok(nix::unistd::fchown(stream, Some(owner.uid.into()), None)?)
}

fn connect(streams: &[OwnedFd; 3]) -> io::Result<()> {
    nix::unistd::dup2_stdin(&streams[0])?;
    nix::unistd::dup2_stdout(&streams[1])?;
    nix::unistd::dup2_stderr(&streams[2])?;
    Ok(())
}

/// Only a privileged shim may raise the limit; then as far as it goes.
fn limit_files(limit: u64) -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    match setrlimit(Resource::RLIMIT_NOFILE, limit, limit) {
        Err(nix::Error::EPERM) => Ok(setrlimit(Resource::RLIMIT_NOFILE, limit.min(most), most)?),
        result => Ok(result?),
    }
}

fn enter_directory(path: &Path) -> Result<(), Failure> {
    let path = Path::new("/").join(path);
    let enter = || -> io::Result<()> {
        if let Err(error) = nix::unistd::chdir(&path) {
            if error != nix::Error::ENOENT {
                return Err(error.into());
            }
            std::fs::create_dir_all(&path)?;
            nix::unistd::chdir(&path)?;
        }
        // A working directory outside the root has no path in it: somebody smuggled a descriptor in.
        let inside = std::env::current_dir()?;
        if inside.is_absolute() { Ok(()) } else { Err(io::Error::other("it is outside the container")) }
    };
    enter().map_err(|error| {
        failed(format!("chdir to cwd ({:?}) set in config.json", path.display().to_string()))(error)
    })
}

fn limit_capabilities(wanted: &Capabilities) -> io::Result<()> {
    for capability in 0..capabilities::COUNT {
        if wanted.bounding & 1 << capability == 0 {
            match process::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong) {
                // One that this kernel does not know, nobody can have.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                result => result?,
            }
        }
    }
    // Through the change of user the permitted ones are kept, to choose from afterwards.
    process::prctl(libc::PR_SET_KEEPCAPS, 1)
}

fn become_user(user: &User) -> io::Result<()> {
    process::become_user(user.uid, user.gid, &user.groups)
}

fn set_capabilities(wanted: &Capabilities, user: u32) -> io::Result<()> {
    let held = process::permitted_capabilities()?;
    let (bounding, ambient) = (wanted.bounding & held, wanted.ambient & held);
    // An ordinary user's program starts with the ambient ones; root's with all that are permitted.
    let permitted = if user == 0 { bounding } else { ambient };
    process::set_capabilities(permitted, permitted, ambient)?;
    (0..capabilities::COUNT)
        .filter(|capability| ambient & 1 << capability != 0)
        .try_for_each(process::raise_ambient)
}

fn load_filter(stage: &Stage, path: &Path) -> io::Result<()> {
    match &stage.filter {
        Some((prepared, program)) if prepared == path => process::load_seccomp(program),
        _ => Err(io::Error::other("the filter was not prepared")),
    }
}

fn execute(args: &[String], env: &[String]) -> Failure {
    let Some(name) = args.first() else { return Failure::new("no command specified") };
    let strings =
        |list: &[String]| list.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>();
    let (Ok(arguments), Ok(environment)) = (strings(args), strings(env)) else {
        return Failure::new(format!("exec: {name:?}: an argument holds a zero byte"));
    };
    if name.contains('/') {
        let error = execute_at(name, &arguments, &environment);
        return match error.kind() {
            io::ErrorKind::NotFound if !Path::new(name).exists() => {
                Failure::new(format!("exec: {name:?}: stat {name}: {}", describe(&error)))
            }
            _ => Failure::new(format!("exec: {name:?}: {}", describe(&error))),
        };
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let mut refused = None;
    for directory in path.split(':') {
        let candidate =
            if directory.is_empty() { format!("./{name}") } else { format!("{directory}/{name}") };
        let error = execute_at(&candidate, &arguments, &environment);
        if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES)) {
            return Failure::new(format!("exec: {candidate:?}: {}", describe(&error)));
        }
        if error.raw_os_error() == Some(libc::EACCES) && Path::new(&candidate).is_file() {
            refused = Some(error);
        }
    }
    match refused {
        Some(error) => Failure::new(format!("exec: {name:?}: {}", describe(&error))),
        None => Failure::new(format!("exec: {name:?}: executable file not found in $PATH")),
    }
}

fn execute_at(path: &str, arguments: &[CString], environment: &[CString]) -> io::Error {
    match CString::new(path) {
        Ok(program) => process::execute(&program, arguments, environment),
        Err(_) => io::Error::from_raw_os_error(libc::ENOENT),
    }
}

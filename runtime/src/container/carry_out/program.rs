//! The last part of the way: streams, directory, rights, and the program itself.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::{Failure, Stage, describe};
use crate::container::capabilities;
use crate::container::ids::Owner;
use crate::container::spec::{Capabilities, User};
use crate::sys::open::{self, Links};
use crate::sys::{mount, process, socket, terminal};

pub(super) fn open_terminal(
    stage: &mut Stage,
    console: bool,
    owner: &User,
    size: Option<(u16, u16)>,
) -> io::Result<()> {
    let master = open_multiplexer()?;
    let peer = terminal::open_peer(&master)?;
    if let Some((columns, rows)) = size {
        terminal::resize(&master, columns, rows)?;
    }
    own(&peer, owner.uid)?;
    if console {
        // In the /dev that we made, even where a volume hides it now.
        let dev = stage.dev.as_ref().ok_or_else(|| io::Error::other("/dev is not made yet"))?;
        let place = open::make_file_in(dev, Path::new("console"), Links::Refused)?;
        mount::attach(mount::clone_tree_at(&peer, false)?, place)?;
    }
    socket::send(&stage.channel, b"T", &[master])?;
    let streams = [peer.try_clone()?, peer.try_clone()?, peer];
    connect(&streams)
}

/// Standard input is the terminal, and this process leads its session.
pub(super) fn take_terminal() -> io::Result<()> {
    terminal::take_control(io::stdin())
}

/// Opens a terminal where the kernel makes them, having made sure that it is there: a volume at `/dev` may hold
/// links and devices of the container's choice.
fn open_multiplexer() -> io::Result<OwnedFd> {
    use nix::sys::statfs::{FsType, fstatfs};
    const DEVPTS: FsType = FsType(0x1cd1);
    let root = open::directory(Path::new("/"))?;
    let terminals = open::place_in(root, Path::new("dev/pts"), Links::Refused)?;
    if fstatfs(&terminals)?.filesystem_type() != DEVPTS {
        return Err(io::Error::other("/dev/pts is no devpts"));
    }
    open::open_in(terminals, Path::new("ptmx"), libc::O_RDWR | libc::O_NOCTTY, 0, Links::Refused)
}

pub(super) fn own_streams(stage: &Stage, owner: Owner) -> io::Result<()> {
    let streams = stage.streams.as_ref().ok_or_else(no_streams)?;
    // A program may open /dev/stdout again, which asks for the pipe's permissions.
    streams.iter().try_for_each(|stream| own(stream, owner.uid))
}

pub(super) fn connect_streams(stage: &mut Stage) -> io::Result<()> {
    connect(&stage.streams.take().ok_or_else(no_streams)?)
}

fn no_streams() -> io::Error {
    io::Error::other("no streams were prepared")
}

fn own(stream: &OwnedFd, uid: u32) -> io::Result<()> {
    // /dev/null belongs to everybody already.
    let status = nix::sys::stat::fstat(stream)?;
    if status.st_mode & libc::S_IFMT == libc::S_IFCHR && status.st_rdev == libc::makedev(1, 3) {
        return Ok(());
    }
    Ok(nix::unistd::fchown(stream, Some(uid.into()), None)?)
}

fn connect(streams: &[OwnedFd; 3]) -> io::Result<()> {
    nix::unistd::dup2_stdin(&streams[0])?;
    nix::unistd::dup2_stdout(&streams[1])?;
    nix::unistd::dup2_stderr(&streams[2])?;
    Ok(())
}

pub(super) fn enter_directory(path: &Path) -> Result<(), Failure> {
    let path = Path::new("/").join(path);
    let shown = path.display().to_string();
    let not_made = |error: io::Error| Failure::new(format!("mkdir {shown}: {}", describe(&error)));
    let not_entered = |error: io::Error| {
        Failure::new(format!("chdir to cwd ({shown:?}) set in config.json failed: {}", describe(&error)))
    };
    match nix::unistd::chdir(&path) {
        Ok(()) => {}
        Err(nix::Error::ENOENT) => {
            std::fs::create_dir_all(&path).map_err(not_made)?;
            nix::unistd::chdir(&path).map_err(|error| not_entered(error.into()))?;
        }
        Err(nix::Error::ENOTDIR) => return Err(not_made(nix::Error::ENOTDIR.into())),
        Err(error) => return Err(not_entered(error.into())),
    }
    // A working directory outside the root has no path in it: somebody smuggled a descriptor in.
    let inside = std::env::current_dir().is_ok_and(|directory| directory.is_absolute());
    if inside { Ok(()) } else { Err(not_entered(io::Error::other("it is outside the container"))) }
}

pub(super) fn limit_capabilities(wanted: &Capabilities) -> io::Result<()> {
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

pub(super) fn become_user(user: &User) -> io::Result<()> {
    process::become_user(user.uid, user.gid, &user.groups)
}

pub(super) fn keep_right_to_filter(wanted: &Capabilities, user: u32) -> io::Result<()> {
    let held = process::permitted_capabilities()?;
    let kept = (held_by_program(wanted, user) | capabilities::TO_FILTER) & held;
    process::set_capabilities(kept, kept, wanted.ambient & held)
}

/// An ordinary user's program starts with the ambient ones; root's with all that are permitted.
fn held_by_program(wanted: &Capabilities, user: u32) -> u64 {
    if user == 0 { wanted.bounding } else { wanted.ambient }
}

pub(super) fn set_capabilities(wanted: &Capabilities, user: u32) -> io::Result<()> {
    let held = process::permitted_capabilities()?;
    let (permitted, ambient) = (held_by_program(wanted, user) & held, wanted.ambient & held);
    process::set_capabilities(permitted, permitted, ambient)?;
    (0..capabilities::COUNT)
        .filter(|capability| ambient & 1 << capability != 0)
        .try_for_each(process::raise_ambient)
}

pub(super) fn execute(args: &[String], env: &[String]) -> Failure {
    let Some(name) = args.first() else { return Failure::new("no command specified") };
    let strings =
        |list: &[String]| list.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>();
    let (Ok(arguments), Ok(environment)) = (strings(args), strings(env)) else {
        return Failure::new(format!("exec: {name:?}: an argument holds a zero byte"));
    };
    if name.contains('/') {
        return refusal(name, execute_at(name, &arguments, &environment));
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    for directory in path.split(':') {
        let candidate =
            if directory.is_empty() { format!("./{name}") } else { format!("{directory}/{name}") };
        let error = execute_at(&candidate, &arguments, &environment);
        let is_other = match error.raw_os_error() {
            Some(libc::ENOENT) => Path::new(&candidate).exists(),
            code => !matches!(code, Some(libc::ENOTDIR | libc::EACCES)),
        };
        if is_other {
            return refusal(&candidate, error);
        }
    }
    Failure::new(format!("exec: {name:?}: executable file not found in $PATH"))
}

/// Why a program was not executed, in the words that other runtimes have made known.
fn refusal(program: &str, error: io::Error) -> Failure {
    let path = Path::new(program);
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) if !path.exists() => {
            Failure::new(format!("exec: {program:?}: stat {program}: {}", describe(&error)))
        }
        Some(libc::EACCES) if path.is_dir() => Failure::new(format!("exec: {program:?}: is a directory")),
        Some(libc::EACCES) => Failure::new(format!("exec: {program:?}: permission denied")),
        // There, but its interpreter is not, or it is for another machine.
        _ => Failure::new(format!("exec {program}: {}", describe(&error))),
    }
}

fn execute_at(path: &str, arguments: &[CString], environment: &[CString]) -> io::Error {
    match CString::new(path) {
        Ok(program) => process::execute(&program, arguments, environment),
        Err(_) => io::Error::from_raw_os_error(libc::ENOENT),
    }
}

//! Making, joining and ending processes.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::check;

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A process just made.
pub struct Child {
    /// Its number in our own pid namespace.
    pub pid: i32,
    /// A handle that cannot come to mean another process.
    pub pidfd: OwnedFd,
}

#[repr(C, align(8))]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks. `namespaces` are `CLONE_NEW*` flags; `cgroup` is an open cgroup v2 directory to be born in.
///
/// `None` is returned in the child. The caller must be the only thread of its process, for the child
/// has no other and would wait for ever on what another thread held.
pub fn fork(namespaces: libc::c_int, cgroup: Option<&OwnedFd>) -> io::Result<Option<Child>> {
    clone3(CloneArguments {
        flags: namespaces as u32 as u64 | if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 },
        exit_signal: libc::SIGCHLD as u64,
        cgroup: cgroup.map_or(0, |directory| directory.as_raw_fd() as u64),
        ..CloneArguments::default()
    })
}

/// Forks in a process of several threads: the child may do nothing but system calls until it is another program.
pub(super) fn clone_into(cgroup: Option<&OwnedFd>) -> io::Result<Option<Child>> {
    // What the single-threaded fork forbids is left to the caller.
    fork(0, cgroup)
}

/// Forks a child of this process's own parent, so that the parent can wait for it as for this one.
///
/// As with [`fork`], `None` is returned in the child, and the caller must be the only thread.
pub fn fork_sibling(namespaces: libc::c_int) -> io::Result<Option<Child>> {
    // A sibling's end is told as this one's own, whatever signal is asked for.
    let flags = namespaces as u32 as u64 | libc::CLONE_PARENT as u64;
    clone3(CloneArguments { flags, ..CloneArguments::default() })
}

/// The caller is the only thread, or its child does nothing but system calls.
fn clone3(arguments: CloneArguments) -> io::Result<Option<Child>> {
    let mut pidfd: libc::c_int = -1;
    let arguments = CloneArguments {
        flags: arguments.flags | CLONE_PIDFD,
        pidfd: &mut pidfd as *mut libc::c_int as u64,
        ..arguments
    };
    // SAFETY: the structure has the kernel's layout and its size is passed; without CLONE_VM the child
    // gets a copy of all memory, and by the caller's promise it takes no lock that another thread held.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, &arguments as *const CloneArguments, size_of::<CloneArguments>())
    })?;
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel has stored a new descriptor there.
    Ok(Some(Child { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }))
}

/// Where the words of this process's command line are in its memory.
#[derive(Clone, Copy, Debug)]
pub struct CommandLine {
    begin: usize,
    length: usize,
}

impl CommandLine {
    /// Asks the kernel.
    pub fn find() -> io::Result<CommandLine> {
        let status = std::fs::read_to_string("/proc/self/stat")?;
        // The name in parentheses may hold spaces; field 3 follows it.
        let fields: Vec<&str> = status.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<usize>().ok());
        match (field(48), field(49)) {
            (Some(begin), Some(end)) if begin != 0 && end > begin => {
                Ok(CommandLine { begin, length: end - begin })
            }
            _ => Err(io::Error::other("the kernel does not tell where the command line is")),
        }
    }

    /// Replaces what others read as the command line of this process, a fork of the one that was asked.
    pub fn replace(&self, name: &CStr) {
        let name = name.to_bytes();
        let kept = name.len().min(self.length.saturating_sub(2));
        // SAFETY: the kernel has told that the words of the command line are here: writable memory at the
        // bottom of the stack, which exists as long as the process. Nobody in a forked child reads them.
        unsafe {
            let begin = self.begin as *mut u8;
            std::ptr::write_bytes(begin, 0, self.length);
            std::ptr::copy_nonoverlapping(name.as_ptr(), begin, kept);
            // A last byte that is none of the end tells the kernel that the first one ends it all.
            begin.add(self.length - 1).write(b'.');
        }
        // SAFETY: the name is a C string; the kernel copies at most 16 bytes of it.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }
}

/// A handle on a process by its number.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: only numbers are passed; the call returns a new descriptor or an error.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a signal; that the process is gone already is no error.
pub fn pidfd_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: only numbers and a null pointer are passed.
    let sent = check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    });
    match sent {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

/// Kills a child by its number, for want of a handle; whoever is not a child that waits to be reaped is left alone.
pub fn kill_child(pid: i32) -> io::Result<()> {
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    let pid = nix::unistd::Pid::from_raw(pid);
    // Nobody else gets its number before it is reaped, which is up to us.
    let asked = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT);
    match asked {
        Err(nix::Error::ECHILD) => Ok(()),
        asked => Ok(asked.and_then(|_| kill(pid, Signal::SIGKILL))?),
    }
}

/// Joins namespaces of the process behind a pidfd, or the one namespace behind its file.
pub fn join_namespaces(of: impl AsFd, namespaces: libc::c_int) -> io::Result<()> {
    // SAFETY: only numbers are passed.
    check(unsafe { libc::setns(of.as_fd().as_raw_fd(), namespaces) } as libc::c_long).map(drop)
}

/// Leaves namespaces for new ones.
pub fn unshare(namespaces: libc::c_int) -> io::Result<()> {
    // SAFETY: only numbers are passed.
    check(unsafe { libc::unshare(namespaces) } as libc::c_long).map(drop)
}

/// Marks every descriptor from `first` on as not to be inherited by the next program.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: only numbers are passed; marking never closes anything under its owner.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Closes every descriptor from `first` on but one, in a forked child that will use no other again.
pub fn close_from(first: u32, kept: impl AsFd) -> io::Result<()> {
    let kept = kept.as_fd().as_raw_fd() as u32;
    let close = |from: u32, to: u32| {
        // SAFETY: only numbers are passed; the caller touches none of those again, so that nobody is surprised.
        check(unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) }).map(drop)
    };
    if kept > first {
        close(first, kept - 1)?;
    }
    close(first.max(kept + 1), u32::MAX)
}

/// Gives up every capability and the way back to any, whatever is executed.
pub fn give_up_capabilities() -> io::Result<()> {
    set_capabilities(0, 0, 0)?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Closes every descriptor, in a forked child that will never use one again nor return.
pub fn close_all() {
    // SAFETY: the caller never touches a descriptor again, so that nobody is surprised.
    unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
}

/// Calls `prctl` with number arguments only.
pub fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the options used here take numbers; unused arguments must be zero and are.
    check(unsafe { libc::prctl(option, argument, 0, 0, 0) } as libc::c_long).map(drop)
}

/// Raises one ambient capability.
pub fn raise_ambient(capability: u8) -> io::Result<()> {
    // SAFETY: only numbers are passed.
    check(unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability as libc::c_ulong, 0, 0)
    } as libc::c_long)
    .map(drop)
}

const CAPABILITIES_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Sets the capabilities of this thread, each set as a mask of 64 bits.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    let header = CapabilityHeader { version: CAPABILITIES_VERSION_3, pid: 0 };
    let half = |shift: u32| CapabilityData {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: header and data have the kernel's layout for version 3, which reads two data elements.
    check(unsafe { libc::syscall(libc::SYS_capset, &header as *const CapabilityHeader, data.as_ptr()) })
        .map(drop)
}

/// The capabilities that this thread may make effective, as a mask.
pub fn permitted_capabilities() -> io::Result<u64> {
    let header = CapabilityHeader { version: CAPABILITIES_VERSION_3, pid: 0 };
    let mut data = [CapabilityData { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: header and data have the kernel's layout for version 3, which writes two data elements.
    check(unsafe { libc::syscall(libc::SYS_capget, &header as *const CapabilityHeader, data.as_mut_ptr()) })?;
    Ok(data[0].permitted as u64 | (data[1].permitted as u64) << 32)
}

/// Becomes this user with these groups, in all of real, effective and saved ids.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // Straight to the kernel: libc's wrappers would signal threads that a forked child does not have.
    // SAFETY: the groups live through the call and their number is passed; the rest are numbers.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// Loads a compiled seccomp filter: an array of `struct sock_filter` as bytes.
pub fn load_seccomp(program: &[u8]) -> io::Result<()> {
    #[repr(C)]
    struct Program {
        length: libc::c_ushort,
        filter: *const u8,
    }
    let program = Program { length: (program.len() / 8) as libc::c_ushort, filter: program.as_ptr() };
    // SAFETY: the program points at `length` instructions of 8 bytes, which live through the call.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program as *const Program)
    })
    .map(drop)
}

/// Gives every signal its default meaning again and lets all of them through.
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: SIG_DFL runs no code of ours; libc refuses the signals that it keeps for itself.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Waits, without blocking, for any child: its pid and how it ended, as a shell tells it.
pub fn reap() -> io::Result<Option<(i32, i32)>> {
    let mut status = 0;
    // SAFETY: the status lives through the call.
    match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
        0 => Ok(None),
        -1 => {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) }
        }
        pid => Ok(Some((pid, exit_code(status)))),
    }
}

/// Waits for any child to end; fails with ECHILD when there is none.
pub fn wait_any() -> io::Result<()> {
    // SAFETY: a null pointer says that the status is not wanted.
    check(unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } as libc::c_long).map(drop)
}

/// Sleeps until a child may have ended. A first process of a pid namespace never gets other signals
/// that it has no handler for.
pub fn wait_for_child_signal() {
    let mut children = nix::sys::signal::SigSet::empty();
    children.add(nix::sys::signal::Signal::SIGCHLD);
    // Blocked, or it would be dropped between the last wait and this one.
    if children.thread_block().is_err() || children.wait().is_err() {
        exit_now(1);
    }
}

/// The exit code as a shell tells it: 128 and the signal for those that were killed.
fn exit_code(status: i32) -> i32 {
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

/// Waits for a child of ours behind a pidfd, so that it leaves no zombie; not ours is no error.
pub fn wait_pidfd(pidfd: impl AsFd) -> io::Result<()> {
    // SAFETY: a zeroed siginfo is a valid place for the kernel to write to.
    let mut information: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the structure lives through the call.
    let waited = unsafe {
        libc::waitid(libc::P_PIDFD, pidfd.as_fd().as_raw_fd() as libc::id_t, &mut information, libc::WEXITED)
    };
    match check(waited as libc::c_long) {
        Err(error) if error.raw_os_error() != Some(libc::ECHILD) => Err(error),
        _ => Ok(()),
    }
}

/// Replaces this process by another program; returns only the reason why not.
pub fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end in null and point at C strings that live until the program is replaced.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends a forked child at once, running none of the parent's destructors.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit is always allowed and never returns.
    unsafe { libc::_exit(code) }
}

/// The score by which the kernel chooses whom to kill when memory runs out: this process is to be the last.
/// Tells the score that it had.
pub fn spare_from_out_of_memory() -> io::Result<Option<i32>> {
    /// As other runtimes' shims have it: after everything of pods, before what the machine cannot do without.
    const SPARED: i32 = -998;
    let before = std::fs::read_to_string(OOM_SCORE)?.trim().parse().ok();
    set_oom_score(SPARED)?;
    Ok(before)
}

const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// Sets this process's score, -1000 to 1000.
pub fn set_oom_score(score: i32) -> io::Result<()> {
    super::open::write_kernel_file(std::path::Path::new(OOM_SCORE), &score.to_string())
}

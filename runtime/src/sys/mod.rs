//! The system calls the runtime is made of, as thin as they can be: all its `unsafe` is here.
//!
//! Everything works on file descriptors. A path string is only ever resolved by the kernel below an
//! open directory, with `openat2` telling it not to leave ([`open`]); mounts are made detached and
//! attached to descriptors ([`mount`]); processes are held by pidfd ([`process`]).

pub mod attributes;
pub mod bpf;
pub mod clock;
pub mod failpoint;
pub mod mount;
pub mod open;
pub mod poll;
pub mod process;
pub mod socket;
pub mod spawn;
pub mod terminal;

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What a failed system call left in `errno`, or its result.
pub(crate) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A path as the kernel wants it.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    c_string(path.as_os_str().as_bytes())
}

/// Bytes as the kernel wants them; a zero byte inside is a caller's mistake that it must hear of.
pub(crate) fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a string holds a zero byte"))
}

//! Extended attributes of whatever is at a name, links not followed.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;

use super::{c_string, check};

/// All that can be read, in no order; nothing where the file system has none. Names are told as text: others are not
/// ours to carry.
pub fn of(directory: impl AsFd, name: &OsStr) -> io::Result<Vec<(String, Vec<u8>)>> {
    // Through /proc: older kernels have no call that takes a directory and a name.
    let mut path = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).into_bytes();
    path.extend(name.as_bytes());
    let path = c_string(&path)?;
    // SAFETY: the path lives through the call, and the buffer has the length that is told.
    let names = read(|buffer| unsafe {
        libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) as libc::c_long
    })?;
    let mut attributes = Vec::new();
    for name in names.unwrap_or_default().split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        // SAFETY: path and name live through the call, and the buffer has the length that is told.
        let value = read(|buffer| unsafe {
            libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
                as libc::c_long
        })?;
        if let (Some(value), Ok(name)) = (value, name.to_str()) {
            attributes.push((name.to_owned(), value));
        }
    }
    Ok(attributes)
}

/// Calls with a buffer that is large enough; nothing where there is nothing to read.
fn read(call: impl Fn(&mut [u8]) -> libc::c_long) -> io::Result<Option<Vec<u8>>> {
    loop {
        let length = match check(call(&mut [])) {
            Ok(length) => usize::try_from(length).unwrap_or(0),
            Err(error) => return absent(error),
        };
        let mut buffer = vec![0; length];
        match check(call(&mut buffer)) {
            Ok(length) => {
                buffer.truncate(usize::try_from(length).unwrap_or(0));
                return Ok(Some(buffer));
            }
            // It has grown since its length was asked for.
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) => {}
            Err(error) => return absent(error),
        }
    }
}

fn absent(error: io::Error) -> io::Result<Option<Vec<u8>>> {
    match error.raw_os_error() {
        Some(libc::ENODATA | libc::EOPNOTSUPP) => Ok(None),
        _ => Err(error),
    }
}

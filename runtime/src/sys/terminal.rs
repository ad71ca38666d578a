//! Pseudo-terminals.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::check;

/// `_IO('T', 0x41)`: opens the other side of a terminal without looking at any path.
const TIOCGPTPEER: libc::c_ulong = 0x5441;

/// A terminal of the devpts that `multiplexer` belongs to: the side that a process gets.
pub fn open_peer(multiplexer: impl AsFd) -> io::Result<OwnedFd> {
    let fd = multiplexer.as_fd().as_raw_fd();
    let unlock: libc::c_int = 0;
    // SAFETY: the request reads one int, which lives through the call.
    check(unsafe { libc::ioctl(fd, libc::TIOCSPTLCK as _, &unlock) } as libc::c_long)?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the request takes a number and returns a new descriptor or an error.
    let peer = check(unsafe { libc::ioctl(fd, TIOCGPTPEER as _, flags) } as libc::c_long)?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(peer as i32) })
}

/// Makes `terminal` the controlling terminal of this session.
pub fn take_control(terminal: impl AsFd) -> io::Result<()> {
    // SAFETY: the request takes a number.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY as _, 0) } as libc::c_long)
        .map(drop)
}

/// How large a terminal's window is: columns and rows.
pub fn size(terminal: impl AsFd) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request writes one winsize, which lives through the call.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ as _, &mut size) }
        as libc::c_long)?;
    Ok((size.ws_col, size.ws_row))
}

/// Tells a terminal how large its window is.
pub fn resize(terminal: impl AsFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one winsize, which lives through the call.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ as _, &size) } as libc::c_long)
        .map(drop)
}

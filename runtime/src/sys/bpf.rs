//! Programs that the kernel asks before it gives a device away.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::check;

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_CGROUP_DEVICE: u32 = 6;

/// The beginning of the kernel's `union bpf_attr` for loading; what follows may be left out.
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Has the kernel ask the program for every device that a process of the group wants. The program lives as
/// long as the group.
pub fn attach_device_program(group: impl AsFd, program: &[[u8; 8]]) -> io::Result<()> {
    let load = Load {
        program_type: PROG_TYPE_CGROUP_DEVICE,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the structure has the kernel's layout and its size is passed; the instructions and the
    // license that it points at live through the call, which returns a new descriptor or an error.
    let loaded =
        check(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &load as *const Load, size_of::<Load>()) })?;
    // SAFETY: the kernel has just given us this descriptor.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded as i32) };
    let attach = Attach {
        target: group.as_fd().as_raw_fd() as u32,
        program: loaded.as_raw_fd() as u32,
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        flags: 0,
    };
    // SAFETY: as above; only numbers are in it.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &attach as *const Attach, size_of::<Attach>()) })
        .map(drop)
}

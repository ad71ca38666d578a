//! Starting another program out of a process with many threads.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::process::{Child, clone_into, exit_now};
use super::{c_string, check, poll};

/// A program, what it is given, and where it is born.
pub struct Program<'a> {
    /// The file.
    pub path: &'a CStr,
    /// The words of its command line, its own name first.
    pub arguments: Vec<CString>,
    /// `NAME=value`.
    pub environment: Vec<CString>,
    /// Standard input, output and error.
    pub streams: [BorrowedFd<'a>; 3],
    /// An open directory of a version 2 control group. To be moved there later would make the kernel wait for all
    /// forks of the machine.
    pub group: Option<OwnedFd>,
}

/// Starts a program with `/` as its directory; comes back when it runs, or could not be executed.
pub fn spawn(program: Program<'_>) -> io::Result<Child> {
    // All memory is taken before the fork: in the child another thread's lock may be held for ever.
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(&program.arguments), pointers(&program.environment));
    let streams = program.streams.map(above_the_standard_streams);
    let [input, output, error] = streams;
    let streams = [input?, output?, error?];
    let (told, tell) = poll::pipe()?;
    let child = clone_into(program.group.as_ref())?;
    let Some(child) = child else {
        // SAFETY: only system calls from here on, with numbers and with memory that was prepared above.
        unsafe {
            for (number, stream) in streams.iter().enumerate() {
                libc::dup2(stream.as_raw_fd(), number as libc::c_int);
            }
            libc::chdir(c"/".as_ptr());
            libc::execve(program.path.as_ptr(), arguments.as_ptr(), environment.as_ptr());
            let code = *libc::__errno_location();
            libc::write(tell.as_raw_fd(), (&raw const code).cast(), size_of::<libc::c_int>());
        }
        exit_now(127)
    };
    drop(tell);
    let mut code = [0; size_of::<libc::c_int>()];
    // The end of the pipe is the beginning of the program.
    match nix::unistd::read(&told, &mut code)? {
        0 => Ok(child),
        _ => {
            super::process::wait_pidfd(&child.pidfd)?;
            Err(io::Error::from_raw_os_error(libc::c_int::from_ne_bytes(code)))
        }
    }
}

/// A copy that is in nobody's way when the standard streams are put in place.
fn above_the_standard_streams(stream: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: only numbers are passed; the call returns a new descriptor or an error.
    let copy = check(unsafe { libc::fcntl(stream.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) } as libc::c_long)?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(copy as i32) })
}

/// Words as a program gets them.
pub fn words<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> io::Result<Vec<CString>> {
    words.into_iter().map(c_string).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    fn started(path: &CStr, script: &str, output: &File) -> io::Result<Child> {
        let null = File::open("/dev/null")?;
        let arguments = words(["sh", "-c", script].map(str::as_bytes))?;
        let environment = words(["COLOR=blue"].map(str::as_bytes))?;
        let streams = [null.as_fd(), output.as_fd(), null.as_fd()];
        spawn(Program { path, arguments, environment, streams, group: None })
    }

    #[test]
    fn a_program_gets_its_words_streams_and_directory() {
        let output = tempfile::NamedTempFile::new().unwrap();
        let child = started(c"/bin/sh", "echo $COLOR; pwd", output.as_file()).unwrap();
        crate::sys::process::wait_pidfd(&child.pidfd).unwrap();
        assert_eq!(std::fs::read_to_string(output.path()).unwrap(), "blue\n/\n");
    }

    #[test]
    fn a_program_that_is_not_there_is_missed() {
        let output = tempfile::NamedTempFile::new().unwrap();
        let error = started(c"/no/such", "", output.as_file()).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

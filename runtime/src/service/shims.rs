//! Shims that somebody else may have started: finding their processes, and ending them, whatever state they are in.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::containers::KILL_PATIENCE;
use super::state::{RECORD, SandboxRecord};
use crate::shim::protocol::{PodDirectory, Reply, Request, read_json};
use crate::shim::{self, Connection};
use crate::sys::poll::watched;
use crate::sys::process::{pidfd_open, pidfd_signal};

/// Whether an error in talking to a shim says that there is none. Any other says nothing of the kind.
pub(super) fn says_nobody_is_there(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(error.kind(), NotFound | ConnectionRefused | ConnectionReset | BrokenPipe | UnexpectedEof)
}

/// Ends the shim of a pod, if there is one; one that does not do so when asked is killed.
pub(super) async fn end_shim_of(directory: &PodDirectory, patience: Duration) -> io::Result<()> {
    let mut connection = match shim::connect(directory) {
        Err(error) if says_nobody_is_there(&error) => return Ok(()),
        Err(error) => return kill_shim_of(directory, None, error).await,
        Ok(connection) => connection,
    };
    let asked = tokio::time::timeout(patience, end_shim(&mut connection)).await;
    match asked.map_err(io::Error::from).flatten() {
        Ok(()) => Ok(()),
        Err(error) if says_nobody_is_there(&error) => Ok(()),
        Err(error) => kill_shim_of(directory, connection.peer_pid().ok(), error).await,
    }
}

/// Asks a shim to end, and waits until it has.
async fn end_shim(connection: &mut Connection) -> io::Result<()> {
    match connection.call(&Request::Shutdown, Vec::new()).await? {
        // The end of the connection is the end of the shim.
        (Reply::Done, _) => {
            while connection.receive().await?.is_some() {}
            Ok(())
        }
        (Reply::Failed { message }, _) => Err(io::Error::other(message)),
        (other, _) => Err(io::Error::other(format!("the pod's shim answered {other:?}"))),
    }
}

/// Kills a shim that could not be asked to end, for this reason.
async fn kill_shim_of(directory: &PodDirectory, peer: Option<i32>, reason: io::Error) -> io::Result<()> {
    let pod = directory.0.display();
    tracing::warn!(%pod, error = %reason, "a shim does not end, killing it");
    let record: Option<SandboxRecord> = read_json(&directory.0.join(RECORD)).unwrap_or_default();
    // Who made the socket need not be who serves it: shims of the first version have their server's.
    let candidates = [record.and_then(|record| record.shim), peer];
    let found = candidates.into_iter().flatten().find_map(|pid| process_of(directory, pid).transpose());
    let Some(shim) = found.transpose()? else {
        return Err(io::Error::new(
            reason.kind(),
            format!("no process is known to be the pod's shim: {reason}"),
        ));
    };
    pidfd_signal(&shim, libc::SIGKILL)?;
    // Readable when it has ended.
    let ended = async { watched(shim)?.readable().await.map(drop) };
    tokio::time::timeout(KILL_PATIENCE, ended).await.map_err(io::Error::from).flatten()
}

/// The process of this number, if it is the shim of the pod. Whoever has the number later is not meant by it.
pub(super) fn process_of(directory: &PodDirectory, pid: i32) -> io::Result<Option<OwnedFd>> {
    let process = match pidfd_open(pid) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        opened => opened?,
    };
    // Read only now: if the number has gone to another process before, this is that one's, and tells it.
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    Ok(is_shim_of(&command_line, &directory.0).then_some(process))
}

/// Whether this is the command line of the shim that works in `directory`: its last word is the place.
fn is_shim_of(command_line: &[u8], directory: &Path) -> bool {
    let words = command_line.strip_suffix(b"\0").unwrap_or(command_line);
    let last = words.rsplit(|byte| *byte == 0).next().unwrap_or_default();
    let place = Path::new(OsStr::from_bytes(last));
    // The same place may go by another name today.
    let real = |path: &Path| fs::canonicalize(path).ok();
    place == directory || (place.file_name() == directory.file_name() && real(place) == real(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_is_known_by_the_last_word_of_its_command_line() {
        let pod = Path::new("/run/coracle/pods/abc");
        assert!(is_shim_of(b"/proc/self/fd/5\0shim\0/run/coracle/pods/abc\0", pod));
        for other in
            [&b"coracle\0shim\0/run/coracle/pods/abcd\0"[..], b"less\0/run/coracle/pods/abc/shim.log\0", b""]
        {
            assert!(!is_shim_of(other, pod));
        }
        let directory = tempfile::tempdir().unwrap();
        let (real, linked) = (directory.path().join("real"), directory.path().join("linked"));
        fs::create_dir_all(real.join("abc")).unwrap();
        std::os::unix::fs::symlink(&real, &linked).unwrap();
        let words = [b"coracle\0shim\0", linked.join("abc").as_os_str().as_bytes(), b"\0"].concat();
        assert!(is_shim_of(&words, &real.join("abc")), "by another name");
    }

    #[test]
    fn only_an_absent_listener_is_a_dead_shim() {
        for kind in [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused, io::ErrorKind::BrokenPipe] {
            assert!(says_nobody_is_there(&kind.into()));
        }
        for code in [libc::EMFILE, libc::EAGAIN, libc::ETIMEDOUT, libc::EACCES, libc::ENOMEM] {
            assert!(!says_nobody_is_there(&io::Error::from_raw_os_error(code)), "{code}");
        }
    }
}

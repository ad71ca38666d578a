//! The Unix socket that a runtime is reached by.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// A socket that listens. When it is dropped, its file goes, unless it is another's by then.
#[derive(Debug)]
pub struct Socket {
    pub(crate) listener: UnixListener,
    _file: SocketFile,
}

/// The name of a socket in the file system.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Listens at `path`, for root alone. What a killed server left there is replaced, in one step, so that
    /// no client finds nothing; a socket on which somebody answers is left to him.
    pub fn bind(path: impl Into<PathBuf>) -> io::Result<Socket> {
        let path = path.into();
        refuse_if_alive(&path)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let unfinished = beside(&path);
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = net::UnixListener::bind(&unfinished)?;
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600))?;
        let inode = fs::symlink_metadata(&unfinished)?.ino();
        fs::rename(&unfinished, &path)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(Socket { listener, _file: SocketFile { path, inode } })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A file that stays is replaced by the next server.
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            fs::remove_file(&self.path).ok();
        }
    }
}

fn refuse_if_alive(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) => {}
    }
    match net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another runtime answers there")),
        Err(_) => Ok(()),
    }
}

/// A name in the same directory, not longer by much: the kernel takes 107 bytes.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push("~");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_servers_socket_is_replaced_and_a_living_ones_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/cri.sock");
        let first = Socket::bind(&path).unwrap();
        let refused = Socket::bind(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse, "{refused}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop(first);
        assert!(!path.exists(), "an orderly end leaves nothing");

        // What kill -9 leaves: a file on which nobody listens.
        drop(net::UnixListener::bind(&path).unwrap());
        let second = Socket::bind(&path).unwrap();
        tokio::net::UnixStream::connect(&path).await.unwrap();
        second.listener.accept().await.unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        assert_eq!(Socket::bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        drop(second);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine", "another's file stays");
    }
}

//! The data directory: who may use it, and whether this program understands it.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::OpenError;

/// The format that this program writes, and the newest one that it understands.
const FORMAT: u32 = 1;

/// A data directory that this process has to itself until it is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Locked; the kernel lets go when the process ends, however it ends.
    _lock: File,
}

impl Directory {
    /// Creates the directory where it is missing, locks it and checks its format.
    pub fn open(path: &Path) -> Result<Directory, OpenError> {
        let failed = |what| move |source| OpenError::Io { what, path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed("create"))?;
        let lock = File::options().create(true).truncate(false).write(true).open(path.join("lock"));
        let lock = lock.map_err(failed("open the lock of"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse { path: path.to_owned() },
            TryLockError::Error(source) => failed("lock")(source),
        })?;
        let directory = Directory { path: path.to_owned(), _lock: lock };
        directory.check_format()?;
        Ok(directory)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check_format(&self) -> Result<(), OpenError> {
        let failed = |what| move |source| OpenError::Io { what, path: self.path.clone(), source };
        let text = match fs::read_to_string(self.path.join("format")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.write_format().map_err(failed("write the format of"));
            }
            Err(error) => return Err(failed("read the format of")(error)),
        };
        match text.trim().parse() {
            Ok(found) if found <= FORMAT => Ok(()),
            Ok(found) => Err(OpenError::NewerFormat { path: self.path.clone(), found, newest: FORMAT }),
            Err(_) => Err(OpenError::UnknownFormat { path: self.path.clone(), found: text }),
        }
    }

    fn write_format(&self) -> io::Result<()> {
        write_whole(&self.path, "format", |file| writeln!(file, "{FORMAT}"))
    }
}

/// Writes a file so that after a crash it is there as a whole or not at all.
pub(super) fn write_whole(
    directory: &Path,
    name: &str,
    write: impl FnOnce(&mut io::BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let unfinished = directory.join(format!("{name}{UNFINISHED}"));
    let mut file = io::BufWriter::with_capacity(1 << 20, File::create(&unfinished)?);
    write(&mut file)?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(unfinished, directory.join(name))?;
    sync_directory(directory)
}

/// What the names of files end with that a crash may leave half written.
pub(super) const UNFINISHED: &str = ".unfinished";

/// Makes the creation, renaming and removal of files durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

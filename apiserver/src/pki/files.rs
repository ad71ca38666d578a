//! Secret files: 0600, replaced atomically, one writer at a time.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use super::PkiError;

/// Makes the directory, readable by its owner alone.
pub(super) fn create_dir(dir: &Path) -> Result<(), PkiError> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    created.map_err(|source| failed("create", dir, source))
}

/// Waits for the directory's lock; it is released when the file is dropped, also by a crash.
pub(super) fn lock(dir: &Path) -> Result<File, PkiError> {
    let path = dir.join(".lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(|source| failed("open", &path, source))?;
    file.lock().map_err(|source| failed("lock", &path, source))?;
    Ok(file)
}

/// A file's text, or `None` when it is not there.
pub(super) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", path, source)),
    }
}

/// Puts `text` at `path`: a crash leaves the old content or the new one. Durable after the next [`sync`].
pub(super) fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    let beside = path.with_added_extension("new");
    write_durably(path, &beside, text).map_err(|source| failed("write", path, source))
}

fn write_durably(path: &Path, beside: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    fs::rename(beside, path)
}

/// Makes everything durable that was written in the directory.
pub(super) fn sync(dir: &Path) -> Result<(), PkiError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|source| failed("write", dir, source))
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> PkiError {
    PkiError::File { what, path: path.to_path_buf(), source }
}

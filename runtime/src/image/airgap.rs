//! A folder of archives whose images are there from the start, for nodes that reach no registry.
//!
//! What was imported is written down, so that a start without changes reads nothing but directories.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::archive::{self, Options};
use super::store::write_atomically;
use super::{ImageError, Store};

/// What was imported from an archive, and how the archive looked then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Mark {
    size: u64,
    modified: (i64, i64),
    names: Vec<String>,
}

/// What became of one archive.
#[derive(Debug)]
pub struct Outcome {
    /// The archive.
    pub archive: PathBuf,
    /// The names of its images, or why it could not be imported.
    pub imported: Result<Vec<String>, ImageError>,
}

/// Imports `*.tar`, `*.tar.gz`, `*.tgz`, `*.tar.zst` of a folder, as far as they are new, have changed or their
/// images are gone. The images stay although nobody uses them. That there is no folder is no error.
pub fn import(store: &Store, folder: &Path) -> Result<Vec<Outcome>, ImageError> {
    let archives = match archives(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(ImageError::storage("list", folder))?,
    };
    let record = store.root().join("airgap.json");
    let known: BTreeMap<PathBuf, Mark> =
        fs::read(&record).ok().and_then(|content| serde_json::from_slice(&content).ok()).unwrap_or_default();
    let (mut marks, mut outcomes) = (BTreeMap::new(), Vec::new());
    for path in archives {
        match import_one(store, &path, known.get(&path)) {
            Ok(None) => {
                marks.insert(path.clone(), known[&path].clone());
            }
            Ok(Some(mark)) => {
                outcomes.push(Outcome { archive: path.clone(), imported: Ok(mark.names.clone()) });
                marks.insert(path, mark);
            }
            Err(error) => outcomes.push(Outcome { archive: path, imported: Err(error) }),
        }
    }
    if marks != known {
        let content = serde_json::to_vec(&marks).expect("marks are always serialisable");
        write_atomically(&record, &content)?;
    }
    Ok(outcomes)
}

/// None when all of it is here.
fn import_one(store: &Store, path: &Path, known: Option<&Mark>) -> Result<Option<Mark>, ImageError> {
    let file = File::open(path).map_err(ImageError::storage("read", path))?;
    let metadata = file.metadata().map_err(ImageError::storage("read", path))?;
    let (size, modified) = (metadata.len(), (metadata.mtime(), metadata.mtime_nsec()));
    if let Some(mark) = known.filter(|mark| (mark.size, mark.modified) == (size, modified)) {
        let mut missing = false;
        for name in &mark.names {
            missing |= store.find(name)?.is_none();
        }
        if !missing {
            return Ok(None);
        }
    }
    let names = archive::import(store, file, &Options { pinned: true, ..Options::default() })?;
    Ok(Some(Mark { size, modified, names }))
}

fn archives(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let is_archive = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let endings = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd"];
        !name.starts_with('.') && endings.iter().any(|ending| name.ends_with(ending)) && path.is_file()
    };
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.retain(is_archive);
    paths.sort();
    Ok(paths)
}

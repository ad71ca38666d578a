//! hostPath volumes: a place on the node, checked or made as its type asks.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why a place cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostPathError {
    /// It is not what the type says.
    #[error("hostPath type check failed: {path} is not {wanted}")]
    WrongType {
        /// The place.
        path: String,
        /// What it should be, with its article.
        wanted: &'static str,
    },
    /// A type that does not exist.
    #[error("unknown hostPath type: {0}")]
    UnknownType(String),
    /// It could not be made.
    #[error("cannot make {path}: {source}")]
    Make {
        /// The place.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The path to mount.
pub fn prepare(path: &str, kind: &str) -> Result<PathBuf, HostPathError> {
    let place = Path::new(path);
    let metadata = fs::metadata(place).ok();
    let check = |found: fn(&fs::FileType) -> bool, wanted: &'static str| {
        let kind = metadata.as_ref().map(fs::Metadata::file_type);
        match kind.is_some_and(|kind| found(&kind)) {
            true => Ok(()),
            false => Err(HostPathError::WrongType { path: path.to_string(), wanted }),
        }
    };
    let failed = |source| HostPathError::Make { path: path.to_string(), source };
    match kind {
        "" => {
            // As container runtimes do: what is not there becomes a directory.
            if metadata.is_none() {
                fs::create_dir_all(place).map_err(failed)?;
            }
        }
        "DirectoryOrCreate" => match metadata {
            None => fs::DirBuilder::new().recursive(true).mode(0o755).create(place).map_err(failed)?,
            Some(_) => check(fs::FileType::is_dir, "a directory")?,
        },
        "FileOrCreate" => match metadata {
            None => {
                let mut options = fs::OpenOptions::new();
                options.create_new(true).write(true).mode(0o644).open(place).map(drop).map_err(failed)?;
            }
            Some(_) => check(fs::FileType::is_file, "a file")?,
        },
        "Directory" => check(fs::FileType::is_dir, "a directory")?,
        "File" => check(fs::FileType::is_file, "a file")?,
        "Socket" => check(|kind| kind.is_socket(), "a socket file")?,
        "CharDevice" => check(|kind| kind.is_char_device(), "a character device")?,
        "BlockDevice" => check(|kind| kind.is_block_device(), "a block device")?,
        other => return Err(HostPathError::UnknownType(other.to_string())),
    }
    Ok(place.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_made_is_made_and_what_must_be_there_is_checked() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name).to_string_lossy().into_owned();
        prepare(&path("dir/deep"), "DirectoryOrCreate").unwrap();
        prepare(&path("file"), "FileOrCreate").unwrap();
        prepare(&path("dir"), "Directory").unwrap();
        prepare(&path("file"), "File").unwrap();
        prepare("/dev/null", "CharDevice").unwrap();
        assert!(path("dir/deep").ends_with("deep") && root.path().join("dir/deep").is_dir());
        for (name, kind) in
            [("file", "Directory"), ("dir", "File"), ("none", "Directory"), ("file", "Socket")]
        {
            let error = prepare(&path(name), kind).unwrap_err().to_string();
            assert!(error.starts_with("hostPath type check failed: "), "{error}");
        }
        assert_eq!(prepare(&path("file"), "Odd").unwrap_err().to_string(), "unknown hostPath type: Odd");
    }
}

//! New volumes get what the image has at their place, as with docker.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::fchown;
use runtime::image::Image;
use runtime::sys::open::{Links, open_in};
use runtime::sys::{mount, process};

use crate::containers::Container;
use crate::definition::Volume;
use crate::place::Place;
use crate::tree::{self, Manner, Owner};

/// Fills the volumes of a new container that are empty yet. Folders of the machine are left as they are.
pub fn fill(place: &Place, container: &Container, image: &Image) -> Result<()> {
    let is_unfilled = |volume: &&Volume| volume.name.is_some() && !volume.no_copy && is_empty(&volume.source);
    let volumes: Vec<&Volume> = container.definition.volumes.iter().filter(is_unfilled).collect();
    if volumes.is_empty() {
        return Ok(());
    }
    let layers = place.images()?.layer_paths(image);
    let folder = container.folder();
    // The layers are put together where only this thread sees it.
    let filling = std::thread::scope(|scope| {
        let work = || {
            let root = put_together(&layers, folder).context("cannot put the image's layers together")?;
            volumes.iter().try_for_each(|volume| {
                fill_one(&root, volume, folder)
                    .with_context(|| format!("cannot fill the volume at {}", volume.target))
            })
        };
        scope.spawn(work).join()
    });
    filling.map_err(|_| anyhow!("the thread that fills volumes panicked"))?
}

fn is_empty(directory: &Path) -> bool {
    match fs::read_dir(directory) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// The image's tree, below a directory that the calling thread alone has mounted.
fn put_together(layers: &[PathBuf], folder: &Path) -> io::Result<OwnedFd> {
    process::unshare(libc::CLONE_NEWNS)?;
    mount::isolate_all()?;
    let tree = match layers {
        [layer] => mount::clone_tree(layer, false)?,
        _ => mount::Overlay { layers, writable: None, is_kept: false, label: None, place: folder }.mount()?,
    };
    open_in(tree, Path::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0, Links::Refused)
}

fn fill_one(root: &OwnedFd, volume: &Volume, folder: &Path) -> Result<()> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let source = match open_in(root, tree::relative(Path::new(&volume.target)), flags, 0, Links::InRoot) {
        // The image has nothing there, or nothing that a volume could hold.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
        source => source?,
    };
    if volume.source.exists() {
        return copy_into(&volume.source, &source);
    }
    // It appears whole: a container that shares the volume may come at any time.
    let unfinished = folder.join("volume");
    fs::create_dir(&unfinished)?;
    copy_into(&unfinished, &source)?;
    fs::create_dir_all(volume.source.parent().unwrap_or(Path::new("/")))?;
    match renameat2(AT_FDCWD, &unfinished, AT_FDCWD, &volume.source, RenameFlags::RENAME_NOREPLACE) {
        // Somebody else was faster.
        Err(nix::Error::EEXIST) => Ok(fs::remove_dir_all(&unfinished)?),
        // A file system that cannot tell.
        Err(nix::Error::EINVAL) => Ok(fs::rename(&unfinished, &volume.source)?),
        result => Ok(result?),
    }
}

/// Makes an empty directory like another one. It stays the same directory: a container that runs may see it.
fn copy_into(place: &Path, source: &OwnedFd) -> Result<()> {
    let target = OwnedFd::from(fs::File::open(place)?);
    tree::copy_content(source, &target, Manner { owner: Owner::Kept, is_here: false })?;
    let status = fstat(source)?;
    fchown(&target, Some(status.st_uid.into()), Some(status.st_gid.into()))?;
    Ok(fchmod(&target, Mode::from_bits_truncate(status.st_mode & 0o7777))?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::definition::Spread;

    #[test]
    fn an_empty_volume_that_somebody_may_have_mounted_stays_the_same_directory() {
        let top = tempfile::tempdir().unwrap();
        let at = |path: &str| top.path().join(path);
        for path in ["image/data", "folder", "volumes/known"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::write(at("image/data/file"), "of image").unwrap();
        fs::set_permissions(at("image/data"), fs::Permissions::from_mode(0o751)).unwrap();
        let root = OwnedFd::from(fs::File::open(at("image")).unwrap());
        let known = fs::metadata(at("volumes/known")).unwrap().ino();
        for name in ["known", "new"] {
            let volume = Volume {
                name: Some(name.to_owned()),
                anonymous: false,
                source: at("volumes").join(name),
                target: "/data".to_owned(),
                read_only: false,
                no_copy: false,
                propagation: Spread::default(),
            };
            fill_one(&root, &volume, &at("folder")).unwrap();
            assert_eq!(fs::read_to_string(volume.source.join("file")).unwrap(), "of image");
            assert_eq!(fs::metadata(&volume.source).unwrap().mode() & 0o7777, 0o751);
        }
        assert_eq!(fs::metadata(at("volumes/known")).unwrap().ino(), known);
        assert!(is_empty(&at("folder")));
    }
}

//! New volumes get what the image has at their place, as with docker.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
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
    // It appears whole: a container that shares the volume may come at any time.
    let unfinished = folder.join("volume");
    fs::create_dir(&unfinished)?;
    let target = open_in(fs::File::open(folder)?, Path::new("volume"), flags, 0, Links::Refused)?;
    tree::copy_content(&source, &target, Manner { owner: Owner::Kept, is_here: false })?;
    let status = fstat(&source)?;
    fchown(&target, Some(status.st_uid.into()), Some(status.st_gid.into()))?;
    fchmod(&target, Mode::from_bits_truncate(status.st_mode & 0o7777))?;
    fs::create_dir_all(volume.source.parent().unwrap_or(Path::new("/")))?;
    match fs::rename(&unfinished, &volume.source) {
        // Somebody else was faster.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => {
            Ok(fs::remove_dir_all(&unfinished)?)
        }
        result => Ok(result?),
    }
}

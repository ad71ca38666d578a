//! What is opened while the node's tree is in sight: volumes, image layers, shared memory. Nobody sees these mounts
//! before they are attached.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::{Failure, SharedMemory, Stage, failed};
use crate::container::ids::Owner;
use crate::container::spec::{Access, Root};
use crate::sys::mount::{self, Overlay, Propagation, attribute};
use crate::sys::open::{self, Links, place_in};

pub(super) fn open_volume(
    stage: &Stage,
    source: &Path,
    access: Access,
    propagation: Propagation,
    map_ids: bool,
) -> io::Result<OwnedFd> {
    expect_peers(source, propagation)?;
    let volume = mount::clone_tree(source, true)?;
    if map_ids {
        mount::map_ids(&volume, stage.user_namespace()?).map_err(explain_mapping)?;
    }
    match access {
        Access::Write => {}
        Access::Read => mount::set_attributes(&volume, attribute::READ_ONLY, None, false)?,
        Access::ReadRecursively => mount::set_attributes(&volume, attribute::READ_ONLY, None, true)?,
    }
    // A clone of a shared mount is shared: the other two have to be said.
    if propagation != Propagation::Shared {
        mount::set_attributes(&volume, 0, Some(propagation), true)?;
    }
    Ok(volume)
}

/// Mounts can only spread where the node lets them.
fn expect_peers(source: &Path, propagation: Propagation) -> io::Result<()> {
    if propagation == Propagation::Private {
        return Ok(());
    }
    let peers = mount::peers(source)?;
    let (fits, wanted) = match propagation {
        Propagation::Shared => (peers.is_shared, "shared"),
        _ => (peers.is_shared || peers.is_slave, "shared or slave"),
    };
    if fits {
        return Ok(());
    }
    let (source, place) = (source.display().to_string(), peers.place.display().to_string());
    Err(io::Error::other(format!("path {source:?} is mounted on {place:?} but it is not a {wanted} mount")))
}

/// The kernel says only that an argument is wrong.
fn explain_mapping(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::EOPNOTSUPP) => {
            io::Error::other("its file system cannot show other ids (idmapped mounts) on this kernel")
        }
        _ => error,
    }
}

pub(super) fn open_shared_memory(stage: &mut Stage, of_host: bool) -> io::Result<()> {
    let memory = match &stage.shared_memory {
        Some(SharedMemory::Detached(memory)) if !of_host => mount::clone_tree_at(memory, false)?,
        Some(SharedMemory::Attached(place)) if !of_host => mount::clone_tree(place, false)?,
        _ => mount::clone_tree(Path::new("/dev/shm"), false)?,
    };
    mount::set_attributes(&memory, super::tree::PROTECTED, Some(Propagation::Private), false)?;
    stage.memory = Some(memory);
    Ok(())
}

/// From here on, and for this process alone, the layers in the directory have the pod's ids.
pub(super) fn map_layers(stage: &Stage, directory: &Path) -> io::Result<()> {
    let layers = mount::clone_tree(directory, false)?;
    mount::map_ids(&layers, stage.user_namespace()?).map_err(explain_mapping)?;
    mount::set_attributes(&layers, 0, Some(Propagation::Private), false)?;
    mount::attach(layers, open::directory(directory)?)
}

/// Nothing in an image can be written, and nothing in one that is a volume be executed.
pub(super) fn open_image(layers: &[PathBuf], sub_path: &Path, place: &Path) -> Result<OwnedFd, Failure> {
    let open = || -> io::Result<OwnedFd> {
        let tree = match layers {
            // An overlay of one layer is the layer.
            [layer] => mount::clone_tree(layer, false)?,
            _ => Overlay { layers, writable: None, is_kept: false, label: None, place }.mount()?,
        };
        let attributes = super::tree::PROTECTED | attribute::READ_ONLY;
        mount::set_attributes(&tree, attributes, Some(Propagation::Private), false)?;
        Ok(tree)
    };
    let tree = open().map_err(failed("mount an image volume"))?;
    if sub_path.as_os_str().is_empty() {
        return Ok(tree);
    }
    let narrow = || -> io::Result<OwnedFd> {
        // Before Linux 6.15 only what is attached somewhere can be cloned.
        mount::attach(&tree, open::directory(place)?)?;
        let part = mount::clone_tree_at(place_in(&tree, sub_path, Links::InRoot)?, false);
        mount::detach(place)?;
        part
    };
    narrow().map_err(failed(format!("find subpath {:?} in the image", sub_path.display().to_string())))
}

pub(super) fn mount_root(root: &Root, owner: Owner) -> io::Result<OwnedFd> {
    let (upper, work) = (root.snapshot.join("upper"), root.snapshot.join("work"));
    if owner != Owner::default() {
        // What the container writes belongs to its users as the node knows them.
        std::os::unix::fs::lchown(&upper, Some(owner.uid), Some(owner.gid))?;
    }
    let overlay = Overlay {
        layers: &root.layers,
        writable: Some((&upper, &work)),
        is_kept: root.is_kept,
        label: root.label.as_deref(),
        place: &root.snapshot,
    };
    let overlay = overlay.mount()?;
    mount::set_attributes(&overlay, 0, Some(Propagation::Private), false)?;
    Ok(overlay)
}

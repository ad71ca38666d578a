//! A container's file tree, whether it runs or not, as an open directory.
//!
//! Of one that runs it is what its first process sees, volumes included; of another it is its layers put
//! together again, in a mount namespace of this process alone. Paths in it are resolved by the kernel below that
//! directory, so that no link of the container leads out of it.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};
use runtime::sys::{mount, open, process};

use crate::containers::{Container, Turn};
use crate::definition::Status;
use crate::place::Place;

/// A container's file tree.
pub struct Root {
    /// Its root directory.
    pub directory: OwnedFd,
    /// Nobody may start the container while its layers are mounted here.
    _turn: Option<Turn>,
}

impl Root {
    /// Opens the tree of a container.
    pub fn open(place: &Place, container: &Container) -> Result<Root> {
        let turn = container.turn_or_gone()?;
        if let Status::Running { pid, .. } = container.status(place)? {
            let directory = open::readable_directory(Path::new(&format!("/proc/{pid}/root")));
            let directory = directory.context("cannot open the container's root")?;
            return Ok(Root { directory, _turn: None });
        }
        let images = place.images()?;
        let image = images.find(&container.definition.image_id)?;
        let image = image.with_context(|| format!("No such image: {}", container.definition.image))?;
        let snapshot = images.create_snapshot(container.id(), &image)?;
        let (upper, work) = (snapshot.join("upper"), snapshot.join("work"));
        let put_together = || -> std::io::Result<OwnedFd> {
            let here = std::env::current_dir()?;
            process::unshare(libc::CLONE_NEWNS)?;
            mount::isolate_all()?;
            if work.exists() {
                fs::remove_dir_all(&work)?;
            }
            fs::create_dir(&work)?;
            let layers = images.layer_paths(&image);
            let writable = Some((upper.as_path(), work.as_path()));
            let overlay =
                mount::Overlay { layers: &layers, writable, is_kept: true, label: None, place: &snapshot }
                    .mount()?;
            // Where the user is, his relative paths count from.
            std::env::set_current_dir(here)?;
            let flags = libc::O_RDONLY | libc::O_DIRECTORY;
            open::open_in(overlay, Path::new("."), flags, 0, open::Links::Refused)
        };
        let directory = put_together().context("cannot put the container's layers together")?;
        Ok(Root { directory, _turn: Some(turn) })
    }
}

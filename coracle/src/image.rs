//! `coracle image`: the images of the embedded runtime. Works while a server runs, and without one.

use std::fs::File;

use anyhow::{Context, Result, bail};

use crate::{
    checks,
    cli::{ImageCommand, PlaceArgs},
    settings::Place,
};

/// Carries out one of the image commands.
pub(crate) fn run(command: &ImageCommand) -> Result<()> {
    checks::root("working on images")?;
    match command {
        ImageCommand::Import { file, place } => {
            let archive = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
            let images = open(place)?.import(archive, None);
            for image in images.with_context(|| format!("cannot import {}", file.display()))? {
                println!("imported {}", image.tags.join(", "));
            }
        }
        ImageCommand::Ls { place } => {
            println!("{:<56} {:<14} {:>10}", "NAME", "ID", "SIZE");
            for image in open(place)?.list()? {
                let id: String = image.id.trim_start_matches("sha256:").chars().take(12).collect();
                for name in image.tags.iter().chain(&image.digests) {
                    println!("{name:<56} {id:<14} {:>10}", megabytes(image.size));
                }
            }
        }
        ImageCommand::Rm { name, place } => {
            let store = open(place)?;
            if !store.remove(name).with_context(|| format!("cannot remove {name}"))? {
                bail!("there is no image {name}: see `coracle image ls`");
            }
            store.collect_garbage().context("cannot delete layers that no image needs any more")?;
            println!("removed {name}");
        }
    }
    Ok(())
}

fn open(place: &PlaceArgs) -> Result<runtime::image::Store> {
    let root = Place::new(place)?.runtime_root();
    runtime::image::Store::open(&root)
        .with_context(|| format!("cannot open the images in {}", root.display()))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

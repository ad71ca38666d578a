//! `coracle image`: the images of the embedded runtime. Works while a server runs, and without one.

use anyhow::{Context, Result};

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
            let store = open(place)?;
            let names = store.import(file).with_context(|| format!("cannot import {}", file.display()))?;
            for name in names {
                println!("imported {name}");
            }
        }
        ImageCommand::Ls { place } => {
            println!("{:<56} {:<14} {:>10}", "NAME", "ID", "SIZE");
            for image in open(place)?.list()? {
                let id = image.id.trim_start_matches("sha256:");
                println!("{:<56} {:<14} {:>10}", image.name, &id[..id.len().min(12)], megabytes(image.size));
            }
        }
        ImageCommand::Rm { name, place } => {
            open(place)?.remove(name).with_context(|| format!("cannot remove {name}"))?;
            println!("removed {name}");
        }
    }
    Ok(())
}

fn open(place: &PlaceArgs) -> Result<runtime::image::Store> {
    let root = Place::new(place)?.runtime_root();
    runtime::image::Store::open(&root).with_context(|| format!("cannot open the images in {}", root.display()))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

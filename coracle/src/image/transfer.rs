//! Images from registries and archives, and back.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use runtime::image::pull::{self, progress::Progress, progress::State};
use runtime::image::{Image, ImageError, Platform, Puller, Reference, Store};
use tokio::sync::watch;

use super::args::RegistryArgs;
use super::show::find;
use super::text::{familiar, short, size};

/// How often the terminal shows how far a pull is.
const REDRAW: Duration = Duration::from_millis(100);

/// Fetches images one after another, showing how far it is.
pub(super) fn pull(
    store: Store,
    names: &[String],
    platform: Option<Platform>,
    quiet: bool,
    registry: &RegistryArgs,
) -> Result<()> {
    let puller = Puller::new(store, registry.settings());
    executor()?.block_on(async {
        for name in names {
            let reference = Reference::parse(name).map_err(told)?;
            let before = puller.store().find(&reference.to_string()).map_err(told)?;
            let (progress, watched) = watch::channel(Progress::default());
            let options = pull::Options {
                registry: registry.options()?,
                platform: platform.clone(),
                progress: (!quiet).then_some(progress),
            };
            let mut display = Display::default();
            let pulling = puller.pull(&reference, &options);
            tokio::pin!(pulling);
            let image = loop {
                tokio::select! {
                    pulled = &mut pulling => break pulled,
                    () = tokio::time::sleep(REDRAW) => display.show(&watched.borrow())?,
                }
            };
            display.show(&watched.borrow())?;
            let image = image.map_err(told)?;
            if !quiet {
                let is_new = before.is_none_or(|before| before.id != image.id);
                let what = if is_new { "Downloaded newer image" } else { "Image is up to date" };
                if let Some(digest) = image.digests.iter().find_map(|name| name.split_once('@')) {
                    println!("Digest: {}", digest.1);
                }
                println!("Status: {what} for {}", familiar(&reference.to_string()));
            }
            println!("{reference}");
        }
        Ok(())
    })
}

/// Brings an image to a registry.
pub(super) fn push(store: Store, name: &str, to: Option<&str>, registry: &RegistryArgs) -> Result<()> {
    let image = find(&store, name)?;
    let to = Reference::parse(to.unwrap_or(name)).map_err(told)?;
    let puller = Puller::new(store, registry.settings());
    let pushed = executor()?.block_on(puller.push(&image, &to, &registry.options()?)).map_err(told)?;
    println!(
        "{to}: digest: {} ({} blobs sent, {} linked, {} were there)",
        pushed.digest, pushed.sent, pushed.linked, pushed.existed
    );
    Ok(())
}

/// Imports an archive, from a file or the standard input.
pub(super) fn import(store: &Store, file: &Path, name: Option<&str>) -> Result<Vec<Image>> {
    let images = if file == Path::new("-") {
        store.import_stream(io::stdin().lock(), name)
    } else {
        let archive = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
        store.import(archive, name)
    };
    images.map_err(told).with_context(|| format!("cannot import {}", file.display()))
}

/// Writes images into an archive, to a file or the standard output.
pub(super) fn export(store: &Store, names: &[String], file: Option<&Path>) -> Result<()> {
    let mut images: Vec<(Image, Vec<Reference>)> = Vec::new();
    for name in names {
        let image = find(store, name)?;
        // An id names no name, so that all of the image's tags go along.
        let by_name =
            Reference::parse(name).ok().filter(|name| image.names().any(|known| *known == name.to_string()));
        let given = match by_name {
            Some(name) => vec![name],
            None => image.tags.iter().filter_map(|tag| Reference::parse(tag).ok()).collect(),
        };
        match images.iter_mut().find(|(known, _)| known.id == image.id) {
            Some((_, names)) => names.extend(given),
            None => images.push((image, given)),
        }
    }
    let Some(file) = file.filter(|file| *file != Path::new("-")) else {
        let out = io::stdout().lock();
        if out.is_terminal() {
            return Err(anyhow!(
                "this is no text for a terminal: give a file with -o, or redirect the output"
            ));
        }
        return store.export(&images, out).map_err(told);
    };
    let write = || -> Result<()> {
        let out = File::create(file)?;
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("gz" | "tgz") => store.export_gzip(&images, out).map_err(told),
            Some("zst" | "zstd") => store.export_zstd(&images, out).map_err(told),
            _ => store.export(&images, out).map_err(told),
        }
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}

/// An error of the image store with all its causes; anyhow would print them a second time.
pub(super) fn told(error: ImageError) -> anyhow::Error {
    anyhow!("{}", error.chain())
}

fn executor() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Shows layers as docker does: on a terminal a line each, which changes; elsewhere a line when one is done.
#[derive(Default)]
struct Display {
    drawn: usize,
    told: Vec<bool>,
}

impl Display {
    fn show(&mut self, progress: &Progress) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if out.is_terminal() {
            if self.drawn > 0 {
                write!(out, "\x1b[{}A", self.drawn)?;
            }
            for layer in &progress.layers {
                writeln!(out, "\x1b[2K{}: {}", short(&layer.digest), state(layer))?;
            }
            self.drawn = progress.layers.len();
        } else {
            self.told.resize(progress.layers.len(), false);
            for (layer, told) in progress.layers.iter().zip(&mut self.told) {
                if !*told && matches!(layer.state, State::Done | State::Present) {
                    writeln!(out, "{}: {}", short(&layer.digest), state(layer))?;
                    *told = true;
                }
            }
        }
        out.flush()
    }
}

/// Where a layer stands, in docker's words.
fn state(layer: &pull::progress::Layer) -> String {
    match layer.state {
        State::Waiting => "Waiting".to_owned(),
        State::Downloading => {
            let done = (layer.received * 40).checked_div(layer.size).unwrap_or(40).min(40) as usize;
            let bar = format!("{}>{}", "=".repeat(done), " ".repeat(40 - done));
            format!("Downloading [{bar}]  {}/{}", size(layer.received), size(layer.size))
        }
        State::Unpacking => "Extracting".to_owned(),
        State::Done => "Pull complete".to_owned(),
        State::Present => "Already exists".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_on_its_way_has_a_bar() {
        let mut layer = pull::progress::Layer {
            digest: "sha256:aa".to_owned(),
            size: 2_000_000,
            received: 1_000_000,
            state: State::Downloading,
        };
        let bar = format!("Downloading [{}>{}]  1MB/2MB", "=".repeat(20), " ".repeat(20));
        assert_eq!(state(&layer), bar);
        layer.state = State::Present;
        assert_eq!(state(&layer), "Already exists");
    }
}

//! `coracle image`: the images of the embedded runtime. Works while a server runs, and without one.
//!
//! [`args`] says what can be said, [`show`] tells what is there, [`transfer`] brings images and takes them away.

mod args;
mod show;
mod text;
mod transfer;

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use runtime::image::{Image, Reference, Store};

pub(crate) use args::ImageCommand;
use show::{Listing, find};
use transfer::told;

use crate::{checks, cli::PlaceArgs, settings::Place};

/// Carries out one of the image commands.
pub(crate) fn run(command: &ImageCommand) -> Result<()> {
    checks::root("working on images")?;
    match command {
        ImageCommand::Pull { names, platform, quiet, registry, place } => {
            transfer::pull(open(place)?, names, platform.clone(), *quiet, registry)
        }
        ImageCommand::Push { name, to, registry, place } => {
            transfer::push(open(place)?, name, to.as_deref(), registry)
        }
        ImageCommand::Ls { name, digests, no_trunc, quiet, output, place } => {
            let (digests, no_trunc, quiet, output) = (*digests, *no_trunc, *quiet, output.output);
            let listing = Listing { name: name.as_deref(), digests, no_trunc, quiet, output };
            print(&show::list(&open(place)?, &listing)?)
        }
        ImageCommand::Inspect { names, place } => {
            let store = open(place)?;
            let inspect = |name: &String| show::inspect(&store, &find(&store, name)?);
            let all = names.iter().map(inspect).collect::<Result<Vec<_>>>()?;
            print(&format!("{}\n", serde_json::to_string_pretty(&all)?))
        }
        ImageCommand::History { name, no_trunc, output, place } => {
            let store = open(place)?;
            print(&show::history(&store, &find(&store, name)?, *no_trunc, output.output)?)
        }
        ImageCommand::Tag { name, new_name, place } => {
            let store = open(place)?;
            let new_name = Reference::parse(new_name).map_err(told)?;
            store.tag(&find(&store, name)?, &new_name).map_err(told)
        }
        ImageCommand::Rm { names, force, place } => {
            let store = open(place)?;
            names.iter().try_for_each(|name| remove(&store, name, *force))?;
            store.collect_garbage().context("cannot delete layers that no image needs any more")
        }
        ImageCommand::Import { files, name, place } => {
            let store = open(place)?;
            for file in files {
                for image in transfer::import(&store, file, name.as_deref())? {
                    println!("imported {}", image.tags.join(", "));
                }
            }
            Ok(())
        }
        ImageCommand::Load { input, place } => {
            let file = input.as_deref().unwrap_or(Path::new("-"));
            for image in transfer::import(&open(place)?, file, None)? {
                image.tags.iter().for_each(|tag| println!("Loaded image: {}", text::familiar(tag)));
            }
            Ok(())
        }
        ImageCommand::Export { file, names, place } => transfer::export(&open(place)?, names, Some(file)),
        ImageCommand::Save { names, output, place } => {
            transfer::export(&open(place)?, names, output.as_deref())
        }
        ImageCommand::Prune { all, force, place } => prune(&open(place)?, *all, *force),
        ImageCommand::Df { output, place } => print(&show::usage(&open(place)?, output.output)?),
    }
}

/// Takes a name away, and the image with its last name.
fn remove(store: &Store, name: &str, force: bool) -> Result<()> {
    let image = find(store, name)?;
    let goes = removed_names(&image, name);
    let is_last = goes.len() == image.names().count();
    let users = store.containers_by_image()?.remove(&image.id).unwrap_or_default();
    if is_last && !users.is_empty() && !force {
        bail!(
            "cannot remove {name}: {} made of it, such as {}; force it with -f, the containers go on",
            if users.len() == 1 {
                "a container is".to_owned()
            } else {
                format!("{} containers are", users.len())
            },
            text::short(&users[0]),
        );
    }
    for name in goes {
        store.remove(&name).with_context(|| format!("cannot remove {name}"))?;
        println!("Untagged: {}", text::familiar(&name));
    }
    if is_last {
        println!("Deleted: {}", image.id);
    }
    Ok(())
}

/// The names that go when this one is to go. A repository's digest goes with its last tag, and an image with its own.
fn removed_names(image: &Image, name: &str) -> Vec<String> {
    let by_name = Reference::parse(name).map(|name| name.to_string()).unwrap_or_default();
    let is_name = image.names().any(|known| *known == by_name);
    let rest: Vec<&String> = image.tags.iter().filter(|tag| **tag != by_name).collect();
    if !is_name || rest.is_empty() {
        return image.names().cloned().collect();
    }
    let repository = |name: &str| text::parts(name).0;
    let gone = repository(&by_name);
    let mut going = vec![by_name];
    if !rest.iter().any(|tag| repository(tag) == gone) {
        let digests =
            image.digests.iter().filter(|digest| repository(digest) == gone && **digest != going[0]);
        let digests: Vec<String> = digests.cloned().collect();
        going.extend(digests);
    }
    going
}

fn prune(store: &Store, all: bool, force: bool) -> Result<()> {
    if !force && io::stdin().is_terminal() {
        let which = if all { "all images that no container uses" } else { "all images without a tag" };
        print!("This will remove {which}, and unfinished downloads. Are you sure? [y/N] ");
        io::stdout().flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
    }
    let collected = store.prune(all)?;
    for name in &collected.removed {
        println!("Untagged: {}", text::familiar(name));
    }
    println!("Total reclaimed space: {}", text::size(collected.bytes));
    Ok(())
}

/// Prints, and is content when nobody reads on.
fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

fn open(place: &PlaceArgs) -> Result<Store> {
    let root = Place::new(place)?.runtime_root();
    Store::open(&root).with_context(|| format!("cannot open the images in {}", root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(tags: &[&str], digests: &[&str]) -> Image {
        let full = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Image {
            id: "sha256:1".to_owned(),
            tags: full(tags),
            digests: full(digests),
            size: 0,
            layer_sizes: Vec::new(),
            imported_at: jiff::Timestamp::UNIX_EPOCH,
            last_used_at: jiff::Timestamp::UNIX_EPOCH,
            pinned: false,
            imported: false,
            manifest: None,
            config: Default::default(),
        }
    }

    #[test]
    fn an_image_goes_with_its_last_tag_and_a_digest_with_its_repositorys() {
        let digest = format!("a.local/web@sha256:{}", "a".repeat(64));
        let one = image(&["a.local/web:1"], &[&digest]);
        assert_eq!(removed_names(&one, "a.local/web:1"), ["a.local/web:1", &digest]);
        let two = image(&["a.local/web:1", "b.local/web:1"], &[&digest]);
        assert_eq!(removed_names(&two, "a.local/web:1"), ["a.local/web:1", &digest]);
        assert_eq!(removed_names(&two, "b.local/web:1"), ["b.local/web:1"]);
        assert_eq!(removed_names(&two, &digest), std::slice::from_ref(&digest));
        assert_eq!(removed_names(&two, "sha256:1").len(), 3, "by its id an image goes with all names");
    }
}

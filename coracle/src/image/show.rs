//! What is known of images, for people and for programs.

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use runtime::image::{Image, Reference, Store};
use serde_json::{Value, json};

use super::args::Output;
use super::text::{ago, familiar, parts, short, size, table};

/// How a list is wanted.
pub(super) struct Listing<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) digests: bool,
    pub(super) no_trunc: bool,
    pub(super) quiet: bool,
    pub(super) output: Output,
}

/// The images, newest first.
pub(super) fn list(store: &Store, listing: &Listing) -> Result<String> {
    let mut images = store.list()?;
    if let Some(name) = listing.name {
        images.retain(|image| is_meant(image, name));
    }
    let created = |image: &Image| created(store, image);
    images.sort_by_cached_key(|image| {
        (std::cmp::Reverse(created(image)), image.tags.clone(), image.id.clone())
    });
    if listing.output == Output::Json {
        let all: Vec<Value> = images.iter().map(|image| summary(store, image)).collect();
        return Ok(format!("{}\n", serde_json::to_string_pretty(&all)?));
    }
    let id = |image: &Image| if listing.no_trunc { image.id.clone() } else { short(&image.id) };
    if listing.quiet {
        return Ok(images.iter().map(|image| id(image) + "\n").collect());
    }
    let now = Timestamp::now();
    let mut rows = Vec::new();
    for image in &images {
        for (repository, tag, digest) in names(image) {
            let mut row = vec![repository, tag];
            if listing.digests {
                row.push(digest);
            }
            let age = created(image).map_or_else(|| "N/A".to_owned(), |then| ago(then, now));
            row.extend([id(image), age, size(image.size)]);
            rows.push(row);
        }
    }
    let header: &[&str] = if listing.digests {
        &["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"]
    } else {
        &["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]
    };
    Ok(table(header, &rows))
}

/// All that is known of an image, in docker's words.
pub(super) fn inspect(store: &Store, image: &Image) -> Result<Value> {
    let config = configuration(store, image)?;
    let familiar_names =
        |names: &[String]| names.iter().map(|name| familiar(name).to_owned()).collect::<Vec<_>>();
    Ok(json!({
        "Id": image.id,
        "RepoTags": familiar_names(&image.tags),
        "RepoDigests": familiar_names(&image.digests),
        "Created": config["created"],
        "Author": config["author"],
        "Architecture": config["architecture"],
        "Variant": config["variant"],
        "Os": config["os"],
        "Size": image.size,
        "Config": config["config"],
        "RootFS": { "Type": "layers", "Layers": image.config.rootfs.diff_ids },
        "Metadata": {
            "ImportedAt": image.imported_at.to_string(),
            "LastUsedAt": image.last_used_at.to_string(),
            "Pinned": image.pinned,
            "Manifest": image.manifest,
        },
    }))
}

/// How an image was made, the last step first.
pub(super) fn history(store: &Store, image: &Image, no_trunc: bool, output: Output) -> Result<String> {
    let config = configuration(store, image)?;
    let steps = config["history"].as_array().cloned().unwrap_or_default();
    // Steps that only changed settings have no layer.
    let mut sizes = image.layer_sizes.iter();
    let mut with_sizes: Vec<(Value, u64)> = steps
        .into_iter()
        .map(|step| {
            let layered = !step["empty_layer"].as_bool().unwrap_or(false);
            let bytes = if layered { sizes.next().copied().unwrap_or(0) } else { 0 };
            (step, bytes)
        })
        .collect();
    with_sizes.reverse();
    if output == Output::Json {
        let all: Vec<Value> = with_sizes
            .iter()
            .map(|(step, bytes)| {
                json!({ "Created": step["created"], "CreatedBy": step["created_by"], "Size": bytes, "Comment": step["comment"] })
            })
            .collect();
        return Ok(format!("{}\n", serde_json::to_string_pretty(&all)?));
    }
    let now = Timestamp::now();
    let rows = with_sizes.iter().enumerate().map(|(number, (step, bytes))| {
        let text = |key: &str| step[key].as_str().unwrap_or_default().replace(['\n', '\t'], " ");
        let age = text("created").parse().map_or_else(|_| "N/A".to_owned(), |then| ago(then, now));
        let id = match (number, no_trunc) {
            (0, true) => image.id.clone(),
            (0, false) => short(&image.id),
            _ => "<missing>".to_owned(),
        };
        let command = text("created_by");
        let command = if no_trunc || command.chars().count() <= 45 {
            command
        } else {
            command.chars().take(44).chain(['…']).collect()
        };
        vec![id, age, command, size(*bytes), text("comment")]
    });
    Ok(table(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"], &rows.collect::<Vec<_>>()))
}

/// How much disk is used for what.
pub(super) fn usage(store: &Store, output: Output) -> Result<String> {
    let shares = store.shares()?;
    if output == Output::Json {
        let all: Vec<Value> = shares
            .iter()
            .map(|(kind, share)| {
                json!({ "Type": kind, "TotalCount": share.total, "Active": share.active, "Size": share.bytes,
                    "Reclaimable": share.reclaimable })
            })
            .collect();
        return Ok(format!("{}\n", serde_json::to_string_pretty(&all)?));
    }
    let rows = shares.iter().map(|(kind, share)| {
        let percent = (share.reclaimable * 100).checked_div(share.bytes).unwrap_or(0);
        let reclaimable = format!("{} ({percent}%)", size(share.reclaimable));
        let counts = [share.total, share.active].map(|count| count.to_string());
        [vec![(*kind).to_owned()], counts.to_vec(), vec![size(share.bytes), reclaimable]].concat()
    });
    Ok(table(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"], &rows.collect::<Vec<_>>()))
}

/// The image of this name or id.
pub(super) fn find(store: &Store, name: &str) -> Result<Image> {
    let found = store.find(name).with_context(|| format!("cannot look for {name}"))?;
    match found {
        Some(image) => Ok(image),
        None => bail!("there is no image {name}: see `coracle image ls`"),
    }
}

/// Docker's table has a line for each tag, with the digest of the same repository; what has no tag is `<none>`.
fn names(image: &Image) -> Vec<(String, String, String)> {
    let none = || "<none>".to_owned();
    let digests: Vec<(String, String)> = image.digests.iter().map(|name| parts(name)).collect();
    let digest_in = |repository: &str| {
        let found = digests.iter().find(|(other, _)| other == repository);
        found.map_or_else(none, |(_, digest)| digest.clone())
    };
    if image.tags.is_empty() {
        let untagged =
            digests.iter().map(|(repository, digest)| (repository.clone(), none(), digest.clone()));
        return untagged.collect();
    }
    let tagged = image.tags.iter().map(|name| parts(name));
    tagged.map(|(repository, tag)| (repository.clone(), tag, digest_in(&repository))).collect()
}

/// Whether a name, or a repository without tag, means this image.
fn is_meant(image: &Image, name: &str) -> bool {
    let Ok(asked) = Reference::parse(name) else { return false };
    let has_version = name.contains('@') || name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    image
        .names()
        .filter_map(|known| Reference::parse(known).ok())
        .any(|known| if has_version { known == asked } else { known.name() == asked.name() })
}

fn summary(store: &Store, image: &Image) -> Value {
    json!({
        "Id": image.id,
        "RepoTags": image.tags.iter().map(|name| familiar(name)).collect::<Vec<_>>(),
        "RepoDigests": image.digests.iter().map(|name| familiar(name)).collect::<Vec<_>>(),
        "Created": created(store, image).map(|then| then.to_string()),
        "Size": image.size,
        "LastUsedAt": image.last_used_at.to_string(),
        "Pinned": image.pinned,
    })
}

fn created(store: &Store, image: &Image) -> Option<Timestamp> {
    configuration(store, image).ok()?["created"].as_str()?.parse().ok()
}

fn configuration(store: &Store, image: &Image) -> Result<Value> {
    let content = store.read_blob(&image.id)?;
    serde_json::from_slice(&content).with_context(|| format!("the configuration {} is broken", image.id))
}

//! Files out of containers and into them: `ctr cp` and `ctr export`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use runtime::sys::open::{Links, is_directory, open_in, place_in, readable_directory};

use crate::args::{CpArgs, ExportArgs};
use crate::containers::Container;
use crate::place::Place;
use crate::root::Root;
use crate::tree::{self, Manner, Owner, Writer};

/// One side of a copy.
#[derive(Clone, Debug, PartialEq)]
enum Side {
    /// A path of a container.
    Container { name: String, path: PathBuf },
    /// A path of this machine.
    Here(PathBuf),
    /// A tar on standard input or output.
    Stream,
}

impl Side {
    /// `CONTAINER:PATH`, `-`, or a path; one with a colon in it has to begin with `/` or `.`.
    fn parse(text: &str) -> Side {
        if text == "-" {
            return Side::Stream;
        }
        match text.split_once(':') {
            Some((name, path)) if !text.starts_with(['/', '.']) && !name.is_empty() => {
                Side::Container { name: name.to_owned(), path: PathBuf::from(path) }
            }
            _ => Side::Here(PathBuf::from(text)),
        }
    }
}

/// `ctr cp`.
pub fn cp(place: &Place, args: &CpArgs) -> Result<()> {
    let owner = if args.archive { Owner::Kept } else { Owner::Root };
    match (Side::parse(&args.source), Side::parse(&args.target)) {
        (Side::Container { name, path }, Side::Here(target)) => {
            let root = open(place, &name)?;
            // Whose they are here depends on who asks, as with cp; root keeps them on request.
            copy(
                &Tree::new(root.directory, &path),
                &Tree::here(&target)?,
                args,
                Manner { owner, is_here: true },
            )
        }
        (Side::Here(source), Side::Container { name, path }) => {
            let source = Tree::here(&source)?;
            let root = open(place, &name)?;
            copy(&source, &Tree::new(root.directory, &path), args, Manner { owner, is_here: false })
        }
        (Side::Container { name, path }, Side::Stream) => {
            let root = open(place, &name)?;
            if io::stdout().is_terminal() {
                bail!("refusing to write a tar to the terminal: redirect standard output");
            }
            archive(&Tree::new(root.directory, &path), args)
        }
        (Side::Stream, Side::Container { name, path }) => {
            let root = open(place, &name)?;
            if !Tree::new(root.directory.try_clone()?, &path).is_directory()? {
                bail!("destination \"{name}:{}\" must be a directory", path.display());
            }
            tree::unpack(io::stdin().lock(), &root.directory, &absolute(&path), owner)
        }
        (Side::Container { .. }, Side::Container { .. }) => {
            bail!("copying between containers is not supported")
        }
        _ => bail!("must specify at least one container source"),
    }
}

fn open(place: &Place, name: &str) -> Result<Root> {
    Root::open(place, &Container::find(place, name)?)
}

fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

/// A path in a file tree.
struct Tree {
    root: OwnedFd,
    /// From the root.
    path: PathBuf,
    /// Whether the path was given with `/` or `/.` at its end.
    ends_with_slash: bool,
    /// Whether what is in the directory is meant, not the directory: `/.` at its end.
    is_content: bool,
}

impl Tree {
    fn new(root: OwnedFd, path: &Path) -> Tree {
        let text = path.as_os_str().as_encoded_bytes();
        let is_content = text.ends_with(b"/.") || text == b".";
        Tree { root, path: absolute(path), ends_with_slash: is_content || text.ends_with(b"/"), is_content }
    }

    fn here(path: &Path) -> Result<Tree> {
        let root = readable_directory(Path::new("/")).context("cannot open /")?;
        let whole = std::path::absolute(path).with_context(|| format!("cannot use {}", path.display()))?;
        Ok(Tree { path: whole, ..Tree::new(root, path) })
    }

    fn is_there(&self) -> bool {
        place_in(&self.root, &self.path, Links::InRoot).is_ok()
    }

    fn is_directory(&self) -> Result<bool> {
        match place_in(&self.root, &self.path, Links::InRoot) {
            Ok(place) => Ok(is_directory(place)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot look at {}", self.path.display())),
        }
    }

    /// The directory at the path.
    fn directory(&self) -> Result<OwnedFd> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        open_in(&self.root, &self.path, flags, 0, Links::InRoot)
            .with_context(|| format!("cannot open {}", self.path.display()))
    }

    /// The directory that the path's last name is in.
    fn parent(&self) -> Result<OwnedFd> {
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        open_in(&self.root, parent, libc::O_RDONLY | libc::O_DIRECTORY, 0, Links::InRoot)
            .with_context(|| format!("Could not find the directory {}", parent.display()))
    }

    fn name(&self) -> Option<&OsStr> {
        self.path.file_name()
    }
}

/// As docker does it: a file goes into a directory that is there or becomes what was named, a directory likewise.
fn copy(source: &Tree, target: &Tree, args: &CpArgs, manner: Manner) -> Result<()> {
    let source = followed(source, args.follow_link)?;
    if !is_at(&source)? {
        bail!("Could not find the file {} in the source", source.path.display());
    }
    let source_is_directory = source.is_directory()? && !is_link(&source)?;
    if target.is_directory()? {
        let into = target.directory()?;
        if source.is_content || source.name().is_none() {
            return tree::copy_content(&source.directory()?, &into, manner);
        }
        let name = source.name().context("the source has no name")?;
        return tree::copy(&source.parent()?, name, &into, name, manner);
    }
    if source_is_directory && target.is_there() {
        bail!("cannot copy directory: {} is a file", target.path.display());
    }
    if !source_is_directory && target.ends_with_slash {
        bail!("no such directory: {}", target.path.display());
    }
    let name = target.name().context("the target has no name")?;
    let parent = target.parent()?;
    match source.name() {
        Some(known) if !source.is_content => tree::copy(&source.parent()?, known, &parent, name, manner),
        // All of a tree, as a directory of another name.
        _ => {
            runtime::sys::open::make_directory_at(&parent, name, 0o755)?;
            tree::copy_content(&source.directory()?, &tree::enter(&parent, name)?, manner)
        }
    }
}

/// The tree with the path that its last name leads to, if that is wanted.
fn followed(tree: &Tree, follow: bool) -> Result<Tree> {
    let mut tree = Tree {
        root: tree.root.try_clone().context("cannot hold the tree")?,
        path: tree.path.clone(),
        ends_with_slash: tree.ends_with_slash,
        is_content: tree.is_content,
    };
    const MOST_LINKS: usize = 40;
    for _ in 0..MOST_LINKS {
        if !follow || !is_at(&tree)? || !is_link(&tree)? {
            return Ok(tree);
        }
        let name = tree.name().context("the source has no name")?;
        let target = PathBuf::from(nix::fcntl::readlinkat(tree.parent()?, name)?);
        tree.path = tree.path.parent().unwrap_or(Path::new("/")).join(target);
    }
    bail!("too many links at {}", tree.path.display())
}

fn is_at(tree: &Tree) -> Result<bool> {
    let Some(name) = tree.name() else { return Ok(true) };
    Ok(tree::status(tree.parent()?, name).is_ok())
}

fn is_link(tree: &Tree) -> Result<bool> {
    let Some(name) = tree.name() else { return Ok(false) };
    Ok(tree::kind(&tree::status(tree.parent()?, name)?) == libc::S_IFLNK)
}

/// Writes a tar of what is at a path.
fn archive(source: &Tree, args: &CpArgs) -> Result<()> {
    let source = followed(source, args.follow_link)?;
    if !is_at(&source)? {
        bail!("Could not find the file {} in container", source.path.display());
    }
    let mut writer = Writer::new(io::BufWriter::new(io::stdout().lock()));
    match source.name() {
        Some(name) if !source.is_content => writer.add(&source.parent()?, name, Path::new(name))?,
        _ => writer.add_content(&source.directory()?, Path::new(""))?,
    }
    writer.finish()?.flush().context("cannot write the archive")
}

/// `ctr export`.
pub fn export(place: &Place, args: &ExportArgs) -> Result<()> {
    let root = open(place, &args.container)?;
    let target: Box<dyn Write> = match &args.output {
        Some(path) => {
            Box::new(File::create(path).with_context(|| format!("cannot create {}", path.display()))?)
        }
        None if io::stdout().is_terminal() => {
            bail!("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        }
        None => Box::new(io::stdout().lock()),
    };
    let mut writer = Writer::of_one_file_system(io::BufWriter::new(target), &root.directory)?;
    writer.add_content(&root.directory, Path::new(""))?;
    writer.finish()?.flush().context("cannot write the archive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        let container = |name: &str, path: &str| Side::Container { name: name.into(), path: path.into() };
        assert_eq!(Side::parse("web:/etc/hosts"), container("web", "/etc/hosts"));
        assert_eq!(Side::parse("web:file"), container("web", "file"));
        assert_eq!(Side::parse("./a:b"), Side::Here("./a:b".into()));
        assert_eq!(Side::parse("/a:b"), Side::Here("/a:b".into()));
        assert_eq!(Side::parse("plain"), Side::Here("plain".into()));
        assert_eq!(Side::parse("-"), Side::Stream);
    }
}

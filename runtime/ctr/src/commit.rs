//! What a container has changed: `ctr diff`, and an image of it: `ctr commit`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::stat::FileStat;
use runtime::image::{Image, Store};
use runtime::sys::open::{Links, is_opaque, place_in, readable_directory};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::args::{CommitArgs, DiffArgs, Form};
use crate::containers::Container;
use crate::definition::Definition;
use crate::place::Place;
use crate::tree::{self, Writer};

/// Places that the runtime makes in every container, and nobody means.
const OURS: &[&str] = &["dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf"];

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Added,
    Changed,
    Deleted,
}

impl Change {
    fn letter(self) -> char {
        match self {
            Change::Added => 'A',
            Change::Changed => 'C',
            Change::Deleted => 'D',
        }
    }
}

/// A container's writable layer over those of its image.
struct Layers {
    upper: OwnedFd,
    lower: Vec<OwnedFd>,
}

impl Layers {
    fn open(images: &Store, container: &Container) -> Result<(Layers, Image)> {
        let image = images.find(&container.definition.image_id)?;
        let image = image.with_context(|| format!("No such image: {}", container.definition.image))?;
        let upper = readable_directory(&images.snapshot_path(container.id()).join("upper"));
        let upper = upper.context("cannot open the container's writable layer")?;
        let lower =
            images.layer_paths(&image).iter().map(|path| readable_directory(path)).collect::<io::Result<_>>();
        Ok((Layers { upper, lower: lower.context("cannot open the image's layers")? }, image))
    }

    /// Whether the image has something at a path: the topmost layer that says anything about it decides.
    fn image_has(&self, path: &Path) -> bool {
        for layer in &self.lower {
            if let Ok(place) = place_in(layer, path, Links::Refused) {
                return nix::sys::stat::fstat(place).is_ok_and(|status| !is_whiteout(&status));
            }
            // A directory of this layer may hide what is below it in others.
            let hides = path.ancestors().skip(1).any(|above| {
                place_in(layer, above, Links::Refused).is_ok_and(|place| {
                    let status = nix::sys::stat::fstat(&place);
                    status.is_ok_and(|status| is_whiteout(&status)) || is_opaque(&place).unwrap_or(false)
                })
            });
            if hides {
                return false;
            }
        }
        false
    }
}

/// Deleted, in overlayfs' own form.
fn is_whiteout(status: &FileStat) -> bool {
    tree::kind(status) == libc::S_IFCHR && status.st_rdev == 0
}

/// Hands every changed path to `act`, directories before what is in them.
fn walk(
    layers: &Layers,
    directory: &OwnedFd,
    at: &Path,
    act: &mut dyn FnMut(Change, &OwnedFd, &OsStr, &Path, &FileStat) -> Result<()>,
) -> Result<()> {
    for name in tree::names(directory).with_context(|| format!("cannot list {}", at.display()))? {
        let path = at.join(&name);
        let status =
            tree::status(directory, &name).with_context(|| format!("cannot read {}", path.display()))?;
        let is_directory = tree::kind(&status) == libc::S_IFDIR;
        let of_image = layers.image_has(&path);
        let is_ours = OURS.iter().any(|ours| Path::new(ours) == path) && !of_image;
        if is_ours {
            continue;
        }
        let change = match (is_whiteout(&status), of_image) {
            (true, true) => Change::Deleted,
            // What was made and deleted again was never there.
            (true, false) => continue,
            (false, true) => Change::Changed,
            (false, false) => Change::Added,
        };
        act(change, directory, &name, &path, &status)?;
        if is_directory {
            let inside =
                tree::enter(directory, &name).with_context(|| format!("cannot open {}", path.display()))?;
            walk(layers, &inside, &path, act)?;
        }
    }
    Ok(())
}

/// `ctr diff`.
pub fn diff(place: &Place, args: &DiffArgs) -> Result<()> {
    let container = Container::find(place, &args.container)?;
    let (layers, _) = Layers::open(&place.images()?, &container)?;
    let mut changes = Vec::new();
    walk(&layers, &layers.upper, Path::new(""), &mut |change, _, _, path, _| {
        changes.push((change, format!("/{}", path.display())));
        Ok(())
    })?;
    if args.format.form == Form::Json {
        let rows: Vec<Value> = changes
            .iter()
            .map(|(change, path)| json!({ "Kind": change.letter().to_string(), "Path": path }))
            .collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        changes.iter().for_each(|(change, path)| println!("{} {path}", change.letter()));
    }
    Ok(())
}

/// `ctr commit`.
pub fn commit(place: &Place, args: &CommitArgs) -> Result<()> {
    let container = Container::find(place, &args.container)?;
    let _turn = container.turn_or_gone()?;
    let name = args.image.clone().unwrap_or_else(|| format!("localhost/{}", container.name().to_lowercase()));
    // The layer is that of one moment, so everything stands still for it.
    let group = place.cgroup(container.id())?;
    let runs = container.status(place)?.word() == "running";
    if runs {
        group.freeze(true).context("cannot pause the container")?;
    }
    let packed = pack(place, &container);
    if runs {
        group.freeze(false).context("cannot unpause the container")?;
    }
    let (mut layer, diff_id, image) = packed?;
    layer.rewind().context("cannot read the new layer")?;
    let images = place.images()?;
    let config = configuration(&images, &image, &container.definition, args, &diff_id)?;
    let id = images.commit(&image, &mut layer, &diff_id, &serde_json::to_vec(&config)?, &name)?;
    println!("{id}");
    Ok(())
}

/// The writable layer as a tar, with its digest.
fn pack(place: &Place, container: &Container) -> Result<(File, String, Image)> {
    let (layers, image) = Layers::open(&place.images()?, container)?;
    let file = tempfile(place)?;
    let mut writer = Writer::new(Hashed { file, hash: Sha256::new() });
    walk(&layers, &layers.upper, Path::new(""), &mut |change, directory, name, path, status| {
        if change == Change::Deleted {
            return writer.add_marker(&whiteout(path), status);
        }
        writer.add_alone(directory, name, path, status)?;
        let hides =
            tree::kind(status) == libc::S_IFDIR && is_opaque(tree::enter(directory, name)?).unwrap_or(false);
        if hides && change == Change::Changed {
            writer.add_marker(&path.join(".wh..wh..opq"), status)
        } else {
            Ok(())
        }
    })?;
    let Hashed { file, hash } = writer.finish()?;
    Ok((file, format!("sha256:{}", hex::encode(hash.finalize())), image))
}

/// A file without a name: it goes with us.
fn tempfile(place: &Place) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let open =
        File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(&place.data);
    open.with_context(|| format!("cannot make a temporary file in {}", place.data.display()))
}

struct Hashed {
    file: File,
    hash: Sha256,
}

impl io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The new image's configuration: the base's, with what the container was told and what is asked for now.
fn configuration(
    images: &Store,
    image: &Image,
    definition: &Definition,
    args: &CommitArgs,
    diff_id: &str,
) -> Result<Value> {
    let base = images.configuration(image)?;
    let mut config: Value = serde_json::from_slice(&base).context("the image's configuration is broken")?;
    let execution = json_object(&mut config, "config");
    let env = definition.env.iter().map(|entry| format!("ENV {entry}"));
    let mut instructions: Vec<String> = env.collect();
    if let Some(user) = &definition.user {
        instructions.push(format!("USER {user}"));
    }
    if let Some(path) = &definition.workdir {
        instructions.push(format!("WORKDIR {path}"));
    }
    if let Some(program) = &definition.entrypoint {
        instructions.push(format!("ENTRYPOINT {}", json!([program])));
    }
    if !definition.args.is_empty() {
        instructions.push(format!("CMD {}", json!(definition.args)));
    }
    for instruction in instructions.iter().chain(&args.change) {
        change(execution, instruction)?;
    }
    let now = jiff::Timestamp::now().to_string();
    if let Value::Array(list) =
        json_object(&mut config, "rootfs").entry("diff_ids").or_insert_with(|| json!([]))
    {
        list.push(json!(diff_id));
    }
    let top = config.as_object_mut().context("the image's configuration is no object")?;
    if let Value::Array(history) = top.entry("history").or_insert_with(|| json!([])) {
        let words = definition.command.join(" ");
        history.push(
            json!({ "created": now, "author": args.author, "created_by": words, "comment": args.message }),
        );
    }
    top.insert("created".to_owned(), json!(now));
    if !args.author.is_empty() {
        top.insert("author".to_owned(), json!(args.author));
    }
    Ok(config)
}

fn json_object<'a>(value: &'a mut Value, name: &str) -> &'a mut serde_json::Map<String, Value> {
    if !value[name].is_object() {
        value[name] = json!({});
    }
    value[name].as_object_mut().expect("it was just made an object")
}

/// One of a Dockerfile's instructions on an image's settings.
fn change(execution: &mut serde_json::Map<String, Value>, instruction: &str) -> Result<()> {
    let (word, rest) = instruction.trim().split_once(char::is_whitespace).unwrap_or((instruction, ""));
    let rest = rest.trim();
    let words = || -> Value { serde_json::from_str(rest).unwrap_or_else(|_| json!(["/bin/sh", "-c", rest])) };
    let pair = |text: &str| -> Result<(String, String)> {
        let (name, value) = text
            .split_once('=')
            .or_else(|| text.split_once(char::is_whitespace))
            .with_context(|| format!("{word} must have two arguments: {rest}"))?;
        Ok((name.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
    };
    let set = |execution: &mut serde_json::Map<String, Value>, name: &str, key: String, value: Value| {
        if !execution.get(name).is_some_and(Value::is_object) {
            execution.insert(name.to_owned(), json!({}));
        }
        execution[name][key] = value;
    };
    match word.to_ascii_uppercase().as_str() {
        "CMD" => drop(execution.insert("Cmd".to_owned(), words())),
        "ENTRYPOINT" => drop(execution.insert("Entrypoint".to_owned(), words())),
        "USER" => drop(execution.insert("User".to_owned(), json!(rest))),
        "WORKDIR" => drop(execution.insert("WorkingDir".to_owned(), json!(rest))),
        "STOPSIGNAL" => drop(execution.insert("StopSignal".to_owned(), json!(rest))),
        "ENV" => {
            let (name, value) = pair(rest)?;
            let known = execution.entry("Env").or_insert_with(|| json!([]));
            let mut entries: Vec<String> = serde_json::from_value(known.take()).unwrap_or_default();
            entries.retain(|entry| entry.split('=').next() != Some(name.as_str()));
            entries.push(format!("{name}={value}"));
            *known = json!(entries);
        }
        "LABEL" => {
            let (name, value) = pair(rest)?;
            set(execution, "Labels", name, json!(value));
        }
        "EXPOSE" => {
            let port = if rest.contains('/') { rest.to_owned() } else { format!("{rest}/tcp") };
            set(execution, "ExposedPorts", port, json!({}));
        }
        "VOLUME" => set(execution, "Volumes", rest.to_owned(), json!({})),
        _ => bail!("{word} is not a valid change command"),
    }
    Ok(())
}

/// What hides a path in an image's layer.
fn whiteout(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".wh.");
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_images_settings() {
        let mut execution = serde_json::Map::new();
        execution.insert("Env".into(), json!(["A=1", "B=2"]));
        for instruction in [
            "ENV A=3",
            "CMD [\"sh\", \"-l\"]",
            "ENTRYPOINT run it",
            "USER web",
            "LABEL a=b",
            "EXPOSE 80",
            "WORKDIR /x",
        ] {
            change(&mut execution, instruction).unwrap();
        }
        assert_eq!(
            Value::Object(execution),
            json!({
                "Env": ["B=2", "A=3"], "Cmd": ["sh", "-l"], "Entrypoint": ["/bin/sh", "-c", "run it"], "User": "web",
                "Labels": {"a": "b"}, "ExposedPorts": {"80/tcp": {}}, "WorkingDir": "/x",
            })
        );
        let refused = change(&mut serde_json::Map::new(), "FROM x").unwrap_err();
        assert_eq!(refused.to_string(), "FROM is not a valid change command");
    }

    #[test]
    fn whiteouts_are_beside_what_they_hide() {
        assert_eq!(whiteout(Path::new("etc/passwd")), Path::new("etc/.wh.passwd"));
    }
}

//! The context `coracle` in the user's own kubeconfig; everything else in it stays as it is.

use std::{
    io::Write,
    os::unix::fs::{OpenOptionsExt, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_yaml::{Mapping, Value};

/// The name of our context, cluster and user.
pub(crate) const CONTEXT: &str = "coracle";

/// The lists of a kubeconfig, each with the key of its entries' contents.
const LISTS: [(&str, &str); 3] = [("clusters", "cluster"), ("users", "user"), ("contexts", "context")];

/// The kubeconfig of whoever called us: under sudo that of the user behind it.
pub(crate) fn user_file() -> Option<PathBuf> {
    let home = match std::env::var("SUDO_USER") {
        Ok(user) if !user.is_empty() => {
            nix::unistd::User::from_name(&user).ok().flatten().map(|user| user.dir)
        }
        _ => std::env::var_os("HOME").map(PathBuf::from),
    };
    home.map(|home| home.join(".kube/config"))
}

/// Puts the cluster of `source`, a kubeconfig with one context, into `file` as context [`CONTEXT`].
pub(crate) fn merge_into(file: &Path, source: &str) -> Result<()> {
    let present = read(file)?;
    write(file, &merged(present, serde_yaml::from_str(source).context("our own kubeconfig")?)?)
}

/// Takes context [`CONTEXT`] out of `file` again. Without the file there is nothing to do.
pub(crate) fn remove_from(file: &Path) -> Result<()> {
    let present = read(file)?;
    let without = removed(present.clone());
    if without == present { Ok(()) } else { write(file, &without) }
}

fn merged(mut into: Mapping, from: Mapping) -> Result<Mapping> {
    for (key, value) in [("apiVersion", "v1"), ("kind", "Config")] {
        into.entry(key.into()).or_insert_with(|| value.into());
    }
    into = removed(into);
    for (list, inner) in LISTS {
        let source = from.get(list).and_then(Value::as_sequence).and_then(|list| list.first());
        let mut contents = source.and_then(|entry| entry.get(inner)).cloned().unwrap_or_default();
        if list == "contexts" {
            contents["cluster"] = CONTEXT.into();
            contents["user"] = CONTEXT.into();
        }
        let mut entry = Mapping::new();
        entry.insert("name".into(), CONTEXT.into());
        entry.insert(inner.into(), contents);
        let target = into.entry(list.into()).or_insert_with(|| Value::Sequence(Vec::new()));
        if target.is_null() {
            *target = Value::Sequence(Vec::new());
        }
        let Some(target) = target.as_sequence_mut() else { bail!("{list} is not a list") };
        target.push(entry.into());
    }
    into.insert("current-context".into(), CONTEXT.into());
    Ok(into)
}

fn removed(mut config: Mapping) -> Mapping {
    for (list, _) in LISTS {
        if let Some(entries) = config.get_mut(list).and_then(Value::as_sequence_mut) {
            entries.retain(|entry| entry.get("name").and_then(Value::as_str) != Some(CONTEXT));
        }
    }
    if config.get("current-context").and_then(Value::as_str) == Some(CONTEXT) {
        config.insert("current-context".into(), "".into());
    }
    config
}

fn read(file: &Path) -> Result<Mapping> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Mapping::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    if text.trim().is_empty() {
        return Ok(Mapping::new());
    }
    serde_yaml::from_str(&text).with_context(|| format!("{} is not a kubeconfig", file.display()))
}

fn write(file: &Path, config: &Mapping) -> Result<()> {
    let text = serde_yaml::to_string(config)?;
    let dir = file.parent().unwrap_or(Path::new("/"));
    let owner =
        dir.parent().and_then(|home| nix::sys::stat::stat(home).ok()).map(|home| (home.st_uid, home.st_gid));
    let place = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let temporary = file.with_extension("coracle");
        let mut out = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        if let Some((user, group)) = owner {
            // The file belongs to whose home it is in, also when root writes it.
            chown(dir, Some(user), Some(group))?;
            chown(&temporary, Some(user), Some(group))?;
        }
        std::fs::rename(&temporary, file)
    };
    place().with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "
apiVersion: v1
kind: Config
clusters: [{name: x, cluster: {server: 'https://192.0.2.1:6443'}}]
users: [{name: y, user: {client-certificate-data: abc}}]
contexts: [{name: z, context: {cluster: x, user: y}}]
current-context: z
";
    const THEIRS: &str = "
apiVersion: v1
kind: Config
clusters: [{name: work, cluster: {server: 'https://work'}}]
users: [{name: me, user: {token: secret}}]
contexts: [{name: work, context: {cluster: work, user: me, namespace: shop}}]
current-context: work
preferences: {colors: true}
";

    fn yaml(text: &str) -> Mapping {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn our_context_joins_those_that_are_there_and_leaves_again() {
        let both = merged(yaml(THEIRS), yaml(OURS)).unwrap();
        assert_eq!(both["clusters"][0]["name"], "work");
        assert_eq!(both["contexts"][1]["name"], CONTEXT);
        assert_eq!(both["contexts"][1]["context"]["cluster"], CONTEXT);
        assert_eq!(both["current-context"], CONTEXT);
        assert_eq!(both["preferences"]["colors"], true);
        let again = merged(both.clone(), yaml(OURS)).unwrap();
        assert_eq!(again, both, "a second time changes nothing");
        let mut theirs = yaml(THEIRS);
        theirs.insert("current-context".into(), "".into());
        assert_eq!(removed(both), theirs);
    }

    #[test]
    fn an_empty_file_becomes_a_whole_kubeconfig() {
        let config = merged(Mapping::new(), yaml(OURS)).unwrap();
        assert_eq!(config["kind"], "Config");
        assert_eq!(config["users"][0]["user"]["client-certificate-data"], "abc");
    }
}

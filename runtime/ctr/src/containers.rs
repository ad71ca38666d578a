//! The folders of containers: finding them, their names, their locks.
//!
//! ```text
//! containers/<id>/container.json   what it was asked to be
//! containers/<id>/past.json        what became of it the last time
//! containers/<id>/container.log    what it wrote, in CRI's format
//! containers/<id>/hosts            its /etc/hosts
//! containers/<id>/lock             held by whoever changes something about it
//! names/<name>                     the id of who has it
//! volumes/<name>/                  volumes
//! ```
//!
//! A container is there when `container.json` is: folder and name come before it, and go after it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use runtime::shim::protocol::{Exit, Started, read_json, write_json};

use crate::definition::{Definition, Past, Status};
use crate::place::Place;

/// The file in a container's folder that its log is written to.
pub const LOG: &str = "container.log";

/// A container that is there.
#[derive(Clone, Debug)]
pub struct Container {
    /// What it was asked to be.
    pub definition: Definition,
    folder: PathBuf,
}

/// The right to change a container; given back when it is dropped, or its process dies.
pub struct Turn {
    _lock: Flock<File>,
}

impl Container {
    /// The container of this name or id, or whose id begins like this.
    pub fn find(place: &Place, name: &str) -> Result<Container> {
        let missing = || anyhow::anyhow!("No such container: {name}");
        if let Some(id) = holder(place, name)?
            && let Some(container) = Container::load(place, &id)?
        {
            return Ok(container);
        }
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let ids = ids(place)?;
        let mut matching = ids.iter().filter(|id| id.starts_with(name));
        let first = matching.next().ok_or_else(missing)?;
        if matching.next().is_some() {
            bail!("Multiple IDs found with provided prefix: {name}");
        }
        Container::load(place, first)?.ok_or_else(missing)
    }

    /// The container with this id; `None` when it is not there, or not yet.
    pub fn load(place: &Place, id: &str) -> Result<Option<Container>> {
        let folder = place.containers().join(id);
        let definition = read_json(&folder.join("container.json"))
            .with_context(|| format!("cannot read container {id}"))?;
        Ok(definition.map(|definition| Container { definition, folder }))
    }

    /// All that are there, the newest first.
    pub fn all(place: &Place) -> Result<Vec<Container>> {
        let mut all = Vec::new();
        for id in ids(place)? {
            all.extend(Container::load(place, &id)?);
        }
        all.sort_by_key(|container| std::cmp::Reverse(container.definition.created_at));
        Ok(all)
    }

    /// Makes a container of a definition whose folder and name are taken.
    pub fn create(place: &Place, definition: Definition) -> Result<Container> {
        let folder = place.containers().join(&definition.id);
        let container = Container { definition, folder };
        container.save()?;
        Ok(container)
    }

    /// Writes what it was asked to be.
    pub fn save(&self) -> Result<()> {
        write_json(&self.folder.join("container.json"), &self.definition)
            .context("cannot record the container")
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.definition.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it has written.
    pub fn log(&self) -> PathBuf {
        self.folder.join(LOG)
    }

    /// Its `/etc/hosts`.
    pub fn hosts(&self) -> PathBuf {
        self.folder.join("hosts")
    }

    /// What became of it the last time.
    pub fn past(&self) -> Result<Option<Past>> {
        read_json(&self.folder.join("past.json")).context("cannot read what became of the container")
    }

    /// Records what became of it.
    pub fn set_past(&self, past: &Past) -> Result<()> {
        write_json(&self.folder.join("past.json"), past).context("cannot record what became of the container")
    }

    /// Waits until nobody else changes it. `None` when it is gone then.
    pub fn turn(&self) -> Result<Option<Turn>> {
        let Some(lock) = lock(&self.folder, FlockArg::LockExclusive)? else { return Ok(None) };
        // Whoever had the turn before may have removed it, or renamed it.
        Ok(self.folder.join("container.json").exists().then_some(Turn { _lock: lock }))
    }

    /// As [`Container::turn`], where a container that is gone is a failure.
    pub fn turn_or_gone(&self) -> Result<Turn> {
        self.turn()?.with_context(|| format!("No such container: {}", self.name()))
    }

    /// Where it stands.
    pub fn status(&self, place: &Place) -> Result<Status> {
        let directory = place.pod(self.id()).container(self.id());
        let started: Option<Started> = read_json(&directory.started())?;
        let exit: Option<Exit> = read_json(&directory.exit())?;
        let past = self.past()?;
        let starts = past.as_ref().map_or(0, |past| past.starts);
        match (started, exit) {
            (Some(started), None) if shim_is_alive(place, self.id()) => {
                let paused = place.cgroup(self.id())?.is_frozen();
                Ok(Status::Running { pid: started.pid, since: started.at, paused })
            }
            (started, Some(exit)) => {
                Ok(Status::Exited(past_of(starts, started.map(|started| started.at), &exit)))
            }
            // A machine that went down, or a shim that was killed: nobody saw the end.
            (_, None) => Ok(match past {
                None => Status::Created,
                Some(past) if past.finished_at.is_some() || past.started_at.is_none() => Status::Exited(past),
                Some(past) => Status::Exited(Past { exit_code: 255, ..past }),
            }),
        }
    }
}

/// An end as it is kept.
pub fn past_of(starts: u32, started_at: Option<jiff::Timestamp>, exit: &Exit) -> Past {
    Past {
        started_at,
        finished_at: Some(exit.at),
        exit_code: exit.code,
        out_of_memory: exit.reason == "OOMKilled",
        error: exit.message.clone(),
        starts,
    }
}

/// Whether a shim listens.
pub fn shim_is_alive(place: &Place, id: &str) -> bool {
    runtime::shim::connect(&place.pod(id)).is_ok()
}

/// The ids of all folders, be their containers there or half made.
pub fn ids(place: &Place) -> Result<Vec<String>> {
    entries(&place.containers())
}

/// The names of what is in a folder; nothing when it is not there.
pub fn entries(folder: &Path) -> Result<Vec<String>> {
    let list = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    };
    match list() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result.with_context(|| format!("cannot list {}", folder.display())),
    }
}

/// Makes the folder of a container to be, and takes its first turn. Before that is taken, another command may hold
/// the folder for one that was left behind, and remove it: it is made again then.
pub fn reserve(place: &Place, id: &str) -> Result<Turn> {
    const ATTEMPTS: u32 = 100;
    let folder = place.containers().join(id);
    for _ in 0..ATTEMPTS {
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        if let Some(lock) = lock(&folder, FlockArg::LockExclusive)?
            && is_still_there(&lock, &folder)?
        {
            return Ok(Turn { _lock: lock });
        }
    }
    bail!("{} is removed again and again", folder.display())
}

/// Whether the lock is that of the folder, and not of one that was removed while it was waited for.
fn is_still_there(lock: &File, folder: &Path) -> Result<bool> {
    let held = lock.metadata().context("cannot look at the container's lock")?.ino();
    match fs::metadata(folder.join("lock")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => Ok(found.context("cannot look at the container's lock")?.ino() == held),
    }
}

/// Takes the turn of a folder that nobody is at; `None` while somebody is.
pub fn idle_turn(place: &Place, id: &str) -> Result<Option<Turn>> {
    let lock = lock(&place.containers().join(id), FlockArg::LockExclusiveNonblock)?;
    Ok(lock.map(|lock| Turn { _lock: lock }))
}

/// `None` when the folder is gone, or somebody else has the lock and waiting is not wanted.
fn lock(folder: &Path, how: FlockArg) -> Result<Option<Flock<File>>> {
    let path = folder.join("lock");
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = match open {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.with_context(|| format!("cannot open {}", path.display()))?,
    };
    match Flock::lock(file, how) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Gives a name to an id, unless another has it.
pub fn take_name(place: &Place, name: &str, id: &str) -> Result<()> {
    check_name(name)?;
    let folder = place.names();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // A name appears with its holder's id in it, or not at all.
    let temporary = folder.join(format!(".{id}"));
    let write = || File::create(&temporary)?.write_all(id.as_bytes());
    write().with_context(|| format!("cannot write {}", temporary.display()))?;
    let linked = fs::hard_link(&temporary, folder.join(name));
    fs::remove_file(&temporary).with_context(|| format!("cannot remove {}", temporary.display()))?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let holder = holder(place, name)?.unwrap_or_default();
            bail!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to \
                 remove (or rename) that container to be able to reuse that name."
            )
        }
        result => result.with_context(|| format!("cannot take the name {name}")),
    }
}

/// Gives a name back, if this id has it.
pub fn give_name_back(place: &Place, name: &str, id: &str) -> Result<()> {
    if holder(place, name)?.as_deref() != Some(id) {
        return Ok(());
    }
    match fs::remove_file(place.names().join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot give the name {name} back"))
        }
        _ => Ok(()),
    }
}

/// Who has a name.
pub fn holder(place: &Place, name: &str) -> Result<Option<String>> {
    if check_name(name).is_err() {
        return Ok(None);
    }
    match fs::read_to_string(place.names().join(name)) {
        Ok(id) => Ok(Some(id)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read who has the name {name}")),
    }
}

/// Docker's rule for names.
pub fn check_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let begins = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let goes_on = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if begins && goes_on && (2..=128).contains(&name.len()) {
        return Ok(());
    }
    bail!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_rule() {
        for name in ["web", "a1", "web_1.test-2", "0a"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "a", "-web", ".web", "a b", "a/b", "../x", "wéb"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}

//! What happened to containers, kept until it is on disk, from where any server can collect it.
//!
//! A disk may be full, or lame: the container's life goes on, its record is tried again, and a server that asks
//! meanwhile is told.

use std::collections::BTreeMap;
use std::io;

use super::protocol::{ContainerDirectory, Exit, Life, PodDirectory, Started, write_json};

/// The record of all containers of the pod.
pub struct Ledger {
    directory: PodDirectory,
    unsaved: BTreeMap<String, Life>,
}

impl Ledger {
    /// Of a pod whose containers have not begun.
    pub fn new(directory: PodDirectory) -> Ledger {
        Ledger { directory, unsaved: BTreeMap::new() }
    }

    /// A container has begun; why that could not be written down yet, if so.
    pub fn started(&mut self, container: &str, started: Started) -> io::Result<()> {
        self.unsaved.entry(container.to_owned()).or_default().started = Some(started);
        self.save()
    }

    /// A container has ended.
    pub fn ended(&mut self, container: &str, exit: Exit) -> io::Result<()> {
        self.unsaved.entry(container.to_owned()).or_default().exit = Some(exit);
        self.save()
    }

    /// What no disk has taken yet.
    pub fn unsaved(&self) -> &BTreeMap<String, Life> {
        &self.unsaved
    }

    /// Writes what is not written yet; tells why the first that failed did.
    pub fn save(&mut self) -> io::Result<()> {
        let mut outcome = Ok(());
        self.unsaved.retain(|container, life| {
            let saved = save(&self.directory.container(container), life);
            let is_unsaved = saved.is_err();
            if outcome.is_ok() {
                outcome = saved;
            }
            is_unsaved
        });
        outcome
    }
}

fn save(directory: &ContainerDirectory, life: &Life) -> io::Result<()> {
    let write = || {
        life.started.iter().try_for_each(|started| write_json(&directory.started(), started))?;
        life.exit.iter().try_for_each(|exit| write_json(&directory.exit(), exit))
    };
    match write() {
        // A container that was removed meanwhile has nobody who would ask.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::Timestamp;

    use super::*;
    use crate::shim::protocol::read_json;

    #[test]
    fn what_the_disk_did_not_take_is_kept_and_written_later() {
        let directory = tempfile::tempdir().unwrap();
        let pod = PodDirectory(directory.path().to_owned());
        let container = pod.container("web");
        fs::create_dir_all(&container.0).unwrap();
        // A directory in its place keeps the file from being written, as a full disk would.
        fs::create_dir(container.exit()).unwrap();
        let (started, exit) = (
            Started { pid: 7, at: Timestamp::UNIX_EPOCH, warnings: Vec::new() },
            Exit::of_process(3, false, Timestamp::UNIX_EPOCH),
        );
        let mut ledger = Ledger::new(pod);
        ledger.started("web", started.clone()).unwrap();
        assert!(ledger.unsaved().is_empty());
        ledger.ended("web", exit.clone()).unwrap_err();
        assert_eq!(ledger.unsaved()["web"].exit, Some(exit.clone()));
        fs::remove_dir(container.exit()).unwrap();
        ledger.save().unwrap();
        assert!(ledger.unsaved().is_empty());
        assert_eq!(read_json(&container.started()).unwrap(), Some(started));
        assert_eq!(read_json(&container.exit()).unwrap(), Some(exit));
    }

    #[test]
    fn a_container_that_was_removed_has_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::new(PodDirectory(directory.path().to_owned()));
        ledger.ended("gone", Exit::of_process(0, false, Timestamp::UNIX_EPOCH)).unwrap();
        assert!(ledger.unsaved().is_empty());
    }
}

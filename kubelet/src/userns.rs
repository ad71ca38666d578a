//! Ranges of the node's user ids for pods with `hostUsers: false`.
//!
//! Each such pod gets 65536 ids of its own, the same number for groups. Who has which range is written into the
//! pod's directory, so that a restarted kubelet gives none away twice.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use cri::v1::{IdMapping, NamespaceMode, UserNamespace};

/// How many ids a pod gets; upstream's number.
const LENGTH: u32 = 65_536;
/// The first range is the node's own.
const FIRST: u32 = 1;
/// Host ids are 32 bits.
const LAST: u32 = u32::MAX / LENGTH - 1;
const FILE: &str = "userns";

/// Which pod has which range.
#[derive(Debug, Default)]
pub struct UserNamespaces {
    taken: Mutex<BTreeMap<String, u32>>,
}

impl UserNamespaces {
    /// Reads what a former kubelet has given away. `pods` holds a directory for each pod.
    pub fn load(pods: &Path) -> io::Result<UserNamespaces> {
        let entries = match std::fs::read_dir(pods) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(UserNamespaces::default()),
            entries => entries?,
        };
        let mut taken = BTreeMap::new();
        for entry in entries.flatten() {
            let number =
                std::fs::read_to_string(entry.path().join(FILE)).ok().and_then(|text| text.parse().ok());
            if let (Some(number), Ok(uid)) = (number, entry.file_name().into_string()) {
                taken.insert(uid, number);
            }
        }
        Ok(UserNamespaces { taken: Mutex::new(taken) })
    }

    /// The range of a pod, its own from the first call on.
    pub fn of(&self, uid: &str, pod_directory: &Path) -> io::Result<UserNamespace> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match taken.get(uid) {
            Some(number) => *number,
            None => {
                let number = free(&taken).ok_or_else(|| {
                    io::Error::new(ErrorKind::StorageFull, "no range of user ids is left for the pod")
                })?;
                std::fs::create_dir_all(pod_directory)?;
                std::fs::write(pod_directory.join(FILE), number.to_string())?;
                taken.insert(uid.to_string(), number);
                number
            }
        };
        Ok(range(number))
    }

    /// Takes the range back; the file goes with the pod's directory.
    pub fn release(&self, uid: &str) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

fn free(taken: &BTreeMap<String, u32>) -> Option<u32> {
    let taken: BTreeSet<u32> = taken.values().copied().collect();
    (FIRST..=LAST).find(|number| !taken.contains(number))
}

fn range(number: u32) -> UserNamespace {
    let mapping = IdMapping { host_id: number * LENGTH, container_id: 0, length: LENGTH };
    UserNamespace { mode: NamespaceMode::Pod as i32, uids: vec![mapping], gids: vec![mapping] }
}

/// What pods are told that share the node's users.
pub fn of_the_node() -> UserNamespace {
    UserNamespace { mode: NamespaceMode::Node as i32, ..UserNamespace::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_id(namespace: &UserNamespace) -> u32 {
        namespace.uids[0].host_id
    }

    #[test]
    fn every_pod_has_a_range_of_its_own_also_after_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let pods = root.path();
        let namespaces = UserNamespaces::load(&pods.join("none")).unwrap();
        let id =
            |namespaces: &UserNamespaces, uid: &str| first_id(&namespaces.of(uid, &pods.join(uid)).unwrap());
        assert_eq!(
            (id(&namespaces, "a"), id(&namespaces, "b"), id(&namespaces, "a")),
            (65_536, 131_072, 65_536)
        );
        let namespaces = UserNamespaces::load(pods).unwrap();
        assert_eq!((id(&namespaces, "c"), id(&namespaces, "b")), (196_608, 131_072));
        namespaces.release("a");
        assert_eq!(id(&namespaces, "d"), 65_536);
    }

    #[test]
    fn the_last_range_still_fits() {
        let end = u64::from(first_id(&range(LAST))) + u64::from(LENGTH);
        assert!(end <= u64::from(u32::MAX));
        let all = (FIRST..=LAST).map(|number| (number.to_string(), number)).collect();
        assert_eq!(free(&all), None);
    }
}

//! The ids of a pod's user namespace: who a user inside is on the node.

use cri::v1;
use serde::{Deserialize, Serialize};

/// What user and group ids inside mean outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

/// Ids that follow each other on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first one, as the container sees it.
    pub inside: u32,
    /// The first one, as the node sees it.
    pub outside: u32,
    /// How many.
    pub length: u32,
}

/// Somebody on the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The most lines that the kernel takes for one map.
const MOST_RANGES: usize = 340;

impl IdMap {
    /// What CRI asks for; nothing when the pod has the node's ids.
    pub fn wanted(options: Option<&v1::NamespaceOption>) -> Result<Option<IdMap>, String> {
        let Some(options) = options else { return Ok(None) };
        let Some(users) = options.userns_options.as_ref() else { return Ok(None) };
        match users.mode() {
            v1::NamespaceMode::Node => {
                let extra = !users.uids.is_empty() || !users.gids.is_empty();
                if extra { Err("user namespace mode NODE takes no mappings".to_owned()) } else { Ok(None) }
            }
            v1::NamespaceMode::Pod => {
                refuse_namespaces_of_the_node(options)?;
                let map = IdMap { uids: ranges(&users.uids), gids: ranges(&users.gids) };
                map.check()?;
                Ok(Some(map))
            }
            mode => Err(format!("unsupported user namespace mode: {:?}", mode.as_str_name())),
        }
    }

    fn check(&self) -> Result<(), String> {
        for (what, ranges) in [("uid", &self.uids), ("gid", &self.gids)] {
            if ranges.len() > MOST_RANGES {
                return Err(format!("more than {MOST_RANGES} {what} mappings"));
            }
            let overflows = |range: &IdRange| {
                range.length == 0
                    || range.inside.checked_add(range.length).is_none()
                    || range.outside.checked_add(range.length).is_none()
            };
            if ranges.iter().any(overflows) {
                return Err(format!("a {what} mapping is empty or too long"));
            }
            if outside(ranges, 0).is_none() {
                return Err(format!("the {what} mappings leave out root"));
            }
            // A pod whose root is the node's would be no namespace at all.
            if ranges.iter().any(|range| range.outside == 0) {
                return Err(format!("a {what} mapping leads to the node's root"));
            }
        }
        Ok(())
    }

    /// Who somebody inside is on the node.
    pub fn owner(&self, uid: u32, gid: u32) -> Option<Owner> {
        Some(Owner { uid: outside(&self.uids, uid)?, gid: outside(&self.gids, gid)? })
    }
}

/// A procfs or sysfs of the node cannot be shown to users who are nobody there.
fn refuse_namespaces_of_the_node(options: &v1::NamespaceOption) -> Result<(), String> {
    use v1::NamespaceMode::Node;
    let shared = [(options.network(), "network"), (options.pid(), "pid"), (options.ipc(), "ipc")];
    match shared.into_iter().find(|(mode, _)| *mode == Node) {
        Some((_, name)) => {
            Err(format!("a pod with a user namespace of its own cannot have the node's {name} namespace"))
        }
        None => Ok(()),
    }
}

fn ranges(given: &[v1::IdMapping]) -> Vec<IdRange> {
    let range =
        |one: &v1::IdMapping| IdRange { inside: one.container_id, outside: one.host_id, length: one.length };
    given.iter().map(range).collect()
}

fn outside(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.inside)?;
        (offset < range.length).then(|| range.outside + offset)
    })
}

/// A map as `/proc/<pid>/uid_map` wants it.
pub fn render(ranges: &[IdRange]) -> String {
    ranges.iter().map(|range| format!("{} {} {}\n", range.inside, range.outside, range.length)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(mappings: &[(u32, u32, u32)]) -> v1::NamespaceOption {
        let mapping = |(container_id, host_id, length): &(u32, u32, u32)| v1::IdMapping {
            host_id: *host_id,
            container_id: *container_id,
            length: *length,
        };
        let ranges: Vec<_> = mappings.iter().map(mapping).collect();
        v1::NamespaceOption {
            pid: v1::NamespaceMode::Container as i32,
            userns_options: Some(v1::UserNamespace {
                mode: v1::NamespaceMode::Pod as i32,
                uids: ranges.clone(),
                gids: ranges,
            }),
            ..Default::default()
        }
    }

    #[test]
    fn users_inside_are_others_outside() {
        let map = IdMap::wanted(Some(&options(&[(0, 65_536, 65_536)]))).unwrap().unwrap();
        assert_eq!(map.owner(0, 33), Some(Owner { uid: 65_536, gid: 65_569 }));
        assert_eq!(map.owner(65_536, 0), None);
        assert_eq!(render(&map.uids), "0 65536 65536\n");
    }

    #[test]
    fn maps_that_would_not_separate_are_refused() {
        let refused = |mappings: &[(u32, u32, u32)]| IdMap::wanted(Some(&options(mappings))).unwrap_err();
        assert_eq!(refused(&[(0, 0, 65_536)]), "a uid mapping leads to the node's root");
        assert_eq!(refused(&[(1, 65_536, 10)]), "the uid mappings leave out root");
        assert_eq!(refused(&[(0, u32::MAX, 2)]), "a uid mapping is empty or too long");
        assert_eq!(refused(&[]), "the uid mappings leave out root");
    }

    #[test]
    fn namespaces_of_the_node_do_not_go_with_users_of_the_pods() {
        let options = v1::NamespaceOption {
            network: v1::NamespaceMode::Node as i32,
            ..options(&[(0, 65_536, 65_536)])
        };
        let refused = IdMap::wanted(Some(&options)).unwrap_err();
        assert_eq!(
            refused,
            "a pod with a user namespace of its own cannot have the node's network namespace"
        );
        assert_eq!(IdMap::wanted(Some(&v1::NamespaceOption::default())), Ok(None));
    }
}

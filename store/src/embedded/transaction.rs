//! Decides a batch of writes, in order, against the state as it will be after those before.
//!
//! Nothing is changed here: the writer first makes the accepted changes durable, then applies them.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use super::state::{Change, Deadline, State, Version};
use crate::{KeyValue, Revision, WriteError};

/// What a caller wants written.
#[derive(Debug)]
pub(super) enum Write {
    Create {
        key: Arc<str>,
        value: Bytes,
        deadline: Option<Deadline>,
    },
    Update {
        key: Arc<str>,
        value: Bytes,
        expected: Revision,
        deadline: Option<Deadline>,
    },
    Delete {
        key: Arc<str>,
        expected: Option<Revision>,
    },
    /// Deletes the key if its time is still up.
    Expire {
        key: Arc<str>,
        now: Deadline,
    },
}

impl Write {
    pub fn key(&self) -> &Arc<str> {
        match self {
            Write::Create { key, .. }
            | Write::Update { key, .. }
            | Write::Delete { key, .. }
            | Write::Expire { key, .. } => key,
        }
    }

    /// About how much it adds to a batch.
    pub fn size(&self) -> usize {
        match self {
            Write::Create { key, value, .. } | Write::Update { key, value, .. } => key.len() + value.len(),
            Write::Delete { key, .. } | Write::Expire { key, .. } => key.len(),
        }
    }
}

/// What became of a write: the revision that it got, and what it replaced or deleted.
#[derive(Debug)]
pub(super) struct Written {
    pub revision: Revision,
    pub previous: Option<KeyValue>,
}

/// A batch being decided.
pub(super) struct Transaction<'a> {
    state: &'a State,
    /// The newest versions made by this batch.
    written: HashMap<Arc<str>, Version>,
    changes: Vec<Change>,
    revision: Revision,
}

impl<'a> Transaction<'a> {
    pub fn new(state: &'a State) -> Transaction<'a> {
        Transaction { state, written: HashMap::new(), changes: Vec::new(), revision: state.revision() }
    }

    /// Accepts or refuses one write.
    pub fn decide(&mut self, write: Write) -> Result<Written, WriteError> {
        match write {
            Write::Create { key, value, deadline } => match self.find(&key) {
                Some(_) => Err(WriteError::AlreadyExists { key: key.to_string() }),
                None => {
                    let created = self.next_revision();
                    Ok(self.change(key, created, deadline, Some(value), None))
                }
            },
            Write::Update { key, value, expected, deadline } => {
                let (key, found) = self.expect(&key, Some(expected))?;
                let deadline = deadline.or(found.deadline);
                Ok(self.change(key, found.created, deadline, Some(value), Some(found)))
            }
            Write::Delete { key, expected } => {
                let (key, found) = self.expect(&key, expected)?;
                Ok(self.change(key, found.created, None, None, Some(found)))
            }
            Write::Expire { key, now } => match self.find(&key) {
                Some((key, found)) if found.deadline.is_some_and(|deadline| deadline <= now) => {
                    Ok(self.change(key, found.created, None, None, Some(found)))
                }
                _ => Err(WriteError::NotFound { key: key.to_string() }),
            },
        }
    }

    /// The accepted changes, in revision order.
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    fn expect(&self, key: &str, expected: Option<Revision>) -> Result<(Arc<str>, Version), WriteError> {
        let (key, found) = self.find(key).ok_or_else(|| WriteError::NotFound { key: key.to_owned() })?;
        match expected {
            Some(expected) if expected != found.modified => {
                Err(WriteError::Conflict { key: key.to_string(), expected, actual: found.modified })
            }
            _ => Ok((key, found)),
        }
    }

    /// The key's newest version, if it is there.
    fn find(&self, key: &str) -> Option<(Arc<str>, Version)> {
        let (key, version) = match self.written.get_key_value(key) {
            Some(written) => written,
            None => self.state.newest(key)?,
        };
        version.value.is_some().then(|| (key.clone(), version.clone()))
    }

    fn next_revision(&self) -> Revision {
        Revision(self.revision.0 + 1)
    }

    fn change(
        &mut self,
        key: Arc<str>,
        created: Revision,
        deadline: Option<Deadline>,
        value: Option<Bytes>,
        replaced: Option<Version>,
    ) -> Written {
        self.revision = self.next_revision();
        let version = Version { created, modified: self.revision, deadline, value };
        self.written.insert(key.clone(), version.clone());
        self.changes.push(Change { key: key.clone(), version });
        let previous = replaced.and_then(|version| {
            let Version { created, modified, value, .. } = version;
            Some(KeyValue { key, value: value?, create_revision: created, mod_revision: modified })
        });
        Written { revision: self.revision, previous }
    }
}

//! A deletion: what [`super::deletion`] decided, carried out.

use std::sync::Arc;

use api::Status;

use super::{
    Write,
    deletion::{self, Deletion},
};
use crate::{
    hooks::Operation,
    registry::{MODIFIED, entry::Entry, now, unstored},
    request::DeleteOptions,
};

const ATTEMPTS: usize = 100;

/// What came of a deletion.
#[derive(Debug)]
pub(crate) struct Deleted {
    /// The object as it was last.
    pub(crate) entry: Arc<Entry>,
    /// Whether it is gone; else something holds it.
    pub(crate) is_gone: bool,
    /// What the client should hear.
    pub(crate) warnings: Vec<String>,
}

/// Deletes the object that `write` names, or begins to.
pub(crate) async fn delete(write: &Write<'_>, options: &DeleteOptions) -> Result<Deleted, Status> {
    let kind = write.kind;
    let mut entry = write.registry.entry(kind, write.namespace, write.name).await?;
    for _ in 0..ATTEMPTS {
        if let Some(deleted) = attempt(write, &entry, options).await? {
            return Ok(deleted);
        }
        entry = write.registry.stored_entry(kind, write.namespace, write.name).await?;
    }
    Err(Status::conflict(kind.group, kind.plural, write.name, MODIFIED))
}

/// One attempt; `None` when somebody else was faster.
async fn attempt(
    write: &Write<'_>,
    entry: &Arc<Entry>,
    options: &DeleteOptions,
) -> Result<Option<Deleted>, Status> {
    let kind = write.kind;
    let old = write.registry.shown_one(kind, entry.clone()).await?.decode_as(kind)?;
    let plan = deletion::plan(kind, &old, options, now())?;
    let warnings = write.validate_admission(Operation::Delete, None, Some(&old)).await?;
    let (entry, is_gone) = match plan {
        Deletion::Pending => (Some(entry.clone()), false),
        Deletion::Remove if write.dry_run || options.dry_run => (Some(entry.clone()), true),
        Deletion::Remove => (write.registry.remove(kind, entry).await?, true),
        Deletion::Mark(object) if write.dry_run || options.dry_run => {
            (Some(unstored(kind, write.namespace, write.name, &object, entry.revision())?), false)
        }
        Deletion::Mark(object) => (write.registry.replace(kind, entry, &object).await?, false),
    };
    let Some(entry) = entry else { return Ok(None) };
    if is_gone && !options.dry_run && !write.dry_run {
        write.release(&old).await;
    }
    Ok(Some(Deleted { entry, is_gone, warnings }))
}

//! A change of an object: by PUT, by PATCH, or by the server itself.

use std::sync::Arc;

use api::{Kind, Object, Scope, Status, meta};

use super::{Write, Written, deletion, managed, metadata, part::Part};
use crate::{
    hooks::Operation,
    registry::{MODIFIED, entry::Entry, unstored},
};

/// How often an update begins again because somebody else was faster.
const ATTEMPTS: usize = 100;

/// Changes the object that `write` names. `change` makes the new object from the newest one; a
/// resourceVersion that it leaves in place, or takes from the client, must be the newest.
pub(crate) async fn update(
    write: &Write<'_>,
    mut change: impl FnMut(Object) -> Result<Object, Status> + Send,
) -> Result<Written, Status> {
    let mut entry = write.registry.entry(write.kind, write.namespace, write.name).await?;
    for _ in 0..ATTEMPTS {
        let shown = write.registry.shown_one(write.kind, entry.clone()).await?;
        let old = shown.decode_as(write.kind)?;
        let object = change(old.clone())?;
        if let Some(written) = attempt(write, &entry, &old, object).await? {
            return Ok(written);
        }
        entry = write.registry.stored_entry(write.kind, write.namespace, write.name).await?;
    }
    Err(conflict(write, MODIFIED))
}

/// One attempt; `None` when somebody else was faster.
async fn attempt(
    write: &Write<'_>,
    entry: &Arc<Entry>,
    old: &Object,
    mut object: Object,
) -> Result<Option<Written>, Status> {
    let kind = write.kind;
    if kind.scope == Scope::Cluster {
        object.remove(&["metadata", "namespace"]);
    }
    check_identity(write, &object, old)?;
    metadata::carry_over(&mut object, old);
    let part = Part::of(write.subresource);
    let mut object = part.confine(kind, write.subresource, object, old);
    part.complete(kind, write.subresource, &mut object, old);
    let mut warnings = write.mutate(Operation::Update, &mut object, Some(old)).await?;
    // Nor may admission change more than the client.
    metadata::carry_over(&mut object, old);
    object = part.confine(kind, write.subresource, object, old);
    part.complete(kind, write.subresource, &mut object, old);
    if part == Part::Whole {
        kind.strategy.prepare_for_update(&mut object, old);
    }
    if part.changes_spec() && kind.strategy.has_generation() && kind.strategy.is_new_generation(&object, old)
    {
        object.set(&["metadata", "generation"], old.generation() + 1);
    }
    let mut errors = meta::validate(&object, kind, Some(old));
    let (faults, told) = part.judge(kind, write.subresource, &object, old);
    errors.extend(faults);
    write.refuse(&object, errors)?;
    warnings.extend(told);
    let reservation = match part {
        Part::Whole => write.allocate(&mut object, Some(old)).await?,
        _ => None,
    };
    match write.validate_admission(Operation::Update, Some(&object), Some(old)).await {
        Ok(more) => warnings.extend(more),
        Err(refused) => {
            write.settle(reservation, Ok(None)).await?;
            return Err(refused);
        }
    }
    let stored = store(write, entry, old, object).await;
    write.settle(reservation, stored.as_ref().map(Option::as_deref)).await?;
    Ok(stored?.map(|entry| Written { entry, warnings }))
}

/// The write itself; `None` when somebody else was faster.
async fn store(
    write: &Write<'_>,
    entry: &Arc<Entry>,
    old: &Object,
    mut object: Object,
) -> Result<Option<Arc<Entry>>, Status> {
    let kind = write.kind;
    managed::keep_times_of_idle_writes(&mut object, old);

    let is_idle = object == *old && !write.registry.is_outdated(entry).await?;
    if is_idle {
        return Ok(Some(entry.clone()));
    }
    if write.dry_run {
        let unstored = unstored(kind, write.namespace, write.name, &object, entry.revision())?;
        return Ok(Some(unstored));
    }
    if !deletion::is_due(kind, &object) {
        return write.registry.replace(kind, entry, &object).await;
    }
    let Some(removed) = write.registry.remove(kind, entry).await? else { return Ok(None) };
    write.release(old).await;
    // The client sees what it has made of the object; watches see it go as it was stored.
    unstored(kind, write.namespace, write.name, &object, removed.revision()).map(Some)
}

/// Name and resourceVersion must be those of the object that is there.
fn check_identity(write: &Write<'_>, object: &Object, old: &Object) -> Result<(), Status> {
    if !object.name().is_empty() && object.name() != write.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            object.name(),
            write.name
        )));
    }
    if !object.namespace().is_empty() && object.namespace() != write.namespace && !old.namespace().is_empty()
    {
        return Err(Status::bad_request(format!(
            "the namespace of the object ({}) does not match the namespace on the request ({})",
            object.namespace(),
            write.namespace
        )));
    }
    // "0" is how old clients say "any".
    let version = object.resource_version();
    if !version.is_empty() && version.parse::<u64>().is_err() {
        let why = format!("strconv.ParseUint: parsing {version:?}: invalid syntax");
        return Err(Status::new(500, "", why));
    }
    if !matches!(version, "" | "0") && version != old.resource_version() {
        return Err(conflict(write, MODIFIED));
    }
    Ok(())
}

/// The precondition that a PUT, or a Scale, sets by its uid; in other patches validation finds the change.
/// `resource` is what the answer speaks of.
pub(crate) fn check_uid(kind: &Kind, resource: &str, sent: &Object, old: &Object) -> Result<(), Status> {
    let (wanted, actual) = (sent.uid(), old.uid());
    if wanted.is_empty() || wanted == actual {
        return Ok(());
    }
    let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {actual}");
    Err(Status::conflict(kind.group, resource, old.name(), &why))
}

fn conflict(write: &Write<'_>, why: &str) -> Status {
    Status::conflict(write.kind.group, write.kind.plural, write.name, why)
}

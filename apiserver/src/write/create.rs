//! A new object.

use std::sync::Arc;

use api::{Object, Status, meta};
use store::Revision;

use super::{Write, Written, metadata};
use crate::{
    hooks::Operation,
    registry::{being_deleted, entry::Entry, now, unstored},
};

/// How often another name is tried when a generated one is taken.
const NAME_ATTEMPTS: usize = 8;

/// Stores `object`, or says why not.
pub(crate) async fn create(write: &Write<'_>, mut object: Object) -> Result<Written, Status> {
    let kind = write.kind;
    if write.registry.kinds().is_terminating(kind) {
        return Err(being_deleted());
    }
    metadata::set_namespace(write, &mut object)?;
    // What is no version is not taken for one.
    if !write.dry_run && object.resource_version().parse::<u64>().is_ok_and(|version| version != 0) {
        return Err(Status::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    let mut warnings = write.mutate(Operation::Create, &mut object, None).await?;
    metadata::set_namespace(write, &mut object)?;
    metadata::begin(kind, &mut object, now());
    // Empty where the client has chosen the name.
    let prefix = match object.name() {
        "" => object.text(&["metadata", "generateName"]).to_string(),
        _ => String::new(),
    };
    if !prefix.is_empty() {
        object.set(&["metadata", "name"], generated_name(&prefix));
    }
    if object.name().is_empty() && kind.strategy.has_random_name() {
        object.set(&["metadata", "name"], uuid::Uuid::new_v4().to_string());
    }
    kind.strategy.prepare_for_create(&mut object);

    // What is wrong already needs no address.
    validate(write, &object)?;
    let reservation = write.allocate(&mut object, None).await?;
    match check(write, &object, reservation.is_some()).await {
        Ok(more) => warnings.extend(more),
        Err(refused) => {
            write.settle(reservation, Ok(None)).await?;
            return Err(refused);
        }
    }
    let stored = store(write, &mut object, &prefix).await;
    write.settle(reservation, stored.as_deref().map(Some)).await?;
    Ok(Written { entry: stored?, warnings })
}

/// What may still refuse the object, once it has what it needs.
async fn check(write: &Write<'_>, object: &Object, was_filled: bool) -> Result<Vec<String>, Status> {
    if was_filled {
        validate(write, object)?;
    }
    let mut warnings = write.kind.strategy.warnings(object, None);
    warnings.extend(write.validate_admission(Operation::Create, Some(object), None).await?);
    Ok(warnings)
}

/// The write itself; the object gets another name where a generated one is taken.
async fn store(write: &Write<'_>, object: &mut Object, generated_from: &str) -> Result<Arc<Entry>, Status> {
    match write.dry_run {
        true => dry_run(write, object).await,
        false if !generated_from.is_empty() => insert_generated(write, object, generated_from).await,
        false => write.registry.insert(write.kind, write.namespace, object.name(), object).await,
    }
}

fn validate(write: &Write<'_>, object: &Object) -> Result<(), Status> {
    let mut errors = meta::validate(object, write.kind, None);
    errors.extend(write.kind.strategy.validate(object, None));
    write.refuse(object, errors)
}

async fn dry_run(write: &Write<'_>, object: &Object) -> Result<Arc<Entry>, Status> {
    let name = object.name();
    if write.registry.entry(write.kind, write.namespace, name).await.is_ok() {
        return Err(Status::already_exists(write.kind.group, write.kind.plural, name));
    }
    unstored(write.kind, write.namespace, name, object, Revision(0))
}

async fn insert_generated(
    write: &Write<'_>,
    object: &mut Object,
    prefix: &str,
) -> Result<Arc<Entry>, Status> {
    let kind = write.kind;
    for _ in 0..NAME_ATTEMPTS {
        match write.registry.insert(kind, write.namespace, object.name(), object).await {
            Err(status) if status.reason == "AlreadyExists" => {
                object.set(&["metadata", "name"], generated_name(prefix));
            }
            other => return other,
        }
    }
    let message = "the server was not able to generate a unique name for the object";
    let subject = Status::already_exists(kind.group, kind.plural, prefix);
    Err(Status { message: format!("{}, {message}", subject.message), ..subject })
}

fn generated_name(prefix: &str) -> String {
    meta::generate_name(prefix, |below| fastrand::usize(..below))
}

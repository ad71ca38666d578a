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
    let mut warnings = Vec::from_iter(metadata::name_owners_once(&mut object, ""));
    warnings.extend(write.mutate(Operation::Create, &mut object, None).await?);
    warnings.extend(metadata::name_owners_once(&mut object, metadata::AFTER_ADMISSION));
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
    let was_filled = reservation.is_some();
    let stored = store(write, &mut object, &prefix, was_filled, &mut warnings).await;
    write.settle(reservation, stored.as_deref().ok()).await?;
    Ok(Written { entry: stored?, warnings })
}

/// The rest, once the object has what it needs: what holds whole objects is behind it.
async fn store(
    write: &Write<'_>,
    object: &mut Object,
    generated_from: &str,
    was_filled: bool,
    warnings: &mut Vec<String>,
) -> Result<Arc<Entry>, Status> {
    if was_filled {
        validate(write, object)?;
    }
    warnings.extend(write.kind.strategy.warnings(object, None));
    warnings.extend(write.validate_admission(Operation::Create, Some(object), None).await?);
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

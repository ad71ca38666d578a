//! What happens to an object between the client and the store.
//!
//! create and update share one order: defaults, mutating admission, defaults again, what the kind
//! prepares, addresses, validation, validating admission, one store transaction. Every step works
//! on the whole object; whatever fails, nothing is stored. An update runs again from the newest state
//! when somebody else was faster.

mod create;
mod delete;
mod deletion;
mod managed;
mod metadata;
mod others;
mod part;
mod update;

use std::sync::Arc;

use api::{FieldError, Kind, Object, Status};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    hooks::{Attributes, Hooks, Operation, Reservation},
    registry::{Registry, entry::Entry},
    request::User,
};

pub(crate) use create::create;
pub(crate) use delete::{Deleted, delete};
pub(crate) use managed::{applied_to_nothing, apply, refusal};
pub(crate) use update::{check_uid, update};

/// Who writes to what, and how.
#[derive(Clone, Copy)]
pub(crate) struct Write<'a> {
    pub(crate) registry: &'a Registry,
    /// Absent for what the server itself writes.
    pub(crate) hooks: Option<&'a Hooks>,
    pub(crate) user: &'a User,
    pub(crate) kind: &'static Kind,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    /// As the URL has it; empty on create.
    pub(crate) name: &'a str,
    pub(crate) dry_run: bool,
    pub(crate) manager: Manager<'a>,
    /// The options of the request as an object; null where there are none.
    pub(crate) options: &'a Value,
    /// When the client has to have an answer.
    pub(crate) deadline: Option<Instant>,
}

/// Whose the fields are that a write changes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manager<'a> {
    /// Nobody's: who owns what stays as it is.
    Nobody,
    /// The client's that goes by this name.
    Named(&'a str),
    /// The change itself says so: it comes from server-side apply.
    Settled,
}

/// What came of a write.
#[derive(Debug)]
pub(crate) struct Written {
    /// The object as it is kept now, or would be.
    pub(crate) entry: Arc<Entry>,
    /// What the client should hear.
    pub(crate) warnings: Vec<String>,
}

impl<'a> Write<'a> {
    /// A write of the server itself.
    pub(crate) fn internal(
        registry: &'a Registry,
        user: &'a User,
        kind: &'static Kind,
        namespace: &'a str,
        name: &'a str,
    ) -> Write<'a> {
        let (subresource, dry_run, manager) = ("", false, Manager::Nobody);
        let (hooks, options, deadline) = (None, &Value::Null, None);
        Write {
            registry,
            hooks,
            user,
            kind,
            subresource,
            namespace,
            name,
            dry_run,
            manager,
            options,
            deadline,
        }
    }

    /// The same write in somebody's name.
    pub(crate) fn managed_by(self, name: &'a str) -> Write<'a> {
        Write { manager: Manager::Named(name), ..self }
    }

    fn attributes(&self, operation: Operation, name: &'a str) -> Attributes<'a> {
        Attributes {
            user: self.user,
            operation,
            kind: self.kind,
            subresource: self.subresource,
            namespace: self.namespace,
            name,
            addressed: self.name,
            dry_run: self.dry_run,
            options: self.options,
            deadline: self.deadline,
        }
    }

    /// Defaults, owners of fields, and mutating admission: what admission adds belongs to nobody.
    async fn mutate(
        &self,
        operation: Operation,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<Vec<String>, Status> {
        self.kind.strategy.set_defaults(object);
        managed::attribute(self, old, object).await;
        let Some(hooks) = self.hooks else { return Ok(Vec::new()) };
        let attributes = self.attributes(operation, self.name);
        let warnings = hooks.admission.mutate(self.registry, &attributes, object, old).await?;
        // What admission added may need defaults, too.
        self.kind.strategy.set_defaults(object);
        Ok(warnings)
    }

    /// Mutating admission alone, for what travels through a subresource and is no object of the kind.
    pub(crate) async fn mutate_admission(
        &self,
        operation: Operation,
        object: &mut Object,
    ) -> Result<Vec<String>, Status> {
        let Some(hooks) = self.hooks else { return Ok(Vec::new()) };
        let attributes = self.attributes(operation, self.name);
        hooks.admission.mutate(self.registry, &attributes, object, None).await
    }

    /// Validating admission.
    pub(crate) async fn validate_admission(
        &self,
        operation: Operation,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<Vec<String>, Status> {
        let name = object.or(old).map_or(self.name, Object::name);
        self.validate_admission_of(name, operation, object, old).await
    }

    /// Validating admission of what goes by another name than the object says.
    pub(crate) async fn validate_admission_of(
        &self,
        name: &str,
        operation: Operation,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<Vec<String>, Status> {
        let Some(hooks) = self.hooks else { return Ok(Vec::new()) };
        let attributes = Attributes { name, ..self.attributes(operation, self.name) };
        hooks.admission.validate(self.registry, &attributes, object, old).await
    }

    /// Addresses and ports.
    async fn allocate(
        &self,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<Option<Box<dyn Reservation>>, Status> {
        match self.hooks {
            Some(hooks) => hooks.allocator.allocate(self.kind, object, old, self.dry_run).await,
            None => Ok(None),
        }
    }

    /// Ends what was reserved for a write as the write has ended: with an entry, or with nothing. Whoever looks for
    /// what is free looks at the cache, so the cache must have the object before the reservation goes.
    async fn settle(
        &self,
        reservation: Option<Box<dyn Reservation>>,
        written: Option<&Entry>,
    ) -> Result<(), Status> {
        let Some(reservation) = reservation.filter(|_| !self.dry_run) else { return Ok(()) };
        let Some(entry) = written else {
            reservation.revert().await;
            return Ok(());
        };
        if let Err(status) = self.registry.cache(self.kind).await?.reach(entry.revision()).await {
            tracing::warn!(%status, "the cache has not seen a write yet whose addresses are reserved");
        }
        reservation.commit().await;
        Ok(())
    }

    /// Gives back the addresses of an object that is gone.
    async fn release(&self, object: &Object) {
        if let Some(hooks) = self.hooks {
            hooks.allocator.release(self.kind, object).await;
        }
    }

    fn refuse(&self, object: &Object, errors: Vec<FieldError>) -> Result<(), Status> {
        if errors.is_empty() {
            return Ok(());
        }
        let name =
            if object.name().is_empty() { object.text(&["metadata", "generateName"]) } else { object.name() };
        Err(Status::invalid(self.kind.group, self.kind.kind, name, &errors))
    }
}

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
    /// As the URL has it; empty where an object is posted to its collection.
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
        let mut warnings = Vec::from_iter(metadata::name_owners_once(object, ""));
        self.kind.strategy.set_defaults(object);
        managed::attribute(self, old, object).await;
        if let Some(hooks) = self.hooks {
            let attributes = self.attributes(operation, self.name);
            warnings.extend(hooks.admission.mutate(self.registry, &attributes, object, old).await?);
            // What admission added may need defaults, too.
            self.kind.strategy.set_defaults(object);
        }
        warnings.extend(metadata::name_owners_once(object, metadata::AFTER_ADMISSION));
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

    /// Ends what was reserved for a write as the write has ended: with an entry, with nothing, or nobody knows how.
    /// Whoever looks for what is free looks at the cache, so the cache must have the object before the reservation
    /// goes.
    async fn settle(
        &self,
        reservation: Option<Box<dyn Reservation>>,
        written: Result<Option<&Entry>, &Status>,
    ) -> Result<(), Status> {
        let Some(reservation) = reservation.filter(|_| !self.dry_run) else { return Ok(()) };
        match written {
            Ok(Some(entry)) => {
                if let Err(status) = self.registry.cache(self.kind).await?.reach(entry.revision()).await {
                    tracing::warn!(%status, "the cache has not seen a write yet whose addresses are reserved");
                }
                reservation.commit().await;
            }
            // A store that fails may have written all the same: the repair sees to what is left.
            Err(status) if status.code >= 500 => drop(reservation),
            Ok(None) | Err(_) => reservation.revert().await,
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use api::kinds;
    use store::embedded::Embedded;
    use tokio_util::sync::CancellationToken;

    use super::*;

    type Log = Arc<Mutex<Vec<&'static str>>>;

    struct Noted(Log);

    #[async_trait::async_trait]
    impl Reservation for Noted {
        async fn commit(self: Box<Self>) {
            self.0.lock().unwrap().push("commit");
        }

        async fn revert(self: Box<Self>) {
            self.0.lock().unwrap().push("revert");
        }
    }

    #[tokio::test]
    async fn what_may_have_been_written_keeps_its_addresses() {
        let store = Arc::new(Embedded::in_memory().unwrap());
        let registry = Registry::new(store, false, CancellationToken::new());
        let user = User::new("ann", &[]);
        let write = Write::internal(&registry, &user, kinds::built_in("", "services"), "default", "web");
        let refused = Status::bad_request("no");
        let unknown = Status::internal("the store is gone");
        for (written, expected) in
            [(Ok(None), Some("revert")), (Err(&refused), Some("revert")), (Err(&unknown), None)]
        {
            let log = Log::default();
            write.settle(Some(Box::new(Noted(log.clone()))), written).await.unwrap();
            assert_eq!(log.lock().unwrap().pop(), expected, "{written:?}");
        }
    }
}

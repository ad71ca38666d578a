//! The kinds that are served: the built-in ones, and those that CustomResourceDefinitions add while the server runs.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use api::{Kind, Status, kinds};
use tokio::sync::{OwnedRwLockReadGuard, watch};

/// How long a request for a kind that nobody knows waits for the definitions to be read after the start.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be asked for.
pub struct Kinds {
    custom: RwLock<Arc<Custom>>,
    /// Held by whoever creates custom objects, and taken by whoever has said that no more may be created.
    creations: Arc<tokio::sync::RwLock<()>>,
    is_loaded: watch::Sender<bool>,
}

/// The kinds of definitions.
#[derive(Default)]
pub(crate) struct Custom {
    /// In all served versions.
    pub(crate) rows: Vec<&'static Kind>,
    /// Where the objects are stored of definitions that are being deleted.
    pub(crate) terminating: HashSet<&'static str>,
}

impl Default for Kinds {
    fn default() -> Kinds {
        Kinds { custom: RwLock::default(), creations: Arc::default(), is_loaded: watch::Sender::new(false) }
    }
}

impl Kinds {
    /// Every kind, the built-in ones first.
    pub fn all(&self) -> Vec<&'static Kind> {
        kinds::KINDS.iter().chain(self.custom().rows.iter().copied()).collect()
    }

    /// The kind behind a URL.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        let is_meant = |row: &&Kind| row.plural == plural && row.group == group && row.version == version;
        kinds::find(group, version, plural).or_else(|| self.custom().rows.iter().copied().find(is_meant))
    }

    /// The kind that an object names in `apiVersion` and `kind`.
    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
        let is_meant = |row: &&Kind| row.kind == kind && row.group == group && row.version == version;
        kinds::find_kind(group, version, kind).or_else(|| self.custom().rows.iter().copied().find(is_meant))
    }

    /// The same as [`Kinds::find`], once the definitions that are stored have been read.
    pub(crate) async fn find_patiently(
        &self,
        group: &str,
        version: &str,
        plural: &str,
    ) -> Option<&'static Kind> {
        if let Some(found) = self.find(group, version, plural) {
            return Some(found);
        }
        self.loaded().await;
        self.find(group, version, plural)
    }

    /// Waits until the definitions that are stored have been read.
    pub(crate) async fn loaded(&self) {
        let mut is_loaded = self.is_loaded.subscribe();
        let loaded = is_loaded.wait_for(|is_loaded| *is_loaded);
        if tokio::time::timeout(PATIENCE, loaded).await.is_err() {
            tracing::warn!("the definitions of custom resources have not been read yet");
        }
    }

    /// Tells whenever other kinds are served.
    pub(crate) fn changes(&self) -> watch::Receiver<bool> {
        self.is_loaded.subscribe()
    }

    /// Whether the definition of a kind is being deleted.
    pub(crate) fn is_terminating(&self, kind: &Kind) -> bool {
        kind.custom.is_some() && self.custom().terminating.contains(kind.storage)
    }

    /// Leave to store a new object, for as long as the answer is held; refused where the definition goes or is gone.
    pub(crate) async fn creation(&self, kind: &Kind) -> Result<Option<OwnedRwLockReadGuard<()>>, Status> {
        if kind.custom.is_none() {
            return Ok(None);
        }
        let held = self.creations.clone().read_owned().await;
        if self.is_terminating(kind) {
            return Err(being_deleted());
        }
        match self.custom().rows.iter().any(|row| row.storage == kind.storage) {
            true => Ok(Some(held)),
            false => Err(Status::no_such_resource()),
        }
    }

    /// Waits for those who create objects of a definition at this moment.
    pub(crate) async fn creations_done(&self) {
        drop(self.creations.write().await);
    }

    /// The row of a stored kind as its definition has it now.
    pub(crate) fn in_force(&self, kind: &'static Kind) -> &'static Kind {
        if kind.custom.is_none() {
            return kind;
        }
        let custom = self.custom();
        let row = custom.rows.iter().find(|row| row.storage == kind.storage);
        row.and_then(|row| row.custom?.definition.stored()).unwrap_or(kind)
    }

    /// Serves these from now on.
    pub(crate) fn replace(&self, custom: Custom) {
        *self.custom.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(custom);
        self.is_loaded.send_replace(true);
    }

    fn custom(&self) -> Arc<Custom> {
        self.custom.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a client hears that creates an object of a definition that goes.
pub(crate) fn being_deleted() -> Status {
    let why = "create not allowed while custom resource definition is terminating";
    Status::new(405, "MethodNotAllowed", why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Object, crd::Definition};
    use serde_json::json;

    fn definition(description: &str) -> &'static Definition {
        let crd = json!({
            "metadata": {"name": "things.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "description": description}}}]},
        });
        Definition::of(&Object::from_value(crd).unwrap()).unwrap()
    }

    fn served(definition: &'static Definition, is_terminating: bool) -> Custom {
        let row = definition.stored().unwrap();
        let terminating = is_terminating.then_some(row.storage).into_iter().collect();
        Custom { rows: vec![row], terminating }
    }

    #[test]
    fn an_old_row_leads_to_the_definition_in_force() {
        let (old, new) = (definition("old"), definition("new"));
        let kinds = Kinds::default();
        kinds.replace(served(new, false));
        let (old, new) = (old.stored().unwrap(), new.stored().unwrap());
        assert!(!std::ptr::eq(old, new));
        assert!(std::ptr::eq(kinds.in_force(old), new));
    }

    #[tokio::test]
    async fn nothing_is_created_once_a_definition_goes() {
        let definition = definition("it goes");
        let row = definition.stored().unwrap();
        let kinds = Kinds::default();
        kinds.replace(served(definition, false));
        let held = kinds.creation(row).await.unwrap();
        kinds.replace(served(definition, true));
        // Whoever was let in before is waited for; nobody is let in after.
        let done = kinds.creations_done();
        tokio::pin!(done);
        assert!(futures::poll!(&mut done).is_pending());
        drop(held);
        done.await;
        assert_eq!(kinds.creation(row).await.unwrap_err().code, 405);
        kinds.replace(Custom::default());
        assert_eq!(kinds.creation(row).await.unwrap_err().code, 404);
    }
}

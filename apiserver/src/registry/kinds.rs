//! The kinds that are served: the built-in ones, and those that CustomResourceDefinitions add while the server runs.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use api::{Kind, kinds};
use tokio::sync::watch;

/// How long a request for a kind that nobody knows waits for the definitions to be read after the start.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be asked for.
pub struct Kinds {
    custom: RwLock<Arc<Custom>>,
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
        Kinds { custom: RwLock::default(), is_loaded: watch::Sender::new(false) }
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

    /// Serves these from now on.
    pub(crate) fn replace(&self, custom: Custom) {
        *self.custom.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(custom);
        self.is_loaded.send_replace(true);
    }

    fn custom(&self) -> Arc<Custom> {
        self.custom.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

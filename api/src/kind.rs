//! A kind is a row: everything generic code must know about one resource.

use jiff::Timestamp;

use crate::{FieldError, Object, crd, table::Column};

/// One resource, built in or defined by a CustomResourceDefinition.
#[derive(Clone, Copy)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version within the group.
    pub version: &'static str,
    /// The kind's name in CamelCase, for example `ReplicaSet`.
    pub kind: &'static str,
    /// Lower-case plural, the name in URLs.
    pub plural: &'static str,
    /// Lower-case singular.
    pub singular: &'static str,
    /// Abbreviations that kubectl accepts.
    pub short: &'static [&'static str],
    /// Groups of resources, such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub scope: Scope,
    /// What clients may do.
    pub verbs: Verbs,
    /// Whether there is a `status` subresource, separated from the rest of the object on write.
    pub status: bool,
    /// Where the `scale` subresource finds its numbers, for kinds that have one.
    pub scale: Option<&'static Scale>,
    /// Further subresources by name, such as `log` or `binding`; the API server knows what they do.
    pub subresources: &'static [&'static str],
    /// Where objects live in the store, below `/registry/`; upstream's layout, for example
    /// `services/specs`. The key is `/registry/<storage>/[<namespace>/]<name>`.
    pub storage: &'static str,
    /// Another version of the same stored object that this one is converted to before it is stored
    /// (`events.k8s.io/v1` Events are stored as v1 Events).
    pub stored_as: Option<&'static str>,
    /// What is special about this kind.
    pub strategy: &'static dyn Strategy,
    /// What `kubectl get` prints after the name.
    pub columns: &'static [Column],
    /// Fields that a field selector may name beside `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [&'static str],
    /// What clients should hear that use the kind although there is a better one; empty: nothing.
    pub deprecation: &'static str,
    /// Whether a PUT creates an object that is not there (upstream's `AllowCreateOnUpdate`).
    pub created_by_put: bool,
    /// Whether a PUT has to name the version that it is based on (where upstream's `AllowUnconditionalUpdate` is false).
    pub needs_version: bool,
    /// Whether a deletion is answered with the object and not with a Status (upstream's `ReturnDeletedObject`).
    pub returned_when_deleted: bool,
    /// The JSON schema's name in k8s-openapi, such as `io.k8s.api.core.v1.Pod`.
    pub schema: &'static str,
    /// What a CustomResourceDefinition says of its kind; `None` for what is built in.
    pub custom: Option<&'static crd::Version>,
}

impl Kind {
    /// The row of the version that objects of this kind are stored in; `None` when it is this one.
    pub fn stored(&self) -> Option<&'static Kind> {
        let stored = self.custom?.definition.stored()?;
        (stored.version != self.version).then_some(stored)
    }

    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.into() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `/apis/apps/v1`, or `/api/v1` in the core group.
    pub fn base_path(&self) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        format!("{root}/{}", self.api_version())
    }

    /// The kind of lists of its objects.
    pub fn list_kind(&self) -> String {
        match self.custom {
            Some(version) => version.definition.list_kind.to_string(),
            None => format!("{}List", self.kind),
        }
    }

    /// Whether objects live in a namespace.
    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }
}

/// Whether a kind's objects live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One name space for each namespace.
    Namespaced,
    /// One for the whole cluster.
    Cluster,
}

/// What clients may do with a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbs {
    /// create, delete, deletecollection, get, list, patch, update, watch.
    All,
    /// The same without deletecollection (`namespaces`).
    OneByOne,
    /// create only: reviews, which are answered and never stored.
    Create,
    /// get and list only (`componentstatuses`).
    Read,
}

impl Verbs {
    /// Whether there are objects that clients write.
    pub fn can_write(self) -> bool {
        matches!(self, Verbs::All | Verbs::OneByOne)
    }
}

/// Where the `scale` subresource reads and writes, as paths of field names from the object's root.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Wanted number of replicas, such as `["spec", "replicas"]`.
    pub spec_replicas: &'static [&'static str],
    /// Present number of replicas.
    pub status_replicas: &'static [&'static str],
    /// The label selector.
    pub selector: &'static [&'static str],
}

/// What one kind does differently; every method has a default that does nothing. All pure.
pub trait Strategy: Sync {
    /// Fills in what the user left out, as upstream's defaults do. Runs on every write.
    fn set_defaults(&self, _object: &mut Object) {}

    /// Last changes before an object is stored for the first time (status reset, generation, ...).
    /// Generic fields (uid, creationTimestamp, generation, an emptied status) are set already.
    fn prepare_for_create(&self, _object: &mut Object) {}

    /// Last changes before `object` replaces `old`; carries over what a client may not change.
    fn prepare_for_update(&self, _object: &mut Object, _old: &Object) {}

    /// All faults at once, each at its field path. With `old`, also forbidden changes.
    fn validate(&self, _object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        Vec::new()
    }

    /// Last changes before a deletion that begins is decided on, such as a finalizer of the server's own.
    fn prepare_for_delete(&self, _object: &mut Object, _now: Timestamp) {}

    /// Whether a write to the `status` subresource leaves labels, annotations, finalizers and owners as they are:
    /// upstream's rule for kinds that came late. With the older ones, whoever writes the status may change them.
    fn status_is_apart(&self) -> bool {
        false
    }

    /// What a report leaves out, before a write to `status`, or to another subresource that changes the object, is
    /// judged: the times of its conditions, what may not be lost.
    fn complete_status(&self, _subresource: &str, _object: &mut Object, _old: &Object, _now: Timestamp) {}

    /// Faults of a write to the `status` subresource.
    fn validate_status(&self, _object: &Object, _old: &Object) -> Vec<FieldError> {
        Vec::new()
    }

    /// Last changes before a write to another subresource that changes the object itself
    /// (`ephemeralcontainers`, `resize`, `finalize`, `approval`) replaces `old`: puts back what this
    /// subresource may not change. Runs instead of [`Strategy::prepare_for_update`].
    fn prepare_for_subresource(&self, _subresource: &str, _object: &mut Object, _old: &Object) {}

    /// Faults of such a write. Runs instead of [`Strategy::validate`].
    fn validate_subresource(&self, _subresource: &str, _object: &Object, _old: &Object) -> Vec<FieldError> {
        Vec::new()
    }

    /// What rows of a list's table are sorted by before their names, where upstream sorts them.
    fn row_rank(&self) -> Option<fn(&Object) -> i64> {
        None
    }

    /// Whether an object that is given no name at all gets one that nobody else has.
    fn has_random_name(&self) -> bool {
        false
    }

    /// Whether upstream counts `metadata.generation` for this kind at all.
    fn has_generation(&self) -> bool {
        true
    }

    /// Whether finalizers may be any qualified names. Upstream asks for a domain, too, where metadata goes through the
    /// rules of its core group; that of some kinds does not.
    fn has_free_finalizers(&self) -> bool {
        false
    }

    /// How long to wait between a graceful deletion and the removal, in seconds; `None`: remove at once.
    /// `requested` is the client's `gracePeriodSeconds`.
    fn grace_period(&self, _object: &Object, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether metadata.name may hold this text; the default is a DNS subdomain. The error is upstream's message.
    fn validate_name(&self, name: &str) -> Result<(), String> {
        crate::name::dns_subdomain(name)
    }

    /// Whether a change from `old` to `object` counts as a new generation; the default compares everything
    /// but metadata and status.
    fn is_new_generation(&self, object: &Object, old: &Object) -> bool {
        object.without_metadata_and_status() != old.without_metadata_and_status()
    }

    /// Warnings for the client that wrote the object (HTTP `Warning` header), instead of `old` if there was one.
    fn warnings(&self, _object: &Object, _old: Option<&Object>) -> Vec<String> {
        Vec::new()
    }

    /// The faults of an update and, when it has none, its warnings. For kinds where one costly pass finds both.
    fn judge_update(&self, object: &Object, old: &Object) -> (Vec<FieldError>, Vec<String>) {
        let faults = self.validate(object, Some(old));
        let warnings = if faults.is_empty() { self.warnings(object, Some(old)) } else { Vec::new() };
        (faults, warnings)
    }
}

/// The strategy of kinds about which nothing is special.
pub struct Plain;
impl Strategy for Plain {}

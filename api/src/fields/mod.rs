//! Who owns which fields of an object, and what server-side apply makes of it.
//!
//! Every write is attributed: [`update`] gives what a write changed to its manager and takes it from all
//! others. [`apply`] lays a configuration over an object, removes what the manager applied before and
//! nobody else has, and refuses, unless forced, to change what others own. Both work on [`Set`]s of paths,
//! which they read out of objects by the rules of the [`crate::schema`]: lists and maps are one whole, or their
//! items have owners of their own. The semantics are those of upstream's structured merge and diff.

mod apply;
mod check;
mod compare;
mod element;
mod managers;
mod merge;
mod overlay;
mod place;
mod remove;
mod set;
mod update;
mod walk;

pub use apply::{ApplyError, Conflict, Conflicts, apply};
pub use compare::Comparison;
pub use element::Element;
pub use managers::{Entry, Manager, Managers, Operation};
pub use overlay::overlay;
pub use set::Set;
pub use update::update;

use serde_json::{Map, Value};

use crate::{Object, schema::Schema};
use place::Place;

/// The annotation with which client-side apply remembers.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Fields that belong to nobody, of the metadata.
const UNOWNED: [&str; 9] = [
    "clusterName",
    "creationTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// A write, as far as ownership is concerned.
pub struct Write<'a> {
    /// Who writes, how, in which version and through which subresource.
    pub manager: Manager,
    /// When, as entries have it.
    pub now: String,
    /// The object's type in that version.
    pub schema: Option<&'static Schema>,
    /// Fields at the top of the object that such a write cannot change, and so does not own.
    pub reset: &'a [&'a str],
    /// The object in other versions.
    pub versions: &'a dyn Versions,
}

/// The versions of an object in which other managers may name fields.
pub trait Versions {
    /// The object in another version and that version's type; `None` when there is no such version any more.
    fn converted(&self, object: &Object, api_version: &str) -> Option<(Object, Option<&'static Schema>)>;

    /// Whether there is such a version, although nobody here knows how to convert to it: what is owned in it stays
    /// owned.
    fn is_known(&self, _api_version: &str) -> bool {
        false
    }
}

/// Of a kind with one version.
pub struct OneVersion;

impl Versions for OneVersion {
    fn converted(&self, _object: &Object, _api_version: &str) -> Option<(Object, Option<&'static Schema>)> {
        None
    }
}

impl Write<'_> {
    /// What differs, but for what nobody owns and this write cannot change.
    fn compare(&self, schema: Option<&'static Schema>, old: &Object, new: &Object) -> Comparison {
        compare(schema, old, new, self.reset)
    }
}

/// What differs between two states of an object, but for what nobody owns and the fields at the top that
/// `reset` names.
pub fn compare(schema: Option<&'static Schema>, old: &Object, new: &Object, reset: &[&str]) -> Comparison {
    let skips = |field: &str, inner: Option<&str>| match inner {
        Some(inner) => UNOWNED.contains(&inner),
        None => matches!(field, "apiVersion" | "kind") || reset.contains(&field),
    };
    compare::objects(Place::of(schema), &old.0, &new.0, &skips)
}

/// What a configuration asks for, but for what nobody owns and the fields at the top that `reset` names.
pub fn applied_fields(schema: Option<&'static Schema>, config: &Object, reset: &[&str]) -> Set {
    let fields = walk::applied(Place::of(schema), &Value::Object(config.0.clone())).below;
    fields
        .recursive_difference(&unowned(reset))
        .difference(&[[Element::field("metadata")]].into_iter().collect())
}

fn unowned(reset: &[&str]) -> Set {
    let top = ["apiVersion", "kind"].iter().chain(reset).map(|name| vec![Element::field(name.to_string())]);
    let metadata = UNOWNED.iter().map(|name| vec![Element::field("metadata"), Element::field(*name)]);
    top.chain(metadata).collect()
}

/// An object without `metadata.managedFields`, for comparisons.
fn bare(object: &Object) -> Object {
    let mut object = object.clone();
    object.remove(&["metadata", "managedFields"]);
    object
}

fn empty() -> Object {
    Object(Map::new())
}

#[cfg(test)]
mod tests;

//! Server-side apply.

use serde_json::Value;

use super::{
    Comparison, LAST_APPLIED, Manager, Managers, Operation, Set, Write, applied_fields, bare, check, empty,
    managers::Entry,
    merge::merged,
    place::Place,
    remove::{reconciled, with_parents, without},
    update::{attributed, compared_in},
    walk,
};
use crate::{Object, Status, meta::ANNOTATIONS_LIMIT, schema::Schema};

/// A field that somebody else has set to something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Whose it is.
    pub manager: Manager,
    /// Which, as `.spec.replicas`.
    pub field: String,
}

/// All of them, by manager.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts(pub Vec<Conflict>);

/// Why a configuration cannot be applied.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// It has entries of its own.
    #[error("metadata.managedFields must be nil")]
    HasManagers,
    /// It does not fit its type.
    #[error("failed to create typed patch object ({object}): {faults}")]
    Untyped {
        /// Namespace, name and kind.
        object: String,
        /// Everything that is wrong.
        faults: String,
    },
    /// The object's own entries make no sense.
    #[error("failed to decode managed fields: {0}")]
    Unreadable(String),
    /// Others own what it would change.
    #[error("{0}")]
    Conflicts(Conflicts),
}

/// The manager for which client-side apply's memory is kept and believed.
const KUBECTL: &str = "kubectl";

/// Who owns what was there before anybody applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Lays `config` over `live`; without one, over nothing. The new object has its `managedFields` but is not
/// yet defaulted or validated.
pub fn apply(
    write: &Write<'_>,
    live: Option<&Object>,
    config: &Object,
    force: bool,
) -> Result<Object, ApplyError> {
    if config.at(&["metadata", "managedFields"]).is_some_and(|value| !value.is_null()) {
        return Err(ApplyError::HasManagers);
    }
    check_type(write, config)?;
    let mut managers = match live {
        Some(live) => Managers::of(live).map_err(ApplyError::Unreadable)?,
        None => Managers::default(),
    };
    let live = live.map_or_else(empty, bare);
    if managers.0.is_empty() && !live.0.is_empty() {
        let manager = Manager {
            name: BEFORE_FIRST_APPLY.into(),
            operation: Operation::Update,
            ..write.manager.clone()
        };
        let before = Write { manager, now: write.now.clone(), ..*write };
        let nothing = empty();
        let comparison = before.compare(before.schema, &nothing, &live);
        managers = attributed(&before, &nothing, &live, managers, comparison);
    }

    let (object, mut managers) = match attempt(write, &live, config, managers.clone(), force) {
        Err(conflicts) => forgiven(write, &live, config, managers, conflicts)?,
        Ok(applied) => applied,
    };
    let object = if object == live {
        live
    } else {
        if let Some(entry) = managers.0.iter_mut().find(|entry| entry.manager.is_same(&write.manager)) {
            entry.time = Some(write.now.clone());
        }
        object
    };
    let mut object = remembering(write, object, config);
    if let Some(json) = managers.to_json() {
        object.set(&["metadata", "managedFields"], json);
    }
    Ok(object)
}

fn check_type(write: &Write<'_>, config: &Object) -> Result<(), ApplyError> {
    let faults = check::check(write.schema, &Value::Object(config.0.clone()));
    let faults = match faults.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    let (group, version) = config.api_version().split_once('/').unwrap_or(("", config.api_version()));
    let (namespace, name, kind) = (config.namespace(), config.name(), config.kind());
    let object = format!("{namespace}/{name}; {group}/{version}, Kind={kind}");
    Err(ApplyError::Untyped { object, faults })
}

/// The merged and pruned object, and who owns it then.
fn attempt(
    write: &Write<'_>,
    live: &Object,
    config: &Object,
    mut managers: Managers,
    force: bool,
) -> Result<(Object, Managers), Conflicts> {
    for entry in &mut managers.0 {
        if entry.manager.api_version == write.manager.api_version {
            entry.fields = reconciled(Place::of(write.schema), &entry.fields);
        }
    }
    let last = managers.remove(&write.manager);
    let time = last.as_ref().and_then(|last| last.time.clone());
    let fields = applied_fields(write.schema, config, write.reset);
    managers.0.push(Entry { manager: write.manager.clone(), time, fields });
    let laid = laid_over(write.schema, live, config);
    let object = match &last {
        Some(last) => pruned(write, laid, &managers, last),
        None => laid,
    };
    let managers = settled(write, live, &object, managers, force)?;
    Ok((object, managers))
}

fn laid_over(schema: Option<&'static Schema>, live: &Object, config: &Object) -> Object {
    let (live, config) = (Value::Object(live.0.clone()), Value::Object(config.0.clone()));
    let value = merged(Place::of(schema), Some(&live), Some(&config));
    value.and_then(Object::from_value).unwrap_or_default()
}

/// Takes from the others what has changed; when they own some of it, only by force.
fn settled(
    write: &Write<'_>,
    live: &Object,
    object: &Object,
    managers: Managers,
    force: bool,
) -> Result<Managers, Conflicts> {
    let own = write.compare(write.schema, live, object);
    let mut conflicts = Conflicts::default();
    let mut left = Managers::default();
    for mut entry in managers.0 {
        if !entry.manager.is_same(&write.manager) {
            let converted;
            let comparison: &Comparison = if entry.manager.api_version == write.manager.api_version {
                &own
            } else {
                match compared_in(write, live, object, &entry.manager.api_version) {
                    Some((_, comparison)) => converted = comparison,
                    None => {
                        if write.versions.is_known(&entry.manager.api_version) {
                            left.0.push(entry);
                        }
                        continue;
                    }
                }
                &converted
            };
            conflicts.add(&entry.manager, &entry.fields.intersection(&comparison.changed));
            entry.fields = entry.fields.difference(&comparison.changed).difference(&comparison.removed);
        }
        if !entry.fields.is_empty() {
            left.0.push(entry);
        }
    }
    if conflicts.0.is_empty() || force { Ok(left) } else { Err(conflicts) }
}

/// The object without what the manager applied the last time, does not apply now, and nobody else owns.
fn pruned(write: &Write<'_>, laid: Object, managers: &Managers, last: &Entry) -> Object {
    let own_version = write.manager.api_version.as_str();
    let version = last.manager.api_version.as_str();
    let Some((laid_then, schema)) = in_version(write, &laid, version) else { return laid };
    let place = Place::of(schema);
    let last = with_parents(place, &last.fields);

    let mut pruned = taken(place, &laid_then, &last);
    // The version at hand first: conversions may need what is added back in it.
    let mut versions: Vec<&str> = vec![version];
    versions.extend(managers.0.iter().map(|entry| entry.manager.api_version.as_str()));
    versions.dedup();
    let mut done: Vec<&str> = Vec::new();
    for version in versions {
        if done.contains(&version) {
            continue;
        }
        done.push(version);
        let in_that = |entry: &&Entry| entry.manager.api_version == version;
        let owned =
            managers.0.iter().filter(in_that).fold(Set::default(), |set, entry| set.union(&entry.fields));
        if let Some(with) = with_owned(write, &laid, &pruned, version, &owned) {
            pruned = with;
        }
    }

    // Only what was the manager's own may go.
    let Some((pruned, _)) = in_version(write, &pruned, version) else { return laid };
    let gone = contents(place, &laid_then).difference(&contents(place, &pruned));
    let object = taken(place, &laid_then, &gone.intersection(&last));
    in_version(write, &object, own_version).map_or(laid, |(object, _)| object)
}

/// `pruned` with everything of `laid` again that somebody owns, in one version.
fn with_owned(
    write: &Write<'_>,
    laid: &Object,
    pruned: &Object,
    version: &str,
    owned: &Set,
) -> Option<Object> {
    let (laid, schema) = in_version(write, laid, version)?;
    let (pruned, _) = in_version(write, pruned, version)?;
    let place = Place::of(schema);
    let kept = contents(place, &pruned).union(&with_parents(place, owned));
    Some(taken(place, &laid, &contents(place, &laid).difference(&kept)))
}

fn contents(place: Place, object: &Object) -> Set {
    with_parents(place, &walk::applied(place, &Value::Object(object.0.clone())).below)
}

fn taken(place: Place, object: &Object, set: &Set) -> Object {
    let value = without(place, &Value::Object(object.0.clone()), set);
    value.and_then(Object::from_value).unwrap_or_default()
}

fn in_version(
    write: &Write<'_>,
    object: &Object,
    version: &str,
) -> Option<(Object, Option<&'static Schema>)> {
    if object.api_version() == version {
        let schema = match version == write.manager.api_version {
            true => write.schema,
            false => write.versions.converted(object, version)?.1,
        };
        return Some((object.clone(), schema));
    }
    write.versions.converted(object, version)
}

/// kubectl may change what its own client-side apply has set: whoever goes over to server-side apply meets
/// no conflict with himself.
fn forgiven(
    write: &Write<'_>,
    live: &Object,
    config: &Object,
    managers: Managers,
    conflicts: Conflicts,
) -> Result<(Object, Managers), ApplyError> {
    let allowed = match write.manager.name == KUBECTL {
        true => last_applied_fields(write, live),
        false => None,
    };
    let Some(allowed) = allowed else { return Err(ApplyError::Conflicts(conflicts)) };
    let mut shown = std::collections::BTreeSet::new();
    allowed.for_each(&mut |path| {
        shown.insert(path.iter().map(ToString::to_string).collect::<String>());
    });
    let rest: Vec<Conflict> =
        conflicts.0.into_iter().filter(|conflict| !shown.contains(&conflict.field)).collect();
    if !rest.is_empty() {
        return Err(ApplyError::Conflicts(Conflicts(rest)));
    }
    attempt(write, live, config, managers, true).map_err(ApplyError::Conflicts)
}

/// What client-side apply has set and nobody has changed since.
fn last_applied_fields(write: &Write<'_>, live: &Object) -> Option<Set> {
    let text = live.annotation(LAST_APPLIED).filter(|text| !text.is_empty())?;
    let last = serde_json::from_str(text).ok().and_then(Object::from_value)?;
    if last.api_version() != write.manager.api_version {
        return None;
    }
    let Comparison { changed, removed } = write.compare(write.schema, &last, live);
    Some(applied_fields(write.schema, &last, write.reset).difference(&changed).difference(&removed))
}

/// Client-side apply's memory is kept up to date where there is one, so that kubectl may go back to it.
fn remembering(write: &Write<'_>, mut object: Object, config: &Object) -> Object {
    let has_memory = object.annotation(LAST_APPLIED).is_some_and(|text| !text.is_empty());
    if write.manager.name != KUBECTL || !has_memory {
        return object;
    }
    let mut config = config.clone();
    let path = ["metadata", "annotations", LAST_APPLIED];
    config.remove(&path);
    let text = format!("{}\n", config.into_value());
    let annotations = object.map_mut(&["metadata", "annotations"]);
    annotations.remove(LAST_APPLIED);
    let size = |(key, value): (&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
    let others: usize = annotations.iter().map(size).sum();
    if others + LAST_APPLIED.len() + text.len() <= ANNOTATIONS_LIMIT {
        object.set(&path, text);
    }
    object
}

impl Conflicts {
    fn add(&mut self, manager: &Manager, fields: &Set) {
        fields.for_each(&mut |path| {
            let field = path.iter().map(ToString::to_string).collect();
            self.0.push(Conflict { manager: manager.clone(), field });
        });
    }

    /// 409, with a cause for each.
    pub fn into_status(self) -> Status {
        let causes: Vec<Value> = self
            .0
            .iter()
            .map(|conflict| {
                serde_json::json!({
                    "reason": "FieldManagerConflict",
                    "message": format!("conflict with {}", conflict.manager),
                    "field": conflict.field,
                })
            })
            .collect();
        let mut status = Status::new(409, "Conflict", self.to_string());
        status.details = Some(serde_json::json!({ "causes": causes }));
        status
    }
}

impl std::fmt::Display for Conflicts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let [Conflict { manager, field }] = self.0.as_slice() {
            return write!(f, "Apply failed with 1 conflict: conflict with {manager}: {field}");
        }
        let mut lines = Vec::new();
        let mut named: Vec<String> = Vec::new();
        for conflict in &self.0 {
            let name = conflict.manager.to_string();
            if !named.contains(&name) {
                named.push(name);
            }
        }
        named.sort();
        for name in named {
            lines.push(format!("conflicts with {name}:"));
            let fields = self.0.iter().filter(|conflict| conflict.manager.to_string() == name);
            lines.extend(fields.map(|conflict| format!("- {}", conflict.field)));
        }
        write!(f, "Apply failed with {} conflicts: {}", self.0.len(), lines.join("\n"))
    }
}

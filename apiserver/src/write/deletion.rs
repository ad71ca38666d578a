//! What a DELETE does to an object: remove it, mark it, or nothing, as finalizers and grace period have it.

use api::{Kind, Object, Status, time};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::request::{DeleteOptions, Propagation};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Deletion {
    /// Nothing holds the object.
    Remove,
    /// It is being deleted from now on, and looks like this.
    Mark(Box<Object>),
    /// It is being deleted already.
    Pending,
}

/// Decides. The object's preconditions must hold, else 409.
pub(super) fn plan(
    kind: &'static Kind,
    old: &Object,
    options: &DeleteOptions,
    now: Timestamp,
) -> Result<Deletion, Status> {
    check_preconditions(kind, old, options)?;
    let mut object = old.clone();
    if old.deletion_timestamp().is_none() {
        kind.strategy.prepare_for_delete(&mut object, now);
    }
    let grace = match Grace::of(kind, old, options.grace_period) {
        Grace::Pending => return Ok(Deletion::Pending),
        Grace::None => None,
        Grace::Shorter { began, seconds } => Some(mark(&mut object, began, seconds)),
        Grace::New { seconds } => {
            if object.generation() > 0 {
                object.set(&["metadata", "generation"], object.generation() + 1);
            }
            Some(mark(&mut object, now, seconds))
        }
    };
    set_finalizers(&mut object, options.propagation);
    let is_held = is_held(kind, &object);
    if grace.is_none() && is_held && object.deletion_timestamp().is_none() {
        if object.generation() > 0 {
            object.set(&["metadata", "generation"], object.generation() + 1);
        }
        mark(&mut object, now, 0);
    }
    if !is_held && grace.is_none_or(|seconds| seconds == 0) {
        return Ok(Deletion::Remove);
    }
    if is_namespace_like(kind) {
        object.set(&["status", "phase"], "Terminating");
    }
    Ok(if object == *old { Deletion::Pending } else { Deletion::Mark(Box::new(object)) })
}

/// Whether an object that is being deleted has nothing left to wait for.
pub(super) fn is_due(kind: &Kind, object: &Object) -> bool {
    let grace = object.number(&["metadata", "deletionGracePeriodSeconds"]);
    object.deletion_timestamp().is_some() && grace.unwrap_or(0) == 0 && !is_held(kind, object)
}

/// What the grace period makes of the deletion.
enum Grace {
    /// This kind knows none, or none is left.
    None,
    /// An earlier deletion runs and is not made shorter.
    Pending,
    /// An earlier deletion that began at `began` gets less time.
    Shorter { began: Timestamp, seconds: i64 },
    /// The deletion begins.
    New { seconds: i64 },
}

impl Grace {
    fn of(kind: &'static Kind, old: &Object, requested: Option<i64>) -> Grace {
        let Some(timestamp) = old.deletion_timestamp() else {
            return match kind.strategy.grace_period(old, requested) {
                Some(seconds) => Grace::New { seconds },
                None => Grace::None,
            };
        };
        let Some(running @ 1..) = old.number(&["metadata", "deletionGracePeriodSeconds"]) else {
            return Grace::None;
        };
        match requested {
            Some(seconds) if seconds < running => {
                let ends = time::parse(timestamp).unwrap_or(Timestamp::UNIX_EPOCH);
                let began = ends.saturating_sub(SignedDuration::from_secs(running));
                Grace::Shorter { began: began.unwrap_or(ends), seconds }
            }
            _ => Grace::Pending,
        }
    }
}

fn mark(object: &mut Object, from: Timestamp, seconds: i64) -> i64 {
    let ends = from.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(from);
    object.set(&["metadata", "deletionTimestamp"], time::format(ends));
    object.set(&["metadata", "deletionGracePeriodSeconds"], seconds);
    seconds
}

/// The garbage collector learns by finalizers what becomes of dependents.
fn set_finalizers(object: &mut Object, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let wanted = match propagation {
        Propagation::Orphan => Some(ORPHAN),
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Background => None,
    };
    let mut finalizers: Vec<&str> =
        object.finalizers().filter(|name| !matches!(*name, ORPHAN | FOREGROUND)).collect();
    finalizers.extend(wanted);
    if finalizers.iter().copied().eq(object.finalizers()) {
        return;
    }
    let finalizers: Vec<Value> = finalizers.into_iter().map(Value::from).collect();
    match finalizers.is_empty() {
        true => drop(object.remove(&["metadata", "finalizers"])),
        false => object.set(&["metadata", "finalizers"], finalizers),
    }
}

/// Whether somebody has something to do before the object may go.
fn is_held(kind: &Kind, object: &Object) -> bool {
    let is_filled = |path: &[&str]| !object.list(path).is_empty();
    is_filled(&["metadata", "finalizers"]) || (is_namespace_like(kind) && is_filled(&["spec", "finalizers"]))
}

/// Whether the kind's objects are emptied before they go: they are finalized by a subresource.
fn is_namespace_like(kind: &Kind) -> bool {
    kind.subresources.contains(&"finalize")
}

fn check_preconditions(kind: &Kind, old: &Object, options: &DeleteOptions) -> Result<(), Status> {
    // Upstream names the kind here and not the resource.
    let conflict = |what: &str, wanted: &str, actual: &str, guess: &str| {
        let why = format!(
            "the {what} in the precondition ({wanted}) does not match the {what} in record ({actual}). The object might have been {guess}"
        );
        Err(Status::conflict(kind.group, kind.kind, old.name(), &why))
    };
    match (&options.uid, &options.resource_version) {
        (Some(uid), _) if uid != old.uid() => conflict("UID", uid, old.uid(), "deleted and then recreated"),
        (_, Some(version)) if version != old.resource_version() => {
            conflict("ResourceVersion", version, old.resource_version(), "modified")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::kinds;
    use serde_json::json;

    fn kind(plural: &str) -> &'static Kind {
        kinds::find("", "v1", plural).unwrap()
    }

    fn object(metadata: Value) -> Object {
        Object::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn marked(deletion: Deletion) -> Object {
        match deletion {
            Deletion::Mark(object) => *object,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_object_that_nothing_holds_goes_at_once() {
        let config = object(json!({"name": "a"}));
        let plan = plan(kind("configmaps"), &config, &DeleteOptions::default(), now());
        assert_eq!(plan, Ok(Deletion::Remove));
    }

    #[test]
    fn finalizers_hold() {
        let config = object(json!({"name": "a", "finalizers": ["x/y"]}));
        let held = marked(plan(kind("configmaps"), &config, &DeleteOptions::default(), now()).unwrap());
        assert_eq!(held.deletion_timestamp(), Some("2026-01-01T00:00:00Z"));
        let again = plan(kind("configmaps"), &held, &DeleteOptions::default(), now());
        assert_eq!(again, Ok(Deletion::Pending));
        let mut freed = held;
        assert!(!is_due(kind("configmaps"), &freed));
        freed.remove(&["metadata", "finalizers"]);
        assert!(is_due(kind("configmaps"), &freed));
    }

    #[test]
    fn the_propagation_policy_becomes_a_finalizer() {
        let config = object(json!({"name": "a", "finalizers": ["orphan", "x/y"]}));
        let options = DeleteOptions { propagation: Some(Propagation::Foreground), ..Default::default() };
        let held = marked(plan(kind("configmaps"), &config, &options, now()).unwrap());
        assert_eq!(held.finalizers().collect::<Vec<_>>(), ["x/y", "foregroundDeletion"]);
        let options = DeleteOptions { propagation: Some(Propagation::Background), ..Default::default() };
        let orphaned = object(json!({"name": "a", "finalizers": ["orphan"]}));
        assert_eq!(plan(kind("configmaps"), &orphaned, &options, now()), Ok(Deletion::Remove));
    }

    #[test]
    fn a_grace_period_can_only_get_shorter() {
        let pod = object(
            json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}),
        );
        let ask = |seconds| DeleteOptions { grace_period: Some(seconds), ..Default::default() };
        assert_eq!(plan(kind("pods"), &pod, &ask(60), now()), Ok(Deletion::Pending));
        let shorter = marked(plan(kind("pods"), &pod, &ask(5), now()).unwrap());
        assert_eq!(shorter.deletion_timestamp(), Some("2026-01-01T00:00:05Z"));
        assert_eq!(plan(kind("pods"), &pod, &ask(0), now()), Ok(Deletion::Remove));
    }

    #[test]
    fn preconditions_must_hold() {
        let config = object(json!({"name": "a", "uid": "1"}));
        let options = DeleteOptions { uid: Some("2".into()), ..Default::default() };
        let status = plan(kind("configmaps"), &config, &options, now()).unwrap_err();
        assert_eq!((status.code, status.reason), (409, "Conflict"));
    }

    #[test]
    fn a_namespace_waits_until_it_is_finalized() {
        let namespace = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}});
        let namespace = Object::from_value(namespace).unwrap();
        let mut held =
            marked(plan(kind("namespaces"), &namespace, &DeleteOptions::default(), now()).unwrap());
        assert_eq!(held.text(&["status", "phase"]), "Terminating");
        held.remove(&["spec", "finalizers"]);
        assert!(is_due(kind("namespaces"), &held));
    }
}

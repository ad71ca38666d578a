//! Who owns the fields of an object that is written: `metadata.managedFields`.

use api::{
    Kind, Object, Status,
    fields::{self, ApplyError, Managers, Operation, Versions},
    kinds,
    schema::{self, Schema},
    time,
};
use serde_json::{Map, Value};

use super::{Manager, Write, Written, others::Others, update};
use crate::registry::{
    convert::{from_stored, stored_kind, to_stored},
    now,
};

/// Gives what has changed since `old` to whoever writes.
pub(super) async fn attribute(write: &Write<'_>, old: Option<&Object>, object: &mut Object) {
    match write.manager {
        Manager::Settled => {}
        Manager::Named(name) => match Others::of(write.kind) {
            Some(others) => attribute_in_all_versions(write, name, old, object, others).await,
            None => {
                fields::update(&of(write, name, Operation::Update, versions(write.kind)), old, object);
            }
        },
        Manager::Nobody => {
            object.take_over(&["metadata", "managedFields"], old.unwrap_or(&Object::default()));
        }
    }
}

/// A webhook that fails does not hold up the write, as upstream; but owners in its versions stay what they were.
async fn attribute_in_all_versions(
    write: &Write<'_>,
    name: &str,
    old: Option<&Object>,
    object: &mut Object,
    mut others: Others,
) {
    loop {
        let mut attributed = object.clone();
        fields::update(&of(write, name, Operation::Update, &others), old, &mut attributed);
        match others.answer(write.registry).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(status) => tracing::warn!(%status, "owners in other versions stay as they are"),
        }
        *object = attributed;
        return;
    }
}

/// The new object that a configuration alone makes.
pub(crate) fn applied_to_nothing(
    write: &Write<'_>,
    manager: &str,
    config: &Object,
) -> Result<Object, ApplyError> {
    fields::apply(&of(write, manager, Operation::Apply, versions(write.kind)), None, config, false)
}

/// Changes the object that `write` names to what it is with a configuration applied to it; `finish` has the last word.
pub(crate) async fn apply(
    write: &Write<'_>,
    manager: &str,
    config: &Object,
    force: bool,
    mut finish: impl FnMut(Result<Object, ApplyError>) -> Result<Object, Status> + Send,
) -> Result<Written, Status> {
    let mut others = Others::of(write.kind);
    loop {
        let written = update(write, |old| {
            let known: &dyn Versions = match &others {
                Some(others) => others,
                None => versions(write.kind),
            };
            let of_write = of(write, manager, Operation::Apply, known);
            let applied = fields::apply(&of_write, Some(&old), config, force);
            match &others {
                Some(others) if !others.is_settled() => Err(undecided()),
                _ => finish(applied),
            }
        });
        let written = written.await;
        let is_answered = match &mut others {
            Some(others) => others.answer(write.registry).await?,
            None => false,
        };
        if !is_answered {
            return written;
        }
    }
}

/// Stops a write until a webhook has answered; no client sees it.
fn undecided() -> Status {
    Status::internal("owners in other versions are not known yet")
}

/// What a client hears of a configuration that cannot be applied.
pub(crate) fn refusal(error: ApplyError) -> Status {
    match error {
        ApplyError::HasManagers => Status::bad_request(error.to_string()),
        ApplyError::Conflicts(conflicts) => conflicts.into_status(),
        ApplyError::Untyped { .. } | ApplyError::Unreadable(_) => Status::new(500, "", error.to_string()),
    }
}

/// A write that would change nothing but the times at which fields were written changes nothing.
pub(super) fn keep_times_of_idle_writes(object: &mut Object, old: &Object) {
    let path = ["metadata", "managedFields"];
    let (Some(new), Some(kept)) = (object.at(&path), old.at(&path)) else { return };
    if new == kept || !is_same_but_for_managers(object, old) {
        return;
    }
    let (new, before) = (Managers::from_json(new), Managers::from_json(kept));
    if new.is_ok_and(|new| before.is_ok_and(|before| new.is_same_but_for_times(&before))) {
        object.set(&path, kept.clone());
    }
}

fn is_same_but_for_managers(object: &Object, old: &Object) -> bool {
    fn without<'a>(
        map: Option<&'a Map<String, Value>>,
        field: &'a str,
    ) -> impl Iterator<Item = (&'a String, &'a Value)> {
        map.into_iter().flatten().filter(move |(key, _)| *key != field)
    }
    fn metadata(object: &Object) -> Option<&Map<String, Value>> {
        object.0.get("metadata").and_then(Value::as_object)
    }
    without(Some(&object.0), "metadata").eq(without(Some(&old.0), "metadata"))
        && without(metadata(object), "managedFields").eq(without(metadata(old), "managedFields"))
}

fn of<'a>(
    write: &Write<'_>,
    name: &str,
    operation: Operation,
    versions: &'a dyn Versions,
) -> fields::Write<'a> {
    let kind = write.kind;
    fields::Write {
        manager: fields::Manager {
            name: if name.is_empty() { "unknown".into() } else { name.into() },
            operation,
            api_version: kind.api_version(),
            subresource: write.subresource.into(),
        },
        now: time::format(now()),
        schema: schema::of(kind),
        reset: reset(kind, write.subresource),
        versions,
    }
}

/// What a write cannot change, and so nobody owns by it.
fn reset(kind: &Kind, subresource: &str) -> &'static [&'static str] {
    match subresource {
        "" | "scale" if kind.status => &["status"],
        "status" => &["spec"],
        _ => &[],
    }
}

fn versions(kind: &Kind) -> &'static dyn Versions {
    if let Some(version) = kind.custom {
        return version;
    }
    let has_others =
        kinds::KINDS.iter().any(|other| other.storage == kind.storage && other.version != kind.version)
            || kind.storage == "events";
    if has_others { &AllVersions } else { &fields::OneVersion }
}

/// Built-in kinds in all their versions.
struct AllVersions;

impl Versions for AllVersions {
    fn converted(&self, object: &Object, api_version: &str) -> Option<(Object, Option<&'static Schema>)> {
        let find = |api_version: &str| {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            kinds::find_kind(group, version, object.kind())
        };
        let (from, to) = (find(object.api_version())?, find(api_version)?);
        let is_same = stored_kind(from).storage == stored_kind(to).storage;
        is_same.then(|| (from_stored(to, to_stored(from, object.clone())), schema::of(to)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_autoscaler_has_the_same_owners_in_both_versions() {
        let v2 = kinds::find("autoscaling", "v2", "horizontalpodautoscalers").unwrap();
        let autoscaler = Object::from_value(json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"maxReplicas": 3},
        }));
        let (old, schema) = versions(v2).converted(&autoscaler.unwrap(), "autoscaling/v1").unwrap();
        assert_eq!(old.api_version(), "autoscaling/v1");
        assert_eq!(schema.unwrap().version(), "v1");
        assert!(versions(v2).converted(&old, "autoscaling/v2beta2").is_none());
        let pods = kinds::find("", "v1", "pods").unwrap();
        assert!(versions(pods).converted(&old, "v1").is_none());
    }

    #[test]
    fn times_alone_are_no_change() {
        let object = |time: &str, value: &str| {
            let entry = json!({"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "time": time, "fieldsV1": {"f:data": {}}});
            Object::from_value(json!({"metadata": {"name": "a", "managedFields": [entry]}, "data": value}))
                .unwrap()
        };
        let old = object("2026-01-01T00:00:00Z", "x");
        let mut idle = object("2027-01-01T00:00:00Z", "x");
        keep_times_of_idle_writes(&mut idle, &old);
        assert_eq!(idle, old);
        let mut busy = object("2027-01-01T00:00:00Z", "y");
        keep_times_of_idle_writes(&mut busy, &old);
        assert_eq!(busy, object("2027-01-01T00:00:00Z", "y"));
    }
}

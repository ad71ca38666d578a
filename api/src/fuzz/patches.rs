//! Patches of all four sorts, and the sets of fields that applying is about.

use serde_json::Value;

use super::pod;
use crate::{
    Object, decode,
    fields::{self, ApplyError, Manager, Managers, OneVersion, Operation, Set, Write},
    patch::{self, difference},
};

/// Two lines. The second is taken for a patch of the first, for an object that the first shall become, and for a
/// configuration to lay over it; both for sets of fields.
pub fn patch(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (Ok(one), Ok(other)) = (decode::json(&data[..end]), decode::json(&data[end..])) else { return };
    applied_twice(&one, &other);
    if let (Ok(one), Ok(other)) = (Set::from_json(&one), Set::from_json(&other)) {
        laws_of_sets(&one, &other);
    }
    let (Some(old), Some(new)) = (pod_of(&one), pod_of(&other)) else { return };
    from_one_to_the_other(&old, &new);
    if let Ok(config) = decode::configuration(other, Some(pod())) {
        apply(old, as_pod(config.object));
    }
}

/// Whatever a patch is: when it can be applied, it changes nothing the second time. Where there was nothing to merge with
/// the first time, directives, lists without keys and such that name an item twice are looked at only then.
fn applied_twice(original: &Value, patch: &Value) {
    patch::json_patch(original, patch).ok();
    if let Ok(merged) = patch::merge_patch(original, patch) {
        assert_eq!(patch::merge_patch(&merged, patch), Ok(merged));
    }
    if let Ok(merged) = patch::strategic_merge(pod(), original, patch)
        && let Ok(again) = patch::strategic_merge(pod(), &merged, patch)
    {
        assert!(
            again == merged || names_twice(patch) || contradicts_itself(patch),
            "{merged} becomes {again}"
        );
    }
}

/// Whether a list of a patch has two items with one key, which may be any of those that lists are merged by.
fn names_twice(value: &Value) -> bool {
    const KEYS: [&str; 9] =
        ["name", "key", "containerPort", "mountPath", "devicePath", "ip", "type", "uid", "topologyKey"];
    let is_same = |one: &Value, other: &Value| {
        KEYS.iter().any(|key| one.get(key).is_some_and(|value| other.get(key) == Some(value)))
    };
    match value {
        Value::Array(items) => {
            let is_again = |(index, item)| items[..index].iter().any(|other| is_same(other, item));
            items.iter().enumerate().any(is_again) || items.iter().any(names_twice)
        }
        Value::Object(map) => map.values().any(names_twice),
        _ => false,
    }
}

/// Whether a patch adds to a list of plain values what it takes out of it.
fn contradicts_itself(value: &Value) -> bool {
    let Value::Object(map) = value else {
        return value.as_array().is_some_and(|items| items.iter().any(contradicts_itself));
    };
    let is_both = |(key, removed): (&String, &Value)| {
        let added = key.strip_prefix("$deleteFromPrimitiveList/").and_then(|field| map.get(field));
        let (added, removed) = (added.and_then(Value::as_array), removed.as_array());
        added.zip(removed).is_some_and(|(added, removed)| added.iter().any(|one| removed.contains(one)))
    };
    map.iter().any(is_both) || map.values().any(contradicts_itself)
}

/// The difference of two objects, applied to the one, gives the other.
fn from_one_to_the_other(old: &Object, new: &Object) {
    let values = [&old.0, &new.0].map(|map| Value::Object(map.clone()));
    let operations = difference::json(&values[0], &values[1]);
    if operations.as_array().is_some_and(|operations| operations.len() < 10_000) {
        assert_eq!(patch::json_patch(&values[0], &operations).as_ref(), Ok(&values[1]));
    }
    if says_what_a_patch_cannot(&values[0]) || says_what_a_patch_cannot(&values[1]) {
        return;
    }
    let merge = Value::Object(difference::merge(&old.0, &new.0));
    assert_eq!(patch::merge_patch(&values[0], &merge).as_ref(), Ok(&values[1]));
    if let Some(strategic) = difference::strategic(Some(pod()), &old.0, &new.0).map(Value::Object) {
        let patched = patch::strategic_merge(pod(), &values[0], &strategic);
        assert_eq!(patched.as_ref(), Ok(&values[1]), "{strategic}");
    }
}

/// Null, and what would be a directive.
fn says_what_a_patch_cannot(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(says_what_a_patch_cannot),
        Value::Object(map) => {
            map.iter().any(|(key, value)| key.starts_with('$') || says_what_a_patch_cannot(value))
        }
        _ => false,
    }
}

/// Laid over an object by force, a configuration is there, its manager owns it, and it changes nothing the second time.
fn apply(mut live: Object, config: Object) {
    let write = |name: &str, operation| Write {
        manager: Manager {
            name: name.into(),
            operation,
            api_version: "v1".into(),
            subresource: String::new(),
        },
        now: "2026-01-01T00:00:00Z".into(),
        schema: Some(pod()),
        reset: &["status"],
        versions: &OneVersion,
    };
    fields::update(&write("updater", Operation::Update), None, &mut live);
    let applier = write("applier", Operation::Apply);
    let Ok(applied) = fields::apply(&applier, Some(&live), &config, true) else { return };
    assert_eq!(fields::apply(&applier, Some(&applied), &config, true).as_ref(), Ok(&applied));
    assert_eq!(fields::apply(&applier, Some(&applied), &config, false).as_ref(), Ok(&applied));
    match fields::apply(&applier, Some(&live), &config, false) {
        Ok(unforced) => assert_eq!(unforced, applied),
        Err(ApplyError::Conflicts(conflicts)) => assert!(!conflicts.0.is_empty()),
        Err(other) => panic!("{other}"),
    }

    let managers = Managers::of(&applied).expect("what was written can be read");
    let written = managers.to_json().unwrap_or_default();
    assert_eq!(Managers::from_json(&written).as_ref(), Ok(&managers));
    let wanted = fields::applied_fields(Some(pod()), &config, applier.reset);
    let owned = managers.get(&applier.manager).map(|entry| entry.fields.clone()).unwrap_or_default();
    assert_eq!(owned, wanted);
    let left = fields::compare(Some(pod()), &config, &applied, applier.reset);
    assert!(left.removed.is_empty(), "it is not there: {:?}", left.removed);
}

fn pod_of(value: &Value) -> Option<Object> {
    decode::check(value.clone(), Some(pod())).ok().map(|decoded| as_pod(decoded.object))
}

fn as_pod(mut object: Object) -> Object {
    object.set(&["apiVersion"], "v1");
    object.set(&["kind"], "Pod");
    object
}

fn laws_of_sets(a: &Set, b: &Set) {
    for set in [a, b] {
        assert_eq!(Set::from_json(&set.to_json()).as_ref(), Ok(set));
        assert_eq!(set.union(set), *set);
        assert!(set.difference(set).is_empty());
    }
    assert_eq!(a.union(b), b.union(a));
    assert_eq!(a.intersection(b), b.intersection(a));
    assert_eq!(a.difference(b).union(&a.intersection(b)), *a);
    assert!(a.difference(b).intersection(b).is_empty());
    assert_eq!(a.union(b).difference(b), a.difference(b));
    assert_eq!(a.recursive_difference(b).difference(a), Set::default());
    let mut count = 0;
    a.union(b).for_each(&mut |path| {
        assert!(a.has(path) || b.has(path));
        count += 1;
    });
    assert_eq!(count == 0, a.is_empty() && b.is_empty());
}

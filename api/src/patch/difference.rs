//! The patch that turns one object into another, made in the way in which clients make it: what applying patches is
//! held against.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::schema::{Merge, Schema, Shape};

/// As a merge patch, which cannot set anything to null.
pub(crate) fn merge(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for key in keys(old, new) {
        match (old.get(key), new.get(key)) {
            (Some(old), Some(new)) if old == new => {}
            (Some(Value::Object(old)), Some(Value::Object(new))) => {
                patch.insert(key.clone(), Value::Object(merge(old, new)));
            }
            (_, new) => {
                patch.insert(key.clone(), new.cloned().unwrap_or_default());
            }
        }
    }
    patch
}

/// As a JSON patch.
pub(crate) fn json(old: &Value, new: &Value) -> Value {
    let mut operations = Vec::new();
    add_operations("", old, new, &mut operations);
    Value::Array(operations)
}

fn add_operations(path: &str, old: &Value, new: &Value, operations: &mut Vec<Value>) {
    let escaped = |key: &str| format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
    match (old, new) {
        (old, new) if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            for key in keys(old, new) {
                let path = escaped(key);
                match (old.get(key), new.get(key)) {
                    (Some(old), Some(new)) => add_operations(&path, old, new, operations),
                    (None, Some(new)) => operations.push(json!({"op": "add", "path": path, "value": new})),
                    _ => operations.push(json!({"op": "remove", "path": path})),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for index in (new.len()..old.len()).rev() {
                operations.push(json!({"op": "remove", "path": format!("{path}/{index}")}));
            }
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                add_operations(&format!("{path}/{index}"), old, new, operations);
            }
            for new in new.iter().skip(old.len()) {
                operations.push(json!({"op": "add", "path": format!("{path}/-"), "value": new}));
            }
        }
        (_, new) => operations.push(json!({"op": "replace", "path": path, "value": new})),
    }
}

/// As a strategic merge patch of kubectl's: deletions and the order of lists are said by directives. `None` where a list
/// that is merged as a set has something twice.
pub(crate) fn strategic(
    schema: Option<&'static Schema>,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
) -> Option<Map<String, Value>> {
    let mut patch = Map::new();
    for key in keys(old, new) {
        let Field { schema, merge } = Field::of(schema, key);
        let is = |says: fn(&Merge) -> bool| merge.is_some_and(says);
        match (old.get(key), new.get(key)) {
            (Some(old), Some(new)) if old == new => {}
            (Some(Value::Object(old)), Some(Value::Object(new))) if !is(|merge| merge.replace) => {
                let mut change = strategic(schema, old, new)?;
                if is(|merge| merge.retain_keys) {
                    change.insert("$retainKeys".into(), new.keys().cloned().collect());
                }
                patch.insert(key.clone(), Value::Object(change));
            }
            (Some(Value::Array(old)), Some(Value::Array(new))) if is(|merge| merge.merge) => {
                let merge_key = merge.map_or("", |merge| merge.key);
                if merge_key.is_empty() {
                    if !is_set(old) || !is_set(new) {
                        return None;
                    }
                    patch.insert(format!("$setElementOrder/{key}"), new.clone().into());
                    patch.insert(format!("$deleteFromPrimitiveList/{key}"), without(old, new));
                    patch.insert(key.clone(), without(new, old));
                } else if has_keys(old, merge_key) && has_keys(new, merge_key) {
                    let order = new.iter().map(|item| json!({merge_key: item[merge_key]})).collect();
                    patch.insert(format!("$setElementOrder/{key}"), order);
                    let retains = is(|merge| merge.retain_keys);
                    patch.insert(key.clone(), items(schema, old, new, merge_key, retains)?);
                } else {
                    let replace = json!({"$patch": "replace"});
                    patch.insert(key.clone(), [replace].iter().chain(new).cloned().collect());
                }
            }
            (_, new) => {
                patch.insert(key.clone(), new.cloned().unwrap_or_default());
            }
        }
    }
    Some(patch)
}

fn items(
    schema: Option<&'static Schema>,
    old: &[Value],
    new: &[Value],
    key: &str,
    retains: bool,
) -> Option<Value> {
    let mut patch = Vec::new();
    for item in new.iter().filter_map(Value::as_object) {
        let Some(before) = old.iter().find(|old| old[key] == item[key]).and_then(Value::as_object) else {
            patch.push(Value::Object(item.clone()));
            continue;
        };
        let mut change = strategic(schema, before, item)?;
        if !change.is_empty() {
            change.insert(key.into(), item[key].clone());
            if retains {
                change.insert("$retainKeys".into(), item.keys().cloned().collect());
            }
            patch.push(Value::Object(change));
        }
    }
    let is_gone = |item: &&Value| !new.iter().any(|new| new[key] == item[key]);
    patch.extend(old.iter().filter(is_gone).map(|item| json!({"$patch": "delete", key: item[key]})));
    Some(Value::Array(patch))
}

/// How a field merges, and what its value or its items look like.
struct Field {
    schema: Option<&'static Schema>,
    merge: Option<&'static Merge>,
}

impl Field {
    fn of(parent: Option<&'static Schema>, key: &str) -> Field {
        let (schema, merge) = match parent.map(|parent| &parent.shape) {
            Some(Shape::Map(value)) => (Some(*value), None),
            _ => match parent.and_then(|parent| parent.field(key)) {
                Some(field) => (Some(field.schema), field.merge),
                None => (None, None),
            },
        };
        let schema = schema.map(|schema| match schema.shape {
            Shape::List(item) => item,
            _ => schema,
        });
        Field { schema, merge }
    }
}

fn keys<'a>(old: &'a Map<String, Value>, new: &'a Map<String, Value>) -> BTreeSet<&'a String> {
    old.keys().chain(new.keys()).collect()
}

/// What the one list has alone.
fn without(list: &[Value], other: &[Value]) -> Value {
    list.iter().filter(|item| !other.contains(item)).cloned().collect()
}

fn is_set(list: &[Value]) -> bool {
    let is_scalar = |item: &Value| !item.is_null() && !item.is_array() && !item.is_object();
    list.iter().enumerate().all(|(index, item)| is_scalar(item) && !list[..index].contains(item))
}

fn has_keys(list: &[Value], key: &str) -> bool {
    let is_new = |index: usize, value: &Value| list[..index].iter().all(|other| other[key] != *value);
    list.iter()
        .enumerate()
        .all(|(index, item)| item.get(key).is_some_and(|value| !value.is_null() && is_new(index, value)))
}

//! Strategic merge patch: a merge patch that knows which lists are sets and which are maps with a key.
//!
//! Directives in the patch say what cannot be said otherwise: `$patch: delete|replace|merge`, `$retainKeys`,
//! `$deleteFromPrimitiveList/FIELD` and `$setElementOrder/FIELD`.

use serde_json::{Map, Value};

use super::without_nulls;
use crate::{
    Status,
    schema::{Merge, Schema, Shape},
};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// Applies a strategic merge patch to an object of the type that the schema describes.
pub fn strategic_merge(schema: &'static Schema, original: &Value, patch: &Value) -> Result<Value, Status> {
    match (original, patch) {
        (Value::Object(original), Value::Object(patch)) => {
            Ok(Value::Object(merged_map(Some(schema), original.clone(), patch.clone())?))
        }
        _ => Err(Status::bad_request("invalid JSON document")),
    }
}

fn merged_map(
    schema: Option<&'static Schema>,
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
) -> Result<Map<String, Value>, Status> {
    match patch.remove(PATCH) {
        None => {}
        Some(directive) if directive == "merge" => {}
        Some(directive) if directive == "replace" => return Ok(patch),
        Some(directive) if directive == "delete" => return Ok(Map::new()),
        Some(other) => return Err(unknown_directive(&other, &patch)),
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(schema, &mut original, &mut patch)?;
    for (key, change) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            delete_from_primitives(&mut original, field, change)?;
            continue;
        }
        if change.is_null() {
            original.remove(&key);
            continue;
        }
        let place = Place::of(schema, &key);
        let value = match (original.remove(&key), change) {
            (Some(Value::Object(before)), Value::Object(change)) if !place.is_replaced() => {
                Value::Object(merged_map(place.schema, before, change)?)
            }
            (Some(Value::Array(before)), Value::Array(change)) if place.is_merged() => {
                Value::Array(merged_list(&place, before, change)?)
            }
            (_, change) => match without_directives(without_nulls(change)) {
                Some(value) => value,
                None => continue,
            },
        };
        original.insert(key, value);
    }
    Ok(original)
}

/// What the schema says of one field.
struct Place {
    /// The field's own shape, for a list that of its items.
    schema: Option<&'static Schema>,
    merge: Option<&'static Merge>,
}

impl Place {
    fn of(schema: Option<&'static Schema>, key: &str) -> Place {
        let nowhere = Place { schema: None, merge: None };
        let Some(schema) = schema else { return nowhere };
        let inner = |schema: &'static Schema| match schema.shape {
            Shape::List(item) => item,
            _ => schema,
        };
        match schema.shape {
            Shape::Map(value) => Place { schema: Some(inner(value)), merge: None },
            _ => match schema.field(key) {
                Some(field) => Place { schema: Some(inner(field.schema)), merge: field.merge },
                None => nowhere,
            },
        }
    }

    fn is_replaced(&self) -> bool {
        self.merge.is_some_and(|merge| merge.replace)
    }

    fn is_merged(&self) -> bool {
        self.merge.is_some_and(|merge| merge.merge)
    }

    fn key(&self) -> &'static str {
        self.merge.map_or("", |merge| merge.key)
    }
}

/// `$retainKeys`: of the original only these keys stay.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), Status> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let malformed = || Status::bad_request("invalid patch format of retainKeys");
    let retained = directive.as_array().ok_or_else(malformed)?;
    let is_retained = |key: &str| retained.iter().any(|retained| retained == key);
    let needs_listing = |(key, value): &(&String, &Value)| {
        !value.is_null() && !key.starts_with(DELETE_FROM) && !key.starts_with(SET_ORDER)
    };
    if !patch.iter().filter(needs_listing).all(|(key, _)| is_retained(key)) {
        return Err(malformed());
    }
    original.retain(|key, _| is_retained(key));
    Ok(())
}

/// `$setElementOrder/FIELD`: merges the list and brings it into the order given.
fn merge_ordered_lists(
    schema: Option<&'static Schema>,
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), Status> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let field = &directive[SET_ORDER.len()..];
        let malformed = || Status::bad_request("invalid patch format of setElementOrder list");
        let Some(Value::Array(order)) = patch.remove(&directive) else { return Err(malformed()) };
        let place = Place::of(schema, field);
        let change = match patch.remove(field) {
            None => None,
            Some(Value::Array(change)) => Some(change),
            // The list is removed or replaced by something else: an order does not matter.
            Some(other) => {
                patch.insert(field.to_string(), other);
                continue;
            }
        };
        if let Some(change) = &change {
            check_order(change, &order, place.key())?;
        }
        let before = match original.get(field) {
            Some(Value::Array(before)) => Some(before.clone()),
            _ => None,
        };
        let list = match (before.clone(), change) {
            (None, None) => continue,
            (Some(before), None) => before,
            (None, Some(change)) => without_directives(Value::Array(change))
                .and_then(|list| list.as_array().cloned())
                .unwrap_or_default(),
            (Some(before), Some(change)) if place.is_merged() => merged_list(&place, before, change)?,
            (Some(_), Some(change)) => change,
        };
        let list = in_order(list, &order, &before.unwrap_or_default(), place.key());
        original.insert(field.to_string(), Value::Array(list));
    }
    Ok(())
}

/// The items of the patch must stand in the order that the patch asks for.
fn check_order(change: &[Value], order: &[Value], key: &str) -> Result<(), Status> {
    let mut rest = order.iter();
    let is_in_order = change
        .iter()
        .filter(|item| item.get(PATCH).is_none())
        .all(|item| rest.any(|ordered| is_same(ordered, item, key)));
    if is_in_order {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "The order in patch list:\n{}\n doesn't match {} list:\n{}\n",
        printed_list(change),
        SET_ORDER.trim_end_matches('/'),
        printed_list(order)
    )))
}

/// `$deleteFromPrimitiveList/FIELD`.
fn delete_from_primitives(
    original: &mut Map<String, Value>,
    field: &str,
    deleted: Value,
) -> Result<(), Status> {
    let Value::Array(deleted) = deleted else {
        return Err(Status::bad_request("invalid patch format of primitive list"));
    };
    if let Some(Value::Array(items)) = original.get_mut(field) {
        items.retain(|item| !deleted.contains(item));
    }
    Ok(())
}

fn merged_list(place: &Place, before: Vec<Value>, change: Vec<Value>) -> Result<Vec<Value>, Status> {
    let all = || before.iter().chain(&change);
    if all().any(Value::is_array) {
        return Err(super::inapplicable());
    }
    if !all().any(Value::is_object) {
        let mut list: Vec<Value> = Vec::new();
        for item in all().filter(|item| !item.is_null()) {
            if !list.contains(item) {
                list.push(item.clone());
            }
        }
        return Ok(in_order(list, &change, &before, ""));
    }
    let key = place.key();
    if key.is_empty() {
        return Err(Status::bad_request("cannot merge lists without merge key"));
    }
    if change.iter().any(|item| item.get(PATCH).is_some_and(|directive| directive == "replace")) {
        return Ok(change.into_iter().map(without_nulls).filter_map(without_directives).collect());
    }
    let (mut list, change) = with_deletions_applied(before.clone(), change, key)?;
    for item in &change {
        let Some(value) = item.get(key) else { return Err(no_merge_key(item, key)) };
        let found = list.iter_mut().find(|candidate| candidate.get(key) == Some(value));
        match (found, item) {
            (Some(Value::Object(existing)), Value::Object(item)) => {
                *existing = merged_map(place.schema, std::mem::take(existing), item.clone())?;
            }
            _ => list.extend(without_directives(without_nulls(item.clone()))),
        }
    }
    Ok(in_order(list, &change, &before, key))
}

/// Carries out the items that ask for deletion: what is left of the list, and the items still to be merged.
fn with_deletions_applied(
    mut list: Vec<Value>,
    change: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Status> {
    let mut rest = Vec::new();
    for item in change {
        match item.get(PATCH) {
            None => rest.push(item),
            Some(directive) if directive == "delete" => {
                let Some(value) = item.get(key) else { return Err(no_merge_key(&item, key)) };
                list.retain(|candidate| candidate.get(key) != Some(value));
            }
            Some(directive) if directive == "merge" => {
                return Err(Status::bad_request("merging lists cannot yet be specified in the patch"));
            }
            Some(other) => {
                let map = item.as_object().cloned().unwrap_or_default();
                return Err(unknown_directive(other, &map));
            }
        }
    }
    Ok((list, rest))
}

/// Brings a list into order: what `order` names stands as there, the rest as in `before`; where the two do
/// not decide, the former comes first.
fn in_order(list: Vec<Value>, order: &[Value], before: &[Value], key: &str) -> Vec<Value> {
    let index = |list: &[Value], item: &Value| list.iter().position(|other| is_same(other, item, key));
    let (mut named, mut rest): (Vec<Value>, Vec<Value>) =
        list.into_iter().partition(|item| index(order, item).is_some());
    named.sort_by_key(|item| index(order, item));
    rest.sort_by_key(|item| index(before, item));

    let mut sorted = Vec::with_capacity(named.len() + rest.len());
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    while let (Some(left), Some(right)) = (rest.peek(), named.peek()) {
        let is_before = match (index(before, left), index(before, right)) {
            (Some(left), Some(right)) => left < right,
            _ => false,
        };
        sorted.extend(if is_before { rest.next() } else { named.next() });
    }
    sorted.extend(rest);
    sorted.extend(named);
    sorted
}

/// Whether two items of a list are the same one: by key when there is one, else by value.
fn is_same(left: &Value, right: &Value, key: &str) -> bool {
    if key.is_empty() { left == right } else { left.get(key).is_some() && left.get(key) == right.get(key) }
}

/// A part of the patch that is taken as it is; `None` when a directive says that there is nothing to take.
/// Upstream loses maps that ask to replace what is not there, and stores the directives of items that are
/// new; nobody can want either.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        Value::Object(mut map) => {
            match map.remove(PATCH) {
                Some(directive) if directive == "delete" || map.is_empty() => return None,
                _ => {}
            }
            let is_directive =
                |key: &str| key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
            let kept = map.into_iter().filter(|(key, _)| !is_directive(key));
            Some(Value::Object(
                kept.filter_map(|(key, value)| Some((key, without_directives(value)?))).collect(),
            ))
        }
        other => Some(other),
    }
}

fn unknown_directive(directive: &Value, map: &Map<String, Value>) -> Status {
    let mut map = map.clone();
    map.insert(PATCH.into(), directive.clone());
    let (directive, map) = (printed(directive), printed(&Value::Object(map)));
    Status::bad_request(format!("unknown patch type: {directive} in map: {map}"))
}

fn no_merge_key(item: &Value, key: &str) -> Status {
    Status::bad_request(format!("map: {} does not contain declared merge key: {key}", printed(item)))
}

/// A value as Go prints it.
fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => printed_list(items),
        Value::Object(map) => {
            let mut entries: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", printed(value))).collect();
            entries.sort();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

fn printed_list(items: &[Value]) -> String {
    format!("[{}]", items.iter().map(printed).collect::<Vec<_>>().join(" "))
}

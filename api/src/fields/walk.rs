//! What a value consists of, as a set.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    Element, Set,
    place::{Items, Nature, Place, always_there, field, set_element},
    set::Node,
};
use crate::schema::Schema;

/// The leaves and items of a configuration: what whoever applies it asks for.
pub(super) fn applied(place: Place, value: &Value) -> Node {
    let mut below = Set::default();
    match (place.nature(value), value) {
        (Nature::Leaf, _) => return Node::leaf(),
        (Nature::Struct(schema), Value::Object(map)) => {
            for (name, value) in map {
                let (element, place) = field(schema, name);
                let is_declared = schema.field(name).is_some();
                below.put(element, applied_field(place, value, is_declared));
            }
        }
        (Nature::Map(place), Value::Object(map)) => {
            for (name, value) in map {
                below.put(Element::field(name.clone()), applied_field(place, value, false));
            }
        }
        (Nature::Set, Value::Array(items)) => put_members(items, &mut below),
        (Nature::Keyed(keyed), Value::Array(items)) => {
            for (element, items) in grouped(keyed, items) {
                let node = match items.as_slice() {
                    [item] => applied(keyed.place, item),
                    _ => Node::leaf(),
                };
                below.put(element, Node { is_member: true, ..node });
            }
        }
        _ => {}
    }
    Node { is_member: false, below }
}

fn put_members(items: &[Value], below: &mut Set) {
    // In their order, so that each is put at the end.
    let elements: BTreeSet<Element> = items.iter().filter_map(|item| set_element(item).ok()).collect();
    elements.into_iter().for_each(|element| below.put(element, Node::leaf()));
}

/// A key of a map is a member even when it has fields; a field of a type only when there is nothing in it.
fn applied_field(place: Place, value: &Value, is_declared: bool) -> Node {
    let node = applied(place, value);
    let is_bare = value.is_null() || value.as_object().is_some_and(Map::is_empty);
    Node { is_member: node.is_member || is_bare || !is_declared, ..node }
}

/// Every field and item there is, those that contain others included: what appears when a value is new.
pub(super) fn everything(place: Place, value: &Value) -> Node {
    let mut below = Set::default();
    match (place.nature(value), value) {
        (Nature::Struct(schema), Value::Object(map)) => {
            for (name, value) in map {
                let (element, place) = field(schema, name);
                below.put(element, everything(place, value));
            }
            add_left_out(schema, map, &mut below);
        }
        (Nature::Map(place), Value::Object(map)) => {
            for (name, value) in map {
                below.put(Element::field(name.clone()), everything(place, value));
            }
        }
        (Nature::Set, Value::Array(items)) => put_members(items, &mut below),
        (Nature::Keyed(keyed), Value::Array(items)) => {
            for (element, items) in grouped(keyed, items) {
                let node = match items.as_slice() {
                    [item] => everything(keyed.place, item),
                    _ => Node::leaf(),
                };
                below.put(element, node);
            }
        }
        _ => {}
    }
    Node { is_member: true, below }
}

fn add_left_out(schema: &'static Schema, map: &Map<String, Value>, below: &mut Set) {
    let is_built_in = schema.name.starts_with("io.k8s.");
    for name in always_there(schema).iter().filter(|name| is_built_in && !map.contains_key(**name)) {
        if schema.field(name).is_some() {
            below.put(Element::field(*name), Node::leaf());
        }
    }
}

/// The items of a list by element. Mostly one item each; what cannot be told apart by its keys stands
/// together.
pub(super) fn grouped(keyed: Items, items: &[Value]) -> BTreeMap<Element, Vec<&Value>> {
    let mut groups: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for item in items {
        if let Ok(element) = keyed.element(item) {
            groups.entry(element).or_default().push(item);
        }
    }
    groups
}

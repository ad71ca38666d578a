//! What differs between two states of an object.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    Element, Set,
    place::{Items, Nature, Place, field, left_out, set_element},
    set::Node,
    walk::{everything, grouped},
};
use crate::schema::Schema;

/// The difference between an old and a new state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// What the new state has that the old one has not, or not so.
    pub changed: Set,
    /// What the old state alone has.
    pub removed: Set,
}

/// The same at one element.
#[derive(Default)]
struct Difference {
    changed: Node,
    removed: Node,
}

impl Difference {
    fn changed(node: Node) -> Difference {
        Difference { changed: node, ..Difference::default() }
    }

    fn removed(node: Node) -> Difference {
        Difference { removed: node, ..Difference::default() }
    }
}

impl Comparison {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }

    fn put(&mut self, element: Element, difference: Difference) {
        match (difference.removed.is_empty(), difference.changed.is_empty()) {
            (true, _) => self.changed.put(element, difference.changed),
            (false, true) => self.removed.put(element, difference.removed),
            (false, false) => {
                self.removed.put(element.clone(), difference.removed);
                self.changed.put(element, difference.changed);
            }
        }
    }

    fn into_difference(self) -> Difference {
        Difference {
            changed: Node { is_member: false, below: self.changed },
            removed: Node { is_member: false, below: self.removed },
        }
    }
}

/// Compares two states of an object, except for the fields whose paths `skips` names.
pub(super) fn objects(
    place: Place,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    skips: &dyn Fn(&str, Option<&str>) -> bool,
) -> Comparison {
    let mut comparison = Comparison::default();
    let children = Children::of(place.declared());
    for name in names(old, new).filter(|name| !skips(name, None)) {
        let (old, new) = (old.get(name), new.get(name));
        let (element, difference) = match name {
            "metadata" => (Element::field("metadata"), metadata(place, old, new, skips)),
            _ => children.compare(name, old, new),
        };
        comparison.put(element, difference);
    }
    comparison
}

fn metadata(
    place: Place,
    old: Option<&Value>,
    new: Option<&Value>,
    skips: &dyn Fn(&str, Option<&str>) -> bool,
) -> Difference {
    let element = Element::field("metadata");
    let children = Children::of(place.below(&element).declared());
    let empty = Map::new();
    let (old, new) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
    let (old, new) = (old.unwrap_or(&empty), new.unwrap_or(&empty));
    let mut comparison = Comparison::default();
    for name in names(old, new).filter(|name| !skips("metadata", Some(name))) {
        let (element, difference) = children.compare(name, old.get(name), new.get(name));
        comparison.put(element, difference);
    }
    comparison.into_difference()
}

fn values(place: Place, old: Option<&Value>, new: Option<&Value>) -> Difference {
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) if old == new => return Difference::default(),
        (Some(old), Some(new)) => (old, new),
        (None, Some(new)) => return Difference::changed(everything(place, new)),
        (Some(old), None) => return Difference::removed(everything(place, old)),
        (None, None) => return Difference::default(),
    };
    if is_bare(old) && is_bare(new) {
        return Difference::changed(Node::leaf());
    }
    match (place.nature(old), place.nature(new)) {
        (nature @ (Nature::Struct(_) | Nature::Map(_)), Nature::Struct(_) | Nature::Map(_)) => {
            maps(Children::of(nature), old, new)
        }
        (Nature::Keyed(items), Nature::Keyed(_)) => keyed(items, old, new),
        (Nature::Set, Nature::Set) => sets(old, new),
        _ => Difference::changed(Node::leaf()),
    }
}

fn is_bare(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn maps(children: Children, old: &Value, new: &Value) -> Difference {
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let mut comparison = Comparison::default();
    for name in names(old, new) {
        let (element, difference) = children.compare(name, old.get(name), new.get(name));
        comparison.put(element, difference);
    }
    comparison.into_difference()
}

fn sets(old: &Value, new: &Value) -> Difference {
    let elements = |value: &Value| -> BTreeSet<Element> {
        let items = value.as_array().into_iter().flatten();
        items.filter_map(|item| set_element(item).ok()).collect()
    };
    let (old, new) = (elements(old), elements(new));
    let mut comparison = Comparison::default();
    new.difference(&old).for_each(|element| comparison.changed.put(element.clone(), Node::leaf()));
    old.difference(&new).for_each(|element| comparison.removed.put(element.clone(), Node::leaf()));
    comparison.into_difference()
}

fn keyed<'a>(items: Items, old: &'a Value, new: &'a Value) -> Difference {
    let groups = |value: &'a Value| value.as_array().map_or_else(BTreeMap::new, |list| grouped(items, list));
    let (old_groups, new_groups) = (groups(old), groups(new));
    let mut comparison = Comparison::default();
    for (element, new) in &new_groups {
        let old = old_groups.get(element).map_or(&[][..], Vec::as_slice);
        comparison.put(element.clone(), same_items(items.place, old, new));
    }
    for (element, old) in old_groups {
        if !new_groups.contains_key(&element) {
            comparison.put(element, same_items(items.place, &old, &[]));
        }
    }
    comparison.into_difference()
}

/// Items with the same keys. Where there are several on a side, they count as one whole.
fn same_items(place: Place, old: &[&Value], new: &[&Value]) -> Difference {
    match (old, new) {
        ([] | [_], [] | [_]) => values(place, old.first().copied(), new.first().copied()),
        ([_, _, ..], [_, _, ..]) if old == new => Difference::default(),
        ([_, _, ..], [_, _, ..]) => Difference::changed(Node::leaf()),
        (_, []) => Difference::removed(Node::leaf()),
        ([_, _, ..], [new]) => Difference { changed: everything(place, new), removed: Node::leaf() },
        ([], _) => Difference::changed(Node::leaf()),
        ([old], _) => {
            let removed = Node { is_member: false, ..everything(place, old) };
            Difference { changed: Node::leaf(), removed }
        }
    }
}

/// The keys of both, each once, in order.
fn names<'a>(old: &'a Map<String, Value>, new: &'a Map<String, Value>) -> impl Iterator<Item = &'a str> {
    let (mut old, mut new) = (old.keys().peekable(), new.keys().peekable());
    std::iter::from_fn(move || match (old.peek(), new.peek()) {
        (Some(left), Some(right)) if left == right => {
            new.next();
            old.next().map(String::as_str)
        }
        (Some(left), Some(right)) if left < right => old.next().map(String::as_str),
        (Some(_), None) => old.next().map(String::as_str),
        _ => new.next().map(String::as_str),
    })
}

/// The fields of a type or the keys of a map, whose nature is known once for all of them.
#[derive(Clone, Copy)]
enum Children {
    Fields(&'static Schema),
    Keys(Place),
}

impl Children {
    fn of(nature: Nature) -> Children {
        match nature {
            Nature::Struct(schema) => Children::Fields(schema),
            Nature::Map(value) => Children::Keys(value),
            _ => Children::Keys(Place::of(None)),
        }
    }

    /// What the child of one name is, and how it differs.
    fn compare(self, name: &str, old: Option<&Value>, new: Option<&Value>) -> (Element, Difference) {
        match self {
            Children::Keys(value) => (Element::field(name.to_string()), values(value, old, new)),
            Children::Fields(schema) => {
                let (element, place) = field(schema, name);
                let difference = match (old, new) {
                    (Some(_), Some(_)) => values(place, old, new),
                    _ => {
                        let left_out = || left_out(schema, name);
                        values(place, old.or_else(left_out), new.or_else(left_out))
                    }
                };
                (element, difference)
            }
        }
    }
}

//! What differs between two states of an object.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    Element, Set,
    place::{Items, Nature, Place, field, left_out, set_element},
    set::Node,
    walk::{everything, grouped},
};

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
        self.removed.put(element.clone(), difference.removed);
        self.changed.put(element, difference.changed);
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
    for name in names(old, new).filter(|name| !skips(name, None)) {
        let (element, below) = named(place, name);
        let (old, new) = (child(place, old, name), child(place, new, name));
        let inner = match (old, new) {
            (Some(Value::Object(old)), Some(Value::Object(new))) if name == "metadata" => {
                let mut inner = Comparison::default();
                for name in names(old, new).filter(|name| !skips("metadata", Some(name))) {
                    let (element, place) = named(below, name);
                    let difference = values(place, child(below, old, name), child(below, new, name));
                    inner.put(element, difference);
                }
                inner.into_difference()
            }
            (old, new) => values(below, old, new),
        };
        comparison.put(element, inner);
    }
    comparison
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
        (Nature::Struct(_) | Nature::Map(_), Nature::Struct(_) | Nature::Map(_)) => maps(place, old, new),
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

fn maps(place: Place, old: &Value, new: &Value) -> Difference {
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let mut comparison = Comparison::default();
    for name in names(old, new) {
        let (element, below) = named(place, name);
        comparison.put(element, values(below, child(place, old, name), child(place, new, name)));
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

fn named(place: Place, name: &str) -> (Element, Place) {
    match place.declared() {
        Nature::Struct(schema) => field(schema, name),
        _ => {
            let element = Element::field(name.to_string());
            let below = place.below(&element);
            (element, below)
        }
    }
}

/// A field's value, or what stands for it in objects of its type.
fn child<'a>(place: Place, map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    map.get(name).or_else(|| match place.declared() {
        Nature::Struct(schema) => left_out(schema, name),
        _ => None,
    })
}

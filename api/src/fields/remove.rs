//! Takes fields out of an object.

use serde_json::Value;

use super::{
    Element, Set,
    place::{Nature, Place, set_element},
    set::Node,
};

/// `value` without what `set` names; `None` when nothing is left of it.
pub(super) fn without(place: Place, value: &Value, set: &Set) -> Option<Value> {
    match (place.nature(value), value) {
        (Nature::Struct(_) | Nature::Map(_), Value::Object(map)) if !map.is_empty() => {
            let kept = map.iter().filter_map(|(name, value)| {
                let element = Element::field(name.clone());
                Some((name.clone(), kept(place.below(&element), value, set.node(&element))?))
            });
            let kept: serde_json::Map<_, _> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        (Nature::Keyed(_) | Nature::Set, Value::Array(items)) if !items.is_empty() => {
            let kept = items.iter().filter_map(|item| {
                let (element, below) = match place.declared() {
                    Nature::Keyed(keyed) => (keyed.element(item), keyed.place),
                    _ => (set_element(item), Place::of(None)),
                };
                kept(below, item, element.ok().and_then(|element| set.node(&element)))
            });
            let kept: Vec<Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        (Nature::Leaf, Value::Object(_) | Value::Array(_)) => None,
        _ => Some(value.clone()),
    }
}

fn kept(place: Place, value: &Value, node: Option<&Node>) -> Option<Value> {
    match node {
        None => Some(value.clone()),
        Some(node) if node.is_member => None,
        Some(node) => without(place, value, &node.below),
    }
}

/// The set with those fields added that contain members and are fields of a type: who has something in a
/// `spec` has the `spec`, too, which is not true of maps.
pub(super) fn with_parents(place: Place, set: &Set) -> Set {
    let mut result = Set::default();
    for (element, node) in set.nodes() {
        let is_declared = match (place.declared(), element) {
            (Nature::Struct(schema), Element::Field(name)) => schema.field(name).is_some(),
            _ => false,
        };
        let is_member = node.is_member || (is_declared && !node.below.is_empty());
        let below = with_parents(place.below(element), &node.below);
        result.put(element.clone(), Node { is_member, below });
    }
    result
}

/// The set as the schema has it now: what is one whole today has no owners of its parts.
pub(super) fn reconciled(place: Place, set: &Set) -> Set {
    let mut result = Set::default();
    for (element, node) in set.nodes() {
        let below = place.below(element);
        let is_whole = matches!(below.declared(), Nature::Leaf);
        let node = match is_whole && !node.below.is_empty() {
            true => Node::leaf(),
            false => Node { is_member: node.is_member, below: reconciled(below, &node.below) },
        };
        result.put(element.clone(), node);
    }
    result
}

//! Lays a configuration over an object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    Element,
    place::{Items, Nature, Place, set_element},
};

/// `live` with everything that `config` says. Nothing is removed; where the configuration touches a list,
/// its order wins.
pub(super) fn merged(place: Place, live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
    let (live, config) = match (live, config) {
        (Some(live), Some(config)) => (live, config),
        (one, other) => return one.or(other).cloned(),
    };
    match (place.nature(config), live, config) {
        (Nature::Struct(_) | Nature::Map(_), Value::Object(live), Value::Object(config)) => {
            Some(Value::Object(merged_maps(place, live, config)))
        }
        (Nature::Keyed(items), Value::Array(live), Value::Array(config)) => {
            Some(Value::Array(merged_items(items, live, config)))
        }
        (Nature::Set, Value::Array(live), Value::Array(config)) => {
            let element = |item: &Value| set_element(item).ok();
            Some(Value::Array(merged_lists(live, config, element, |_, config| config.clone())))
        }
        _ => Some(config.clone()),
    }
}

fn merged_maps(place: Place, live: &Map<String, Value>, config: &Map<String, Value>) -> Map<String, Value> {
    let mut result = live.clone();
    for (name, value) in config {
        let below = place.below(&Element::field(name.clone()));
        if let Some(value) = merged(below, live.get(name), Some(value)) {
            result.insert(name.clone(), value);
        }
    }
    result
}

fn merged_items(items: Items, live: &[Value], config: &[Value]) -> Vec<Value> {
    let merge = |live: &Value, config: &Value| {
        merged(items.place, Some(live), Some(config)).unwrap_or_else(|| config.clone())
    };
    merged_lists(live, config, |item| items.element(item).ok(), merge)
}

/// Both lists as one. Items of the configuration stand in its order. What the object alone has stays
/// behind what it stood behind, as far as that order allows.
fn merged_lists(
    live: &[Value],
    config: &[Value],
    element: impl Fn(&Value) -> Option<Element>,
    merge: impl Fn(&Value, &Value) -> Value,
) -> Vec<Value> {
    let wanted: Vec<(Element, &Value)> =
        config.iter().filter_map(|item| Some((element(item)?, item))).collect();
    let place_of: BTreeMap<&Element, usize> =
        wanted.iter().enumerate().map(|(index, (element, _))| (element, index)).collect();
    let present: Vec<(Option<Element>, &Value)> = live.iter().map(|item| (element(item), item)).collect();
    let mut counterparts: BTreeMap<usize, Vec<&Value>> = BTreeMap::new();
    let mut shared = vec![false; wanted.len()];
    for (element, item) in &present {
        if let Some(index) = element.as_ref().and_then(|element| place_of.get(element)) {
            counterparts.entry(*index).or_default().push(item);
            shared[*index] = true;
        }
    }
    // Of items that cannot be told apart none is the counterpart.
    let merged = |index: usize| match counterparts.get(&index).map(Vec::as_slice) {
        Some([live]) => merge(live, wanted[index].1),
        _ => wanted[index].1.clone(),
    };

    let mut result = Vec::with_capacity(present.len().max(wanted.len()));
    let mut next = 0;
    for (element, item) in &present {
        let index = element.as_ref().and_then(|element| place_of.get(element).copied());
        match index {
            None => result.push((*item).clone()),
            // Comes later, or has come already.
            Some(index) if index < next || shared[next..index].contains(&true) => {}
            Some(index) => {
                result.extend((next..=index).map(&merged));
                next = index + 1;
            }
        }
    }
    result.extend((next..wanted.len()).map(&merged));
    result
}

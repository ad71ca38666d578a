//! Lays a configuration over an object without asking whose the fields are: what a mutating policy does.

use serde_json::Value;

use super::{
    Element, check,
    merge::merged,
    place::{Items, Nature, Place},
};
use crate::{Object, schema::Schema};

/// The object with everything that `config` says. Refused where the configuration has a part of what belongs together
/// as a whole: the rest of it would be lost.
pub fn overlay(schema: Option<&'static Schema>, object: &Object, config: &Object) -> Result<Object, String> {
    let value = Value::Object(config.0.clone());
    let faults = check::check(schema, &value);
    if !faults.is_empty() {
        return Err(format!("invalid ApplyConfiguration: {}", faults.join("; ")));
    }
    let mut wholes = Vec::new();
    find_wholes(Place::of(schema), &value, "", &mut wholes);
    if !wholes.is_empty() {
        let places = wholes.join(", ");
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {places}"
        ));
    }
    let live = Value::Object(object.0.clone());
    let value = merged(Place::of(schema), Some(&live), Some(&value));
    value.and_then(Object::from_value).ok_or_else(|| "the result is no object".to_string())
}

fn find_wholes(place: Place, value: &Value, path: &str, wholes: &mut Vec<String>) {
    match (place.nature(value), value) {
        (Nature::Struct(_) | Nature::Map(_), Value::Object(map)) => {
            for (name, value) in map {
                let below = place.below(&Element::field(name.clone()));
                find_wholes(below, value, &format!("{path}.{name}"), wholes);
            }
        }
        (Nature::Keyed(items), Value::Array(list)) => find_in_items(items, list, path, wholes),
        (Nature::Set, _) => {}
        (_, Value::Object(_) | Value::Array(_)) => wholes.push(path.to_string()),
        _ => {}
    }
}

fn find_in_items(items: Items, list: &[Value], path: &str, wholes: &mut Vec<String>) {
    for (index, item) in list.iter().enumerate() {
        find_wholes(items.place, item, &format!("{path}[{index}]"), wholes);
    }
}

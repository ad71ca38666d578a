//! Whether a configuration fits its type well enough to be applied.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Element,
    place::{Items, Nature, Place, set_element},
};
use crate::schema::{Schema, Shape};

/// Everything that is wrong, each with its path, in upstream's words.
pub(super) fn check(schema: Option<&'static Schema>, value: &Value) -> Vec<String> {
    let mut check = Check { path: String::new(), faults: Vec::new() };
    check.value(Place::of(schema), value);
    check.faults
}

struct Check {
    path: String,
    faults: Vec<String>,
}

impl Check {
    fn value(&mut self, place: Place, value: &Value) {
        let Some(schema) = place.schema() else { return };
        match (&schema.shape, value) {
            (_, Value::Null) | (Shape::Any | Shape::Either(_), _) => {}
            (Shape::Object(_), Value::Object(map)) => {
                for (name, value) in map {
                    let element = Element::field(name.clone());
                    match schema.field(name) {
                        Some(_) => self.below(place.below_whole(&element), &element, value),
                        None if schema.custom.is_some_and(|custom| custom.keeps_unknown) => {}
                        None => {
                            self.at(&element, |check| check.fault("field not declared in schema"));
                            return;
                        }
                    }
                }
            }
            (Shape::Map(item), Value::Object(map)) => {
                for (name, value) in map {
                    self.below(Place::of(Some(item)), &Element::field(name.clone()), value);
                }
            }
            (Shape::Object(_) | Shape::Map(_), other) => {
                self.fault(&format!("expected map, got {}", shown(other)))
            }
            (Shape::List(item), Value::Array(items)) => self.items(place, item, items),
            (Shape::List(_), other) => self.fault(&format!("expected list, got {}", shown(other))),
            (shape, value) => self.scalar(shape, value),
        }
    }

    fn items(&mut self, place: Place, item: &'static Schema, items: &[Value]) {
        let nature = place.declared();
        let mut seen = BTreeSet::new();
        for (index, value) in items.iter().enumerate() {
            let element = match nature {
                Nature::Keyed(keyed) => Items::element(keyed, value),
                Nature::Set => set_element(value),
                _ => Ok(Element::Index(index as i64)),
            };
            let element = match element {
                Ok(element) => element,
                Err(why) => return self.fault(&format!("element {index}: {why}")),
            };
            if !matches!(element, Element::Index(_)) && !seen.insert(element.clone()) {
                self.fault(&format!("duplicate entries for key {element}"));
            }
            self.below(Place::of(Some(item)), &element, value);
        }
    }

    fn scalar(&mut self, shape: &Shape, value: &Value) {
        let expected = match shape {
            Shape::Boolean if !value.is_boolean() => "boolean",
            Shape::Int32 | Shape::Int64 | Shape::Number if !value.is_number() => "numeric (int or float)",
            Shape::Text | Shape::Bytes | Shape::Time | Shape::MicroTime if !value.is_string() => "string",
            Shape::Quantity | Shape::IntOrString if value.is_object() || value.is_array() => "any scalar",
            _ => return,
        };
        let got = match expected {
            "numeric (int or float)" => go_type(value).to_string(),
            _ => shown(value),
        };
        self.fault(&format!("expected {expected}, got {got}"));
    }

    fn below(&mut self, place: Place, element: &Element, value: &Value) {
        self.at(element, |check| check.value(place, value));
    }

    fn at(&mut self, element: &Element, visit: impl FnOnce(&mut Check)) {
        let length = self.path.len();
        self.path.push_str(&element.to_string());
        visit(self);
        self.path.truncate(length);
    }

    fn fault(&mut self, why: &str) {
        self.faults.push(if self.path.is_empty() { why.into() } else { format!("{}: {why}", self.path) });
    }
}

/// A value as Go prints it in these messages.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("&{{{text}}}"),
        other => format!("&{{{other}}}"),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

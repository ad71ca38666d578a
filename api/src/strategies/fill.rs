//! How strategies fill in what the user left out.

use serde_json::{Map, Value};

use crate::object::map_made;

/// A JSON map that is being defaulted.
pub trait Fill {
    /// Sets a key unless something other than null is there.
    fn fill(&mut self, key: &str, value: impl Into<Value>);

    /// Sets a number unless one other than 0 is there: some types of upstream's do not tell 0 from nothing.
    fn fill_zero(&mut self, key: &str, value: i64);

    /// The map at a key, when there is one.
    fn map_at(&mut self, key: &str) -> Option<&mut Map<String, Value>>;

    /// The map at a key, made when there is none.
    fn map_made(&mut self, key: &str) -> &mut Map<String, Value>;

    /// The maps in the list at a key.
    fn maps_at(&mut self, key: &str) -> impl Iterator<Item = &mut Map<String, Value>>;

    /// The text at a key; empty when absent.
    fn text_at(&self, key: &str) -> &str;

    /// Whether there is anything but null at a key.
    fn has(&self, key: &str) -> bool;
}

impl Fill for Map<String, Value> {
    fn fill(&mut self, key: &str, value: impl Into<Value>) {
        if !self.has(key) {
            self.insert(key.to_string(), value.into());
        }
    }

    fn fill_zero(&mut self, key: &str, value: i64) {
        if !self.has(key) || self.get(key).is_some_and(|value| *value == 0) {
            self.insert(key.to_string(), value.into());
        }
    }

    fn map_at(&mut self, key: &str) -> Option<&mut Map<String, Value>> {
        self.get_mut(key)?.as_object_mut()
    }

    fn map_made(&mut self, key: &str) -> &mut Map<String, Value> {
        map_made(self, key)
    }

    fn maps_at(&mut self, key: &str) -> impl Iterator<Item = &mut Map<String, Value>> {
        self.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
    }

    fn text_at(&self, key: &str) -> &str {
        self.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn has(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !value.is_null())
    }
}

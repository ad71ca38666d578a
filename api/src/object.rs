//! An API object as it travels: JSON, with accessors for what every object has.

use serde_json::{Map, Value};

/// Any object of any kind. A thin wrapper over a JSON map: nothing is lost that the schema does not know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(pub Map<String, Value>);

impl Object {
    /// The map inside a JSON value; `None` when it is not a map.
    pub fn from_value(value: Value) -> Option<Object> {
        match value {
            Value::Object(map) => Some(Object(map)),
            _ => None,
        }
    }

    /// The object as a JSON value.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// The value at a path of field names; list items cannot be reached.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.0.get(*first)?, |value, key| value.get(key))
    }

    /// The text at a path; empty when absent or not text.
    pub fn text(&self, path: &[&str]) -> &str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// The whole number at a path.
    pub fn number(&self, path: &[&str]) -> Option<i64> {
        self.at(path).and_then(Value::as_i64)
    }

    /// The list at a path; empty when absent or not a list.
    pub fn list(&self, path: &[&str]) -> &[Value] {
        self.at(path).map_or(&[], items)
    }

    /// The map at a path, made where absent; what stands in the way and is no map is replaced.
    pub fn map_mut(&mut self, path: &[&str]) -> &mut Map<String, Value> {
        path.iter().fold(&mut self.0, |map, key| map_made(map, key))
    }

    /// Sets the value at a path, making maps on the way.
    pub fn set(&mut self, path: &[&str], value: impl Into<Value>) {
        if let Some((last, parents)) = path.split_last() {
            put(self.map_mut(parents), last, value.into());
        }
    }

    /// Sets the value at a path unless something other than null is there.
    pub fn set_if_absent(&mut self, path: &[&str], value: impl Into<Value>) {
        if self.at(path).is_none_or(Value::is_null) {
            self.set(path, value);
        }
    }

    /// Removes the value at a path and returns it.
    pub fn remove(&mut self, path: &[&str]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        let parent = parents.iter().try_fold(&mut self.0, |map, key| map.get_mut(*key)?.as_object_mut())?;
        parent.remove(*last)
    }

    /// Makes what stands at a path what it is in `old`: the same, or nothing.
    pub fn take_over(&mut self, path: &[&str], old: &Object) {
        match old.at(path) {
            Some(value) => self.set(path, value.clone()),
            None => drop(self.remove(path)),
        }
    }

    /// `apiVersion`.
    pub fn api_version(&self) -> &str {
        self.text(&["apiVersion"])
    }

    /// `kind`.
    pub fn kind(&self) -> &str {
        self.text(&["kind"])
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.text(&["metadata", "name"])
    }

    /// `metadata.namespace`; empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.text(&["metadata", "namespace"])
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.text(&["metadata", "uid"])
    }

    /// `metadata.resourceVersion`.
    pub fn resource_version(&self) -> &str {
        self.text(&["metadata", "resourceVersion"])
    }

    /// `metadata.generation`, 0 when unset.
    pub fn generation(&self) -> i64 {
        self.number(&["metadata", "generation"]).unwrap_or_default()
    }

    /// `metadata.deletionTimestamp`, when the object is being deleted.
    pub fn deletion_timestamp(&self) -> Option<&str> {
        self.at(&["metadata", "deletionTimestamp"]).and_then(Value::as_str)
    }

    /// `metadata.labels` as a map; `None` when there are none.
    pub fn labels(&self) -> Option<&Map<String, Value>> {
        self.at(&["metadata", "labels"]).and_then(Value::as_object)
    }

    /// One annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.at(&["metadata", "annotations", key]).and_then(Value::as_str)
    }

    /// `metadata.finalizers`.
    pub fn finalizers(&self) -> impl Iterator<Item = &str> {
        self.list(&["metadata", "finalizers"]).iter().filter_map(Value::as_str)
    }

    /// `metadata.ownerReferences`.
    pub fn owner_references(&self) -> &[Value] {
        self.list(&["metadata", "ownerReferences"])
    }

    /// What counts for a new generation.
    pub fn without_metadata_and_status(&self) -> Object {
        let kept = self.0.iter().filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status"));
        Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

/// The map at a key, made where there is none. Only a new key is copied.
pub(crate) fn map_made<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    if !map.get(key).is_some_and(Value::is_object) {
        put(map, key, Value::Object(Map::new()));
    }
    map.get_mut(key).and_then(Value::as_object_mut).expect("made a map above")
}

/// Sets a key. Only a new one is copied.
fn put(map: &mut Map<String, Value>, key: &str, value: Value) {
    match map.get_mut(key) {
        Some(present) => *present = value,
        None => drop(map.insert(key.to_string(), value)),
    }
}

/// The items of a list; none where there is no list.
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_taken_over_is_as_it_was_or_gone() {
        let object = |value: Value| Object::from_value(value).unwrap();
        let old = object(json!({"spec": {"a": 1}, "status": {}}));
        let mut new = object(json!({"spec": {"a": 2, "b": 2}}));
        new.take_over(&["spec", "a"], &old);
        new.take_over(&["spec", "b"], &old);
        new.take_over(&["status"], &old);
        new.take_over(&["metadata", "labels"], &old);
        assert_eq!(new, object(json!({"spec": {"a": 1}, "status": {}})));
    }
}

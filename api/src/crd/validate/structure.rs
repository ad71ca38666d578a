//! What a schema says of a value beside its shape: which lists are sets or maps, and which values are whole objects.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::join;
use crate::{
    FieldError, FieldErrorKind,
    crd::{Props, prune::without_object_fields},
    meta,
};

/// Faults of lists that are sets or maps, and of the metadata of embedded objects.
pub fn validate_structure(value: &Value, old: Option<&Value>, props: &Props) -> Vec<FieldError> {
    let mut faults = Vec::new();
    check(value, old, props, "", true, &mut faults);
    faults
}

/// The items that a list had before, by their keys, where it is a map.
pub struct Counterparts<'a> {
    props: &'a Props,
    by_key: HashMap<Option<Key<'a>>, &'a Value>,
}

impl<'a> Counterparts<'a> {
    /// Those of `old`, which may be no list.
    pub fn of(old: Option<&'a Value>, props: &'a Props) -> Counterparts<'a> {
        let is_map = props.list_type.as_deref() == Some("map");
        let items = old.filter(|_| is_map).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut by_key = HashMap::with_capacity(items.len());
        for item in items {
            by_key.entry(key_of(item, props)).or_insert(item);
        }
        Counterparts { props, by_key }
    }

    /// The item that had the same keys.
    pub fn get(&self, item: &'a Value) -> Option<&'a Value> {
        if self.by_key.is_empty() {
            return None;
        }
        self.by_key.get(&key_of(item, self.props)).copied()
    }
}

/// Adds the faults of a value at `path` and of all below it.
pub(super) fn check(
    value: &Value,
    old: Option<&Value>,
    props: &Props,
    path: &str,
    is_root: bool,
    faults: &mut Vec<FieldError>,
) {
    if old == Some(value) {
        return;
    }
    match value {
        Value::Object(map) => {
            if props.is_embedded && !is_root {
                check_embedded(value, path, faults);
            }
            let is_resource = is_root || props.is_embedded;
            let own = if is_resource { &without_object_fields(map) } else { map };
            for (name, value) in own {
                if let Some(field) = props.field(name) {
                    let old = old.and_then(|old| old.get(name));
                    check(value, old, field, &join(path, name), false, faults);
                }
            }
        }
        Value::Array(items) => {
            let before = Counterparts::of(old, props);
            let mut twins = Twins { props, items: HashSet::new(), keys: HashSet::new() };
            for (index, value) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                if let Some(twin) = twins.add(value) {
                    faults.push(FieldError::duplicate(&path, &twin));
                }
                if let Some(item) = props.item() {
                    check(value, before.get(value), item, &path, false, faults);
                }
            }
        }
        _ => {}
    }
}

/// The items of a list that have been seen.
struct Twins<'a> {
    props: &'a Props,
    items: HashSet<&'a Value>,
    keys: HashSet<Key<'a>>,
}

impl<'a> Twins<'a> {
    /// What is duplicate about the next item: the item of a set, the keys of an item of a map.
    fn add(&mut self, item: &'a Value) -> Option<Value> {
        match self.props.list_type.as_deref() {
            Some("set") => (!self.items.insert(item)).then(|| item.clone()),
            Some("map") => {
                let key = key_of(item, self.props)?;
                let shown = || {
                    let keys = key.iter().map(|(name, value)| (name.to_string(), (*value).clone()));
                    Value::Object(keys.collect())
                };
                let shown = self.keys.contains(&key).then(shown);
                self.keys.insert(key);
                shown
            }
            _ => None,
        }
    }
}

/// The fields of an item that make it that item, by name.
type Key<'a> = Vec<(&'a str, &'a Value)>;

fn key_of<'a>(item: &'a Value, props: &'a Props) -> Option<Key<'a>> {
    let item = item.as_object()?;
    let mut keys: Key =
        props.list_keys.iter().filter_map(|key| Some((key.as_str(), item.get(key)?))).collect();
    keys.sort_by_key(|(name, _)| *name);
    Some(keys)
}

/// An embedded object says what it is, and its metadata is sound.
pub(super) fn check_embedded(value: &Value, path: &str, faults: &mut Vec<FieldError>) {
    for name in ["apiVersion", "kind"] {
        let path = join(path, name);
        match value.get(name) {
            None => faults.push(FieldError::required(path, "must not be empty")),
            Some(Value::String(text)) if text.is_empty() => {
                faults.push(FieldError::required(path, "must not be empty"));
            }
            Some(Value::String(text)) if name == "kind" => {
                if let Err(message) = crate::name::dns_1035_label(&text.to_lowercase()) {
                    faults.push(FieldError::invalid(path, &text.as_str().into(), message));
                }
            }
            Some(Value::String(_)) => {}
            Some(other) => {
                let detail = "must be a string";
                faults.push(FieldError::new(FieldErrorKind::TypeInvalid, path, other.to_string(), detail));
            }
        }
    }
    let map = |name: &str| value.get("metadata")?.get(name)?.as_object();
    if let Some(labels) = map("labels") {
        faults.extend(meta::validate_labels(labels, &join(path, "metadata.labels")));
    }
    if let Some(annotations) = map("annotations") {
        faults.extend(meta::validate_annotations(annotations, &join(path, "metadata.annotations")));
    }
}

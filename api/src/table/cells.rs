//! What cells of many kinds have in common.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::Column;
use crate::Object;

/// The text at a path, or `otherwise` when there is none.
pub(super) fn text_or(object: &Object, path: &[&str], otherwise: &str) -> Value {
    match object.text(path) {
        "" => otherwise.into(),
        text => text.into(),
    }
}

/// The number at a path, 0 when there is none.
pub(super) fn number(object: &Object, path: &[&str]) -> Value {
    object.number(path).unwrap_or_default().into()
}

/// A number or a share such as `25%`, or `otherwise` when there is none.
pub(super) fn share_or(object: &Object, path: &[&str], otherwise: &str) -> Value {
    match object.at(path) {
        Some(Value::Number(number)) => number.to_string().into(),
        Some(Value::String(text)) => text.clone().into(),
        _ => otherwise.into(),
    }
}

/// `True`, `False`, or `<unset>`.
pub(super) fn truth(object: &Object, path: &[&str]) -> Value {
    match object.at(path).and_then(Value::as_bool) {
        Some(true) => "True".into(),
        Some(false) => "False".into(),
        None => "<unset>".into(),
    }
}

/// `true` or `false`.
pub(super) fn flag(object: &Object, path: &[&str]) -> Value {
    object.at(path).and_then(Value::as_bool).unwrap_or_default().into()
}

/// How many items a list, or entries a map, has.
pub(super) fn count(object: &Object, path: &[&str]) -> usize {
    match object.at(path) {
        Some(Value::Array(items)) => items.len(),
        Some(Value::Object(map)) => map.len(),
        _ => 0,
    }
}

/// Texts with commas between them, or `otherwise` when there are none.
pub(super) fn joined<T: AsRef<str>>(texts: &[T], otherwise: &str) -> String {
    match texts {
        [] => otherwise.to_string(),
        texts => texts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(","),
    }
}

/// The first three texts, and how many more there are.
pub(super) fn first_three<T: AsRef<str>>(texts: &[T], otherwise: &str) -> String {
    const SHOWN: usize = 3;
    match texts.len() {
        0..=SHOWN => joined(texts, otherwise),
        all => format!("{} + {} more...", joined(&texts[..SHOWN], otherwise), all - SHOWN),
    }
}

/// A map of labels as `key=value,...`.
pub(super) fn labels(map: Option<&Map<String, Value>>) -> String {
    let pair = |(key, value): (&String, &Value)| format!("{key}={}", value.as_str().unwrap_or_default());
    let mut pairs: Vec<String> = map.into_iter().flatten().map(pair).collect();
    pairs.sort();
    joined(&pairs, "<none>")
}

/// The map of labels at a path.
pub(super) fn labels_at(object: &Object, path: &[&str]) -> Value {
    labels(object.at(path).and_then(Value::as_object)).into()
}

/// The structured selector at a path as `key=value,key in (a,b),!key`.
pub(super) fn selector_at(object: &Object, path: &[&str]) -> Value {
    let Some(selector) = object.at(path) else { return "<none>".into() };
    let mut parts: Vec<String> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        values.sort_unstable();
        parts.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({})", values.join(",")),
            Some("NotIn") => format!("{key} notin ({})", values.join(",")),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key.to_string(),
        });
    }
    parts.sort();
    joined(&parts, "<none>").into()
}

/// The condition of a type.
pub(super) fn condition<'a>(object: &'a Object, kind: &str) -> Option<&'a Value> {
    object.list(&["status", "conditions"]).iter().find(|condition| condition["type"] == kind)
}

/// Whether the condition of a type is true.
pub(super) fn is_condition_true(object: &Object, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition["status"] == "True")
}

/// The names of a template's containers.
pub(super) const CONTAINERS: Column =
    Column::text("Containers", "Names of the containers in the template.", |object, _| {
        of_containers(object, "name")
    })
    .wide();

/// The images of a template's containers.
pub(super) const IMAGES: Column =
    Column::text("Images", "Images of the containers in the template.", |object, _| {
        of_containers(object, "image")
    })
    .wide();

/// The structured selector in the spec.
pub(super) const SELECTOR: Column =
    Column::text("Selector", "Which pods belong to the object.", |object, _| {
        selector_at(object, &["spec", "selector"])
    })
    .wide();

fn of_containers(object: &Object, field: &str) -> Value {
    let paths: [&[&str]; 3] = [
        &["spec", "template", "spec", "containers"],
        &["template", "spec", "containers"],
        &["spec", "jobTemplate", "spec", "template", "spec", "containers"],
    ];
    let containers = paths.iter().map(|path| object.list(path)).find(|list| !list.is_empty()).unwrap_or(&[]);
    let texts: Vec<&str> = containers.iter().filter_map(|container| container[field].as_str()).collect();
    texts.join(",").into()
}

/// A moment as the time since then, or `otherwise` when there is none.
pub(super) fn since_or(object: &Object, path: &[&str], now: Timestamp, otherwise: &str) -> Value {
    match object.text(path) {
        "" => otherwise.into(),
        moment => super::since(moment, now).into(),
    }
}

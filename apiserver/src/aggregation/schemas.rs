//! What of an extension server's OpenAPI v2 document belongs into ours: its group's paths and what they refer to. Pure.

use std::collections::{BTreeMap, btree_map::Entry};

use api::openapi::Part;
use serde_json::Value;

use super::offer::MAX_DOCUMENT;

const DEFINITIONS: &str = "#/definitions/";
const PARAMETERS: &str = "#/parameters/";

/// The part of a document that is about one version of a group. Parameters that the document shares among its
/// operations are put where they are used; a document that this makes larger than any may be is as good as none.
pub(super) fn part_of(document: &Value, group: &str, version: &str) -> Part {
    let roots = [format!("/apis/{group}/"), format!("/apis/{group}/{version}/")];
    let below = &roots[1];
    let mut part = Part::default();
    let mut room = MAX_DOCUMENT;
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        if roots.contains(path) || path.starts_with(below) {
            let mut item = item.clone();
            if put_in_place(&mut item, &document["parameters"], &mut room).is_none() {
                return Part::default();
            }
            part.paths.insert(path.clone(), item);
        }
    }
    let is_of_version = |definition: &Value| {
        let kinds = definition["x-kubernetes-group-version-kind"].as_array();
        kinds.into_iter().flatten().any(|kind| kind["group"] == group && kind["version"] == version)
    };
    let mut wanted: Vec<String> = part.paths.values().flat_map(references).collect();
    let definitions = document["definitions"].as_object();
    let of_version = definitions.into_iter().flatten().filter(|(_, definition)| is_of_version(definition));
    wanted.extend(of_version.map(|(name, _)| name.clone()));
    part.definitions = closure(wanted, &document["definitions"]);
    part
}

fn closure(mut wanted: Vec<String>, definitions: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    while let Some(name) = wanted.pop() {
        let Some(definition) = definitions.get(&name) else { continue };
        if let Entry::Vacant(place) = found.entry(name) {
            wanted.extend(references(definition));
            place.insert(definition.clone());
        }
    }
    found
}

/// The names of all definitions that something refers to.
fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => {
            let own =
                map.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix(DEFINITIONS));
            own.map(str::to_string).into_iter().chain(map.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

/// Puts parameters where they are referred to; `None` when they take more than `room`, in bytes of JSON. A reference is
/// short and may come often, so that the length of the document says nothing about what comes out.
fn put_in_place(value: &mut Value, parameters: &Value, room: &mut usize) -> Option<()> {
    let target = value.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix(PARAMETERS));
    if let Some(parameter) = target.and_then(|name| parameters.get(name)) {
        *room = room.checked_sub(parameter.to_string().len())?;
        *value = parameter.clone();
        return Some(());
    }
    match value {
        Value::Object(map) => map.values_mut().try_for_each(|value| put_in_place(value, parameters, room)),
        Value::Array(items) => items.iter_mut().try_for_each(|value| put_in_place(value, parameters, room)),
        _ => Some(()),
    }
}

/// What all other servers add, where two say the same thing the first.
pub(super) fn united<'a>(parts: impl Iterator<Item = &'a Part>) -> Part {
    let mut all = Part::default();
    for part in parts {
        for (path, item) in &part.paths {
            all.paths.entry(path.clone()).or_insert_with(|| item.clone());
        }
        for (name, definition) in &part.definitions {
            all.definitions.entry(name.clone()).or_insert_with(|| definition.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_the_group_bring_what_they_refer_to() {
        let refers = |name: &str| json!({"$ref": format!("{DEFINITIONS}{name}")});
        let document = json!({
            "paths": {
                "/apis/g.example.com/v1/things": {"parameters": [{"$ref": "#/parameters/pretty"}],
                    "get": {"responses": {"200": {"schema": refers("List")}}}},
                "/apis/g.example.com/v2/things": {}, "/apis/g.example.com/": {}, "/healthz": {}, "/apis/other/v1/": {},
            },
            "definitions": {
                "List": {"items": refers("Thing")}, "Thing": {"properties": {"self": refers("Thing")}},
                "Unused": {},
                "Alone": {"x-kubernetes-group-version-kind": [{"group": "g.example.com", "version": "v1", "kind": "A"}]},
            },
            "parameters": {"pretty": {"in": "query", "name": "pretty"}},
        });
        let part = part_of(&document, "g.example.com", "v1");
        let names = |map: &BTreeMap<String, Value>| map.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&part.paths), ["/apis/g.example.com/", "/apis/g.example.com/v1/things"]);
        assert_eq!(names(&part.definitions), ["Alone", "List", "Thing"]);
        let things = &part.paths["/apis/g.example.com/v1/things"];
        assert_eq!(things["parameters"], json!([{"in": "query", "name": "pretty"}]));
        assert_eq!(united([&part, &part].into_iter()), part);
    }

    #[test]
    fn a_document_whose_parameters_make_it_too_large_adds_nothing() {
        let of_uses = |uses: usize| {
            let document = json!({
                "paths": {"/apis/g.example.com/v1/things": {"parameters": vec![json!({"$ref": "#/parameters/long"}); uses]}},
                "parameters": {"long": {"description": "x".repeat(MAX_DOCUMENT / 4)}},
            });
            part_of(&document, "g.example.com", "v1")
        };
        assert_eq!(of_uses(3).paths.len(), 1);
        assert!(of_uses(4) == Part::default());
    }
}

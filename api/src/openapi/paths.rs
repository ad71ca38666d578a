//! The `paths` of a document, in the words of either edition.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    Edition,
    definitions::reference,
    operations::{Operation, Parameter, operations, tag},
};
use crate::Kind;

const FORMATS: [&str; 2] = ["application/json", "application/yaml"];
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Every path with its operations.
pub(super) fn paths(kinds: &[Kind], edition: Edition) -> BTreeMap<String, Value> {
    let mut paths: BTreeMap<String, Value> = BTreeMap::new();
    for kind in kinds {
        let tag = tag(kind);
        for operation in operations(kind) {
            let item = paths.entry(operation.path.clone()).or_insert_with(|| item(&operation.path, edition));
            item[operation.method] = render(&operation, &tag, edition);
        }
    }
    paths
}

/// A path without operations, only with the parameters that stand in the path itself.
fn item(path: &str, edition: Edition) -> Value {
    let described = [("name", "name of the object"), ("namespace", "object name and auth scope")];
    let present = described.into_iter().filter(|(name, _)| path.contains(&format!("{{{name}}}")));
    let parameters: Vec<Value> = present
        .map(|(name, description)| {
            let place = json!({"name": name, "in": "path", "description": description, "required": true});
            typed(place, "string", edition)
        })
        .collect();
    if parameters.is_empty() { json!({}) } else { json!({"parameters": parameters}) }
}

fn render(operation: &Operation, tag: &str, edition: Edition) -> Value {
    let [group, version, kind] = operation.subject;
    let mut value = json!({
        "description": operation.description,
        "operationId": operation.id,
        "tags": [tag],
        "responses": responses(operation, edition),
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {"group": group, "kind": kind, "version": version},
    });
    let mut parameters: Vec<Value> =
        operation.parameters.iter().map(|parameter| query(parameter, edition)).collect();
    let accepted: &[&str] = if operation.method == "patch" { &PATCHES } else { &FORMATS };
    let is_required = operation.method != "delete";
    match edition {
        Edition::V2 => {
            value["consumes"] = if operation.method == "patch" { json!(PATCHES) } else { json!(["*/*"]) };
            value["produces"] = match operation.answer {
                Some(_) => json!(FORMATS),
                None => json!(["text/plain"]),
            };
            value["schemes"] = json!(["https"]);
            parameters.extend(operation.body.map(|body| {
                json!({"name": "body", "in": "body", "required": is_required, "schema": reference(body, edition)})
            }));
        }
        Edition::V3 => {
            if let Some(body) = operation.body {
                let content = content(accepted, &reference(body, edition));
                value["requestBody"] = json!({"content": content, "required": is_required});
            }
        }
    }
    if !parameters.is_empty() {
        value["parameters"] = parameters.into();
    }
    value
}

fn responses(operation: &Operation, edition: Edition) -> Value {
    let success = |code: &&str| {
        let description = match *code {
            "201" => "Created",
            "202" => "Accepted",
            _ => "OK",
        };
        let schema = match &operation.answer {
            Some(answer) => reference(answer, edition),
            None => json!({"type": "string"}),
        };
        let formats: &[&str] = if operation.answer.is_some() { &FORMATS } else { &["text/plain"] };
        let response = match edition {
            Edition::V2 => json!({"description": description, "schema": schema}),
            Edition::V3 => json!({"description": description, "content": content(formats, &schema)}),
        };
        (code.to_string(), response)
    };
    let mut responses: Map<String, Value> = operation.codes.iter().map(success).collect();
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    Value::Object(responses)
}

fn content(formats: &[&str], schema: &Value) -> Value {
    formats.iter().map(|format| (format.to_string(), json!({"schema": schema}))).collect::<Map<_, _>>().into()
}

fn query((name, kind, description): &Parameter, edition: Edition) -> Value {
    typed(json!({"name": name, "in": "query", "description": description}), kind, edition)
}

/// A parameter with its type, which v3 puts into a schema.
fn typed(mut parameter: Value, kind: &str, edition: Edition) -> Value {
    let target = match edition {
        Edition::V2 => &mut parameter,
        Edition::V3 => &mut parameter["schema"],
    };
    target["type"] = kind.into();
    target["uniqueItems"] = true.into();
    parameter
}

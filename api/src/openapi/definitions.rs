//! The definitions of a document: what k8s-openapi says of each type, in the form that upstream publishes.

use std::collections::{BTreeSet, VecDeque};

use serde_json::{Map, Value, json};

use super::Edition;
use crate::{
    Kind, Verbs, crd,
    schema::{ListType, Merge, ROOTS, is_atomic_type, merge_rule},
};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Definitions one after the other, each once.
pub(super) struct Definitions {
    edition: Edition,
    kinds: Vec<Kind>,
    /// Types that stand on their own and are still to come, by name.
    roots: VecDeque<String>,
    /// Made and not yet handed out.
    ready: VecDeque<(String, Value)>,
    done: BTreeSet<String>,
}

impl Definitions {
    /// Everything that the kinds and their operations refer to.
    pub(super) fn of(kinds: &[Kind], edition: Edition) -> Definitions {
        let mut roots: Vec<String> = kinds.iter().map(|kind| kind.schema.to_string()).collect();
        roots.extend(kinds.iter().any(|kind| kind.custom.is_some()).then(|| format!("{META}.ObjectMeta")));
        roots.extend(["DeleteOptions", "ListMeta", "Status"].map(|name| format!("{META}.{name}")));
        for kind in kinds {
            if kind.scale.is_some() {
                roots.push("io.k8s.api.autoscaling.v1.Scale".into());
            }
            roots.extend(kind.subresources.iter().filter_map(|name| body_of(name)).map(String::from));
        }
        let lists =
            kinds.iter().filter(|kind| has_list(kind)).map(|kind| (list_name(kind), list(kind, edition)));
        let mut ready: VecDeque<(String, Value)> = lists.collect();
        ready.push_back((format!("{META}.Patch"), patch()));
        let done = ready.iter().map(|(name, _)| name.clone()).collect();
        Definitions { edition, kinds: kinds.to_vec(), roots: roots.into(), ready, done }
    }

    fn make(&mut self, root: &str) {
        if self.done.contains(root) {
            return;
        }
        if let Some(version) =
            self.kinds.iter().filter(|kind| kind.schema == root).find_map(|kind| kind.custom)
        {
            self.done.insert(root.to_string());
            let edition = self.edition;
            let metadata =
                |text: &str| described(reference(&format!("{META}.ObjectMeta"), edition), text, edition);
            let value = self.with_kind(root, crd::published(version, metadata, edition == Edition::V2));
            return self.ready.push_back((root.to_string(), value));
        }
        let Some(known) = ROOTS.iter().find(|known| (known.name)() == root) else {
            // A kind without a known type is any object.
            self.done.insert(root.to_string());
            let value = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
            let value = self.with_kind(root, value);
            return self.ready.push_back((root.to_string(), value));
        };
        for (name, source) in known.definitions() {
            if self.done.insert(name.clone()) {
                let value = self.with_kind(&name, definition(&name, source, self.edition));
                self.ready.push_back((name, value));
            }
        }
    }

    fn with_kind(&self, name: &str, mut definition: Value) -> Value {
        let kinds = self.kinds.iter().filter(|kind| kind.schema == name).map(gvk).collect::<Vec<_>>();
        if !kinds.is_empty() {
            definition["x-kubernetes-group-version-kind"] = kinds.into();
        }
        definition
    }
}

impl Iterator for Definitions {
    type Item = (String, Value);

    fn next(&mut self) -> Option<(String, Value)> {
        while self.ready.is_empty() {
            let root = self.roots.pop_front()?;
            self.make(&root);
        }
        self.ready.pop_front()
    }
}

/// A reference to a definition.
pub(super) fn reference(name: &str, edition: Edition) -> Value {
    let place = match edition {
        Edition::V2 => "definitions",
        Edition::V3 => "components/schemas",
    };
    json!({"$ref": format!("#/{place}/{name}")})
}

/// `{group, version, kind}`.
pub(super) fn gvk(kind: &Kind) -> Value {
    json!({"group": kind.group, "kind": kind.kind, "version": kind.version})
}

/// What a `POST` to a subresource takes, for those that are no view of the object itself.
pub(super) fn body_of(subresource: &str) -> Option<&'static str> {
    match subresource {
        "binding" => Some("io.k8s.api.core.v1.Binding"),
        "eviction" => Some("io.k8s.api.policy.v1.Eviction"),
        "token" => Some("io.k8s.api.authentication.v1.TokenRequest"),
        _ => None,
    }
}

/// The name of the definition of a kind's list.
pub(super) fn list_name(kind: &Kind) -> String {
    format!("{}List", kind.schema)
}

pub(super) fn has_list(kind: &Kind) -> bool {
    kind.verbs != Verbs::Create
}

fn list(kind: &Kind, edition: Edition) -> Value {
    json!({
        "description": format!("{0}List is a list of {0} objects.", kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"description": API_VERSION, "type": "string"},
            "items": {
                "description": format!("Items is the list of {} objects.", kind.kind),
                "type": "array",
                "items": reference(kind.schema, edition),
            },
            "kind": {"description": KIND, "type": "string"},
            "metadata": described(reference(&format!("{META}.ListMeta"), edition), "Standard list metadata.", edition),
        },
        "x-kubernetes-group-version-kind": [
            {"group": kind.group, "kind": kind.list_kind(), "version": kind.version},
        ],
    })
}

const API_VERSION: &str = "The versioned schema of this representation of an object.";
const KIND: &str = "The REST resource that this object represents, in CamelCase.";

fn patch() -> Value {
    json!({
        "description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.",
        "type": "object",
    })
}

/// One definition, as upstream would publish it.
fn definition(name: &str, source: Value, edition: Edition) -> Value {
    let Value::Object(source) = source else { return json!({}) };
    let description = source.get("description").cloned().unwrap_or_default();
    match name.rsplit('.').next().unwrap_or_default() {
        // v3 can say that there are two forms; `kubectl explain` shows a name only where there is no type.
        "Quantity" if edition == Edition::V3 => {
            return json!({"description": description, "oneOf": [{"type": "string"}, {"type": "number"}]});
        }
        "IntOrString" if edition == Edition::V3 => {
            let forms = json!([{"type": "integer"}, {"type": "string"}]);
            return json!({"description": description, "format": "int-or-string", "oneOf": forms});
        }
        "Quantity" => return json!({"description": description, "type": "string"}),
        "IntOrString" => {
            return json!({"description": description, "type": "string", "format": "int-or-string"});
        }
        // Any JSON, which no type names.
        "JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray" => {
            return json!({"description": description});
        }
        _ => {}
    }
    let mut definition = Map::new();
    for (key, value) in source {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                let property = |(field, source): (String, Value)| {
                    let value = property(name, &field, source, edition);
                    (field, value)
                };
                definition.insert(key, properties.into_iter().map(property).collect());
            }
            ("required", Value::Array(fields)) => {
                let required = required(name, fields);
                if !required.is_empty() {
                    definition.insert(key, required.into());
                }
            }
            (_, value) => {
                definition.insert(key, value);
            }
        }
    }
    if is_atomic_type(name) {
        definition.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    Value::Object(definition)
}

/// What upstream asks for, of what k8s-openapi's types always have.
fn required(owner: &str, fields: Vec<Value>) -> Vec<Value> {
    let owner = owner.strip_prefix("io.k8s.api.").unwrap_or(owner);
    let mut fields = fields;
    match owner {
        "core.v1.Event" => {}
        "core.v1.ConfigMapEnvSource"
        | "core.v1.ConfigMapKeySelector"
        | "core.v1.ConfigMapProjection"
        | "core.v1.ConfigMapVolumeSource"
        | "core.v1.LocalObjectReference"
        | "core.v1.SecretEnvSource"
        | "core.v1.SecretKeySelector"
        | "core.v1.SecretProjection" => fields.retain(|field| field != "name"),
        "events.v1.Event" => {
            fields.retain(|field| field != "metadata");
            if !fields.iter().any(|field| field == "eventTime") {
                fields.push("eventTime".into());
            }
        }
        _ => fields.retain(|field| field != "metadata"),
    }
    fields
}

fn property(owner: &str, field: &str, source: Value, edition: Edition) -> Value {
    let mut value = shape(source, edition);
    if let (Some(merge), Some(map)) = (merge_rule(owner, field), value.as_object_mut()) {
        add_merge_rule(map, merge);
    }
    value
}

/// A type inside a definition, with its references renamed.
fn shape(source: Value, edition: Edition) -> Value {
    let Value::Object(source) = source else { return source };
    if let Some(target) = source.get("$ref").and_then(Value::as_str) {
        let name = target.rsplit('/').next().unwrap_or_default();
        let description = source.get("description").and_then(Value::as_str).unwrap_or_default();
        return described(reference(name, edition), description, edition);
    }
    let inner = |(key, value): (String, Value)| match key.as_str() {
        "items" | "additionalProperties" => (key, shape(value, edition)),
        _ => (key, value),
    };
    Value::Object(source.into_iter().map(inner).collect())
}

/// A reference with a description of its own; v3 allows nothing beside a reference, so wraps it.
fn described(reference: Value, description: &str, edition: Edition) -> Value {
    match (edition, description) {
        (_, "") => reference,
        (Edition::V2, _) => {
            let mut reference = reference;
            reference["description"] = description.into();
            reference
        }
        (Edition::V3, _) => json!({"description": description, "allOf": [reference]}),
    }
}

fn add_merge_rule(property: &mut Map<String, Value>, rule: &Merge) {
    let mut set = |key: &str, value: Value| property.insert(format!("x-kubernetes-{key}"), value);
    match rule.list {
        Some(ListType::Atomic) => set("list-type", "atomic".into()),
        Some(ListType::Set) => set("list-type", "set".into()),
        Some(ListType::Map) => {
            set("list-map-keys", rule.keys.into());
            set("list-type", "map".into())
        }
        Some(ListType::AtomicMap) => set("map-type", "atomic".into()),
        None => None,
    };
    if !rule.key.is_empty() {
        set("patch-merge-key", rule.key.into());
    }
    let strategies = [(rule.merge, "merge"), (rule.retain_keys, "retainKeys"), (rule.replace, "replace")];
    let named: Vec<&str> =
        strategies.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect();
    if !named.is_empty() {
        set("patch-strategy", named.join(",").into());
    }
}

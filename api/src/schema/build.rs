//! Turns k8s-openapi's JSON schemas into the compact tree.

use std::{
    collections::{HashMap, HashSet},
    sync::{LazyLock, PoisonError, RwLock},
};

use serde_json::{Map, Value};

use super::{Field, Fields, ROOTS, Schema, Shape, merge, zero};

/// Everything built so far. The parts live as long as the process: definitions refer to each other, also
/// in circles, and there are only as many as the API has types.
#[derive(Default)]
struct Table {
    definitions: HashMap<&'static str, &'static Schema>,
    /// Lists and maps by the address of what they hold.
    collections: HashMap<(bool, usize), &'static Schema>,
    texts: HashSet<&'static str>,
    /// Whether all roots have been added.
    is_complete: bool,
}

static TABLE: LazyLock<RwLock<Table>> = LazyLock::new(RwLock::default);

static ANY: Schema = unnamed(Shape::Any);
static BOOLEAN: Schema = unnamed(Shape::Boolean);
static INT32: Schema = unnamed(Shape::Int32);
static INT64: Schema = unnamed(Shape::Int64);
static NUMBER: Schema = unnamed(Shape::Number);
static TEXT: Schema = unnamed(Shape::Text);
static BYTES: Schema = unnamed(Shape::Bytes);

/// The definition with a name, built when it is not there yet.
pub(super) fn definition(name: &str) -> Option<&'static Schema> {
    if let Some(answer) = TABLE.read().unwrap_or_else(PoisonError::into_inner).known(name) {
        return answer;
    }
    let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
    match ROOTS.iter().find(|root| (root.name)() == name) {
        Some(root) => table.add(&root.definitions()),
        // A part of some kind: rare enough to build them all.
        None => {
            ROOTS.iter().for_each(|root| table.add(&root.definitions()));
            table.is_complete = true;
        }
    }
    table.known(name).flatten()
}

impl Table {
    /// The definition, or that there is none, once that is certain.
    fn known(&self, name: &str) -> Option<Option<&'static Schema>> {
        match self.definitions.get(name) {
            Some(schema) => Some(Some(schema)),
            None => (self.is_complete || !name.starts_with("io.k8s.")).then_some(None),
        }
    }

    fn add(&mut self, source: &Map<String, Value>) {
        for name in source.keys() {
            self.define(name, source);
        }
    }

    fn define(&mut self, name: &str, source: &Map<String, Value>) -> &'static Schema {
        if let Some(schema) = self.definitions.get(name) {
            return schema;
        }
        let Some(json) = source.get(name) else { return &ANY };
        let name = self.text(name);
        let shape = known_shape(name).unwrap_or_else(|| Shape::Object(Fields::default()));
        let shape = match json.get("oneOf").and_then(Value::as_array) {
            Some(choices) => Shape::Either(choices.iter().map(|json| self.shape(json, source)).collect()),
            None => shape,
        };
        let schema: &'static Schema = Box::leak(Box::new(Schema { name, shape, custom: None }));
        // Known from here on, so that a type that contains itself finds itself.
        self.definitions.insert(name, schema);
        if let Shape::Object(fields) = &schema.shape {
            let all = self.fields(name, json, source);
            fields.0.get_or_init(|| all);
        }
        schema
    }

    fn fields(&mut self, name: &str, json: &Value, source: &Map<String, Value>) -> Box<[Field]> {
        let empty = Map::new();
        let properties = json.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let required = json.get("required").and_then(Value::as_array);
        let is_required = |field: &str| required.is_some_and(|names| names.iter().any(|name| name == field));
        let mut fields: Vec<Field> = properties
            .iter()
            .map(|(field, json)| {
                let schema = self.shape(json, source);
                let is_required = is_required(field);
                Field {
                    name: self.text(field),
                    schema,
                    is_required,
                    vanishes: !is_required && zero::vanishes(name, field, &schema.shape),
                    merge: merge::of(name, field),
                    default: merge::key_default(name, field),
                }
            })
            .collect();
        fields.sort_by_key(|field| field.name);
        fields.into_boxed_slice()
    }

    fn shape(&mut self, json: &Value, source: &Map<String, Value>) -> &'static Schema {
        if let Some(reference) = json.get("$ref").and_then(Value::as_str) {
            let name = reference.rsplit('/').next().unwrap_or_default();
            return self.define(name, source);
        }
        let text = |key| json.get(key).and_then(Value::as_str).unwrap_or_default();
        match (text("type"), text("format")) {
            ("boolean", _) => &BOOLEAN,
            ("integer", "int64") => &INT64,
            ("integer", _) => &INT32,
            ("number", _) => &NUMBER,
            ("string", "byte") => &BYTES,
            ("string", _) => &TEXT,
            ("array", _) => {
                let item = json.get("items").map_or(&ANY, |items| self.shape(items, source));
                self.collection(true, item)
            }
            ("object", _) => match json.get("additionalProperties") {
                Some(values) if values.is_object() => {
                    let value = self.shape(values, source);
                    self.collection(false, value)
                }
                _ => &ANY,
            },
            _ => &ANY,
        }
    }

    fn collection(&mut self, is_list: bool, item: &'static Schema) -> &'static Schema {
        self.collections.entry((is_list, std::ptr::from_ref(item).addr())).or_insert_with(|| {
            let shape = if is_list { Shape::List(item) } else { Shape::Map(item) };
            Box::leak(Box::new(unnamed(shape)))
        })
    }

    fn text(&mut self, text: &str) -> &'static str {
        if let Some(known) = self.texts.get(text) {
            return known;
        }
        let text: &'static str = Box::leak(text.into());
        self.texts.insert(text);
        text
    }
}

const fn unnamed(shape: Shape) -> Schema {
    Schema { name: "", shape, custom: None }
}

/// Definitions that are more, or less, than their JSON schemas say.
fn known_shape(name: &str) -> Option<Shape> {
    match name.rsplit('.').next()? {
        "Quantity" => Some(Shape::Quantity),
        "IntOrString" => Some(Shape::IntOrString),
        "Time" => Some(Shape::Time),
        "MicroTime" => Some(Shape::MicroTime),
        "RawExtension" | "FieldsV1" | "JSON" => Some(Shape::Any),
        _ => None,
    }
}

//! A custom resource's schema as everything generic sees it.
//!
//! The tree lives as long as the process, like those of built-in kinds; equal definitions share one
//! ([`super::Definition::of`]), so that what stays behind is bounded by how many different schemas there ever were.

use serde_json::Value;

use super::Props;
use crate::schema::{self, Custom, Field, Fields, ListType, Merge, Schema, Shape};

static ANYTHING: Schema =
    Schema { name: "", shape: Shape::Any, custom: Some(Custom { keeps_unknown: true }) };
static TEXT: Schema = Schema { name: "", shape: Shape::Text, custom: None };

/// The schema of a whole object.
pub(super) fn of(name: &'static str, props: &Props) -> &'static Schema {
    object(name, props, true)
}

fn leak(name: &'static str, shape: Shape, keeps_unknown: bool) -> &'static Schema {
    Box::leak(Box::new(Schema { name, shape, custom: Some(Custom { keeps_unknown }) }))
}

fn node(props: &Props) -> &'static Schema {
    match props.kind.as_str() {
        "object" => match props.values() {
            Some(values) => leak("", Shape::Map(node(values)), false),
            None if matches!(props.additional_properties, Some(super::Additional::Allowed(true))) => {
                &ANYTHING
            }
            None => object("", props, props.is_embedded),
        },
        "array" => leak("", Shape::List(props.item().map_or(&ANYTHING, node)), false),
        _ => &ANYTHING,
    }
}

fn object(name: &'static str, props: &Props, is_resource: bool) -> &'static Schema {
    let own = |name: &&String| !is_resource || !matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
    let mut fields: Vec<Field> = props
        .properties
        .iter()
        .filter(|(name, _)| own(name))
        .map(|(name, field)| Field {
            name: Box::leak(name.clone().into_boxed_str()),
            schema: node(field),
            is_required: props.required.contains(name),
            vanishes: false,
            merge: merge(field),
            default: field
                .default
                .as_ref()
                .filter(|value| is_scalar(value))
                .map(|value| &*Box::leak(Box::new(value.clone()))),
        })
        .collect();
    if is_resource {
        let metadata =
            schema::by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap_or(&ANYTHING);
        for (name, schema) in [("apiVersion", &TEXT), ("kind", &TEXT), ("metadata", metadata)] {
            fields.push(Field {
                name,
                schema,
                is_required: false,
                vanishes: false,
                merge: None,
                default: None,
            });
        }
    }
    fields.sort_by_key(|field| field.name);
    leak(name, Shape::Object(Fields::of(fields)), props.keeps_unknown())
}

fn is_scalar(value: &Value) -> bool {
    !value.is_null() && !value.is_array() && !value.is_object()
}

/// How a field merges; for strategic merge patches never, as upstream refuses them.
fn merge(props: &Props) -> Option<&'static Merge> {
    let list = props.merge_type()?;
    let keys: Vec<&'static str> = match list {
        ListType::Map => {
            props.list_keys.iter().map(|key| &*Box::leak(key.clone().into_boxed_str())).collect()
        }
        _ => Vec::new(),
    };
    let merge = Merge {
        merge: false,
        replace: false,
        retain_keys: false,
        key: "",
        list: Some(list),
        keys: Box::leak(keys.into_boxed_slice()),
    };
    Some(Box::leak(Box::new(merge)))
}

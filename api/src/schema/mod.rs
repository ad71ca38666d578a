//! What objects look like: one compact tree of types, fields and merge rules for all built-in kinds.
//!
//! A definition is built when it is first asked for, out of k8s-openapi's JSON schemas, and stays: the tree
//! has names, types and merge rules but no descriptions, shares what is equal, and so costs some hundred
//! kilobytes when every kind has been used. [`crate::openapi`] makes the long form, descriptions included,
//! from the same source on demand.

mod build;
mod merge;
mod metrics;
mod roots;
mod zero;

use std::sync::OnceLock;

pub(crate) use merge::{is_atomic_type, of as merge_rule};
pub(crate) use roots::ROOTS;

use serde_json::Value;

use crate::Kind;

/// The shape of a value; a definition when it has a name.
#[derive(Debug)]
pub struct Schema {
    /// The definition's name, such as `io.k8s.api.core.v1.PodSpec`; empty for a shape without one.
    pub name: &'static str,
    /// What values look like.
    pub shape: Shape,
    /// Set in the schemas of custom resources.
    pub custom: Option<Custom>,
}

/// A part of a custom resource. What its values must be is for validation to say, in its own words: reading leaves
/// values of another type alone, and nulls too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Custom {
    /// Whether fields that are not known stay.
    pub keeps_unknown: bool,
}

/// What a value looks like.
#[derive(Debug)]
pub enum Shape {
    /// Any JSON.
    Any,
    /// `true` or `false`.
    Boolean,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A number.
    Number,
    /// Text.
    Text,
    /// Bytes, in base64.
    Bytes,
    /// A point in time with whole seconds.
    Time,
    /// A point in time with microseconds.
    MicroTime,
    /// An amount: text or a number.
    Quantity,
    /// A whole number or text.
    IntOrString,
    /// Items of one shape.
    List(&'static Schema),
    /// Values of one shape under any key.
    Map(&'static Schema),
    /// Named fields.
    Object(Fields),
    /// One of several shapes that differ in their JSON type.
    Either(Box<[&'static Schema]>),
}

/// The fields of a type, in alphabetical order.
#[derive(Debug, Default)]
pub struct Fields(OnceLock<Box<[Field]>>);

/// One field of a type.
#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// What its value looks like.
    pub schema: &'static Schema,
    /// Whether it must be there.
    pub is_required: bool,
    /// Whether its zero value (`""`, `0`, `false`, no items) is as good as none.
    pub vanishes: bool,
    /// How it merges, where that is special.
    pub merge: Option<&'static Merge>,
    /// The value that it has where it is left out, as far as that tells apart the items of a list.
    pub default: Option<&'static Value>,
}

/// How a field merges: for strategic merge patches the first four, for server-side apply the last two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Patch strategy `merge`: items are merged by `key`, or as a set when there is none.
    pub merge: bool,
    /// Patch strategy `replace`: the value is replaced as a whole.
    pub replace: bool,
    /// Patch strategy `retainKeys`: what the patch does not list is removed.
    pub retain_keys: bool,
    /// Patch merge key; may be empty.
    pub key: &'static str,
    /// List or map type.
    pub list: Option<ListType>,
    /// The keys of a list that is a map.
    pub keys: &'static [&'static str],
}

/// How server-side apply sees a list or a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// A list that is one whole.
    Atomic,
    /// A list without duplicates.
    Set,
    /// A list of objects with keys.
    Map,
    /// A map that is one whole.
    AtomicMap,
}

/// The schema of a kind's objects; `None` when there is none.
pub fn of(kind: &Kind) -> Option<&'static Schema> {
    match kind.custom {
        Some(version) => Some(version.tree),
        None => by_name(kind.schema),
    }
}

/// A definition by its full name, `io.k8s.api.core.v1.PodSpec`; also one that is part of others only.
pub fn by_name(name: &str) -> Option<&'static Schema> {
    build::definition(name)
}

impl Schema {
    /// The fields of an object; empty for anything else.
    pub fn fields(&self) -> &[Field] {
        match &self.shape {
            Shape::Object(fields) => fields.all(),
            _ => &[],
        }
    }

    /// A field by name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let fields = self.fields();
        let index = fields.binary_search_by(|field| field.name.cmp(name)).ok()?;
        Some(&fields[index])
    }

    /// What the value at a path of field names looks like; items of lists and values of maps are passed
    /// through without a name.
    pub fn at(&'static self, path: &[&str]) -> Option<&'static Schema> {
        path.iter().try_fold(self, |schema, name| Some(schema.item().field(name)?.schema))
    }

    /// Whether server-side apply treats the whole type as one value.
    pub fn is_atomic(&self) -> bool {
        merge::is_atomic_type(self.name)
    }

    /// `PodSpec` of `io.k8s.api.core.v1.PodSpec`.
    pub fn type_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// `v1` of `io.k8s.api.core.v1.PodSpec`.
    pub fn version(&self) -> &'static str {
        self.name.rsplit('.').nth(1).unwrap_or_default()
    }

    /// The type as Go prints it in upstream's messages, such as `[]v1.Container`.
    pub fn go_type(&self) -> String {
        match &self.shape {
            Shape::Any | Shape::Either(_) if self.name.is_empty() => "interface {}".into(),
            Shape::Boolean => "bool".into(),
            Shape::Int32 => "int32".into(),
            Shape::Int64 => "int64".into(),
            Shape::Number => "float64".into(),
            Shape::Text => "string".into(),
            Shape::Bytes => "[]uint8".into(),
            Shape::List(item) => format!("[]{}", item.go_type()),
            Shape::Map(Schema { shape: Shape::Quantity, .. }) => "v1.ResourceList".into(),
            Shape::Map(value) => format!("map[string]{}", value.go_type()),
            _ => format!("{}.{}", self.version(), self.type_name()),
        }
    }

    fn item(&'static self) -> &'static Schema {
        match self.shape {
            Shape::List(item) | Shape::Map(item) => item.item(),
            _ => self,
        }
    }
}

impl Fields {
    /// These fields, which must be in alphabetical order.
    pub(crate) fn of(fields: Vec<Field>) -> Fields {
        Fields(OnceLock::from(fields.into_boxed_slice()))
    }

    fn all(&self) -> &[Field] {
        self.0.get().map_or(&[], |fields| fields)
    }
}

#[cfg(test)]
mod tests;

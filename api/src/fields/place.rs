//! How ownership sees a value: as one leaf, or as fields or items that may have owners of their own.

use std::{borrow::Cow, sync::LazyLock};

use serde_json::{Map, Value};

use super::Element;
use crate::schema::{Field, ListType, Merge, Schema, Shape};

/// What is known of the values at one place in an object.
#[derive(Clone, Copy)]
pub(super) struct Place {
    schema: Option<&'static Schema>,
    merge: Option<&'static Merge>,
}

/// What a value at a place is made of.
#[derive(Clone, Copy)]
pub(super) enum Nature {
    /// One whole: a scalar, or a list or map that belongs to one owner.
    Leaf,
    /// The fields of a type.
    Struct(&'static Schema),
    /// Any keys.
    Map(Place),
    /// A list of items without duplicates.
    Set,
    /// A list of items with key fields.
    Keyed(Items),
}

/// The items of a list that has keys.
#[derive(Clone, Copy)]
pub(super) struct Items {
    pub(super) place: Place,
    keys: &'static [&'static str],
}

/// A value without fields, for fields that are there even when they are not.
pub(super) static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));

impl Place {
    /// Objects of a type; without a schema maps have fields and lists are leaves.
    pub(super) fn of(schema: Option<&'static Schema>) -> Place {
        Place { schema, merge: None }
    }

    fn of_field(field: &Field) -> Place {
        Place { schema: Some(field.schema), merge: field.merge }
    }

    pub(super) fn schema(self) -> Option<&'static Schema> {
        self.schema
    }

    /// What any value here is made of, whatever its JSON type.
    pub(super) fn declared(self) -> Nature {
        let list = self.merge.and_then(|merge| merge.list);
        let Some(schema) = self.schema else { return Nature::Map(self) };
        match &schema.shape {
            Shape::Any | Shape::Either(_) => Nature::Map(Place::of(None)),
            Shape::Map(_) | Shape::Object(_) if list == Some(ListType::AtomicMap) => Nature::Leaf,
            Shape::Map(value) => Nature::Map(Place::of(Some(value))),
            Shape::Object(_) if schema.is_atomic() => Nature::Leaf,
            Shape::Object(_) => Nature::Struct(schema),
            Shape::List(item) => match (list, self.merge) {
                (Some(ListType::Set), _) => Nature::Set,
                (Some(ListType::Map), Some(merge)) => {
                    Nature::Keyed(Items { place: Place::of(Some(item)), keys: merge.keys })
                }
                _ => Nature::Leaf,
            },
            _ => Nature::Leaf,
        }
    }

    /// What this value is made of; one that is not what it should be is a leaf.
    pub(super) fn nature(self, value: &Value) -> Nature {
        match (self.declared(), value) {
            (Nature::Leaf, _) => Nature::Leaf,
            (nature @ (Nature::Struct(_) | Nature::Map(_)), Value::Object(_) | Value::Null) => nature,
            (nature @ (Nature::Set | Nature::Keyed(_)), Value::Array(_) | Value::Null) => nature,
            _ => Nature::Leaf,
        }
    }

    /// What is known of one field, whether or not the type counts as one whole.
    pub(super) fn below_whole(self, element: &Element) -> Place {
        match (self.schema, element) {
            (Some(schema), Element::Field(name)) => field(schema, name).1,
            _ => Place::of(None),
        }
    }

    /// What is known of one child of a value of this nature.
    pub(super) fn below(self, element: &Element) -> Place {
        match (self.declared(), element) {
            (Nature::Struct(schema), Element::Field(name)) => field(schema, name).1,
            (Nature::Map(value), Element::Field(_)) => value,
            (Nature::Keyed(items), Element::Key(_)) => items.place,
            _ => Place::of(None),
        }
    }
}

impl Items {
    /// Which item it is; an error when that cannot be told.
    pub(super) fn element(self, item: &Value) -> Result<Element, String> {
        let Value::Object(item) = item else {
            let what = if item.is_null() { "a null element" } else { "non-map elements" };
            return Err(format!("associative list with keys may not have {what}"));
        };
        let mut fields = Vec::with_capacity(self.keys.len());
        for key in self.keys {
            let given = item.get(*key).cloned();
            let default = || self.place.schema?.field(key)?.default.cloned();
            fields.extend(given.or_else(default).map(|value| (Cow::Borrowed(*key), value)));
        }
        if fields.is_empty() && !self.keys.is_empty() {
            let keys: Vec<String> = self.keys.iter().map(|key| format!("{key:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                keys.join(" ")
            ));
        }
        fields.sort_by(|left, right| left.0.cmp(&right.0));
        Ok(Element::Key(fields))
    }
}

/// Which item of a set it is; an error for what no set can hold.
pub(super) fn set_element(item: &Value) -> Result<Element, String> {
    match item {
        Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
        Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
        Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
        item => Ok(Element::Value(item.clone())),
    }
}

/// A field of a type by name, and what is known of its values.
pub(super) fn field(schema: &'static Schema, name: &str) -> (Element, Place) {
    match schema.field(name) {
        Some(field) => (Element::field(field.name), Place::of_field(field)),
        None => (Element::field(name.to_string()), Place::of(None)),
    }
}

/// What stands for a field that is left out of an object of a built-in type: upstream's types have some
/// fields in every object, which nobody has to add.
pub(super) fn left_out(schema: &'static Schema, name: &str) -> Option<&'static Value> {
    let field = schema.field(name).filter(|_| schema.name.starts_with("io.k8s."))?;
    match field.schema.shape {
        Shape::Object(_) => {
            let is_there = field.is_required
                || matches!(name, "metadata" | "spec" | "status")
                || always_there(schema).contains(&name);
            is_there.then_some(&EMPTY)
        }
        Shape::List(_) | Shape::Map(_) => field.is_required.then_some(&Value::Null),
        _ => None,
    }
}

/// The fields of a built-in type that are in every object although they are not required.
pub(super) fn always_there(schema: &Schema) -> &'static [&'static str] {
    let name = schema.type_name();
    let row = ALWAYS_THERE.binary_search_by(|(listed, _)| (*listed).cmp(name));
    row.map_or(&[], |index| ALWAYS_THERE[index].1)
}

/// Optional fields that are plain structs in upstream's types, `metadata`, `spec` and `status` excepted.
const ALWAYS_THERE: &[(&str, &[&str])] = &[
    ("AllocationResult", &["devices"]),
    ("Container", &["resources"]),
    ("ContainerStatus", &["lastState", "state"]),
    ("DaemonSetSpec", &["updateStrategy"]),
    ("DeploymentSpec", &["strategy"]),
    ("DeviceTaintRuleSpec", &["taint"]),
    ("Endpoint", &["conditions"]),
    ("EphemeralContainer", &["resources"]),
    ("Event", &["deprecatedSource", "regarding", "source"]),
    ("IngressServiceBackend", &["port"]),
    ("IngressStatus", &["loadBalancer"]),
    ("LimitedPriorityLevelConfiguration", &["limitResponse"]),
    ("NodeDaemonEndpoints", &["kubeletEndpoint"]),
    ("NodeStatus", &["daemonEndpoints", "nodeInfo"]),
    ("PersistentVolumeClaimSpec", &["resources"]),
    ("PodTemplate", &["template"]),
    ("ReplicaSetSpec", &["template"]),
    ("ServiceStatus", &["loadBalancer"]),
    ("StatefulSetSpec", &["updateStrategy"]),
];

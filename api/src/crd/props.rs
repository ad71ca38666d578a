//! The JSON schema of a custom resource, as a CustomResourceDefinition writes it (`JSONSchemaProps`).

use std::{collections::BTreeMap, fmt};

use regex::Regex;
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};

use crate::schema::ListType;

/// What a value may look like. One node of the tree; also of the branches under `allOf` and its like.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Props {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`; empty where any will do.
    #[serde(rename = "type")]
    pub kind: String,
    /// What a string or number means, such as `date-time`.
    pub format: String,
    /// Named fields.
    pub properties: BTreeMap<String, Props>,
    /// The values of a map under any key.
    pub additional_properties: Option<Additional>,
    /// The items of a list.
    pub items: Option<Items>,
    /// What an absent field is set to.
    pub default: Option<Value>,
    /// Whether null is a value of its own here.
    pub nullable: bool,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// The values that are allowed.
    #[serde(rename = "enum")]
    pub choices: Option<Vec<Value>>,
    /// Upper bound of a number.
    pub maximum: Option<Number>,
    /// Whether the upper bound itself is too much.
    pub exclusive_maximum: bool,
    /// Lower bound of a number.
    pub minimum: Option<Number>,
    /// Whether the lower bound itself is too little.
    pub exclusive_minimum: bool,
    /// What a number must be a multiple of.
    pub multiple_of: Option<Number>,
    /// Most characters of a text.
    pub max_length: Option<i64>,
    /// Fewest characters of a text.
    pub min_length: Option<i64>,
    /// What a text must match.
    pub pattern: Option<Pattern>,
    /// Most items of a list.
    pub max_items: Option<i64>,
    /// Fewest items of a list.
    pub min_items: Option<i64>,
    /// Whether no two items may be equal; structural schemas may not say so.
    pub unique_items: bool,
    /// Most entries of a map.
    pub max_properties: Option<i64>,
    /// Fewest entries of a map.
    pub min_properties: Option<i64>,
    /// All of these must hold, too.
    pub all_of: Vec<Props>,
    /// At least one of these must hold.
    pub any_of: Vec<Props>,
    /// Exactly one of these must hold.
    pub one_of: Vec<Props>,
    /// This must not hold.
    pub not: Option<Box<Props>>,
    /// For people.
    pub title: String,
    /// For people.
    pub description: String,
    /// Whether unknown fields stay.
    #[serde(rename = "x-kubernetes-preserve-unknown-fields")]
    pub preserves_unknown: Option<bool>,
    /// Whether this is a whole object with apiVersion, kind and metadata.
    #[serde(rename = "x-kubernetes-embedded-resource")]
    pub is_embedded: bool,
    /// Whether both a whole number and a text will do.
    #[serde(rename = "x-kubernetes-int-or-string")]
    pub is_int_or_string: bool,
    /// `atomic`, `set` or `map`.
    #[serde(rename = "x-kubernetes-list-type")]
    pub list_type: Option<String>,
    /// By which fields the items of a `map` are told apart.
    #[serde(rename = "x-kubernetes-list-map-keys")]
    pub list_keys: Vec<String>,
    /// `granular` or `atomic`.
    #[serde(rename = "x-kubernetes-map-type")]
    pub map_type: Option<String>,
    /// Rules in CEL.
    #[serde(rename = "x-kubernetes-validations")]
    pub rules: Vec<Rule>,
    /// What a structural schema may not use.
    #[serde(rename = "$ref")]
    pub reference: Option<Value>,
    /// What a structural schema may not use.
    pub definitions: Option<Value>,
    /// What a structural schema may not use.
    pub dependencies: Option<Value>,
    /// What a structural schema may not use.
    pub pattern_properties: Option<Value>,
    /// What a structural schema may not use.
    pub additional_items: Option<Value>,
    /// What a structural schema may not use.
    pub id: String,
}

/// The values of a map.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Additional {
    /// Any, or none.
    Allowed(bool),
    /// Of one shape.
    Values(Box<Props>),
}

/// The items of a list.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Items {
    /// Of one shape.
    Each(Box<Props>),
    /// Each place has its own; structural schemas may not say so.
    Tuple(Vec<Props>),
}

/// One rule in CEL.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// The expression that must be true.
    pub rule: String,
    /// What to say when it is not.
    pub message: String,
    /// An expression that makes what to say.
    pub message_expression: String,
    /// `FieldValueInvalid`, `FieldValueForbidden`, `FieldValueRequired` or `FieldValueDuplicate`.
    pub reason: Option<String>,
    /// Which field, seen from here, is at fault.
    pub field_path: String,
    /// Whether `oldSelf` is an optional, so that the rule holds for new values, too.
    pub optional_old_self: Option<bool>,
}

/// A regular expression and what it is compiled to.
#[derive(Clone)]
pub struct Pattern {
    /// As written.
    pub text: String,
    /// Ready to use, or what is wrong with it.
    pub regex: Result<Regex, String>,
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pattern, D::Error> {
        let text = String::deserialize(deserializer)?;
        let regex = Regex::new(&text).map_err(|error| error.to_string());
        Ok(Pattern { text, regex })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl Props {
    /// Reads a schema that has been checked against the type already.
    pub fn read(json: &Value) -> Result<Props, serde_json::Error> {
        Props::deserialize(json)
    }

    /// Whether unknown fields stay.
    pub fn keeps_unknown(&self) -> bool {
        self.preserves_unknown == Some(true)
    }

    /// What the items of a list look like.
    pub fn item(&self) -> Option<&Props> {
        match &self.items {
            Some(Items::Each(props)) => Some(props),
            _ => None,
        }
    }

    /// What the values of a map look like.
    pub fn values(&self) -> Option<&Props> {
        match &self.additional_properties {
            Some(Additional::Values(props)) => Some(props),
            _ => None,
        }
    }

    /// What the field under `key` looks like, declared or not.
    pub fn field(&self, key: &str) -> Option<&Props> {
        self.properties.get(key).or_else(|| self.values())
    }

    /// How server-side apply sees this list or map; `None`: the default.
    pub fn merge_type(&self) -> Option<ListType> {
        match (self.list_type.as_deref(), self.map_type.as_deref()) {
            (Some("set"), _) => Some(ListType::Set),
            (Some("map"), _) => Some(ListType::Map),
            (Some("atomic"), _) => Some(ListType::Atomic),
            (_, Some("atomic")) => Some(ListType::AtomicMap),
            _ => None,
        }
    }

    /// Whether this node or one below it has rules.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
            || self.properties.values().any(Props::has_rules)
            || self.item().is_some_and(Props::has_rules)
            || self.values().is_some_and(Props::has_rules)
    }

    /// Calls `see` with this node and all below it, branches included.
    pub fn visit(&self, see: &mut dyn FnMut(&Props)) {
        see(self);
        self.properties.values().for_each(|props| props.visit(see));
        match &self.items {
            Some(Items::Each(item)) => item.visit(see),
            Some(Items::Tuple(places)) => places.iter().for_each(|props| props.visit(see)),
            None => {}
        }
        if let Some(values) = self.values() {
            values.visit(see);
        }
        let branches = [&self.all_of, &self.any_of, &self.one_of];
        branches.into_iter().flatten().chain(self.not.as_deref()).for_each(|props| props.visit(see));
    }

    /// Whether this node or one below it has defaults.
    pub fn has_defaults(&self) -> bool {
        self.default.is_some()
            || self.properties.values().any(Props::has_defaults)
            || self.item().is_some_and(Props::has_defaults)
            || self.values().is_some_and(Props::has_defaults)
    }
}

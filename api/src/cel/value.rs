//! Values of expressions. JSON is looked at where it lies: a rule that reads one field of a large object costs no
//! more than that.

use std::{borrow::Cow, cmp::Ordering, collections::BTreeMap, net::IpAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value as Json};

use super::{
    Check, Text, Type, Verdict, duration,
    library::{Semver, Url},
};
use crate::{Quantity, network::Network};

static DYN: Type = Type::Dyn;

/// A value.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number with sign.
    Int(i64),
    /// A whole number without sign.
    Uint(u64),
    /// A number.
    Double(f64),
    /// Text.
    Text(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A point in time.
    Timestamp(Timestamp),
    /// A length of time.
    Duration(SignedDuration),
    /// Items that were computed.
    List(Arc<Vec<Value<'a>>>),
    /// Items that are part of an object, and what each is.
    JsonList(&'a [Json], &'a Type),
    /// Entries that were computed.
    Map(Arc<BTreeMap<Key, Value<'a>>>),
    /// Entries or fields that are part of an object, and what the whole is.
    JsonMap(&'a Map<String, Json>, &'a Type),
    /// A value or none.
    Optional(Option<Box<Value<'a>>>),
    /// A type's name.
    Type(&'static str),
    /// An amount.
    Quantity(Quantity),
    /// An address.
    Ip(IpAddr),
    /// A range of addresses, and the address that it was written with.
    Cidr(IpAddr, Network),
    /// An address on the web.
    Url(Arc<Url>),
    /// A version.
    Semver(Arc<Semver>),
    /// The name of a format.
    Format(&'static str),
    /// A question to the authorizer.
    Check(Arc<Check>),
    /// The authorizer's answer.
    Decision(Arc<Verdict>),
    /// `variables`, which the evaluation itself knows.
    Variables,
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Text.
    Text(String),
}

impl Key {
    /// How many bytes of text it has.
    fn len(&self) -> usize {
        match self {
            Key::Text(text) => text.len(),
            Key::Bool(_) | Key::Int(_) => 0,
        }
    }

    /// The key as a value.
    pub(super) fn value(&self) -> Value<'static> {
        match self {
            Key::Bool(is_set) => Value::Bool(*is_set),
            Key::Int(number) => Value::Int(*number),
            Key::Text(text) => Value::text(text.as_str()),
        }
    }
}

impl<'a> Value<'a> {
    /// What JSON means, given its type.
    pub fn from_json(json: &'a Json, kind: &'a Type) -> Value<'a> {
        match json {
            Json::Null => Value::Null,
            Json::Bool(is_set) => Value::Bool(*is_set),
            Json::Number(number) => match (number.as_i64(), kind) {
                (_, Type::Double) => Value::Double(number.as_f64().unwrap_or_default()),
                (Some(whole), _) => Value::Int(whole),
                (None, Type::Int) => Value::Int(number.as_f64().unwrap_or_default() as i64),
                _ => Value::Double(number.as_f64().unwrap_or_default()),
            },
            Json::String(text) => Value::from_text(text, kind),
            Json::Array(items) => match kind {
                Type::List(item, _) => Value::JsonList(items, item),
                _ => Value::JsonList(items, &DYN),
            },
            Json::Object(map) => Value::JsonMap(map, kind),
        }
    }

    fn from_text(text: &'a str, kind: &Type) -> Value<'a> {
        let special = match kind {
            Type::Timestamp => timestamp(text).map(Value::Timestamp),
            Type::Duration => duration::parse(text).ok().map(Value::Duration),
            Type::Bytes(_) => STANDARD.decode(text).ok().map(|bytes| Value::Bytes(bytes.into())),
            _ => None,
        };
        special.unwrap_or(Value::Text(Text::Borrowed(text)))
    }

    /// A text.
    pub fn text(text: impl Into<Arc<str>>) -> Value<'a> {
        Value::Text(Text::Shared(text.into()))
    }

    /// A list.
    pub(super) fn list(items: Vec<Value<'a>>) -> Value<'a> {
        Value::List(items.into())
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// How many characters, items or entries there are.
    pub(super) fn size(&self) -> Option<usize> {
        match self {
            Value::Text(text) => Some(text.chars().count()),
            Value::Bytes(bytes) => Some(bytes.len()),
            Value::List(items) => Some(items.len()),
            Value::JsonList(items, _) => Some(items.len()),
            Value::Map(map) => Some(map.len()),
            Value::JsonMap(map, _) => Some(map.len()),
            _ => None,
        }
    }

    /// How much there is to look at, at most `limit`: one for every value, and one for every so many characters.
    pub(crate) fn weight(&self, limit: u64) -> u64 {
        const CHARACTERS: u64 = 64;
        let mut weight = 1;
        let mut add = |value: &Value<'_>, key: usize| {
            weight += key as u64 / CHARACTERS;
            weight += value.weight(limit.saturating_sub(weight));
            weight < limit
        };
        match self {
            Value::Text(text) => weight += text.len() as u64 / CHARACTERS,
            Value::Bytes(bytes) => weight += bytes.len() as u64 / CHARACTERS,
            Value::List(items) => drop(items.iter().all(|item| add(item, 0))),
            Value::JsonList(items, item) => {
                items.iter().all(|json| add(&Value::from_json(json, item), 0));
            }
            Value::Map(map) => drop(map.iter().all(|(key, value)| add(value, key.len()))),
            Value::JsonMap(map, _) => {
                map.iter().all(|(key, json)| add(&Value::from_json(json, &DYN), key.len()));
            }
            Value::Optional(Some(inner)) => drop(add(inner, 0)),
            _ => {}
        }
        weight.min(limit.max(1))
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Option<Cow<'_, [Value<'a>]>> {
        match self {
            Value::List(items) => Some(Cow::Borrowed(items)),
            Value::JsonList(items, item) => {
                Some(items.iter().map(|json| Value::from_json(json, item)).collect())
            }
            _ => None,
        }
    }

    /// What a loop goes through, one after the other: indices and items of a list; keys of a map and what stands
    /// there, or nothing and the keys where `has_two` is not set. Nothing where there is nothing to go through.
    pub(super) fn steps(&self, has_two: bool) -> Box<dyn Iterator<Item = (Value<'a>, Value<'a>)> + '_> {
        let index = |index: usize| Value::Int(index as i64);
        let key = |key: &'a str| Value::Text(Text::Borrowed(key));
        match self {
            Value::List(items) => {
                Box::new(items.iter().enumerate().map(move |(at, item)| (index(at), item.clone())))
            }
            Value::JsonList(items, kind) => {
                let item = |json: &'a Json| Value::from_json(json, kind);
                Box::new(items.iter().enumerate().map(move |(at, json)| (index(at), item(json))))
            }
            Value::Map(map) if has_two => {
                Box::new(map.iter().map(|(key, value)| (key.value(), value.clone())))
            }
            Value::Map(map) => Box::new(map.keys().map(|key| (Value::Null, key.value()))),
            Value::JsonMap(map, kind) if has_two => {
                let value = |name: &str, json: &'a Json| Value::from_json(json, value_type(kind, name));
                Box::new(map.iter().map(move |(name, json)| (key(name), value(name, json))))
            }
            Value::JsonMap(map, _) => Box::new(map.keys().map(move |name| (Value::Null, key(name)))),
            _ => Box::new(std::iter::empty()),
        }
    }

    /// What stands under a key or in a field.
    pub(super) fn get(&self, key: &Value<'_>) -> Option<Value<'a>> {
        match self {
            Value::Map(map) => map.get(&key.as_key()?).cloned(),
            Value::JsonMap(map, kind) => {
                let name = key.as_text()?;
                Some(Value::from_json(map.get(name)?, value_type(kind, name)))
            }
            Value::List(items) => items.get(usize::try_from(key.as_index()?).ok()?).cloned(),
            Value::JsonList(items, item) => {
                Some(Value::from_json(items.get(usize::try_from(key.as_index()?).ok()?)?, item))
            }
            _ => None,
        }
    }

    /// What stands in a field, named as in expressions.
    pub(super) fn field(&self, name: &str) -> Option<Value<'a>> {
        if let Value::JsonMap(map, Type::Object(object)) = self {
            let (json_name, kind) = object.fields.get(name)?;
            return Some(Value::from_json(map.get(json_name)?, kind));
        }
        self.get(&Value::Text(Text::Borrowed(name)))
    }

    /// The value as a key of a map.
    pub(super) fn as_key(&self) -> Option<Key> {
        match self {
            Value::Bool(is_set) => Some(Key::Bool(*is_set)),
            Value::Text(text) => Some(Key::Text(text.to_string())),
            _ => self.as_index().map(Key::Int),
        }
    }

    /// The value as a whole number, whatever sort of number it is.
    pub(super) fn as_index(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            Value::Uint(number) => i64::try_from(*number).ok(),
            Value::Double(number) if number.fract() == 0.0 => Some(*number as i64),
            _ => None,
        }
    }

    /// Whether two values are the same. Numbers are compared by what they say.
    pub(super) fn equals(&self, other: &Value<'_>) -> bool {
        use Value::*;
        match (self, other) {
            (Null, Null) => true,
            (Bool(one), Bool(other)) => one == other,
            (Text(one), Text(other)) => **one == **other,
            (Bytes(one), Bytes(other)) => one == other,
            (Timestamp(one), Timestamp(other)) => one == other,
            (Duration(one), Duration(other)) => one == other,
            (Type(one), Type(other)) => one == other,
            (Ip(one), Ip(other)) => one == other,
            (Cidr(one, range), Cidr(other, other_range)) => (one, range) == (other, other_range),
            (Url(one), Url(other)) => one == other,
            (Format(one), Format(other)) => one == other,
            (Optional(one), Optional(other)) => match (one, other) {
                (None, None) => true,
                (Some(one), Some(other)) => one.equals(other),
                _ => false,
            },
            (Int(_) | Uint(_) | Double(_) | Quantity(_) | Semver(_), _) => {
                self.compare(other) == Some(Ordering::Equal)
            }
            (List(_) | JsonList(..), List(_) | JsonList(..)) if self.size() == other.size() => {
                let (one, other) = (self.steps(false), other.steps(false));
                one.zip(other).all(|((_, one), (_, other))| one.equals(&other))
            }
            (Map(_) | JsonMap(..), Map(_) | JsonMap(..)) if self.size() == other.size() => {
                self.steps(true).all(|(key, value)| other.get(&key).is_some_and(|other| value.equals(&other)))
            }
            _ => false,
        }
    }

    /// Which of two values is larger, where they have an order.
    pub(super) fn compare(&self, other: &Value<'_>) -> Option<Ordering> {
        use Value::*;
        match (self, other) {
            (Int(one), Int(other)) => Some(one.cmp(other)),
            (Uint(one), Uint(other)) => Some(one.cmp(other)),
            (Int(one), Uint(other)) => Some(i128::from(*one).cmp(&i128::from(*other))),
            (Uint(one), Int(other)) => Some(i128::from(*one).cmp(&i128::from(*other))),
            (Double(one), Double(other)) => one.partial_cmp(other),
            (Double(one), Int(other)) => one.partial_cmp(&(*other as f64)),
            (Int(one), Double(other)) => (*one as f64).partial_cmp(other),
            (Double(one), Uint(other)) => one.partial_cmp(&(*other as f64)),
            (Uint(one), Double(other)) => (*one as f64).partial_cmp(other),
            (Bool(one), Bool(other)) => Some(one.cmp(other)),
            (Text(one), Text(other)) => Some((**one).cmp(other)),
            (Bytes(one), Bytes(other)) => Some(one.cmp(other)),
            (Timestamp(one), Timestamp(other)) => Some(one.cmp(other)),
            (Duration(one), Duration(other)) => Some(one.cmp(other)),
            (Quantity(one), Quantity(other)) => Some(one.cmp(other)),
            (Semver(one), Semver(other)) => Some(one.cmp(other)),
            _ => None,
        }
    }

    /// The value as JSON, where it has such a form.
    pub fn to_json(&self) -> Option<Json> {
        Some(match self {
            Value::Null => Json::Null,
            Value::Bool(is_set) => Json::Bool(*is_set),
            Value::Int(number) => (*number).into(),
            Value::Uint(number) => (*number).into(),
            Value::Double(number) => serde_json::Number::from_f64(*number)?.into(),
            Value::Bytes(bytes) => STANDARD.encode(bytes).into(),
            Value::List(items) => {
                Json::Array(items.iter().map(Value::to_json).collect::<Option<Vec<Json>>>()?)
            }
            Value::JsonList(items, _) => Json::Array(items.to_vec()),
            Value::Map(map) => {
                let entries = map.iter().map(|(key, value)| {
                    let key = match key {
                        Key::Text(text) => text.clone(),
                        Key::Int(number) => number.to_string(),
                        Key::Bool(is_set) => is_set.to_string(),
                    };
                    Some((key, value.to_json()?))
                });
                Json::Object(entries.collect::<Option<Map<String, Json>>>()?)
            }
            Value::JsonMap(map, _) => Json::Object((*map).clone()),
            Value::Optional(inner) => inner.as_ref()?.to_json()?,
            value => super::functions::shown(value)?.into(),
        })
    }

    /// The name of the value's type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::Text(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::List(_) | Value::JsonList(..) => "list",
            Value::Map(_) | Value::JsonMap(..) => "map",
            Value::Optional(_) => "optional_type",
            Value::Type(_) => "type",
            Value::Quantity(_) => "kubernetes.Quantity",
            Value::Ip(_) => "net.IP",
            Value::Cidr(..) => "net.CIDR",
            Value::Url(_) => "kubernetes.URL",
            Value::Semver(_) => "kubernetes.Semver",
            Value::Format(_) => "kubernetes.NamedFormat",
            Value::Check(check) => check.type_name(),
            Value::Decision(_) => "kubernetes.authorization.Decision",
            Value::Variables => "kubernetes.variables",
        }
    }

    /// Whether it is what an unset field would hold.
    pub(super) fn is_zero(&self) -> bool {
        match self {
            Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) => true,
            Value::Double(number) => *number == 0.0,
            _ => self.size() == Some(0),
        }
    }
}

/// What stands under a key.
fn value_type<'a>(kind: &'a Type, key: &str) -> &'a Type {
    match kind {
        Type::Map(_, value, _) => value,
        Type::Object(object) => {
            object.fields.values().find(|(name, _)| name == key).map_or(&DYN, |(_, kind)| kind)
        }
        _ => &DYN,
    }
}

/// A point in time, or the beginning of a day.
pub(super) fn timestamp(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().or_else(|| {
        let date = text.parse::<jiff::civil::Date>().ok()?;
        Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    })
}

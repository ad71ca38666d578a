//! The pass over a body: a serde visitor that knows where it is and what should be there.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    fmt,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{DEPTH_LIMIT, Decoded, Faults, SCALAR_COST, is_zero, repeated};
use crate::{
    Object, Quantity,
    schema::{Fields, Schema, Shape},
    time,
};

/// As many faults are reported; upstream stops counting there too.
const FAULTS_LIMIT: usize = 100;

/// What came to light during a pass.
pub(super) struct Report {
    faults: RefCell<Faults>,
    /// Whether the body is YAML, whose keys that come twice are told by their lines.
    is_yaml: bool,
    /// The first place in YAML where a key came twice.
    repeats: RefCell<Option<String>>,
    /// The first value that does not fit; the whole body is refused with it in the end.
    misfit: RefCell<Option<String>>,
    /// How many more bytes may be made.
    budget: Cell<usize>,
}

impl Report {
    /// Of JSON, which is as large as it looks.
    pub(super) fn of_json() -> Report {
        Report::new(usize::MAX, false)
    }

    /// Of YAML that may grow to so many bytes.
    pub(super) fn of_yaml(budget: usize) -> Report {
        Report::new(budget, true)
    }

    fn new(budget: usize, is_yaml: bool) -> Report {
        Report {
            faults: RefCell::default(),
            is_yaml,
            repeats: RefCell::default(),
            misfit: RefCell::default(),
            budget: Cell::new(budget),
        }
    }

    /// Finds the lines of what came twice; only then is the body read once more.
    pub(super) fn look_for_repeated_keys(&self, body: &[u8]) {
        let Some(place) = self.repeats.take() else { return };
        match repeated::keys(body, self.budget.get()) {
            Some(lines) => self.faults.borrow_mut().repeated = lines,
            None => self.fault(duplicate(&place)),
        }
    }

    /// What came to light of a value that has no type.
    pub(super) fn into_faults(self) -> Faults {
        self.faults.into_inner()
    }

    /// The object, or the sentence that says why there is none.
    pub(super) fn finish(self, value: Value) -> Result<Decoded, String> {
        if let Some(misfit) = self.misfit.into_inner() {
            return Err(misfit);
        }
        let faults = self.faults.into_inner();
        let object = Object::from_value(value).ok_or("json: cannot unmarshal into Go value")?;
        Ok(Decoded { object, faults })
    }

    fn unknown(&self, path: &Path<'_>) {
        self.fault(format!("unknown field {:?}", path.to_string()));
    }

    fn repeated(&self, path: &Path<'_>) {
        match self.is_yaml {
            true => {
                self.repeats.borrow_mut().get_or_insert_with(|| path.to_string());
            }
            false => self.fault(duplicate(&path.to_string())),
        }
    }

    fn fault(&self, fault: String) {
        let fields = &mut self.faults.borrow_mut().fields;
        if fields.len() < FAULTS_LIMIT && !fields.contains(&fault) {
            fields.push(fault);
        }
    }

    fn misfit(&self, message: String) {
        self.misfit.borrow_mut().get_or_insert(message);
    }

    /// Aliases in YAML make much out of little; JSON cannot.
    fn spend<E: de::Error>(&self, bytes: usize) -> Result<(), E> {
        let left = self.budget.get().checked_sub(bytes);
        self.budget.set(left.ok_or_else(|| E::custom("document contains excessive aliasing"))?);
        Ok(())
    }
}

fn duplicate(place: &str) -> String {
    format!("duplicate field {place:?}")
}

/// Where the pass is, as a chain of steps on the stack.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    /// A field of a type.
    Field(&'a Path<'a>, &'a str),
    /// A key of a map.
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// The fields alone, without keys and indices, as Go's decoder names places.
    fn fields(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Key(parent, _) | Path::Index(parent, _) => parent.fields(),
            Path::Field(parent, name) => join(parent.fields(), name),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(parent, name) | Path::Key(parent, name) => {
                write!(f, "{parent}{}{name}", if matches!(parent, Path::Root) { "" } else { "." })
            }
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Reads one value.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    /// What should be there; anything may when there is no schema.
    schema: Option<&'a Schema>,
    /// The type whose field this is part of.
    owner: &'a str,
    path: &'a Path<'a>,
    depth: usize,
    report: &'a Report,
    /// Whether fields stay that say nothing.
    keeps_zero: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn root(schema: Option<&'a Schema>, report: &'a Report) -> Reader<'a> {
        Reader { schema, owner: "", path: &Path::Root, depth: 0, report, keeps_zero: false }
    }

    /// The same, but fields that say nothing stay.
    pub(super) fn keeping_zero(self) -> Reader<'a> {
        Reader { keeps_zero: true, ..self }
    }

    /// What to expect given the JSON type found, where there is a choice.
    fn expected(&self, suits: fn(&Shape) -> bool) -> Option<&'a Schema> {
        // A body that is no object at all is refused later, before its type comes into question.
        if self.depth == 0 && !suits(&Shape::Object(Fields::default())) {
            return None;
        }
        match &self.schema?.shape {
            Shape::Any => None,
            shape if self.schema?.custom.is_some() && !suits(shape) => None,
            Shape::Either(choices) => {
                let choice = choices.iter().copied().find(|choice| suits(&choice.shape));
                Some(choice.unwrap_or(choices[0]))
            }
            _ => self.schema,
        }
    }

    /// Notes that a value of the wrong type stands here; null takes its place, as the body is refused anyway.
    fn misfit(&self, found: &str, expected: &Schema) -> Value {
        let into = if self.owner.is_empty() {
            "Go value".to_string()
        } else {
            format!("Go struct field {}.{}", self.owner, self.path.fields())
        };
        self.report
            .misfit(format!("json: cannot unmarshal {found} into {into} of type {}", expected.go_type()));
        Value::Null
    }

    fn refuse(&self, message: impl Into<String>) -> Value {
        self.report.misfit(message.into());
        Value::Null
    }

    fn below<E: de::Error>(&self, size: usize) -> Result<usize, E> {
        self.report.spend(size)?;
        if self.depth >= DEPTH_LIMIT { Err(E::custom("exceeded max depth")) } else { Ok(self.depth + 1) }
    }

    fn number(&self, number: Number) -> Value {
        let is_numeric = |shape: &Shape| matches!(shape, Shape::Int64 | Shape::Number);
        let Some(schema) = self.expected(is_numeric) else { return Value::Number(number) };
        let is_int32 = || number.as_i64().is_some_and(|whole| i32::try_from(whole).is_ok());
        match schema.shape {
            Shape::Number => Value::Number(number),
            Shape::Int64 if number.is_i64() => Value::Number(number),
            Shape::Int32 | Shape::IntOrString if is_int32() => Value::Number(number),
            Shape::Int32 | Shape::Int64 => self.misfit(&format!("number {number}"), schema),
            Shape::IntOrString => {
                self.refuse(format!("json: cannot unmarshal number {number} into Go value of type int32"))
            }
            Shape::Quantity => self.quantity(&number.to_string()),
            Shape::Time | Shape::MicroTime => {
                self.refuse("json: cannot unmarshal number into Go value of type string")
            }
            _ => self.misfit("number", schema),
        }
    }

    fn text(&self, text: String) -> Value {
        let Some(schema) = self.expected(|shape| matches!(shape, Shape::Text)) else {
            return Value::String(text);
        };
        match schema.shape {
            Shape::Text | Shape::IntOrString => Value::String(text),
            Shape::Bytes => self.bytes(text),
            Shape::Quantity => self.quantity(text.trim()),
            // A quoted null, as Go writes an unset time, means the same as null.
            Shape::Time | Shape::MicroTime if text.is_empty() || text == "null" => Value::Null,
            Shape::Time => time::parse(&text)
                .map_or_else(|message| self.refuse(message), |time| time::format(time).into()),
            Shape::MicroTime => time::parse(&text)
                .map_or_else(|message| self.refuse(message), |time| time::format_micro(time).into()),
            _ => self.misfit("string", schema),
        }
    }

    fn quantity(&self, text: &str) -> Value {
        match Quantity::parse(text) {
            Ok(quantity) => quantity.to_string().into(),
            Err(error) => self.refuse(error.to_string()),
        }
    }

    fn bytes(&self, text: String) -> Value {
        // Go skips line ends inside base64.
        let compact = if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], "") } else { text };
        match STANDARD.decode(&compact) {
            Ok(_) => Value::String(compact),
            Err(error) => {
                let place = match error {
                    base64::DecodeError::InvalidByte(place, _)
                    | base64::DecodeError::InvalidLastSymbol(place, _) => place,
                    _ => compact.len(),
                };
                self.refuse(format!("illegal base64 data at input byte {place}"))
            }
        }
    }

    /// A list of items, each of the shape `item`.
    fn items<'de, A: SeqAccess<'de>>(&self, mut list: A, item: Option<&Schema>) -> Result<Value, A::Error> {
        let depth = self.below(32)?;
        let mut items = Vec::new();
        loop {
            let path = Path::Index(self.path, items.len());
            let reader = Reader { schema: item, path: &path, depth, ..*self };
            match list.next_element_seed(reader)? {
                None => return Ok(Value::Array(items)),
                Some(Value::Null) => items.push(zero(item)),
                Some(value) => items.push(value),
            }
        }
    }

    /// A map from any key to values of one shape.
    fn entries<'de, A: MapAccess<'de>>(&self, mut map: A, value: Option<&Schema>) -> Result<Value, A::Error> {
        let depth = self.below(32)?;
        let mut entries = Map::new();
        while let Some(key) = map.next_key_seed(Key)? {
            self.report.spend(key.len())?;
            let path = Path::Key(self.path, &key);
            if entries.contains_key(&key) {
                self.report.repeated(&path);
            }
            let entry = map.next_value_seed(Reader { schema: value, path: &path, depth, ..*self })?;
            let entry = if entry.is_null() { zero(value) } else { entry };
            entries.insert(key, entry);
        }
        Ok(Value::Object(entries))
    }

    /// The fields of a type. Those that it does not have are reported and dropped, as are nulls.
    fn fields<'de, A: MapAccess<'de>>(&self, mut map: A, schema: &Schema) -> Result<Value, A::Error> {
        let depth = self.below(32)?;
        let mut fields = Map::new();
        let mut dropped = HashSet::new();
        while let Some(key) = map.next_key_seed(Key)? {
            self.report.spend(key.len())?;
            let path = Path::Field(self.path, &key);
            let keeps_unknown = schema.custom.is_some_and(|custom| custom.keeps_unknown);
            let field = schema.field(&key);
            if field.is_none() && !keeps_unknown {
                self.report.unknown(&path);
                if !self.report.is_yaml {
                    map.next_value::<IgnoredAny>()?;
                } else {
                    // Keys that come twice are a matter of the text, whatever they belong to.
                    map.next_value_seed(Reader { schema: None, path: &path, depth, ..*self })?;
                    if dropped.contains(&key) {
                        self.report.repeated(&path);
                    }
                    dropped.insert(key);
                }
                continue;
            }
            if fields.contains_key(&key) || dropped.contains(&key) {
                self.report.repeated(&path);
            }
            let below = field.map(|field| field.schema);
            let reader = Reader { schema: below, owner: schema.type_name(), path: &path, depth, ..*self };
            let vanishes = !self.keeps_zero && field.is_some_and(|field| field.vanishes);
            let value = map.next_value_seed(reader)?;
            let is_nothing = value.is_null() && below.is_some_and(|below| below.custom.is_none());
            if is_nothing || vanishes && is_zero(&value) {
                fields.remove(&key);
                dropped.insert(key);
            } else {
                fields.insert(key, value);
            }
        }
        Ok(Value::Object(fields))
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can hold")
    }

    fn visit_bool<E: de::Error>(self, is_set: bool) -> Result<Value, E> {
        self.report.spend(SCALAR_COST)?;
        Ok(match self.expected(|shape| matches!(shape, Shape::Boolean)) {
            None | Some(Schema { shape: Shape::Boolean, .. }) => is_set.into(),
            Some(Schema { shape: Shape::Quantity, .. }) => self.quantity("true"),
            Some(Schema { shape: Shape::IntOrString, .. }) => {
                self.refuse("json: cannot unmarshal bool into Go value of type int32")
            }
            Some(Schema { shape: Shape::Time | Shape::MicroTime, .. }) => {
                self.refuse("json: cannot unmarshal bool into Go value of type string")
            }
            Some(schema) => self.misfit("bool", schema),
        })
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
        self.report.spend(SCALAR_COST)?;
        Ok(self.number(number.into()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
        self.report.spend(SCALAR_COST)?;
        Ok(self.number(number.into()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
        self.report.spend(SCALAR_COST)?;
        let number = Number::from_f64(number);
        Ok(self.number(number.ok_or_else(|| E::custom("json: unsupported value: not a finite number"))?))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        self.visit_string(text.to_string())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        self.report.spend(SCALAR_COST + text.len())?;
        Ok(self.text(text))
    }

    /// A document without anything in it.
    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        self.report.spend(SCALAR_COST)?;
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        match self.expected(|shape| matches!(shape, Shape::List(_))) {
            None => self.items(list, None),
            Some(Schema { shape: Shape::List(item), .. }) => self.items(list, Some(item)),
            Some(schema) => {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(self.misfit("array", schema))
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        match self.expected(|shape| matches!(shape, Shape::Object(_) | Shape::Map(_))) {
            None => self.entries(map, None),
            Some(Schema { shape: Shape::Map(value), .. }) => self.entries(map, Some(value)),
            Some(schema) if matches!(schema.shape, Shape::Object(_)) => self.fields(map, schema),
            Some(schema) => {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(self.misfit("object", schema))
            }
        }
    }
}

/// A key; in YAML also one that is no text.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that JSON can hold")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_string<E: de::Error>(self, key: String) -> Result<String, E> {
        Ok(key)
    }

    fn visit_bool<E: de::Error>(self, key: bool) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_i64<E: de::Error>(self, key: i64) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_u64<E: de::Error>(self, key: u64) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_f64<E: de::Error>(self, key: f64) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_unit<E: de::Error>(self) -> Result<String, E> {
        Ok("null".to_string())
    }
}

fn join(parent: String, name: &str) -> String {
    if parent.is_empty() { name.to_string() } else { format!("{parent}.{name}") }
}

/// What Go makes of null where a value must be.
fn zero(schema: Option<&Schema>) -> Value {
    let typed = schema.filter(|schema| schema.custom.is_none());
    match typed.map(|schema| &schema.shape) {
        None | Some(Shape::Any | Shape::Either(_) | Shape::Time | Shape::MicroTime) => Value::Null,
        Some(Shape::Boolean) => false.into(),
        Some(Shape::Int32 | Shape::Int64 | Shape::Number | Shape::IntOrString) => 0.into(),
        Some(Shape::Text | Shape::Bytes) => "".into(),
        Some(Shape::Quantity) => "0".into(),
        Some(Shape::List(_)) => Value::Array(Vec::new()),
        Some(Shape::Map(_) | Shape::Object(_)) => Value::Object(Map::new()),
    }
}

/// The JSON type as Go's decoder calls it.
pub(super) fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

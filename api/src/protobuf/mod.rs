//! Request bodies in Kubernetes' protobuf form, which kubectl sends for built-in kinds (`kubectl create
//! deployment`, `kubectl auth can-i`): read into JSON, and from there on the way of all bodies.
//!
//! `fields.txt` has the messages with their field numbers, one a line; `scripts/protobuf-fields` makes it.
//! A field is `NUMBER:NAME:MARKS TYPE`: `?` zero values are meant, `^` the message's fields are the
//! parent's, `[` a list, `{` a map from text; then `s`tring, `b`ool, `i`nteger, `d`ouble, b`y`tes or
//! `M`essage with its name.

mod special;
mod wire;

use std::{collections::HashMap, sync::LazyLock};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

use crate::Object;
use wire::{Reader, Wire};

/// What the `Content-Type` header says.
pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// The first bytes of every such body.
const MAGIC: &[u8] = b"k8s\0";
/// How deep messages may nest.
const DEPTH_LIMIT: usize = 100;

static MESSAGES: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let lines = include_str!("fields.txt").lines();
    lines
        .filter_map(|line| line.split_once(' ').or(Some((line, ""))))
        .map(|(name, fields)| (name, fields_of(fields)))
        .collect()
});

/// One field of a message.
struct Field {
    number: u32,
    name: &'static str,
    keeps_zero: bool,
    is_inline: bool,
    container: Container,
    shape: Shape,
}

#[derive(Clone, Copy, PartialEq)]
enum Container {
    One,
    List,
    Map,
}

#[derive(Clone, Copy)]
enum Shape {
    Text,
    Flag,
    Integer,
    Double,
    Bytes,
    Message(&'static str),
}

/// Reads a body. The error says what is wrong with it.
pub fn decode(body: &[u8]) -> Result<Object, String> {
    let unknown = body.strip_prefix(MAGIC).ok_or("provided data does not appear to be a protobuf message")?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut envelope = Reader::new(unknown);
    while let Some((number, value)) = envelope.next()? {
        match (number, value) {
            (1, Wire::Bytes(type_meta)) => (api_version, kind) = type_of(type_meta)?,
            (2, Wire::Bytes(object)) => raw = object,
            _ => {}
        }
    }
    let message = message_of(&api_version, &kind)
        .ok_or_else(|| format!("no kind {kind:?} is registered for version {api_version:?}"))?;
    let mut map = Map::new();
    map.insert("apiVersion".into(), api_version.into());
    map.insert("kind".into(), kind.into());
    read_message(message, raw, &mut map, 0)?;
    Ok(Object(map))
}

/// `apiVersion` and `kind` of the envelope.
fn type_of(bytes: &[u8]) -> Result<(String, String), String> {
    let (mut api_version, mut kind) = (String::new(), String::new());
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            (1, Wire::Bytes(text)) => api_version = text_of(text)?,
            (2, Wire::Bytes(text)) => kind = text_of(text)?,
            _ => {}
        }
    }
    Ok((api_version, kind))
}

/// The message of a kind: its package is the first label of its group.
fn message_of(api_version: &str, kind: &str) -> Option<&'static str> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("core", api_version));
    let package = group.split('.').next().unwrap_or(group);
    let own = MESSAGES.get_key_value(format!("{package}.{version}.{kind}").as_str());
    // Options belong to all groups.
    let general = || MESSAGES.get_key_value(format!("meta.v1.{kind}").as_str());
    own.or_else(general).map(|(name, _)| *name)
}

fn read_message(name: &str, bytes: &[u8], map: &mut Map<String, Value>, depth: usize) -> Result<(), String> {
    if depth > DEPTH_LIMIT {
        return Err("messages are nested too deeply".into());
    }
    let fields = MESSAGES.get(name).ok_or_else(|| format!("message {name} is not known"))?;
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        // What a newer client knows and we do not is left out.
        let Some(field) = fields.iter().find(|field| field.number == number) else { continue };
        field.read(value, map, depth)?;
    }
    Ok(())
}

impl Field {
    fn read(&self, wire: Wire<'_>, map: &mut Map<String, Value>, depth: usize) -> Result<(), String> {
        if let (true, Shape::Message(name), Wire::Bytes(bytes)) = (self.is_inline, self.shape, wire) {
            return read_message(name, bytes, map, depth + 1);
        }
        match self.container {
            Container::One => {
                let value = self.shape.value(wire, depth)?;
                if self.keeps_zero && !value.is_null() || !is_zero(&value) {
                    map.insert(self.name.into(), value);
                }
            }
            Container::List => {
                let list = map.entry(self.name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(list) = list else { return Ok(()) };
                match (self.shape, wire) {
                    // Numbers may come packed into one field.
                    (Shape::Integer, Wire::Bytes(packed)) => {
                        list.extend(wire::packed(packed)?.map(Value::from))
                    }
                    (shape, wire) => list.push(shape.value(wire, depth)?),
                }
            }
            Container::Map => {
                let Wire::Bytes(entry) = wire else { return Err(self.wrong()) };
                let (mut key, mut value) = (String::new(), None);
                let mut reader = Reader::new(entry);
                while let Some((number, part)) = reader.next()? {
                    match (number, part) {
                        (1, Wire::Bytes(text)) => key = text_of(text)?,
                        (2, part) => value = Some(self.shape.value(part, depth)?),
                        _ => {}
                    }
                }
                let value = value.map_or_else(|| self.shape.value(Wire::Bytes(&[]), depth), Ok)?;
                let entries = map.entry(self.name).or_insert_with(|| Value::Object(Map::new()));
                entries.as_object_mut().ok_or_else(|| self.wrong())?.insert(key, value);
            }
        }
        Ok(())
    }

    fn wrong(&self) -> String {
        format!("wrong wire type in field {}", self.name)
    }
}

impl Shape {
    fn value(self, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
        Ok(match (self, wire) {
            (Shape::Text, Wire::Bytes(bytes)) => text_of(bytes)?.into(),
            (Shape::Bytes, Wire::Bytes(bytes)) => BASE64_STANDARD.encode(bytes).into(),
            (Shape::Flag, Wire::Number(number)) => (number != 0).into(),
            (Shape::Integer, Wire::Number(number)) => number.cast_signed().into(),
            (Shape::Double, Wire::Fixed(bits)) => f64::from_bits(bits).into(),
            (Shape::Message(name), Wire::Bytes(bytes)) => match special::value(name, bytes)? {
                Some(value) => value,
                None => {
                    let mut map = Map::new();
                    read_message(name, bytes, &mut map, depth + 1)?;
                    special::unwrapped(name, map)
                }
            },
            _ => return Err("wrong wire type".into()),
        })
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is_set) => !is_set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn text_of(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "text is not UTF-8".to_string())
}

fn fields_of(line: &'static str) -> Vec<Field> {
    line.split(' ').filter_map(field_of).collect()
}

fn field_of(text: &'static str) -> Option<Field> {
    let mut parts = text.splitn(3, ':');
    let (number, name, code) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
    let (keeps_zero, code) = code.strip_prefix('?').map_or((false, code), |code| (true, code));
    let (is_inline, code) = code.strip_prefix('^').map_or((false, code), |code| (true, code));
    let (container, code) = match code.as_bytes().first()? {
        b'[' => (Container::List, &code[1..]),
        b'{' => (Container::Map, &code[1..]),
        _ => (Container::One, code),
    };
    let shape = match code.as_bytes().first()? {
        b's' => Shape::Text,
        b'b' => Shape::Flag,
        b'i' => Shape::Integer,
        b'd' => Shape::Double,
        b'y' => Shape::Bytes,
        _ => Shape::Message(&code[1..]),
    };
    Some(Field { number, name, keeps_zero, is_inline, container, shape })
}

#[cfg(test)]
mod tests;

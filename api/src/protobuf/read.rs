//! Messages to JSON.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

use super::{
    DEPTH_LIMIT,
    messages::{Container, Field, Message, Shape},
    wire::{self, Reader, Wire},
};

/// Reads the fields of a message into `map`.
pub(super) fn message(
    message: &Message,
    bytes: &[u8],
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    if depth > DEPTH_LIMIT {
        return Err("messages are nested too deeply".into());
    }
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        // What a newer client knows and we do not is left out.
        let Some(field) = message.numbered(number) else { continue };
        field.read(value, map, depth)?;
    }
    Ok(())
}

impl Field {
    fn read(&self, wire: Wire<'_>, map: &mut Map<String, Value>, depth: usize) -> Result<(), String> {
        if let (true, Shape::Message(index), Wire::Bytes(bytes)) = (self.is_inline, self.shape, wire) {
            return message(Message::at(index), bytes, map, depth + 1);
        }
        match self.container {
            Container::One => {
                let value = self.value(wire, depth)?;
                if self.keeps_zero && !value.is_null() || !is_zero(&value) {
                    map.insert(self.name.into(), value);
                }
            }
            // Packed numbers may be none, which is no list.
            Container::List if self.shape == Shape::Integer && wire == Wire::Bytes(&[]) => {}
            Container::List => {
                let list = map.entry(self.name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(list) = list else { return Ok(()) };
                match (self.shape, wire) {
                    // Numbers may come packed into one field.
                    (Shape::Integer, Wire::Bytes(packed)) => {
                        for number in wire::packed(packed) {
                            list.push(number?.into());
                        }
                    }
                    (_, wire) => list.push(self.value(wire, depth)?),
                }
            }
            Container::Map => {
                let Wire::Bytes(entry) = wire else { return Err(self.wrong(wire)) };
                let (mut key, mut value) = (String::new(), None);
                let mut reader = Reader::new(entry);
                while let Some((number, part)) = reader.next()? {
                    match (number, part) {
                        (1, Wire::Bytes(text)) => key = text_of(text)?,
                        (2, part) => value = Some(self.value(part, depth)?),
                        _ => {}
                    }
                }
                let value = value.map_or_else(|| self.zero(depth), Ok)?;
                let entries = map.entry(self.name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(entries) = entries {
                    entries.insert(key, value);
                }
            }
        }
        Ok(())
    }

    fn value(&self, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
        Ok(match (self.shape, wire) {
            (Shape::Text, Wire::Bytes(bytes)) => text_of(bytes)?.into(),
            (Shape::Bytes, Wire::Bytes(bytes)) => BASE64_STANDARD.encode(bytes).into(),
            (Shape::Flag, Wire::Number(number)) => (number != 0).into(),
            (Shape::Integer, Wire::Number(number)) => number.cast_signed().into(),
            (Shape::Double, Wire::Fixed(bits)) => go_number(f64::from_bits(bits)),
            (Shape::Special(special), Wire::Bytes(bytes)) => special.read(bytes)?,
            (Shape::Message(index), Wire::Bytes(bytes)) => {
                let inner = Message::at(index);
                let mut map = Map::new();
                message(inner, bytes, &mut map, depth + 1)?;
                if inner.is_choice { chosen(inner, map) } else { Value::Object(map) }
            }
            _ => return Err(self.wrong(wire)),
        })
    }

    /// The value of a map's entry that has none.
    fn zero(&self, depth: usize) -> Result<Value, String> {
        match self.shape {
            Shape::Flag => Ok(false.into()),
            Shape::Integer | Shape::Double => Ok(0.into()),
            _ => self.value(Wire::Bytes(&[]), depth),
        }
    }

    fn wrong(&self, wire: Wire<'_>) -> String {
        format!("proto: wrong wireType = {} for field {}", wire.type_number(), self.name)
    }
}

/// A number as Go writes it in JSON: without a fraction where it has none.
fn go_number(number: f64) -> Value {
    let is_whole = number.fract() == 0.0 && number.abs() < 1e15;
    if is_whole { (number as i64).into() } else { number.into() }
}

/// The one field that a choice is in JSON: a list or a schema before a flag that comes with it.
fn chosen(message: &Message, mut map: Map<String, Value>) -> Value {
    let mut present = message.fields.iter().rev().filter_map(|field| map.remove(field.name));
    let list = || message.fields.iter().any(|field| field.container == Container::List);
    present.next().unwrap_or_else(|| if list() { Value::Array(Vec::new()) } else { Value::Bool(false) })
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

pub(super) fn text_of(bytes: &[u8]) -> Result<String, String> {
    std::str::from_utf8(bytes).map(str::to_string).map_err(|_| "proto: invalid UTF-8 string".to_string())
}

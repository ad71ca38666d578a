//! Messages whose JSON is not a map of their fields.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::wire::{Reader, Wire};
use crate::time;

/// The JSON of a special message; `None` for all others.
pub(super) fn value(name: &str, bytes: &[u8]) -> Result<Option<Value>, String> {
    Ok(Some(match name {
        "Quantity" => text(bytes, 1)?.into(),
        "Time" => moment(bytes)?.map_or(Value::Null, |moment| time::format(moment).into()),
        "MicroTime" => moment(bytes)?.map_or(Value::Null, |moment| time::format_micro(moment).into()),
        "IntOrString" => int_or_string(bytes)?,
        "RawExtension" | "FieldsV1" => json(bytes)?,
        "Duration" => format!("{}ns", number(bytes, 1)?).into(),
        _ => return Ok(None),
    }))
}

/// A message that is nothing but a list in JSON.
pub(super) fn unwrapped(name: &str, mut map: Map<String, Value>) -> Value {
    let is_list = name.ends_with(".ExtraValue") || name == "meta.v1.Verbs";
    match is_list {
        true => map.remove("items").unwrap_or_else(|| Value::Array(Vec::new())),
        false => Value::Object(map),
    }
}

/// An empty message is the zero time, which JSON leaves out.
fn moment(bytes: &[u8]) -> Result<Option<Timestamp>, String> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let nanoseconds = i32::try_from(number(bytes, 2)?).map_err(|_| "time out of range")?;
    Timestamp::new(number(bytes, 1)?, nanoseconds).map(Some).map_err(|_| "time out of range".into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    const STRING: i64 = 1;
    Ok(match number(bytes, 1)? {
        STRING => text(bytes, 3)?.into(),
        _ => number(bytes, 2)?.into(),
    })
}

fn json(bytes: &[u8]) -> Result<Value, String> {
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        if let (1, Wire::Bytes(json)) = (number, value) {
            return serde_json::from_slice(json).map_err(|error| error.to_string());
        }
    }
    Ok(Value::Null)
}

fn number(bytes: &[u8], wanted: u32) -> Result<i64, String> {
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        if let (true, Wire::Number(value)) = (number == wanted, value) {
            return Ok(value.cast_signed());
        }
    }
    Ok(0)
}

fn text(bytes: &[u8], wanted: u32) -> Result<String, String> {
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        if let (true, Wire::Bytes(value)) = (number == wanted, value) {
            return super::text_of(value);
        }
    }
    Ok(String::new())
}

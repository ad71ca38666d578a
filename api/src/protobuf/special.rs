//! Messages whose JSON is not a map of their fields.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    EncodeError,
    read::text_of,
    scan::Scanner,
    wire::{Reader, Wire, Writer},
};
use crate::{cel::duration, time};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Special {
    /// Text.
    Quantity,
    /// Seconds since 1970.
    Time,
    /// The same with nanoseconds, of which whole microseconds count.
    MicroTime,
    /// Which of the two, and both.
    IntOrString,
    /// Nanoseconds.
    Duration,
    /// JSON as bytes.
    Raw,
}

impl Special {
    pub(super) fn named(name: &str) -> Option<Special> {
        Some(match name {
            "Quantity" => Special::Quantity,
            "Time" => Special::Time,
            "MicroTime" => Special::MicroTime,
            "IntOrString" => Special::IntOrString,
            "Duration" => Special::Duration,
            "RawExtension" | "FieldsV1" | "JSON" => Special::Raw,
            _ => return None,
        })
    }

    pub(super) fn read(self, bytes: &[u8]) -> Result<Value, String> {
        Ok(match self {
            Special::Quantity => text(bytes, 1)?.into(),
            Special::Time => moment(bytes)?.map_or(Value::Null, |moment| time::format(moment).into()),
            Special::MicroTime => {
                moment(bytes)?.map_or(Value::Null, |moment| time::format_micro(moment).into())
            }
            Special::IntOrString => int_or_string(bytes)?,
            Special::Duration => duration::format_go(number(bytes, 1)?).into(),
            Special::Raw => json(bytes)?,
        })
    }

    /// Writes the fields of such a message. `field` is the name of the field that it is in.
    pub(super) fn write(
        self,
        field: &'static str,
        json: &mut Scanner<'_>,
        out: &mut Writer<'_>,
    ) -> Result<(), EncodeError> {
        match self {
            // A quantity may be a number in JSON.
            Special::Quantity if json.peek() != Some(b'"') => out.bytes(1, json.raw()?),
            Special::Quantity => out.bytes(1, json.text(field)?.as_bytes()),
            Special::Time | Special::MicroTime => {
                let text = json.text(field)?;
                let time = time::parse(&text).map_err(|why| EncodeError::new(format!("{field}: {why}")))?;
                let nanoseconds = time.as_nanosecond();
                let seconds = nanoseconds.div_euclid(1_000_000_000) as i64;
                let rest = nanoseconds.rem_euclid(1_000_000_000) as u64;
                out.number(1, seconds.cast_unsigned());
                if self == Special::MicroTime {
                    out.number(2, rest / 1000 * 1000);
                }
            }
            Special::IntOrString if json.peek() == Some(b'"') => {
                out.number(1, IS_STRING);
                out.number(2, 0);
                out.bytes(3, json.text(field)?.as_bytes());
            }
            Special::IntOrString => {
                out.number(1, 0);
                out.number(2, json.integer(field)?.cast_unsigned());
                out.bytes(3, b"");
            }
            Special::Duration => {
                let text = json.text(field)?;
                let nanoseconds = duration::parse(&text).map(|duration| duration.as_nanos() as i64);
                out.number(1, nanoseconds.map_err(EncodeError::new)?.cast_unsigned());
            }
            Special::Raw => out.bytes(1, json.raw()?),
        }
        Ok(())
    }
}

/// The type of an IntOrString that is a string.
const IS_STRING: u64 = 1;

/// Earlier years cannot be written in JSON.
const YEAR_ZERO: Timestamp = Timestamp::constant(-62_167_219_200, 0);

/// An empty message is the zero time, which JSON leaves out.
fn moment(bytes: &[u8]) -> Result<Option<Timestamp>, String> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let nanoseconds = i32::try_from(number(bytes, 2)?).map_err(|_| "time out of range")?;
    let time = Timestamp::new(number(bytes, 1)?, nanoseconds).ok().filter(|time| *time >= YEAR_ZERO);
    time.map(Some).ok_or_else(|| "time out of range".into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    Ok(match number(bytes, 1)?.cast_unsigned() {
        IS_STRING => text(bytes, 3)?.into(),
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
    let mut found = 0;
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        if let (true, Wire::Number(value)) = (number == wanted, value) {
            found = value.cast_signed();
        }
    }
    Ok(found)
}

fn text(bytes: &[u8], wanted: u32) -> Result<String, String> {
    let mut found: &[u8] = &[];
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        if let (true, Wire::Bytes(value)) = (number == wanted, value) {
            found = value;
        }
    }
    text_of(found)
}

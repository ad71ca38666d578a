//! Operators and functions that every expression has: arithmetic, comparison, conversion, text, time.

use std::{cmp::Ordering, sync::Arc};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use regex::Regex;

use super::{Failure, Value, authority, duration, eval::Run, library, strings, value};

type Answer<'a> = Result<Value<'a>, Failure>;

/// Calls a function or operator; what it is called on comes first.
pub(super) fn call<'a>(
    run: &mut Run<'a>,
    function: &str,
    is_method: bool,
    values: &[Value<'a>],
    pattern: Option<&Arc<Regex>>,
) -> Answer<'a> {
    run.spend(1)?;
    spend_by_size(run, function, values)?;
    run.make_room(made_by(function, values))?;
    if let Some(answer) = operator(function, values) {
        return answer;
    }
    if let Some(answer) = convert(function, values).filter(|_| !is_method) {
        return answer;
    }
    if let Some(answer) = strings::call(run, function, values, pattern) {
        return answer;
    }
    if let Some(answer) = time(function, values) {
        return answer;
    }
    if let Some(answer) = authority::call(function, values) {
        return answer;
    }
    library::call(function, values).unwrap_or_else(|| Failure::error("no such overload"))
}

/// Functions that look at all of what they are given cost by its size.
fn spend_by_size(run: &mut Run<'_>, function: &str, values: &[Value<'_>]) -> Result<(), Failure> {
    let sizes: u64 = values.iter().filter_map(Value::size).map(|size| size as u64).sum();
    match function {
        "size" | "_[_]" | "type" => Ok(()),
        "check" => run.spend(authority::CHECK_COST - 1),
        // Every item of one with every item of the other.
        "sets.contains" | "sets.intersects" | "sets.equivalent" | "distinct" => {
            let size = |value: &Value<'_>| value.size().unwrap_or(1) as u64;
            let times = |times: u64, value: &Value<'_>, bound: u64| match times {
                0 => 0,
                _ => times.saturating_mul(value.weight(bound / times + 2) - 1),
            };
            let product = least(run.left() + 1, |bound| match values {
                [one, other] => times(size(one), other, bound).min(times(size(other), one, bound)),
                [one] => times(size(one), one, bound),
                _ => sizes.saturating_mul(sizes),
            });
            run.spend(product.saturating_add(10))
        }
        "@in" | "indexOf" | "lastIndexOf"
            if values.iter().any(|value| matches!(value, Value::List(_) | Value::JsonList(..))) =>
        {
            let limit = run.left() + 1;
            let weight = values.iter().map(|value| value.weight(limit)).max().unwrap_or(1);
            run.spend(weight - 1)
        }
        "@in" => Ok(()),
        // Upstream looks at the sizes alone; what is inside is compared, too.
        "_==_" | "_!=_" => {
            let inside = least(run.left() + 1, |bound| {
                values.iter().map(|value| value.weight(bound)).min().unwrap_or(1)
            });
            run.spend_tenths(sizes.max(inside - 1))
        }
        "matches" | "find" | "findAll" => {
            let size = |index: usize| values.get(index).and_then(Value::size).unwrap_or(0) as u64;
            run.spend((size(0) + 1).div_ceil(10).saturating_mul(size(1).div_ceil(4).max(1)))
        }
        _ => run.spend_tenths(sizes),
    }
}

/// A least measure, up to `limit`. `measure` looks at all it is the least of, so it is told how far to go, and
/// further only while the least is beyond that: what is much larger than the least is never looked at in full.
pub(super) fn least(limit: u64, measure: impl Fn(u64) -> u64) -> u64 {
    let mut bound = 64.min(limit);
    loop {
        let found = measure(bound);
        if found < bound || bound >= limit {
            return found;
        }
        bound = bound.saturating_mul(4).min(limit);
    }
}

/// How much memory it takes what a function makes of such values. Functions on text see to it themselves, where it
/// is not plain from the sizes.
fn made_by(function: &str, values: &[Value<'_>]) -> usize {
    let length = |value: &Value<'_>| match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        list => list.size().unwrap_or(0).saturating_mul(size_of::<Value<'_>>()),
    };
    match function {
        "_+_" => values.iter().map(length).fold(0, usize::saturating_add),
        "jsonpatch.escapeKey"
        | "lowerAscii"
        | "upperAscii"
        | "trim"
        | "reverse"
        | "substring"
        | "string"
        | "bytes"
        | "sort"
        | "slice"
        | "distinct" => values.first().map_or(0, length),
        "flatten" => values
            .first()
            .and_then(Value::items)
            .map_or(0, |items| items.iter().map(length).fold(0, usize::saturating_add)),
        "join" => {
            let items = values.first().and_then(Value::items).unwrap_or_default();
            let separators = items.len().saturating_mul(values.get(1).map_or(0, length));
            items.iter().map(length).fold(separators, usize::saturating_add)
        }
        _ => 0,
    }
}

fn truth<'a>(is_true: bool) -> Option<Answer<'a>> {
    Some(Ok(Value::Bool(is_true)))
}

fn ordered<'a>(one: &Value<'_>, other: &Value<'_>, holds: fn(Ordering) -> bool) -> Option<Answer<'a>> {
    Some(match one.compare(other) {
        Some(order) => Ok(Value::Bool(holds(order))),
        None => Failure::error("no such overload"),
    })
}

fn operator<'a>(function: &str, values: &[Value<'a>]) -> Option<Answer<'a>> {
    match (function, values) {
        ("_==_", [one, other]) => truth(one.equals(other)),
        ("_!=_", [one, other]) => truth(!one.equals(other)),
        ("_<_", [one, other]) => ordered(one, other, Ordering::is_lt),
        ("_<=_", [one, other]) => ordered(one, other, Ordering::is_le),
        ("_>_", [one, other]) => ordered(one, other, Ordering::is_gt),
        ("_>=_", [one, other]) => ordered(one, other, Ordering::is_ge),
        ("!_", [Value::Bool(is_true)]) => truth(!is_true),
        ("-_", [Value::Int(number)]) => Some(whole(number.checked_neg())),
        ("-_", [Value::Double(number)]) => Some(Ok(Value::Double(-number))),
        ("@in", [key, map @ (Value::Map(_) | Value::JsonMap(..))]) => truth(map.get(key).is_some()),
        ("@in", [item, list]) => {
            let items = list.items()?;
            truth(items.iter().any(|other| other.equals(item)))
        }
        ("_+_" | "_-_" | "_*_" | "_/_" | "_%_", [one, other]) => Some(arithmetic(function, one, other)),
        ("size", [value]) => Some(match value.size() {
            Some(size) => Ok(Value::Int(size as i64)),
            None => Failure::error("no such overload"),
        }),
        _ => None,
    }
}

fn whole<'a>(number: Option<i64>) -> Answer<'a> {
    number.map_or_else(|| Failure::error("integer overflow"), |number| Ok(Value::Int(number)))
}

fn arithmetic<'a>(function: &str, one: &Value<'a>, other: &Value<'a>) -> Answer<'a> {
    use Value::*;
    match (function, one, other) {
        ("_/_" | "_%_", Int(_), Int(0)) | ("_/_" | "_%_", Uint(_), Uint(0)) => {
            Failure::error(if function == "_/_" { "division by zero" } else { "modulus by zero" })
        }
        ("_+_", Int(one), Int(other)) => whole(one.checked_add(*other)),
        ("_-_", Int(one), Int(other)) => whole(one.checked_sub(*other)),
        ("_*_", Int(one), Int(other)) => whole(one.checked_mul(*other)),
        ("_/_", Int(one), Int(other)) => whole(one.checked_div(*other)),
        ("_%_", Int(one), Int(other)) => whole(one.checked_rem(*other)),
        (_, Uint(one), Uint(other)) => {
            let result = match function {
                "_+_" => one.checked_add(*other),
                "_-_" => one.checked_sub(*other),
                "_*_" => one.checked_mul(*other),
                "_/_" => one.checked_div(*other),
                _ => one.checked_rem(*other),
            };
            result.map_or_else(|| Failure::error("unsigned integer overflow"), |number| Ok(Uint(number)))
        }
        ("_+_", Double(one), Double(other)) => Ok(Double(one + other)),
        ("_-_", Double(one), Double(other)) => Ok(Double(one - other)),
        ("_*_", Double(one), Double(other)) => Ok(Double(one * other)),
        ("_/_", Double(one), Double(other)) => Ok(Double(one / other)),
        ("_+_", Text(one), Text(other)) => Ok(Value::text([&**one, &**other].concat())),
        ("_+_", Bytes(one), Bytes(other)) => Ok(Bytes([&**one, &**other].concat().into())),
        ("_+_", Timestamp(at), Duration(length)) | ("_+_", Duration(length), Timestamp(at)) => {
            moment(at.checked_add(*length).ok())
        }
        ("_-_", Timestamp(at), Duration(length)) => moment(at.checked_sub(*length).ok()),
        ("_-_", Timestamp(one), Timestamp(other)) => Ok(Duration(one.duration_since(*other))),
        ("_+_", Duration(one), Duration(other)) => length(one.checked_add(*other)),
        ("_-_", Duration(one), Duration(other)) => length(one.checked_sub(*other)),
        ("_+_", one, other) => match (one.items(), other.items()) {
            (Some(one), Some(other)) => Ok(Value::list([&*one, &*other].concat())),
            _ => Failure::error("no such overload"),
        },
        _ => Failure::error("no such overload"),
    }
}

fn moment<'a>(at: Option<Timestamp>) -> Answer<'a> {
    at.map_or_else(|| Failure::error("timestamp overflow"), |at| Ok(Value::Timestamp(at)))
}

fn length<'a>(length: Option<SignedDuration>) -> Answer<'a> {
    length.map_or_else(|| Failure::error("duration overflow"), |length| Ok(Value::Duration(length)))
}

/// `int(x)`, `string(x)` and the like.
fn convert<'a>(function: &str, values: &[Value<'a>]) -> Option<Answer<'a>> {
    use Value::*;
    let [value] = values else { return None };
    if let ("jsonpatch.escapeKey", Text(text)) = (function, value) {
        return Some(Ok(Value::text(text.replace('~', "~0").replace('/', "~1"))));
    }
    let refuse = || Failure::error("type conversion error");
    Some(match (function, value) {
        ("dyn", value) => Ok(value.clone()),
        ("type", value) => Ok(Type(value.type_name())),
        ("int", Int(_)) | ("uint", Uint(_)) | ("double", Double(_)) | ("string", Text(_)) => {
            Ok(value.clone())
        }
        ("bytes", Bytes(_)) | ("bool", Bool(_)) | ("timestamp", Timestamp(_)) => Ok(value.clone()),
        ("duration", Duration(_)) => Ok(value.clone()),
        ("int", Uint(number)) => whole(i64::try_from(*number).ok()),
        ("int", Double(number)) if number.abs() < 9.3e18 => Ok(Int(*number as i64)),
        ("int", Text(text)) => text.parse().map(Int).or_else(|_| refuse()),
        ("int", Timestamp(at)) => Ok(Int(at.as_second())),
        ("uint", Int(number)) => u64::try_from(*number).map(Uint).or_else(|_| refuse()),
        ("uint", Double(number)) if *number >= 0.0 => Ok(Uint(*number as u64)),
        ("uint", Text(text)) => text.parse().map(Uint).or_else(|_| refuse()),
        ("double", Int(number)) => Ok(Double(*number as f64)),
        ("double", Uint(number)) => Ok(Double(*number as f64)),
        ("double", Text(text)) => text.parse().map(Double).or_else(|_| refuse()),
        ("bool", Text(text)) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Bool(false)),
            _ => refuse(),
        },
        ("string", value) => shown(value).map_or_else(refuse, |text| Ok(Value::text(text))),
        ("bytes", Text(text)) => Ok(Bytes(text.as_bytes().into())),
        ("timestamp", Text(text)) => value::timestamp(text).map_or_else(refuse, |at| Ok(Timestamp(at))),
        ("timestamp", Int(seconds)) => moment(jiff::Timestamp::from_second(*seconds).ok()),
        ("duration", Text(text)) => duration::parse(text).map(Duration).or_else(|_| refuse()),
        _ => return None,
    })
}

/// A value as text, where it has such a form.
pub(super) fn shown(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::Bool(is_set) => is_set.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Text(text) => text.to_string(),
        Value::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
        Value::Timestamp(at) => at.to_string(),
        Value::Duration(length) => duration::format(*length),
        Value::Ip(address) => address.to_string(),
        Value::Cidr(address, range) => format!("{address}/{}", range.prefix()),
        Value::Quantity(quantity) => quantity.to_string(),
        Value::Url(url) => url.text.clone(),
        _ => return None,
    })
}

fn time<'a>(function: &str, values: &[Value<'a>]) -> Option<Answer<'a>> {
    match values {
        [Value::Duration(length)] => Some(Ok(Value::Int(match function {
            "getHours" => length.as_hours(),
            "getMinutes" => length.as_mins(),
            "getSeconds" => length.as_secs(),
            "getMilliseconds" => i64::try_from(length.as_millis()).unwrap_or(i64::MAX),
            _ => return None,
        }))),
        [Value::Timestamp(at), rest @ ..] => {
            let zone = match rest {
                [] => TimeZone::UTC,
                [Value::Text(name)] => match zone(name) {
                    Some(zone) => zone,
                    None => return Some(Failure::error(format!("unknown time zone {name}"))),
                },
                _ => return None,
            };
            let at = at.to_zoned(zone);
            Some(Ok(Value::Int(match function {
                "getFullYear" => at.year().into(),
                "getMonth" => i64::from(at.month()) - 1,
                "getDate" => at.day().into(),
                "getDayOfMonth" => i64::from(at.day()) - 1,
                "getDayOfWeek" => at.weekday().to_sunday_zero_offset().into(),
                "getDayOfYear" => i64::from(at.day_of_year()) - 1,
                "getHours" => at.hour().into(),
                "getMinutes" => at.minute().into(),
                "getSeconds" => at.second().into(),
                "getMilliseconds" => at.millisecond().into(),
                _ => return None,
            })))
        }
        _ => None,
    }
}

/// `UTC`, `Europe/Berlin`, `+02:00`.
fn zone(name: &str) -> Option<TimeZone> {
    if let Some((hours, minutes)) = name.split_once(':') {
        let (hours, minutes): (i8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
        let sign = if name.starts_with('-') { -1 } else { 1 };
        let seconds = (i32::from(hours).abs() * 60 + i32::from(minutes)) * 60 * sign;
        return jiff::tz::Offset::from_seconds(seconds).ok().map(TimeZone::fixed);
    }
    TimeZone::get(name).ok()
}

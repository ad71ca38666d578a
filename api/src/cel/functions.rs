//! Operators and functions that every expression has: arithmetic, comparison, conversion, text, time.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::{Failure, Value, duration, eval::Run, library, value};

type Answer<'a> = Result<Value<'a>, Failure>;

/// Calls a function or operator; what it is called on comes first.
pub(super) fn call<'a>(
    run: &mut Run<'a>,
    function: &str,
    is_method: bool,
    values: &[Value<'a>],
) -> Answer<'a> {
    run.spend(1)?;
    spend_by_size(run, function, values)?;
    if let Some(answer) = operator(function, values) {
        return answer;
    }
    if let Some(answer) = convert(function, values).filter(|_| !is_method) {
        return answer;
    }
    if let Some(answer) = text(function, values) {
        return answer;
    }
    if let Some(answer) = time(function, values) {
        return answer;
    }
    library::call(function, values).unwrap_or_else(|| Failure::error("no such overload"))
}

/// Functions that look at all of what they are given cost by its size.
fn spend_by_size(run: &mut Run<'_>, function: &str, values: &[Value<'_>]) -> Result<(), Failure> {
    let sizes: u64 = values.iter().filter_map(Value::size).map(|size| size as u64).sum();
    match function {
        "size" | "_[_]" | "type" => Ok(()),
        // Every item of one with every item of the other.
        "sets.contains" | "sets.intersects" | "sets.equivalent" | "distinct" => {
            let product = match values {
                [one, other] => one.size().unwrap_or(1) as u64 * other.size().unwrap_or(1) as u64,
                _ => sizes.saturating_mul(sizes),
            };
            run.spend(product.saturating_add(10))
        }
        "@in" => run.spend(
            values.get(1).filter(|list| list.items().is_some()).and_then(Value::size).unwrap_or(0) as u64,
        ),
        "matches" | "find" | "findAll" => {
            let size = |index: usize| values.get(index).and_then(Value::size).unwrap_or(0) as u64;
            run.spend((size(0) + 1).div_ceil(10).saturating_mul(size(1).div_ceil(4).max(1)))
        }
        _ => run.spend_tenths(sizes),
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
        ("_+_", Text(one), Text(other)) => Ok(Value::text(format!("{one}{other}"))),
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
        Value::Cidr(address, length) => format!("{address}/{length}"),
        Value::Quantity(quantity) => quantity.to_string(),
        Value::Url(url) => url.text.clone(),
        _ => return None,
    })
}

fn text<'a>(function: &str, values: &[Value<'a>]) -> Option<Answer<'a>> {
    let [Value::Text(text), arguments @ ..] = values else { return None };
    let number = |index: usize| arguments.get(index).and_then(Value::as_index);
    let word = |index: usize| arguments.get(index).and_then(Value::as_text);
    let characters = || text.chars().collect::<Vec<char>>();
    Some(match (function, arguments.len()) {
        ("contains", 1) => Ok(Value::Bool(text.contains(word(0)?))),
        ("startsWith", 1) => Ok(Value::Bool(text.starts_with(word(0)?))),
        ("endsWith", 1) => Ok(Value::Bool(text.ends_with(word(0)?))),
        ("matches", 1) => library::regex(word(0)?).map(|regex| Value::Bool(regex.is_match(text))),
        ("find", 1) => library::regex(word(0)?)
            .map(|regex| Value::text(regex.find(text).map_or("", |found| found.as_str()))),
        ("findAll", 1 | 2) => library::regex(word(0)?).map(|regex| {
            let limit = number(1).and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
            Value::list(regex.find_iter(text).take(limit).map(|found| Value::text(found.as_str())).collect())
        }),
        ("lowerAscii", 0) => Ok(Value::text(text.to_ascii_lowercase())),
        ("upperAscii", 0) => Ok(Value::text(text.to_ascii_uppercase())),
        ("trim", 0) => Ok(Value::text(text.trim())),
        ("reverse", 0) => Ok(Value::text(text.chars().rev().collect::<String>())),
        ("charAt", 1) => {
            let (characters, at) = (characters(), usize::try_from(number(0)?).ok());
            match at {
                Some(at) if at < characters.len() => Ok(Value::text(characters[at])),
                Some(at) if at == characters.len() => Ok(Value::text("")),
                _ => Failure::error(format!("index out of range: {}", number(0)?)),
            }
        }
        ("indexOf" | "lastIndexOf", 1 | 2) => {
            let (characters, wanted) = (characters(), word(0)?.chars().collect::<Vec<char>>());
            let from = number(1).unwrap_or(if function == "indexOf" { 0 } else { characters.len() as i64 });
            let starts = 0..=characters.len().saturating_sub(wanted.len());
            let fits = |start: &usize| characters[*start..].starts_with(&wanted);
            let found = match function {
                "indexOf" => starts.filter(|start| *start as i64 >= from).find(fits),
                _ => starts.rev().filter(|start| *start as i64 <= from).find(fits),
            };
            Ok(Value::Int(found.map_or(-1, |at| at as i64)))
        }
        ("replace", 2 | 3) => Ok(Value::text(match number(2) {
            Some(limit) if limit >= 0 => text.replacen(word(0)?, word(1)?, limit as usize),
            _ => text.replace(word(0)?, word(1)?),
        })),
        ("split", 1 | 2) => {
            let parts: Vec<Value> = match (word(0)?, number(1)) {
                (_, Some(0)) => Vec::new(),
                ("", _) => text.chars().map(Value::text).collect(),
                (separator, Some(limit @ 1..)) => {
                    text.splitn(limit as usize, separator).map(Value::text).collect()
                }
                (separator, _) => text.split(separator).map(Value::text).collect(),
            };
            Ok(Value::list(parts))
        }
        ("substring", 1 | 2) => {
            let characters = characters();
            let end = number(1).unwrap_or(characters.len() as i64);
            match (usize::try_from(number(0)?), usize::try_from(end)) {
                (Ok(start), Ok(end)) if start <= end && end <= characters.len() => {
                    Ok(Value::text(characters[start..end].iter().collect::<String>()))
                }
                _ => Failure::error(format!("index out of range: {}", number(0)?)),
            }
        }
        ("format", 1) => format(text, &arguments[0].items()?),
        _ => return None,
    })
}

/// `'%s is %d'.format([...])`.
fn format<'a>(pattern: &str, arguments: &[Value<'a>]) -> Answer<'a> {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut characters = pattern.chars().peekable();
    while let Some(c) = characters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if characters.peek() == Some(&'%') {
            characters.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if characters.peek() == Some(&'.') {
            characters.next();
            let mut digits = String::new();
            while let Some(digit) = characters.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            precision = digits.parse::<usize>().ok().filter(|digits| *digits <= 100);
        }
        let Some(argument) = arguments.next() else {
            return Failure::error("index out of range in format arguments");
        };
        match (characters.next(), argument) {
            (Some('s'), value) => out.push_str(&described(value)),
            (Some('d'), Value::Int(number)) => out.push_str(&number.to_string()),
            (Some('d'), Value::Uint(number)) => out.push_str(&number.to_string()),
            (Some('f'), value) => match value {
                Value::Double(number) => out.push_str(&format!("{number:.*}", precision.unwrap_or(6))),
                Value::Int(number) => out.push_str(&format!("{:.*}", precision.unwrap_or(6), *number as f64)),
                _ => return Failure::error("no such overload"),
            },
            (Some('e'), Value::Double(number)) => {
                out.push_str(&format!("{number:.*e}", precision.unwrap_or(6)))
            }
            (Some('b'), Value::Int(number)) => out.push_str(&format!("{number:b}")),
            (Some('x'), Value::Int(number)) => out.push_str(&format!("{number:x}")),
            (Some('X'), Value::Int(number)) => out.push_str(&format!("{number:X}")),
            (Some('o'), Value::Int(number)) => out.push_str(&format!("{number:o}")),
            (Some('x'), Value::Text(text)) => {
                text.bytes().for_each(|byte| out.push_str(&format!("{byte:02x}")))
            }
            _ => return Failure::error("could not parse formatting clause"),
        }
    }
    Ok(Value::text(out))
}

fn described(value: &Value<'_>) -> String {
    if let Some(items) = value.items() {
        let items: Vec<String> = items.iter().map(described).collect();
        return format!("[{}]", items.join(", "));
    }
    if let Some(entries) = value.entries() {
        let entries: Vec<String> =
            entries.iter().map(|(key, value)| format!("{}: {}", described(key), described(value))).collect();
        return format!("{{{}}}", entries.join(", "));
    }
    match value {
        Value::Null => "null".into(),
        value => shown(value).unwrap_or_else(|| value.type_name().into()),
    }
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
        let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
        let seconds = (hours.abs() * 60 + minutes) * 60 * if name.starts_with('-') { -1 } else { 1 };
        return jiff::tz::Offset::from_seconds(seconds).ok().map(TimeZone::fixed);
    }
    TimeZone::get(name).ok()
}

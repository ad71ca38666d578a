//! What can be done with text.

use std::sync::Arc;

use regex::Regex;

use super::{Failure, Value, eval::Run, functions::shown};

type Answer<'a> = Result<Value<'a>, Failure>;

/// Calls a function on text; `None` when there is none for such values.
pub(super) fn call<'a>(
    run: &mut Run<'a>,
    function: &str,
    values: &[Value<'a>],
    pattern: Option<&Arc<Regex>>,
) -> Option<Answer<'a>> {
    let [Value::Text(text), arguments @ ..] = values else { return None };
    let number = |index: usize| arguments.get(index).and_then(Value::as_index);
    let word = |index: usize| arguments.get(index).and_then(Value::as_text);
    Some(match (function, arguments.len()) {
        ("contains", 1) => Ok(Value::Bool(text.contains(word(0)?))),
        ("startsWith", 1) => Ok(Value::Bool(text.starts_with(word(0)?))),
        ("endsWith", 1) => Ok(Value::Bool(text.ends_with(word(0)?))),
        ("matches" | "find" | "findAll", _) => {
            let regex = match pattern {
                Some(regex) => Ok(regex.clone()),
                None => run.pattern(word(0)?),
            };
            regex.and_then(|regex| matched(run, function, &regex, text, number(1)))
        }
        ("lowerAscii", 0) => Ok(Value::text(text.to_ascii_lowercase())),
        ("upperAscii", 0) => Ok(Value::text(text.to_ascii_uppercase())),
        ("trim", 0) => Ok(Value::text(text.trim())),
        ("reverse", 0) => Ok(Value::text(text.chars().rev().collect::<String>())),
        ("charAt", 1) => match place(text, number(0)?) {
            Some(start) => Ok(Value::text(text[start..].chars().take(1).collect::<String>())),
            None => Failure::error(format!("index out of range: {}", number(0)?)),
        },
        ("indexOf", 1 | 2) => Ok(Value::Int(index_of(text, word(0)?, number(1).unwrap_or(0)))),
        ("lastIndexOf", 1 | 2) => {
            Ok(Value::Int(last_index_of(text, word(0)?, number(1).unwrap_or(i64::MAX))))
        }
        ("replace", 2 | 3) => replaced(run, text, word(0)?, word(1)?, number(2)),
        ("split", 1 | 2) => split(run, text, word(0)?, number(1)),
        ("substring", 1 | 2) => {
            let end = number(1).map_or(Some(text.len()), |end| place(text, end));
            match (place(text, number(0)?), end) {
                (Some(start), Some(end)) if start <= end => Ok(Value::text(&text[start..end])),
                _ => Failure::error(format!("index out of range: {}", number(0)?)),
            }
        }
        ("format", 1) => format(run, text, &arguments[0].items()?),
        _ => return None,
    })
}

fn matched<'a>(
    run: &mut Run<'a>,
    function: &str,
    regex: &Regex,
    text: &str,
    limit: Option<i64>,
) -> Answer<'a> {
    match function {
        "matches" => Ok(Value::Bool(regex.is_match(text))),
        "find" => Ok(Value::text(regex.find(text).map_or("", |found| found.as_str()))),
        _ => {
            let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
            let mut all = Vec::new();
            for found in regex.find_iter(text).take(limit) {
                run.make_room_for(1)?;
                run.make_room(found.len())?;
                all.push(Value::text(found.as_str()));
            }
            Ok(Value::list(all))
        }
    }
}

/// Where a character begins; the end counts as one.
fn place(text: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    let ends = std::iter::once(text.len());
    text.char_indices().map(|(place, _)| place).chain(ends).nth(index)
}

fn index_of(text: &str, wanted: &str, from: i64) -> i64 {
    let Some(start) = place(text, from.max(0)) else { return -1 };
    match text[start..].find(wanted) {
        Some(found) => text[..start + found].chars().count() as i64,
        None => -1,
    }
}

/// The last place that is not behind `from`.
fn last_index_of(text: &str, wanted: &str, from: i64) -> i64 {
    if from < 0 {
        return -1;
    }
    let last = place(text, from).unwrap_or(text.len()).saturating_add(wanted.len());
    let reach = (0..=last.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    match text[..reach].rfind(wanted) {
        Some(found) => text[..found].chars().count() as i64,
        None => -1,
    }
}

/// `limit` replacements at most; all where it is negative or not given.
fn replaced<'a>(run: &mut Run<'a>, text: &str, from: &str, to: &str, limit: Option<i64>) -> Answer<'a> {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let count = text.matches(from).take(limit).count();
    run.make_room(text.len().saturating_add(count.saturating_mul(to.len())))?;
    Ok(Value::text(text.replacen(from, to, limit)))
}

fn split<'a>(run: &mut Run<'a>, text: &str, separator: &str, limit: Option<i64>) -> Answer<'a> {
    let limit = match limit {
        Some(0) => return Ok(Value::list(Vec::new())),
        Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
        None => usize::MAX,
    };
    let count = match separator {
        "" => text.chars().take(limit).count(),
        separator => text.matches(separator).take(limit).count() + 1,
    };
    run.make_room_for(count)?;
    // Each part is text of its own, with what it takes to share it.
    run.make_room(text.len().saturating_add(count.saturating_mul(3 * size_of::<usize>())))?;
    let parts = match separator {
        "" => {
            // One character each; what is left over belongs to the last.
            let mut parts = Vec::with_capacity(count);
            let mut rest = text;
            while let Some(first) = rest.chars().next() {
                let end = if parts.len() + 1 == limit { rest.len() } else { first.len_utf8() };
                parts.push(Value::text(&rest[..end]));
                rest = &rest[end..];
            }
            parts
        }
        separator => text.splitn(limit, separator).map(Value::text).collect(),
    };
    Ok(Value::list(parts))
}

/// What is being written, within the room that there is.
struct Out<'r, 'a> {
    run: &'r mut Run<'a>,
    text: String,
}

impl Out<'_, '_> {
    fn push(&mut self, text: &str) -> Result<(), Failure> {
        self.run.make_room(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    fn push_value(&mut self, value: &Value<'_>) -> Result<(), Failure> {
        if let Some(items) = value.items() {
            self.push("[")?;
            for (index, item) in items.iter().enumerate() {
                self.push(if index > 0 { ", " } else { "" })?;
                self.push_value(item)?;
            }
            return self.push("]");
        }
        if matches!(value, Value::Map(_) | Value::JsonMap(..)) {
            self.push("{")?;
            for (index, (key, value)) in value.steps(true).enumerate() {
                self.push(if index > 0 { ", " } else { "" })?;
                self.push_value(&key)?;
                self.push(": ")?;
                self.push_value(&value)?;
            }
            return self.push("}");
        }
        match value {
            Value::Null => self.push("null"),
            Value::Text(text) => self.push(text),
            value => self.push(&shown(value).unwrap_or_else(|| value.type_name().into())),
        }
    }
}

/// `'%s is %d'.format([...])`.
fn format<'a>(run: &mut Run<'a>, pattern: &str, arguments: &[Value<'a>]) -> Answer<'a> {
    let mut out = Out { run, text: String::new() };
    let mut arguments = arguments.iter();
    let mut rest = pattern;
    while let Some((plain, clause)) = rest.split_once('%') {
        out.push(plain)?;
        if let Some(after) = clause.strip_prefix('%') {
            out.push("%")?;
            rest = after;
            continue;
        }
        let (precision, clause) = precision(clause);
        let Some(argument) = arguments.next() else {
            return Failure::error("index out of range in format arguments");
        };
        let mut characters = clause.chars();
        match (characters.next(), argument) {
            (Some('s'), value) => out.push_value(value)?,
            (Some('d'), value @ (Value::Int(_) | Value::Uint(_))) => out.push_value(value)?,
            (Some('f'), Value::Double(number)) => out.push(&format!("{number:.precision$}"))?,
            (Some('f'), Value::Int(number)) => out.push(&format!("{:.precision$}", *number as f64))?,
            (Some('f'), _) => return Failure::error("no such overload"),
            (Some('e'), Value::Double(number)) => out.push(&format!("{number:.precision$e}"))?,
            (Some('b'), Value::Int(number)) => out.push(&format!("{number:b}"))?,
            (Some('x'), Value::Int(number)) => out.push(&format!("{number:x}"))?,
            (Some('X'), Value::Int(number)) => out.push(&format!("{number:X}"))?,
            (Some('o'), Value::Int(number)) => out.push(&format!("{number:o}"))?,
            (Some('x'), Value::Text(text)) => {
                for byte in text.bytes() {
                    out.push(&format!("{byte:02x}"))?;
                }
            }
            _ => return Failure::error("could not parse formatting clause"),
        }
        rest = characters.as_str();
    }
    out.push(rest)?;
    Ok(Value::text(out.text))
}

/// The digits behind a dot, and what follows them.
fn precision(clause: &str) -> (usize, &str) {
    const USUAL: usize = 6;
    const MOST: usize = 100;
    let Some(digits) = clause.strip_prefix('.') else { return (USUAL, clause) };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    (digits.parse().ok().filter(|digits| *digits <= MOST).unwrap_or(USUAL), rest)
}

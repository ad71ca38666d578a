//! The JSON paths that definitions use for columns, scales and selectable fields.

use serde_json::Value;

/// A path into an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    /// Every item or value.
    All,
    /// Items in which a field is, or is not, equal to something: `[?(@.type=="Ready")]`.
    Where {
        path: Vec<String>,
        is_equal: bool,
        value: Value,
    },
}

impl Path {
    /// Reads a path; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Path, String> {
        let mut steps = Vec::new();
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let end = closing(inner).ok_or("unterminated array")?;
                steps.push(bracket(&inner[..end])?);
                rest = &inner[end + 1..];
            } else if let Some(after) = rest.strip_prefix('.') {
                let (name, tail) = field_name(after);
                if name.is_empty() && !tail.starts_with('[') {
                    return Err(format!("unexpected end of path {text:?}"));
                }
                if name == "*" {
                    steps.push(Step::All);
                } else if !name.is_empty() {
                    steps.push(Step::Field(name));
                }
                rest = tail;
            } else {
                return Err(format!("unrecognized character in path: {text:?}"));
            }
        }
        Ok(Path(steps))
    }

    /// The names, when the path consists of fields alone.
    pub fn fields(&self) -> Option<Vec<String>> {
        let names = self.0.iter().map(|step| match step {
            Step::Field(name) => Some(name.clone()),
            _ => None,
        });
        names.collect()
    }

    /// The first value at the path.
    pub fn find<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        find(value, &self.0)
    }
}

fn find<'a>(value: &'a Value, steps: &[Step]) -> Option<&'a Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value) };
    match step {
        Step::Field(name) => find(value.get(name)?, rest),
        Step::Index(index) => {
            let items = value.as_array()?;
            let index = if *index < 0 { items.len() as i64 + index } else { *index };
            find(items.get(usize::try_from(index).ok()?)?, rest)
        }
        Step::All => match value {
            Value::Array(items) => items.iter().find_map(|item| find(item, rest)),
            Value::Object(map) => map.values().find_map(|item| find(item, rest)),
            _ => None,
        },
        Step::Where { path, is_equal, value: wanted } => value.as_array()?.iter().find_map(|item| {
            let found = path.iter().try_fold(item, |item, name| item.get(name))?;
            ((found == wanted) == *is_equal).then(|| find(item, rest))?
        }),
    }
}

/// The bracket that ends what began before `inner`.
fn closing(inner: &str) -> Option<usize> {
    let mut quote = None;
    for (index, c) in inner.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, ']') => return Some(index),
            _ => {}
        }
    }
    None
}

/// A name; a backslash takes the next character as it is.
fn field_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((index, c)) = characters.next() {
        match c {
            '.' | '[' => return (name, &text[index..]),
            '\\' => name.extend(characters.next().map(|(_, c)| c)),
            c => name.push(c),
        }
    }
    (name, "")
}

fn bracket(inner: &str) -> Result<Step, String> {
    let inner = inner.trim();
    if inner == "*" {
        return Ok(Step::All);
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|filter| filter.strip_suffix(')')) {
        let (place, value, is_equal) = match (filter.split_once("=="), filter.split_once("!=")) {
            (Some((place, value)), _) => (place, value, true),
            (None, Some((place, value))) => (place, value, false),
            (None, None) => return Err(format!("unsupported filter {filter:?}")),
        };
        let place = place.trim().strip_prefix('@').ok_or("a filter must begin with @")?;
        let path = Path::parse(place)?.fields().ok_or("a filter may name fields only")?;
        let value = value.trim();
        let value = match unquoted(value) {
            Some(text) => Value::from(text),
            None => serde_json::from_str(value).map_err(|_| format!("cannot read {value:?}"))?,
        };
        return Ok(Step::Where { path, is_equal, value });
    }
    if let Some(name) = unquoted(inner) {
        return Ok(Step::Field(name.to_string()));
    }
    inner.parse().map(Step::Index).map_err(|_| format!("invalid array index {inner}"))
}

fn unquoted(text: &str) -> Option<&str> {
    let inside = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inside('\'').or_else(|| inside('"'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_what_they_name() {
        let object = json!({
            "metadata": {"labels": {"app.kubernetes.io/name": "web"}},
            "spec": {"replicas": 3, "list": [{"n": "a"}, {"n": "b"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
        });
        let find = |path: &str| Path::parse(path).unwrap().find(&object).cloned();
        assert_eq!(find(".spec.replicas"), Some(json!(3)));
        assert_eq!(find(".spec.list[1].n"), Some(json!("b")));
        assert_eq!(find(".spec.list[-1].n"), Some(json!("b")));
        assert_eq!(find(".spec.list[*].n"), Some(json!("a")));
        assert_eq!(find(r#".status.conditions[?(@.type=="Other")].status"#), Some(json!("False")));
        assert_eq!(find(r".metadata.labels.app\.kubernetes\.io/name"), Some(json!("web")));
        assert_eq!(find(".metadata.labels['app.kubernetes.io/name']"), Some(json!("web")));
        assert_eq!(find(".spec.nope.deeper"), None);
        assert_eq!(Path::parse(".spec.a").unwrap().fields().unwrap(), ["spec", "a"]);
        for wrong in ["spec", ".", ".spec[", ".spec[x]", ".a[?(b)]"] {
            assert!(Path::parse(wrong).is_err(), "{wrong}");
        }
    }
}

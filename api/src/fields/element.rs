//! One step of a path into an object.

use std::{borrow::Cow, cmp::Ordering, fmt};

use serde_json::Value;

/// How a child is chosen from what contains it.
#[derive(Clone, Debug)]
pub enum Element {
    /// A field of a type, or a key of a map.
    Field(Cow<'static, str>),
    /// The item of a list that has these values in its key fields, which are in alphabetical order.
    Key(Vec<(Cow<'static, str>, Value)>),
    /// The item of a set.
    Value(Value),
    /// The item of a list at a place.
    Index(i64),
}

impl Element {
    /// The element for a field.
    pub fn field(name: impl Into<Cow<'static, str>>) -> Element {
        Element::Field(name.into())
    }

    /// As it is written in `fieldsV1`: `f:name`, `k:{"name":"a"}`, `v:"a"`, `i:0`.
    pub fn encoded(&self) -> String {
        match self {
            Element::Field(name) => {
                let mut text = String::with_capacity(name.len() + 2);
                text.push_str("f:");
                text.push_str(name);
                text
            }
            Element::Key(fields) => {
                let mut text = String::from("k:{");
                for (index, (name, value)) in fields.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    text.push_str(&Value::from(&**name).to_string());
                    text.push(':');
                    text.push_str(&value.to_string());
                }
                text.push('}');
                text
            }
            Element::Value(value) => format!("v:{value}"),
            Element::Index(index) => format!("i:{index}"),
        }
    }

    /// Reads what [`Element::encoded`] writes; `None` for sorts of elements that a later version may know.
    pub fn decoded(text: &str) -> Result<Option<Element>, String> {
        let Some((sort, rest)) = text.split_at_checked(2).filter(|_| text.len() >= 2) else {
            return Err("key must be 2 characters long:".into());
        };
        if !sort.ends_with(':') {
            return Err(format!("missing colon: {text}"));
        }
        Ok(Some(match sort {
            "f:" => Element::field(rest.to_string()),
            "v:" => Element::Value(serde_json::from_str(rest).map_err(|error| error.to_string())?),
            "i:" => Element::Index(rest.parse().map_err(|_| format!("invalid index: {rest}"))?),
            "k:" => {
                let key: serde_json::Map<String, Value> =
                    serde_json::from_str(rest).map_err(|error| error.to_string())?;
                let mut fields: Vec<(Cow<'static, str>, Value)> =
                    key.into_iter().map(|(name, value)| (name.into(), value)).collect();
                fields.sort_by(|left, right| left.0.cmp(&right.0));
                Element::Key(fields)
            }
            _ => return Ok(None),
        }))
    }

    fn rank(&self) -> u8 {
        match self {
            Element::Field(_) => 0,
            Element::Key(_) => 1,
            Element::Value(_) => 2,
            Element::Index(_) => 3,
        }
    }
}

/// As it is shown in messages: `.name`, `[name="a"]`, `[="a"]`, `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", fields.join(","))
            }
            Element::Value(value) => write!(f, "[={value}]"),
            Element::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Element) -> Ordering {
        match (self, other) {
            (Element::Field(left), Element::Field(right)) => left.cmp(right),
            (Element::Key(left), Element::Key(right)) => order_of_keys(left, right),
            (Element::Value(left), Element::Value(right)) => order(left, right),
            (Element::Index(left), Element::Index(right)) => left.cmp(right),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Element) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Element) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Element {}

fn order_of_keys(left: &[(Cow<'static, str>, Value)], right: &[(Cow<'static, str>, Value)]) -> Ordering {
    let pairs = left.iter().zip(right);
    let mut orders = pairs.map(|(left, right)| left.0.cmp(&right.0).then_with(|| order(&left.1, &right.1)));
    orders.find(|order| order.is_ne()).unwrap_or_else(|| left.len().cmp(&right.len()))
}

/// A total order of values: numbers, text, booleans, lists, maps, null.
fn order(left: &Value, right: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    };
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => left.cmp(&right),
            _ => left.as_f64().unwrap_or_default().total_cmp(&right.as_f64().unwrap_or_default()),
        },
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Array(left), Value::Array(right)) => {
            let mut orders = left.iter().zip(right).map(|(left, right)| order(left, right));
            orders.find(|order| order.is_ne()).unwrap_or_else(|| left.len().cmp(&right.len()))
        }
        (Value::Object(left), Value::Object(right)) => {
            let pairs = left.iter().zip(right);
            let mut orders =
                pairs.map(|(left, right)| left.0.cmp(right.0).then_with(|| order(left.1, right.1)));
            orders.find(|order| order.is_ne()).unwrap_or_else(|| left.len().cmp(&right.len()))
        }
        _ => rank(left).cmp(&rank(right)),
    }
}

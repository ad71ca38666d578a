//! What an expression's values may be.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// A type, with the sizes that its values may have.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Known at run time only.
    Dyn,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A whole number with sign.
    Int,
    /// A whole number without sign.
    Uint,
    /// A number.
    Double,
    /// Text of at most so many characters.
    Text(u64),
    /// Bytes, at most so many.
    Bytes(u64),
    /// A point in time.
    Timestamp,
    /// A length of time.
    Duration,
    /// Items, at most so many.
    List(Arc<Type>, u64),
    /// Keys and values, at most so many.
    Map(Arc<Type>, Arc<Type>, u64),
    /// Named fields.
    Object(Arc<ObjectType>),
    /// A value or none.
    Optional(Arc<Type>),
    /// A type, or a value of a library: `quantity`, `ip`, `cidr`, `url`, `semver`, `format`, `type`.
    Named(&'static str),
    /// A message that an expression makes, such as `Object.spec`.
    Message(Arc<str>),
    /// A placeholder in a declaration.
    Parameter(char),
}

/// The fields of an object, under the names that expressions use for them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObjectType {
    /// The name for messages.
    pub name: String,
    /// Name in expressions, to the name in JSON and the type.
    pub fields: BTreeMap<String, (String, Type)>,
}

/// No size is given: as much as a request can hold.
pub const UNBOUNDED: u64 = 3 << 20;

impl Type {
    /// Text without a limit of its own.
    pub const TEXT: Type = Type::Text(UNBOUNDED);

    /// A list of anything.
    pub fn list(item: Type) -> Type {
        Type::List(item.into(), UNBOUNDED)
    }

    /// A map from text.
    pub fn map(value: Type) -> Type {
        Type::Map(Type::TEXT.into(), value.into(), UNBOUNDED)
    }

    /// Whether a value of type `other` may stand where this type is asked for.
    pub(super) fn accepts(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::Text(_), Type::Text(_)) | (Type::Bytes(_), Type::Bytes(_)) => true,
            (Type::List(one, _), Type::List(other, _)) => one.accepts(other),
            (Type::Map(key, value, _), Type::Map(other_key, other_value, _)) => {
                key.accepts(other_key) && value.accepts(other_value)
            }
            (Type::Optional(one), Type::Optional(other)) => one.accepts(other),
            (Type::Object(one), Type::Object(other)) => {
                Arc::ptr_eq(one, other)
                    || one.fields.iter().all(|(name, (_, field))| {
                        other.fields.get(name).is_none_or(|(_, other)| field.accepts(other))
                    })
            }
            // Every type of a schema may be nullable; what is compared with null says so.
            (Type::Null, _) | (_, Type::Null) => true,
            (one, other) => one == other,
        }
    }

    /// The most items, characters or entries that a value can have.
    pub(super) fn max_size(&self) -> u64 {
        match self {
            Type::Text(max) | Type::Bytes(max) | Type::List(_, max) | Type::Map(_, _, max) => *max,
            Type::Dyn | Type::Parameter(_) => UNBOUNDED,
            Type::Optional(inner) => inner.max_size(),
            Type::Object(object) => object.fields.len() as u64,
            _ => 1,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => f.write_str("dyn"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::Text(_) => f.write_str("string"),
            Type::Bytes(_) => f.write_str("bytes"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Duration => f.write_str("duration"),
            Type::List(item, _) => write!(f, "list({item})"),
            Type::Map(key, value, _) => write!(f, "map({key}, {value})"),
            Type::Object(object) => f.write_str(&object.name),
            Type::Optional(inner) => write!(f, "optional_type({inner})"),
            Type::Named(name) => f.write_str(name),
            Type::Message(name) => f.write_str(name),
            Type::Parameter(letter) => write!(f, "{letter}"),
        }
    }
}

/// Words that expressions cannot use as names of fields.
const RESERVED: [&str; 23] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
    "__",
    "",
];

/// The name of a JSON field in expressions: reserved words and characters are escaped as upstream does.
/// `None`: it cannot be named.
pub fn field_name(json: &str) -> Option<String> {
    if RESERVED.contains(&json) {
        return Some(format!("__{json}__")).filter(|_| !json.is_empty());
    }
    let first = json.chars().next()?;
    if first.is_ascii_digit()
        || !json.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte))
    {
        return None;
    }
    let escaped = json.replace("__", "__underscores__").replace('.', "__dot__");
    Some(escaped.replace('-', "__dash__").replace('/', "__slash__"))
}

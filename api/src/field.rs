//! One fault at one field, in upstream's words (`k8s.io/apimachinery/pkg/util/validation/field`).

use std::fmt;

/// A fault at a field path such as `spec.containers[0].name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Where.
    pub field: String,
    /// What sort of fault; gives the cause's `reason` and the first words of the message.
    pub kind: FieldErrorKind,
    /// The offending value as upstream prints it (strings in Go quotes); empty for `Required`, `Forbidden`.
    pub value: String,
    /// The sentence after the value.
    pub detail: String,
}

/// The sorts of faults, each with the reason that clients see in `details.causes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// A value that must be given is not there.
    Required,
    /// The value breaks a rule.
    Invalid,
    /// The value is not among those allowed.
    NotSupported,
    /// The field may not be set or changed here.
    Forbidden,
    /// The value may appear once only.
    Duplicate,
    /// The value is longer than allowed.
    TooLong,
    /// The list has more items than allowed.
    TooMany,
    /// The value has the wrong JSON type.
    TypeInvalid,
    /// Another object that the value names does not exist.
    NotFound,
    /// The server failed while checking.
    Internal,
}

impl FieldErrorKind {
    /// The machine-readable reason in `details.causes`.
    pub fn reason(self) -> &'static str {
        use FieldErrorKind::*;
        match self {
            Required => "FieldValueRequired",
            Invalid => "FieldValueInvalid",
            NotSupported => "FieldValueNotSupported",
            Forbidden => "FieldValueForbidden",
            Duplicate => "FieldValueDuplicate",
            TooLong => "FieldValueTooLong",
            TooMany => "FieldValueTooMany",
            TypeInvalid => "FieldValueTypeInvalid",
            NotFound => "FieldValueNotFound",
            Internal => "InternalError",
        }
    }

    fn words(self) -> &'static str {
        use FieldErrorKind::*;
        match self {
            Required => "Required value",
            Invalid => "Invalid value",
            NotSupported => "Unsupported value",
            Forbidden => "Forbidden",
            Duplicate => "Duplicate value",
            TooLong => "Too long",
            TooMany => "Too many",
            TypeInvalid => "Invalid value",
            NotFound => "Not found",
            Internal => "Internal error",
        }
    }
}

impl FieldError {
    /// A value that must be given.
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> FieldError {
        FieldError::new(FieldErrorKind::Required, field, String::new(), detail)
    }

    /// A value that breaks a rule.
    pub fn invalid(
        field: impl Into<String>,
        value: &serde_json::Value,
        detail: impl Into<String>,
    ) -> FieldError {
        FieldError::new(FieldErrorKind::Invalid, field, printed(value), detail)
    }

    /// A value outside the allowed set; `allowed` in upstream's order (sorted).
    pub fn not_supported(
        field: impl Into<String>,
        value: &serde_json::Value,
        allowed: &[&str],
    ) -> FieldError {
        let list: Vec<String> = allowed.iter().map(|value| format!("{value:?}")).collect();
        let detail = format!("supported values: {}", list.join(", "));
        FieldError::new(FieldErrorKind::NotSupported, field, printed(value), detail)
    }

    /// A field that may not be set or changed here.
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> FieldError {
        FieldError::new(FieldErrorKind::Forbidden, field, String::new(), detail)
    }

    /// A value that stands twice.
    pub fn duplicate(field: impl Into<String>, value: &serde_json::Value) -> FieldError {
        FieldError::new(FieldErrorKind::Duplicate, field, printed(value), "")
    }

    /// A value longer than `limit` bytes.
    pub fn too_long(field: impl Into<String>, limit: usize) -> FieldError {
        let detail = format!("may not be more than {limit} bytes");
        FieldError::new(FieldErrorKind::TooLong, field, String::new(), detail)
    }

    /// Any other.
    pub fn new(
        kind: FieldErrorKind,
        field: impl Into<String>,
        value: String,
        detail: impl Into<String>,
    ) -> FieldError {
        FieldError { field: field.into(), kind, value, detail: detail.into() }
    }

    /// The message without the field's path, as in `details.causes[].message`.
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_string();
        for part in [&self.value, &self.detail] {
            if !part.is_empty() {
                text.push_str(": ");
                text.push_str(part);
            }
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

fn printed(value: &serde_json::Value) -> String {
    value.to_string()
}

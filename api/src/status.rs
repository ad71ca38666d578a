//! `Status`, the API's answer when something failed, with upstream's reasons and messages
//! (`k8s.io/apimachinery/pkg/api/errors`).

use serde_json::{Value, json};

use crate::FieldError;

/// A failure in the form that every Kubernetes client understands.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// CamelCase reason, such as `NotFound`.
    pub reason: &'static str,
    /// One sentence for people.
    pub message: String,
    /// `details`, where there is more to say.
    pub details: Option<Value>,
    /// A reason in somebody else's word, such as a webhook's; it takes the place of `reason`.
    pub given_reason: Option<Box<str>>,
    /// Where a list that cannot go on consistently may go on all the same: `metadata.continue`.
    pub list_continue: Option<Box<str>>,
}

impl Status {
    /// Any failure.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Status {
        let message = message.into();
        Status { code, reason, message, details: None, given_reason: None, list_continue: None }
    }

    /// `pods "nginx" not found`.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Status {
        let message = format!("{} \"{name}\" not found", qualified(group, resource));
        Status::new(404, "NotFound", message).about(group, resource, name)
    }

    /// `the server could not find the requested resource`.
    pub fn no_such_resource() -> Status {
        let mut status = Status::new(404, "NotFound", "the server could not find the requested resource");
        status.details = Some(json!({}));
        status
    }

    /// `pods "nginx" already exists`.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Status {
        let message = format!("{} \"{name}\" already exists", qualified(group, resource));
        Status::new(409, "AlreadyExists", message).about(group, resource, name)
    }

    /// `Operation cannot be fulfilled on pods "nginx": ...`.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Status {
        let resource_name = qualified(group, resource);
        let message = format!("Operation cannot be fulfilled on {resource_name} \"{name}\": {why}");
        Status::new(409, "Conflict", message).about(group, resource, name)
    }

    /// `Pod "nginx" is invalid: ...`, every fault listed. `kind` is the CamelCase kind.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Status {
        let texts: Vec<String> = errors.iter().map(FieldError::to_string).collect();
        let joined = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{name}\" is invalid: {joined}", qualified(group, kind));
        let mut status = Status::new(422, "Invalid", message).about(group, kind, name);
        let causes: Vec<Value> = errors
            .iter()
            .map(
                |error| json!({"reason": error.kind.reason(), "message": error.body(), "field": error.field}),
            )
            .collect();
        if let Some(details) = &mut status.details {
            details["causes"] = Value::Array(causes);
        }
        status
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::new(400, "BadRequest", message)
    }

    /// 403 `pods "nginx" is forbidden: ...`.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Status {
        let subject = match name {
            "" => format!("{} is forbidden", qualified(group, resource)),
            name => format!("{} \"{name}\" is forbidden", qualified(group, resource)),
        };
        Status::new(403, "Forbidden", format!("{subject}: {why}")).about(group, resource, name)
    }

    /// 401.
    pub fn unauthorized() -> Status {
        Status::new(401, "Unauthorized", "Unauthorized")
    }

    /// 405.
    pub fn method_not_allowed() -> Status {
        let text = "the server does not allow this method on the requested resource";
        let mut status = Status::new(405, "MethodNotAllowed", text);
        status.details = Some(json!({}));
        status
    }

    /// 410 with reason `Expired`: the resourceVersion is no longer there.
    pub fn expired(message: impl Into<String>) -> Status {
        Status::new(410, "Expired", message)
    }

    /// 500 `Internal error occurred: ...`.
    pub fn internal(why: impl std::fmt::Display) -> Status {
        let mut status = Status::new(500, "InternalError", format!("Internal error occurred: {why}"));
        status.details = Some(json!({"causes": [{"message": why.to_string()}]}));
        status
    }

    /// Names the object that the failure is about.
    pub fn about(mut self, group: &str, kind: &str, name: &str) -> Status {
        let mut details = serde_json::Map::new();
        for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                details.insert(key.into(), value.into());
            }
        }
        self.details = Some(Value::Object(details));
        self
    }

    /// The `v1.Status` object.
    pub fn to_json(&self) -> Value {
        let mut body = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        });
        let reason = self.given_reason.as_deref().unwrap_or(self.reason);
        if !reason.is_empty() {
            body["reason"] = reason.into();
        }
        if let Some(token) = &self.list_continue {
            body["metadata"]["continue"] = Value::from(&**token);
        }
        if let Some(details) = &self.details {
            body["details"] = details.clone();
        }
        body["code"] = self.code.into();
        body
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} {})", self.message, self.code, self.reason)
    }
}

impl std::error::Error for Status {}

/// `deployments.apps`, or `pods` in the core group.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_string() } else { format!("{resource}.{group}") }
}

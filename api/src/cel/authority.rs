//! `authorizer`: whether somebody may do something, asked by an expression.
//!
//! To know takes more than an expression has at hand, so an answer may be unknown: then the evaluation stops with
//! [`Failure::Undecided`](super::Failure), whoever runs it finds the answer out, and runs it again.

use std::{fmt, sync::Arc};

use super::{Failure, Value};
use crate::selector::FieldSelector;

/// What one question costs, as upstream.
pub(super) const CHECK_COST: u64 = 350_000;

/// Who knows what users may do.
pub trait Authority: fmt::Debug + Send + Sync {
    /// The answer, as far as it is known; what is not is to be found out.
    fn decide(&self, question: &Question) -> Option<Verdict>;
}

/// Whether somebody may do something.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// Namespace and name of a service account, if it is not about the one who sent the request.
    pub service_account: Option<(String, String)>,
    /// A path that is no resource.
    pub path: Option<String>,
    /// Such as `get`.
    pub verb: String,
    /// API group.
    pub group: String,
    /// Plural name of the resource.
    pub resource: String,
    /// Such as `status`.
    pub subresource: String,
    /// Empty for the whole cluster.
    pub namespace: String,
    /// Empty for all objects.
    pub name: String,
    /// Which of them, as a field selector's text; empty for all.
    pub fields: String,
}

/// The answer to a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether they may.
    pub is_allowed: bool,
    /// Why.
    pub reason: String,
    /// What kept the authorizer from deciding.
    pub error: String,
}

/// A question on its way.
#[derive(Clone, Debug)]
pub struct Check {
    authority: Arc<dyn Authority>,
    stage: Stage,
    question: Question,
    /// What the request itself is about.
    request: Arc<Question>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Authorizer,
    Path,
    Group,
    Resource,
}

impl Check {
    /// What `authorizer` stands for; `request` is what the request is about.
    pub fn authorizer(authority: Arc<dyn Authority>, request: Question) -> Check {
        Check { authority, stage: Stage::Authorizer, question: Question::default(), request: request.into() }
    }

    /// `authorizer.requestResource`.
    pub(super) fn request_resource(&self) -> Option<Check> {
        let question =
            Question { service_account: self.question.service_account.clone(), ..(*self.request).clone() };
        (self.stage == Stage::Authorizer).then(|| Check { stage: Stage::Resource, question, ..self.clone() })
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Authorizer => "kubernetes.authorization.Authorizer",
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => "kubernetes.authorization.ResourceCheck",
        }
    }

    fn next(&self, stage: Stage, change: impl FnOnce(&mut Question)) -> Value<'static> {
        let mut next = Check { stage, ..self.clone() };
        change(&mut next.question);
        Value::Check(next.into())
    }
}

/// Calls a function of the authorizer's; `None` when there is none for such values.
pub(super) fn call<'a>(function: &str, values: &[Value<'a>]) -> Option<Result<Value<'a>, Failure>> {
    if let [Value::Decision(verdict)] = values {
        return Some(Ok(match function {
            "allowed" => Value::Bool(verdict.is_allowed),
            "reason" => Value::text(verdict.reason.as_str()),
            "errored" => Value::Bool(!verdict.error.is_empty()),
            "error" => Value::text(verdict.error.as_str()),
            _ => return None,
        }));
    }
    let [Value::Check(check), arguments @ ..] = values else { return None };
    let word = |index: usize| arguments.get(index).and_then(Value::as_text).map(str::to_string);
    let first = word(0)?;
    Some(Ok(match (check.stage, function, arguments.len()) {
        (Stage::Authorizer, "path", 1) if first.trim().is_empty() => {
            return Some(Failure::error("path must not be empty"));
        }
        (Stage::Authorizer, "path", 1) => check.next(Stage::Path, |question| question.path = Some(first)),
        (Stage::Authorizer, "group", 1) => check.next(Stage::Group, |question| question.group = first),
        (Stage::Authorizer, "serviceAccount", 2) => {
            let account = (first, word(1)?);
            if crate::name::dns_label(&account.0).is_err() {
                return Some(Failure::error("Invalid service account namespace"));
            }
            if crate::name::dns_subdomain(&account.1).is_err() {
                return Some(Failure::error("Invalid service account name"));
            }
            check.next(Stage::Authorizer, |question| question.service_account = Some(account))
        }
        (Stage::Group, "resource", 1) if first.trim().is_empty() => {
            return Some(Failure::error("resource must not be empty"));
        }
        (Stage::Group, "resource", 1) => check.next(Stage::Resource, |question| question.resource = first),
        (Stage::Resource, "subresource", 1) => {
            check.next(Stage::Resource, |question| question.subresource = first)
        }
        (Stage::Resource, "namespace", 1) => {
            check.next(Stage::Resource, |question| question.namespace = first)
        }
        (Stage::Resource, "name", 1) => check.next(Stage::Resource, |question| question.name = first),
        // As upstream: what is no selector asks about everything.
        (Stage::Resource, "fieldSelector", 1) => check.next(Stage::Resource, |question| {
            if FieldSelector::parse(&first).is_ok() {
                question.fields = first;
            }
        }),
        // No rule looks at labels: who may see everything may see a part.
        (Stage::Resource, "labelSelector", 1) => check.next(Stage::Resource, |_| {}),
        (Stage::Resource | Stage::Path, "check", 1) => {
            let question = Question { verb: first, ..check.question.clone() };
            match check.authority.decide(&question) {
                Some(verdict) => Value::Decision(verdict.into()),
                None => return Some(Err(Failure::Undecided)),
            }
        }
        _ => return None,
    }))
}

//! An object in its other versions, for those who own fields of it in them, where only a webhook converts.
//!
//! Who owns what is decided purely and cannot wait for a webhook. So a decision that needs a conversion notes the
//! question and is made again with the answer, until it has no questions any more.

use std::sync::{Mutex, PoisonError};

use api::{
    Kind, Object, Status,
    crd::Version,
    fields::Versions,
    schema::{self, Schema},
};

use crate::{crd, registry::Registry};

/// So often a decision may find new questions; it asks at most for each version of what was, is laid over and remains.
const ROUNDS: usize = 32;

/// What is known of an object in other versions, and what was asked in vain.
pub(crate) struct Others {
    kind: &'static Kind,
    version: &'static Version,
    rounds: usize,
    answers: Vec<(Question, Object)>,
    questions: Mutex<Vec<Question>>,
}

#[derive(Clone, PartialEq)]
struct Question {
    object: Object,
    api_version: String,
}

impl Others {
    /// Nothing is known yet. `None` for kinds that are converted without a webhook.
    pub(super) fn of(kind: &'static Kind) -> Option<Others> {
        let version = kind.custom.filter(|version| version.needs_webhook())?;
        Some(Others { kind, version, rounds: 0, answers: Vec::new(), questions: Mutex::default() })
    }

    /// Whether the decision just made had all it needed.
    pub(super) fn is_settled(&self) -> bool {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Has the webhook answer what was asked; false when nothing was.
    pub(super) async fn answer(&mut self, registry: &Registry) -> Result<bool, Status> {
        let questions = std::mem::take(self.questions.get_mut().unwrap_or_else(PoisonError::into_inner));
        if questions.is_empty() {
            return Ok(false);
        }
        self.rounds += 1;
        if self.rounds > ROUNDS {
            return Err(Status::internal("the conversion webhook answers differently each time it is asked"));
        }
        for question in questions {
            let Some(kind) = self.row(&question.api_version) else { continue };
            if let Some(object) = crd::converted(registry, kind, &question.object).await? {
                self.answers.push((question, object));
            }
        }
        Ok(true)
    }

    fn row(&self, api_version: &str) -> Option<&'static Kind> {
        self.version.definition.kinds().iter().find(|kind| kind.api_version() == api_version)
    }
}

impl Versions for Others {
    fn converted(&self, object: &Object, api_version: &str) -> Option<(Object, Option<&'static Schema>)> {
        let kind = self.row(api_version)?;
        if object.api_version() == api_version {
            return Some((object.clone(), schema::of(kind)));
        }
        let question = Question { object: object.clone(), api_version: api_version.to_string() };
        if let Some((_, answer)) = self.answers.iter().find(|(known, _)| *known == question) {
            return Some((answer.clone(), schema::of(kind)));
        }
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        if !questions.contains(&question) {
            questions.push(question);
        }
        None
    }

    fn is_known(&self, api_version: &str) -> bool {
        self.row(api_version).is_some()
    }
}

impl std::fmt::Debug for Others {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "other versions of {}", self.kind.kind)
    }
}

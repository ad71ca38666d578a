//! What the user of a request may do, as far as expressions have asked: those of policies and of webhooks' conditions.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::{
    cel::{Authority, Question, Verdict},
    policy::Undecided,
};

use crate::{
    authz::{self, Authorizer},
    request::User,
};

/// The answers that are known, and the questions that are open.
#[derive(Debug, Default)]
pub(super) struct Oracle(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    verdicts: BTreeMap<Question, Verdict>,
    open: Vec<Question>,
}

impl Authority for Oracle {
    fn decide(&self, question: &Question) -> Option<Verdict> {
        let mut known = self.known();
        let verdict = known.verdicts.get(question).cloned();
        if verdict.is_none() {
            known.open.push(question.clone());
        }
        verdict
    }
}

impl Oracle {
    /// Decides, and finds out what it takes until there is a decision. Every round answers another question, and what
    /// a question costs bounds how many there can be.
    pub(super) async fn consult<R>(
        self: &Arc<Oracle>,
        authorizer: &Authorizer,
        user: &User,
        decide: impl Fn(Arc<dyn Authority>) -> Result<R, Undecided>,
    ) -> R {
        loop {
            match decide(self.clone()) {
                Ok(decision) => return decision,
                Err(Undecided) => self.find_out(authorizer, user).await,
            }
        }
    }

    async fn find_out(&self, authorizer: &Authorizer, user: &User) {
        let open = std::mem::take(&mut self.known().open);
        for question in open {
            let verdict = answer(authorizer, user, &question).await;
            self.known().verdicts.insert(question, verdict);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(authorizer: &Authorizer, user: &User, question: &Question) -> Verdict {
    let account = question.service_account.as_ref().map(|(namespace, name)| {
        let group = format!("system:serviceaccounts:{namespace}");
        User::new(
            format!("system:serviceaccount:{namespace}:{name}"),
            &["system:serviceaccounts", &group, "system:authenticated"],
        )
    });
    let asked = authz::Question {
        is_resource: question.path.is_none(),
        verb: &question.verb,
        group: &question.group,
        resource: &question.resource,
        subresource: &question.subresource,
        namespace: &question.namespace,
        name: &question.name,
        path: question.path.as_deref().unwrap_or_default(),
        fields: &question.fields,
    };
    match authorizer.decide(account.as_ref().unwrap_or(user), &asked).await {
        Ok(decision) => {
            Verdict { is_allowed: decision.allowed, reason: decision.reason, error: String::new() }
        }
        Err(status) => Verdict { error: status.message, ..Verdict::default() },
    }
}

//! `matchConditions`: expressions that all have to hold for a webhook to be called.

use std::sync::Arc;

use api::{
    cel::{Authority, Failure, Program, Type, Value as Cel},
    items,
    policy::{self, Undecided},
    strategies::admission_rules::compile_condition,
};
use serde_json::Value;

/// What all conditions of one webhook may cost, as upstream.
const BUDGET: u64 = 2_500_000;

static ANY: Type = Type::Dyn;

/// The conditions of one webhook.
#[derive(Debug, Default)]
pub(super) struct Conditions(Vec<Condition>);

#[derive(Debug)]
struct Condition {
    expression: String,
    program: Result<Program, String>,
}

/// What the conditions say of a request.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// All hold.
    Met,
    /// One of them does not.
    NotMet,
    /// None is known not to hold, but not all could be evaluated.
    Unclear(String),
}

/// What a condition can look at.
pub(super) struct Subject<'a> {
    pub(super) object: &'a Value,
    pub(super) old: &'a Value,
    pub(super) request: &'a Value,
    /// Who knows what the user may do.
    pub(super) authority: Arc<dyn Authority>,
}

impl Conditions {
    pub(super) fn read(conditions: &Value) -> Conditions {
        let conditions = items(conditions).iter();
        let read = |condition: &Value| {
            let expression = condition["expression"].as_str().unwrap_or_default().trim().to_string();
            Condition { program: compile_condition(&expression), expression }
        };
        Conditions(conditions.map(read).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Undecided> {
        let variables = [
            ("object", Cel::from_json(subject.object, &ANY)),
            ("oldObject", Cel::from_json(subject.old, &ANY)),
            ("request", Cel::from_json(subject.request, &ANY)),
            ("authorizer", policy::authorizer(subject.authority.clone(), subject.request)),
        ];
        let mut spent = 0;
        let mut errors = Vec::new();
        for condition in &self.0 {
            let said = match &condition.program {
                Err(why) => Err(format!("compilation failed: {why}")),
                Ok(program) => match program.run(&variables, BUDGET.saturating_sub(spent), &mut spent) {
                    Err(Failure::Undecided) => return Err(Undecided),
                    said => said.map_err(|failure| condition.explain(&failure)),
                },
            };
            match said {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => return Ok(Verdict::NotMet),
                Ok(_) => errors
                    .push(format!("expression '{}' resulted in a non-boolean value", condition.expression)),
                Err(why) => errors.push(why),
            }
        }
        Ok(match errors.as_slice() {
            [] => Verdict::Met,
            [one] => Verdict::Unclear(one.clone()),
            many => Verdict::Unclear(format!("[{}]", many.join(", "))),
        })
    }
}

impl Condition {
    fn explain(&self, failure: &Failure) -> String {
        match failure {
            Failure::TooExpensive => {
                "validation failed due to running out of cost budget, no further validation rules will be run"
                    .into()
            }
            failure => format!("expression '{}' resulted in error: {failure}", self.expression),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Lets everybody list and nothing else.
    #[derive(Debug)]
    struct Lists;

    impl Authority for Lists {
        fn decide(&self, question: &api::cel::Question) -> Option<api::cel::Verdict> {
            Some(api::cel::Verdict { is_allowed: question.verb == "list", ..Default::default() })
        }
    }

    fn said(expressions: &[&str]) -> Verdict {
        let conditions: Vec<Value> =
            expressions.iter().map(|text| json!({"name": "c", "expression": text})).collect();
        let conditions = Conditions::read(&conditions.into());
        let object = json!({"metadata": {"name": "web"}});
        let request = json!({"operation": "CREATE", "userInfo": {"username": "jane"}});
        let authority = Arc::new(Lists);
        let subject = Subject { object: &object, old: &Value::Null, request: &request, authority };
        conditions.judge(&subject).expect("everything is decided")
    }

    #[test]
    fn all_conditions_have_to_hold() {
        assert_eq!(said(&[]), Verdict::Met);
        assert_eq!(
            said(&["object.metadata.name == 'web'", "request.userInfo.username == 'jane'"]),
            Verdict::Met
        );
        assert_eq!(said(&["object.metadata.name == 'web'", "oldObject != null"]), Verdict::NotMet);
    }

    #[test]
    fn the_authorizer_may_be_asked() {
        let may = |verb: &str| format!("authorizer.group('').resource('pods').check('{verb}').allowed()");
        assert_eq!(said(&[&may("list")]), Verdict::Met);
        assert_eq!(said(&[&may("delete")]), Verdict::NotMet);
        assert_eq!(said(&["authorizer.requestResource.check('list').allowed()"]), Verdict::Met);
    }

    #[test]
    fn what_cannot_be_told_does_not_count_beside_what_is_not_so() {
        let Verdict::Unclear(why) = said(&["object.spec.x == 1"]) else { panic!("nobody can tell") };
        assert_eq!(why, "expression 'object.spec.x == 1' resulted in error: no such key: spec");
        assert_eq!(said(&["object.spec.x == 1", "false"]), Verdict::NotMet);
    }
}

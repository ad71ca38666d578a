//! `matchConditions`, of policies and of webhooks alike.

use serde_json::Value as Json;

use super::{
    CONDITIONS_BUDGET, Compiled, Scope,
    evaluate::{Evaluation, Fault, Undecided},
    text,
};
use crate::{cel::Value, items};

/// Conditions that must all hold.
#[derive(Debug)]
pub struct Conditions(Vec<(String, Compiled)>);

impl Conditions {
    /// Reads a list of conditions.
    pub fn compile(conditions: &Json, scope: &Scope) -> Conditions {
        let compiled = |condition: &Json| {
            let expression = text(&condition["expression"]);
            (expression.trim().to_string(), scope.compile(expression))
        };
        Conditions(items(conditions).iter().map(compiled).collect())
    }

    /// Whether all hold. One that does not is enough, whatever is wrong with others; else what is wrong decides.
    pub(super) fn hold(&self, evaluation: &mut Evaluation<'_>) -> Result<Result<bool, String>, Undecided> {
        let mut faults = Vec::new();
        let left = evaluation.limit_to(CONDITIONS_BUDGET);
        for (expression, program) in &self.0 {
            match evaluation.run(expression, program) {
                Ok(Value::Bool(false)) => {
                    evaluation.restore(left);
                    return Ok(Ok(false));
                }
                Ok(_) => {}
                Err(Fault::Undecided) => return Err(Undecided),
                Err(Fault::Budget(why)) => {
                    evaluation.restore(left);
                    return Ok(Err(why));
                }
                Err(Fault::Failed(why)) => faults.push(why),
            }
        }
        evaluation.restore(left);
        Ok(match faults.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        })
    }
}

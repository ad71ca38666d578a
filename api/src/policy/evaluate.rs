//! What a validating policy says of a request.

use std::{rc::Rc, sync::Arc};

use super::{BUDGET, Compiled, Input, Policy, Validation};
use crate::cel::{CALL_LIMIT, Failure, Lazy, Program, Value, stack};

/// An answer of the authorizer's is missing; it has been noted what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecided;

/// How long a message may be that an expression makes, in bytes.
const MESSAGE_LIMIT: usize = 5 << 10;
/// How long an annotation of the audit log may be.
const ANNOTATION_LIMIT: usize = 10 << 10;
pub(super) const NO_THREAD: &str = "no thread could be started for a deep expression";
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// What a policy says of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validated {
    /// Each validation that does not hold.
    pub denials: Vec<Denial>,
    /// Keys and values for the audit log.
    pub annotations: Vec<(String, String)>,
}

/// One no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Why, for the user.
    pub message: String,
    /// The reason of the status.
    pub reason: String,
    /// Which expression says so; none where it is the policy that failed.
    pub expression_index: Option<usize>,
}

/// Why an expression has no value.
pub(super) enum Fault {
    Undecided,
    Budget(String),
    Failed(String),
}

/// One evaluation of a policy, with what it may still cost.
pub(super) struct Evaluation<'a> {
    variables: Rc<Lazy<'a>>,
    left: u64,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(input: &Input<'a>, variables: &Arc<[(String, Program)]>) -> Evaluation<'a> {
        Evaluation { variables: input.values(variables), left: BUDGET }
    }

    /// Allows less for a while; gives what there was.
    pub(super) fn limit_to(&mut self, budget: u64) -> u64 {
        std::mem::replace(&mut self.left, budget)
    }

    pub(super) fn restore(&mut self, left: u64) {
        self.left = left;
    }

    pub(super) fn run(&mut self, expression: &str, program: &Compiled) -> Result<Value<'a>, Fault> {
        let program = match program {
            Ok(program) => program,
            Err(why) => return Err(Fault::Failed(format!("compilation error: compilation failed: {why}"))),
        };
        let mut spent = 0;
        let result = program.run_lazily(&self.variables, CALL_LIMIT, &mut spent);
        match self.left.checked_sub(spent) {
            Some(left) => self.left = left,
            None => {
                self.left = 0;
                return Err(Fault::Budget(OUT_OF_BUDGET.into()));
            }
        }
        result.map_err(|failure| match failure {
            Failure::Undecided => Fault::Undecided,
            failure => Fault::Failed(format!("expression '{expression}' resulted in error: {failure}")),
        })
    }
}

impl Policy {
    /// What the validations say of a request.
    pub fn validate(&self, input: &Input<'_>) -> Result<Validated, Undecided> {
        self.with_stack(|| self.validate_here(input)).unwrap_or_else(|| Ok(self.failed(NO_THREAD.into())))
    }

    /// Runs `body` where it may go as deep as the expressions do; `None` when there is no thread to spare.
    pub(super) fn with_stack<R: Send>(&self, body: impl FnOnce() -> R + Send) -> Option<R> {
        if self.is_deep { stack::deep(body) } else { Some(body()) }
    }

    fn failed(&self, message: String) -> Validated {
        let denials = if self.is_lenient { Vec::new() } else { vec![failure(message)] };
        Validated { denials, annotations: Vec::new() }
    }

    fn validate_here(&self, input: &Input<'_>) -> Result<Validated, Undecided> {
        let mut evaluation = Evaluation::new(input, &self.variables);
        match self.conditions.hold(&mut evaluation)? {
            Ok(true) => {}
            Ok(false) => return Ok(Validated::default()),
            Err(why) => return Ok(self.failed(why)),
        }
        let mut validated = Validated::default();
        for (index, validation) in self.validations.iter().enumerate() {
            let denial = match evaluation.run(&validation.expression, &validation.program) {
                Ok(Value::Bool(true)) => continue,
                Ok(_) => Denial {
                    message: validation.message(&mut evaluation)?,
                    reason: validation.reason.clone(),
                    expression_index: Some(index),
                },
                Err(Fault::Undecided) => return Err(Undecided),
                Err(Fault::Budget(why)) => return Ok(self.failed(why)),
                Err(Fault::Failed(_)) if self.is_lenient => continue,
                Err(Fault::Failed(why)) => failure(why),
            };
            validated.denials.push(denial);
        }
        for annotation in &self.annotations {
            match evaluation.run(&annotation.expression, &annotation.program) {
                Ok(Value::Null) => {}
                Ok(value) => {
                    let value = value.as_text().unwrap_or_default().trim();
                    if !value.is_empty() {
                        validated.annotations.push((annotation.key.clone(), cut(value)));
                    }
                }
                Err(Fault::Undecided) => return Err(Undecided),
                Err(Fault::Budget(why)) => return Ok(self.failed(why)),
                Err(Fault::Failed(_)) if self.is_lenient => {}
                Err(Fault::Failed(why)) => validated.denials.push(failure(why)),
            }
        }
        Ok(validated)
    }
}

impl Validation {
    /// What the expression makes of it, else the message, else the rule itself.
    fn message(&self, evaluation: &mut Evaluation<'_>) -> Result<String, Undecided> {
        if let Some(program) = &self.message_program {
            match evaluation.run("", program) {
                Ok(value) => {
                    let made = value.as_text().unwrap_or_default().trim();
                    if !made.is_empty() && made.len() <= MESSAGE_LIMIT && !made.contains('\n') {
                        return Ok(made.to_string());
                    }
                }
                Err(Fault::Undecided) => return Err(Undecided),
                Err(_) => {}
            }
        }
        Ok(match self.message.as_str() {
            "" => format!("failed expression: {}", self.expression),
            message => message.to_string(),
        })
    }
}

fn failure(message: String) -> Denial {
    Denial { message, reason: "Invalid".into(), expression_index: None }
}

fn cut(value: &str) -> String {
    let end = (0..=value.len().min(ANNOTATION_LIMIT)).rev().find(|end| value.is_char_boundary(*end));
    value[..end.unwrap_or(0)].to_string()
}

//! The Common Expression Language as Kubernetes uses it: rules of CustomResourceDefinitions and of policies.
//!
//! [`compile`] parses and checks types, so that a rule about a field that does not exist is refused when it is
//! written; [`Program::cost`] bounds what it may cost, from the sizes that the types allow; [`Program::run`] evaluates
//! it within a budget. Pure: what time it is, and what is looked at, are variables.
//!
//! The `cel` crate of crates.io evaluates expressions but neither checks types nor counts costs, nor can it be
//! stopped; a server that runs its users' expressions needs all three, so the evaluator is our own.

mod ast;
mod check;
mod cost;
mod declarations;
pub mod duration;
mod eval;
mod functions;
mod lexer;
mod library;
mod parse;
mod types;
mod value;

pub use types::{ObjectType, Type, field_name};
pub use value::Value;

use ast::Expr;

/// How much evaluating one expression may cost, as upstream.
pub const CALL_LIMIT: u64 = 1_000_000;

/// An expression that is ready to run.
#[derive(Debug)]
pub struct Program {
    source: String,
    expr: Expr,
    result: Type,
}

/// Why an expression is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    /// The offset in characters.
    pub at: usize,
    /// What is wrong.
    pub what: String,
}

/// Why an evaluation has no result.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// Upstream's words, such as `no such key: x`.
    Error(String),
    /// It cost more than it may.
    TooExpensive,
}

impl Failure {
    fn error<T>(message: impl Into<String>) -> Result<T, Failure> {
        Err(Failure::Error(message.into()))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Error(message) => f.write_str(message),
            Failure::TooExpensive => f.write_str("operation cancelled: actual cost limit exceeded"),
        }
    }
}

/// Compiles an expression over `variables`; every mistake, in upstream's form.
pub fn compile(source: &str, variables: &[(&str, Type)]) -> Result<Program, String> {
    let expr = parse::parse(source).map_err(|mistake| report(source, &[mistake]))?;
    let mut checker = check::Checker::new(variables);
    let result = checker.type_of(&expr);
    match checker.mistakes.is_empty() {
        true => Ok(Program { source: source.to_string(), expr, result }),
        false => Err(report(source, &checker.mistakes)),
    }
}

impl Program {
    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The type of the result, as far as it is known.
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// Whether a variable occurs.
    pub fn mentions(&self, variable: &str) -> bool {
        self.expr.mentions(variable)
    }

    /// The most that one evaluation can cost.
    pub fn cost(&self, variables: &[(&str, Type)]) -> u64 {
        cost::estimate(&self.expr, variables)
    }

    /// Evaluates; what it cost is added to `spent`.
    pub fn run<'a>(
        &self,
        variables: &[(&'a str, Value<'a>)],
        limit: u64,
        spent: &mut u64,
    ) -> Result<Value<'a>, Failure> {
        let mut run = eval::Run::new(variables, limit.min(CALL_LIMIT));
        let result = run.eval(&self.expr);
        *spent = spent.saturating_add(run.spent());
        result
    }
}

/// The mistakes with the places where they are, as cel-go prints them.
fn report(source: &str, mistakes: &[Mistake]) -> String {
    let one = |mistake: &Mistake| {
        let before: String = source.chars().take(mistake.at).collect();
        let line = before.matches('\n').count();
        let column = before.chars().rev().take_while(|c| *c != '\n').count();
        let text = source.split('\n').nth(line).unwrap_or_default();
        format!(
            "ERROR: <input>:{}:{}: {}\n | {text}\n | {}^",
            line + 1,
            column + 1,
            mistake.what,
            ".".repeat(column)
        )
    };
    mistakes.iter().map(one).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;

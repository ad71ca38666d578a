//! The Common Expression Language as Kubernetes uses it: rules of CustomResourceDefinitions and of policies.
//!
//! [`compile`] parses and checks types, so that a rule about a field that does not exist is refused when it is
//! written; [`Program::cost`] bounds what it may cost, from the sizes that the types allow; [`Program::run`] evaluates
//! it within a budget. Pure: what time it is, and what is looked at, are variables.
//!
//! The `cel` crate of crates.io evaluates expressions but neither checks types nor counts costs, nor can it be
//! stopped; a server that runs its users' expressions needs all three, so the evaluator is our own.

mod ast;
mod authority;
mod check;
mod cost;
mod declarations;
pub mod duration;
mod eval;
mod functions;
mod lazy;
mod lexer;
mod library;
mod parse;
pub(crate) mod stack;
mod strings;
mod text;
mod types;
mod value;

pub use authority::{Authority, Check, Question, Verdict};
pub use lazy::Lazy;
pub use text::Text;
pub use types::{ObjectType, Type, field_name};
pub use value::Value;

use std::rc::Rc;

use ast::Expr;

/// How many levels of an expression an ordinary stack is enough for.
pub const SHALLOW: usize = stack::SHALLOW;

/// How high the tree of an expression may be, the variables that it names included.
pub const HEIGHT_LIMIT: usize = ast::HEIGHT_LIMIT;

/// How much evaluating one expression may cost, as upstream.
pub const CALL_LIMIT: u64 = 1_000_000;

/// An expression that is ready to run.
#[derive(Debug)]
pub struct Program {
    source: String,
    expr: Expr,
    result: Type,
}

/// How much memory the values may take that one evaluation makes, in bytes. Costs are upstream's, and upstream's do not
/// count what is made of text; memory has a limit of its own.
const MEMORY_LIMIT: usize = 64 << 20;

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
    /// An answer of the authorizer's is not known yet.
    Undecided,
}

impl Failure {
    /// Whether nothing else can make up for it, as `true ||` does for an error.
    fn is_final(&self) -> bool {
        !matches!(self, Failure::Error(_))
    }

    fn error<T>(message: impl Into<String>) -> Result<T, Failure> {
        Err(Failure::Error(message.into()))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Error(message) => f.write_str(message),
            Failure::TooExpensive => f.write_str("operation cancelled: actual cost limit exceeded"),
            Failure::Undecided => f.write_str("the authorizer has not decided yet"),
        }
    }
}

/// Compiles an expression over `variables`; every mistake, in upstream's form.
pub fn compile(source: &str, variables: &[(&str, Type)]) -> Result<Program, String> {
    match stack::may_be_deep(source) {
        true => stack::deep(|| compile_here(source, variables)).unwrap_or_else(|| Err(NO_THREAD.into())),
        false => compile_here(source, variables),
    }
}

const NO_THREAD: &str = "no thread could be started for a deep expression";

fn compile_here(source: &str, variables: &[(&str, Type)]) -> Result<Program, String> {
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

    /// Whether `variables` is used other than to ask for one of them by its name. Only names tell beforehand which
    /// variables an expression needs, and how deep its evaluation goes.
    pub fn passes_variables_on(&self) -> bool {
        let is_variables = |expr: &Expr| matches!(&expr.node, ast::Node::Ident(name) if name == "variables");
        let (mut all, mut named) = (0, 0);
        self.expr.visit(&mut |part| {
            all += usize::from(is_variables(part));
            if let ast::Node::Select { of, .. } | ast::Node::Has { of, .. } = &part.node {
                named += usize::from(is_variables(of));
            }
        });
        all != named
    }

    /// How many levels the evaluation goes down, given how much each of `variables` takes that it names.
    pub fn height(&self, variables: &dyn Fn(&str) -> usize) -> usize {
        let mut below = 0;
        self.expr.visit(&mut |part| {
            if let ast::Node::Select { of, field, .. } = &part.node
                && matches!(&of.node, ast::Node::Ident(name) if name == "variables")
            {
                below = below.max(variables(field));
            }
        });
        self.expr.height() + below
    }

    /// The most that one evaluation can cost.
    pub fn cost(&self, variables: &[(&str, Type)]) -> u64 {
        let estimate = || cost::estimate(&self.expr, variables);
        match self.is_deep() {
            true => stack::deep(estimate).unwrap_or(u64::MAX),
            false => estimate(),
        }
    }

    /// Evaluates; what it cost is added to `spent`.
    pub fn run<'a>(
        &self,
        variables: &[(&'a str, Value<'a>)],
        limit: u64,
        spent: &mut u64,
    ) -> Result<Value<'a>, Failure> {
        let evaluate = || {
            let mut run = eval::Run::new(variables, limit.min(CALL_LIMIT));
            let result = run.eval(&self.expr);
            (result, run.spent())
        };
        if !self.is_deep() {
            let (result, cost) = evaluate();
            *spent = spent.saturating_add(cost);
            return result;
        }
        let Some((result, cost)) = stack::deep(evaluate) else { return Failure::error(NO_THREAD) };
        *spent = spent.saturating_add(cost).saturating_add(stack::COST);
        result
    }

    /// Whether it takes more stack than a request has.
    fn is_deep(&self) -> bool {
        self.expr.height() > stack::SHALLOW
    }

    /// Evaluates with variables that are computed when they are asked for. Where it is deep ([`Program::height`]), the
    /// caller has seen to the stack.
    pub fn run_lazily<'a>(
        &self,
        variables: &Rc<Lazy<'a>>,
        limit: u64,
        spent: &mut u64,
    ) -> Result<Value<'a>, Failure> {
        let mut run = eval::Run::new(variables.given(), limit.min(CALL_LIMIT));
        run.memory = variables.memory();
        run.lazy = Some(variables.clone());
        let result = run.eval(&self.expr);
        *spent = spent.saturating_add(run.spent());
        result
    }
}

/// How many mistakes are told, how long the line may be that one is shown in, and how much is told in all: whoever
/// writes a rule chooses both their number and the length of its lines.
const MISTAKES_TOLD: usize = 100;
const LINE_SHOWN: usize = 1 << 14;
const REPORT_LIMIT: usize = 1 << 16;

/// The mistakes with the places where they are, as cel-go prints them.
fn report(source: &str, mistakes: &[Mistake]) -> String {
    let mut out = String::new();
    for (index, mistake) in mistakes.iter().enumerate() {
        if index == MISTAKES_TOLD || out.len() > REPORT_LIMIT {
            out.push_str(&format!("\n{} more errors were truncated", mistakes.len() - index));
            break;
        }
        if index > 0 {
            out.push('\n');
        }
        out.push_str(&reported(source, mistake));
    }
    out
}

fn reported(source: &str, mistake: &Mistake) -> String {
    let line = source.chars().take(mistake.at).filter(|c| *c == '\n').count();
    let text = source.split('\n').nth(line).unwrap_or_default();
    let start: usize = source.split('\n').take(line).map(|line| line.chars().count() + 1).sum();
    let column = mistake.at - start;
    let told = format!("ERROR: <input>:{}:{}: {}", line + 1, column + 1, mistake.what);
    match text.len() > LINE_SHOWN {
        true => told,
        false => format!("{told}\n | {text}\n | {}^", ".".repeat(column)),
    }
}

#[cfg(test)]
mod tests;

//! Admission policies: what ValidatingAdmissionPolicies and MutatingAdmissionPolicies decide about a request.
//!
//! [`Policy::compile`] reads a policy's spec once; [`Policy::validate`] and [`Policy::mutate`] decide about one request
//! with one set of parameters. Pure: what the user may do is asked of an [`Authority`](crate::cel::Authority), and where
//! that does not know yet, the decision is [`Undecided`] and made again. Which requests a policy is meant for is the
//! API server's matter.

mod conditions;
mod environment;
mod evaluate;
mod mutate;
pub mod type_check;

pub use conditions::Conditions;
pub use environment::{Input, Names, authorizer};
pub use evaluate::{Denial, Undecided, Validated};

use std::{cell::Cell, sync::Arc};

use serde_json::Value as Json;

use crate::{
    cel::{self, HEIGHT_LIMIT, Program, Type},
    items,
};

/// How much everything of one policy may cost that is evaluated for one request, as upstream.
pub const BUDGET: u64 = 10_000_000;
/// How much its match conditions may cost of that.
const CONDITIONS_BUDGET: u64 = 2_500_000;
/// How many variables a policy may have: each is compiled with all those before it in sight.
pub(crate) const MOST_VARIABLES: usize = 1_000;

/// A policy, ready to decide.
#[derive(Debug)]
pub struct Policy {
    conditions: Conditions,
    variables: Arc<[(String, Program)]>,
    validations: Vec<Validation>,
    annotations: Vec<Annotation>,
    mutations: Vec<Mutation>,
    is_lenient: bool,
    /// Whether an expression takes more stack than a request has.
    is_deep: bool,
}

/// An expression, or why it is none.
type Compiled = Result<Program, String>;

#[derive(Debug)]
struct Validation {
    expression: String,
    program: Compiled,
    message: String,
    message_program: Option<Compiled>,
    reason: String,
}

#[derive(Debug)]
struct Annotation {
    key: String,
    expression: String,
    program: Compiled,
}

#[derive(Debug)]
struct Mutation {
    expression: String,
    program: Compiled,
    is_json_patch: bool,
}

/// The variables of a policy as they are compiled, each with those before it in sight.
pub struct Scope {
    names: Names,
    object: Type,
    known: Vec<(String, Type)>,
    heights: Vec<(String, usize)>,
    /// The most levels of any expression so far.
    deepest: Cell<usize>,
}

impl Scope {
    /// No variables yet. `object` is what the type of the object is known to be.
    pub fn new(names: Names, object: Type) -> Scope {
        Scope { names, object, known: Vec::new(), heights: Vec::new(), deepest: Cell::new(0) }
    }

    /// Compiles an expression.
    pub fn compile(&self, expression: &str) -> Result<Program, String> {
        self.compile_with(expression, self.names)
    }

    /// Compiles an expression for which there are other variables.
    pub fn compile_with(&self, expression: &str, names: Names) -> Result<Program, String> {
        let mut types = names.types(&self.object);
        types.push(("variables", environment::variables_type(&self.known)));
        let program = cel::compile(expression.trim(), &types)?;
        if program.passes_variables_on() {
            return Err("variables can only be asked for by name".into());
        }
        let height = self.height(&program);
        self.deepest.set(self.deepest.get().max(height));
        match height > HEIGHT_LIMIT {
            true => Err(format!("expression recursion limit exceeded: {HEIGHT_LIMIT}")),
            false => Ok(program),
        }
    }

    /// Compiles a variable, and makes it known.
    pub fn add(&mut self, name: &str, expression: &str) -> Result<Program, String> {
        if self.known.len() >= MOST_VARIABLES {
            return Err(format!("there are more than {MOST_VARIABLES} variables"));
        }
        let program = self.compile(expression);
        let (kind, height) = match &program {
            Ok(program) => (program.result().clone(), self.height(program)),
            Err(_) => (Type::Dyn, 0),
        };
        self.known.push((name.to_string(), kind));
        self.heights.push((name.to_string(), height));
        program
    }

    fn height(&self, program: &Program) -> usize {
        program.height(&|name| {
            self.heights.iter().rev().find(|(known, _)| known == name).map_or(0, |(_, height)| *height)
        })
    }
}

impl Policy {
    /// Reads the `spec` of a policy of either sort. What does not compile is told when it is evaluated.
    pub fn compile(spec: &Json) -> Policy {
        let names = Names { params: spec["paramKind"].is_object(), authorizer: true, mutations: false };
        let mut scope = Scope::new(names, Type::Dyn);
        let mut variables = Vec::new();
        for variable in items(&spec["variables"]) {
            // Who names one that does not compile hears that there is none.
            if let Ok(program) = scope.add(text(&variable["name"]), text(&variable["expression"])) {
                variables.push((text(&variable["name"]).to_string(), program));
            }
        }
        let validation = |rule: &Json| Validation {
            expression: text(&rule["expression"]).trim().to_string(),
            program: scope.compile(text(&rule["expression"])),
            message: text(&rule["message"]).trim().to_string(),
            message_program: rule["messageExpression"]
                .as_str()
                .filter(|expression| !expression.trim().is_empty())
                .map(|expression| scope.compile_with(expression, Names { authorizer: false, ..names })),
            reason: rule["reason"].as_str().unwrap_or("Invalid").to_string(),
        };
        let annotation = |annotation: &Json| Annotation {
            key: text(&annotation["key"]).to_string(),
            expression: text(&annotation["valueExpression"]).trim().to_string(),
            program: scope.compile(text(&annotation["valueExpression"])),
        };
        let mutation = |mutation: &Json| {
            let is_json_patch = mutation["patchType"] == "JSONPatch";
            let field = if is_json_patch { "jsonPatch" } else { "applyConfiguration" };
            let expression = text(&mutation[field]["expression"]);
            let program = scope.compile_with(expression, Names { mutations: true, ..names });
            Mutation { expression: expression.trim().to_string(), program, is_json_patch }
        };
        Policy {
            conditions: Conditions::compile(&spec["matchConditions"], &scope),
            validations: items(&spec["validations"]).iter().map(validation).collect(),
            annotations: items(&spec["auditAnnotations"]).iter().map(annotation).collect(),
            mutations: items(&spec["mutations"]).iter().map(mutation).collect(),
            variables: variables.into(),
            is_lenient: spec["failurePolicy"] == "Ignore",
            is_deep: scope.deepest.get() > cel::SHALLOW,
        }
    }

    /// Whether what goes wrong with the policy itself lets requests pass.
    pub fn is_lenient(&self) -> bool {
        self.is_lenient
    }
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests;

//! `variables`: what a policy names, computed when it is first asked for, and once.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
};

use super::{Failure, MEMORY_LIMIT, Program, Value, eval::Run};

/// The variables of one evaluation.
#[derive(Debug)]
pub struct Lazy<'a> {
    programs: Arc<[(String, Program)]>,
    given: Vec<(&'a str, Value<'a>)>,
    known: RefCell<BTreeMap<String, Result<Value<'a>, Failure>>>,
    /// How much memory may still be taken: what variables have taken stays so for as long as they are known.
    memory: Cell<usize>,
}

impl<'a> Lazy<'a> {
    /// Variables with what their expressions may look at, `variables` itself being one of these.
    pub fn new(programs: Arc<[(String, Program)]>, mut given: Vec<(&'a str, Value<'a>)>) -> Lazy<'a> {
        given.push(("variables", Value::Variables));
        Lazy { programs, given, known: RefCell::default(), memory: Cell::new(MEMORY_LIMIT) }
    }

    /// All that an expression may look at.
    pub(super) fn given(&self) -> &[(&'a str, Value<'a>)] {
        &self.given
    }

    /// How much memory an evaluation may take.
    pub(super) fn memory(&self) -> usize {
        self.memory.get()
    }

    /// Whether there is such a variable, whatever it is.
    pub(super) fn has(&self, name: &str) -> bool {
        self.programs.iter().any(|(known, _)| known == name)
    }

    /// One of them. Each sees those before it, which is what the order of compilation has made sure of.
    pub(super) fn get(self: &Rc<Lazy<'a>>, run: &mut Run<'a>, name: &str) -> Result<Value<'a>, Failure> {
        if let Some(known) = self.known.borrow().get(name) {
            return known.clone();
        }
        let Some((_, program)) = self.programs.iter().find(|(known, _)| known == name) else {
            return Failure::error(format!("no such key: {name}"));
        };
        // What is being computed is not there yet: whoever comes back to it has gone in a circle.
        let circle = Failure::error(format!("{name} depends on itself"));
        self.known.borrow_mut().insert(name.to_string(), circle);
        let free = self.memory.get();
        let before = run.memory;
        let result = run.inside(&self.given, &program.expr).map_err(|failure| match failure {
            Failure::Error(why) => {
                Failure::Error(format!("composited variable {name:?} fails to evaluate: {why}"))
            }
            other => other,
        });
        // Those that it has asked for itself are part of what it took.
        self.memory.set(free.saturating_sub(before.saturating_sub(run.memory)));
        self.known.borrow_mut().insert(name.to_string(), result.clone());
        result
    }
}

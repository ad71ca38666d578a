//! Which system calls a container may make, as a program for the kernel.
//!
//! [`profile`] says which calls get which answer: our default, which follows Docker's, or a profile
//! file of the node. [`compile`] makes a program of it that finds the answer for a call by bisection, so
//! that a call costs eight comparisons rather than hundreds.

mod compile;
mod numbers;
mod profile;

pub use compile::compile;
pub use profile::{default_profile, parse_profile};

use std::collections::BTreeMap;

/// What happens to calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// To all that have no rule.
    pub default: Action,
    /// By number, the first rule that applies counts.
    pub rules: BTreeMap<u32, Vec<Rule>>,
}

/// One answer to one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The answer.
    pub action: Action,
    /// All must hold.
    pub conditions: Vec<Condition>,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is carried out.
    Allow,
    /// It fails with this `errno`.
    Fail(u16),
    /// The process is killed.
    KillProcess,
    /// The thread is killed.
    KillThread,
    /// The process gets SIGSYS.
    Trap,
    /// It is carried out and noted.
    Log,
}

impl Action {
    fn code(self) -> u32 {
        match self {
            Action::Allow => 0x7fff_0000,
            Action::Fail(number) => 0x0005_0000 | number as u32,
            Action::KillProcess => 0x8000_0000,
            Action::KillThread => 0,
            Action::Trap => 0x0003_0000,
            Action::Log => 0x7ffc_0000,
        }
    }
}

/// A comparison of one argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    /// Which argument, from zero.
    pub argument: u8,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub value: u64,
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `==` of the bits in this mask.
    MaskedEqual(u64),
}

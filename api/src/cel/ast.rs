//! What an expression consists of.

use super::Value;

/// A part of an expression and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Expr {
    /// The offset in characters.
    pub(super) at: usize,
    pub(super) node: Node,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Literal(Value<'static>),
    Ident(String),
    /// `a.b`, or `a.?b`.
    Select {
        of: Box<Expr>,
        field: String,
        is_optional: bool,
    },
    /// `has(a.b)`.
    Has {
        of: Box<Expr>,
        field: String,
    },
    /// `a[b]`, or `a[?b]`.
    Index {
        of: Box<Expr>,
        key: Box<Expr>,
        is_optional: bool,
    },
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Choice {
        condition: Box<Expr>,
        yes: Box<Expr>,
        no: Box<Expr>,
    },
    /// Functions, and operators as `_+_`.
    Call {
        function: String,
        target: Option<Box<Expr>>,
        arguments: Vec<Expr>,
    },
    /// Items, and whether each is there only if an optional has a value.
    List(Vec<(Expr, bool)>),
    Map(Vec<(Expr, Expr, bool)>),
    /// `range.all(variable, body)` and its like.
    Loop(Box<Loop>),
    /// `cel.bind(variable, value, body)`, and what `optMap` does with the value inside.
    Bind {
        variable: String,
        value: Box<Expr>,
        body: Box<Expr>,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Loop {
    pub(super) kind: LoopKind,
    pub(super) range: Expr,
    pub(super) variable: String,
    /// The second variable, where the first is the index or key.
    pub(super) second: Option<String>,
    /// The filter of a `map` with three arguments.
    pub(super) filter: Option<Expr>,
    pub(super) body: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoopKind {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
    OptMap,
    OptFlatMap,
    SortBy,
    TransformList,
    TransformMap,
}

impl Expr {
    /// Whether a variable occurs; shadowing is not looked at.
    pub(super) fn mentions(&self, variable: &str) -> bool {
        let any = |parts: &[&Expr]| parts.iter().any(|part| part.mentions(variable));
        match &self.node {
            Node::Literal(_) => false,
            Node::Ident(name) => name == variable,
            Node::Select { of, .. } | Node::Has { of, .. } => of.mentions(variable),
            Node::Index { of, key, .. } => any(&[of, key]),
            Node::And(parts) | Node::Or(parts) => parts.iter().any(|part| part.mentions(variable)),
            Node::Choice { condition, yes, no } => any(&[condition, yes, no]),
            Node::Call { target, arguments, .. } => {
                target.as_ref().is_some_and(|target| target.mentions(variable))
                    || arguments.iter().any(|argument| argument.mentions(variable))
            }
            Node::List(items) => items.iter().any(|(item, _)| item.mentions(variable)),
            Node::Map(entries) => {
                entries.iter().any(|(key, value, _)| key.mentions(variable) || value.mentions(variable))
            }
            Node::Loop(inner) => {
                any(&[&inner.range, &inner.body])
                    || inner.filter.as_ref().is_some_and(|filter| filter.mentions(variable))
            }
            Node::Bind { value, body, .. } => any(&[value, body]),
        }
    }
}

//! What an expression consists of.

use std::sync::{Arc, OnceLock};

use regex::Regex;

use super::{Mistake, Value};

/// How high the tree of an expression may be, as upstream.
pub(super) const HEIGHT_LIMIT: usize = 250;

/// A part of an expression and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Expr {
    /// The offset in characters.
    pub(super) at: usize,
    pub(super) node: Node,
    /// How many parts there are one inside the other: whoever walks the tree needs so much stack.
    height: usize,
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
        /// The pattern among the arguments, compiled, where it stands there as it is.
        pattern: OnceLock<Arc<Regex>>,
    },
    /// Items, and whether each is there only if an optional has a value.
    List(Vec<(Expr, bool)>),
    Map(Vec<(Expr, Expr, bool)>),
    /// `Name{field: value}`.
    Message {
        name: String,
        fields: Vec<(String, Expr, bool)>,
    },
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
    /// A part at an offset; refused where the tree would be too high.
    pub(super) fn new(at: usize, node: Node) -> Result<Expr, Mistake> {
        let height = 1 + node.parts().into_iter().map(|part| part.height).max().unwrap_or(0);
        match height > HEIGHT_LIMIT {
            true => Err(too_deep(at)),
            false => Ok(Expr { at, node, height }),
        }
    }

    /// How many parts there are one inside the other.
    pub(super) fn height(&self) -> usize {
        self.height
    }

    /// Looks at every part.
    pub(super) fn visit(&self, look: &mut dyn FnMut(&Expr)) {
        look(self);
        for part in self.node.parts() {
            part.visit(look);
        }
    }

    /// Whether a variable occurs; shadowing is not looked at.
    pub(super) fn mentions(&self, variable: &str) -> bool {
        match &self.node {
            Node::Ident(name) => name == variable,
            node => node.parts().into_iter().any(|part| part.mentions(variable)),
        }
    }
}

impl Node {
    /// What it consists of.
    fn parts(&self) -> Vec<&Expr> {
        match self {
            Node::Literal(_) | Node::Ident(_) => Vec::new(),
            Node::Select { of, .. } | Node::Has { of, .. } => vec![of],
            Node::Index { of, key, .. } => vec![of, key],
            Node::And(parts) | Node::Or(parts) => parts.iter().collect(),
            Node::Choice { condition, yes, no } => vec![condition, yes, no],
            Node::Call { target, arguments, .. } => {
                target.iter().map(|target| &**target).chain(arguments).collect()
            }
            Node::List(items) => items.iter().map(|(item, _)| item).collect(),
            Node::Map(entries) => entries.iter().flat_map(|(key, value, _)| [key, value]).collect(),
            Node::Message { fields, .. } => fields.iter().map(|(_, value, _)| value).collect(),
            Node::Loop(inner) => [&inner.range, &inner.body].into_iter().chain(&inner.filter).collect(),
            Node::Bind { value, body, .. } => vec![value, body],
        }
    }
}

/// Upstream's words.
pub(super) fn too_deep(at: usize) -> Mistake {
    Mistake { at, what: format!("expression recursion limit exceeded: {HEIGHT_LIMIT}") }
}

//! What an expression can cost at most, given how large its variables can be.

use super::{
    Type,
    ast::{Expr, Loop, Node},
    check::Checker,
};

/// The most that one evaluation can cost.
pub(super) fn estimate(expr: &Expr, variables: &[(&str, Type)]) -> u64 {
    let variables = variables.iter().map(|(name, kind)| (name.to_string(), kind.clone())).collect();
    Estimate { variables }.of(expr)
}

struct Estimate {
    variables: Vec<(String, Type)>,
}

impl Estimate {
    fn type_of(&self, expr: &Expr) -> Type {
        let variables: Vec<(&str, Type)> =
            self.variables.iter().map(|(name, kind)| (name.as_str(), kind.clone())).collect();
        Checker::new(&variables).type_of(expr)
    }

    fn sum<'e>(&mut self, parts: impl IntoIterator<Item = &'e Expr>) -> u64 {
        parts.into_iter().fold(0, |sum: u64, part| sum.saturating_add(self.of(part)))
    }

    fn of(&mut self, expr: &Expr) -> u64 {
        match &expr.node {
            Node::Literal(_) => 0,
            Node::Ident(_) => 1,
            Node::Select { of, .. } | Node::Has { of, .. } => self.of(of).saturating_add(1),
            Node::Index { of, key, .. } => self.sum([&**of, &**key]).saturating_add(1),
            Node::And(parts) | Node::Or(parts) => self.sum(parts).saturating_add(1),
            Node::Choice { condition, yes, no } => {
                let (yes, no) = (self.of(yes), self.of(no));
                self.of(condition).saturating_add(yes.max(no)).saturating_add(1)
            }
            Node::Call { function, target, arguments, .. } => {
                let parts: Vec<&Expr> = target.iter().map(|target| &**target).chain(arguments).collect();
                let own = self.call(function, &parts);
                self.sum(parts).saturating_add(own)
            }
            Node::List(items) => self.sum(items.iter().map(|(item, _)| item)).saturating_add(10),
            Node::Map(entries) => {
                self.sum(entries.iter().flat_map(|(key, value, _)| [key, value])).saturating_add(30)
            }
            Node::Message { fields, .. } => {
                self.sum(fields.iter().map(|(_, value, _)| value)).saturating_add(40)
            }
            Node::Loop(inner) => self.repeated(inner),
            Node::Bind { variable, value, body } => {
                let (cost, kind) = (self.of(value), self.type_of(value));
                self.variables.push((variable.clone(), kind));
                let total = cost.saturating_add(self.of(body)).saturating_add(1);
                self.variables.pop();
                total
            }
        }
    }

    /// A call itself, without its arguments.
    fn call(&self, function: &str, parts: &[&Expr]) -> u64 {
        let size = |part: &Expr| traversed(&self.type_of(part));
        let sizes: Vec<u64> = parts.iter().map(|part| size(part)).collect();
        let all = sizes.iter().fold(0, |sum: u64, size| sum.saturating_add(*size));
        let first = sizes.first().copied().unwrap_or_default();
        let second = sizes.get(1).copied().unwrap_or_default();
        match function {
            "size" | "type" => 1,
            "check" => super::authority::CHECK_COST,
            "@in" => second.saturating_add(1),
            "_==_" | "_!=_" => first.min(second).div_ceil(10).saturating_add(1),
            "matches" | "find" | "findAll" => first
                .saturating_add(1)
                .div_ceil(10)
                .saturating_mul(second.div_ceil(4).max(1))
                .saturating_add(1),
            "sets.contains" | "sets.intersects" | "sets.equivalent" => {
                first.saturating_mul(second).saturating_add(11)
            }
            "distinct" => first.saturating_mul(first).saturating_add(11),
            _ => (all / 10).saturating_add(1),
        }
    }

    fn repeated(&mut self, inner: &Loop) -> u64 {
        let (range_cost, range) = (self.of(&inner.range), self.type_of(&inner.range));
        let (first, value, steps) = match &range {
            Type::List(item, max) => (Type::Int, (**item).clone(), *max),
            Type::Map(key, value, max) if inner.second.is_some() => {
                ((**key).clone(), (**value).clone(), *max)
            }
            Type::Map(key, _, max) => (Type::Dyn, (**key).clone(), *max),
            Type::Optional(kind) => (Type::Dyn, (**kind).clone(), 1),
            _ => (Type::Dyn, Type::Dyn, range.max_size()),
        };
        let before = self.variables.len();
        match &inner.second {
            Some(second) => {
                self.variables.push((inner.variable.clone(), first));
                self.variables.push((second.clone(), value));
            }
            None => self.variables.push((inner.variable.clone(), value)),
        }
        let filter = inner.filter.as_ref().map_or(0, |filter| self.of(filter));
        let step = self.of(&inner.body).saturating_add(filter).saturating_add(2);
        self.variables.truncate(before);
        range_cost.saturating_add(steps.saturating_mul(step)).saturating_add(1)
    }
}

/// How much there is to look at in a value.
fn traversed(kind: &Type) -> u64 {
    match kind {
        Type::Text(max) | Type::Bytes(max) => *max,
        Type::List(item, max) => max.saturating_mul(traversed(item).max(1)),
        Type::Map(_, value, max) => max.saturating_mul(traversed(value).max(1)),
        Type::Object(object) => {
            object.fields.values().fold(1, |sum: u64, (_, kind)| sum.saturating_add(traversed(kind)))
        }
        Type::Optional(inner) => traversed(inner),
        Type::Dyn | Type::Parameter(_) => super::types::UNBOUNDED,
        _ => 1,
    }
}

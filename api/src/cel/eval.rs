//! Evaluates expressions, and counts what it costs.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use super::{
    Failure, Value,
    ast::{Expr, Loop, LoopKind, Node},
    functions,
};

/// One evaluation.
pub(super) struct Run<'a> {
    /// The innermost last.
    variables: Vec<(Cow<'a, str>, Value<'a>)>,
    limit: u64,
    /// In tenths, as looking at a character costs a tenth.
    tenths: u64,
}

const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;

type Answer<'a> = Result<Value<'a>, Failure>;

impl<'a> Run<'a> {
    pub(super) fn new(variables: &[(&'a str, Value<'a>)], limit: u64) -> Run<'a> {
        let variables = variables.iter().map(|(name, value)| (Cow::Borrowed(*name), value.clone()));
        Run { variables: variables.collect(), limit, tenths: 0 }
    }

    /// What it has cost so far.
    pub(super) fn spent(&self) -> u64 {
        self.tenths.div_ceil(10)
    }

    pub(super) fn spend(&mut self, cost: u64) -> Result<(), Failure> {
        self.spend_tenths(cost.saturating_mul(10))
    }

    /// What it costs to look at so many characters or items.
    pub(super) fn spend_tenths(&mut self, tenths: u64) -> Result<(), Failure> {
        self.tenths = self.tenths.saturating_add(tenths);
        if self.spent() > self.limit { Err(Failure::TooExpensive) } else { Ok(()) }
    }

    pub(super) fn eval(&mut self, expr: &Expr) -> Answer<'a> {
        match &expr.node {
            Node::Literal(value) => Ok(value.clone()),
            Node::Ident(name) => {
                self.spend(1)?;
                self.variable(name)
            }
            Node::Select { of, field, is_optional } => {
                let value = self.eval(of)?;
                self.spend(1)?;
                match (value, is_optional) {
                    (Value::Optional(inner), _) => {
                        Ok(Value::Optional(inner.and_then(|inner| inner.field(field)).map(Box::new)))
                    }
                    (value, true) => Ok(Value::Optional(value.field(field).map(Box::new))),
                    (value, false) => select(&value, field),
                }
            }
            Node::Has { of, field } => {
                let value = self.eval(of)?;
                self.spend(1)?;
                match value {
                    Value::Optional(inner) => {
                        Ok(Value::Bool(inner.is_some_and(|v| v.field(field).is_some())))
                    }
                    Value::Map(_) | Value::JsonMap(..) => {
                        Ok(Value::Bool(value.field(field).is_some_and(|value| !matches!(value, Value::Null))))
                    }
                    _ => Failure::error("no such overload"),
                }
            }
            Node::Index { of, key, is_optional } => {
                let (value, key) = (self.eval(of)?, self.eval(key)?);
                self.spend(1)?;
                match (value, is_optional) {
                    (Value::Optional(inner), _) => {
                        Ok(Value::Optional(inner.and_then(|inner| inner.get(&key)).map(Box::new)))
                    }
                    (value, true) => Ok(Value::Optional(value.get(&key).map(Box::new))),
                    (value, false) => index(&value, &key),
                }
            }
            Node::And(parts) => self.junction(parts, false),
            Node::Or(parts) => self.junction(parts, true),
            Node::Choice { condition, yes, no } => {
                let condition = self.truth(condition)?;
                self.spend(1)?;
                self.eval(if condition { yes } else { no })
            }
            Node::Call { function, target, arguments } => {
                let mut values = Vec::with_capacity(arguments.len() + 1);
                if let Some(target) = target {
                    values.push(self.eval(target)?);
                }
                // What stands in for a missing value is looked at only if it is missing.
                if matches!(function.as_str(), "orValue" | "or")
                    && let [Value::Optional(inner)] = &values[..]
                    && let [otherwise] = &arguments[..]
                {
                    let inner = inner.clone();
                    self.spend(1)?;
                    return match (inner, function.as_str()) {
                        (Some(value), "orValue") => Ok(*value),
                        (Some(value), _) => Ok(Value::Optional(Some(value))),
                        (None, _) => self.eval(otherwise),
                    };
                }
                for argument in arguments {
                    values.push(self.eval(argument)?);
                }
                functions::call(self, function, target.is_some(), &values)
            }
            Node::List(items) => {
                self.spend(LIST_COST)?;
                let mut list = Vec::with_capacity(items.len());
                for (item, is_optional) in items {
                    match (self.eval(item)?, is_optional) {
                        (Value::Optional(inner), true) => list.extend(inner.map(|value| *value)),
                        (value, _) => list.push(value),
                    }
                }
                Ok(Value::list(list))
            }
            Node::Map(entries) => {
                self.spend(MAP_COST)?;
                let mut map = BTreeMap::new();
                for (key, value, is_optional) in entries {
                    let key = self.eval(key)?;
                    let Some(key) = key.as_key() else { return Failure::error("unsupported key type") };
                    match (self.eval(value)?, is_optional) {
                        (Value::Optional(None), true) => {}
                        (Value::Optional(Some(value)), true) => drop(map.insert(key, *value)),
                        (value, _) => drop(map.insert(key, value)),
                    }
                }
                Ok(Value::Map(Arc::new(map)))
            }
            Node::Loop(inner) => self.repeat(inner),
            Node::Bind { variable, value, body } => {
                let value = self.eval(value)?;
                self.spend(1)?;
                self.with(variable, value, |run| run.eval(body))
            }
        }
    }

    fn variable(&self, name: &str) -> Answer<'a> {
        if let Some((_, value)) = self.variables.iter().rev().find(|(known, _)| known == name) {
            return Ok(value.clone());
        }
        match TYPES.iter().find(|known| **known == name) {
            Some(name) => Ok(Value::Type(type_value(name))),
            None => Failure::error(format!("no such attribute(s): {name}")),
        }
    }

    fn with<R>(&mut self, name: &str, value: Value<'a>, body: impl FnOnce(&mut Self) -> R) -> R {
        self.variables.push((Cow::Owned(name.to_string()), value));
        let result = body(self);
        self.variables.pop();
        result
    }

    fn truth(&mut self, expr: &Expr) -> Result<bool, Failure> {
        match self.eval(expr)? {
            Value::Bool(is_true) => Ok(is_true),
            _ => Failure::error("no such overload"),
        }
    }

    /// `&&` and `||`: what one part decides is decided, whatever is wrong with the others.
    fn junction(&mut self, parts: &[Expr], deciding: bool) -> Answer<'a> {
        let mut failure = None;
        for part in parts {
            match self.truth(part) {
                Ok(found) if found == deciding => return Ok(Value::Bool(deciding)),
                Ok(_) => {}
                Err(Failure::TooExpensive) => return Err(Failure::TooExpensive),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        self.spend(1)?;
        failure.map_or(Ok(Value::Bool(!deciding)), Err)
    }

    fn repeat(&mut self, inner: &Loop) -> Answer<'a> {
        let range = self.eval(&inner.range)?;
        if matches!(inner.kind, LoopKind::OptMap | LoopKind::OptFlatMap) {
            self.spend(1)?;
            return match range {
                Value::Optional(None) => Ok(Value::Optional(None)),
                Value::Optional(Some(value)) => {
                    let mapped = self.with(&inner.variable, *value, |run| run.eval(&inner.body))?;
                    Ok(match inner.kind {
                        LoopKind::OptMap => Value::Optional(Some(Box::new(mapped))),
                        _ => mapped,
                    })
                }
                _ => Failure::error("no such overload"),
            };
        }
        // With one variable a map is its keys; with two a list is indices and items.
        let steps: Vec<(Value<'a>, Value<'a>)> = match (range.items(), range.entries()) {
            (Some(items), _) => items
                .iter()
                .enumerate()
                .map(|(index, item)| (Value::Int(index as i64), item.clone()))
                .collect(),
            (_, Some(entries)) if inner.second.is_some() => entries,
            (_, Some(entries)) => entries.into_iter().map(|(key, _)| (Value::Null, key)).collect(),
            _ => return Failure::error("no such overload"),
        };
        Steps { inner, run: self }.take(steps)
    }
}

/// A loop over some values.
struct Steps<'r, 'l, 'a> {
    inner: &'l Loop,
    run: &'r mut Run<'a>,
}

impl<'a> Steps<'_, '_, 'a> {
    /// Evaluates something for one step.
    fn step(&mut self, expr: &Expr, step: &(Value<'a>, Value<'a>)) -> Answer<'a> {
        let Loop { variable, second, .. } = self.inner;
        self.run.spend(2)?;
        match second {
            Some(second) => {
                let (first, value) = step.clone();
                self.run.with(variable, first, |run| run.with(second, value, |run| run.eval(expr)))
            }
            None => self.run.with(variable, step.1.clone(), |run| run.eval(expr)),
        }
    }

    fn truth(&mut self, expr: &Expr, step: &(Value<'a>, Value<'a>)) -> Result<bool, Failure> {
        match self.step(expr, step)? {
            Value::Bool(is_true) => Ok(is_true),
            _ => Failure::error("no such overload"),
        }
    }

    fn is_meant(&mut self, step: &(Value<'a>, Value<'a>)) -> Result<bool, Failure> {
        match &self.inner.filter {
            Some(filter) => self.truth(filter, step),
            None => Ok(true),
        }
    }

    fn take(mut self, steps: Vec<(Value<'a>, Value<'a>)>) -> Answer<'a> {
        let body = &self.inner.body;
        self.run.spend(1)?;
        match self.inner.kind {
            LoopKind::All | LoopKind::Exists => {
                let deciding = self.inner.kind == LoopKind::Exists;
                let mut failure = None;
                for step in &steps {
                    match self.truth(body, step) {
                        Ok(found) if found == deciding => return Ok(Value::Bool(deciding)),
                        Ok(_) => {}
                        Err(Failure::TooExpensive) => return Err(Failure::TooExpensive),
                        Err(error) => failure = failure.or(Some(error)),
                    }
                }
                failure.map_or(Ok(Value::Bool(!deciding)), Err)
            }
            LoopKind::ExistsOne => {
                let mut count = 0;
                for step in &steps {
                    count += usize::from(self.truth(body, step)?);
                }
                Ok(Value::Bool(count == 1))
            }
            LoopKind::Filter => {
                let mut kept = Vec::new();
                for step in &steps {
                    if self.truth(body, step)? {
                        kept.push(step.1.clone());
                    }
                }
                Ok(Value::list(kept))
            }
            LoopKind::Map | LoopKind::TransformList => {
                let mut made = Vec::with_capacity(steps.len());
                for step in &steps {
                    if self.is_meant(step)? {
                        made.push(self.step(body, step)?);
                    }
                }
                Ok(Value::list(made))
            }
            LoopKind::TransformMap => {
                let mut made = BTreeMap::new();
                for step in &steps {
                    if self.is_meant(step)? {
                        let Some(key) = step.0.as_key() else {
                            return Failure::error("unsupported key type");
                        };
                        made.insert(key, self.step(body, step)?);
                    }
                }
                Ok(Value::Map(Arc::new(made)))
            }
            LoopKind::SortBy => {
                let mut keyed = Vec::with_capacity(steps.len());
                for step in &steps {
                    keyed.push((self.step(body, step)?, step.1.clone()));
                }
                keyed.sort_by(|(one, _), (other, _)| one.compare(other).unwrap_or(std::cmp::Ordering::Equal));
                Ok(Value::list(keyed.into_iter().map(|(_, value)| value).collect()))
            }
            LoopKind::OptMap | LoopKind::OptFlatMap => Failure::error("no such overload"),
        }
    }
}

/// Names that are types.
pub(super) const TYPES: [&str; 11] =
    ["int", "uint", "double", "string", "bytes", "bool", "list", "map", "null_type", "type", "optional_type"];

fn type_value(name: &'static str) -> &'static str {
    name
}

fn select<'a>(value: &Value<'a>, field: &str) -> Answer<'a> {
    match value {
        Value::Map(_) | Value::JsonMap(..) => {
            value.field(field).ok_or_else(|| Failure::Error(format!("no such key: {field}")))
        }
        _ => Failure::error("no such overload"),
    }
}

fn index<'a>(value: &Value<'a>, key: &Value<'a>) -> Answer<'a> {
    match value {
        Value::List(_) | Value::JsonList(..) => match key.as_index() {
            Some(place) => {
                value.get(key).ok_or_else(|| Failure::Error(format!("index out of bounds: {place}")))
            }
            None => Failure::error("no such overload"),
        },
        Value::Map(_) | Value::JsonMap(..) => value.get(key).ok_or_else(|| {
            let shown = match key {
                Value::Text(text) => text.to_string(),
                Value::Int(number) => number.to_string(),
                Value::Uint(number) => number.to_string(),
                Value::Bool(is_set) => is_set.to_string(),
                other => other.type_name().to_string(),
            };
            Failure::Error(format!("no such key: {shown}"))
        }),
        _ => Failure::error("no such overload"),
    }
}

//! Evaluates expressions, and counts what it costs.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    rc::Rc,
    sync::Arc,
};

use regex::Regex;

use super::{
    Failure, Lazy, MEMORY_LIMIT, Value,
    ast::{Expr, Loop, LoopKind, Node},
    functions, library,
    value::Key,
};

/// One evaluation.
pub(super) struct Run<'a> {
    /// The innermost last.
    variables: Vec<(Cow<'a, str>, Value<'a>)>,
    limit: u64,
    /// In tenths, as looking at a character costs a tenth.
    tenths: u64,
    /// How much memory may still be taken.
    pub(super) memory: usize,
    /// Patterns that were computed.
    patterns: HashMap<Arc<str>, Arc<Regex>>,
    /// What `variables` stands for.
    pub(super) lazy: Option<Rc<Lazy<'a>>>,
}

/// What compiling a pattern costs that is not known beforehand.
const PATTERN_COST: u64 = 1_000;
const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const MESSAGE_COST: u64 = 40;

type Answer<'a> = Result<Value<'a>, Failure>;

impl<'a> Run<'a> {
    pub(super) fn new(variables: &[(&'a str, Value<'a>)], limit: u64) -> Run<'a> {
        let variables = variables.iter().map(|(name, value)| (Cow::Borrowed(*name), value.clone()));
        Run {
            variables: variables.collect(),
            limit,
            tenths: 0,
            memory: MEMORY_LIMIT,
            patterns: HashMap::new(),
            lazy: None,
        }
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

    /// How much may still be spent.
    pub(super) fn left(&self) -> u64 {
        self.limit.saturating_sub(self.spent())
    }

    /// Makes room for so many bytes of text.
    pub(super) fn make_room(&mut self, bytes: usize) -> Result<(), Failure> {
        self.memory = self.memory.checked_sub(bytes).ok_or(Failure::TooExpensive)?;
        Ok(())
    }

    /// Makes room for a list of so many values.
    pub(super) fn make_room_for(&mut self, items: usize) -> Result<(), Failure> {
        self.make_room(items.saturating_mul(size_of::<Value<'_>>()))
    }

    /// A pattern that was computed; it is compiled once, and that has its price.
    pub(super) fn pattern(&mut self, text: &str) -> Result<Arc<Regex>, Failure> {
        if let Some(known) = self.patterns.get(text) {
            return Ok(known.clone());
        }
        self.spend(PATTERN_COST)?;
        let made = Arc::new(library::regex(text)?);
        self.patterns.insert(text.into(), made.clone());
        Ok(made)
    }

    pub(super) fn eval(&mut self, expr: &Expr) -> Answer<'a> {
        match &expr.node {
            Node::Literal(value) => Ok(value.clone()),
            Node::Ident(name) => {
                self.spend(1)?;
                self.variable(name)
            }
            Node::Select { of, field, is_optional } => self.select(of, field, *is_optional),
            Node::Has { of, field } => self.has(of, field),
            Node::Index { of, key, is_optional } => self.index(of, key, *is_optional),
            Node::And(parts) => self.junction(parts, false),
            Node::Or(parts) => self.junction(parts, true),
            Node::Choice { condition, yes, no } => {
                let condition = self.truth(condition)?;
                self.spend(1)?;
                self.eval(if condition { yes } else { no })
            }
            Node::Call { function, target, arguments, pattern } => {
                self.call(function, target.as_deref(), arguments, pattern.get())
            }
            Node::List(items) => self.list(items),
            Node::Map(entries) => self.map(entries),
            Node::Message { fields, .. } => self.message(fields),
            Node::Loop(inner) => self.repeat(inner),
            Node::Bind { variable, value, body } => {
                let value = self.eval(value)?;
                self.spend(1)?;
                self.with(variable, value, |run| run.eval(body))
            }
        }
    }

    // One function for each sort of node: a tree may be high, and the stack is not.

    fn select(&mut self, of: &Expr, field: &str, is_optional: bool) -> Answer<'a> {
        let value = self.eval(of)?;
        self.spend(1)?;
        match (value, is_optional) {
            (Value::Variables, false) => self.lazy_variable(field),
            (Value::Variables, true) => {
                self.lazy_variable(field).map(|value| Value::Optional(Some(Box::new(value))))
            }
            (Value::Check(check), false) if field == "requestResource" => match check.request_resource() {
                Some(check) => Ok(Value::Check(check.into())),
                None => Failure::error("no such overload"),
            },
            (Value::Optional(inner), _) => {
                Ok(Value::Optional(inner.and_then(|inner| inner.field(field)).map(Box::new)))
            }
            (value, true) => Ok(Value::Optional(value.field(field).map(Box::new))),
            (value, false) => select(&value, field),
        }
    }

    fn has(&mut self, of: &Expr, field: &str) -> Answer<'a> {
        let value = self.eval(of)?;
        self.spend(1)?;
        match value {
            Value::Variables => Ok(Value::Bool(self.lazy.as_ref().is_some_and(|lazy| lazy.has(field)))),
            Value::Optional(inner) => Ok(Value::Bool(inner.is_some_and(|v| v.field(field).is_some()))),
            Value::Map(_) | Value::JsonMap(..) => {
                Ok(Value::Bool(value.field(field).is_some_and(|value| !matches!(value, Value::Null))))
            }
            _ => Failure::error("no such overload"),
        }
    }

    fn index(&mut self, of: &Expr, key: &Expr, is_optional: bool) -> Answer<'a> {
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

    fn call(
        &mut self,
        function: &str,
        target: Option<&Expr>,
        arguments: &[Expr],
        pattern: Option<&Arc<Regex>>,
    ) -> Answer<'a> {
        let mut values = Vec::with_capacity(arguments.len() + 1);
        if let Some(target) = target {
            values.push(self.eval(target)?);
        }
        // What stands in for a missing value is looked at only if it is missing.
        if matches!(function, "orValue" | "or")
            && let [Value::Optional(inner)] = &values[..]
            && let [otherwise] = arguments
        {
            let inner = inner.clone();
            self.spend(1)?;
            return match (inner, function) {
                (Some(value), "orValue") => Ok(*value),
                (Some(value), _) => Ok(Value::Optional(Some(value))),
                (None, _) => self.eval(otherwise),
            };
        }
        for argument in arguments {
            values.push(self.eval(argument)?);
        }
        functions::call(self, function, target.is_some(), &values, pattern)
    }

    fn list(&mut self, items: &[(Expr, bool)]) -> Answer<'a> {
        self.spend(LIST_COST)?;
        self.make_room_for(items.len())?;
        let mut list = Vec::with_capacity(items.len());
        for (item, is_optional) in items {
            match (self.eval(item)?, is_optional) {
                (Value::Optional(inner), true) => list.extend(inner.map(|value| *value)),
                (value, _) => list.push(value),
            }
        }
        Ok(Value::list(list))
    }

    fn map(&mut self, entries: &[(Expr, Expr, bool)]) -> Answer<'a> {
        self.spend(MAP_COST)?;
        self.make_room_for(2 * entries.len())?;
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

    /// Fields of a message, which is a map to whoever gets it.
    fn message(&mut self, fields: &[(String, Expr, bool)]) -> Answer<'a> {
        self.spend(MESSAGE_COST)?;
        self.make_room_for(2 * fields.len())?;
        let mut map = BTreeMap::new();
        for (name, value, is_optional) in fields {
            match (self.eval(value)?, is_optional) {
                (Value::Optional(None), true) => {}
                (Value::Optional(Some(value)), true) => drop(map.insert(Key::Text(name.clone()), *value)),
                (value, _) => drop(map.insert(Key::Text(name.clone()), value)),
            }
        }
        Ok(Value::Map(Arc::new(map)))
    }

    /// Evaluates something else with variables of its own, on the same account.
    pub(super) fn inside(&mut self, variables: &[(&'a str, Value<'a>)], expr: &Expr) -> Answer<'a> {
        let mut inner = Run::new(variables, self.left());
        inner.memory = self.memory;
        inner.lazy = self.lazy.clone();
        let result = inner.eval(expr);
        self.memory = inner.memory;
        self.spend_tenths(inner.tenths)?;
        result
    }

    fn lazy_variable(&mut self, name: &str) -> Answer<'a> {
        match self.lazy.clone() {
            Some(lazy) => lazy.get(self, name),
            None => Failure::error(format!("no such key: {name}")),
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
                Err(failure) if failure.is_final() => return Err(failure),
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
        match range {
            Value::List(_) | Value::JsonList(..) | Value::Map(_) | Value::JsonMap(..) => {
                Steps { inner, run: self }.take(&range)
            }
            _ => Failure::error("no such overload"),
        }
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

    /// Goes through the range step by step: what is not reached costs neither time nor memory.
    fn take(mut self, range: &Value<'a>) -> Answer<'a> {
        let body = &self.inner.body;
        self.run.spend(1)?;
        let (steps, count) = (range.steps(self.inner.second.is_some()), range.size().unwrap_or(0));
        if !matches!(self.inner.kind, LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne) {
            self.run.make_room_for(count)?;
        }
        match self.inner.kind {
            LoopKind::All | LoopKind::Exists => {
                let deciding = self.inner.kind == LoopKind::Exists;
                let mut failure = None;
                for step in steps {
                    match self.truth(body, &step) {
                        Ok(found) if found == deciding => return Ok(Value::Bool(deciding)),
                        Ok(_) => {}
                        Err(failure) if failure.is_final() => return Err(failure),
                        Err(error) => failure = failure.or(Some(error)),
                    }
                }
                failure.map_or(Ok(Value::Bool(!deciding)), Err)
            }
            LoopKind::ExistsOne => {
                let mut count = 0;
                for step in steps {
                    count += usize::from(self.truth(body, &step)?);
                }
                Ok(Value::Bool(count == 1))
            }
            LoopKind::Filter => {
                let mut kept = Vec::new();
                for step in steps {
                    if self.truth(body, &step)? {
                        kept.push(step.1);
                    }
                }
                Ok(Value::list(kept))
            }
            LoopKind::Map | LoopKind::TransformList => {
                let mut made = Vec::with_capacity(count);
                for step in steps {
                    if self.is_meant(&step)? {
                        made.push(self.step(body, &step)?);
                    }
                }
                Ok(Value::list(made))
            }
            LoopKind::TransformMap => {
                let mut made = BTreeMap::new();
                for step in steps {
                    if self.is_meant(&step)? {
                        let Some(key) = step.0.as_key() else {
                            return Failure::error("unsupported key type");
                        };
                        made.insert(key, self.step(body, &step)?);
                    }
                }
                Ok(Value::Map(Arc::new(made)))
            }
            LoopKind::SortBy => {
                let mut keyed = Vec::with_capacity(count);
                for step in steps {
                    keyed.push((self.step(body, &step)?, step.1));
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

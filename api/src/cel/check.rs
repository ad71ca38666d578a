//! Finds out what type an expression has, and what cannot be right about it.

use std::collections::BTreeMap;

use super::{
    Mistake, Type, Value,
    ast::{Expr, Loop, LoopKind, Node},
    declarations::{Overload, overloads},
    eval::TYPES,
};

/// The type of `authorizer`.
pub(super) const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";

/// One pass over an expression.
pub(super) struct Checker {
    variables: Vec<(String, Type)>,
    pub(super) mistakes: Vec<Mistake>,
}

impl Checker {
    pub(super) fn new(variables: &[(&str, Type)]) -> Checker {
        let variables = variables.iter().map(|(name, kind)| (name.to_string(), kind.clone())).collect();
        Checker { variables, mistakes: Vec::new() }
    }

    /// The type of an expression; `Dyn` after a mistake.
    pub(super) fn type_of(&mut self, expr: &Expr) -> Type {
        match &expr.node {
            Node::Literal(value) => literal(value),
            Node::Ident(name) => self.variable(expr.at, name),
            Node::Select { of, field, is_optional } => {
                let kind = self.type_of(of);
                self.selected(expr.at, kind, field, *is_optional)
            }
            Node::Has { of, field } => {
                let kind = self.type_of(of);
                self.selected(expr.at, kind, field, true);
                Type::Bool
            }
            Node::Index { of, key, is_optional } => {
                let (kind, key) = (self.type_of(of), self.type_of(key));
                self.indexed(expr.at, kind, &key, *is_optional)
            }
            Node::And(parts) | Node::Or(parts) => {
                let name = if matches!(expr.node, Node::And(_)) { "_&&_" } else { "_||_" };
                for part in parts {
                    let kind = self.type_of(part);
                    self.expect_bool(part, name, &kind);
                }
                Type::Bool
            }
            Node::Choice { condition, yes, no } => {
                let kind = self.type_of(condition);
                self.expect_bool(condition, "_?_:_", &kind);
                let (yes, no) = (self.type_of(yes), self.type_of(no));
                if !yes.accepts(&no) && !no.accepts(&yes) {
                    self.no_overload(expr.at, "_?_:_", &[Type::Bool, yes, no]);
                    return Type::Dyn;
                }
                common(yes, no)
            }
            Node::Call { function, target, arguments, .. } => {
                let parts = target.iter().map(|target| &**target).chain(arguments);
                let kinds: Vec<Type> = parts.map(|part| self.type_of(part)).collect();
                self.called(expr.at, function, target.is_some(), &kinds)
            }
            Node::List(items) => {
                let kinds = items.iter().map(|(item, is_optional)| match (self.type_of(item), is_optional) {
                    (Type::Optional(inner), true) => (*inner).clone(),
                    (kind, _) => kind,
                });
                let kinds: Vec<Type> = kinds.collect();
                let size = kinds.len() as u64;
                Type::List(kinds.into_iter().reduce(common).unwrap_or(Type::Dyn).into(), size)
            }
            Node::Map(entries) => {
                let (mut keys, mut values) = (Vec::new(), Vec::new());
                for (key, value, _) in entries {
                    let kind = self.type_of(key);
                    keys.push(self.key(key.at, kind));
                    values.push(self.type_of(value));
                }
                let one = |kinds: Vec<Type>| kinds.into_iter().reduce(common).unwrap_or(Type::Dyn).into();
                Type::Map(one(keys), one(values), entries.len() as u64)
            }
            Node::Message { name, fields } => self.message(expr.at, name, fields),
            Node::Loop(inner) => self.repeated(expr.at, inner),
            Node::Bind { variable, value, body } => {
                let kind = self.type_of(value);
                self.with(&[(variable, kind)], |checker| checker.type_of(body))
            }
        }
    }

    fn mistake(&mut self, at: usize, what: String) -> Type {
        self.mistakes.push(Mistake { at, what });
        Type::Dyn
    }

    fn with<R>(&mut self, variables: &[(&String, Type)], body: impl FnOnce(&mut Checker) -> R) -> R {
        let before = self.variables.len();
        self.variables.extend(variables.iter().map(|(name, kind)| (name.to_string(), kind.clone())));
        let result = body(self);
        self.variables.truncate(before);
        result
    }

    fn variable(&mut self, at: usize, name: &str) -> Type {
        if let Some((_, kind)) = self.variables.iter().rev().find(|(known, _)| known == name) {
            return kind.clone();
        }
        if TYPES.contains(&name) {
            return Type::Named("type");
        }
        self.mistake(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn selected(&mut self, at: usize, kind: Type, field: &str, is_optional: bool) -> Type {
        let found = match &kind {
            Type::Optional(inner) => {
                let found = self.selected(at, (**inner).clone(), field, false);
                return Type::Optional(found.into());
            }
            Type::Object(object) => match object.fields.get(field) {
                Some((_, kind)) => kind.clone(),
                None => return self.mistake(at, format!("undefined field '{field}'")),
            },
            Type::Map(_, value, _) => (**value).clone(),
            Type::Dyn => Type::Dyn,
            Type::Named(AUTHORIZER) if field == "requestResource" => {
                Type::Named("kubernetes.authorization.ResourceCheck")
            }
            other => return self.mistake(at, format!("type '{other}' does not support field selection")),
        };
        if is_optional { Type::Optional(found.into()) } else { found }
    }

    fn indexed(&mut self, at: usize, kind: Type, key: &Type, is_optional: bool) -> Type {
        let found = match &kind {
            Type::Optional(inner) => {
                let found = self.indexed(at, (**inner).clone(), key, false);
                return Type::Optional(found.into());
            }
            Type::List(item, _) if Type::Int.accepts(key) => (**item).clone(),
            Type::Map(own, value, _) if own.accepts(key) => (**value).clone(),
            Type::Dyn => Type::Dyn,
            _ => {
                self.no_overload(at, "_[_]", &[kind.clone(), key.clone()]);
                return Type::Dyn;
            }
        };
        if is_optional { Type::Optional(found.into()) } else { found }
    }

    /// The type of a map's keys. Were a map one, a type could be twice as large as the one that it is made of, again
    /// and again.
    fn key(&mut self, at: usize, kind: Type) -> Type {
        let name = match kind {
            Type::Dyn | Type::Bool | Type::Int | Type::Uint | Type::Double | Type::Text(_) => return kind,
            Type::List(..) => "list".into(),
            Type::Map(..) => "map".into(),
            Type::Optional(_) => "optional_type".into(),
            other => other.to_string(),
        };
        self.mistake(at, format!("unsupported key type: {name}"))
    }

    /// The messages of mutations: `Object`, whose fields are `Object.field` in turn, and `JSONPatch`.
    fn message(&mut self, at: usize, name: &str, fields: &[(String, Expr, bool)]) -> Type {
        let space = name.split('.').next().unwrap_or_default();
        if !matches!(space, "Object" | "JSONPatch") || !self.variables.iter().any(|(known, _)| known == space)
        {
            return self.mistake(at, format!("undeclared reference to '{name}' (in container '')"));
        }
        for (field, value, is_optional) in fields {
            let kind = match (self.type_of(value), is_optional) {
                (Type::Optional(inner), true) => (*inner).clone(),
                (kind, _) => kind,
            };
            let is_wrong = match (&kind, space) {
                (Type::Message(found), "Object") => **found != format!("{name}.{field}"),
                (_, "JSONPatch") => match field.as_str() {
                    "op" | "path" | "from" => !Type::TEXT.accepts(&kind),
                    "value" => false,
                    _ => {
                        self.mistake(value.at, format!("undefined field '{field}'"));
                        false
                    }
                },
                _ => false,
            };
            if is_wrong {
                let wanted = if space == "Object" { format!("{name}.{field}") } else { "string".into() };
                let what =
                    format!("expected type of field '{field}' is '{wanted}' but provided type is '{kind}'");
                self.mistake(value.at, what);
            }
        }
        Type::Message(name.into())
    }

    fn expect_bool(&mut self, part: &Expr, function: &str, kind: &Type) {
        if !Type::Bool.accepts(kind) || *kind == Type::Null {
            self.no_overload(part.at, function, &[kind.clone(), Type::Bool]);
        }
    }

    fn no_overload(&mut self, at: usize, function: &str, kinds: &[Type]) {
        let kinds: Vec<String> = kinds.iter().map(Type::to_string).collect();
        let what = format!("found no matching overload for '{function}' applied to '({})'", kinds.join(", "));
        self.mistake(at, what);
    }

    fn called(&mut self, at: usize, function: &str, is_method: bool, kinds: &[Type]) -> Type {
        // The orders are declared once.
        let declared = if matches!(function, "_<=_" | "_>_" | "_>=_") { "_<_" } else { function };
        let Some(overloads) = overloads(declared) else {
            return self.mistake(at, format!("undeclared reference to '{function}' (in container '')"));
        };
        match overloads.iter().find_map(|overload| matched(overload, is_method, kinds)) {
            Some(kind) => kind,
            None => {
                let shown: Vec<String> = kinds.iter().map(Type::to_string).collect();
                let shown = match (is_method, shown.split_first()) {
                    (true, Some((target, rest))) => format!("{target}.({})", rest.join(", ")),
                    _ => format!("({})", shown.join(", ")),
                };
                self.mistake(at, format!("found no matching overload for '{function}' applied to '{shown}'"))
            }
        }
    }

    fn repeated(&mut self, at: usize, inner: &Loop) -> Type {
        let range = self.type_of(&inner.range);
        let (first, value) = match (&range, inner.kind) {
            (Type::Optional(kind), LoopKind::OptMap | LoopKind::OptFlatMap) => (Type::Dyn, (**kind).clone()),
            (Type::List(item, _), _) => (Type::Int, (**item).clone()),
            (Type::Map(key, value, _), _) if inner.second.is_some() => ((**key).clone(), (**value).clone()),
            (Type::Map(key, ..), _) => (Type::Dyn, (**key).clone()),
            (Type::Dyn, _) => (Type::Dyn, Type::Dyn),
            (other, _) => {
                let what = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                return self.mistake(at, what);
            }
        };
        let variables = match &inner.second {
            Some(second) => vec![(&inner.variable, first.clone()), (second, value.clone())],
            None => vec![(&inner.variable, value.clone())],
        };
        let size = range.max_size();
        self.with(&variables, |checker| {
            if let Some(filter) = &inner.filter {
                let kind = checker.type_of(filter);
                checker.expect_bool(filter, "_?_:_", &kind);
            }
            let body = checker.type_of(&inner.body);
            match inner.kind {
                LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne => {
                    checker.expect_bool(&inner.body, "_&&_", &body);
                    Type::Bool
                }
                LoopKind::Filter => {
                    checker.expect_bool(&inner.body, "_?_:_", &body);
                    Type::List(value.into(), size)
                }
                LoopKind::SortBy => Type::List(value.into(), size),
                LoopKind::Map | LoopKind::TransformList => Type::List(body.into(), size),
                LoopKind::TransformMap => Type::Map(checker.key(at, first).into(), body.into(), size),
                LoopKind::OptMap => Type::Optional(body.into()),
                LoopKind::OptFlatMap => body,
            }
        })
    }
}

fn literal(value: &Value<'_>) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::Text(text) => Type::Text(text.chars().count() as u64),
        Value::Bytes(bytes) => Type::Bytes(bytes.len() as u64),
        _ => Type::Dyn,
    }
}

/// A type that both fit.
fn common(one: Type, other: Type) -> Type {
    match (one, other) {
        (Type::Text(one), Type::Text(other)) => Type::Text(one.max(other)),
        (Type::Null, kind) | (kind, Type::Null) => kind,
        (one, other) if one.accepts(&other) && one != Type::Dyn && other != Type::Dyn => one,
        _ => Type::Dyn,
    }
}

/// What an overload gives for such arguments.
fn matched(overload: &Overload, is_method: bool, kinds: &[Type]) -> Option<Type> {
    if overload.is_method != is_method || overload.takes.len() != kinds.len() {
        return None;
    }
    let mut bound = BTreeMap::new();
    let fits = overload.takes.iter().zip(kinds).all(|(wanted, kind)| bind(wanted, kind, &mut bound));
    fits.then(|| filled(&overload.gives, &bound))
}

fn bind(wanted: &Type, kind: &Type, bound: &mut BTreeMap<char, Type>) -> bool {
    match (wanted, kind) {
        (Type::Parameter(letter), kind) => match bound.get(letter) {
            Some(known) => known.accepts(kind) || kind.accepts(known),
            None => {
                bound.insert(*letter, kind.clone());
                true
            }
        },
        (_, Type::Dyn) => true,
        (Type::List(wanted, _), Type::List(kind, _)) => bind(wanted, kind, bound),
        (Type::Optional(wanted), Type::Optional(kind)) => bind(wanted, kind, bound),
        (Type::Map(key, value, _), Type::Map(own_key, own_value, _)) => {
            bind(key, own_key, bound) && bind(value, own_value, bound)
        }
        (_, Type::Null) => false,
        (wanted, kind) => wanted.accepts(kind),
    }
}

fn filled(kind: &Type, bound: &BTreeMap<char, Type>) -> Type {
    match kind {
        Type::Parameter(letter) => bound.get(letter).cloned().unwrap_or(Type::Dyn),
        Type::List(item, max) => Type::List(filled(item, bound).into(), *max),
        Type::Optional(inner) => Type::Optional(filled(inner, bound).into()),
        Type::Map(key, value, max) => Type::Map(filled(key, bound).into(), filled(value, bound).into(), *max),
        other => other.clone(),
    }
}
